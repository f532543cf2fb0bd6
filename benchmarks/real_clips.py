"""Identities in real clips: the bundled model with each way of tracking that needs no training.

"Reach" and "veto" are the settings that are better for kernels that learned identities: what overlaps nothing is looked
for at twice the distance or in the whole frame, and what overlaps but looks different is another object.

    python benchmarks/real_clips.py path/to/real                # some minutes; CamVid and DAVIS as in that folder
    python benchmarks/real_clips.py path/to/real --frames 5     # to see that it runs

CamVid's validation clip (101 frames, 15 a second) has classes only: a true object is a connected region of a class with
objects, and the same as the region of that class in the frame before that shares most of their union, if it is 0.3 or
more. STQ, AQ and SQ are those of the official protocol, on the frames that the model was chosen by, but not trained on.
DAVIS 2016 has one object a clip: the figure is its best track's intersection over union, added up over all frames.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

import knet
from knet.data.categories import load_categories
from knet.evaluation.video_stq import TrackingQuality
from knet.inference.identities import VideoState
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.track import OverlapSettings
from knet.track.overlap import BY_EMBEDDINGS, BY_KERNELS, OverlapMemory, coarse_grid, match_by_overlap

APPEARANCES = {
    "overlap and kernels": BY_KERNELS,
    "with reach": replace(BY_KERNELS, reach=3.0),
    "with a reach of all": replace(BY_KERNELS, reach=math.inf),
    "with veto": replace(BY_KERNELS, veto=0.6),
    "with reach and veto": replace(BY_KERNELS, reach=3.0, veto=0.6),
    "as by embeddings": BY_EMBEDDINGS,
    "overlap alone": None,
}
WAYS = (*APPEARANCES, "none")
VOID, SAME = 255, 0.3


def tracked(segmenter: Segmenter, images: list[Path]) -> Iterator[tuple[Segmentation, dict[str, np.ndarray]]]:
    """Each frame's result, and for each way of tracking the objects' numbers (H,W), 0 = no object."""
    state, given = VideoState(), 0
    memories = {way: OverlapMemory() for way in APPEARANCES}
    labels = {category.id: label for label, category in enumerate(segmenter.categories)}
    for number, path in enumerate(tqdm(images, unit="frame", disable=None)):
        result, state = segmenter.segment_next(np.asarray(Image.open(path).convert("RGB")), state, number, path.stem)
        things = [segment for segment in result.segments if segment.thing]
        place = np.zeros(max((s.id for s in result.segments), default=0) + 1, np.int64)
        place[[segment.id for segment in things]] = np.arange(1, len(things) + 1)
        objects = place[result.id_map]
        scores = np.array([segment.score for segment in things], np.float32)
        kinds = np.array([labels[segment.category] for segment in things], np.int64)
        grid = place[coarse_grid(result.id_map)].astype(np.int32)
        kernel_of = {track.id: track.kernel for track in state.tracks.tracks if track.last == number}
        seen = np.array([segment.track in kernel_of for segment in things], bool)  # not so small that no cell shows it
        kernels = np.zeros((len(things), len(next(iter(kernel_of.values()), ()))), np.float32)
        kernels[seen] = [kernel_of[segment.track] for segment in things if segment.track in kernel_of]
        ids = {"none": given + 1 + np.arange(len(things))}
        for way, appearance in APPEARANCES.items():
            told = {} if appearance is None else {"kernels": kernels, "appearance": appearance}
            settings = OverlapSettings(start=0.0)  # each object that the merge kept needs a number
            ids[way], memories[way] = match_by_overlap(
                memories[way], number, grid, scores, kinds, settings=settings, **told
            )
        given += len(things)
        yield result, {way: np.append(0, found)[objects] for way, found in ids.items()}


def true_objects(labels: np.ndarray, things: list[int], before: np.ndarray | None, given: int) -> np.ndarray:
    """(H,W) numbers of the connected regions of things, those of the frame before where they go on; 0 elsewhere."""
    numbers = np.zeros(labels.shape, np.int64)
    for label in things:
        regions, count = ndimage.label(labels == label, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            mask = regions == region
            found, best = 0, SAME
            seen = [] if before is None else np.unique(before[mask])
            for other in (int(number) for number in seen if number and not (numbers == number).any()):
                there = before == other  # type: ignore[operator]
                share = (mask & there).sum() / (mask | there).sum()
                found, best = (other, share) if share >= best else (found, best)
            if not found:
                given = found = given + 1
            numbers[mask] = found
    return numbers


def camvid(segmenter: Segmenter, root: Path, frames: int) -> None:
    """Prints STQ on the validation clip."""
    categories = load_categories("camvid")
    things = [category.id for category in categories if category.thing]
    id_of = np.array([*(category.id for category in categories), VOID])
    images = sorted((root / "images" / "val").iterdir())[:frames]
    quality = {way: TrackingQuality(categories) for way in WAYS}
    before, given = None, 0
    for path, (result, numbers) in zip(images, tracked(segmenter, images), strict=True):
        labels = np.asarray(Image.open(next((root / "labels" / "val").glob(f"{path.stem}.*"))))
        truth = id_of[np.minimum(labels, len(categories))]
        before = true_objects(truth, things, before, given)
        given = max(given, int(before.max()))
        class_of = np.full(max((s.id for s in result.segments), default=0) + 1, VOID)
        class_of[[segment.id for segment in result.segments]] = [segment.category for segment in result.segments]
        for way in WAYS:
            quality[way].update("val", truth, before, class_of[result.id_map], numbers[way])
    print(f"CamVid val, {len(images)} frames, {given} true tracks; in percent")
    for way in WAYS:
        figures = quality[way].result()["all"]
        print(f"{way:24}" + "".join(f"{key.upper():>6} {100 * figures[key]:5.1f}" for key in ("stq", "aq", "sq")))


def davis(segmenter: Segmenter, root: Path, frames: int) -> None:
    """Prints the IoU of the best track of each clip."""
    for clip in sorted((root / "JPEGImages" / "480p").iterdir()):
        images = sorted(clip.iterdir())[:frames]
        shared, sizes = ({way: dict[int, int]() for way in WAYS} for _ in range(2))
        total = 0
        for path, (_, numbers) in zip(images, tracked(segmenter, images), strict=True):
            mask = root / "Annotations" / "480p" / clip.name / f"{path.stem}.png"
            truth = np.asarray(Image.open(mask).convert("L")) > 0
            total += int(truth.sum())
            for way in WAYS:
                for ids, table in ((numbers[way][truth], shared[way]), (numbers[way], sizes[way])):
                    for number, count in zip(*np.unique(ids, return_counts=True), strict=True):
                        table[int(number)] = table.get(int(number), 0) + int(count)
        print(f"DAVIS 2016 {clip.name}, {len(images)} frames; IoU of the best track in percent")
        for way in WAYS:
            ious = [inside / (sizes[way][n] + total - inside) for n, inside in shared[way].items() if n]
            print(f"{way:24}{100 * max(ious, default=0.0):6.1f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--frames", type=int, default=None)
    args = parser.parse_args()
    segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32")
    camvid(segmenter, args.root / "camvid", args.frames)
    davis(segmenter, args.root / "davis2016_val_part", args.frames)


if __name__ == "__main__":
    main()
