"""What linking and learned embeddings are worth: RT-Video-K-Net against the same network, frame by frame.

    python benchmarks/video_linking.py FOLDER                        # an hour on two CPU cores, and as long to judge
    python benchmarks/video_linking.py FOLDER --iterations 10 --clips 4   # to see that it runs
    python benchmarks/video_linking.py FOLDER --judge WEIGHTS         # only judges weights that are there

Draws street clips with exact tracks (`knet data synth step --zoom 2 --density 0.35`: few objects, large ones), trains
`rt-video-knet-slim-kitti-step` on pairs of their frames, and judges it on clips that it has not seen, in three ways:
linked from frame to frame, tracked by overlap with embeddings, or by embeddings alone; and without the link, tracked by
overlap of masks, where kernels decide what is unclear: on all frames, on every second and on every third. The first
weights are the bundled model's wherever they fit. The last line is what an ideal tracker would make of the masks. The
folder keeps data and run; what is there is not made again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import knet
from knet.config import load_config
from knet.data.clips import NUMBERS
from knet.data.step import KittiStep
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.evaluation.evaluate import evaluate
from knet.evaluation.evaluate_video import Figures
from knet.inference.segmenter import Segmenter
from knet.models.zoo import Tracker, create
from knet.training.loop import train
from knet.weights.load import read_checkpoint, save_weights

BUNDLED = Path(knet.__file__).parent / "assets" / "rtknet-slim-camvid.safetensors"
MODEL = "rt-video-knet-slim-kitti-step"
SIZE, FRAMES, ZOOM, DENSITY, CLASSES, KERNELS = (256, 512), 12, 2.0, 0.35, 19, 64
WAYS: list[tuple[str, bool, Tracker]] = [
    ("linked, by overlap + embeddings", True, "overlap"),
    ("linked, by embeddings alone", True, "embeddings"),
    ("frame by frame, by overlap", False, "overlap"),
]
OPTIONS = [
    f"arguments={{drop_path: 0.0, kernels: {KERNELS}}}",
    "data.offsets=[-6, -4, -3, -2, -1, 1, 2, 3, 4, 6]",
    "augment={short_edges: [224, 240, 256, 272, 288], max_edge: 640, crop: [224, 384]}",
    "short_edge=256",
    "max_edge=512",
    "losses.pixels=512",
    "losses.semantic=2",
    "losses.track=1",
    "optimizer={learning_rate: 5.0e-4, warmup: 100}",
    "batch=3",
    "workers=0",
    "save_every=100",
    "log_every=25",
]


def first_weights(path: Path) -> Path:
    """A file with the bundled model's tensors wherever they fit, and random ones elsewhere."""
    own = create("rtknet-slim-cityscapes", classes=CLASSES, kernels=KERNELS).state_dict()
    given = read_checkpoint(BUNDLED).state
    fitting = {key: value.float() for key, value in given.items() if key in own and own[key].shape == value.shape}
    save_weights(path, own | fitting, {})
    return path


def run(folder: Path, iterations: int, precision: str) -> Path:
    """Trains the network unless its run is there. -> its weights"""
    output = folder / "run"
    if not (output / "best.safetensors").exists():
        start = first_weights(folder / "start.safetensors")
        own = [f"data.root={folder / 'synth'}", f"output={output}", f"weights={start}", f"precision={precision}"]
        length = [f"iterations={iterations}", f"validate_every={iterations}"]
        train(load_config(MODEL, [*OPTIONS, *own, *length]))
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
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--iterations", type=int, default=2100)
    parser.add_argument("--precision", default="fp32", help="bf16 where the processor has it")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3], help="judge on one frame in so many")
    parser.add_argument("--judge", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()
    root = args.folder / "synth"
    if not root.exists():
        synthesize_clips("step", root, args.clips, FRAMES, SIZE, seed=7, zoom=ZOOM, density=DENSITY)
    weights = args.judge or run(args.folder, args.iterations, args.precision)
    for every in args.every:
        judge(weights, root, every)


if __name__ == "__main__":
    main()
