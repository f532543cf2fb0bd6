"""Memory of runs over few and over many images, and runs that are killed and resumed.

    python benchmarks/many_images.py            # 10,000 images
    python benchmarks/many_images.py --quick    # 300, to see that it runs

The images are small and each is its own; the network is tiny and random, so that what is measured is the way of images
through `knet predict`. It fails if the peak memory after all images is over 1.1 times that after 100, or if a run that
was killed at five random moments gives other files than one that was not, or does an image twice after its line in the
journal.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from knet.data.categories import load_categories
from knet.inference.load import describe
from knet.models.zoo import create
from knet.structures import Preprocessing
from knet.weights.load import save_weights

FEW, KILLS, EDGE = 100, 5, 32
# Runs `knet predict`, notes each image that the network sees, and prints the peak of memory.
PREDICT = """
import resource, sys
from knet.cli.main import main
from knet.inference.segmenter import Segmenter
seen, whole = open(sys.argv[1], "a", buffering=1), Segmenter.segment
def segment(self, image, name, **options):
    print(name, file=seen)
    return whole(self, image, name, **options)
Segmenter.segment = segment
status = main(sys.argv[2:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


def make_images(folder: Path, count: int) -> None:
    """Writes small pictures, each another."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png", compress_level=0)


def make_model(path: Path) -> None:
    """Writes random weights of a very small model."""
    torch.manual_seed(0)
    arguments = {"width": 8, "head_width": 16, "channels": 16, "kernels": 12, "stages": 1}
    net = create("rtknet-slim-camvid", **arguments)
    card = describe(
        "rtknet-slim-camvid", arguments, load_categories("camvid"), Preprocessing(EDGE, EDGE, divisor=32), 0.0, 0.1
    )
    save_weights(path, net.state_dict(), card)


def predict(model: Path, images: str, output: Path, *options: str) -> subprocess.Popen[str]:
    """Starts `knet predict`."""
    what = [str(model), images, "--formats", "json,panoptic", "--output", str(output), "--threads", "1", *options]
    seen = str(output.with_suffix(".seen"))
    command = [sys.executable, "-c", PREDICT, seen, "predict", *what]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def peak(process: subprocess.Popen[str]) -> int:
    """The peak of memory of a run that comes to its end, in kB."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return int(output.split()[-1])


def noted(journal: Path) -> set[str]:
    """The names of the images that are in a journal."""
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    return {json.loads(line).get("name", "") for line in lines}


def killed(model: Path, images: Path, output: Path, count: int, seed: int = 0) -> int:
    """Kills a run at random moments and resumes it. -> how many images were done again after their line was written"""
    moments, twice = random.Random(seed), 0
    seen = output.with_suffix(".seen")
    seen.touch()
    for turn in range(KILLS + 1):
        done, before = noted(output / ".knet-predict.jsonl"), len(seen.read_text().splitlines())
        process = predict(model, str(images), output, "--resume")
        if turn == KILLS:
            peak(process)
        else:
            enough = before + moments.randrange(1, max((count - len(done)) // 2, 2))
            while process.poll() is None and len(seen.read_text().splitlines()) < enough:
                time.sleep(0.05)
            process.kill()
            process.wait()
        twice += len(done & set(seen.read_text().splitlines()[before:]))
    return twice


def contents(folder: Path) -> dict[str, bytes]:
    """All results by their names."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".jsonl"}


def main() -> None:
    """Measures, and prints a row for README.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    count = 300 if args.quick else args.images
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        make_images(work / "images", count)
        make_model(work / "tiny.safetensors")
        model = work / "tiny.safetensors"
        few = peak(predict(model, f"{work}/images/0000[0-9][0-9].png", work / "few"))
        start = time.perf_counter()
        many = peak(predict(model, str(work / "images"), work / "whole"))
        each = 1000 * (time.perf_counter() - start) / count
        twice = killed(model, work / "images", work / "killed", count)
        whole, found = contents(work / "whole"), contents(work / "killed")
        missed = len(whole.keys() - found.keys())
        assert whole == found and not twice, (missed, twice)
    assert many <= 1.1 * few, (few, many)
    print("| date | images | each | peak memory after 100 | after all | killed | done twice | missed |")
    print(
        f"| {date.today()} | {count} | {each:.0f} ms | {few // 1024} MB | {many // 1024} MB ({many / few - 1:+.1%}) | "
        f"{KILLS} times | {twice} | {missed} |"
    )


if __name__ == "__main__":
    main()
