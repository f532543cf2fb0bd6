"""What a check counts in a data set, in memory that does not grow with its pixels."""

from collections.abc import Iterable, Sequence

import numpy as np

from knet.data.check.findings import CheckReport, ClassCount, Notes
from knet.data.readers.reader import Kernels
from knet.structures import Category, SegmentInfo

_FLAT = 16  # of 255: pictures of 12 bits or less that were stored as 16 bits, without stretching them, reach no more


class Tally:
    """Counts images, segments and pixels of each class; `notes` collects what is wrong.

    `kernels` are those of the model that is to learn from them.
    """

    def __init__(self, categories: Sequence[Category], kernels: Kernels | None = None):
        self.notes = Notes()
        self._categories, self._kernels = categories, kernels or Kernels()
        self._counts = [ClassCount(row.id, row.name, row.thing) for row in categories]
        self._pixels = self._void = 0
        self._ids: list[int] = []
        self._sizes: list[tuple[int, int]] = []

    def add_image(self, image: np.ndarray, name: str) -> None:
        """The picture of an image, (H,W,3) uint8."""
        height, width = image.shape[:2]
        low, high = int(image.min()), int(image.max())
        if high - low <= _FLAT:
            self.notes.add("image flat", f"{name} (values {low} to {high} of 255)")
        ordered = sorted({*self._sizes, (height, width)}, key=lambda size: size[0] * size[1])
        self._sizes = [ordered[0], ordered[-1]]

    def add_segments(self, segments: Sequence[SegmentInfo], name: str) -> None:
        """The segments of an image; a label of -1 belongs to no class."""
        ids = [segment.id for segment in segments] + self._ids
        self._ids = [min(ids), max(ids)] if ids else []
        for segment in segments:
            if segment.label >= 0:
                self._counts[segment.label].segments += not segment.crowd
                self._counts[segment.label].crowds += segment.crowd
        learned = {segment.label for segment in segments if segment.label >= 0 and not segment.crowd}
        for label in learned:
            self._counts[label].images += 1
        if not learned:
            self.notes.add("nothing to learn", name)
        needed = self._kernels.needed(segments, self._categories)
        if needed > self._kernels.count:
            self.notes.add("too many", f"{needed} in {name} ({self._kernels.count} kernels)")

    def add_pixels(self, pixels: int, void: int, areas: Iterable[tuple[int, int]]) -> None:
        """The pixels of an image, how many of them are void, and (label, area) of its segments."""
        self._pixels += pixels
        self._void += void
        for label, area in areas:
            if label >= 0:
                self._counts[label].pixels += area

    def report(self, name: str, images: int) -> CheckReport:
        """All that was counted and noted."""
        for counts in self._counts:
            counts.share = counts.pixels / max(self._pixels - self._void, 1)
            if images and not counts.segments + counts.crowds:
                self.notes.add("class absent", counts.name)
        if images and not any(counts.segments for counts in self._counts):
            self.notes.add("nothing at all", name)
        category_ids = [counts.id for counts in self._counts]
        return CheckReport(
            name=name,
            images=images,
            findings=self.notes.findings(),
            classes=self._counts,
            void_share=self._void / max(self._pixels, 1),
            segment_ids=(self._ids[0], self._ids[1]) if self._ids else None,
            category_ids=(min(category_ids), max(category_ids)) if category_ids else None,
            sizes=(self._sizes[0], self._sizes[1]) if self._sizes else None,
        )
