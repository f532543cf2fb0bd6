"""Makes a panoptic data set from label PNGs and, where there are some, instance PNGs.

Without instance PNGs the connected regions of a class stand for its objects: two cars that touch become one segment, a
car behind a pole two. Results on such data say little about telling objects apart, so every JSON made in this way notes
what its segments are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from knet.calls import named_options
from knet.data.categories import CategoryTable, as_table, rows_for_json
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.readers.label_folder import LabelFolder
from knet.errors import ConfigError
from knet.structures import Category, SegmentInfo

NOTE_COMPONENTS = (
    "Thing segments are 8-connected components of label maps, not annotated instances: objects of one class that touch "
    "are one segment, and an object cut in two by something before it is two."
)
NOTE_INSTANCES = (
    "Thing segments are the objects that the instance PNGs number; thing pixels of number 0 are a crowd region of "
    "their class, which training and PQ leave out."
)
SMALLEST_COMPONENT = 20


@dataclass(frozen=True, slots=True)
class LabelConversion:
    """What `labels_to_panoptic` made: `json`, `masks` and the number of `images`.

    Attributes:
        segments: how many there are of each class, by its name.
        crowds: how many of these are crowd regions, for things.
        dropped: how many objects were too small, for things.
        note: what the segments of things are.
    """

    json: Path
    masks: Path
    images: int
    segments: dict[str, int]
    crowds: dict[str, int]
    dropped: dict[str, int]
    note: str


@named_options
def labels_to_panoptic(
    images: str | Path,
    labels: str | Path,
    output: str | Path,
    categories: str | Path | CategoryTable | Sequence[Category],
    *,
    instances: str | Path | None = None,
    minimum_area: int | None = None,
    overwrite: bool = False,
) -> LabelConversion:
    """Writes output/panoptic.json and output/panoptic/*.png (COCO panoptic); images stay in place.

    A stuff class becomes one segment. A thing class becomes one segment for each number in the image's instance PNG,
    where 0 is a crowd region, or one for each 8-connected component. Segment ids count 1, 2, ... in label order, then
    by instance number, or in reading order of the components' first pixels, so the same input always gives the same
    files. A conversion that is interrupted leaves nothing that looks finished.

    Args:
        images, labels, instances: folders of files that `LabelFolder` reads.
        output: folder to write to.
        categories: a class table, its name or its file.
        minimum_area: smaller objects become void, in pixels; None: 20, or 0 with `instances`, since what was annotated
            is kept.
        overwrite: whether to replace what exists.

    Raises:
        DataError: images, labels and instances do not fit together, or the output exists and `overwrite` is off.
        ConfigError: an unknown class table, or a negative `minimum_area`.
        OutputError: the output cannot be written.
    """
    if minimum_area is None:
        minimum_area = SMALLEST_COMPONENT if instances is None else 0
    if minimum_area < 0:
        raise ConfigError(f"minimum_area is {minimum_area}; give a number of pixels, 0 to keep every object.")
    table = as_table(categories)
    reader = LabelFolder(images, labels, table, instances)
    things = [category.thing for category in table.categories]
    counts, crowds, dropped = (np.zeros(len(things), int) for _ in range(3))
    target = Path(output)
    read = (images, labels, instances)
    with PanopticWriter(target / "panoptic.json", target / "panoptic", overwrite, read) as writer:
        for index in tqdm(range(len(reader)), desc="labels to panoptic", unit="image", disable=None):
            label_map, instance_map = reader.read_label_map(index), reader.read_instance_map(index)
            id_map, segments, small = split_segments(label_map, things, minimum_area, instance_map)
            image = {"id": reader.name(index), "file_name": reader.image_name(index)}
            rows = [SegmentRow(s.id, table.categories[s.label].id, s.crowd) for s in segments]
            writer.add(image, f"{reader.name(index)}.png", id_map, rows)
            np.add.at(counts, [s.label for s in segments], 1)
            np.add.at(crowds, [s.label for s in segments if s.crowd], 1)
            np.add.at(dropped, np.array(small, int), 1)
        note = NOTE_COMPONENTS if instances is None else NOTE_INSTANCES
        description = f"{note} Things of less than {minimum_area} pixels are void." if minimum_area else note
        writer.finish(rows_for_json(table.categories), {"description": description})
    names = [category.name for category in table.categories]
    of_things = [label for label, thing in enumerate(things) if thing]
    return LabelConversion(
        json=writer.json,
        masks=writer.masks,
        images=len(reader),
        segments=dict(zip(names, counts.tolist(), strict=True)),
        crowds={names[label]: int(crowds[label]) for label in of_things},
        dropped={names[label]: int(dropped[label]) for label in of_things},
        note=note,
    )


def split_segments(
    label_map: np.ndarray, things: Sequence[bool], minimum_area: int, instance_map: np.ndarray | None = None
) -> tuple[np.ndarray, list[SegmentInfo], list[int]]:
    """Makes segments of a label map: one for each stuff class, one for each object of a thing class.

    (H,W) int32 labels, -1 = void, (H,W) int32 numbers of objects -> id map (H,W) int32, 0 = void, its segments, and the
    labels of the objects that were dropped

    Args:
        things: whether each label is a thing.
        minimum_area: objects of fewer pixels are dropped.
        instance_map: pixels of equal class and number are one object, also where they do not touch; the number 0 makes
            a crowd region of any size. Without numbers each 8-connected component is an object.
    """
    id_map = np.zeros(label_map.shape, np.int32)
    segments: list[SegmentInfo] = []
    dropped: list[int] = []
    for label, thing in enumerate(things):
        mask = label_map == label
        if not mask.any():
            continue
        numbers = np.ones(1, np.int32)  # of the parts, of which stuff has one
        if not thing:
            parts = np.zeros(int(mask.sum()), np.intp)
        elif instance_map is None:
            components, count = ndimage.label(mask, np.ones((3, 3)))
            parts, numbers = components[mask] - 1, np.arange(1, count + 1)
        else:
            numbers, parts = np.unique(instance_map[mask], return_inverse=True)
        crowd = numbers == 0
        large = crowd | (np.bincount(parts) >= (minimum_area if thing else 0))
        ids = np.zeros(len(numbers), np.int32)
        ids[large] = len(segments) + 1 + np.arange(large.sum())
        id_map[mask] = ids[parts]
        segments += [SegmentInfo(int(ids[part]), label, bool(crowd[part])) for part in np.flatnonzero(large)]
        dropped += [label] * int((~large).sum())
    return id_map, segments, dropped
