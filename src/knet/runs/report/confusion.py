"""What a model takes for what: a table of classes, of the most frequent ones where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from knet.evaluation.details import Details

CLASSES = 24  # that a table shows; a wider one cannot be read
PAIRS = 12  # that are listed

_LIGHT, _DARK = np.array([255, 255, 255]), np.array([23, 87, 153])
_LAST_COLUMN = {"segments": "not found", "objects": "not found", "pixels": "void"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, the share of its row (0..1), and its colours."""

    text: str
    share: float
    ground: str
    ink: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """The table: names of columns, rows of a name, the row's sum and cells; and the most frequent confusions."""

    columns: list[str]
    rows: list[tuple[str, int, list[Cell]]]
    pairs: list[tuple[str, str, int, float]]  # true class, taken for, how many, share of the true class
    left_out: int  # classes that are summed up as others


def table_of(details: Details) -> Confusion:
    """The confusion of `details` for people. What a table of many classes does not show is summed up, not lost."""
    names, counts, left_out = grouped(details)
    last = _LAST_COLUMN.get(details.kind, "not found")
    percent = details.kind == "pixels"
    if percent:
        counts = counts[:-1]
    sums = counts.sum(axis=1)
    shares = counts / np.maximum(sums, 1)[:, None]
    rows = []
    for row, name in enumerate([*names, "nothing there"][: len(counts)]):
        texts = [f"{100 * share:.1f}" for share in shares[row]] if percent else [str(count) for count in counts[row]]
        cells = [
            Cell(text if count else "", float(share), *_colors(float(share)))
            for text, count, share in zip(texts, counts[row], shares[row], strict=True)
        ]
        rows.append((name, int(sums[row]), cells))
    return Confusion([*names, last], rows, _pairs(details), left_out)


def grouped(details: Details) -> tuple[list[str], np.ndarray, int]:
    """Names, counts (n+1, n+1) and the number of classes that are summed up as others."""
    counts, names = details.confusion, [row.name for row in details.categories]
    seen = counts[:-1].sum(axis=1) + counts[:, :-1].sum(axis=0)
    present = np.flatnonzero(seen)
    kept = np.sort(present[np.argsort(-seen[present], kind="stable")][:CLASSES])
    others = np.setdiff1d(present, kept)
    groups = [[place] for place in kept.tolist()] + ([others.tolist()] if len(others) else []) + [[len(names)]]
    into = np.zeros((len(counts), len(groups)), np.int64)
    for column, members in enumerate(groups):
        into[members, column] = 1
    called = [names[place] for place in kept] + ([f"{len(others)} other classes"] if len(others) else [])
    return called, into.T @ counts @ into, len(others)


def _pairs(details: Details) -> list[tuple[str, str, int, float]]:
    names, sums = [row.name for row in details.categories], details.confusion.sum(axis=1)
    counts = details.confusion[:-1, :-1].copy()
    np.fill_diagonal(counts, 0)
    places = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    found = [divmod(int(place), len(names)) for place in places]
    return [(names[t], names[p], int(counts[t, p]), counts[t, p] / sums[t]) for t, p in found if counts[t, p]]


def _colors(share: float) -> tuple[str, str]:
    """Ground and ink of a cell, which differ enough to be read."""
    ground = (_LIGHT + (_DARK - _LIGHT) * share**0.6).round().astype(int)
    linear = np.where(ground / 255 <= 0.04045, ground / 255 / 12.92, ((ground / 255 + 0.055) / 1.055) ** 2.4)
    bright = float(linear @ (0.2126, 0.7152, 0.0722))
    return _hex(ground), "#000000" if bright > 0.179 else "#ffffff"


def _hex(color: Sequence[int] | np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in color)


def picture_of(details: Details) -> np.ndarray:
    """The table as a picture, shares of each true class in percent. -> (H,W,3) uint8 RGB"""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = table_of(details)
    wide, high = len(table.columns), len(table.rows)
    letters = max(len(_short(name)) for name in [*table.columns, *(row[0] for row in table.rows)])
    margin = 0.7 + 0.085 * letters  # inches
    width, height = max(margin + 0.42 * wide + 0.3, 3.6), margin + 0.36 * high + 0.5
    figure = Figure(figsize=(width, height), dpi=90)
    place = (margin / width, margin / height, 0.42 * wide / width, 0.36 * high / height)
    axes = figure.add_axes(place)
    shares = np.array([[cell.share for cell in cells] for _, _, cells in table.rows]).reshape(high, wide)
    axes.imshow(shares**0.6, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(wide), [_short(name) for name in table.columns], rotation=90, parse_math=False)
    axes.set_yticks(range(high), [_short(name) for name, _, _ in table.rows], parse_math=False)
    for y, x in np.argwhere(shares > 0).tolist():
        middle: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 7,
            "color": "white" if shares[y, x] > 0.45 else "black",
        }
        axes.text(x, y, f"{100 * shares[y, x]:.0f}", **middle)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    figure.suptitle(f"Confusion of {details.kind}, percent of each true class", fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}\N{HORIZONTAL ELLIPSIS}"
