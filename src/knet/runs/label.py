"""Labels from models: a data set made of images alone, void where the models disagree or are unsure."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scipy import ndimage
from tqdm import tqdm

from knet.calls import named_options
from knet.data.categories import rows_for_json
from knet.data.files.io import list_images, name_some, read_image, without_ending
from knet.data.files.outlines import polygons
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.make.same_classes import Renames, check_renames, match_classes
from knet.errors import ConfigError, DataError, PredictionError, members, require, shown
from knet.files import UniqueNames, atomic_path
from knet.inference.results.writers import CocoFile
from knet.inference.segmenter import Segmenter
from knet.inference.votes import check_voter, cut_segments, vote
from knet.merge.votes import agreed
from knet.structures import Category

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from knet.structures import SegmentInfo

SMALLEST_PIECE = 20


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How sure and how equal votes must be; ConfigError for a value out of range.

    Attributes:
        scales, flip: see `knet.inference.votes.vote`.
        agree: the share of the models that must name the class of a pixel, above 0.5.
        score: how likely they must find it in the mean.
        minimum_area: pieces of fewer pixels are void.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    agree: float = 1.0
    score: float = 0.4
    minimum_area: int = SMALLEST_PIECE

    def __post_init__(self) -> None:
        scales, thresholds = members(self.scales) or (), {"agree": self.agree, "score": self.score}
        if not scales or not all(isinstance(scale, Real) and 0 < float(scale) < 100 for scale in scales):
            raise ConfigError(f"The scales {shown(self.scales)} must be numbers above 0, such as 0.75,1,1.25.")
        require(Real, "a number", **thresholds)
        require(Integral, "a whole number", minimum_area=self.minimum_area)
        require(bool, "True or False", flip=self.flip)
        if not 0.5 < self.agree <= 1:
            raise ConfigError(f"The share of models that must agree is {self.agree}; give more than 0.5, at most 1.")
        if not 0 <= self.score <= 1:
            raise ConfigError(f"The score threshold {self.score} is not between 0 and 1.")
        if self.minimum_area < 0:
            raise ConfigError(f"minimum_area is {self.minimum_area}; give a number of pixels, 0 to keep every piece.")


@dataclass(slots=True)
class Labels:
    """What `label_images` made.

    Attributes:
        json, masks: the data set in the COCO panoptic form.
        objects: all segments as polygons, in the COCO instances form, for annotation tools.
        classes: the class table.
        images: how many were labelled.
        void_share: share of their pixels that are void, 0 to 1.
        segments: how many there are of each class, by its name.
        failed: a sentence for each image that could not be read, or of which a model says nothing that can be used.
    """

    json: Path
    masks: Path
    objects: Path
    classes: Path
    images: int = 0
    void_share: float = 0.0
    segments: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Labeller:
    """Labels single images by several models: the class that they agree on, and the first panoptic one's objects.

    Attributes:
        categories: the class table of the labels.
        unreachable: names of the classes that too few of the models know to agree on.
        description: how the labels came about, for the data set's JSON.

    Raises:
        ConfigError: no panoptic model, one that cannot vote (`check_voter`), one without any class of the table, or a
            wrong rename.
    """

    @named_options
    def __init__(
        self,
        models: Sequence[Segmenter],
        categories: Sequence[Category] | None = None,
        renames: Renames | None = None,
        settings: LabelSettings | None = None,
    ):
        for model in models:
            check_voter(model)
        if all(model.task != "panoptic" for model in models):
            raise ConfigError("None of the models tells objects apart; give a panoptic one as well.")
        self.models, self.settings, renames = models, settings or LabelSettings(), renames or {}
        self.categories = tuple(models[0].categories if categories is None else categories)
        check_renames(renames, [row for model in models for row in model.categories], self.categories)
        self._labels_of = [match_classes(model.categories, self.categories, renames) for model in models]
        for model, labels in zip(models, self._labels_of, strict=True):
            if max(labels) < 0:
                have, want = (name_some([row.name for row in rows]) for rows in (model.categories, self.categories))
                raise ConfigError(
                    f"No class of '{model.name}' ({have}) is one of the table ({want}); say with --map which are equal."
                )
        self._tells_apart = next(place for place, model in enumerate(models) if model.task == "panoptic")
        self.description = f"Labels of {', '.join(model.name for model in models)} by knet data label: {self.settings}"
        known = Counter(label for labels in self._labels_of for label in set(labels))
        needed = self.settings.agree * len(models) - 1e-6
        self.unreachable = [row.name for label, row in enumerate(self.categories) if known[label] < needed]

    def __call__(self, image: np.ndarray, name: str = "image") -> tuple[np.ndarray, list[SegmentInfo]]:
        """(H,W,3) uint8 RGB -> id map (H,W) int32, 0 = void, and its segments."""
        s, votes, results = self.settings, [], []
        for model, labels_of in zip(self.models, self._labels_of, strict=True):
            labels, likely, result = vote(model, image, s.scales, s.flip, name)
            table = torch.tensor([*labels_of, -1])  # the last entry serves -1, none
            votes.append((table[labels.cpu()], likely.cpu()))
            results.append(result)
        classes, objects = agreed(votes, s.agree, s.score).numpy(), results[self._tells_apart]
        assert objects is not None
        things = [category.thing for category in self.categories]
        return cut_segments(classes, objects, self._labels_of[self._tells_apart], things, s.minimum_area)


@named_options
def label_images(labeller: Labeller, images: str | Path, output: str | Path, overwrite: bool = False) -> Labels:
    """Labels all images below a folder, one at a time, and writes them as a data set: all of it or nothing.

    The images stay where they are. Those that cannot be read or labelled are left out and told.

    Raises:
        DataError: no images, none that can be labelled, or an output that exists while `overwrite` is off.
        OutputError: no permission, no space.
    """
    folder, target, rows = Path(images), Path(output), labeller.categories
    made = Labels(target / "panoptic.json", target / "panoptic", target / "instances.json", target / "classes.json")
    existing = [path for path in (made.objects, made.classes) if os.path.lexists(path)]
    if existing and not overwrite:
        raise DataError(f"{existing[0]} exists already; remove it, allow overwriting or choose another output.")
    names = list_images(folder)
    if not names:
        raise DataError(f"The folder {folder} holds no image; give the folder that holds the images.")
    unique = UniqueNames()
    alike, counts, pixels, void = Counter(map(without_ending, names)), Counter[int](), 0, 0
    with PanopticWriter(made.json, made.masks, overwrite, [folder]) as panoptic:
        with _whole_or_none(CocoFile(made.objects, rows)) as objects:
            for name in tqdm(names, desc="labels", unit="image", disable=None):
                try:
                    image = read_image(folder / name)
                    id_map, segments = labeller(image, name)
                except (DataError, PredictionError) as error:
                    made.failed.append(str(error))
                    continue
                key = without_ending(name)
                key = unique(key if alike[key] == 1 else name)  # beside a.png and a.jpg there may be a.png.png
                found = [SegmentRow(s.id, rows[s.label].id, s.crowd) for s in segments]
                panoptic.add({"id": key, "file_name": name}, f"{key}.png", id_map, found)
                made.images += 1
                objects.add_image(*_object_rows(made.images, counts.total(), name, id_map, found))
                counts.update(s.label for s in segments)
                pixels, void = pixels + id_map.size, void + int((id_map == 0).sum())
            if not made.images:
                raise DataError(f"None of the {len(names)} images can be labelled; the first: {made.failed[0]}")
        with atomic_path(made.classes) as temporary:
            temporary.write_text(json.dumps({"name": target.name, "categories": _table_rows(rows)}, indent=1), "utf-8")
        panoptic.finish(rows_for_json(rows), {"description": labeller.description})
    made.void_share = void / pixels
    made.segments = {row.name: counts[label] for label, row in enumerate(rows)}
    return made


@contextmanager
def _whole_or_none(file: CocoFile) -> Iterator[CocoFile]:
    """The file, finished at the end of the block; after an error there is none."""
    try:
        yield file
    except BaseException:
        file.abort()
        raise
    file.finish()


def _table_rows(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """The rows of a class table as those that come with the package."""
    return [{"id": c.id, "name": c.name, "thing": c.thing, "color": list(c.color)} for c in categories]


def _object_rows(
    number: int, before: int, name: str, id_map: np.ndarray, segments: Sequence[SegmentRow]
) -> list[dict[str, Any]]:
    """An image's rows of a COCO instances JSON: its own, with its number as id, and one for each segment.

    `before` is how many segments the images before had.
    """
    height, width = id_map.shape
    rows: list[dict[str, Any]] = [{"id": number, "file_name": name, "height": height, "width": width}]
    places = ndimage.find_objects(id_map)
    for place, segment in enumerate(segments, before + 1):
        ys, xs = places[segment.id - 1]
        mask = id_map[ys, xs] == segment.id
        row: dict[str, Any] = {
            "id": place,
            "image_id": number,
            "category_id": segment.category,
            "iscrowd": int(segment.crowd),
        }
        row |= {"area": int(mask.sum()), "bbox": [xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start]}
        rows.append({**row, "segmentation": polygons(mask, (xs.start, ys.start))})
    return rows
