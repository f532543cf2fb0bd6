"""Synthetic clips: exact tracks, what makes tracking hard, and files that the readers understand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lookalikes import count_alike

from knet.cli.main import main
from knet.data.categories import load_categories
from knet.data.readers.cityscapes_vps import CityscapesVps
from knet.data.readers.clips import ClipReader, split_id
from knet.data.readers.kitti_step import KittiStep
from knet.data.readers.vipseg import VipSeg
from knet.data.readers.youtube_vis import YoutubeVis
from knet.data.samples.batches import Draw
from knet.data.samples.pairs import PairSet
from knet.data.samples.transforms import TrainAugmentation
from knet.data.synthetic.clip_layouts import CLIP_LAYOUTS, synthesize_clips
from knet.data.synthetic.moving import MovingFrame, draw_clip
from knet.errors import ConfigError, DataError

SIZE = (48, 96)


@pytest.fixture(scope="module")
def clips() -> list[list[MovingFrame]]:
    return [list(draw_clip(12, 64, 128, [9, seed])) for seed in range(8)]


def boxes(clip: list[MovingFrame]) -> dict[int, dict[int, tuple[int, int, int]]]:
    """track -> frame -> (left, right, area) of what is seen of it."""
    found: dict[int, dict[int, tuple[int, int, int]]] = {}
    for number, frame in enumerate(clip):
        tracks = frame.tracks[frame.numbers]
        for track in np.unique(tracks[tracks > 0]).tolist():
            columns = np.flatnonzero((tracks == track).any(0))
            area = int((tracks == track).sum())
            found.setdefault(track, {})[number] = (int(columns[0]), int(columns[-1]) + 1, area)
    return found


def kinds(frame: MovingFrame) -> Iterator[tuple[int, str]]:
    for number, thing in enumerate(frame.objects, 1):
        if frame.tracks[number]:
            yield int(frame.tracks[number]), thing.kind


def test_a_track_is_one_object_throughout(clips: list[list[MovingFrame]]) -> None:
    for clip in clips:
        kind_of: dict[int, str] = {}
        for frame in clip:
            tracked = list(kinds(frame))
            assert len({track for track, _ in tracked}) == len(tracked)  # one object each
            for track, kind in tracked:
                assert kind_of.setdefault(track, kind) == kind
            assert frame.tracks[0] == 0 and len(frame.tracks) == len(frame.objects) + 1
            for number, thing in enumerate(frame.objects, 1):
                assert not (thing.group and frame.tracks[number])


def test_equal_seeds_give_equal_clips_and_longer_ones_begin_alike() -> None:
    short, long = list(draw_clip(2, *SIZE, [1, 2])), list(draw_clip(4, *SIZE, [1, 2]))
    for one, other in zip(short, long, strict=False):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.numbers, other.numbers)
    assert not np.array_equal(long[0].image, next(draw_clip(1, *SIZE, [1, 3])).image)


def test_clips_hold_what_makes_tracking_hard(clips: list[list[MovingFrame]]) -> None:
    fast = hidden = born = died = 0
    for clip in clips:
        for seen in boxes(clip).values():
            frames = sorted(seen)
            born += frames[0] > 0
            died += frames[-1] < len(clip) - 1
            hidden += len(frames) < frames[-1] - frames[0] + 1  # gone in between, and back
            fast += any(seen[n + 1][0] >= seen[n][1] or seen[n][0] >= seen[n + 1][1] for n in frames if n + 1 in seen)
    assert min(fast, hidden, born, died) >= 5


def test_some_look_alike_and_most_do_not(clips: list[list[MovingFrame]]) -> None:
    alike, different = count_alike([clip[5] for clip in clips])
    assert alike >= 2 and different > alike


def test_the_world_stands_still_while_the_camera_moves(clips: list[list[MovingFrame]]) -> None:
    """The picture changes a little from frame to frame, and more over a long time."""
    for clip in clips:
        near = np.abs(clip[1].image.astype(int) - clip[0].image).mean()
        assert 0 < near < 60
        assert {thing.kind for thing in clip[0].objects} >= {"road", "sky", "car", "person"}


def open_clips(layout: str, root: Path, split: str) -> ClipReader:
    if layout == "step":
        return KittiStep(root, split)
    if layout == "vipseg":
        return VipSeg(root, split)
    if layout == "cityscapes-vps":
        return CityscapesVps(root, split)
    split = "valid" if split == "val" else split
    return YoutubeVis(root / split / "JPEGImages", root / f"{split}.json")


NAMES = {"step": {}, "cityscapes-vps": {}, "vipseg": {"rider": "person"}, "youtube-vis": {"rider": "person"}}
NAMES["youtube-vis"] |= {"car": "sedan", "motorcycle": "motorbike"}


@pytest.mark.parametrize("layout", CLIP_LAYOUTS)
def test_layouts_hold_the_exact_tracks(tmp_path: Path, layout: str) -> None:
    made = synthesize_clips(layout, tmp_path / "out", 2, 5, SIZE, seed=4)
    assert sorted(made.clips.values()) == [1, 2] and made.frames == 5 and made.tracks["car"] > 3
    for number, (split, count) in enumerate((("train", 2), ("val", 1))):
        reader = open_clips(layout, tmp_path / "out", split)
        assert [len(clip.frames) for clip in reader.clips] == [5] * count and reader.gaps() == []
        for place, clip in enumerate(reader.clips):
            ids: dict[int, set[int]] = {}
            for index, drawn in zip(clip.frames, draw_clip(5, *SIZE, [4, number, place]), strict=True):
                sample = reader.read(index)
                assert np.abs(sample.image.astype(int) - drawn.image).mean() < (
                    8 if layout in ("vipseg", "youtube-vis") else 1e-9
                )
                check_objects(sample.id_map, sample.segments, drawn, reader, NAMES[layout], ids)
            assert all(len(found) == 1 for found in ids.values()) and len(ids) > 4
            assert len(set().union(*ids.values())) == len(ids)


def check_objects(id_map, segments, drawn, reader, names, ids) -> None:  # type: ignore[no-untyped-def]
    """Every tracked object of a thing's class is a segment of just these pixels; `ids` gathers them by track."""
    things = {category.name for category in reader.categories if category.thing}
    covered = id_map.max(0) if id_map.ndim == 3 else id_map
    tracks = drawn.tracks[drawn.numbers]
    by_id = {segment.id: segment for segment in segments}
    told_apart = 0
    for track, kind in kinds(drawn):
        mask = tracks == track
        if names.get(kind, kind) not in things or not mask.any():
            continue
        (id_,) = np.unique(covered[mask]).tolist()
        assert np.array_equal(covered == id_, mask)
        assert reader.categories[by_id[id_].label].name == names.get(kind, kind) and not by_id[id_].crowd
        ids.setdefault(track, set()).add(id_)
        told_apart += 1
    assert told_apart == sum(
        reader.categories[s.label].thing and not s.crowd and split_id(s.id)[1] > 0 for s in segments
    )


