"""A video file to an annotated video file on a CPU, against the time of the network alone.

    python benchmarks/video_throughput.py                     # the bundled model in fp32 and bf16
    python benchmarks/video_throughput.py --model rtknet-lite-street base.safetensors --frames 40
    python benchmarks/video_throughput.py --stages            # only what each step costs, on a busy machine, too
    python benchmarks/video_throughput.py --quick             # 12 frames, to see that it runs

The video is the package's demo drive, played again and again at 1280x720, H.264. "network alone" runs the network, and
nothing else, on the prepared frames; "in a row" decodes, segments, draws and encodes one after the other, as a loop in
Python does; "knet predict" is the command's own loop, in which two frames are computed side by side, and reading and
drawing go on beside them. The three take turns, in one process, on the same threads. The ratio is to the network alone;
the aim of the last is 1.25. The steps are told in milliseconds of one core, of all threads together.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import cycle, islice, product
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

import knet
from knet.cli.main import main as command
from knet.inference.bench import machine
from knet.inference.results.writers import ResultWriter
from knet.inference.segmenter import Segmenter
from knet.inference.sources.videos import read_video

DRIVE = Path(knet.__file__).parent / "assets" / "demo" / "drive.mp4"


def main() -> None:
    """The steps, and a line for each way, of every model and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["rtknet-lite-street"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--frames", type=int, default=76)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.frames, args.rounds, args.precision = 12, 1, args.precision[-1:]
    print(f"{args.frames} frames of 1280x720, {machine(torch.device('cpu'))}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        video = film(Path(temporary) / "drive.mp4", args.frames)
        for model, precision in product(args.model, args.precision):
            segmenter = knet.load(model, device="cpu", precision=precision)
            print(f"\n{segmenter.name}, {precision}")
            torch.set_num_threads(1)
            row: dict[str, object] = {"model": model, "precision": precision, "stages": stages(segmenter, video)}
            torch.set_num_threads(args.threads)
            if not args.stages:
                row["ways"] = compare(model, segmenter, precision, video, args.rounds)
            rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def film(path: Path, frames: int) -> Path:
    """The demo drive at 1280x720."""
    with av.open(str(path), "w") as to:
        stream = to.add_stream("libx264", rate=Fraction(25), options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"  # type: ignore[attr-defined]
        known = [np.array(Image.fromarray(item.image).resize((1280, 720))) for item in read_video(DRIVE)]
        for image in islice(cycle(known), frames):
            to.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))  # type: ignore[attr-defined]
        to.mux(stream.encode(None))  # type: ignore[attr-defined]
    return path


def stages(segmenter: Segmenter, video: Path) -> dict[str, float]:
    """Milliseconds of processor time that each step takes for a frame, that of the decoder's and encoder's threads too.

    One step for all frames and then the next, since those threads would work on in the time of others.
    """
    spent = dict.fromkeys(("decode", "prepare", "network", "merge", "result", "draw", "encode"), 0.0)
    last = time.process_time()

    def mark(step: str) -> None:
        nonlocal last
        now = time.process_time()
        spent[step] += 1000 * (now - last)
        last = now

    items = list(read_video(video))
    mark("decode")
    segmenter.segment(items[0].image)  # Numba compiles
    segmenter.mark = mark
    last = time.process_time()
    results = [segmenter.segment(item.image, item.name) for item in items]
    segmenter.mark = lambda step: None
    for result, item in zip(results, items, strict=True):
        result.overlay(item.image)
    mark("draw")
    with ResultWriter(video.parent / "stages", ["video"], segmenter.categories) as writer:
        for result, item in zip(results, items, strict=True):
            writer.write(result, item.image, video=item.video)
    mark("encode")
    spent["encode"] -= spent["draw"]
    each = {step: taken / len(items) for step, taken in spent.items()}
    rest = sum(each.values()) - each["network"]
    steps = ", ".join(f"{step} {taken:.1f}" for step, taken in each.items())
    print(f"ms of one core: {steps}; all but the network {rest:.1f}", flush=True)
    return each


def compare(model: str, segmenter: Segmenter, precision: str, video: Path, rounds: int) -> list[dict[str, object]]:
    """The three ways in turns, the first one as the measure."""
    frames = [item.image for item in read_video(video)]
    folder = video.parent / "results"

    def network() -> float:
        spent = 0.0
        for image in frames:
            with torch.inference_mode():
                inputs, _ = segmenter.prepare(image, "model")
            start = time.perf_counter()
            segmenter.engine(inputs)
            spent += time.perf_counter() - start
        return spent

    def in_a_row() -> float:
        start = time.perf_counter()
        with ResultWriter(folder, ["video"], segmenter.categories) as writer:
            for item in read_video(video):
                writer.write(segmenter.segment(item.image, item.name), item.image, video=item.video)
        return time.perf_counter() - start

    def predict() -> float:
        """The command's time without what it takes to import and load: that of its loop for all frames but one."""
        return _command(video) - _command(first)

    def _command(file: Path) -> float:
        options = ["--output", str(folder), "--device", "cpu", "--precision", precision, "--no-track"]
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if command(["predict", model, str(file), "--formats", "video", *options]):
                raise RuntimeError("knet predict failed")
        return time.perf_counter() - start

    first = film(video.parent / "first.mp4", 1)
    ways: dict[str, Callable[[], float]] = {"network alone": network, "in a row": in_a_row, "knet predict": predict}
    times: dict[str, list[float]] = {name: [] for name in ways}
    network()
    for _ in range(rounds):
        for name, way in ways.items():
            count = len(frames) - (name == "knet predict")
            times[name].append(1000 * way() / count)
    rows = []
    for name, taken in times.items():
        each = statistics.median(taken)
        ratio = each / statistics.median(times["network alone"])
        rows.append({"way": name, "ms": each, "ratio": ratio})
        print(f"{name:<14} {each:>8.1f} ms a frame, {ratio:>5.2f} of the network alone", flush=True)
    return rows


if __name__ == "__main__":
    main()
