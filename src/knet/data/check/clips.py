"""Looks through a whole video data set before a long training does, as `checks` does for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from knet.data.check.findings import CheckReport, ClassCount, Notes
from knet.data.files.io import areas_in
from knet.data.readers.clips import ClipReader
from knet.data.readers.open import CLIP_ROOTS, open_clips
from knet.errors import ConfigError, DataError


@dataclass(slots=True)
class _Counts:
    images: int = 0
    segments: int = 0
    crowds: int = 0
    pixels: int = 0


def check_clip_root(
    layout: str, root: str | Path, splits: Sequence[str] | None = None, *, progress: bool = True
) -> list[CheckReport]:
    """Checks the splits of a video data set; layouts are those of `CLIP_ROOTS`, splits None all that have a truth.

    Raises:
        ConfigError: an unknown layout.
        DataError: a split is not there, or its images and its truth do not pair up.
    """
    if layout not in CLIP_ROOTS:
        raise ConfigError(f"There is no layout {layout!r} of clips to check; choose from {', '.join(CLIP_ROOTS)}.")
    readers = {split: open_clips(layout, root, split) for split in splits or CLIP_ROOTS[layout]}
    return [check_clips(reader, f"{root} {split}", progress=progress) for split, reader in readers.items()]


def check_clips(reader: ClipReader, name: str, *, progress: bool = True) -> CheckReport:
    """Reads every frame of a video data set and counts what is there: frames, classes, gaps, what cannot be read."""
    notes = Notes()
    counts = [_Counts() for _ in reader.categories]
    sizes: set[tuple[int, int]] = set()
    ids: set[int] = set()
    pixels = void = 0
    for gap in reader.gaps():
        notes.add("gap", gap.split(";")[0])
    for index in tqdm(range(len(reader)), desc=name, unit="frame", disable=None if progress else True):
        try:
            sample = reader.read(index)
        except DataError as fault:
            notes.add("frame", str(fault).rstrip("."))
            continue
        height, width = sample.image.shape[:2]
        sizes.add((height, width))
        areas = areas_in(sample.id_map)  # of objects that overlap, each has its own
        pixels += height * width
        void += height * width - int((sample.id_map != 0).reshape(-1, height, width).any(0).sum())
        for label in {segment.label for segment in sample.segments}:
            counts[label].images += 1
        for segment in sample.segments:
            count = counts[segment.label]
            count.segments += not segment.crowd
            count.crowds += segment.crowd
            count.pixels += areas[segment.id]
            ids.add(segment.id)
        if all(segment.crowd for segment in sample.segments):
            notes.add("nothing to learn", sample.name)
    classes = []
    for category, count in zip(reader.categories, counts, strict=True):
        if not count.images:
            notes.add("class absent", category.name)
        numbers = count.images, count.segments, count.crowds, count.pixels, count.pixels / max(pixels - void, 1)
        classes.append(ClassCount(category.id, category.name, category.thing, *numbers))
    categories = [category.id for category in reader.categories]
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return CheckReport(
        name=f"{name} ({len(reader.clips)} clips)",
        images=len(reader),
        findings=notes.findings(),
        classes=classes,
        void_share=void / max(pixels, 1),
        segment_ids=(min(ids), max(ids)) if ids else None,
        category_ids=(min(categories), max(categories)),
        sizes=(by_area[0], by_area[-1]) if by_area else None,
    )
