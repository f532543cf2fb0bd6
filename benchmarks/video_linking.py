"""What linking and learned embeddings are worth: RT-Video-K-Net against the same network, frame by frame.

    python benchmarks/video_linking.py FOLDER                        # an hour and a half on two CPU cores
    python benchmarks/video_linking.py FOLDER --iterations 10 --clips 4   # to see that it runs
    python benchmarks/video_linking.py FOLDER --link linear          # the other way to link
    python benchmarks/video_linking.py FOLDER --control              # and another hour for the network to compare with
    python benchmarks/video_linking.py FOLDER --judge WEIGHTS        # only judges weights that are there

Draws street clips with exact tracks (as `knet data synth step` does, but of fewer, larger and different objects),
trains `rt-video-knet-slim-kitti-step` on pairs of their frames, and judges the result on clips that it has not seen:
linked from frame to frame, tracked by overlap and embeddings or by embeddings alone; and without the link, tracked by
overlap of masks, where kernels decide what is unclear, or nothing does; on all frames, on every second and on every
third. The first weights are the bundled model's wherever they fit. The last line is what an ideal tracker would make of
the masks.
With `--control` a second network is trained for as long, without the losses of embeddings, and judged frame by frame.
The folder keeps data and runs; what is there is not made again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

import knet
from knet.config import load_config
from knet.data.readers.clips import NUMBERS
from knet.data.readers.kitti_step import KittiStep
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.data.synthetic.moving import Cast, Mover, MovingFrame, film, plan_street
from knet.inference.load import fast_in_bf16
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.models.video import PriorKind
from knet.models.zoo import Tracker, create
from knet.runs.evaluate import evaluate
from knet.runs.evaluate_clips import Figures
from knet.runs.train import train
from knet.structures import Sample, Segment
from knet.track import OverlapSettings
from knet.track.overlap import OverlapMemory, coarse_grid, match_by_overlap
from knet.weights.load import read_checkpoint, save_weights

BUNDLED = Path(knet.__file__).parent / "assets" / "rtknet-lite-street.safetensors"
SIZE, FRAMES, CLASSES, KERNELS = (256, 512), 20, 19, 32
ZOOM, DENSITY = 3.0, 0.25
WAYS: list[tuple[str, bool, Tracker]] = [
    ("linked, by overlap + embeddings", True, "overlap"),
    ("linked, by embeddings alone", True, "embeddings"),
    ("frame by frame, overlap + kernels", False, "overlap"),
]
# Not the published recipe, which has days: kernels of stuff have a class from the start, as in K-Net, so that learned
# ones only look for things; and the semantic head, which learns fastest, shapes the features.
RECIPE = [
    f"arguments={{drop_path: 0.0, kernels: {KERNELS}}}",
    "stuff_kernels=true",
    "data.categories=kitti_step",
    "data.train={format: step, split: train}",
    "data.val={format: step, split: val}",
    "data.offsets=[-6, -4, -3, -2, -1, 1, 2, 3, 4, 6]",
    "augment={short_edges: [176, 192, 208, 224], max_edge: 480, crop: [160, 320]}",
    "short_edge=192",
    "max_edge=384",
    "losses.semantic=8",
    "losses.track=1",
    "optimizer.learning_rate=5e-4",
    "optimizer.for_batch=null",
    "optimizer.warmup=100",
    "batch=3",
    "workers=0",
    f"precision={'bf16' if fast_in_bf16(torch.device('cpu')) else 'fp32'}",
    "save_every=100",
    "log_every=25",
]


class Distinct(Cast):
    """People and vehicles of which none is made to look like another: vehicles have colours of their own."""

    def alike(self, chance: float) -> bool:
        super().alike(chance)  # so that the rest is drawn as in any clip
        return False

    def draw(self) -> list[Mover]:
        return [replace(mover, own_paint=True) for mover in super().draw()]


def draw_sparse_clip(
    frames: int, height: int, width: int, seed: list[int], zoom: float = ZOOM, density: float = DENSITY
) -> Iterator[MovingFrame]:
    """A clip that is easier to segment, in which looks tell who is who.

    Args:
        frames, height, width, seed: see `draw_clip`.
        zoom: how many times as long as a car camera's the lens is: all that is seen is as many times larger, and turns
            and shakes as much more.
        density: share of the vehicles and people that are there, 0 to 1.
    """
    rng = np.random.default_rng(seed)
    street = plan_street(height, width, rng, Distinct)
    street = replace(
        street,
        camera=replace(street.camera, focal=zoom * street.camera.focal),
        turn=zoom * street.turn,
        shake=zoom * street.shake,
        movers=[mover for mover in street.movers if rng.random() < density],
    )
    yield from film(street, frames, (height, width), seed)


def first_weights(path: Path) -> Path:
    """A file with the bundled model's tensors wherever they fit, and random ones elsewhere."""
    own = create("rtknet-slim-cityscapes", classes=CLASSES, kernels=KERNELS).state_dict()
    given = read_checkpoint(BUNDLED).state
    fitting = {key: value.float() for key, value in given.items() if key in own and own[key].shape == value.shape}
    save_weights(path, own | fitting)
    return path


