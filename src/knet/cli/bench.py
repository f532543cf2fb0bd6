"""knet bench: how fast a model is on this computer."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_device, add_json, add_merge, add_official, add_threads, add_verb, height_width
from knet.errors import counted

if TYPE_CHECKING:
    from knet.inference.bench import Timing


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "measure how long a model takes from an image to its segments, and where the time goes"
    example = "knet bench rtknet-lite-street --size 384x768 720x1280 --precision fp32 bf16 --threads 2"
    parser = add_verb(verbs, "bench", summary, f"{example}\n  knet bench exported.xml")
    model = "a name from `knet models`, weights of knet, or what `knet export` wrote"
    parser.add_argument("model", metavar="MODEL", help=model)
    parser.add_argument("--weights", metavar="FILE", help="weights for a model given by name (default: random ones)")
    size = "sizes of the images, which the network sees as they are (default: the published size)"
    parser.add_argument("--size", nargs="+", type=height_width, metavar="HxW", help=size)
    precision = "any of auto, fp32, bf16 and fp16, or what an exported file computes in (default: auto)"
    parser.add_argument("--precision", nargs="+", default=["auto"], metavar="P", help=precision)
    add_official(parser)
    add_device(parser)
    add_threads(parser)
    add_merge(parser)
    parser.add_argument("--compile", action="store_true", help="compile the network first, which takes minutes")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="images to time at each size (default: 20)")
    add_json(parser, "the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Times every precision at every size, and prints a line for each."""
    import torch

    from knet.inference.bench import default_size, machine, measure, open_model
    from knet.inference.load import use_threads

    use_threads(args.threads)
    rows: list[Timing] = []
    about: dict[str, Any] = {}
    for precision in args.precision:
        options = args.device, precision, args.compile, args.merge, args.compatible
        segmenter, random = open_model(args.model, args.weights, *options)
        if not about:
            about = {"model": segmenter.name, "backend": segmenter.engine.name, "machine": machine(segmenter.device)}
            about |= {"torch": torch.__version__, "random_weights": random, "rounds": args.rounds}
            if not args.json:
                print(_title(about), flush=True)
        for size in args.size or [default_size(segmenter)]:
            rows.append(measure(segmenter, size, args.rounds))
            if not args.json:
                print(_line(rows[-1]), flush=True)
    if args.json:
        print(json.dumps({**about, "measurements": [row.to_dict() for row in rows]}, indent=1))
    return 0


def _title(about: dict[str, Any]) -> str:
    each = counted(about["rounds"], "image")
    lines = [f"{about['model']}, {about['backend']}, {about['machine']}, {each} each; ms an image"]
    if about["random_weights"]:
        lines.append("random weights: the network takes its usual time but finds little, so the merge has little to do")
    figures = f"{'median':>8} {'p95':>8} {'p99':>8} {'images/s':>8} {'memory':>9} {'GFLOP':>7}"
    steps = f"{'prepare':>8} {'network':>8} {'merge':>7} {'result':>7}"
    return "\n".join([*lines, f"{'size':<10} {'precision':<9} {figures} | {steps}   segments"])


def _line(row: Timing) -> str:
    memory = "-" if row.memory is None else f"{row.memory:.0f} MB"
    gflops = "-" if row.gflops is None else f"{row.gflops:.1f}"
    figures = f"{row.median:>8.1f} {row.p95:>8.1f} {row.p99:>8.1f} {row.throughput:>8.1f} {memory:>9} {gflops:>7}"
    width = {"prepare": 8, "network": 8, "merge": 7, "result": 7}
    steps = " ".join(f"{row.steps[step]:>{n}.1f}" if step in row.steps else f"{'-':>{n}}" for step, n in width.items())
    size = f"{row.size[0]}x{row.size[1]}"
    return f"{size:<10} {row.precision:<9} {figures} | {steps}   {row.segments:>8}"
