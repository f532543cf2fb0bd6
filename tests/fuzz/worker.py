"""One kind's cases, one after another in a process that may die of them; and whoever watches it."""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

KINDS = ("images", "videos", "annotations", "cards", "exported", "configs", "commands", "calls")
CPU_SECONDS = 20.0  # of one case
WALL_SECONDS = 600  # of one case, however busy the machine is
MEMORY = 2 * 2**30  # bytes that a case may need; the largest image that is read has 1.2e9
_LIMIT = MEMORY + 2**30  # beyond it there is none
_FILES = 50  # descriptors and threads that may be left over after all cases


@dataclass
class Tally:
    """What became of the cases of a kind; `faults`: (what, number of the first case, text) -> how often."""

    worked: int = 0
    refused: int = 0
    faults: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, what: str, number: int, text: str) -> None:
        """Counts a fault."""
        self.faults.setdefault(what, []).append((number, text))

    @property
    def broken(self) -> int:
        """The number of cases that broke something."""
        return sum(map(len, self.faults.values()))


def run(kind: str, seed: int, numbers: range) -> Tally:
    """All cases of these numbers; after a crash or a hang the next ones in a new process."""
    tally, first = Tally(), numbers.start
    while first < numbers.stop:
        first = _watched(kind, seed, range(first, numbers.stop), tally)
    return tally


def _watched(kind: str, seed: int, numbers: range, tally: Tally) -> int:
    """Runs a process until it ends or dies. -> the number to go on with"""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        process = context.Process(target=_work, args=(kind, seed, numbers, theirs, folder))
        process.start()
        theirs.close()
        at, text = -1, ""
        try:
            while ours.poll(WALL_SECONDS):
                word, at, *rest = ours.recv()
                if word == "at" and at % 500 == 0:
                    print(f"{kind} {at}", file=sys.stderr, flush=True)
                if word == "ok":
                    tally.worked, tally.refused = tally.worked + (not rest[0]), tally.refused + rest[0]
                elif word == "fault":
                    tally.add(rest[0], at, rest[1])
                    print(f"{kind} {at}: {rest[0]}", file=sys.stderr, flush=True)
                elif word == "end":
                    process.join()
                    return numbers.stop
            text = f"nothing for {WALL_SECONDS} seconds"
        except EOFError:
            pass
        process.kill() if text else None
        process.join()
        code = process.exitcode or 0
        died = (
            "hang" if text or code == -signal.SIGPROF else f"died of {signal.Signals(-code).name if code < 0 else code}"
        )
        log = Path(folder, "log").read_text(errors="replace")[-3000:]
        if at < 0:
            raise RuntimeError(f"{kind} cannot be prepared: {log}")
        tally.add(died, at, f"{text}\n{log}")
        print(f"{kind} {at}: {died}", file=sys.stderr, flush=True)
    return at + 1


def _work(kind: str, seed: int, numbers: range, pipe: Connection, folder: str) -> None:
    log = Path(folder, "log").open("w")  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log, all_threads=False)
    faulthandler.register(signal.SIGPROF, log, all_threads=True, chain=True)
    os.environ["KNET_OFFLINE"] = "1"
    for place in (Path(__file__).parents[1], Path(__file__).parents[1] / "export"):
        sys.path.insert(0, str(place))
    import torch

    torch.set_num_threads(1)
    home = Path(folder, "work")
    home.mkdir()
    os.chdir(home)
    case = importlib.import_module(f"fuzz.{kind}").prepare(home)
    before, limited = _left_over(), False
    for number in numbers:
        pipe.send(("at", number))
        rng = Random(f"{seed}/{kind}/{number}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            pipe.send(("ok", number, bool(case(rng))))
        except BaseException as fault:
            pipe.send(("fault", number, _name(fault), "".join(traceback.format_exception(fault))[-4000:]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        if more * 1024 > MEMORY:
            pipe.send(("fault", number, f"memory in {kind}", f"{more // 1024} MiB"))
        if not limited:  # once libraries are loaded, which take room and no memory
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + _LIMIT, size + _LIMIT))
            before, limited = _left_over(), True
    after = _left_over()
    if any(b - a > _FILES for a, b in zip(before, after, strict=True)):
        pipe.send(("fault", numbers.stop - 1, f"left over by {kind}", f"files and threads {before} -> {after}"))
    pipe.send(("end", numbers.stop))


def _left_over() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


def _name(fault: BaseException) -> str:
    """The kind of a fault and where in the package it was raised: what tells one cause from another."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if "/knet/" in frame.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else "?"
    return f"{type(fault).__name__} at {place}"


def lines(kind: str, seed: int, tally: Tally, seconds: float) -> Iterator[str]:
    """The report on a kind."""
    total = tally.worked + tally.refused + tally.broken
    yield (
        f"{kind}: {total:,} cases in {seconds:.0f} s: {tally.worked:,} worked, {tally.refused:,} refused, "
        f"{tally.broken:,} broken"
    )
    for what, cases in sorted(tally.faults.items(), key=lambda item: -len(item[1])):
        number, text = cases[0]
        yield f"  {len(cases)} x {what}; again: python -m fuzz --kinds {kind} --seed {seed} --only {number}"
        yield "    " + "\n    ".join(text.strip().splitlines()[-12:])


def clock() -> float:
    """Seconds."""
    return time.monotonic()
