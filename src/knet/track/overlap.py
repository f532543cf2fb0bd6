"""Identities by overlap, without training: where an object is expected, moved on at a constant speed.

Its kernel decides between several segments that overlap, and finds it again where nothing does. This is the weaker
tracker: it loses what is hidden for long, and what moves by more than its own size between two frames. A tracker's
memory is a value: one goes in with a frame, a new one comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from knet.track.embeddings import _none


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
