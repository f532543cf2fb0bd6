"""Models judged on clips: perfect ones, spoiled ones against their own files, real ones, several processes, errors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_clip import write_clip_frame

import knet
from knet.data.categories import load_categories
from knet.data.files.masks import mask_area, pack_mask
from knet.data.readers.clip_folder import ClipFolder
from knet.data.readers.clips import NUMBERS, Clip, ClipReader, FrameFiles, split_id
from knet.data.readers.kitti_step import VOID, KittiStep, read_step_png, write_step_png
from knet.data.readers.open import open_clips
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.errors import ConfigError, DataError, NotFiniteError
from knet.evaluation import stq, vpq
from knet.inference.identities import VideoState
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.track_writers import TrackWriter
from knet.inference.segmenter import Segmenter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.merge.clip import ClipObject
from knet.runs.evaluate import evaluate
from knet.runs.evaluate_clips import found_labels, share_clips, true_labels
from knet.structures import Category, Segment
from tiny_models import tiny_file

SIZE, FRAMES = (64, 128), 4
Spoil = Callable[[list[Segment], np.ndarray, int], list[Segment]]


def clips_of(layout: str, folder: Path, frames: int = FRAMES) -> ClipReader:
    synthesize_clips(layout, folder, 2, frames, SIZE, seed=3)
    return open_clips(layout, folder, "train")


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> KittiStep:
    """Two clips of KITTI-STEP."""
    dataset = clips_of("step", tmp_path_factory.mktemp("data") / "step")
    assert isinstance(dataset, KittiStep)
    return dataset


@pytest.fixture(scope="module")
def tiny_video(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return knet.load(tiny_file("video", tmp_path_factory.mktemp("video")), device="cpu")


class Oracle:
    """A model that knows the truth of each frame and object, but for what `spoil` does to it.

    It refuses frames that do not come in their order, and a state that is not that of the frame before.
    """

    task, name = "panoptic", "oracle"

    def __init__(self, dataset: ClipReader, spoil: Spoil | None = None):
        self.dataset, self.spoil, self.categories = dataset, spoil, dataset.categories
        self.order = {dataset.name(i): (c.name, t) for c in dataset.clips for t, i in enumerate(c.frames)}
        self.indices = {dataset.name(i): i for i in range(len(dataset))}
        self.asked: list[dict[str, Any]] = []

    def segment_next(
        self, image: np.ndarray, state: Any, number: int, name: str, **asked: Any
    ) -> tuple[Segmentation, Any]:
        clip, time = self.order[name]
        assert number == time
        assert state == (VideoState() if time == 0 else (clip, time - 1))
        self.asked.append(asked)
        sample = self.dataset.read_truth(self.indices[name])
        id_map, segments = np.zeros(sample.id_map.shape, np.int32), list[Segment]()
        for id_, info in enumerate(sample.segments, 1):
            label, track = split_id(info.id)
            id_map[sample.id_map == info.id] = id_
            c, area = self.categories[label], int((id_map == id_).sum())
            segments.append(Segment(id_, c.id, c.name, c.thing, 0.9, area, (0, 0, 1, 1), track or None))
        if self.spoil:
            segments = self.spoil(segments, id_map, time)
        return Segmentation(id_map, segments, self.categories, name), (clip, time)


def spoiled(segments: list[Segment], id_map: np.ndarray, time: int) -> list[Segment]:
    """Every fifth segment is void, two classes are taken for others, and tracks are lost or change."""
    kept = [s for s in segments if (s.id + time) % 5]
    id_map[~np.isin(id_map, [s.id for s in kept])] = 0
    id_map[:, 20:] = id_map[:, :-20].copy()
    kept = [s for s in kept if (id_map == s.id).any()]
    replaced = []
    for s in kept:
        track = None if not s.thing or (s.id + time) % 4 == 0 else (s.track or 0) + 100 * (time > 2 and s.id % 2)
        replaced.append(Segment(s.id, s.category, s.name, s.thing, s.score, s.area, s.box, track or None))
    return replaced


def test_a_perfect_model_of_step(step: KittiStep) -> None:
    oracle = Oracle(step)
    result = evaluate(oracle, step)  # type: ignore[arg-type]
    assert list(result) == ["panoptic", "semantic", "stq", "stq_video_knet", "vpq"]
    assert len(oracle.asked) == 2 * FRAMES
    assert result["panoptic"]["all"]["pq"] == result["semantic"]["miou"] == pytest.approx(1)
    for key, protocol in (("stq", "official"), ("stq_video_knet", "video-knet")):
        assert result[key]["protocol"] == protocol
        assert result[key]["all"]["stq"] == pytest.approx(1)
        assert result[key]["all"]["tracks"] > 10 and result[key]["all"]["frames"] == 2 * FRAMES
        assert list(result[key]["sequences"]) == ["0000", "0001"]
    assert result["vpq"]["protocol"] == "video-knet"
    found = [row["vpq"] for row in result["vpq"]["classes"].values() if row["vpq"] is not None]
    assert len(found) > 5 and found == pytest.approx([1] * len(found))
    # In the script of Video K-Net a class that occurs nowhere counts 0.
    assert result["vpq"]["all"]["vpq"] == pytest.approx(len(found) / len(step.categories))


@pytest.mark.parametrize(
    ("layout", "windows"), [("cityscapes-vps", [1, 2, 3, 4]), ("vipseg", [1, 2, 4, 6, 8]), ("own", [1, 2, 3, 4])]
)
def test_a_perfect_model_of_other_clips(layout: str, windows: list[int], step: KittiStep, tmp_path: Path) -> None:
    dataset = own_clips(step, tmp_path) if layout == "own" else clips_of(layout, tmp_path / "d")
    result = evaluate(Oracle(dataset), dataset)  # type: ignore[arg-type]
    assert list(result) == ["panoptic", "semantic", "stq", "vpq"]
    assert result["stq"]["all"]["stq"] == result["panoptic"]["all"]["pq"] == pytest.approx(1)
    assert result["vpq"]["all"]["vpq"] == pytest.approx(1)
    assert result["vpq"]["protocol"] == ("vipseg" if layout == "vipseg" else "cityscapes-vps")
    assert list(result["vpq"]["windows"]) == windows
    judged = [n for n, window in result["vpq"]["windows"].items() if window["all"]["pq"] is not None]
    assert judged == [n for n in windows if n <= FRAMES]


def own_clips(step: KittiStep, root: Path) -> ClipFolder:
    for index in range(len(step)):
        id_map = step.read_truth(index).id_map
        path = root / "images" / f"{step.name(index)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(step.read_image(index)).save(path)
        write_clip_frame(root, step.name(index), id_map // NUMBERS - 1, id_map % NUMBERS, "kitti_step")
    return ClipFolder(root / "images", root / "labels", root / "instances", "kitti_step")


def test_figures_are_those_of_the_files_that_the_model_would_write(step: KittiStep, tmp_path: Path) -> None:
    """Also where tracks are lost, objects merge into one number, and pixels are void."""
    oracle, found = Oracle(step, spoiled), tmp_path / "found"
    with TrackWriter(found, ["step"], step.categories) as writer:
        for clip in step.clips:
            state: Any = VideoState()
            for time, index in enumerate(clip.frames):
                image, name = step.read_image(index), step.name(index)
                result, state = oracle.segment_next(image, state, time, name)
                writer.write(result, Frame(Item(image, name), clip.name, clip.numbers[time], time, time == 0))
                classes, numbers = read_step_png(found / "panoptic" / clip.name / f"{clip.numbers[time]:06d}.png")
                assert (found_labels(result) == classes << 16 | numbers).all()
                sample = step.read_truth(index)
                values = np.array([VOID, *(c.id for c in step.categories)])
                classes, numbers = values[sample.id_map // NUMBERS], sample.id_map % NUMBERS
                assert (true_labels(sample.id_map, step.categories) == classes << 16 | numbers).all()
                write_step_png(tmp_path / "truth" / clip.name / f"{clip.numbers[time]:06d}.png", classes, numbers)
    result = evaluate(oracle, step)  # type: ignore[arg-type]
    assert 0.1 < result["stq"]["all"]["stq"] < 0.9
    assert result["stq"] == stq(tmp_path / "truth", found / "panoptic")
    assert result["stq_video_knet"] == stq(tmp_path / "truth", found / "panoptic", protocol="video-knet")
    assert result["vpq"] == vpq(tmp_path / "truth", found / "panoptic")
    assert result["stq_video_knet"]["all"] != result["stq"]["all"]


def test_processes_share_the_clips_and_get_the_same_figures(step: KittiStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: sums are made in the order of the data set, whoever counted what."""
    whole, said = evaluate(Oracle(step, spoiled), step), list[bytes]()  # type: ignore[arg-type]
    place = "knet.runs.evaluate_clips"
    monkeypatch.setattr(f"{place}.world", lambda: 3)

    def gather(value: Any) -> list[Any]:
        said.append(pickle.dumps(value))
        if len(said) < 3:
            raise InterruptedError("the others are not done")
        return [pickle.loads(one) for one in reversed(said)]

    monkeypatch.setattr(f"{place}.gather_objects", gather)
    last = None
    for number in range(3):
        monkeypatch.setattr(f"{place}.rank", lambda number=number: number)
        oracle = Oracle(step, spoiled)
        with suppress(InterruptedError):
            last = evaluate(oracle, step)  # type: ignore[arg-type]
        assert len(oracle.asked) == (FRAMES if number < 2 else 0)  # there are two clips
    assert last == whole


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 6))
def test_shares_are_whole_and_even(lengths: list[int], processes: int) -> None:
    clips = [Clip(f"{n}", tuple(range(length)), tuple(range(length))) for n, length in enumerate(lengths)]
    shares = [share_clips(clips, number, processes) for number in range(processes)]
    names = [clip.name for share in shares for clip in share]
    assert sorted(names) == sorted(clip.name for clip in clips)
    frames = [sum(len(clip.frames) for clip in share) for share in shares]
    assert max(frames) - min(frames) <= max(lengths)
    for share in shares:
        assert share == [clip for clip in clips if clip in share]


