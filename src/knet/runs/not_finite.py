"""An image of which a network says no finite numbers counts as one in which it found nothing, and is named."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np

from knet.distributed import gather_objects
from knet.errors import NotFiniteError
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter

_logger = logging.getLogger("knet")
_TOLD = 3  # images that are named at once, one by one


class NotFinite:
    """The images, or clips, of an evaluation of which the network said no finite numbers, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Lets the block end early where the network says nothing of the image of this name."""
        try:
            yield
        except NotFiniteError as error:
            self.names.append(name)
            if len(self.names) <= _TOLD:
                _logger.warning("%s Here it counts as if nothing had been found.", error)

    def segment(self, segmenter: Segmenter, image: np.ndarray, name: str) -> Segmentation:
        """The result of an image; without any segment where the network says nothing of it."""
        with self.noted(name):
            return segmenter.segment(image, name)
        return nothing(segmenter, image, name)

    def result(self) -> dict[str, list[str]]:
        """{"not_finite": the names of all processes}; empty where there are none."""
        names = list(chain.from_iterable(gather_objects(self.names)))
        if len(names) > _TOLD:
            _logger.warning("%d images in all counted as if nothing had been found in them.", len(names))
        return {"not_finite": names} if names else {}


def nothing(segmenter: Segmenter, image: np.ndarray, name: str) -> Segmentation:
    """A result of a model without any segment."""
    return Segmentation(np.zeros(image.shape[:2], np.int32), [], tuple(segmenter.categories), name)
