"""What `knet predict --json` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knet.inference.results.segmentation import Segmentation
    from knet.inference.sources.streams import Frame


class JsonDocument:
    """Prints a JSON document of results, each on a line of its own as soon as it is there; or nothing."""

    def __init__(self, wanted: bool, failed: Sequence[str]):
        self.wanted, self.failed, self.unfinished = wanted, failed, False
        self._head = '{"results": [\n'

    def add(self, frame: Frame, result: Segmentation) -> None:
        """Prints the row of a frame."""
        if self.wanted:
            time = {} if frame.item.seconds is None else {"time": frame.item.seconds}
            row = {"image": str(frame.item.path or frame.item.name), **time, **result.to_dict()}
            print(f"{self._head}{json.dumps(row)}", flush=True)
            self._head = ","

    def __enter__(self) -> JsonDocument:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if self.wanted and (kind is None or (self._head == "," and not issubclass(kind, BrokenPipeError))):
            early = ', "unfinished": true' if self.unfinished or kind is not None else ""
            head = "" if self._head == "," else self._head
            print(f'{head}], "failed": {json.dumps(self.failed)}{early}}}', flush=True)
