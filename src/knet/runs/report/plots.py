"""A picture of a run's curves, drawn from the CSV files in its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knet.errors import DataError
from knet.files import atomic_path
from knet.parse import ParseError, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = dict[str, np.ndarray]

# What a loss is called in the config, where that differs from its name in the official code.
_PARTS = {"cls": "classes", "seg": "semantic", "inst_disc": "instance"}
METRICS = {
    "stq": "STQ",
    "vpq": "VPQ",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "miou": "mIoU",
    "ap": "mask AP",
    "ap50": "mask AP50",
}


def plot_run(folder: Path) -> Path | None:
    """Draws train.csv and val.csv of a run folder as curves.png in it, whole or not at all.

    It shows the total loss and its parts (summed over the stages), the learning rate, and PQ, SQ, RQ and mIoU over the
    iterations. Losses are a smooth line over a faint one of the values themselves. What is missing, or not a number, is
    left out; if neither file has a row there is no picture, and None is returned.
    """
    train, val = read_columns(folder / "train.csv"), read_columns(folder / "val.csv")
    if not train and not val:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    total, parts, rate, metrics = figure.subplots(2, 2).flat
    _panel(total, "total loss", train, {"loss": train["loss"]} if "loss" in train else {}, smooth=True)
    _panel(parts, "losses (sum of the stages)", train, group_losses(train), smooth=True)
    _panel(rate, "learning rate", train, {"rate": train["rate"]} if "rate" in train else {})
    figures = {name: 100 * val[key] for key, name in METRICS.items() if key in val}
    _panel(metrics, "validation, percent", val, figures, points=True)
    path = folder / "curves.png"
    with atomic_path(path) as temporary:
        canvas.print_png(str(temporary))
    return path


def read_columns(path: Path) -> Columns:
    """The columns of a CSV file by name, (rows,) float64 each, NaN where a cell is not a number.

    Rows without an iteration are left out. Without a file, or without rows, there are no columns.
    """
    if not path.is_file():
        return {}
    rows = [row for row in read_rows(path) if np.isfinite(_number(row.get("iteration")))]
    return {key: np.array([_number(row.get(key)) for row in rows]) for key in rows[0] if key} if rows else {}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a run's CSV file. Raises `DataError` if it is damaged."""
    try:
        return read_table(path)
    except (OSError, ParseError) as fault:
        raise DataError(f"The table '{path}' cannot be read ({fault}); move it away, and do the same again.") from fault


def group_losses(columns: Columns) -> Columns:
    """The parts of the loss by their names in the config, each summed over the stages (s1_loss_dice, ...)."""
    groups: Columns = {}
    for key, values in columns.items():
        if match := re.fullmatch(r"(?:s\d+_)?loss_(\w+)", key):
            name = _PARTS.get(match[1], match[1])
            groups[name] = groups[name] + values if name in groups else values
    return groups


def smoothed(values: np.ndarray) -> np.ndarray:
    """Each value averaged with a twentieth of all values on either side, without NaN. (n,) -> (n,) float64"""
    reach = len(values) // 20
    kernel = np.ones(2 * reach + 1)
    there = np.isfinite(values)
    counts = np.convolve(np.pad(there.astype(float), reach), kernel, "valid")
    sums = np.convolve(np.pad(np.where(there, values, 0.0), reach), kernel, "valid")
    return np.where(there, sums / np.maximum(counts, 1), np.nan)


def _panel(axes: Axes, title: str, rows: Columns, lines: Columns, smooth: bool = False, points: bool = False) -> None:
    """Draws one diagram: `lines` over the iterations of `rows`, or a remark that there is nothing to show."""
    axes.set_title(title)
    lines = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    if not lines:
        axes.text(0.5, 0.5, "nothing yet", ha="center", va="center", color="gray", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for n, (name, values) in enumerate(lines.items()):
        color, there = f"C{n}", np.isfinite(values)
        x, y = rows["iteration"][there], values[there]
        marker = "o" if points or len(x) == 1 else None
        if smooth and len(x) > 1:
            axes.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
            y = smoothed(y)
        axes.plot(x, y, color=color, marker=marker, markersize=3.5, linewidth=1.6, label=name)
    if smooth and all((values[np.isfinite(values)] > 0).all() for values in lines.values()):
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(fontsize="small")


def _number(text: str | list[str] | None) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
