"""Identities by embeddings: the quasi-dense tracker of Video K-Net, with its settings for KITTI-STEP and VIPSeg.

Objects are told apart by embeddings that were trained for it. A tracker's memory is a value: one goes in with a frame,
a new one comes out. Objects are forgotten some frames after they were last seen, so memory does not grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """Thresholds of the quasi-dense tracker; the defaults are the official ones.

    `start` an object needs a higher score to begin a track, `follow` to go on with one · `likeness` of two embeddings,
    0..1, above which they are the same object · `metric` of that: "softmax" over the tracks, "bisoftmax" the mean of
    that and the one over the frame's objects, or "cosine" · `by_class` whether only objects of a class are compared ·
    `memory` frames after which an unseen track is forgotten, `backdrops` those for which objects without a track are
    known · `momentum` the weight of the *new* embedding in a track's · `duplicate` IoU of boxes above which the less
    certain object is a duplicate, `weak_duplicate` that for objects with a score below `follow`.
    """

    start: float = 0.35
    follow: float = 0.3
    likeness: float = 0.5
    metric: Literal["bisoftmax", "softmax", "cosine"] = "bisoftmax"
    by_class: bool = True
    memory: int = 5
    backdrops: int = 1
    momentum: float = 0.8
    duplicate: float = 0.7
    weak_duplicate: float = 0.3


def _none(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@dataclass(frozen=True, slots=True)
class TrackMemory:
    """What the quasi-dense tracker knows. T tracks in order of birth, E numbers an embedding.

    `given` identities so far, the last one's number · `ids` (T,) 1, 2, ... · `labels` (T,) int64 · `last` (T,), the
    number of the frame that each was last seen in · `embeddings` (T,E) · `backdrops` labels (D,) and embeddings (D,E)
    of earlier objects without a track, which keep others from a wrong one; a pair a frame, the newest first.
    """

    given: int = 0
    ids: np.ndarray = field(default_factory=lambda: _none(0, dtype=np.int64))
    labels: np.ndarray = field(default_factory=lambda: _none(0, dtype=np.int64))
    last: np.ndarray = field(default_factory=lambda: _none(0, dtype=np.int64))
    embeddings: np.ndarray = field(default_factory=lambda: _none(0, 0))
    backdrops: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


class Matches(NamedTuple):
    """`ids` (n,) int64, in the order of the objects that came in: their identities 1, 2, ..., 0 = none · `kept`: those
    that are no duplicates, best first, as positions in that order · `memory` for the next frame.
    """

    ids: np.ndarray
    kept: np.ndarray
    memory: TrackMemory


def match(
    memory: TrackMemory,
    number: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    settings: TrackSettings = TrackSettings(),  # it cannot be changed
) -> Matches:
    """Identities for the n objects of a frame by their embeddings (Video K-Net's quasi-dense tracker).

    (n,4), (n,), (n,), (n,E) -> Matches. As the official code does it, faults that its figures contain included: a lone
    object nearly always goes on with the likest track of its class, and a frame without objects makes nobody older.

    Args:
        memory: what the frame before gave; `TrackMemory()` for the first frame.
        number: of the frame. Ages are differences of numbers, so frames that are missing count.
        boxes: left, top, right, bottom. scores: 0..1. labels: objects of different labels never share a track.
        embeddings: not normalised; their dot products are compared.
    """
    if not len(scores):
        return Matches(_none(0, dtype=np.int64), _none(0, dtype=np.int64), memory)
    order = np.argsort(-scores, kind="stable")
    overlaps = np.tril(_box_overlaps(boxes[order]), k=-1)  # row i: with the better objects only
    limit = np.where(scores[order] < settings.follow, settings.weak_duplicate, settings.duplicate)
    unique = ~(overlaps > limit[:, None]).any(1)
    kept, overlaps = order[unique], overlaps[unique][:, unique]
    scores, labels, embeddings = scores[kept], labels[kept], embeddings[kept]

    found = _assign(memory, scores, labels, embeddings, settings)
    fresh = (found == 0) & (scores > settings.start)
    found[fresh] = memory.given + 1 + np.arange(fresh.sum())
    lone = (found == 0) & ~(overlaps > settings.weak_duplicate).any(1)
    ids = _none(len(order), dtype=np.int64)
    ids[kept] = found.clip(min=0)
    after = _update(memory, number, found, labels, embeddings, settings)
    backdrops = ((labels[lone], embeddings[lone]), *memory.backdrops)[: settings.backdrops]
    return Matches(ids, kept, replace(after, backdrops=backdrops))


def _box_overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoU of every pair, 0 for boxes without area. (n,4) -> (n,n)"""
    boxes = boxes.astype(np.float64)
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / np.maximum(area[:, None] + area[None] - shared, 1e-6)


def _likeness(embeddings: np.ndarray, known: np.ndarray, settings: TrackSettings) -> np.ndarray:
    """How alike objects are to what is known. (n,E), (M,E) -> (n,M) 0..1, a new array"""
    if settings.metric == "cosine":
        embeddings, known = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (embeddings, known))
        return embeddings @ known.T
    similarity = embeddings @ known.T
    over_known = _softmax(similarity, 1)
    return over_known if settings.metric == "softmax" else (over_known + _softmax(similarity, 0)) / 2


def _softmax(values: np.ndarray, axis: int) -> np.ndarray:
    raised = np.exp(values - values.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def _assign(
    memory: TrackMemory, scores: np.ndarray, labels: np.ndarray, embeddings: np.ndarray, settings: TrackSettings
) -> np.ndarray:
    """Who goes on with which track, the best object first. -> (n,) identities, 0 = none, -1 = too weak to go on"""
    found = _none(len(scores), dtype=np.int64)
    if not len(memory.ids):
        return found
    known = np.concatenate([memory.embeddings, *(backdrop for _, backdrop in memory.backdrops)])
    likeness = _likeness(embeddings, known, settings)
    if settings.by_class:  # only now: the softmax is over all classes, as published
        kinds = np.concatenate([memory.labels, *(kind for kind, _ in memory.backdrops)])
        likeness[labels[:, None] != kinds[None]] = 0
    for row, score in enumerate(scores):
        column = int(likeness[row].argmax())
        if likeness[row, column] <= settings.likeness or column >= len(memory.ids):  # too unlike, or likest a backdrop
            continue
        if score > settings.follow:
            found[row] = memory.ids[column]
            likeness[:, column] = 0
        else:
            found[row] = -1
    return found


def _update(
    memory: TrackMemory,
    number: int,
    found: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    settings: TrackSettings,
) -> TrackMemory:
    """The tracks after a frame: seen ones renewed, new ones behind them, those unseen for too long forgotten."""
    seen = (found > 0) & (found <= memory.given)
    places = np.searchsorted(memory.ids, found[seen])  # in order of birth is in order of number
    fresh = found > memory.given
    known, last, kinds = memory.embeddings.copy(), memory.last.copy(), memory.labels.copy()
    if seen.any():
        known[places] = (1 - settings.momentum) * known[places] + settings.momentum * embeddings[seen]
        last[places], kinds[places] = number, labels[seen]
    stays = number - last < settings.memory

    def joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.concatenate((old[stays], new)) if len(old) else new.copy()

    return TrackMemory(
        given=memory.given + int(fresh.sum()),
        ids=joined(memory.ids, found[fresh]),
        labels=joined(kinds, labels[fresh]),
        last=joined(last, np.full(fresh.sum(), number)),
        embeddings=joined(known, embeddings[fresh]),
    )
