"""What threads cost that wait for each other: processor time and wall time of a frame, alone and beside a busy core.

    python benchmarks/busy_machine.py                       # the bundled model at 384x768: some three minutes
    python benchmarks/busy_machine.py --frames 5 --rounds 1  # to see that it runs
    python benchmarks/busy_machine.py --model exported.onnx rtknet-lite-street.xml

Each line is a process of its own that segments the same frames with 1 or 2 threads. "spinning" is how torch's threads
wait if nobody says otherwise: GNU OpenMP runs 300 000 times around a loop before a thread sleeps. "passive" is what
`knet` sets: they sleep at once. "busy" keeps the first core busy by a process that never rests, and ends it. The ways
take turns, and each figure is the median of its rounds. Processor time is that of all threads of the process, in
milliseconds of one core. On a machine that has other work the figures are rough; run it on an idle one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

WAITING = ("spinning", "passive")


def main() -> None:
    """A line for each model, machine, number of threads and way to wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["rtknet-lite-street"])
    parser.add_argument("--size", default="384x768")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "THREADS", "WAITING"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, args.size, args.precision, args.frames)))
        return
    load = f"load average {os.getloadavg()[0]:.1f} before it began"
    print(f"{args.size}, {args.frames} frames, {args.rounds} rounds, {os.cpu_count()} cores, {load}")
    cases = list(product(args.model, (False, True), args.threads, WAITING))
    times: dict[tuple[str, bool, int, str], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(args.rounds):
        for model, busy, threads, waiting in cases:
            if threads > 1 or waiting == WAITING[0]:  # one thread waits for nobody
                with busy_core(busy):
                    times[model, busy, threads, waiting].append(in_process(args, model, threads, waiting))
    rows = []
    print(f"{'model':<28} {'beside':<8} {'threads':>7} {'waiting':<9} {'wall ms':>8} {'processor ms':>12}")
    for (model, busy, threads, waiting), found in times.items():
        if found:
            wall, processor = (statistics.median(row[key] for row in found) for key in ("wall", "processor"))
            beside, way = "busy" if busy else "nothing", waiting if threads > 1 else "-"
            print(f"{Path(model).name:<28} {beside:<8} {threads:>7} {way:<9} {wall:>8.1f} {processor:>12.1f}")
            rows.append({"model": model, "busy": busy, "threads": threads, "waiting": way, "ms": [wall, processor]})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Keeps the first core busy while this lasts."""
    if not busy:
        yield
        return
    pin = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})" if hasattr(os, "sched_setaffinity") else "pass"
    rest = f"while os.getppid() == {os.getpid()}: pass"  # it also ends with this process, however that ends
    process = subprocess.Popen([sys.executable, "-c", f"import os\n{pin}\n{rest}"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def in_process(args: argparse.Namespace, model: str, threads: int, waiting: str) -> dict[str, float]:
    """The figures of `measure`, in a process that GNU OpenMP starts in."""
    free = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--measure", model, str(threads), waiting, "--size", args.size]
    command += ["--precision", args.precision, "--frames", str(args.frames)]
    done = subprocess.run(command, env=free, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(model: str, threads: str, waiting: str, size: str, precision: str, frames: int) -> dict[str, float]:
    """Milliseconds a frame: wall time, and processor time of all threads."""
    if waiting == "spinning":
        import torch  # noqa: F401  # before `knet`, which therefore comes too late to say how its threads wait

        os.environ["OMP_WAIT_POLICY"] = "ACTIVE"  # and the same for ONNX Runtime
    import knet
    from knet.inference.bench import photo

    segmenter = knet.load(model, device="cpu", precision=precision, threads=int(threads))
    height, width = map(int, size.split("x"))
    image = photo((height, width))
    for _ in range(3):
        segmenter.segment(image, size="image")
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(frames):
        segmenter.segment(image, size="image")
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"wall": 1000 * wall / frames, "processor": 1000 * processor / frames}


if __name__ == "__main__":
    main()
