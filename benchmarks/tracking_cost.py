"""What tracking costs: time per frame with and without it, interleaved in one run, and memory after many frames.

    python benchmarks/tracking_cost.py                       # both models, 60 frames each
    python benchmarks/tracking_cost.py --memory --frames 10000

The image model's time is that of `Segmenter.segment`, the video's that of `Segmenter.segment_next`, on the same frame,
one after the other, in turns which of them is first; the figure is the median of the differences. With --memory a small
network of random weights sees small noisy frames, in which objects are born and die all the time; the process's
resident memory is read after 100 frames and at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

import knet
from knet.inference.engines.network import TorchEngine
from knet.inference.identities import VideoState
from knet.inference.load import describe_official, segmenter_for
from knet.inference.segmenter import Segmenter
from knet.inference.sources.videos import read_video
from knet.models.zoo import create

DEMO = Path(knet.__file__).parent / "assets" / "demo"
VIDEO_MODEL = "rt-video-knet-slim-kitti-step"
TINY = {"width": 8, "head_width": 16, "channels": 32, "kernels": 16, "stages": 2}


def random_model(device: str, **arguments: int) -> Segmenter:
    """The video model with random weights, whose classes are certain enough to leave some things in every frame."""
    torch.manual_seed(0)
    net = create(VIDEO_MODEL, **arguments)
    with torch.no_grad():
        for _ in range(5):  # statistics of activations
            net(torch.nn.functional.interpolate(torch.randn(2, 3, 8, 12), (128, 192), mode="bicubic"))
        last = net.decoder.stages[-1].to_class[-1]  # type: ignore[union-attr,index]
        last.weight.mul_(2)
        last.bias[:2] += 6  # things
    return segmenter_for(TorchEngine(net, device), describe_official(VIDEO_MODEL), score=0.3, overlap=0.05)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def cost(segmenter: Segmenter, frames: Iterator[np.ndarray], warm: int = 3) -> dict[str, float]:
    """Milliseconds of a frame without and with tracking, and the share that tracking adds."""
    state, plain, tracked, objects = VideoState(), list[float](), list[float](), list[int]()

    def follow(image: np.ndarray, number: int) -> None:
        nonlocal state
        result, state = segmenter.segment_next(image, state, number)
        objects.append(sum(segment.thing for segment in result.segments))

    def look(image: np.ndarray, _: int) -> None:
        segmenter.segment(image)

    for number, image in enumerate(frames):
        turns = [(look, plain), (follow, tracked)]
        for call, times in turns if number % 2 else turns[::-1]:
            times.append(timed(partial(call, image, number), segmenter.device))
    before = statistics.median(plain[warm:])
    added = statistics.median(b - a for a, b in zip(plain[warm:], tracked[warm:], strict=True))
    return {
        "ms a frame": round(1000 * before, 2),
        "ms added by tracking": round(1000 * added, 2),
        "per cent added": round(100 * added / before, 2),
        "things a frame": round(statistics.mean(objects), 1),
    }


def resident_mb() -> float:
    """The memory of this process that is in RAM (Linux)."""
    fields = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in fields if line.startswith("VmRSS")).split()[1]) / 1024


def memory(device: str, count: int) -> dict[str, float]:
    """Resident memory after 100 frames and after `count`, in megabytes."""
    segmenter, state = random_model(device, **TINY), VideoState()
    rng = np.random.default_rng(0)
    row: dict[str, float] = {}
    for number in range(1, count + 1):
        blocks = rng.integers(0, 255, (6, 10, 3), dtype=np.uint8)
        image = blocks.repeat(16, 0).repeat(16, 1)
        _, state = segmenter.segment_next(image, state, number, size="image")
        if number in (100, count):
            row[f"MB after {number} frames"] = round(resident_mb(), 1)
    row["tracks given"] = state.tracks.given if state.tracks else 0
    return row


def main() -> None:
    """Prints one line of JSON for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--video", default=str(DEMO / "drive.mp4"), help="frames to time (default: the demo's)")
    args = parser.parse_args()
    if args.memory:
        print(json.dumps({"model": f"{VIDEO_MODEL}, tiny", **memory(args.device, args.frames)}))
        return
    images = [item.image for item in read_video(args.video)]
    models = {
        "rtknet-lite-street, by overlap": knet.load("rtknet-lite-street", device=args.device, precision="fp32"),
        f"{VIDEO_MODEL}, random weights": random_model(args.device),
    }
    for name, segmenter in models.items():
        row = cost(segmenter, islice(cycle(images), args.frames))
        print(json.dumps({"model": name, "threads": torch.get_num_threads(), **row}), flush=True)


if __name__ == "__main__":
    main()
