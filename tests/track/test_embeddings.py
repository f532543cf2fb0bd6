"""The trackers: the official one's numbers, and laws for the one that needs no training."""

import json
from pathlib import Path

import numpy as np
import pytest

from knet.track.embeddings import TrackMemory, TrackSettings, match

SEQUENCES = ("script_seed100", "fuzz0_seed101", "fuzz1_seed102", "fuzz2_seed103", "fuzz3_seed104", "fuzz4_seed105")


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_official_tracker(goldens: Path, name: str) -> None:
    golden = np.load(goldens / "video_knet" / f"tracker_{name}.npz")
    config = json.loads(bytes(golden["config"]))
    names = {"start": "init_score_thr", "follow": "obj_score_thr", "likeness": "match_score_thr"}
    names |= {"metric": "match_metric", "by_class": "with_cats", "memory": "memo_tracklet_frames"}
    names |= {"backdrops": "memo_backdrop_frames", "momentum": "memo_momentum"}
    names |= {"duplicate": "nms_class_iou_thr", "weak_duplicate": "nms_backdrop_iou_thr"}
    settings = TrackSettings(**{ours: config[theirs] for ours, theirs in names.items()})
    assert settings == TrackSettings() or name in SEQUENCES[3:]
    memory = TrackMemory()
    for call, number in enumerate(golden["frame_id"]):
        rows = slice(*golden["in_offsets"][call : call + 2])
        out = slice(*golden["out_offsets"][call : call + 2])
        boxes = golden["boxes"][rows]
        objects = boxes[:, :4], boxes[:, 4], golden["labels"][rows], golden["embeds"][rows]
        matches = match(memory, int(number), *objects, settings)
        memory = matches.memory
        assert matches.kept.tolist() == golden["out_keep"][out].tolist(), call
        assert matches.ids[matches.kept].tolist() == golden["out_track_ids"][out].tolist(), call
    assert memory.given == golden["num_tracklets"]
    assert memory.ids.tolist() == (golden["end_ids"] + 1).tolist()
    assert memory.last.tolist() == golden["end_last"].tolist()
    assert memory.labels.tolist() == golden["end_labels"].tolist()
    assert np.abs(memory.embeddings - golden["end_embeds"]).max() < 1e-6


def test_no_objects_change_nothing() -> None:
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 3))
    first = match(TrackMemory(), 0, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, np.int64), np.ones((1, 3)))
    after = match(first.memory, 7, *empty)
    assert after.memory is first.memory
    assert len(after.ids) == len(after.kept) == 0


def test_the_memory_that_came_in_is_not_changed() -> None:
    memory = match(TrackMemory(), 0, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, int), np.ones((1, 3))).memory
    before = memory.embeddings.copy()
    new = match(memory, 1, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, int), np.full((1, 3), 2.0)).memory
    assert (memory.embeddings == before).all()
    assert np.allclose(new.embeddings, 1.8)  # momentum is the weight of the new one


def test_forgotten_tracks_leave_the_memory() -> None:
    rng, memory = np.random.default_rng(0), TrackMemory()
    for number in range(200):
        boxes = np.stack([np.array([20 * i, 0, 20 * i + 10, 10]) for i in range(4)])
        embeddings = 10 * rng.standard_normal((4, 8))  # strangers in every frame
        memory = match(memory, number, boxes, np.full(4, 0.9), np.zeros(4, np.int64), embeddings).memory
        assert len(memory.ids) <= 4 * 5
    assert memory.given > 100
