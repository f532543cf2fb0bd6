"""Reads every frame of a video data set before a long training does, and reports all that is wrong at once."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from knet.data.check.findings import CheckReport
from knet.data.check.tally import Tally
from knet.data.files.io import areas_in
from knet.data.readers.clips import ClipReader
from knet.data.readers.open import CLIP_ROOTS, open_clips
from knet.data.readers.reader import Kernels
from knet.errors import ConfigError, DataError, shown


def check_clip_root(
    layout: str, root: str | Path, splits: Sequence[str] | None = None, kernels: Kernels | None = None
) -> list[CheckReport]:
    """Checks splits of a video data set, of a layout in `CLIP_ROOTS`; without `splits`, all that have a ground truth.

    Raises:
        ConfigError: an unknown layout.
        DataError: a split is not there, or its images and its ground truth do not pair up.
    """
    if layout not in CLIP_ROOTS:
        raise ConfigError(f"There is no layout {shown(layout)} of clips to check; choose from {', '.join(CLIP_ROOTS)}.")
    readers = {split: open_clips(layout, root, split) for split in splits or CLIP_ROOTS[layout]}
    return [check_clips(reader, f"{root} {split}", kernels) for split, reader in readers.items()]


def check_clips(reader: ClipReader, name: str, kernels: Kernels | None = None) -> CheckReport:
    """Counts what is in a video data set: frames, classes, gaps, and what cannot be read; for `kernels` see `Tally`."""
    tally = Tally(reader.categories, kernels)
    for gap in reader.gaps():
        tally.notes.add("gap", gap.split(";")[0])
    for index in tqdm(range(len(reader)), desc=name, unit="frame", disable=None):
        try:
            sample = reader.read(index)
        except DataError as fault:
            tally.notes.add("frame", str(fault).rstrip("."))
            continue
        height, width = sample.image.shape[:2]
        areas = areas_in(sample.id_map)  # of objects that overlap, each has its own
        labelled = int((sample.id_map != 0).reshape(-1, height, width).any(0).sum())
        tally.add_image(sample.image, sample.name)
        tally.add_segments(sample.segments, sample.name)
        of_segments = [(segment.label, areas[segment.id]) for segment in sample.segments]
        tally.add_pixels(height * width, height * width - labelled, of_segments)
    return tally.report(f"{name} ({len(reader.clips)} clips)", len(reader))
