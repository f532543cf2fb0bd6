"""Which images of a run are done: a line for each in a file beside the results, so that a killed run can go on.

The file is in the folder of the results: `.knet-predict.jsonl`, or `.knet-predict-2-of-8.jsonl` of the second of eight
processes that share a run. Its first line has the options that results depend on. An image's line is written when all
its files are there, and holds the image's rows of documents about all images, such as `panoptic.json`, which are put
together from the lines at the end. A line that was cut off by the end of a process counts for nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import Any, cast

from knet.errors import ConfigError, shown
from knet.files import exists, open_own
from knet.inference.results.files import Appended, make_folder, refused
from knet.inference.sources.plan import ImagePlan
from knet.parse import ParseError, parse_json

_NOWHERE = -1
_BLOCK = 1 << 16  # bytes that are read at once
_LONGEST = 1 << 28  # bytes of a line; thousands of objects have some megabytes


class Journal:
    """The journal of one process of a run. A context manager: it is closed at the end.

    Args:
        folder: of the results.
        plan: all images of the run.
        options: what the results depend on, as plain data.
        shard: the number of this process, from 1, and how many there are; each does every so many images.
        resume: what an earlier run did counts as done, where its files are there and the image is the same.

    Raises:
        ConfigError: the run that is to be resumed had other options, or is still going on.
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        plan: ImagePlan,
        options: dict[str, Any],
        shard: tuple[int, int] = (1, 1),
        resume: bool = False,
    ):
        self.folder, self._plan, self.shard = make_folder(Path(folder)), plan, shard
        self._head = json.loads(json.dumps({"options": options, "images": len(plan)}))
        self._asked, self._ended, self._clean = resume or shard[1] > 1, False, False
        self.path = self._path(shard[0])
        self._stack, self._named = ExitStack(), True
        self._lines = Appended(self._open(), self.path)
        self._offsets = array("q", [_NOWHERE]) * len(plan)
        if not resume or not self._take_up():
            self._lines.cut(0)
            self._append(self._head)
        self.resumed = sum(offset != _NOWHERE for offset in self._offsets)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file, and removes it where it is of no use: nothing is left to do, or nothing was done yet."""
        useless = self._clean or all(offset == _NOWHERE for offset in self._offsets)
        if useless and self._named and not self._asked:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._stack.close()

    def places(self) -> Iterator[int]:
        """The places in the plan of the images that this process still has to do."""
        mine = range(self.shard[0] - 1, len(self._plan), self.shard[1])
        return (place for place in mine if self._offsets[place] == _NOWHERE)

    def add(self, place: int, files: Sequence[Path], rows: Sequence[Any]) -> None:
        """Notes that an image is done: its files are there, and `rows` are for the documents about all images."""
        line = {"at": place, "image": self._plan.paths[place], "name": self._plan.name(place)}
        line |= {"stamp": self._plan.stamp(place), "files": [os.path.relpath(file, self.folder) for file in files]}
        offset = self._lines.size
        self._append(line | {"rows": rows})
        self._offsets[place] = offset

    def end(self, clean: bool) -> None:
        """Notes that each image of this process was done, or, if it is not `clean`, could not be read."""
        self._append({"end": True})
        self._ended, self._clean = True, clean

    def rows(self) -> Iterator[Sequence[Any]] | None:
        """The `rows` of all images that are done, in the order of the plan; None while other processes have images."""
        parts = [(self._lines.file, self._offsets)]
        if self.shard[1] > 1 and not self._ended:
            return None
        with ExitStack() as stack:
            for number in range(1, self.shard[1] + 1):
                if number != self.shard[0]:
                    part = self._other(number, stack)
                    if part is None:
                        return None
                    parts.append(part)
            return self._rows_of(parts, stack.pop_all())

    def _rows_of(self, parts: list[tuple[FileIO, array[int]]], stack: ExitStack) -> Iterator[Sequence[Any]]:
        with stack:
            for place in range(len(self._plan)):
                for file, offsets in parts:
                    if offsets[place] != _NOWHERE:
                        yield next(_lines_of(file, offsets[place]))[0]["rows"]
                        break

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(json.dumps(line).encode() + b"\n")

    def _path(self, number: int) -> Path:
        part = f"-{number}-of-{self.shard[1]}" if self.shard[1] > 1 else ""
        return self.folder / f".knet-predict{part}.jsonl"

    def _open(self) -> FileIO:
        """The file, locked. Runs that share a folder without being told to resume have one without a name."""
        try:
            file = self._stack.enter_context(FileIO(open_own(self.path, os.O_RDWR | os.O_CREAT), "r+"))
            if not _locked(file):
                return file
            if self._asked:
                raise ConfigError(
                    f"Another process still writes these results to '{self.folder}'; wait for its end, or stop it."
                )
            self._named = False
            return cast(FileIO, self._stack.enter_context(tempfile.TemporaryFile(dir=self.folder, buffering=0)))
        except OSError as error:
            raise refused(self.path, error) from error

    def _take_up(self) -> bool:
        """Whether there was a run to go on with; what it did is noted then."""
        lines = _lines_of(self._lines.file)
        found, size = next(lines, ({}, 0))
        if not size:
            return False
        self._compare(found)
        offset = size
        find = _Finder(self._plan)
        for line, after in lines:
            place = find(line)
            if place is not None and self._is_done(place, line):
                self._offsets[place] = offset
            offset = after
        self._lines.size = offset
        self._lines.cut(offset)
        return True

    def _compare(self, head: dict[str, Any]) -> None:
        before, now = head.get("options"), self._head["options"]
        before = before if isinstance(before, dict) else {}
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise ConfigError(
                    f"The results in '{self.folder}' were made with {name} {shown(before.get(name))}, and now it is "
                    f"{shown(now.get(name))}; give the same options, leave --resume out, or choose another --output."
                )

    def _is_done(self, place: int, line: dict[str, Any]) -> bool:
        stamp = self._plan.stamp(place)
        same = line["name"] == self._plan.name(place) and line["stamp"] == (None if stamp is None else list(stamp))
        return same and all(exists(self.folder / file) for file in line["files"])

    def _other(self, number: int, stack: ExitStack) -> tuple[FileIO, array[int]] | None:
        """The file of another process and where in it images stand; None if it has not come to its end."""
        try:
            file = stack.enter_context(FileIO(open_own(self._path(number), os.O_RDONLY), "r"))
        except OSError:
            return None
        lines = _lines_of(file)
        head, offset = next(lines, ({}, 0))
        if head != self._head:
            return None
        offsets, ended, find = array("q", [_NOWHERE]) * len(self._plan), False, _Finder(self._plan)
        for line, after in lines:
            ended = "end" in line
            place = find(line)
            if place is not None:
                offsets[place] = offset
            offset = after
        return (file, offsets) if ended else None


class _Finder:
    """The place in a plan of the image that a line is about; None if there is none."""

    def __init__(self, plan: ImagePlan):
        self._plan, self._places = plan, dict[str, int]()

    def __call__(self, line: dict[str, Any]) -> int | None:
        if not _tells_of_an_image(line):
            return None
        place, image = line["at"], line["image"]
        if 0 <= place < len(self._plan) and self._plan.paths[place] == image:
            return cast(int, place)
        if not self._places:  # other images have come in between
            self._places = {path: place for place, path in enumerate(self._plan.paths)}
        return self._places.get(image)


def _tells_of_an_image(line: dict[str, Any]) -> bool:
    """Whether a line is one that `Journal.add` may have written."""
    kinds = {"at": int, "image": str, "name": str, "stamp": list | None, "files": list, "rows": list}
    return (
        kinds.keys() <= line.keys()
        and all(isinstance(line[key], kind) for key, kind in kinds.items())
        and all(isinstance(file, str) for file in line["files"])
    )


def _lines_of(file: FileIO, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines of a journal, each with the place in the file where it ends, as far as they are whole."""
    for text in _texts(file, offset):
        try:
            line = parse_json(text)
        except ParseError:
            return
        if not isinstance(line, dict) or not text.endswith(b"\n"):
            return
        offset += len(text)
        yield line, offset


def _texts(file: FileIO, offset: int) -> Iterator[bytes]:
    """The lines from a place in a file on, wherever it is written at the moment; the last may lack its end."""
    rest = bytearray()
    while len(rest) <= _LONGEST and (block := os.pread(file.fileno(), _BLOCK, offset)):
        offset += len(block)
        *whole, end = block.split(b"\n")
        for text in whole:
            yield bytes(rest) + text + b"\n"
            rest.clear()
        rest += end
    if rest:
        yield bytes(rest)


def _locked(file: FileIO) -> bool:
    """Whether another process holds the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