def test_options_reach_the_model(step: KittiStep) -> None:
    oracle = Oracle(step)
    evaluate(oracle, step)  # type: ignore[arg-type]
    evaluate(oracle, step, linked=False)  # type: ignore[arg-type]
    assert oracle.asked == [{"linked": True}] * 2 * FRAMES + [{"linked": False}] * 2 * FRAMES


def test_missing_frames_count_as_time(tmp_path: Path) -> None:
    """As for `knet predict` on the folder of frames."""
    dataset = clips_of("step", tmp_path / "d")
    for folder in ("images", "panoptic_maps"):
        (tmp_path / "d" / folder / "train" / "0000" / "000001.png").unlink()
    dataset = open_clips("step", tmp_path / "d", "train")
    numbers: list[int] = []

    class Noted(Oracle):
        def segment_next(self, image: Any, state: Any, number: int, name: str, **asked: Any) -> Any:
            numbers.append(number)
            _, time = self.order[name]
            return super().segment_next(image, state, time, name, **asked)

    evaluate(Noted(dataset), dataset)  # type: ignore[arg-type]
    assert numbers == [0, 2, 3, 0, 1, 2, 3]


def test_a_network_with_and_without_its_link(tiny_video: Segmenter, step: KittiStep, tmp_path: Path) -> None:
    """Without it the figures of single frames are those of an image model."""
    linked, alone = evaluate(tiny_video, step), evaluate(tiny_video, step, linked=False)
    assert linked["stq"]["all"]["aq"] > 0 and alone["stq"]["all"]["aq"] > 0
    assert linked["stq"]["all"]["aq"] != alone["stq"]["all"]["aq"]
    images = SimpleNamespace(name=tiny_video.name, task="panoptic", categories=tiny_video.categories)
    images.segment_next = lambda image, state, number, name, **_: (tiny_video.segment(image, name), state)
    single = evaluate(images, step)  # type: ignore[arg-type]
    assert single["panoptic"] == alone["panoptic"] and single["semantic"] == alone["semantic"]
    assert single["stq"]["all"]["sq"] == alone["stq"]["all"]["sq"]
    assert single["stq"]["all"]["aq"] != alone["stq"]["all"]["aq"]  # which has no tracks
    faulty = evaluate(tiny_file("video", tmp_path), step, device="cpu", compatible=True)
    assert faulty["semantic"]["classes"][0]["iou"] != linked["semantic"]["classes"][0]["iou"]  # void is road


