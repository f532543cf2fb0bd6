"""The command line as a user meets it, in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from knet.cli.main import main

Run = Callable[..., tuple[int, str, str]]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("data", ...)` -> exit status, what it printed, what it said of errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
