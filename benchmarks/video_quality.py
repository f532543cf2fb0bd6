"""STQ of street-like videos: `TrackingQuality` against deeplab2's algorithm, plainly written.

    python benchmarks/video_quality.py                # 20 sequences of 20 frames of 375x1242, a minute or two
    python benchmarks/video_quality.py --sequences 2  # to see that it runs

Makes seeded sequences (bands of stuff, about 25 moving objects that hide each other, a crowd region, void) with
predictions that are shifted, missing, mistaken and that change their numbers. Each frame is counted by both ways, which
take turns to be first, on one thread; no file is read. Prints the times, their ratio and the peak memory of a process
that runs knet's way alone, after 1 sequence and after all; fails if the figures differ.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

HEIGHT, WIDTH, FRAMES = 375, 1242, 20
STUFF, THINGS = (0, 1, 2, 8, 9, 10), (11, 13)
VOID, CLASSES, SHIFT, OFFSET = 255, 19, 16, 2**24

Frame = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def make(number: int) -> Iterator[Frame]:
    """A sequence's frames: (H,W) uint8 classes and (H,W) uint16 numbers of the truth, then of the prediction."""
    rng = np.random.default_rng(number)
    tops = np.sort(rng.uniform(0.05, 1, len(STUFF))) * HEIGHT
    stuff = rng.permutation(STUFF)
    phases = rng.uniform(0, 6, len(STUFF))
    objects = [
        {
            "class": int(rng.choice(THINGS)),
            "place": rng.uniform(0.2, 0.9, 2) * (HEIGHT, WIDTH),
            "speed": rng.normal(0, (1, 8)),
            "radii": rng.lognormal((3.2, 3.2), 0.5),
            "found_as": int(rng.integers(100)) < 85,
            "mistaken": int(rng.integers(100)) < 10,
            "switch": int(rng.integers(FRAMES * 2)),
            "phase": rng.uniform(0, 6),
        }
        for _ in range(25)
    ]
    for frame in range(FRAMES):
        yield (
            *draw(rng, tops, stuff, phases, objects, frame, True),
            *draw(rng, tops, stuff, phases, objects, frame, False),
        )