def test_both_forms_of_cityscapes_vps_hold_the_same(tmp_path: Path) -> None:
    synthesize_clips("cityscapes-vps", tmp_path / "out", 1, 4, SIZE, seed=8)
    plain = CityscapesVps(tmp_path / "out", "train")
    first = [plain.read(index) for index in range(4)]
    (tmp_path / "out/train/panoptic_inst").rename(tmp_path / "out/train/gone")
    colored = CityscapesVps(tmp_path / "out", "train")
    one_to_one: dict[int, int] = {}
    for index, one in enumerate(first):
        other = colored.read(index)
        assert other.name == one.name
        pairs = set(zip(one.id_map.ravel().tolist(), other.id_map.ravel().tolist(), strict=True))
        assert all(one_to_one.setdefault(a, b) == b for a, b in pairs)
        assert len({b for _, b in pairs}) == len(pairs)
        crowds = [
            [(s.label, s.crowd) for s in sorted(t.segments, key=lambda s: (s.label, s.crowd))] for t in (one, other)
        ]
        assert crowds[0] == crowds[1]


def test_pairs_of_synthetic_clips(tmp_path: Path) -> None:
    """What training will see: KITTI's augmentation on clips, most objects found again."""
    synthesize_clips("step", tmp_path / "out", 2, 5, (64, 192), seed=1)
    augmentation = TrainAugmentation([64], 192, (64, 192), color=False, ratio=(0.5, 2.0), instance_crop=False)
    pairs = PairSet(KittiStep(tmp_path / "out", "train"), augmentation, seed=0)
    matched = [(pairs[Draw(0, n, n)].matches >= 0).sum().item() for n in range(10)]
    assert min(matched) >= 1 and sum(matched) > 30


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        synthesize_clips("vipseg", tmp_path / name, 1, 2, (32, 64), seed)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 10
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)
    changed = [p for p in files if (tmp_path / "one" / p).read_bytes() != (tmp_path / "three" / p).read_bytes()]
    assert len(changed) == 8


def test_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"no layout 'kitti' of clips; choose from step, vipseg"):
        synthesize_clips("kitti", out, 1, 2, SIZE)
    with pytest.raises(ConfigError, match="1 clips of 0 frames"):
        synthesize_clips("step", out, 1, 0, SIZE)
    with pytest.raises(ConfigError, match="16x64 pixels is too small"):
        synthesize_clips("step", out, 1, 2, (16, 64))
    assert list(tmp_path.iterdir()) == []
    out.write_text("")
    with pytest.raises(DataError, match="out exists already"):
        synthesize_clips("step", out, 1, 2, SIZE)
    assert main(["data", "synth", "step", str(tmp_path / "a"), "--images", "3"]) == 2
    assert "give --clips and --frames for step" in capsys.readouterr().err
    for option in (["--clips", "1"], ["--frames", "1"]):
        assert main(["data", "synth", "cityscapes", str(tmp_path / "a"), *option]) == 2
        assert "give --images for cityscapes" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--clips", "1", "--frames", "2", "--size", "32x64", "--seed", "2"]
    assert main(["data", "synth", "step", str(out), *arguments]) == 0
    assert f"{out}: 1 train, 1 val clips of 2 frames" in capsys.readouterr().out
    reader = KittiStep(out, "val")
    assert reader.clips[0].name == "0000"
    assert np.array_equal(reader.read(1).image, list(draw_clip(2, 32, 64, [2, 1, 0]))[1].image)
    assert [category.name for category in reader.categories[:2]] == [
        row.name for row in load_categories("kitti_step")[:2]
    ]
