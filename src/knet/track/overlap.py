"""Identities by overlap, which needs no training: an object is looked for where it is expected at constant speed.

Descriptors (kernels, or embeddings where a model has them) decide between several segments that overlap, and find an
object again where nothing does. This is the weaker tracker: it loses what is hidden for long, and what moves by more
than its own size between two frames. The tracker's memory is a value: one goes in with a frame, and a new one comes
out.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from knet.track.settings import OverlapSettings

_START = 0.35
_INERTIA = 0.5  # weight of a track's old speed in its new one


@dataclass(frozen=True, slots=True)
class Appearance:
    """How far the tracker relies on descriptors. Cosines are those of a track's descriptor and an object's."""

    weight: float  # of the cosine beside the IoU, where several segments overlap
    veto: float  # cosine below which what overlaps is another object
    likeness: float  # least cosine of what is found again without overlap
    reach: float  # greatest distance of what is found again without overlap, in sizes of the object


BY_KERNELS = Appearance(weight=0.25, veto=-1.0, likeness=0.7, reach=1.5)
# Embeddings were trained to tell objects apart, so they may veto, and find objects again anywhere. That takes less
# likeness than with kernels, since few candidates are left by then. Chosen on drawn clips, see benchmarks/README.md.
BY_EMBEDDINGS = Appearance(weight=1.0, veto=0.6, likeness=0.5, reach=math.inf)


@dataclass(frozen=True, slots=True)
class MaskTrack:
    """One track of the tracker by overlap."""

    id: int  # from 1 on
    label: int
    last: int  # the number of the frame in which it was last seen
    cells: np.ndarray  # (P,2) int32, y and x of the cells of the grid that it covered there
    centre: np.ndarray  # (2,) float64, their mean
    speed: np.ndarray  # (2,) float64, in cells a frame
    kernel: np.ndarray | None  # (C,) its descriptor there, of length 1, if known


@dataclass(frozen=True, slots=True)
class OverlapMemory:
    """The state of the tracker by overlap."""

    given: int = 0  # how many identities were given so far, which is the last one's number
    grid: tuple[int, int] = (0, 0)  # height and width of the grid that the tracks' cells lie in
    tracks: tuple[MaskTrack, ...] = ()  # those not forgotten, in order of birth


def coarse_grid(id_map: np.ndarray) -> np.ndarray:
    """Takes every n-th pixel, so that the short side has fewer than 360. (H,W) -> (h,w), a view"""
    step = max(1, min(id_map.shape) // 180)
    return id_map[step // 2 :: step, step // 2 :: step]


def match_by_overlap(
    memory: OverlapMemory,
    number: int,
    grid: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    kernels: np.ndarray | None = None,
    settings: OverlapSettings = OverlapSettings(),  # noqa: B008  # it cannot be changed
    appearance: Appearance = BY_KERNELS,
) -> tuple[np.ndarray, OverlapMemory]:
    """Gives the n objects of a frame their identities by where they are. (h,w), (n,), (n,), (n,C) -> (n,)

    Args:
        memory: What the frame before gave; `OverlapMemory()` for the first frame.
        number: The frame's number. Where frames are missing, objects are expected to have moved on all the same.
        grid: Integers: object i has the value i + 1, and 0 is none of them; see `coarse_grid`. Where its shape is not
            that of the frame before, the tracks are taken to the new one.
        scores: 0..1.
        labels: Classes; objects of different classes never share a track.
        kernels: Descriptors of any length. None goes by overlap alone.
        settings: Thresholds and memory; a `start` of None is 0.35.

    Returns:
        Identities as (n,) int64: 1, 2, ..., 0 = none; and the memory for the next frame.
    """
    tracks = memory.tracks
    if memory.grid != grid.shape:
        tracks = tuple(_on_grid(track, memory.grid, grid.shape) for track in tracks)
    cells = _cells(grid, len(scores))
    if kernels is not None:
        kernels = kernels / np.maximum(np.linalg.norm(kernels, axis=1, keepdims=True), 1e-6)
    centres = np.array([c.mean(0) if len(c) else (-1e9, -1e9) for c in cells]).reshape(-1, 2)
    pairs: dict[int, int] = {}
    if tracks and cells:
        pairs = _pairs(tracks, number, grid, cells, centres, labels, kernels, settings.overlap, appearance)

    start = _START if settings.start is None else settings.start
    ids, given = np.zeros(len(scores), np.int64), memory.given
    renewed: dict[int, MaskTrack] = {}
    fresh: list[MaskTrack] = []
    for row, score in enumerate(scores):
        track, kernel = pairs.get(row), None if kernels is None else kernels[row]
        if track is not None:
            old = tracks[track]
            moved = (centres[row] - old.centre) / max(number - old.last, 1)
            speed = _INERTIA * old.speed + (1 - _INERTIA) * moved
            renewed[track] = MaskTrack(old.id, old.label, number, cells[row], centres[row], speed, kernel)
            ids[row] = old.id
        elif score >= start and len(cells[row]):
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
    """The track on a grid of another shape, where the video has changed its size."""
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
    least: float,
    appearance: Appearance,
) -> dict[int, int]:
    """Which track each object continues, first by overlap, then the others by descriptor. -> object -> track"""
    shift = np.array([track.speed * (number - track.last) for track in tracks])
    overlaps, areas = _overlaps(tracks, np.rint(shift).astype(np.int64), grid, len(cells))
    same = np.array([track.label for track in tracks])[:, None] == labels[None]
    cosines, allowed = np.zeros(same.shape), same & (overlaps >= least) & (overlaps > 0)
    known = [track.kernel for track in tracks if track.kernel is not None]
    if kernels is not None and len(known) == len(tracks):
        cosines = np.stack(known) @ kernels.T
        allowed &= cosines >= appearance.veto
    first = _best(overlaps + appearance.weight * cosines.clip(min=0), allowed)

    left = same & (cosines >= appearance.likeness) & (areas > 0)
    left[list(first.values())] = False
    left[:, list(first)] = False
    expected = np.array([track.centre for track in tracks]) + shift
    distance = np.linalg.norm(expected[:, None] - centres[None], axis=2)
    sizes = np.sqrt([len(track.cells) for track in tracks])[:, None] + np.sqrt(areas)[None]
    reach = appearance.reach * np.maximum(sizes, 1) / 2  # what is small may have no cell, and reach may be infinite
    return {**first, **_best(cosines, left & (distance <= reach))}


def _overlaps(
    tracks: tuple[MaskTrack, ...], shift: np.ndarray, grid: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every moved mask with every object, on the grid. -> (T,n) 0..1, (n,) cells of each object"""
    owner = np.repeat(np.arange(len(tracks)), [len(track.cells) for track in tracks])
    places = np.concatenate([track.cells for track in tracks]) + shift[owner]
    inside = ((places >= 0) & (places < grid.shape)).all(1)
    owner, places = owner[inside], places[inside]
    under = grid[places[:, 0], places[:, 1]]
    shared = np.bincount(owner * (count + 1) + under, minlength=len(tracks) * (count + 1)).reshape(-1, count + 1)
    areas = np.bincount(grid.ravel(), minlength=count + 1)[1:]
    union = shared.sum(1, keepdims=True) + areas[None] - shared[:, 1:]
    return shared[:, 1:] / np.maximum(union, 1), areas


def _best(value: np.ndarray, allowed: np.ndarray) -> dict[int, int]:
    """The allowed pairs with the largest sum of values. (T,n) twice -> object -> track"""
    from scipy.optimize import linear_sum_assignment  # slow to import, and for videos alone

    # Forbidden pairs are worth 0 rather than minus infinity: more pairs at any price would join strangers.
    rows, columns = linear_sum_assignment(np.where(allowed, value, 0), maximize=True)
    return {int(c): int(r) for r, c in zip(rows, columns, strict=True) if allowed[r, c]}
