"""From a video to results whose objects keep their identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_video import BRIGHTNESS, TABLE, Linked, Painted, drive, filmed, in_folder, painted, segmenter_of

import knet
from knet.errors import ConfigError
from knet.inference import identities
from knet.inference.identities import VideoState, void_as_lowest
from knet.inference.results.draw import segment_colors
from knet.inference.results.segmentation import Segmentation
from knet.inference.segments import Prediction
from knet.models.zoo import ZOO, Task
from knet.preprocess import ImageSizes
from knet.structures import Output
from knet.track import EmbeddingSettings, OverlapSettings
from knet.track.embeddings import EmbeddingMemory
from knet.track.overlap import OverlapMemory


def tracks_of(image: np.ndarray, result: Segmentation) -> dict[int, int | None]:
    """Which object, by its brightness, has which track."""
    found = {}
    for segment in result.segments:
        if segment.thing:
            level = np.median(image[result.id_map == segment.id])
            found[min(BRIGHTNESS, key=lambda n: abs(BRIGHTNESS[n] - level))] = segment.track
        else:
            assert segment.track is None
    return found


@pytest.mark.parametrize("net", [Painted, Linked])
def test_objects_keep_their_identity(net: type[Painted]) -> None:
    frames = drive(9)
    seen: dict[int, set[int | None]] = {}
    for (image, result), frame in zip(segmenter_of(net()).track(frames), frames, strict=True):
        assert (image == frame).all()
        for number, track in tracks_of(image, result).items():
            seen.setdefault(number, set()).add(track)
    assert sorted(seen) == [1, 2, 3]
    assert all(len(tracks) == 1 and None not in tracks for tracks in seen.values())
    assert seen[1] != seen[2] != seen[3] != seen[1]
    assert seen[3] == {3}


def test_the_state_is_the_last_kernels_and_the_tracks() -> None:
    net = Linked()
    segmenter, state = segmenter_of(net), VideoState()
    for number, frame in enumerate(drive(3)):
        _, new = segmenter.segment_next(frame, state, number)
        assert new.kernels is not None and new.kernels.shape == (1, 5, 8)
        assert (net.previous[-1] is None) == (not number)
        assert number == 0 or net.previous[-1] is state.kernels
        assert isinstance(new.tracks, EmbeddingMemory)
        assert not new.kernels.requires_grad
        state = new
    _, overlap = segmenter_of(Painted()).segment_next(drive(1)[0], VideoState(), 0)
    assert overlap.kernels is None and isinstance(overlap.tracks, OverlapMemory)
    # Two videos at once, and one of them a second time: nothing lies on the segmenter.
    again, _ = segmenter.segment_next(drive(4)[3], state, 3)
    once_more, _ = segmenter.segment_next(drive(4)[3], state, 3)
    assert [s.track for s in again.segments if s.thing] != []
    assert tracks_of(drive(4)[3], again) == tracks_of(drive(4)[3], once_more)


def test_overlap_may_count_most_for_a_network_with_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Linked()
    segmenter, state = segmenter_of(net), VideoState()
    segmenter.own_tracker = "overlap"
    seen: dict[int, set[int | None]] = {}
    for number, frame in enumerate(drive(6)):
        result, new = segmenter.segment_next(frame, state, number)
        assert new.kernels is not None and isinstance(new.tracks, OverlapMemory)  # linked all the same
        assert number == 0 or net.previous[-1] is state.kernels
        assert all(track.kernel is not None and track.kernel.max() == 1 for track in new.tracks.tracks)
        for thing, track in tracks_of(frame, result).items():
            seen.setdefault(thing, set()).add(track)
        state = new
    assert seen == {1: {1}, 2: {2}, 3: {3}} or seen == {1: {2}, 2: {1}, 3: {3}}
    # Where nothing overlaps, an embedding finds the object again; one that has changed does not.
    embedded: dict[bool, set[int | None]] = {}
    for changed in (False, True):
        if changed:
            monkeypatch.setattr(net, "embed", lambda kernels: kernels.roll(4, dims=-1))
        moved, _ = segmenter.segment_next(painted({3: (20, 70)}), state, 6)
        embedded[changed] = set(tracks_of(painted({3: (20, 70)}), moved).values())
    assert embedded[False] == {3} and embedded[True] == {4}


def test_a_call_chooses_the_tracker_and_its_settings() -> None:
    """By name or by settings; what is not said is the model's own."""
    for net, tracker, kind in [
        (Linked, None, EmbeddingMemory),
        (Linked, "embeddings", EmbeddingMemory),
        (Linked, EmbeddingSettings(memory=2), EmbeddingMemory),
        (Linked, "overlap", OverlapMemory),
        (Linked, OverlapSettings(), OverlapMemory),
        (Painted, None, OverlapMemory),
        (Painted, "overlap", OverlapMemory),
    ]:
        _, state = segmenter_of(net()).segment_next(drive(1)[0], VideoState(), 0, tracker=tracker)
        assert type(state.tracks) is kind
    # Object 1 is away for three frames, and stands where it stood.
    hidden = [painted({1: (2, 4), 2: (30, 60)} if n in (0, 4) else {2: (30, 60)}) for n in range(5)]
    for net, settings in (Linked, EmbeddingSettings), (Painted, OverlapSettings):
        for memory, same in (3, False), (4, True):
            found = [r for _, r in segmenter_of(net()).track(hidden, tracker=settings(memory=memory))]
            first, last = (tracks_of(hidden[n], found[n]) for n in (0, 4))
            assert first[2] == last[2] and (first[1] == last[1]) == same


