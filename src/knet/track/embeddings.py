"""Identities by embeddings: Video K-Net's tracker, which is QDTrack's (quasi-dense similarity learning, CVPR 2021).

Objects are told apart by embeddings that were trained for it. The tracker's memory is a value: one goes in with a
frame, and a new one comes out. Tracks not seen for some frames are forgotten, so it does not grow with the video.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from knet.track.settings import EmbeddingSettings

# Official thresholds that no published configuration changes.
_BACKDROPS = 1  # frames for which objects without a track are remembered
_MOMENTUM = 0.8  # weight of the new embedding in a track's
_DUPLICATE = 0.7  # IoU of boxes above which the less certain object is a duplicate of the other
_WEAK_DUPLICATE = 0.3  # the same for objects too uncertain to continue a track, and for backdrops


@dataclass(frozen=True, slots=True)
class EmbeddingMemory:
    """The state of the tracker by embeddings: T tracks in order of birth, embeddings of E numbers.

    `given` is how many identities were given so far. `ids`, `labels` and `last`, the number of the frame in which a
    track was last seen, are (T,) int64, `embeddings` (T,E) float32. `backdrops` are earlier objects without a track,
    which keep others from continuing a wrong one: labels (D,) and embeddings (D,E) for each frame, the newest first.
    """

    given: int = 0
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    embeddings: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    backdrops: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


class Matches(NamedTuple):
    """What the tracker by embeddings found in a frame of n objects, and its state for the next frame."""

    ids: np.ndarray  # (n,) int64, their identities 1, 2, ... in the order in which they came in, 0 = none
    kept: np.ndarray  # (K,) int64, which of them are no duplicates, best first
    memory: EmbeddingMemory


def match(
    memory: EmbeddingMemory,
    number: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    settings: EmbeddingSettings = EmbeddingSettings(),  # noqa: B008  # it cannot be changed
) -> Matches:
    """Gives the n objects of a frame their identities by their embeddings. (n,4), (n,), (n,), (n,E) -> Matches

    As in the official code, a lone object nearly always continues the most similar track of its class, and a frame
    without objects makes no track older. The published figures contain both.

    Args:
        memory: What `match` gave for the frame before; `EmbeddingMemory()` for the first frame.
        number: The frame's number. Tracks age by differences of numbers, so missing frames count.
        boxes: Left, top, right and bottom in pixels.
        scores: 0..1.
        labels: Classes; objects of different classes never share a track.
        embeddings: Not normalised; their dot products are compared.
    """
    if not len(scores):
        return Matches(np.zeros(0, np.int64), np.zeros(0, np.int64), memory)
    order = np.argsort(-scores, kind="stable")
    overlaps = np.tril(_box_overlaps(boxes[order]), k=-1)  # row i: with the better objects only
    limit = np.where(scores[order] < settings.follow, _WEAK_DUPLICATE, _DUPLICATE)
    unique = ~(overlaps > limit[:, None]).any(1)
    kept, overlaps = order[unique], overlaps[unique][:, unique]
    scores, labels, embeddings = scores[kept], labels[kept], embeddings[kept]

    found = _assign(memory, scores, labels, embeddings, settings)
    fresh = (found == 0) & (scores > settings.start)
    found[fresh] = memory.given + 1 + np.arange(fresh.sum())
    lone = (found == 0) & ~(overlaps > _WEAK_DUPLICATE).any(1)
    ids = np.zeros(len(order), np.int64)
    ids[kept] = found.clip(min=0)
    after = _update(memory, number, found, labels, embeddings, settings.memory)
    backdrops = ((labels[lone], embeddings[lone]), *memory.backdrops)[:_BACKDROPS]
    return Matches(ids, kept, replace(after, backdrops=backdrops))


def _box_overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoU of every pair, 0 for boxes without area. (n,4) -> (n,n)"""
    boxes = boxes.astype(np.float64)
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / np.maximum(area[:, None] + area[None] - shared, 1e-6)


def _likeness(embeddings: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How similar objects are to what is known: the mean of the softmax over either. (n,E), (M,E) -> (n,M) 0..1"""
    from scipy.special import softmax  # slow to import, and for videos alone

    similarity = embeddings @ known.T
    return (softmax(similarity, 1) + softmax(similarity, 0)) / 2


def _assign(
    memory: EmbeddingMemory, scores: np.ndarray, labels: np.ndarray, embeddings: np.ndarray, settings: EmbeddingSettings
) -> np.ndarray:
    """Which track each object continues, best object first. -> (n,) identities, 0 = none, -1 = too weak to continue"""
    found = np.zeros(len(scores), np.int64)
    if not len(memory.ids):
        return found
    known = np.concatenate([memory.embeddings, *(backdrop for _, backdrop in memory.backdrops)])
    likeness = _likeness(embeddings, known)
    kinds = np.concatenate([memory.labels, *(kind for kind, _ in memory.backdrops)])
    likeness[labels[:, None] != kinds[None]] = 0  # only now: the softmax is over all classes, as published
    for row, score in enumerate(scores):
        column = int(likeness[row].argmax())
        if likeness[row, column] <= settings.likeness or column >= len(memory.ids):
            continue  # not similar enough, or most similar to a backdrop
        if score > settings.follow:
            found[row] = memory.ids[column]
            likeness[:, column] = 0
        else:
            found[row] = -1
    return found


def _update(
    memory: EmbeddingMemory, number: int, found: np.ndarray, labels: np.ndarray, embeddings: np.ndarray, frames: int
) -> EmbeddingMemory:
    """The tracks after a frame: those seen are renewed, new ones appended, those not seen for `frames` forgotten."""
    seen = (found > 0) & (found <= memory.given)
    places = np.searchsorted(memory.ids, found[seen])  # identities are numbered in order of birth
    fresh = found > memory.given
    known, last, kinds = memory.embeddings.copy(), memory.last.copy(), memory.labels.copy()
    if seen.any():
        known[places] = (1 - _MOMENTUM) * known[places] + _MOMENTUM * embeddings[seen]
        last[places], kinds[places] = number, labels[seen]
    stays = number - last < frames

    def joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.concatenate((old[stays], new)) if len(old) else new.copy()

    return EmbeddingMemory(
        given=memory.given + int(fresh.sum()),
        ids=joined(memory.ids, found[fresh]),
        labels=joined(kinds, labels[fresh]),
        last=joined(last, np.full(fresh.sum(), number)),
        embeddings=joined(known, embeddings[fresh]),
    )
