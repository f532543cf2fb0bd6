"""Evaluates a model on clips: every frame is segmented, tracked, counted and forgotten again.

Several processes share whole clips, since a clip can only be tracked from its first frame on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.data.files.ahead import map_ahead
from knet.data.readers.clips import NUMBERS, Clip, ClipReader
from knet.data.readers.kitti_step import KittiStep
from knet.data.readers.translated import TranslatedClips
from knet.data.readers.vipseg import VipSeg
from knet.data.readers.youtube_vis import YoutubeVis
from knet.distributed import gather_objects, rank, world
from knet.errors import DataError
from knet.evaluation.details import Details, of_matrix
from knet.evaluation.matches import find_matches
from knet.evaluation.panoptic import PanopticQuality, scores_of
from knet.evaluation.semantic import ConfusionMatrix, semantic_result
from knet.evaluation.video_instance import ytvis_ap
from knet.evaluation.video_labels import NUMBER_BITS, VOID
from knet.evaluation.video_stq import TrackingQuality
from knet.evaluation.video_vpq import VideoPanopticQuality
from knet.inference.clip import segment_clip
from knet.inference.identities import VideoState
from knet.inference.results.draw import map_ids
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.youtube_vis import youtube_vis_results
from knet.inference.segmenter import Segmenter
from knet.inference.sources.streams import frame_times
from knet.runs.look_over import whole_clips, without
from knet.runs.not_finite import NotFinite, nothing
from knet.runs.report.pictures import draw_pair
from knet.structures import Category, Sample


def evaluate_tracks(
    segmenter: Segmenter,
    dataset: ClipReader,
    linked: bool,
    left_out: Collection[int],
    lost: NotFinite,
    details: dict[str, Details] | None = None,
) -> dict[str, Any]:
    """The figures of a panoptic model that tracks through clips, see `evaluate` and its `figures`.

    After a frame of which the network says nothing, objects are followed from the one before.
    """
    figures, judged = Figures(dataset, frames=details is not None), whole_clips(dataset.clips, left_out)
    clips = share_clips(judged, rank(), world())
    with _bar(clips) as bar:
        for clip in clips:
            state = VideoState()
            frames = map_ahead(dataset.read, clip.frames)
            for time, sample in zip(frame_times(clip.numbers)[0], frames, strict=True):
                found = nothing(segmenter, sample.image, sample.name)
                with lost.noted(sample.name):
                    found, state = segmenter.segment_next(sample.image, state, time, sample.name, linked=linked)
                figures.add(clip.name, sample, found)
                bar.update()
    whole = joined_figures(gather_objects(figures), judged)
    if details is not None and whole.frames is not None:
        details["panoptic"] = whole.frames
        details["semantic"] = of_matrix(whole.categories, whole.classes.counts)
    return whole.result()


def evaluate_clips(
    segmenter: Segmenter, dataset: YoutubeVis, left_out: Collection[int], lost: NotFinite
) -> dict[str, Any]:
    """The figures of a model that segments whole clips: {"instance": as `ytvis_ap`}. Packed masks are kept."""
    judged = whole_clips(dataset.clips, left_out)
    dataset.read_truth(judged[0].frames[0])  # without a truth it says so before hours of work
    rows: list[dict[str, Any]] = []
    categories = [replace(row, id=dataset.category_ids[label]) for label, row in enumerate(dataset.categories)]
    clips = share_clips(judged, rank(), world())
    with _bar(clips) as bar:
        for clip in clips:
            with lost.noted(clip.name):
                objects = segment_clip(segmenter, _images(dataset, clip, bar), name=clip.name)
                rows += youtube_vis_results(dataset.video_ids[clip.name], objects, categories)
    everything = list(chain.from_iterable(gather_objects(rows)))
    everything.sort(key=lambda row: row["video_id"])  # equal scores are ranked by their place in the list
    gone = [dataset.video_ids[clip.name] for clip in dataset.clips if clip not in judged]
    return {"instance": ytvis_ap(without(dataset.truth, "video", gone) if gone else dataset.truth, everything)}


def share_clips(clips: Sequence[Clip], number: int, processes: int) -> list[Clip]:
    """The clips of process `number`, in their order; all processes get nearly the same number of frames."""
    frames, mine = [0] * processes, set[str]()
    for clip in sorted(clips, key=lambda clip: -len(clip.frames)):
        least = frames.index(min(frames))
        frames[least] += len(clip.frames)
        if least == number:
            mine.add(clip.name)
    return [clip for clip in clips if clip.name in mine]


class Figures:
    """Accumulates all metrics over clips, frame by frame. It can be pickled, and grows with tracks, not with frames.

    STQ is that of the official protocol, for KITTI-STEP also that of Video K-Net's script. VPQ is that of the data
    set's protocol: Video K-Net's for KITTI-STEP, VIPSeg's for VIPSeg, Cityscapes-VPS's for all others. A thing without
    a track counts as in the files that `TrackWriter` makes: all those of a class share the number 0.

    With `frames` it also has what a report shows of single frames.
    """

    def __init__(self, dataset: ClipReader, frames: bool = False):
        self.categories = dataset.categories
        dataset = dataset.reader if isinstance(dataset, TranslatedClips) else dataset
        self.stq = {"stq": TrackingQuality(self.categories)}
        step, vipseg = isinstance(dataset, KittiStep), isinstance(dataset, VipSeg)
        if step:
            self.stq["stq_video_knet"] = TrackingQuality(self.categories, "video-knet")
        protocol = "video-knet" if step else "vipseg" if vipseg else "cityscapes-vps"
        self.vpq = VideoPanopticQuality(self.categories, protocol)
        self.pq: dict[str, np.ndarray] = {}
        self.classes = ConfusionMatrix(len(self.categories))
        self.frames = Details() if frames else None
        if self.frames is not None:
            self.frames.open(self.categories)
        self._label_of = np.full(VOID + 1, -1)
        self._label_of[[category.id for category in self.categories]] = np.arange(len(self.categories))

    def add(self, clip: str, sample: Sample, found: Segmentation) -> None:
        """Counts the next frame of the clip of this name: its truth, and what the model found."""
        name = sample.name
        frame = PanopticQuality(self.categories)
        tables = frame.tabulate((sample.id_map, sample.segments), (found.id_map, found.segments), name)
        matches = find_matches(*tables)
        frame.counts += matches.counts(len(self.categories))
        if self.frames is not None:
            draw = partial(draw_pair, sample, found, self.categories)
            self.frames.add_segments(name, matches, scores_of(found.segments), draw)
        self.pq[clip] = self.pq.get(clip, 0) + frame.counts
        true, predicted = true_labels(sample.id_map, self.categories), found_labels(found)
        for quality in self.stq.values():
            quality.update_labels(clip, true, predicted, name=name)
        self.vpq.update_labels(clip, true, predicted, name=name)
        labels = sample.id_map // NUMBERS - 1, self._label_of[predicted >> NUMBER_BITS]
        self.classes.add(*labels, name=name)

    def merge(self, other: Figures) -> None:
        """Adds the figures of other clips."""
        for key, quality in self.stq.items():
            quality.merge(other.stq[key])
        self.vpq.merge(other.vpq)
        self.pq |= other.pq
        self.classes.merge(other.classes)
        if self.frames is not None and other.frames is not None:
            self.frames.merge(other.frames)

    def result(self) -> dict[str, Any]:
        """The figures of the clips: {"panoptic", "semantic", "stq", for KITTI-STEP "stq_video_knet", "vpq"}."""
        quality = PanopticQuality(self.categories)
        quality.counts += sum(self.pq.values())
        return {
            "panoptic": quality.result(),
            "semantic": semantic_result(self.classes, {category.id: category.name for category in self.categories}),
            **{key: one.result() for key, one in self.stq.items()},
            "vpq": self.vpq.result(),
        }


def joined_figures(shares: Sequence[Figures], clips: Iterable[Clip]) -> Figures:
    """What several processes have counted of all clips, to the last bit as a single one would have counted it."""
    whole = shares[0]
    for other in shares[1:]:
        whole.merge(other)
    # Sums of floats depend on the order.
    names = [clip.name for clip in clips]
    for quality in whole.stq.values():
        quality.tables = {name: quality.tables[name] for name in names}
    whole.vpq.counts = {name: whole.vpq.counts[name] for name in names}
    whole.pq = {name: whole.pq[name] for name in names}
    return whole


def true_labels(id_map: np.ndarray, categories: Sequence[Category]) -> np.ndarray:
    """The ids of a `ClipReader` as the labels that video metrics count: (H,W) -> (H,W) int32, see `pack_labels`"""
    values = np.array([VOID, *(category.id for category in categories)], np.int32)
    return values[id_map // NUMBERS] << NUMBER_BITS | id_map % NUMBERS


def found_labels(found: Segmentation) -> np.ndarray:
    """A result with tracks as the labels that video metrics count: -> (H,W) int32, see `pack_labels`"""
    numbers = [segment.track or 0 if segment.thing else 0 for segment in found.segments]
    if max(numbers, default=0) >= NUMBERS:
        raise DataError(
            f"{found.name}: the object {max(numbers)} of the clip is one too many for STQ and VPQ, which number up to "
            f"{NUMBERS - 1}; raise the score threshold, or cut the clip into parts."
        )
    kinds = np.array([segment.category for segment in found.segments], np.int32)
    values = kinds << NUMBER_BITS | np.array(numbers, np.int32)
    return map_ids(found.id_map, [segment.id for segment in found.segments], values, VOID << NUMBER_BITS)


def _bar(clips: Sequence[Clip]) -> tqdm[Any]:
    """A progress bar over the frames, in the first process."""
    frames = sum(len(clip.frames) for clip in clips)
    return tqdm(total=frames, desc="evaluating", unit="frame", disable=rank() > 0 or None, leave=False)


def _images(dataset: ClipReader, clip: Clip, bar: tqdm[Any]) -> Iterator[np.ndarray]:
    for image in map_ahead(dataset.read_image, clip.frames):
        yield image
        bar.update()
