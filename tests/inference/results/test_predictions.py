"""One writer for all that `knet predict` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_results import TABLE, names_in, photo, street

from knet.errors import ConfigError
from knet.inference.results.predictions import PredictionWriter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item

NAMES = [f"berlin_000000_{n:06d}_leftImg8bit" for n in range(3)]
FRAMES = [Frame(Item(photo(), name, Path(f"{name}.png")), "berlin", n, n, n == 0) for n, name in enumerate(NAMES)]
KIND = "cityscapes-panoptic"


def test_everything_is_written_through_one_writer(tmp_path: Path) -> None:
    formats = ["video", "json", "tracks"]
    with PredictionWriter(tmp_path, formats, TABLE, track=True, submission=KIND) as writer:
        for frame in FRAMES:
            writer.write(street(name=frame.item.name, tracks={3: 1, 4: 2}), frame)
        writer.write_clip(FRAMES, [])  # no submission of videos: nothing to do
    segments = [f"{name}_segments.json" for name in NAMES]
    assert names_in(tmp_path) == sorted([*segments, "berlin_overlay.mp4", KIND, "tracks.jsonl"])
    assert len((tmp_path / "tracks.jsonl").read_text().splitlines()) == 3
    assert len(json.loads((tmp_path / KIND / "panoptic.json").read_text())["images"]) == 3
    writer.close()


def test_images_that_are_not_tracked_become_one_video(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path, ["video"], TABLE) as writer:
        for frame in FRAMES:
            writer.write(street(name=frame.item.name), frame)
    assert names_in(tmp_path) == ["images_overlay.mp4"]


def test_an_error_keeps_the_tables_and_removes_the_video(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PredictionWriter(tmp_path, ["video", "tracks"], TABLE, track=True) as writer:
        writer.write(street(tracks={3: 1, 4: 2}), FRAMES[0])
        raise KeyError
    assert names_in(tmp_path) == ["tracks.jsonl"]


def test_forms_of_tracks_need_tracks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for tracked videos"):
        PredictionWriter(tmp_path, ["tracks"], TABLE)
    with pytest.raises(ConfigError, match="needs a model for clips"):
        PredictionWriter(tmp_path, [], TABLE, submission="youtube-vis")
