"""Constructor arguments of a run that no network can have, or that the data contradicts: refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import write_config

from knet.cli.main import main


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("arguments.kernels=-3", "arguments.kernels = -3"),
        ("arguments.channels=7", "channels=7 do not divide among 8 attention heads"),
        ("arguments.classes=5", "arguments.classes=5 contradicts the data, by whose classes it is 2; leave it out."),
    ],
)
def test_a_run_refuses_them(option: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(write_config(tmp_path)), option]) == 2
    assert sentence in capsys.readouterr().err
