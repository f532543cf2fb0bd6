"""A long night in minutes: the same work over and over, and whether memory, files and threads stay as they are.

`make soak` runs all of it; `python -m soak --parts frames --frames 500`, in `tests/`, a part. Each part has a process
of its own. What counts is the last quarter against the second: until then libraries warm up.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

COUNTS = {"frames": 10_000, "iterations": 5_000, "evaluations": 1_000, "sizes": 500, "loads": 30}
_SAMPLES = 40  # of each part
_MOST = 16.0  # MiB, of what may have grown


@dataclass(frozen=True)
class State:
    """What the process holds: memory in MiB, open files, threads."""

    memory: float
    files: int
    threads: int


def state() -> State:
    """The state of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))  # noqa: PTH208
    return State(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads)


def growth(states: list[State]) -> State:
    """By how much the last quarter exceeds the second, means of memory; the least of the others: files come and go."""
    quarter = max(len(states) // 4, 1)
    before, after = states[quarter : 2 * quarter], states[-quarter:]
    memory = (sum(s.memory for s in after) - sum(s.memory for s in before)) / quarter
    least = [
        min(getattr(s, kind) for s in after) - min(getattr(s, kind) for s in before) for kind in ("files", "threads")
    ]
    return State(memory, *least)


def frames(count: int, folder: Path) -> Iterator[int]:
    """A film of so many frames, tracked by a video model; objects come and go."""
    import numpy as np

    import knet
    from tiny_models import tiny_file

    def film() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for number in range(count):
            image = rng.integers(0, 60, (48, 96, 3), np.uint8)
            image[10:30, number % 90 : number % 90 + 20] += 150
            yield image

    segmenter = knet.load(tiny_file("video", folder), device="cpu")
    for number, _ in enumerate(segmenter.track(film())):
        yield number


def iterations(count: int, folder: Path) -> Iterator[int]:
    """A training of so many iterations, which logs, saves and validates."""
    from queue import Queue
    from threading import Thread

    import knet
    from runs.tiny_run import write_config

    every = max(count // _SAMPLES, 1)
    config = write_config(
        folder, iterations=count, log_every=every, save_every=max(count // 8, 1), validate_every=max(count // 4, 1)
    )
    told = Queue[int | None]()

    class Told(knet.Callback):
        def on_iteration(self, step: Any) -> None:
            told.put(step.iteration - 1)

    def train() -> None:
        try:
            knet.train(config, callbacks=[Told()])
        finally:
            told.put(None)

    thread = Thread(target=train)
    thread.start()
    while (number := told.get()) is not None:
        yield number
    thread.join()
    assert (folder / "run" / "last.safetensors").is_file() or list((folder / "run").glob("*.safetensors"))


def evaluations(count: int, folder: Path) -> Iterator[int]:
    """A folder that is evaluated so many times."""
    import knet
    from knet.runs.evaluate import evaluate
    from runs.tiny_run import write_config

    config = knet.read_config(write_config(folder, iterations=1))
    knet.train(config)
    segmenter = knet.load(next((folder / "run").glob("*.safetensors")), device="cpu")
    for number in range(count):
        evaluate(segmenter, config.data)
        yield number


def sizes(count: int, folder: Path) -> Iterator[int]:
    """Images of so many sizes."""
    import numpy as np

    import knet
    from tiny_models import tiny_file

    rng = Random(0)
    segmenter = knet.load(tiny_file("panoptic", folder), device="cpu", size="image")
    for number in range(count):
        segmenter(np.full((rng.randrange(33, 200), rng.randrange(33, 200), 3), number % 256, np.uint8))
        yield number


def loads(count: int, folder: Path) -> Iterator[int]:
    """A model of every task, loaded, used and forgotten so many times."""
    import numpy as np

    import knet
    from tiny_models import ARGUMENTS, tiny_file

    files = [tiny_file(task, folder) for task in ARGUMENTS if task != "clip"]
    for number in range(count):
        for path in files:
            knet.load(path, device="cpu")(np.zeros((40, 56, 3), np.uint8))
        yield number


PARTS: dict[str, Callable[[int, Path], Iterator[int]]] = {
    "frames": frames,
    "iterations": iterations,
    "evaluations": evaluations,
    "sizes": sizes,
    "loads": loads,
}


def soak(part: str, count: int) -> tuple[State, list[State]]:
    """The growth over a part, and all states; in this process."""
    states, every = list[State](), max(count // _SAMPLES, 1)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for number in PARTS[part](count, Path(folder)):
            if number % every == 0:
                states.append(state())
    return growth(states), states


def _alone(part: str, count: int, pipe: multiprocessing.connection.Connection) -> None:
    import torch

    torch.set_num_threads(1)
    grown, states = soak(part, count)
    pipe.send((grown, states[len(states) // 4], states[-1]))


def main() -> int:
    """Runs the parts; the exit status is 1 if anything grew."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas (default: all)")
    for part, count in COUNTS.items():
        parser.add_argument(f"--{part}", type=int, default=count)
    args = parser.parse_args()
    status, context = 0, multiprocessing.get_context("spawn")
    for part in args.parts.split(","):
        count = getattr(args, part)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_alone, args=(part, count, theirs))
        process.start()
        theirs.close()
        grown, early, late = ours.recv()
        process.join()
        flat = grown.memory < _MOST and grown.files <= 0 and grown.threads <= 0
        print(
            f"{part}: {count:,}: {early.memory:.0f} -> {late.memory:.0f} MiB ({grown.memory:+.1f}), files "
            f"{early.files} -> {late.files}, threads {early.threads} -> {late.threads}: {'flat' if flat else 'GREW'}",
            flush=True,
        )
        status |= not flat
    return status


if __name__ == "__main__":
    os.environ["KNET_OFFLINE"] = "1"
    sys.exit(main())
