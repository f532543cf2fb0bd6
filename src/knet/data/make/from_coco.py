"""Makes a panoptic data set of COCO instances: polygons or RLE, whose overlaps are settled in favour of one object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.data.categories import rows_for_json
from knet.data.files.io import name_some, read_image_size, values_in, without_ending
from knet.data.files.masks import Rle, mask_area, read_mask, unpack_mask
from knet.data.files.numbers import flag, whole
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.instances_json import DROPPED, Entry, InstancesJson, Object
from knet.data.readers.panoptic_json import Fault
from knet.data.readers.reader import size_text
from knet.errors import ConfigError, DataError, did_you_mean, shown
from knet.structures import Category

Overlap = Literal["area", "order"]
RULES = {
    "area": "where objects overlap, the smaller one is on top",
    "order": "where objects overlap, the later one in the file is on top",
}


@dataclass(frozen=True, slots=True)
class CocoConversion:
    """What `coco_to_panoptic` made: `json`, `masks` and the number of `images`.

    Attributes:
        segments: how many there are of each class, by its name.
        crowds: how many of these are crowd regions.
        overlapping: pixels that several objects claimed.
        hidden: objects of which no pixel is left, as others cover them.
        left_out: objects without a mask, by the reason.
        rule: who gets the pixels where objects overlap.
    """

    json: Path
    masks: Path
    images: int
    segments: dict[str, int]
    crowds: dict[str, int]
    overlapping: int
    hidden: int
    left_out: dict[str, int]
    rule: str


@named_options
def coco_to_panoptic(
    images: str | Path,
    json: str | Path,
    output: str | Path,
    *,
    overlap: Overlap = "area",
    stuff: Sequence[str] = (),
    overwrite: bool = False,
) -> CocoConversion:
    """Writes output/panoptic.json and output/panoptic/*.png (COCO panoptic); images stay in place.

    All masks of a class of stuff in an image become one segment. Crowd regions lie below everything else. Segment ids
    count 1, 2, ... in the order of the file, so the same input always gives the same files.

    Args:
        images: the folder of the images.
        json: the COCO instances JSON: polygons, or RLE as numbers or packed.
        output: folder to write to.
        overlap: who is on top where objects overlap: the smaller one ("area"), or the later one in the file ("order").
        stuff: names of classes that are stuff, besides those whose `isthing` is 0.
        overwrite: whether to replace what exists.

    Raises:
        DataError: the JSON is broken or does not fit the images, or the output exists and `overwrite` is off.
        ConfigError: an unknown rule, or a name of no class.
        OutputError: the output cannot be written.
    """
    if overlap not in RULES:
        raise ConfigError(f"There is no rule {shown(overlap)} for overlaps; choose from {', '.join(RULES)}.")
    document = InstancesJson(Path(json), None)
    categories = _with_stuff(document, stuff)
    entries: list[Entry] = []
    left_out = dict.fromkeys(DROPPED, 0)
    find = ImageFinder(Path(images), Path(json))
    for found in document.walk(find):
        if isinstance(found, Fault):
            raise DataError(found.sentence)
        if isinstance(found, Entry):
            entries.append(found)
        elif found.kind in left_out:
            left_out[found.kind] += 1
    find.say_oddities()
    if not any(entry.objects for entry in entries):
        raise DataError(f"{json} has no object with a mask; panoptic data needs polygons or RLE, boxes are not enough.")
    names = {category.id: category.name for category in categories}
    segments, crowds = (dict.fromkeys(names.values(), 0) for _ in range(2))
    overlapping = hidden = 0
    target, masks = Path(output), set[str]()
    with PanopticWriter(target / "panoptic.json", target / "panoptic", overwrite, (images, json)) as writer:
        for entry in tqdm(entries, desc="COCO to panoptic", unit="image", disable=None):
            _compare_sizes(entry, Path(images), document.path)
            drawn = list(_drawn(entry, document.path))
            left_out["mask empty"] += len(entry.objects) - len(drawn)
            id_map, rows, shared = merge_objects(drawn, categories, entry.size, overlap)
            visible = set(values_in(id_map).tolist())
            kept = [row for row in rows if row.id in visible]
            overlapping, hidden = overlapping + shared, hidden + len(rows) - len(kept)
            stem = without_ending(str(entry.image))
            mask = f"{stem}_{entry.id}.png" if f"{stem}.png" in masks else f"{stem}.png"
            masks.add(mask)
            writer.add({"id": entry.id, "file_name": entry.image}, mask, id_map, kept)
            for row in kept:
                segments[names[row.category]] += 1
                crowds[names[row.category]] += row.crowd
        writer.finish(rows_for_json(categories), {"description": f"Made of COCO instances: {RULES[overlap]}."})
    reasons = {DROPPED[kind]: count for kind, count in left_out.items() if count}
    counts = segments, {name: count for name, count in crowds.items() if count}, overlapping, hidden, reasons
    return CocoConversion(writer.json, writer.masks, len(entries), *counts, RULES[overlap])


def merge_objects(
    drawn: Sequence[tuple[Object, Rle]], categories: Sequence[Category], size: tuple[int, int], overlap: Overlap
) -> tuple[np.ndarray, list[SegmentRow], int]:
    """Puts objects that may overlap into one id map. -> (H,W) int32, its segments, number of pixels claimed by several

    Segments of which nothing is left are listed as well.
    """
    id_map, claims = np.zeros(size, np.int32), np.zeros(size, np.int32)
    rows: list[SegmentRow] = []
    id_of: dict[int, int] = {}
    of_stuff: dict[int, int] = {}
    for place, (thing, _) in enumerate(drawn):
        category = categories[thing.label]
        if not category.thing and thing.label in of_stuff:
            id_of[place] = of_stuff[thing.label]
            continue
        id_of[place] = len(rows) + 1
        if not category.thing:
            of_stuff[thing.label] = id_of[place]
        rows.append(SegmentRow(id_of[place], category.id, thing.crowd and category.thing))

    def height(place: int) -> tuple[bool, int]:
        thing, rle = drawn[place]
        crowd = thing.crowd and categories[thing.label].thing
        return not crowd, -mask_area(rle) if overlap == "area" else place

    owners: dict[int, np.ndarray] = {}
    for place in sorted(id_of, key=height):
        mask = unpack_mask(drawn[place][1])
        id_map[mask] = id_of[place]
        owners[id_of[place]] = owners[id_of[place]] | mask if id_of[place] in owners else mask
    for mask in owners.values():
        claims += mask
    return id_map, rows, int((claims > 1).sum())


def _drawn(entry: Entry, path: Path) -> Iterator[tuple[Object, Rle]]:
    """The objects of an image with their masks, without those that have no pixel."""
    for thing in entry.objects:
        rle = read_mask(loads(thing.segmentation), entry.size, f"{path}: annotation {thing.number}")
        if mask_area(rle):
            yield thing, rle


def _with_stuff(document: InstancesJson, stuff: Sequence[str]) -> list[Category]:
    """The classes of the JSON, of which some are stuff."""
    names = [category.name for category in document.categories]
    for name in stuff:
        if name not in names:
            hint = did_you_mean(name, names, f"it has {name_some(names, 10)}.")
            raise ConfigError(f"--stuff names '{name}', which is no class of {document.path}; {hint}")
    rows = document.content.get("categories", [])
    told = {whole(row.get("id")) for row in rows if flag(row.get("isthing", 1)) is False}
    return [
        Category(row.id, row.name, row.name not in stuff and row.id not in told, row.color)
        for row in document.categories
    ]


def _compare_sizes(entry: Entry, images: Path, json: Path) -> None:
    path = images / str(entry.image)
    size = read_image_size(path)
    if size != entry.size:
        raise DataError(
            f"{path} is {size_text(size)} pixels but {json} says {size_text(entry.size)}; use the images that belong "
            "to this JSON."
        )
