"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knet.inference.segmenter import Segmenter


def add_verb(verbs: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A verb's parser, with its example shown as it is typed."""
    return verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--weights, --device, --precision, --size, --score, --overlap, --merge, --tta, --window: how a model is used."""
    parser.add_argument(
        "--weights", metavar="FILE", help="official checkpoint (.pth) or weights of knet (.safetensors)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="fp32 gives the official results, the others are faster where the hardware computes in them",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the network: minutes at the first image, faster from then on"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default="model",
        help="short side in pixels that the network sees; 'model' = as published (default), 'image' = as it is",
    )
    parser.add_argument("--score", type=float, help="drop segments less certain than this, 0..1 (default: the model's)")
    parser.add_argument(
        "--overlap", type=float, help="drop segments that are mostly hidden, 0..1 (default: the model's)"
    )
    parser.add_argument(
        "--merge",
        choices=["optimised", "sorted"],
        help="panoptic models: post-processing of RT-K-Net or of K-Net (default: the model's)",
    )
    parser.add_argument(
        "--tta", action="store_true", help="semantic models: average six scales and their mirror images, twelve looks"
    )
    parser.add_argument(
        "--window", type=_window, metavar="N|HxW", help="semantic models: slide a window of so many pixels"
    )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_model_options` added, as keyword arguments of `knet.load`."""
    keys = ("weights", "device", "precision", "compile", "size", "score", "overlap", "merge", "window")
    options = {key: getattr(args, key) for key in keys}
    if args.tta:
        from knet.inference.settings import SCALES

        options |= {"scales": SCALES, "flip": True}
    return options


def precision_note(args: argparse.Namespace, segmenter: Segmenter) -> str:
    """A sentence for where the computer chose another precision than that of the official results, else nothing."""
    chosen = args.precision == "auto" and segmenter.engine.name == "torch" and segmenter.precision != "fp32"
    return f" in {segmenter.precision} (--precision fp32 for official results)" if chosen else ""


def is_first() -> bool:
    """Whether this process speaks for all that torchrun or srun started."""
    from knet.distributed import place_of

    return place_of(dict(os.environ)).rank == 0


def _size(text: str) -> str | int:
    if text in ("model", "image"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not 'model', 'image' or a number of pixels") from None


def _window(text: str) -> int | tuple[int, int]:
    height, by, width = text.partition("x")
    try:
        return (int(height), int(width)) if by else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of pixels or HEIGHTxWIDTH") from None
