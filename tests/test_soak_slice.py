"""A few seconds of `make soak`, and that it sees what grows."""

from __future__ import annotations

from pathlib import Path

import pytest

import soak


@pytest.mark.parametrize(
    ("part", "count"),
    [
        pytest.param("frames", 12, marks=pytest.mark.large),
        pytest.param("iterations", 40, marks=pytest.mark.large),
        ("evaluations", 8),
        pytest.param("sizes", 12, marks=pytest.mark.large),
        pytest.param("loads", 4, marks=pytest.mark.large),
    ],
)
def test_files_and_threads_stay_as_they_are(part: str, count: int, tmp_path: Path) -> None:
    grown, states = soak.soak(part, count)
    assert len(states) == count
    assert grown.files <= 0 and grown.threads <= 0  # memory needs more than a moment


def test_what_grows_is_seen() -> None:
    states = [soak.State(100.0 + number, 10 + number // 30, 3) for number in range(40)]
    assert soak.growth(states) == soak.State(20.0, 1, 0)
    assert soak.growth([soak.State(100.0, 10, 3)] * 40) == soak.State(0.0, 0, 0)
