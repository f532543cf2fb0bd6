"""Identities over the frames of a video. A tracker's memory is a value: one goes in with a frame, a new one comes out.

Two trackers, which forget an object some frames after they last saw it, so their memory does not grow:

* `match` is the quasi-dense tracker of Video K-Net (its settings for KITTI-STEP and VIPSeg): objects are told apart
  by embeddings that were trained for it.
* `match_by_overlap` needs no training: an object is where its last mask, moved on at a constant speed, overlaps a
  segment of the same class; its kernel decides between several and finds it again where nothing overlaps. It is the
  weaker of the two: it loses what is hidden for long, and what moves by more than its own size between two frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


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


@dataclass(frozen=True, slots=True)
class OverlapSettings:
    """Thresholds of the tracker by overlap.

    `start` an object needs at least this score to begin a track · `overlap` the least IoU of a moved mask and a
    segment, `unlike` the least cosine of their kernels · `likeness` the least cosine of two kernels, where nothing
    overlaps, of objects no farther apart than `reach` times their size · `weight` of that cosine beside the IoU where
    several segments overlap · `memory` frames after which an unseen track is forgotten · `inertia` the weight of the
    old speed in a track's.
    """

    start: float = 0.35
    overlap: float = 0.1
    unlike: float = -1.0
    likeness: float = 0.7
    reach: float = 1.5
    weight: float = 0.25
    memory: int = 10
    inertia: float = 0.5


# For embeddings, which were trained to tell objects apart: they forbid what overlaps but looks like another, and find
# objects again wherever they are, by less likeness than overlap asks for: then nobody else is left. Chosen on drawn
# clips, see benchmarks/README.md.
BY_EMBEDDINGS = OverlapSettings(unlike=0.6, likeness=0.5, reach=math.inf, weight=1.0)


@dataclass(frozen=True, slots=True)
class MaskTrack:
    """A track of `match_by_overlap`: its identity and label, the frame it was last seen in, the cells (P,2) (y, x) that
    it covered there, their centre (2,), its speed (2,) in cells a frame, and its kernel (C,), of length 1, if known.
    """

    id: int
    label: int
    last: int
    cells: np.ndarray
    centre: np.ndarray
    speed: np.ndarray
    kernel: np.ndarray | None


@dataclass(frozen=True, slots=True)
class OverlapMemory:
    """What `match_by_overlap` knows: `given` identities so far, the `grid` that cells count in, and the tracks."""

    given: int = 0
    grid: tuple[int, int] = (0, 0)
    tracks: tuple[MaskTrack, ...] = ()


def coarse_grid(id_map: np.ndarray) -> np.ndarray:
    """Every so-many-th pixel, so that the short side has about 200. (H,W) -> (h,w), a view"""
    step = max(1, min(id_map.shape) // 180)
    return id_map[step // 2 :: step, step // 2 :: step]


def match_by_overlap(
    memory: OverlapMemory,
    number: int,
    grid: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    kernels: np.ndarray | None = None,
    settings: OverlapSettings = OverlapSettings(),  # it cannot be changed
) -> tuple[np.ndarray, OverlapMemory]:
    """Identities for the n objects of a frame by where they are. -> (n,) int64: 1, 2, ..., 0 = none; new memory

    Args:
        memory: what the frame before gave; `OverlapMemory()` for the first frame.
        number: of the frame; where some are missing, objects are expected to have moved on all the same.
        grid: (h,w) integers, object i has the value i + 1, 0 = none of them; see `coarse_grid`. It may have another
            shape than that of the frame before: masks are then taken to that.
        scores, labels: (n,).
        kernels: (n,C), descriptors of any length.
    """
    tracks = memory.tracks
    if memory.grid != grid.shape:
        tracks = tuple(_on_grid(track, memory.grid, grid.shape) for track in tracks)
    cells = _cells(grid, len(scores))
    if kernels is not None:
        kernels = kernels / np.maximum(np.linalg.norm(kernels, axis=1, keepdims=True), 1e-6)
    centres = np.array([c.mean(0) if len(c) else (-1e9, -1e9) for c in cells]).reshape(-1, 2)
    pairs = _pairs(tracks, number, grid, cells, centres, labels, kernels, settings) if tracks and cells else {}

    ids, given = _none(len(scores), dtype=np.int64), memory.given
    renewed: dict[int, MaskTrack] = {}
    fresh: list[MaskTrack] = []
    for row, score in enumerate(scores):
        track, kernel = pairs.get(row), None if kernels is None else kernels[row]
        if track is not None:
            old = tracks[track]
            moved = (centres[row] - old.centre) / max(number - old.last, 1)
            speed = settings.inertia * old.speed + (1 - settings.inertia) * moved
            renewed[track] = MaskTrack(old.id, old.label, number, cells[row], centres[row], speed, kernel)
            ids[row] = old.id
        elif score >= settings.start and len(cells[row]):
            given += 1
            ids[row] = given
            fresh.append(MaskTrack(given, int(labels[row]), number, cells[row], centres[row], np.zeros(2), kernel))
    kept = [renewed.get(place, track) for place, track in enumerate(tracks)]
    kept = [track for track in kept if number - track.last < settings.memory]
    return ids, OverlapMemory(given, grid.shape, (*kept, *fresh))


def _cells(grid: np.ndarray, count: int) -> list[np.ndarray]:
    """The cells (P,2) of each object."""
    flat = grid.ravel()
    places = np.flatnonzero(flat)
    places = places[np.argsort(flat[places], kind="stable")]
    ends = np.cumsum(np.bincount(flat[places], minlength=count + 1)[1:])
    cells = np.stack(np.divmod(places, grid.shape[1]), axis=1).astype(np.int32)
    return np.split(cells, ends[:-1]) if count else []


def _on_grid(track: MaskTrack, old: tuple[int, int], new: tuple[int, int]) -> MaskTrack:
    """The track on a grid of another shape: the video has changed its size."""
    mask = np.zeros(old, bool)
    mask[tuple(track.cells.T)] = True
    rows, columns = (np.arange(n) * o // n for o, n in zip(old, new, strict=True))
    ratio = np.array(new) / np.array(old)
    cells = np.argwhere(mask[rows][:, columns]).astype(np.int32)
    return replace(track, cells=cells, centre=track.centre * ratio, speed=track.speed * ratio)


def _pairs(
    tracks: tuple[MaskTrack, ...],
    number: int,
    grid: np.ndarray,
    cells: list[np.ndarray],
    centres: np.ndarray,
    labels: np.ndarray,
    kernels: np.ndarray | None,
    settings: OverlapSettings,
) -> dict[int, int]:
    """Which object goes on with which track: first by overlap, then the others by kernel. -> object -> track"""
    shift = np.array([track.speed * (number - track.last) for track in tracks])
    overlaps, areas = _overlaps(tracks, np.rint(shift).astype(np.int64), grid, len(cells))
    same = np.array([track.label for track in tracks])[:, None] == labels[None]
    cosines, allowed = np.zeros(same.shape), same & (overlaps >= settings.overlap)
    known = [track.kernel for track in tracks if track.kernel is not None]
    if kernels is not None and len(known) == len(tracks):
        cosines = np.stack(known) @ kernels.T
        allowed &= cosines >= settings.unlike
    first = _best(overlaps + settings.weight * cosines.clip(min=0), allowed)

    left = same & (cosines >= settings.likeness) & (areas > 0)
    left[list(first.values())] = False
    left[:, list(first)] = False
    expected = np.array([track.centre for track in tracks]) + shift
    distance = np.linalg.norm(expected[:, None] - centres[None], axis=2)
    sizes = np.sqrt([len(track.cells) for track in tracks])[:, None] + np.sqrt(areas)[None]
    return {**first, **_best(cosines, left & (distance <= settings.reach * sizes / 2))}


def _overlaps(
    tracks: tuple[MaskTrack, ...], shift: np.ndarray, grid: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every moved mask with every object, on the grid. -> (T,n) 0..1, (n,) cells of each object"""
    owner = np.repeat(np.arange(len(tracks)), [len(track.cells) for track in tracks])
    places = np.concatenate([track.cells for track in tracks]) + shift[owner]
    inside = ((places >= 0) & (places < grid.shape)).all(1)
    owner, places = owner[inside], places[inside]
    under = grid[places[:, 0], places[:, 1]]
    shared = np.bincount(owner * (count + 1) + under, minlength=len(tracks) * (count + 1))
    shared = shared.reshape(len(tracks), count + 1)
    areas = np.bincount(grid.ravel(), minlength=count + 1)[1:]
    union = shared.sum(1, keepdims=True) + areas[None] - shared[:, 1:]
    return shared[:, 1:] / np.maximum(union, 1), areas


def _best(value: np.ndarray, allowed: np.ndarray) -> dict[int, int]:
    """The pairs with the largest sum of values, of those that are allowed. (T,n) twice -> object -> track"""
    # More pairs before better ones would join strangers, so a pair that is not allowed costs nothing.
    rows, columns = linear_sum_assignment(np.where(allowed, value, 0), maximize=True)
    return {int(c): int(r) for r, c in zip(rows, columns, strict=True) if allowed[r, c]}