def trained(folder: Path, name: str, iterations: int, *options: str) -> Path:
    """Trains the network unless its run is there. -> its weights"""
    output = folder / "runs" / name
    if not (output / "best.safetensors").exists():
        first = first_weights(folder / "start.safetensors")
        own = [f"data.root={folder / 'synth'}", f"output={output}", f"weights={first}", f"iterations={iterations}"]
        own += [f"validate_every={iterations}", *options]
        train(load_config("rt-video-knet-slim-kitti-step", [*RECIPE, *own]))
    return output / "best.safetensors"


def judge(weights: Path, root: Path, every: int, ways: Sequence[tuple[str, bool, Tracker]] = WAYS) -> None:
    """Prints the figures of each way on every so manieth frame, as of a camera or a computer that is slower."""
    segmenter, clips = knet.load(weights, device="cpu", precision="fp32"), KittiStep(root, "val")
    clips.clips = tuple(replace(c, frames=c.frames[::every], numbers=c.numbers[::every]) for c in clips.clips)
    frames = sum(len(clip.frames) for clip in clips.clips)
    print(f"{weights.parent.name} on {frames} frames of {len(clips.clips)} clips, one in {every}, in percent")
    print(f"{'':34}{'STQ':>7}{'AQ':>7}{'SQ':>7}{'VPQ':>7}{'PQ':>7}{'seconds a frame':>17}")
    for name, linked, tracker in ways:
        segmenter.own_tracker = tracker
        start = time.perf_counter()
        result = evaluate(segmenter, clips, linked=linked)
        print_row(name, result, f"{(time.perf_counter() - start) / frames:17.2f}")
    print_row("frame by frame, by overlap alone", with_identities(segmenter, clips, overlap_alone))
    print_row("frame by frame, ideal identities", with_identities(segmenter, clips, ideal))


Finder = Callable[[int, Segmentation, Sample, list[Segment]], Sequence[int]]


def with_identities(segmenter: Segmenter, clips: KittiStep, finder: Callable[[], Finder]) -> dict[str, Any]:
    """The figures of single frames with the identities (0 = none) that a new `finder` for each clip gives to things."""
    figures = Figures(clips)
    for clip in clips.clips:
        find = finder()
        for number, frame in zip(clip.numbers, clip.frames, strict=True):
            sample = clips.read(frame)
            found = segmenter.segment(sample.image, sample.name)
            things = [segment for segment in found.segments if segment.thing]
            track_of = dict(zip((segment.id for segment in things), find(number, found, sample, things), strict=True))
            segments = [replace(segment, track=track_of.get(segment.id) or None) for segment in found.segments]
            figures.add(clip.name, sample, replace(found, segments=segments))
    return figures.result()


def ideal() -> Finder:
    """The best tracker there could be: an object has the identity of the true one that has most of its pixels."""

    def find(_: int, found: Segmentation, sample: Sample, things: list[Segment]) -> Sequence[int]:
        numbers = sample.id_map % NUMBERS
        counts = [np.bincount(numbers[(found.id_map == segment.id) & (numbers > 0)]) for segment in things]
        return [int(count.argmax()) if len(count) else 0 for count in counts]

    return find


def overlap_alone() -> Finder:
    """The tracker by overlap of masks without the kernels."""
    memory = OverlapMemory()

    def find(number: int, found: Segmentation, _: Sample, things: list[Segment]) -> Sequence[int]:
        nonlocal memory
        place = np.zeros(max((segment.id for segment in found.segments), default=0) + 1, np.int32)
        place[[segment.id for segment in things]] = np.arange(1, len(things) + 1)
        scores = np.array([segment.score for segment in things], np.float32)
        kinds = np.array([segment.category for segment in things], np.int64)
        grid, settings = place[coarse_grid(found.id_map)], OverlapSettings(start=0.0)
        ids, memory = match_by_overlap(memory, number, grid, scores, kinds, settings=settings)
        return ids.tolist()

    return find


def print_row(name: str, result: dict[str, Any], more: str = "") -> None:
    """A line of the table."""
    figures = [result["stq"]["all"][key] for key in ("stq", "aq", "sq")]
    figures += [result["vpq"]["all"]["vpq"], result["panoptic"]["all"]["pq"]]
    print(f"{name:34}" + "".join(f"{100 * value:7.1f}" for value in figures) + more, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=3500)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3], help="judge on one frame in so many")
    parser.add_argument("--link", choices=get_args(PriorKind), default="attention")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--judge", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()
    root = args.folder / "synth"
    if not root.exists():
        synthesize_clips("step", root, args.clips, FRAMES, SIZE, seed=7, draw=draw_sparse_clip)
    link = f"arguments.link={args.link}"
    weights = args.judge or trained(args.folder, args.link, args.iterations, link)
    for every in args.every:
        judge(weights, root, every)
    if args.control:
        weights = trained(args.folder, "frames", args.iterations, link, "losses.track=0", "losses.similarity=0")
        for every in args.every:
            judge(weights, root, every, [way for way in WAYS if not way[1]])


if __name__ == "__main__":
    main()
