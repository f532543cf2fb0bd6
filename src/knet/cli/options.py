"""Options that several verbs share."""

from __future__ import annotations

import argparse
import json
import os
import re
from importlib import resources
from pathlib import Path
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
    """The options of `knet.load`, see `model_options`."""
    add_weights(parser)
    add_official(parser)
    add_device(parser)
    add_threads(parser)
    add_precision(parser)
    compiled = "compile the network: the first image takes minutes, those after it are faster"
    parser.add_argument("--compile", action="store_true", help=compiled)
    add_size(parser)
    parser.add_argument("--score", type=float, help="drop segments less certain than this, 0..1 (default: the model's)")
    overlap = "drop segments that keep less than this share of their mask, 0..1 (default: the model's)"
    parser.add_argument("--overlap", type=float, help=overlap)
    add_merge(parser)
    tta = "for semantic models: average over six scales and their mirror images"
    parser.add_argument("--tta", action="store_true", help=tta)
    window = "for semantic models: slide a window of this size in pixels"
    parser.add_argument("--window", type=_window, metavar="N|HxW", help=window)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """--weights."""
    weights = "official checkpoint (.pth) or weights of knet (.safetensors), also https://... or hf:owner/repository"
    parser.add_argument("--weights", metavar="FILE", help=weights)
    offline = "fetch no weights from the net: only what is here (as KNET_OFFLINE=1)"
    parser.add_argument("--offline", action="store_true", help=offline)


def add_official(parser: argparse.ArgumentParser) -> None:
    """--official, also under its earlier name."""
    official = "compute what the original code computes, in fp32 and with its faults: to compare with published figures"
    parser.add_argument("--official", "--compatible", dest="compatible", action="store_true", help=official)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: a GPU if there is one)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads to use (default: one for each core)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """--precision."""
    precision = (
        "bf16 and fp16 are faster on hardware that computes in them (default: bf16 for RT-K-Net there, else fp32)"
    )
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"], help=precision)


def add_size(parser: argparse.ArgumentParser) -> None:
    """--size."""
    parser.add_argument(
        "--size",
        type=_size,
        default="model",
        help="short side in pixels of the image that the network sees: a number, 'model' for the published size "
        "(default), or 'image' for the image's own",
    )


def add_merge(parser: argparse.ArgumentParser) -> None:
    """--merge."""
    merge = "for panoptic models: the post-processing of RT-K-Net or of K-Net (default: the model's)"
    parser.add_argument("--merge", choices=["optimised", "sorted"], help=merge)


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help=f"print only {what}, as JSON")


def height_width(text: str) -> tuple[int, int]:
    """Reads HEIGHTxWIDTH in pixels, as the `type` of an option."""
    height, by, width = text.partition("x")
    try:
        size = int(height), int(width)
    except ValueError:
        size = 0, 0
    if not by or min(size) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH in pixels, such as 512x1024")
    return size


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_model_options` as keyword arguments of `knet.load`."""
    engine = ("weights", "device", "threads", "precision", "compile", "compatible")
    options = {key: getattr(args, key) for key in (*engine, "size", "score", "overlap", "merge", "window")}
    if args.tta:
        from knet.inference.settings import SCALES

        options |= {"scales": SCALES, "flip": True}
    return options


def refuse_absent(model: str, weights: str | None) -> None:
    """Raises for a model or a file of weights that does not exist, before torch is imported for it."""
    from knet.errors import no_such_model, no_weights_file
    from knet.files import exists, is_dir

    for file in filter(None, (model, weights)):
        is_file = Path(file).suffix.lower() in (".safetensors", ".pth", ".pt") and not re.match(r"[a-z]{2,}:", file)
        if is_file and not exists(file):
            raise no_weights_file(file)
    if re.fullmatch(r"[a-z0-9-]+", model) and not is_dir(model):
        table = json.loads((resources.files("knet") / "assets" / "models.json").read_text("utf-8"))
        names = [row["name"] for row in table]
        if model not in names:
            raise no_such_model(model, names)


def precision_note(args: argparse.Namespace, segmenter: Segmenter) -> str:
    """A remark if the precision was chosen for speed and is not the original's, otherwise ""."""
    chosen = args.precision == "auto" and segmenter.engine.name == "torch" and segmenter.precision != "fp32"
    return f" in {segmenter.precision} (--official for the original's results)" if chosen else ""


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun or srun started: the one that prints."""
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
