"""Diagrams of a report as numbers for its template, which draws them as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 640, 260  # of the area that is drawn in
_POINTS = 400  # of a line; more cannot be seen
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A line through `points`, "x,y x,y ..."; `faint` is a second one behind it, `dots` are marks on it."""

    name: str
    points: str
    faint: str = ""
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A diagram: its lines, ticks as (place, label), and what it shows in words, for those who do not see it."""

    title: str
    words: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_name: str = "iteration"
    bars: tuple[tuple[float, float, float, float], ...] = ()  # left, top, width, height


def line_chart(
    title: str,
    x: np.ndarray,
    lines: Mapping[str, np.ndarray],
    *,
    faint: Mapping[str, np.ndarray] | None = None,
    dots: bool = False,
) -> Chart | None:
    """Lines over `x`, (n,) each, without what is not finite; on a logarithmic scale where `faint` is given.

    `faint` are the values that `lines` are smoothed from. None if there is nothing to draw.
    """
    shown = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    if not shown:
        return None
    every = [values[np.isfinite(values)] for values in [*shown.values(), *(faint or {}).values()]]
    low, high = min(values.min() for values in every if len(values)), max(values.max() for values in every)
    scale = np.log10 if faint is not None and low > 0 else np.asarray
    y_ticks = _powers(low, high) if scale is np.log10 else _steps(min(low, 0.0), high)
    bottom, top = (float(scale(y_ticks[end])) for end in (0, -1))
    left, right = float(x.min()), float(x.max())

    def across(value: float) -> float:
        return round((value - left) / ((right - left) or 1.0) * WIDTH, 1)

    def up(value: float) -> float:
        return round(HEIGHT - (float(scale(value)) - bottom) / ((top - bottom) or 1.0) * HEIGHT, 1)

    def places(values: np.ndarray) -> list[tuple[float, float]]:
        there = np.flatnonzero(np.isfinite(values))
        there = there[np.unique(np.linspace(0, len(there) - 1, min(_POINTS, len(there))).round().astype(int))]
        return [(across(float(x[n])), up(float(values[n]))) for n in there]

    drawn = tuple(
        Line(
            name,
            _joined(places(values)),
            _joined(places(faint[name])) if faint is not None and name in faint else "",
            tuple(places(values)) if dots or np.isfinite(values).sum() == 1 else (),
        )
        for name, values in shown.items()
    )
    words = "; ".join(f"{name}: {_last(values):.4g} at the end" for name, values in shown.items())
    x_ticks = tuple((across(value), f"{value:g}") for value in _steps(left, right) if left <= value <= right)
    return Chart(title, words, drawn, x_ticks, tuple((up(value), f"{value:.3g}") for value in y_ticks))


def calibration_chart(scores: np.ndarray) -> Chart:
    """The share of right segments over their mean score, (10,3) as `Details.scores`; a perfect model is diagonal."""
    wide = WIDTH / len(scores)
    bars = []
    for place, (count, right, _) in enumerate(scores.tolist()):
        if count:
            high = round(right / count * HEIGHT, 1)
            bars.append((round(place * wide + 2, 1), HEIGHT - high, round(wide - 4, 1), high))
    diagonal = Line("score = share of right ones", f"0,{HEIGHT} {WIDTH},0")
    ticks = [number / 5 for number in range(6)]
    x_ticks = tuple((round(tick * WIDTH, 1), f"{tick:.1f}") for tick in ticks)
    y_ticks = tuple((round(HEIGHT - tick * HEIGHT, 1), f"{100 * tick:.0f} %") for tick in ticks)
    words = "the same numbers as in the table below"
    return Chart("Share of right ones by score", words, (diagonal,), x_ticks, y_ticks, "score", tuple(bars))


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from `low` or below to `high` or above, some five of them."""
    span = (high - low) or abs(high) or 1.0
    rough = span / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Numbers such as 0.5, 1, 2, 5 from `low` or below to `high` or above; of wide spans only powers of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max((mark for mark in marks if mark <= low), default=marks[0])
    end = min((mark for mark in marks if mark >= high and mark > start), default=10.0 * marks[-1])
    return [mark for mark in [*marks, end] if start <= mark <= end][: len(marks) + 1]
