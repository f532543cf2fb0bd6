"""What linking and learned embeddings are worth: RT-Video-K-Net against the same network, frame by frame.

    python benchmarks/video_linking.py FOLDER                       # an hour or more on two CPU cores
    python benchmarks/video_linking.py FOLDER --image 20 --video 10 --clips 4   # to see that it runs
    python benchmarks/video_linking.py FOLDER --judge WEIGHTS        # only judges weights that are there

Draws street clips with exact tracks (`knet data synth step`), trains RT-K-Net slim on their single frames, goes on with
`rt-video-knet-slim-kitti-step` on pairs of frames, and judges the result on clips that it has not seen, in three ways:
linked from frame to frame, tracked by overlap with embeddings for what is unclear, or by embeddings alone; and without
the link, tracked by overlap of masks, where kernels decide what is unclear: on all frames, on every second and on every
third. The first weights are the bundled model's wherever they fit. The last line is what an ideal tracker would make of
the masks. The folder keeps data and runs; what is there is not made again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import knet
from knet.config import load_config
from knet.data.clips import NUMBERS
from knet.data.step import KittiStep
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.evaluation.evaluate import evaluate
from knet.evaluation.evaluate_video import Figures
from knet.inference.load import fast_in_bf16
from knet.inference.segmenter import Segmenter
from knet.models.zoo import Tracker, create
from knet.training.loop import train
from knet.weights.load import read_checkpoint, save_weights

BUNDLED = Path(knet.__file__).parent / "assets" / "rtknet-slim-camvid.safetensors"
SIZE, FRAMES, CLASSES = (256, 512), 12, 19
WAYS: list[tuple[str, bool, Tracker]] = [
    ("linked, by overlap + embeddings", True, "overlap"),
    ("linked, by embeddings alone", True, "embeddings"),
    ("frame by frame, by overlap", False, "overlap"),
]
SHARED = [
    "arguments={drop_path: 0.1, kernels: 64}",
    "data.categories=kitti_step",
    "data.train={format: step, split: train}",
    "data.val={format: step, split: val}",
    "losses.pixels=512",
    "losses.semantic=2",
    "optimizer.for_batch=null",
    "optimizer.warmup=100",
    "batch=4",
    "workers=0",
    f"precision={'bf16' if fast_in_bf16(torch.device('cpu')) else 'fp32'}",
    "save_every=100",
    "log_every=50",
]
# Single frames are learned as they are, which is fast; pairs at twice their size, because masks have an eighth of the
# pixels that the network sees, and people in these clips are small.
SMALL = [
    "augment={short_edges: [192, 224, 256, 288, 320], max_edge: 640, crop: [192, 320]}",
    "short_edge=256",
    "max_edge=512",
]
LARGE = [
    "augment={short_edges: [384, 448, 512, 576, 640], max_edge: 1280, crop: [256, 448]}",
    "short_edge=512",
    "max_edge=1024",
]


def first_weights(path: Path) -> Path:
    """A file with the bundled model's tensors wherever they fit, and random ones elsewhere."""
    own = create("rtknet-slim-cityscapes", classes=CLASSES, kernels=64).state_dict()
    given = read_checkpoint(BUNDLED).state
    fitting = {key: value.float() for key, value in given.items() if key in own and own[key].shape == value.shape}
    save_weights(path, own | fitting, {})
    return path


def run(name: str, folder: Path, iterations: int, *options: str) -> Path:
    """Trains one of the two networks unless its run is there. -> its best weights"""
    output = folder / "runs" / name
    if not (output / "best.safetensors").exists():
        own = [f"data.root={folder / 'synth'}", f"output={output}", f"iterations={iterations}", *options]
        train(load_config(name, [*SHARED, *own, f"validate_every={iterations}"]))
    return output / "best.safetensors"


def judge(weights: Path, root: Path, every: int) -> None:
    """Prints the figures of each way on every so manieth frame, as of a camera or a computer that is slower."""
    segmenter, clips = knet.load(weights, device="cpu", precision="fp32"), KittiStep(root, "val")
    clips.clips = tuple(replace(c, frames=c.frames[::every], numbers=c.numbers[::every]) for c in clips.clips)
    frames = sum(len(clip.frames) for clip in clips.clips)
    print(f"{weights.parent.name} on {frames} frames of {len(clips.clips)} clips, one in {every}, in percent")
    print(f"{'':32}{'STQ':>7}{'AQ':>7}{'SQ':>7}{'VPQ':>7}{'PQ':>7}{'seconds a frame':>17}")
    for name, linked, tracker in WAYS:
        segmenter.tracker = tracker
        start = time.perf_counter()
        result = evaluate(segmenter, clips, linked=linked)
        print_row(name, result, f"{(time.perf_counter() - start) / frames:17.2f}")
    print_row("frame by frame, ideal identities", with_true_identities(segmenter, clips))


def with_true_identities(segmenter: Segmenter, clips: KittiStep) -> dict[str, Any]:
    """The figures of single frames with the best tracker there could be: each object found has the identity of the true
    one that has most of its pixels.
    """
    figures = Figures(clips)
    for clip in clips.clips:
        for sample in map(clips.read, clip.frames):
            found, segments = segmenter.segment(sample.image, sample.name), []
            for segment in found.segments:
                numbers = (sample.id_map % NUMBERS)[found.id_map == segment.id]
                counts = np.bincount(numbers[numbers > 0])
                segments.append(replace(segment, track=int(counts.argmax()) if segment.thing and len(counts) else None))
            figures.add(clip.name, sample, replace(found, segments=segments))
    return figures.result()


def print_row(name: str, result: dict[str, Any], more: str = "") -> None:
    """A line of the table."""
    figures = [result["stq"]["all"][key] for key in ("stq", "aq", "sq")]
    figures += [result["vpq"]["all"]["vpq"], result["panoptic"]["all"]["pq"]]
    print(f"{name:32}" + "".join(f"{100 * value:7.1f}" for value in figures) + more, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--image", type=int, default=2400, help="iterations on single frames")
    parser.add_argument("--video", type=int, default=900, help="iterations on pairs of frames")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3], help="judge on one frame in so many")
    parser.add_argument("--judge", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()
    root = args.folder / "synth"
    if not root.exists():
        synthesize_clips("step", root, args.clips, FRAMES, SIZE, seed=7)
    weights = args.judge
    if weights is None:
        start = f"weights={first_weights(args.folder / 'start.safetensors')}"
        options = [*SMALL, "optimizer.learning_rate=5e-4"]
        image = run("rtknet-slim-cityscapes", args.folder, args.image, start, *options)
        options = [*LARGE, "optimizer.learning_rate=3e-4"]
        weights = run("rt-video-knet-slim-kitti-step", args.folder, args.video, f"weights={image}", *options)
    for every in args.every:
        judge(weights, root, every)


if __name__ == "__main__":
    main()
