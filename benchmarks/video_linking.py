"""What linking and learned embeddings are worth: RT-Video-K-Net against the same network, frame by frame.

    python benchmarks/video_linking.py FOLDER                       # an hour or more on two CPU cores
    python benchmarks/video_linking.py FOLDER --image 20 --video 10 --clips 4   # to see that it runs
    python benchmarks/video_linking.py FOLDER --judge WEIGHTS        # only judges weights that are there

Draws street clips with exact tracks (`knet data synth step`), trains RT-K-Net slim on their single frames, goes on with
`rt-video-knet-slim-kitti-step` on pairs of frames, and judges the result on clips that it has not seen, in two ways:
linked from frame to frame and tracked by its embeddings; and without the link, tracked by overlap of masks. The first
weights are the bundled model's wherever they fit. The folder keeps data and runs; what is there is not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import knet
from knet.config import load_config
from knet.data.step import KittiStep
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.evaluation.evaluate import evaluate
from knet.models.zoo import create
from knet.training.loop import train
from knet.weights.load import read_checkpoint, save_weights

BUNDLED = Path(knet.__file__).parent / "assets" / "rtknet-slim-camvid.safetensors"
SIZE, FRAMES, CLASSES = (256, 512), 12, 19
SHARED = [
    "arguments={drop_path: 0.1, kernels: 64}",
    "data.categories=kitti_step",
    "data.train={format: step, split: train}",
    "data.val={format: step, split: val}",
    "augment={short_edges: [192, 224, 256, 288, 320], max_edge: 640, crop: [192, 320]}",
    "short_edge=256",
    "max_edge=512",
    "losses.pixels=512",
    "losses.semantic=2",
    "optimizer.for_batch=null",
    "optimizer.warmup=100",
    "batch=4",
    "workers=0",
    "precision=bf16",
    "save_every=100",
    "log_every=50",
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
        train(load_config(name, [*SHARED, *own, f"validate_every={max(iterations // 4, 1)}"]))
    return output / "best.safetensors"


def judge(weights: Path, root: Path) -> None:
    """Prints the figures of both ways."""
    segmenter, clips = knet.load(weights, device="cpu"), KittiStep(root, "val")
    print(f"{weights} on {len(clips.clips)} clips, {len(clips)} frames of {SIZE[1]}x{SIZE[0]}, in percent")
    print(f"{'':32}{'STQ':>7}{'AQ':>7}{'SQ':>7}{'VPQ':>7}{'PQ':>7}{'seconds a frame':>17}")
    for linked in (True, False):
        start = time.perf_counter()
        result = evaluate(segmenter, clips, linked=linked)
        seconds = (time.perf_counter() - start) / len(clips)
        figures = [result["stq"]["all"][key] for key in ("stq", "aq", "sq")]
        figures += [result["vpq"]["all"]["vpq"], result["panoptic"]["all"]["pq"]]
        name = "linked, tracked by embeddings" if linked else "frame by frame, by overlap"
        print(f"{name:32}" + "".join(f"{100 * value:7.1f}" for value in figures) + f"{seconds:17.2f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--image", type=int, default=2000, help="iterations on single frames")
    parser.add_argument("--video", type=int, default=1000, help="iterations on pairs of frames")
    parser.add_argument("--judge", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()
    root = args.folder / "synth"
    if not root.exists():
        synthesize_clips("step", root, args.clips, FRAMES, SIZE, seed=7)
    weights = args.judge
    if weights is None:
        start = f"weights={first_weights(args.folder / 'start.safetensors')}"
        image = run("rtknet-slim-cityscapes", args.folder, args.image, start, "optimizer.learning_rate=5e-4")
        start = f"weights={image}"
        weights = run("rt-video-knet-slim-kitti-step", args.folder, args.video, start, "optimizer.learning_rate=3e-4")
    judge(weights, root)


if __name__ == "__main__":
    main()
