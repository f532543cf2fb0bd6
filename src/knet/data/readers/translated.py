"""Clips, and JSON files of objects, in the classes of a run: by a mapping of names, several of which may become one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import things_from_rows
from knet.data.files.numbers import whole
from knet.data.readers.clips import NUMBERS, ClipReader, FrameFiles, split_id
from knet.data.readers.mixture import translate_labels
from knet.errors import ConfigError, DataError
from knet.structures import Category, SegmentInfo


class TranslatedClips(ClipReader):
    """The clips of a reader in other classes.

    Objects of several classes that become one keep numbers of their own, the same in all frames. A thing that becomes
    stuff loses its number; stuff that becomes a thing is a crowd: how many objects it is, nobody said.

    Attributes:
        reader: of the clips as they are.

    Args:
        labels: the label among `categories` of each of the reader's own classes, None for void.
    """

    def __init__(self, reader: ClipReader, labels: Sequence[int | None], categories: Sequence[Category]):
        self.reader, self._labels = reader, labels
        self._merged = Counter(labels)  # how many classes become each
        self._place = [labels[:own].count(label) for own, label in enumerate(labels)]
        super().__init__(reader._frames, categories, "The translated set")

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        id_map, segments = self.reader._decode(frame, truth)
        found, inverse = np.unique(id_map, return_inverse=True)
        crowd_of = {segment.id: segment.crowd for segment in segments}
        ids, crowds = [], dict[int, bool]()
        for id_ in found.tolist():
            new, crowd = self._new_id(id_, crowd_of.get(id_, False), frame)
            ids.append(new)
            if new:
                crowds[new] = crowd
        kept = [SegmentInfo(id_, split_id(id_)[0], crowd) for id_, crowd in crowds.items()]
        return np.array(ids, np.int32)[inverse].reshape(id_map.shape), kept

    def _new_id(self, id_: int, crowd: bool, frame: FrameFiles) -> tuple[int, bool]:
        """What becomes of a segment's id, 0 for void, and whether it is a crowd."""
        own, number = split_id(id_)
        label = self._labels[own] if own >= 0 else None
        if label is None:
            return 0, False
        thing, was_thing = self.categories[label].thing, self.reader.categories[own].thing
        if not thing:
            return (label + 1) * NUMBERS, False
        if number:
            number = (number - 1) * self._merged[label] + self._place[own] + 1
        if number >= NUMBERS:
            raise DataError(
                f"{frame.clip}/{frame.number:06d}: an object would get the number {number} where classes become one, "
                f"but a clip holds {NUMBERS - 1}; number the objects of each clip from 1."
            )
        return (label + 1) * NUMBERS + number, crowd or not was_thing


def translated_objects(
    content: Any,
    whole_: str,
    mapping: Mapping[str, str],
    categories: Sequence[Category] | None,
    names: Sequence[str],
    title: str,
) -> tuple[dict[str, Any], tuple[Category, ...]]:
    """The content of a COCO instances or YouTube-VIS file in other classes, and these.

    Objects of classes that become void are left out. Without `categories` the file's own stay.

    Args:
        whole_: what objects lie in, "image" or "video".
        names: patterns of the images' ids; the others are left out.

    Raises:
        ConfigError: a name of the mapping does not exist, or no image fits a pattern.
        DataError: it is no such file.
    """
    wholes = content.get(f"{whole_}s") if isinstance(content, Mapping) else None
    if not isinstance(wholes, list):
        raise DataError(f"The JSON of {title} must hold a list '{whole_}s'; give one of objects.")
    own = things_from_rows(content.get("categories"), title)
    target = tuple(own if categories is None else categories)
    labels = dict(zip((row.id for row in own), translate_labels(own, mapping, target, title), strict=True))
    wholes = [row for row in wholes if not names or _fits(row, names)]
    if names and not wholes:
        raise ConfigError(f"No {whole_} of {title} has an id like {', '.join(names)}.")
    kept = {str(row.get("id")) for row in wholes if isinstance(row, Mapping)}
    rows = list[Any]()
    for row in content.get("annotations") or []:
        id_ = whole(row.get("category_id")) if isinstance(row, Mapping) else None
        if id_ not in labels:  # the reader says what is wrong with it
            rows.append(row)
        elif (label := labels[id_]) is not None and (not names or str(row.get(f"{whole_}_id")) in kept):
            rows.append({**row, "category_id": target[label].id})
    listed = [{"id": row.id, "name": row.name} for row in target]
    known = {"annotations": rows} if "annotations" in content else {}
    return {**content, f"{whole_}s": wholes, **known, "categories": listed}, target


def _fits(row: Any, patterns: Sequence[str]) -> bool:
    return isinstance(row, Mapping) and any(fnmatchcase(str(row.get("id")), one) for one in patterns)