def test_a_model_of_classes_on_clips(step: KittiStep) -> None:
    labels = {step.name(i): step.read_truth(i) for i in range(len(step))}

    def segment(image: np.ndarray, name: str) -> Segmentation:
        classes = labels[name].id_map // NUMBERS
        segments = [
            Segment(n, c.id, c.name, c.thing, 1.0, 1, (0, 0, 1, 1))
            for n, c in enumerate(step.categories, 1)
            if (classes == n).any()
        ]
        return Segmentation(classes.astype(np.int32), segments, step.categories, name)

    model = SimpleNamespace(task="semantic", name="classes", categories=step.categories, segment=segment)
    result = evaluate(model, step)  # type: ignore[arg-type]
    assert list(result) == ["semantic"] and result["semantic"]["miou"] == pytest.approx(1)


def objects_of(dataset: Any, clip: Clip) -> list[ClipObject]:
    """The truth of a clip as a model for clips would give it."""
    places: dict[int, list[Any]] = {}
    for time, index in enumerate(clip.frames):
        sample = dataset.read_truth(index)
        for segment in sample.segments:
            masks = places.setdefault(segment.id, [None] * len(clip.frames))
            masks[time] = pack_mask((sample.id_map == segment.id).any(0))
    return [
        ClipObject(1 - n / 100, split_id(id_)[0], n, masks) for n, (id_, masks) in enumerate(sorted(places.items()))
    ]


