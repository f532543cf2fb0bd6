"""Makes a panoptic data set out of label PNGs, by taking connected regions of a class for its objects.

That is a stand-in for instance annotation: two cars that touch become one segment, a car behind a pole two. Results
measured on such data say so little about telling objects apart that every file made here repeats this warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from knet.data.categories import CategoryTable, as_table
from knet.data.label_folder import LabelFolder
from knet.data.panoptic_writer import PanopticWriter, SegmentRow
from knet.errors import ConfigError
from knet.structures import Category

NOTE = (
    "Thing segments are 8-connected components of label maps, not annotated instances: objects of one class that touch "
    "are one segment, and an object cut in two by something before it is two."
)


@dataclass(frozen=True, slots=True)
class LabelConversion:
    """What `labels_to_panoptic` made. `segments` and `dropped` count by class name; `note` says what they are."""

    json: Path
    masks: Path
    images: int
    segments: dict[str, int]
    dropped: dict[str, int]
    note: str


def labels_to_panoptic(
    images: str | Path,
    labels: str | Path,
    output: str | Path,
    categories: str | Path | CategoryTable | Sequence[Category],
    *,
    void: int | Sequence[int] | None = None,
    minimum_area: int = 20,
    overwrite: bool = False,
    progress: bool = True,
) -> LabelConversion:
    """Writes output/panoptic.json and output/panoptic/*.png (COCO panoptic) from label PNGs; images stay in place.

    A stuff class becomes one segment, each 8-connected component of a thing class one segment; components of less
    than `minimum_area` pixels become void. Segment ids count 1, 2, ... in label order, then in reading order of the
    components' first pixels, so the same input always gives the same files. Everything is written under a temporary
    name first: a conversion that is interrupted leaves nothing that looks finished.

    Raises:
        DataError: images and labels do not fit together, or the output exists and `overwrite` is off.
        ConfigError: an unknown class table, or a negative `minimum_area`.
        OutputError: the output cannot be written.
    """
    if minimum_area < 0:
        raise ConfigError(f"minimum_area is {minimum_area}; give a number of pixels, 0 to keep every component.")
    table = as_table(categories)
    reader = LabelFolder(images, labels, table, void)
    names = [category.name for category in table.categories]
    things = [category.thing for category in table.categories]
    segment_counts, dropped_counts = np.zeros(len(names), int), np.zeros(len(names), int)
    target = Path(output)
    with PanopticWriter(target / "panoptic.json", target / "panoptic", overwrite) as writer:
        for index in tqdm(
            range(len(reader)), desc="labels to panoptic", unit="image", disable=None if progress else True
        ):
            id_map, segments, dropped = split_components(reader.read_label_map(index), things, minimum_area)
            image = {"id": reader.name(index), "file_name": reader.image_name(index)}
            rows = [SegmentRow(id_, table.categories[label].id) for id_, label in segments]
            writer.add(image, f"{reader.name(index)}.png", id_map, rows)
            np.add.at(segment_counts, [label for _, label in segments], 1)
            np.add.at(dropped_counts, np.array(dropped, int), 1)
        description = f"{NOTE} Thing components of less than {minimum_area} pixels are void."
        writer.finish([_category_row(category) for category in table.categories], {"description": description})
    segment_count = dict(zip(names, segment_counts.tolist(), strict=True))
    dropped_count = {name: int(dropped_counts[label]) for label, name in enumerate(names) if things[label]}
    return LabelConversion(writer.json, writer.masks, len(reader), segment_count, dropped_count, NOTE)


def split_components(
    label_map: np.ndarray, things: Sequence[bool], minimum_area: int
) -> tuple[np.ndarray, list[tuple[int, int]], list[int]]:
    """Segments of one label map: one for each stuff class, one for each 8-connected component of a thing class.

    (H,W) int32 labels, -1 = void -> id map (H,W) int32 with 0 = void · (id, label) of each segment · the labels
    of the components dropped for being smaller than `minimum_area` pixels. `things[label]` tells things from stuff.
    """
    id_map = np.zeros(label_map.shape, np.int32)
    segments: list[tuple[int, int]] = []
    dropped: list[int] = []
    for label, thing in enumerate(things):
        mask = label_map == label
        if not mask.any():
            continue
        components, count = ndimage.label(mask, np.ones((3, 3))) if thing else (mask.astype(np.int32), 1)
        areas = np.bincount(components.ravel(), minlength=count + 1)[1:]
        kept = areas >= (minimum_area if thing else 0)
        ids = np.zeros(count + 1, np.int32)
        ids[1:][kept] = len(segments) + 1 + np.arange(kept.sum())
        id_map[mask] = ids[components[mask]]
        segments += [(int(ids[1 + i]), label) for i in np.flatnonzero(kept)]
        dropped += [label] * int((~kept).sum())
    return id_map, segments, dropped


def _category_row(category: Category) -> dict[str, Any]:
    return {
        "id": category.id,
        "name": category.name,
        "isthing": int(category.thing),
        "color": list(category.color),
    }
