"""From an image in memory to its map on a GPU: RT-K-Net's own way, eager, against this package's engine, step by step.

    python benchmarks/image_to_id_map_gpu.py             # 512x1024 and 1024x2048, 100 masks kept
    python benchmarks/image_to_id_map_gpu.py --compile   # torch.compile as well, which takes minutes
    python benchmarks/image_to_id_map_gpu.py --quick     # 128x256, to see that it runs; with --device cpu, too

As benchmarks/image_to_id_map.py, with random weights of rtknet-cityscapes whose classes are moved so that --kept masks
are above the threshold. "original" is eager, by autocast in half precision, and its map stays on the GPU; "network"
of ours is the engine alone with its input on the GPU, "map" goes on to the map of segments, on the GPU as well.
Milliseconds of the clock, the GPU waited for; medians of rounds in turns.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from original import OriginalNetwork, keep_about, normalised, original_merge, settle, take_turns

from knet.inference.bench import machine, measure, photo, wait
from knet.inference.engines.engine import DTYPES
from knet.inference.engines.network import TorchEngine
from knet.inference.load import choose_device, describe_official, segmenter_for
from knet.merge.panoptic import best_class, merge_panoptic, number_segments
from knet.models.zoo import create

MODEL = "rtknet-cityscapes"


def main() -> None:
    """A line for each way and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["512x1024", "1024x2048"], metavar="HxW")
    parser.add_argument("--kept", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.size, args.rounds = ["128x256"], 2
    device = choose_device(args.device)
    print(f"{machine(device)}, torch {torch.__version__}")
    rows = []
    for text in args.size:
        height, _, width = text.partition("x")
        rows += compare((int(height), int(width)), device, args)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def compare(size: tuple[int, int], device: torch.device, args: argparse.Namespace) -> list[dict[str, object]]:
    """All ways with the same weights, in turns."""
    torch.manual_seed(0)
    net, card, image = create(MODEL), describe_official(MODEL), photo(size)
    p, score, overlap = card.preprocessing, card.score, card.overlap
    settle(net)
    keep_about(net, normalised(image, p.mean, p.std), args.kept, score)
    things = torch.tensor([category.thing for category in card.categories])
    ways: dict[str, Callable[[], object]] = {}
    for precision in ("fp32", "fp16"):
        network = OriginalNetwork(copy.deepcopy(net).to(device))

        def original(network: OriginalNetwork = network, precision: str = precision) -> None:
            x = normalised(image, p.mean, p.std).to(device)
            with torch.autocast(device.type, DTYPES["fp16"], enabled=precision != "fp32"):
                masks, classes = network(x)
            scores, labels = best_class(classes)
            original_merge(masks.float(), scores, labels, things.to(device), size, score, overlap)
            wait(device)

        ways[f"original {precision}"] = original
    segmenters = {}
    kinds = [
        (precision, compiled)
        for precision in ("bf16", "fp16")
        for compiled in ((False, True) if args.compile else (False,))
    ]
    for precision, compiled in kinds:
        engine = TorchEngine(copy.deepcopy(net), device, precision, frozen=True, compile=compiled)
        name = f"knet {precision}{', compiled' if compiled else ''}"
        segmenter = segmenters[name] = segmenter_for(engine, card)
        inputs = segmenter.prepare(image, "image")[0]

        def alone(engine: TorchEngine = engine, inputs: torch.Tensor = inputs) -> None:
            engine(inputs)
            wait(device)

        @torch.inference_mode()
        def to_map(segmenter: object = segmenter, engine: TorchEngine = engine) -> None:
            inputs, sizes = segmenter.prepare(image, "image")  # type: ignore[attr-defined]
            last = engine(inputs)[-1]
            scores, labels = best_class(last.class_logits[0])  # type: ignore[index]
            merged = merge_panoptic(last.mask_logits[0], scores, labels, sizes.resized, score, overlap)
            number_segments(merged, things)
            wait(device)

        ways |= {f"{name}, network": alone, f"{name}, map": to_map}
    times = take_turns(ways, args.rounds, warm=4)
    print(f"\n{MODEL}, {size[0]}x{size[1]}, {args.kept} masks kept")
    rows = []
    for name, taken in times.items():
        ratio = times["original fp16"]["wall"] / taken["wall"]
        rows.append({"size": size, "way": name, "ms": taken["wall"], "ratio": ratio})
        print(f"{name:<26} {taken['wall']:>9.2f} ms, {ratio:>6.2f} times")
    for name, segmenter in segmenters.items():
        timing = measure(segmenter, size, args.rounds)
        steps = ", ".join(f"{step} {ms:.2f}" for step, ms in timing.steps.items())
        print(f"{name:<26} {timing.median:>9.2f} ms to a Segmentation on the CPU: {steps}; +{timing.memory:.0f} MB")
    return rows


if __name__ == "__main__":
    main()