def test_models_of_whole_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = clips_of("youtube-vis", tmp_path / "d")
    segmenter = knet.load(tiny_file("clip", tmp_path), device="cpu")
    tiny = evaluate(segmenter, dataset)
    assert list(tiny) == ["instance"] and tiny["instance"]["protocol"] == "youtube-vis"
    assert sum(row["predictions"] for row in tiny["instance"]["classes"].values()) >= 10

    pending, seen = list(dataset.clips), list[int]()

    def perfect(_: Segmenter, frames: Any, **__: Any) -> list[ClipObject]:
        seen.append(len(list(frames)))
        return objects_of(dataset, pending.pop(0))

    monkeypatch.setattr("knet.runs.evaluate_clips.segment_clip", perfect)
    result = evaluate(segmenter, dataset)["instance"]
    assert seen == [FRAMES, FRAMES]
    assert result["all"]["ap"] == pytest.approx(1)
    assert sum(row["objects"] for row in result["classes"].values()) > 4
    pixels = sum(mask_area(m) for c in dataset.clips for o in objects_of(dataset, c) for m in o.masks if m)
    assert pixels == sum(int((dataset.read_truth(i).id_map > 0).sum()) for i in range(len(dataset)))


def test_what_cannot_be_judged(step: KittiStep, tiny_video: Segmenter, tmp_path: Path) -> None:
    def fails(model: Any, dataset: Any, words: str, **options: Any) -> None:
        with pytest.raises((ConfigError, DataError), match=words):
            evaluate(model, dataset, **options)

    videos = clips_of("youtube-vis", tmp_path / "y", 2)
    clips = knet.load(tiny_file("clip", tmp_path), device="cpu")
    fails(clips, step, r"all frames of a clip at once.*give clips with the objects of YouTube-VIS")
    fails(tiny_video, videos, r"is for panoptic segmentation; to evaluate it, give COCO panoptic .* or clips")
    fails(knet.load(tiny_file("instance", tmp_path), device="cpu"), step, "give COCO instances")
    other = SimpleNamespace(task="panoptic", name="other", categories=load_categories("camvid"))
    fails(other, step, r"other classes \(19\) than the model 'other' \(11\)")
    fails(clips, videos, "option unlinked is for panoptic models on clips", linked=False)
    other = SimpleNamespace(task="semantic", name="other", categories=step.categories)
    fails(tiny_video, step, "is loaded already; give compatible to `knet.load`", compatible=True)
    large = tuple(Category(c.id + 300, c.name, c.thing, c.color) for c in step.categories)
    dataset = ClipReader([FrameFiles("a", 0, None, None)], large, "a")
    fails(SimpleNamespace(task="panoptic", name="m", categories=large), dataset, "between 0 and 254")
    found = Segmentation(np.ones((2, 2), np.int32), [], step.categories, "frame 7")
    found.segments = [Segment(1, 11, "person", True, 0.9, 4, (0, 0, 2, 2), track=NUMBERS)]
    with pytest.raises(DataError, match=r"frame 7: the object 65536 .* number up to 65535"):
        found_labels(found)


def test_a_split_without_truth_is_refused_before_any_work(tmp_path: Path) -> None:
    dataset = clips_of("youtube-vis", tmp_path / "d", 2)
    content = json.loads((tmp_path / "d" / "train.json").read_text())
    del content["annotations"]
    (tmp_path / "d" / "train.json").write_text(json.dumps(content))
    dataset = open_clips("youtube-vis", tmp_path / "d", "train")
    model = SimpleNamespace(task="clip", name="m", categories=dataset.categories)
    with pytest.raises(DataError, match="no ground truth; take a labelled split"):
        evaluate(model, dataset)  # type: ignore[arg-type]


def test_a_frame_of_which_the_network_says_nothing_finite_is_void_and_tracks_go_on(step: KittiStep) -> None:
    class Silent(Oracle):
        """An oracle that says nothing of the second frame of each clip."""

        def segment_next(self, image: np.ndarray, state: Any, number: int, name: str, **asked: Any) -> Any:
            if number == 1:
                raise NotFiniteError(name)
            if number == 2:
                assert state == (self.order[name][0], 0)
                state = (self.order[name][0], 1)
            return super().segment_next(image, state, number, name, **asked)

    silent = Silent(step)
    result = evaluate(silent, step)  # type: ignore[arg-type]
    assert result.pop("not_finite") == [step.name(clip.frames[1]) for clip in step.clips]
    whole = evaluate(Oracle(step), step)  # type: ignore[arg-type]
    assert 0 < result["vpq"]["all"]["vpq"] < whole["vpq"]["all"]["vpq"]

    def emptied(segments: list[Segment], id_map: np.ndarray, time: int) -> list[Segment]:
        if time == 1:
            id_map[:] = 0
        return [] if time == 1 else segments

    assert result == evaluate(Oracle(step, emptied), step)  # type: ignore[arg-type]
