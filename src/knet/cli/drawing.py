"""The options of `knet predict` that say how results are drawn."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from knet.inference.results.style import Drawing

_OPTIONS = ("alpha", "legend", "names", "scores", "contours")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """--alpha, --legend, --names, --scores, --contours."""
    alpha = "in pictures, share of the colours, 0 (image only) .. 1 (colours only) (default: 0.5)"
    parser.add_argument("--alpha", type=float, metavar="A", help=alpha)
    for name, text in {
        "legend": "a panel of the classes and their colours below each picture (default: none)",
        "names": "in pictures, class names on segments (default: they are there)",
        "scores": "in pictures, scores on segments (default: none)",
        "contours": "in pictures, borders around all segments, or around none (default: around objects)",
    }.items():
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)


def drawing_options(args: argparse.Namespace) -> Drawing:
    """They as keyword arguments of `Segmentation.overlay`. A wrong one is a `ConfigError`."""
    from knet.errors import ConfigError
    from knet.inference.results.style import style_of

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    style_of(given)
    formats = {name.strip() for name in (args.formats or "").split(",")}
    if given and (args.formats or args.submission) and not {"overlay", "video"} & formats:
        name = next(iter(given))
        raise ConfigError(f"The option --{name} is for pictures; add overlay or video to --formats, or leave it out.")
    return cast("Drawing", given)