def draw(
    rng: np.random.Generator,
    tops: np.ndarray,
    stuff: np.ndarray,
    phases: np.ndarray,
    objects: list[dict],
    frame: int,
    truth: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """(H,W) classes and numbers; in the truth the last object is a crowd, and the left edge is void."""
    classes = np.full((HEIGHT, WIDTH), VOID if truth else int(stuff[0]), np.uint8)
    numbers = np.zeros((HEIGHT, WIDTH), np.uint16)
    y, x = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    for class_, top, phase in zip(stuff, tops, phases, strict=True):
        edge = top + 12 * np.sin(x / 90 + phase) + rng.normal(0, 0.7, WIDTH) + (0 if truth else 3)
        np.copyto(classes, np.uint8(class_), where=y >= edge)
    for n, one in enumerate(objects):
        if not truth and not one["found_as"]:
            continue
        cy, cx = one["place"] + frame * one["speed"] + (0 if truth else rng.normal(0, 2, 2))
        ry, rx = one["radii"]
        part = (
            slice(max(int(cy - ry), 0), max(int(cy + ry) + 1, 0)),
            slice(max(int(cx - rx), 0), max(int(cx + rx) + 1, 0)),
        )
        dy, dx = (y[part[0]] - cy) / ry, (x[part[1]] - cx) / rx
        inside = dy**2 + dx**2 < 0.7 + 0.2 * np.sin(7 * np.arctan2(dy, dx) + one["phase"])
        mistaken = not truth and one["mistaken"]
        crowd = truth and n == len(objects) - 1
        switched = not truth and frame >= one["switch"]
        np.copyto(classes[part], np.uint8(sum(THINGS) - one["class"] if mistaken else one["class"]), where=inside)
        np.copyto(numbers[part], np.uint16(0 if crowd else n + 1 + 1000 * switched), where=inside)
    if truth:
        classes[:, :20], numbers[:, :20] = VOID, 0
    return classes, numbers


class Plain:
    """deeplab2's way: every pixel's 64-bit label, sorted by np.unique."""

    def __init__(self) -> None:
        self.confusion: dict[str, np.ndarray] = {}
        self.truth, self.predicted, self.shared = (defaultdict(lambda: defaultdict(int)) for _ in range(3))

    def update(
        self, sequence: str, classes: np.ndarray, ids: np.ndarray, found: np.ndarray, found_ids: np.ndarray
    ) -> None:
        """Counts one frame."""
        y_true = (classes.astype(np.int64) << SHIFT) + ids
        y_pred = (found.astype(np.int64) << SHIFT) + found_ids
        semantic, semantic_found = y_true >> SHIFT, y_pred >> SHIFT
        semantic = np.where(semantic != VOID, semantic, CLASSES)
        semantic_found = np.where(semantic_found != VOID, semantic_found, CLASSES)
        size = CLASSES + 1
        cells = np.bincount((semantic * size + semantic_found).ravel(), minlength=size**2).reshape(size, size)
        self.confusion[sequence] = self.confusion.get(sequence, 0) + cells
        of_truth, of_found = np.zeros(y_true.shape, bool), np.zeros(y_true.shape, bool)
        for thing in THINGS:
            of_truth |= semantic == thing
            of_found |= semantic_found == thing
        crowd = of_truth & (y_true & (2**SHIFT - 1) == 0)
        of_truth &= ~crowd
        of_found &= ~crowd
        both = of_truth & of_found
        for table, values in (
            (self.truth, y_true[of_truth]),
            (self.predicted, y_pred[of_found]),
            (self.shared, y_true[both] * OFFSET + y_pred[both]),
        ):
            for id_, count in zip(*np.unique(values, return_counts=True), strict=True):
                table[sequence][int(id_)] += int(count)

    def result(self) -> dict[str, float]:
        """STQ, AQ and SQ over all."""
        earned, tracks = 0.0, 0
        for sequence, truth in self.truth.items():
            tracks += len(truth)
            for true, size in truth.items():
                for found, area in self.predicted[sequence].items():
                    tpa = self.shared[sequence].get(true * OFFSET + found, 0)
                    earned += tpa * tpa / (size + area - tpa) / size
        confusion = sum(self.confusion.values()).astype(np.float64)
        confusion[CLASSES] = 0
        hits = np.diagonal(confusion)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
        sq, aq = (hits[union > 0] / union[union > 0]).mean(), earned / tracks
        return {"stq": math.sqrt(aq * sq), "aq": aq, "sq": sq}


def compare(sequences: int) -> None:
    """Counts, compares, prints."""
    from knet.evaluation import TrackingQuality

    ways = {"plain": Plain(), "knet": TrackingQuality()}
    seconds = dict.fromkeys(ways, 0.0)
    for number in range(sequences):
        for n, frame in enumerate(make(number)):
            for name in sorted(ways, reverse=bool(n % 2)):
                start = time.perf_counter()
                ways[name].update(str(number), *frame)
                seconds[name] += time.perf_counter() - start
    results = {}
    for name, way in ways.items():
        start = time.perf_counter()
        results[name] = way.result()
        seconds[name] += time.perf_counter() - start
    ours = results["knet"]["all"]
    for key, value in results["plain"].items():
        assert math.isclose(value, ours[key], rel_tol=1e-12), f"{key}: {value} and {ours[key]}"
    frames = sequences * FRAMES
    print(f"{frames} frames of {WIDTH}x{HEIGHT} in {sequences} sequences, {ours['tracks']} tracks; ", end="")
    print(f"STQ {ours['stq']:.6f}, AQ {ours['aq']:.6f}, SQ {ours['sq']:.6f}: equal")
    for name, title in (("plain", "deeplab2's algorithm"), ("knet", "knet")):
        print(f"{title:24}{seconds[name]:8.2f} s  {1000 * seconds[name] / frames:7.2f} ms a frame")
    print(f"{'ratio':24}{seconds['plain'] / seconds['knet']:8.2f}   {os.cpu_count()} cores")
    few, all_ = (memory(count) for count in (1, sequences))
    print(f"{'peak memory of knet':24}{few:8.1f} MB after 1 sequence, {all_:.1f} MB after {sequences}")


def memory(sequences: int) -> float:
    """Peak memory in MB of a process that makes and counts so many sequences by knet's way."""
    command = [sys.executable, __file__, "--alone", str(sequences)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def alone(sequences: int) -> None:
    """What the process of `memory` does."""
    from knet.evaluation import TrackingQuality

    quality = TrackingQuality()
    for number in range(sequences):
        for frame in make(number):
            quality.update(str(number), *frame)
    quality.result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=20)
    parser.add_argument("--alone", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        alone(args.alone)
    else:
        compare(args.sequences)


if __name__ == "__main__":
    main()
