"""From the objects of a clip to results of its frames and to YouTube-VIS's file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet.data.categories import load_categories
from knet.data.files.masks import pack_mask
from knet.data.readers.youtube_vis import VideoToWrite, write_youtube_vis
from knet.errors import ConfigError, DataError
from knet.inference import clip as clip_module
from knet.inference.clip import frame_results, segment_clips
from knet.inference.results.draw import segment_colors
from knet.inference.results.youtube_vis import YoutubeVisWriter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.merge.clip import ClipObject

TABLE = load_categories("youtube_vis")
SIZE = (6, 9)


@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(0, 4))
def test_results_of_frames_say_what_the_objects_say(seed: int, frames: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((count, frames, *SIZE)) < rng.choice([0, 0.1, 0.7], (count, frames, 1, 1))
    scores = sorted(rng.random(count), reverse=True)
    objects = [
        ClipObject(float(score), int(rng.integers(40)), n, [pack_mask(m) if m.any() else None for m in tube])
        for n, (score, tube) in enumerate(zip(scores, masks, strict=True))
    ]
    results = list(frame_results(objects, SIZE, [f"f{n}" for n in range(frames)], TABLE))
    assert [result.name for result in results] == [f"f{n}" for n in range(frames)]
    for time, result in enumerate(results):
        seen = [n for n in range(count) if masks[n, time].any()]
        assert [segment.track for segment in result.segments] == [n + 1 for n in seen]
        assert [segment.id for segment in result.segments] == list(range(1, len(seen) + 1))
        expected = np.zeros(SIZE, int)
        for segment, n in reversed(list(zip(result.segments, seen, strict=True))):
            expected[masks[n, time]] = segment.id  # what is above comes later
            assert (result.mask(segment) == masks[n, time]).all()
            assert segment.category == TABLE[objects[n].label].id and segment.score == objects[n].score
            ys, xs = np.nonzero(masks[n, time])
            assert segment.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert segment.area == len(xs)
        assert (result.id_map == expected).all()


def test_an_object_keeps_its_colour() -> None:
    mask = pack_mask(np.ones(SIZE, bool))
    objects = [ClipObject(0.9, 0, 0, [None, mask, mask]), ClipObject(0.8, 0, 1, [mask, None, mask])]
    results = frame_results(objects, SIZE, ["a", "b", "c"], TABLE)
    colors: list[dict[Any, Any]] = []
    for result in results:
        found = segment_colors(result.segments, TABLE)
        colors.append({segment.track: found[segment.id] for segment in result.segments})
    assert colors == [{2: colors[2][2]}, {1: colors[2][1]}, colors[2]] and len(set(colors[2].values())) == 2


def stream(*videos: tuple[Path, int]) -> Iterator[Frame]:
    for folder, count in videos:
        for n in range(count):
            item = Item(np.full((*SIZE, 3), n, np.uint8), f"{n:05d}", folder / f"{n:05d}.jpg")
            yield Frame(item, folder.name, n, n, first=n == 0)


def test_each_video_is_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def stand_in(_: Any, frames: Any, **options: Any) -> list[Any]:
        first = next(iter(frames))
        if options["bad"] == first.shape[1] or len(list(frames)) == 3:  # a clip that is refused in its middle, or end
            raise DataError("no clip")
        return [first]

    monkeypatch.setattr(clip_module, "segment_clip", stand_in)
    videos = (Path("a"), 2), (Path("b"), 4), (Path("c"), 1)
    found = list(segment_clips(SimpleNamespace(), stream(*videos), lambda e: said.append(str(e)), bad=0))  # type: ignore
    assert [[frame.sequence for frame in frames] for frames, _ in found] == [["a", "a"], ["c"]]
    assert said == ["'b': no clip"]
    found = list(segment_clips(SimpleNamespace(), stream(*videos), lambda e: said.append(str(e)), bad=9))  # type: ignore
    assert found == [] and len(said) == 4
    with pytest.raises(DataError, match="no clip"):
        list(segment_clips(SimpleNamespace(), stream(*videos), bad=9))  # type: ignore[arg-type, call-arg]


def videos_in(root: Path) -> tuple[Path, Path]:
    """Two videos of 2 and 1 frames in YouTube-VIS's layout, of which no image is there."""
    videos = [VideoToWrite([f"{v}/{n:05d}.jpg" for n in range(frames)], SIZE, []) for v, frames in (("x", 2), ("y", 1))]
    write_youtube_vis(root / "valid.json", videos, TABLE)
    return root / "valid" / "JPEGImages" / "x", root / "valid" / "JPEGImages" / "y"


def test_a_submission_grows_video_by_video(tmp_path: Path) -> None:
    x, y = videos_in(tmp_path)
    mask = pack_mask(np.ones(SIZE, bool))
    images = [frame.item.path for frame in stream((x, 2), (y, 1)) if frame.item.path]
    path = tmp_path / "out" / "youtube-vis" / "results.json"
    with YoutubeVisWriter(tmp_path / "out", TABLE, images) as writer:
        writer.write(list(stream((y, 1))), [ClipObject(0.5, 3, 0, [mask])])
        with pytest.raises(DataError, match="'x' has 1 frames that can be read of 2"):
            writer.write(list(stream((x, 1))), [ClipObject(0.5, 3, 0, [mask])])
        writer.write(list(stream((x, 2))), [ClipObject(0.25, 0, 0, [None, mask]), ClipObject(0.1, 0, 0, [None, None])])
        assert not path.exists()
    rows = json.loads(path.read_text())
    assert [(row["video_id"], row["category_id"], row["score"]) for row in rows] == [(2, 4, 0.5), (1, 1, 0.25)]
    assert [mask is None for mask in rows[1]["segmentations"]] == [True, False]
    writer.close()  # a second time


def test_a_submission_has_the_numbers_that_the_data_set_has_for_the_classes(tmp_path: Path) -> None:
    x, _ = videos_in(tmp_path)
    model = [replace(row, id=row.id + 100, name=row.name.upper()) for row in reversed(TABLE)]
    images = [frame.item.path for frame in stream((x, 2)) if frame.item.path]
    mask = pack_mask(np.ones(SIZE, bool))
    with YoutubeVisWriter(tmp_path / "out", model, images) as writer:
        writer.write(list(stream((x, 2))), [ClipObject(0.5, 0, 0, [mask, mask])])
    (row,) = json.loads((tmp_path / "out" / "youtube-vis" / "results.json").read_text())
    assert row["category_id"] == TABLE[-1].id
    with pytest.raises(ConfigError, match=r"The model has other classes than .*only the table has 'unicorn'"):
        YoutubeVisWriter(tmp_path / "out", [*TABLE[:-1], replace(TABLE[-1], name="unicorn")], images)


def test_videos_of_the_submission_are_looked_up_before_any_work(tmp_path: Path) -> None:
    x, y = videos_in(tmp_path)
    with pytest.raises(DataError, match=r"'x' has 2 frames in .*valid.json', but 1 images"):
        YoutubeVisWriter(tmp_path / "out", TABLE, [x / "00000.jpg", y / "00000.jpg"])
    with pytest.raises(DataError, match=r"lists no video 'z'"):
        YoutubeVisWriter(tmp_path / "out", TABLE, [y.parent / "z" / "00000.jpg"])
    with pytest.raises(DataError, match=r"there is no '.*test.json'; give the folders of frames"):
        YoutubeVisWriter(tmp_path / "out", TABLE, [tmp_path / "test" / "JPEGImages" / "x" / "00000.jpg"])
    assert not (tmp_path / "out").exists()