def test_a_start_that_is_asked_for_counts_in_panoptic_results_too() -> None:
    for start, begun in (0.95, {1, 2}), (0.96, {None}):  # the objects' scores are 0.953
        ((image, result),) = segmenter_of(Painted()).track(drive(1), tracker=OverlapSettings(start=start))
        assert set(tracks_of(image, result).values()) == begun


@pytest.mark.parametrize("net", [Painted, Linked])
def test_only_the_classes_that_are_asked_for_are_followed(net: type[Painted]) -> None:
    for classes in (["car"], "car"):
        for image, result in segmenter_of(net()).track(drive(5), classes=classes):
            tracks = tracks_of(image, result)
            assert tracks.keys() >= {1, 2}  # the others are still in the result
            assert {n for n, track in tracks.items() if track} == {2} and tracks[2] == 1
    everything = [r for _, r in segmenter_of(net(turns=False)).track(drive(5))]
    named = [r for _, r in segmenter_of(net(turns=False)).track(drive(5), classes=["car", "person"])]
    assert [r.segments for r in named] == [r.segments for r in everything]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tracker": "overlop"}, "There is no tracker 'overlop'; did you mean 'overlap'?"),
        (
            {"tracker": "byte"},
            "There is no tracker 'byte'; it is 'embeddings' or 'overlap', or settings of knet.track.",
        ),
        ({"tracker": {"memory": 5}}, "There is no tracker {'memory': 5}; it is 'embeddings' or"),
        ({"tracker": "embeddings"}, "'rtknet-slim-cityscapes' has no embeddings here; take 'overlap'"),
        ({"tracker": EmbeddingSettings()}, "'rtknet-slim-cityscapes' has no embeddings here; take 'overlap'"),
        (
            {"classes": ["car", "Person"]},
            "The model has no class 'Person' to follow (--track-classes); did you mean 'pe",
        ),
        ({"classes": ["zebra"]}, "has no class 'zebra' to follow (--track-classes); its things are: person, car."),
        ({"classes": ["road"]}, "'road' is stuff, so the model finds no objects of it to follow; its things are: per"),
    ],
)
def test_trackers_and_classes_that_do_not_exist(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        next(segmenter_of(Painted()).track(drive(1), **options))
    assert sentence in str(error.value)


def test_a_video_model_without_its_link_has_no_embeddings() -> None:
    segmenter = segmenter_of(Linked())
    _, state = segmenter.segment_next(drive(1)[0], VideoState(), 0, linked=False)
    assert isinstance(state.tracks, OverlapMemory) and state.kernels is None
    with pytest.raises(ConfigError, match="no embeddings here"):
        segmenter.segment_next(drive(1)[0], VideoState(), 0, linked=False, tracker="embeddings")


def test_the_real_time_video_models_track_by_overlap_first() -> None:
    for name, row in ZOO.items():
        assert (row.tracker == "overlap") == name.startswith("rt-video-knet")


@pytest.mark.parametrize("net", [Painted, Linked])
def test_each_video_starts_anew(net: type[Painted], tmp_path: Path) -> None:
    one, two = in_folder(tmp_path / "a", drive(3)), filmed(tmp_path / "b.mkv", [painted({4: (4, 4)})] * 2)
    network = net()
    found = list(segmenter_of(network).track([one, two]))
    assert [max(s.track or 0 for s in result.segments) for _, result in found] == [2, 2, 2, 1, 1]
    assert [previous is None for previous in network.previous] == (
        [True, False, False, True, False] if net is Linked else [True] * 5
    )


def test_single_images_of_a_video_model_have_no_tracks() -> None:
    result = segmenter_of(Linked()).segment(drive(1)[0])
    assert all(segment.track is None for segment in result.segments)


def test_a_track_keeps_its_colour() -> None:
    segmenter = segmenter_of(Painted())
    colors: dict[int | None, set[tuple[int, int, int]]] = {}
    for _, result in segmenter.track(drive(9)):
        found = segment_colors(result.segments, TABLE)
        for segment in result.segments:
            colors.setdefault(segment.track, set()).add(found[segment.id])
    assert all(len(shades) == 1 for shades in colors.values())
    assert len(set.union(*colors.values())) == 4


def test_a_model_of_objects_that_overlap_tracks_as_well(tmp_path: Path) -> None:
    segmenter = segmenter_of(Painted())
    segmenter.task = "instance"
    last = None
    for image, result in segmenter.track(drive(6)):
        found = {s.track: s.name for s in result.segments if s.thing and s.score > 0.9}
        assert {1, 2} <= set(found)
        assert result.masks is not None
        assert last is None or last == (found[1], found[2])
        last = found[1], found[2]
        assert all(s.track != 0 for s in result.segments), image.shape


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_weak_objects_begin_tracks_where_a_merge_has_chosen_them(task: Task) -> None:
    """An object of a panoptic result without a number would share the 0 of the formats with all others."""
    net = Painted()
    net.certainty = -0.75  # a probability of 0.32: more than the merge asks for, less than a track
    segmenter = segmenter_of(net)
    segmenter.task = task
    result, _ = segmenter.segment_next(drive(1)[0], VideoState(), 0)
    found = sorted(s.track or 0 for s in result.segments if s.thing and s.score > 0.3)
    assert found == ([1, 2] if task == "panoptic" else [0, 0])


def test_models_of_classes_cannot_track() -> None:
    segmenter = segmenter_of(Painted())
    segmenter.task = "semantic"
    with pytest.raises(ConfigError, match="nothing to track"):
        next(segmenter.track(drive(1)))
    segmenter.task = "clip"
    with pytest.raises(ConfigError, match="segment_clip"):
        next(segmenter.track(drive(1)))


class Doubled(Linked):
    """Objects 1, 2 and 4, of which 1 and 2 lie within each other's boxes; and a semantic head on the padded map."""

    def forward(self, images: torch.Tensor, previous: torch.Tensor | None = None) -> list[Output]:
        outputs = super().forward(images, previous)
        scores = torch.tensor([4.0, 3.0, 2.0, 1.5, 1.0])  # of the road and the objects
        logits = outputs[-1].class_logits
        assert logits is not None
        outputs[-1].class_logits = torch.where(logits > 0, scores[None, :, None], logits)
        outputs[0].semantic_logits = torch.cat([images[:, :1] * 0 + 60, images[:, :1], images[:, :1] * 0], 1)
        return outputs


def rings() -> np.ndarray:
    """Object 2 is the frame around object 1: nearly the same box. 42 lines, which are padded to 48."""
    image = painted({4: (28, 70)}, size=(42, 96))
    image[4:26, 10:40] = BRIGHTNESS[2]
    image[5:25, 11:39] = BRIGHTNESS[1]
    return image


def test_faults_of_the_original_come_only_when_asked_for() -> None:
    image = rings()
    fixed, _ = segmenter_of(Doubled(turns=False)).segment_next(image, VideoState(), 0)
    faulty, _ = segmenter_of(Doubled(turns=False), compatible=True).segment_next(image, VideoState(), 0)
    # The duplicate (object 2) has no identity; the original gives it the next object's.
    assert tracks_of(image, fixed) == {1: 1, 2: None, 4: 2}
    assert tracks_of(image, faulty) == {1: 1, 2: 2, 4: None}


class Greedy(Linked):
    """Object 4's mask covers all objects, so it wins too little of it and its pixels are void."""

    def forward(self, images: torch.Tensor, previous: torch.Tensor | None = None) -> list[Output]:
        outputs = super().forward(images, previous)
        outputs[-1].mask_logits[0, 4] = torch.where(images[0, 0] > 50, 5.0, -9.0)
        return outputs


def test_void_becomes_the_lowest_class_only_when_asked_for() -> None:
    image = painted({1: (0, 0), 2: (20, 20), 4: (20, 60)})
    result, _ = segmenter_of(Greedy(turns=False)).segment_next(image, VideoState(), 0)
    void = result.id_map == 0
    assert (void == (image[..., 0] == BRIGHTNESS[4])).all()
    called_road, _ = segmenter_of(Greedy(turns=False), compatible=True).segment_next(image, VideoState(), 0)
    (road,) = (s for s in called_road.segments if s.name == "road")
    assert (called_road.id_map != 0).all()
    assert (called_road.id_map[void] == road.id).all()
    assert (called_road.id_map[~void] == result.id_map[~void]).all()
    assert road.area == (called_road.id_map == road.id).sum()
    assert road.box == (0, 0, 96, 48)
    empty = Segmentation(np.zeros((4, 5), np.int32), [], TABLE)
    (only,) = void_as_lowest(empty).segments
    assert (only.category, only.area, only.score) == (0, 20, 0.0)


def test_the_bundled_model_follows_what_moves(tiny_weights: Path) -> None:
    """A real network end to end: states, sizes and devices fit."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (50 + n, 70, 3), dtype=np.uint8) for n in range(3)]
    results = [result for _, result in knet.load(tiny_weights, device="cpu").track(frames)]
    assert [result.id_map.shape for result in results] == [(50, 70), (51, 70), (52, 70)]


@pytest.mark.parametrize("compatible", [False, True])
def test_boxes_for_the_tracker_go_to_the_last_pixel_as_the_originals_do(compatible: bool) -> None:
    objects = np.zeros((6, 9), np.int32)
    objects[1:4, 2:7], objects[5, 8] = 1, 3
    output = Output(torch.zeros(1, 3, 2), torch.zeros(1, 3, 6, 9), None, torch.zeros(1, 2, 6, 9))
    prediction = Prediction([output], ImageSizes((6, 9), (6, 9), (6, 9)))
    boxes = identities._boxes(objects, 3, prediction, TABLE, compatible)
    nowhere = [-1, -1, 10, 10] if compatible else [0, 0, 0, 0]
    assert boxes.tolist() == [[2, 1, 6, 3], nowhere, [8, 5, 8, 5]]
