"""The formats that results are written in, by the names that `--formats` and `save` take."""

from collections.abc import Sequence

from knet.errors import ConfigError, did_you_mean, require, shown
from knet.structures import Category

FORMATS = ("overlay", "panoptic", "instances", "semantic", "json", "polygons", "video")
# Labels to correct in an annotation tool, see `prelabels`.
PRELABELS = ("cvat", "labelstudio")
# For tracked videos, see `track_writers`.
TRACK_FORMATS = ("step", "vipseg", "cityscapes-vps", "vipseg-json", "cityscapes-vps-json", "tracks", "mots")


def check_formats(formats: Sequence[str], categories: Sequence[Category]) -> tuple[str, ...]:
    """Each format once. ConfigError if one is not for single images and videos, or cannot hold the class table."""
    require(list | tuple | str | set | frozenset, "a list of formats", formats=formats)
    formats = formats.split(",") if isinstance(formats, str) else formats
    for name in formats:
        if isinstance(name, str) and name in TRACK_FORMATS:
            raise ConfigError(
                f"The format '{name}' is for tracked videos: use `knet predict --track` or a TrackWriter."
            )
        if isinstance(name, str) and name in PRELABELS:
            raise ConfigError(f"The format '{name}' lists image files: use `knet predict` on images, without --track.")
        if not isinstance(name, str) or name not in FORMATS:
            known = f"{', '.join(FORMATS + PRELABELS)}, and of tracked videos {', '.join(TRACK_FORMATS)}"
            hint = did_you_mean(name, FORMATS + PRELABELS + TRACK_FORMATS)
            raise ConfigError(f"Unknown format {shown(name)}; known are {known}{'; ' + hint if hint else '.'}")
    if "semantic" in formats and any(not 0 <= c.id < 65535 for c in categories):
        raise ConfigError("The format 'semantic' holds category ids from 0 to 65534; use 'panoptic' or 'json' instead.")
    bad = next((c for c in categories if not (1 <= c.id <= 65 if c.thing else 0 <= c.id < 1000)), None)
    if "instances" in formats and bad:
        raise ConfigError(
            "The format 'instances' (16 bit, category id * 1000 + n) holds things with category ids 1 .. 65 and stuff "
            f"with 0 .. 999; '{bad.name}' has {bad.id}: use 'panoptic' instead."
        )
    return tuple(dict.fromkeys(formats))
