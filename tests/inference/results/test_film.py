"""Films of videos whose rate or times are absurd: every picture is there, at its time as far as the format goes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from knet.inference.results.film import Film


def times_of_film(path: Path, rate: Fraction, times: list[float | None]) -> list[float]:
    film = Film(path, rate)
    for seconds in times:
        film.add(np.zeros((16, 16, 3), np.uint8), seconds)
    film.finish()
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


@pytest.mark.parametrize("rate", [Fraction(1, 2**31 - 1), Fraction(1, 3600), Fraction(10**6), Fraction(2**32 - 1)])
def test_any_rate(tmp_path: Path, rate: Fraction) -> None:
    step = float(1 / min(max(rate, Fraction(1, 10_000)), Fraction(10_000)))
    assert times_of_film(tmp_path / "film.mp4", rate, [None] * 3) == pytest.approx([0, step, 2 * step])


def test_a_hole_longer_than_the_format_can_show_a_picture_is_shortened(tmp_path: Path) -> None:
    times = times_of_film(tmp_path / "film.mp4", Fraction(25), [0, 0.04, 1e6, 1e6 + 0.04])
    assert np.diff(times) == pytest.approx([0.04, 35791.39, 0.04], abs=0.01)
