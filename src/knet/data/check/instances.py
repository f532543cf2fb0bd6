"""Reads every image and every mask of a COCO instances data set, and reports all that is wrong at once."""

from collections.abc import Sequence
from json import loads
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knet.data.check.findings import CheckReport
from knet.data.check.tally import Tally
from knet.data.files.io import list_images, read_image
from knet.data.files.masks import mask_area, read_mask, unpack_mask
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.instances_json import Entry, InstancesJson
from knet.data.readers.panoptic_json import Fault
from knet.data.readers.reader import Kernels, size_text
from knet.errors import DataError
from knet.structures import Category, SegmentInfo


def check_instances(
    images: str | Path, json: str | Path, categories: Sequence[Category] | None = None, kernels: Kernels | None = None
) -> CheckReport:
    """Checks a data set in the COCO instances form, file by file. Memory grows with the JSON only.

    Args:
        images, json, categories: as in `CocoInstances`.
        kernels: those of the model that is to learn from it; None counts 100.

    Raises:
        DataError: the folder does not exist. Everything else that is wrong is in the report.
    """
    folder, path = Path(images), Path(json)
    find, present = ImageFinder(folder, path), list_images(folder)
    try:
        document = InstancesJson(path, categories)
    except DataError as fault:
        tally = Tally(categories or ())
        tally.notes.add("json", str(fault).rstrip("."))
        return tally.report(str(json), 0)
    tally = Tally(document.categories, kernels)
    entries: list[Entry] = []
    for found in document.walk(find):
        if isinstance(found, Entry):
            entries.append(found)
            continue
        for example in found.examples if isinstance(found, Fault) else [found.example]:
            tally.notes.add(found.kind, example)
    read = set[str]()
    for entry in tqdm(entries, desc=f"checking {path.name}", unit="image", disable=None):
        _check_masks(entry, tally)
        if entry.image in read:
            tally.notes.add("same file twice", entry.file_name)
        elif entry.image is not None:
            read.add(entry.image)
            _check_image(folder / entry.image, entry, tally)
    for name, file in find.elsewhere.items():
        tally.notes.add("image elsewhere", f"{name} as {file}")
    for name in sorted(set(present) - {entry.image for entry in entries}):
        tally.notes.add("image unused", name)
    return tally.report(str(json), len(entries))


def _check_image(path: Path, entry: Entry, tally: Tally) -> None:
    try:
        image = read_image(path)
    except DataError as fault:
        tally.notes.add("image unreadable", str(fault).removeprefix("The image ").rstrip("."))
        return
    tally.add_image(image, entry.file_name)
    if image.shape[:2] != entry.size:
        tally.notes.add("image size", f"{entry.file_name} {size_text(image.shape)}, JSON {size_text(entry.size)}")


def _check_masks(entry: Entry, tally: Tally) -> None:
    """Draws every mask; what overlaps counts for each object, and once as labelled."""
    labelled, segments, areas = np.zeros(entry.size, bool), [], []
    for thing in entry.objects:
        try:
            rle = read_mask(loads(thing.segmentation), entry.size, f"annotation {thing.number} of {entry.file_name}")
        except DataError as fault:
            tally.notes.add("mask damaged", str(fault).rstrip("."))
            continue
        if not mask_area(rle):
            tally.notes.add("mask empty", f"annotation {thing.number} of {entry.file_name}")
            continue
        labelled |= unpack_mask(rle)
        segments.append(SegmentInfo(thing.number, thing.label, thing.crowd))
        areas.append((thing.label, mask_area(rle)))
    tally.add_segments(segments, entry.file_name)
    tally.add_pixels(labelled.size, int((~labelled).sum()), areas)
