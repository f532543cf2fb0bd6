"""The tracker by embeddings: the official one's numbers, and what must hold for its memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from knet.track import EmbeddingSettings, embeddings
from knet.track.embeddings import EmbeddingMemory, match

SEQUENCES = ("script_seed100", "fuzz0_seed101", "fuzz1_seed102", "fuzz2_seed103", "fuzz3_seed104", "fuzz4_seed105")


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (one, other))
    return one @ other.T


# The official tracker has two more ways to compare, and one to ignore classes, which no published configuration uses.
COMPARISONS = {
    "bisoftmax": embeddings._likeness,
    "softmax": lambda one, other: softmax(one @ other.T, 1),
    "cosine": cosine,
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_official_tracker(goldens: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.load(goldens / "video_knet" / f"tracker_{name}.npz")
    config = json.loads(bytes(golden["config"]))
    settings = EmbeddingSettings(
        start=config["init_score_thr"],
        follow=config["obj_score_thr"],
        likeness=config["match_score_thr"],
        memory=config["memo_tracklet_frames"],
    )
    assert config["memo_momentum"] == embeddings._MOMENTUM
    assert config["nms_class_iou_thr"] == embeddings._DUPLICATE
    assert config["nms_backdrop_iou_thr"] == embeddings._WEAK_DUPLICATE
    if name in SEQUENCES[:3]:  # the published configuration; the others reach further into the official code
        assert settings == EmbeddingSettings() and config["memo_backdrop_frames"] == embeddings._BACKDROPS
        assert config["match_metric"] == "bisoftmax" and config["with_cats"]
    monkeypatch.setattr(embeddings, "_likeness", COMPARISONS[config["match_metric"]])
    monkeypatch.setattr(embeddings, "_BACKDROPS", config["memo_backdrop_frames"])
    memory, label_of = EmbeddingMemory(), dict[int, int]()
    for call, number in enumerate(golden["frame_id"]):
        rows = slice(*golden["in_offsets"][call : call + 2])
        out = slice(*golden["out_offsets"][call : call + 2])
        boxes = golden["boxes"][rows]
        labels = golden["labels"][rows]
        seen = labels if config["with_cats"] else np.zeros_like(labels)
        objects = boxes[:, :4], boxes[:, 4], seen, golden["embeds"][rows]
        matches = match(memory, int(number), *objects, settings)
        memory = matches.memory
        assert matches.kept.tolist() == golden["out_keep"][out].tolist(), call
        assert matches.ids[matches.kept].tolist() == golden["out_track_ids"][out].tolist(), call
        label_of |= dict(zip(matches.ids.tolist(), labels.tolist(), strict=True))
    assert memory.given == golden["num_tracklets"]
    assert memory.ids.tolist() == (golden["end_ids"] + 1).tolist()
    assert memory.last.tolist() == golden["end_last"].tolist()
    kept = memory.labels.tolist() if config["with_cats"] else [label_of[i] for i in memory.ids.tolist()]
    assert kept == golden["end_labels"].tolist()
    assert np.abs(memory.embeddings - golden["end_embeds"]).max() < 1e-6


def test_no_objects_change_nothing() -> None:
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 3))
    first = match(EmbeddingMemory(), 0, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, np.int64), np.ones((1, 3)))
    after = match(first.memory, 7, *empty)
    assert after.memory is first.memory
    assert len(after.ids) == len(after.kept) == 0


def test_the_memory_that_came_in_is_not_changed() -> None:
    memory = match(
        EmbeddingMemory(), 0, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, int), np.ones((1, 3))
    ).memory
    before = memory.embeddings.copy()
    new = match(memory, 1, np.array([[0.0, 0, 9, 9]]), np.ones(1), np.zeros(1, int), np.full((1, 3), 2.0)).memory
    assert (memory.embeddings == before).all()
    assert np.allclose(new.embeddings, 1.8)  # momentum is the weight of the new one


def test_forgotten_tracks_leave_the_memory() -> None:
    rng, memory = np.random.default_rng(0), EmbeddingMemory()
    for number in range(200):
        boxes = np.stack([np.array([20 * i, 0, 20 * i + 10, 10]) for i in range(4)])
        embeddings = 10 * rng.standard_normal((4, 8))  # strangers in every frame
        memory = match(memory, number, boxes, np.full(4, 0.9), np.zeros(4, np.int64), embeddings).memory
        assert len(memory.ids) <= 4 * 5
    assert memory.given > 100
