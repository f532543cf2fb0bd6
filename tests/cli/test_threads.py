"""Threads that wait for each other sleep, and how many there are can be said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import runner

import knet
from knet.errors import ConfigError


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def openmp(script: str, **environment: str) -> tuple[str, str]:
    """What a script prints, and what OpenMP says of its settings, in an environment that says nothing else of them."""
    free = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=free | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_openmp_is_told_before_torch_is_imported() -> None:
    _, settings = openmp("import knet.inference.load", OMP_DISPLAY_ENV="VERBOSE")
    if "GOMP_SPINCOUNT" not in settings:
        # OMP_DISPLAY_ENV shows GOMP_SPINCOUNT with GNU's library alone, which torch's wheels for Linux bring.
        pytest.skip("this torch has another OpenMP than GNU's")
    assert "GOMP_SPINCOUNT = '0'" in settings and "OMP_WAIT_POLICY = 'PASSIVE'" in settings


def test_the_users_own_setting_stays() -> None:
    script = "import os, sys, knet; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    assert openmp(script)[0] == "PASSIVE False"
    assert openmp(script, OMP_WAIT_POLICY="ACTIVE")[0] == "ACTIVE False"


def test_as_many_threads_as_asked_for(
    tiny_weights: Path, street: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    knet.load(tiny_weights, device="cpu", threads=3)
    assert torch.get_num_threads() == 3
    knet.load(tiny_weights, device="cpu")
    assert torch.get_num_threads() == 3
    with pytest.raises(ConfigError, match=r"threads=0 \(--threads\) is too few; give 1 or more"):
        knet.load(tiny_weights, device="cpu", threads=0)
    monkeypatch.chdir(street.parent)
    run, options = runner(capsys), ("--device", "cpu", "--formats", "json")
    assert run("predict", tiny_weights, street, *options, "--threads", 1)[0] == 0
    assert torch.get_num_threads() == 1
    status, _, err = run("predict", tiny_weights, street, *options, "--threads", "0")
    assert status == 2 and "threads=0 (--threads) is too few" in err
