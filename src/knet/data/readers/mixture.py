"""Several data sets as one: images chosen by name, classes translated by name, and how often each set is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from knet.class_names import same_names
from knet.data.files.io import name_some
from knet.data.readers.reader import Reader
from knet.errors import ConfigError, did_you_mean
from knet.structures import Category, Sample, SegmentInfo

VOID, OTHERS = "void", "*"  # in mappings of classes: no class, and all classes that are not listed


class Share(NamedTuple):
    """How many images one of the sets has, and as how many it counts when they are drawn."""

    images: int
    weight: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a mixture takes from a data set.

    Attributes:
        title: what the set is called in messages.
        reader: the set.
        indices: its images that take part.
        labels: the mixture's label for each of the set's own, None for void.
        weight: as how many images it counts when images are drawn.
        unlabelled: labels of the mixture that nobody labelled in this set.
        ignore_void: whether no loss looks at void pixels and crowds.
        only_objects: whether pixels without a segment are known to be no object, rather than void.
        paste: whether its objects may be pasted into other images.
    """

    title: str
    reader: Reader
    indices: Sequence[int]
    labels: Sequence[int | None]
    weight: int
    unlabelled: tuple[int, ...] = ()
    ignore_void: bool = False
    only_objects: bool = False
    paste: bool = False

    def translate(self, sample: Sample, categories: Sequence[Category]) -> Sample:
        """The sample in the mixture's classes."""
        segments, value_of = self.translate_segments(sample.segments, categories)
        id_map = _replaced(sample.id_map, value_of)
        ignored = {segment.id for segment in segments if segment.crowd} if self.ignore_void else set()
        ignored |= {0} if self.ignore_void and not self.only_objects else set()
        return Sample(sample.name, sample.image, id_map, segments, frozenset(ignored), self.unlabelled)

    def translate_segments(
        self, own: Sequence[SegmentInfo], categories: Sequence[Category]
    ) -> tuple[list[SegmentInfo], dict[int, int]]:
        """The segments in the mixture's classes, and what replaces the ids that are no segment any more.

        Segments that become one class of stuff become one segment. Stuff that becomes a thing is a crowd: how many
        objects it is, nobody said.
        """
        segments: list[SegmentInfo] = []
        value_of: dict[int, int] = {}
        first_of: dict[int, int] = {}  # the first segment of each class of stuff
        for segment in own:
            label = self.labels[segment.label]
            if label is None:
                if self.only_objects and self.ignore_void:  # 0 is background there, and this is not
                    segments.append(replace(segment, label=0, crowd=True))
                else:
                    value_of[segment.id] = 0
                continue
            thing = categories[label].thing
            if not thing and label in first_of:
                value_of[segment.id] = first_of[label]
                continue
            first_of.setdefault(label, segment.id)
            crowd = thing and (segment.crowd or not self.reader.categories[segment.label].thing)
            segments.append(SegmentInfo(segment.id, label, crowd))
        return segments, value_of


class Mixture:
    """Several sets as one in which they follow each other, with the same classes.

    Args:
        parts: at least one.
        categories: the classes in label order.
    """

    def __init__(self, parts: Sequence[Part], categories: Sequence[Category]):
        self.parts, self.categories = tuple(parts), tuple(categories)
        self._starts = [0, *accumulate(len(part.indices) for part in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def shares(self) -> tuple[Share, ...]:
        """For each set its images and its weight."""
        return tuple(Share(len(part.indices), part.weight) for part in self.parts)

    @property
    def donors(self) -> list[int]:
        """The images whose objects may be pasted into others."""
        bounds = zip(self.parts, self._starts, self._starts[1:], strict=False)
        return [index for part, start, stop in bounds if part.paste for index in range(start, stop)]

    def name(self, index: int) -> str:
        """What the set calls the image."""
        part, own = self._find(index)
        return part.reader.name(own)

    def read(self, index: int) -> Sample:
        """Reads an image with its truth in the mixture's classes."""
        part, own = self._find(index)
        return part.translate(part.reader.read(own), self.categories)

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3) where the set can be read without."""
        part, own = self._find(index)
        read = getattr(part.reader, "read_truth", part.reader.read)
        return part.translate(read(own), self.categories)

    def segments(self, index: int) -> list[SegmentInfo]:
        """The segments of an image in the mixture's classes, without opening a picture where the set allows it."""
        part, own = self._find(index)
        known: Any = getattr(part.reader, "segments", None)
        if known is None:
            return self.read_truth(index).segments
        return part.translate_segments(known(own), self.categories)[0]

    def describe(self) -> str:
        """A line that says how often images of each set are drawn."""
        total = sum(part.weight for part in self.parts)
        drawn = (
            f"{len(part.indices)} of {part.title}, {part.weight / total:.0%} of those drawn" for part in self.parts
        )
        return f"images: {'; '.join(drawn)}"

    def _find(self, index: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part = self.parts[number]
        return part, part.indices[index - self._starts[number]]


def names_like(reader: Reader, patterns: Sequence[str], title: str) -> list[int]:
    """The images whose name fits one of the patterns; all of them where there are none.

    Raises:
        ConfigError: no image fits a pattern.
    """
    names = [reader.name(index) for index in range(len(reader))]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"No image of {title} is called '{pattern}'; it has {name_some(names)}.")
    return [n for n, name in enumerate(names) if not patterns or any(fnmatchcase(name, one) for one in patterns)]


def translate_labels(
    own: Sequence[Category], mapping: Mapping[str, str], categories: Sequence[Category], title: str
) -> list[int | None]:
    """For each of a set's own classes its label among `categories`, None for void, by a mapping of names.

    Raises:
        ConfigError: a name of the mapping does not exist, or a class is neither in the mapping nor in `categories`.
    """
    names = [category.name for category in categories]
    label_of: dict[str, int | None] = {name: label for label, name in enumerate(names)} | {VOID: None}
    own_names = [category.name for category in own]
    for source, target in mapping.items():
        _check_name(source, [*own_names, OTHERS], f"{title} has no class")
        _check_name(target, label_of, f"The class '{source}' of {title} cannot be")
    labels = []
    for name, same in zip(own_names, same_names(own_names, names), strict=True):
        target = mapping.get(name, mapping.get(OTHERS, "") if same is None else names[same])
        if target not in label_of:
            raise ConfigError(
                f"The class '{name}' of {title} is none of the run's; say which it is in the set's classes, such as "
                f"{{{name}: {VOID}}}, or {{'{OTHERS}': {VOID}}} for all that are not listed."
            )
        labels.append(label_of[target])
    return labels


def labels_called(names: Iterable[str], categories: Sequence[Category], what: str) -> tuple[int, ...]:
    """The labels of classes by name. Raises `ConfigError`, which `what` begins, for one that does not exist."""
    label_of = {category.name: label for label, category in enumerate(categories)}
    for name in names:
        _check_name(name, label_of, what)
    return tuple(label_of[name] for name in names)


def _check_name(name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        hint = did_you_mean(name, known, f"give one of: {', '.join(known)}.")
        raise ConfigError(f"{what} '{name}'; {hint}")


def _replaced(id_map: np.ndarray, value_of: Mapping[int, int]) -> np.ndarray:
    """The id map with some values replaced by others."""
    if not value_of:
        return id_map
    result = id_map.copy()
    for old, new in value_of.items():
        result[id_map == old] = new
    return result
