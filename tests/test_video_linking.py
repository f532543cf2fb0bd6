"""The clips that benchmarks/video_linking.py draws: fewer, larger and different objects."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lookalikes import count_alike

from knet.data.readers.kitti_step import KittiStep
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.data.synthetic.moving import draw_clip


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / "video_linking.py"
    spec = importlib.util.spec_from_file_location("video_linking", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_longer_lens_shows_the_same_objects_larger(script: Any) -> None:
    areas = []
    for zoom in (1.0, 2.0):
        frame = next(script.draw_sparse_clip(1, 128, 256, [9, 0], zoom, density=1.0))
        tracked = frame.tracks[frame.numbers]
        areas.append({int(track): int((tracked == track).sum()) for track in np.unique(tracked) if track})
    near, far = areas[1], areas[0]
    common = near.keys() & far.keys()
    assert len(common) >= 3
    assert np.median([near[track] / far[track] for track in common]) > 2


def test_density_is_the_share_of_objects_that_are_there(script: Any) -> None:
    def tracks(density: float) -> int:
        clips = [script.draw_sparse_clip(1, 64, 128, [9, seed], zoom=1.0, density=density) for seed in range(6)]
        return sum(len({*frame.tracks.tolist()} - {0}) for clip in clips for frame in clip)

    whole = tracks(1.0)
    assert tracks(0.0) == 0
    assert 0.2 * whole < tracks(0.5) < 0.8 * whole


def test_distinct_clips_have_no_doubles(script: Any) -> None:
    usual = [list(draw_clip(6, 64, 128, [9, seed]))[5] for seed in range(8)]
    distinct = [list(script.draw_sparse_clip(6, 64, 128, [9, seed], 1.0, 1.0))[5] for seed in range(8)]
    alike, different = count_alike(distinct)
    assert alike < count_alike(usual)[0] and different >= 10


def test_a_data_set_is_made_of_them(script: Any, tmp_path: Path) -> None:
    synthesize_clips("step", tmp_path / "out", 1, 2, (32, 64), 2, draw=script.draw_sparse_clip)
    last = list(script.draw_sparse_clip(2, 32, 64, [2, 1, 0]))[1]
    assert np.array_equal(KittiStep(tmp_path / "out", "val").read(1).image, last.image)
