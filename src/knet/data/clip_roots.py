"""Video data sets by name: the reader of a split of a download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knet.data.cityscapes_vps import CityscapesVps
from knet.data.clips import ClipReader
from knet.data.step import KittiStep
from knet.data.vipseg import VipSeg
from knet.data.youtube_vis import YoutubeVis
from knet.errors import ConfigError
from knet.structures import Category

CLIP_ROOTS = {
    "step": ("train", "val"),
    "vipseg": ("train", "val"),
    "youtube-vis": ("train", "valid"),
    "cityscapes-vps": ("train", "val"),
}
"""The splits with a truth of each layout."""


def open_clips(
    layout: str,
    root: str | Path,
    split: str,
    categories: Sequence[Category] | None = None,
    compatible: bool = False,
) -> ClipReader:
    """The reader of a split; layouts are those of `CLIP_ROOTS`.

    categories: the classes in label order; None takes the data set's own · compatible: see `KittiStep`.

    Raises:
        ConfigError: an unknown layout.
        DataError: as the reader.
    """
    root = Path(root)
    if layout == "step":
        return KittiStep(root, split, categories, compatible)
    if layout == "vipseg":
        return VipSeg(root, split, categories)
    if layout == "cityscapes-vps":
        return CityscapesVps(root, split, categories)
    if layout == "youtube-vis":
        return YoutubeVis(root / split / "JPEGImages", root / f"{split}.json", categories)
    raise ConfigError(f"There is no layout {layout!r} of clips; choose from {', '.join(CLIP_ROOTS)}.")
