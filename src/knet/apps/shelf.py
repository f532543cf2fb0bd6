"""The models of the page: the bundled one, published ones that were fetched before, and files of the user."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knet.errors import ConfigError
from knet.inference.load import bundled_file, load
from knet.inference.segmenter import Segmenter
from knet.models.zoo import ZOO
from knet.weights.fetch import released_here

BUNDLED = "rtknet-lite-street"
_LOADED = 2  # models in memory at a time


class Shelf:
    """Models by the name that the page shows, loaded when they are asked for; the two used last stay in memory.

    Args:
        given: names of models, or files, of the user.
        options: for `knet.load`: device, threads.

    Raises:
        KNetError: one of those `given` cannot be loaded, or is for clips.
    """

    def __init__(self, given: Sequence[str] = (), **options: Any):
        at_hand = [
            name for name, row in ZOO.items() if row.task != "clip" and (bundled_file(name) or released_here(name))
        ]
        self._places = {name: name for name in sorted(at_hand, key=lambda name: name != BUNDLED)}
        self._options, self._loaded, self._lock = options, OrderedDict[str, Segmenter](), threading.Lock()
        for place in given:
            name = place if place in ZOO else Path(place).name
            while name in self._places and self._places[name] != place:
                name = f"{name} (another)"
            self._places[name] = place
            if self[name].task == "clip":
                raise ConfigError(f"The model '{place}' is for clips, and the page shows single frames; leave it out.")

    @property
    def names(self) -> list[str]:
        """All of them, the bundled one first."""
        return list(self._places)

    def __getitem__(self, name: str) -> Segmenter:
        if name not in self._places:
            raise ConfigError(f"The page has no model '{name}'; it has: {', '.join(self._places)}.")
        with self._lock:
            if name not in self._loaded:
                while len(self._loaded) >= _LOADED:
                    self._loaded.popitem(last=False)
                self._loaded[name] = load(self._places[name], **self._options)
            self._loaded.move_to_end(name)
            return self._loaded[name]
