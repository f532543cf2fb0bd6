"""The panoptic merge alone: RT-K-Net's own operations, this package's plain version and its fast one, on equal masks.

    python benchmarks/merge.py              # 1024x2048, 20 and 100 masks kept, one thread; some minutes
    python benchmarks/merge.py --quick      # 256x512, to see that it runs

Masks are those of a drawn scene (see benchmarks/original.py) and of the bundled model on its demo photo, for a result
of 1024x2048. All ways get the same mask logits and scores and give a map of segments; the maps are compared pixel for
pixel. Each way's memory is the peak of a process of its own above what it held before the merge.

"original": all masks resized first, as the original does, from the layout that its convolution leaves them in.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from original import original_merge, scene, take_turns
from torch import Tensor

import knet
from knet.inference.bench import PeakMemory
from knet.inference.sources.images import load_image
from knet.merge import panoptic
from knet.merge.panoptic import best_class, merge_panoptic
from knet.merge.pixels import plain
from knet.merge.pixels.backend import backend

DEMO = Path(knet.__file__).parent / "assets" / "demo" / "highway_1.jpg"
WAYS = ("original", "plain", "fast")
SCORE, OVERLAP = 0.3, 0.6


def main() -> None:
    """A table, or, in a process that measures memory, one number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", nargs=2, metavar=("MASKS", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = (256, 512) if args.quick else (1024, 2048)
    if args.memory:
        print(memory_of(args.memory[0], args.memory[1], size))
        return
    print(f"{size[0]}x{size[1]}, {args.threads} thread(s), fast = {backend(torch.device('cpu')).__name__}")
    rows = []
    for masks in ("20", "100", "model"):
        inputs = inputs_of(masks, size)
        kept = int((inputs[1] >= min(SCORE, float(inputs[1].max()))).sum())
        ways = {name: way(name, inputs, size) for name in WAYS}
        maps = {name: call() for name, call in ways.items()}
        times = take_turns(ways, 1 if args.quick else args.rounds, warm=0)
        for name in WAYS:
            command = [sys.executable, __file__, "--memory", masks, name, *(["--quick"] if args.quick else [])]
            peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            differ = int((maps[name] != maps["original"]).sum())
            row = {"masks": masks, "kept": kept, "way": name, **times[name], "memory": peak, "pixels different": differ}
            row["ratio"] = times["original"]["cpu"] / times[name]["cpu"]
            rows.append(row)
            print(
                f"{masks:>6} ({kept:>3} kept) {name:<9} {row['wall']:>9.1f} ms, {row['cpu']:>9.1f} ms CPU, "
                f"{row['ratio']:>6.1f} times, +{peak:>6.0f} MB, {differ} pixels different",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def inputs_of(masks: str, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask logits, scores, labels, things."""
    if masks == "model":
        segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32")
        with torch.inference_mode():
            output = segmenter.engine(segmenter.prepare(load_image(DEMO), "model")[0])[-1]
        logits, classes = output.mask_logits[0], output.class_logits[0]
        things = [category.thing for category in segmenter.categories]
        return logits, *best_class(classes), torch.tensor(things)
    logits, classes = scene(size, int(masks))
    things = torch.arange(classes.shape[1]) >= 11
    return logits, *best_class(classes), things


def way(name: str, inputs: tuple[Tensor, Tensor, Tensor, Tensor], size: tuple[int, int]) -> Callable[[], np.ndarray]:
    """A call that gives the map: label x 1000 + number, -1 = void."""
    logits, scores, labels, things = inputs
    if name == "original":
        # What a 1x1 convolution over the feature map leaves: masks side by side at each pixel.
        left = logits[None].contiguous(memory_format=torch.channels_last)[0]
        return lambda: original_merge(left, scores, labels, things, size, SCORE, OVERLAP).numpy()

    @torch.inference_mode()
    def merged() -> np.ndarray:
        chosen, panoptic.backend = panoptic.backend, (lambda _: plain) if name == "plain" else backend
        try:
            found = merge_panoptic(logits, scores, labels, size, SCORE, OVERLAP)
        finally:
            panoptic.backend = chosen
        numbers = torch.arange(len(found.labels)) * things[found.labels]
        ids = torch.cat([found.labels * 1000 + numbers, torch.tensor([-1])]).int()
        return panoptic.backend(torch.device("cpu")).relabel(found.owner, ids).numpy()

    return merged


def memory_of(masks: str, name: str, size: tuple[int, int]) -> float:
    """MB above what the process held when the masks were there and everything was imported and compiled."""
    small: Any = inputs_of("20", (64, 128))
    way(name, small, (64, 128))()
    call = way(name, inputs_of(masks, size), size)
    memory = PeakMemory(torch.device("cpu"))
    call()
    return memory.above() or 0.0


if __name__ == "__main__":
    main()
