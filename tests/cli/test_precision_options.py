"""Which precision the command line computes in, and that it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import Run, runner

from knet.errors import ConfigError
from knet.inference import load as loading


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.mark.parametrize(
    ("able", "options", "words"),
    [
        (True, (), "ms each in bf16 (--official for the original's results), json saved"),
        (True, ("--precision", "bf16"), "ms each, json saved"),
        (True, ("--precision", "fp32"), "ms each, json saved"),
        (True, ("--official",), "ms each, json saved"),
        (False, (), "ms each, json saved"),
    ],
)
def test_predict_says_what_auto_chose(
    run: Run, tiny_weights: Path, street: Path, able: bool, options: tuple[str, ...], words: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(loading, "fast_in_bf16", lambda device: able)
    monkeypatch.chdir(street.parent)
    status, out, err = run("predict", str(tiny_weights), str(street), "--formats", "json", "--device", "cpu", *options)
    assert status == 0 and words in out and not err


@pytest.mark.parametrize(("options", "expected"), [((), "fp32"), (("--precision", "bf16"), "bf16")])
def test_eval_takes_fp32_unless_told_otherwise(
    run: Run, options: tuple[str, ...], expected: str, monkeypatch: Any
) -> None:
    asked = dict[str, Any]()

    def load(model: str, **options: Any) -> None:
        asked.update(options)
        raise ConfigError("this far")

    monkeypatch.setattr(loading, "load", load)
    status, _, err = run("eval", "rtknet-lite-street", "--device", "cpu", *options)
    assert status == 2 and "this far" in err and asked["precision"] == expected


def test_an_exported_file_is_not_compiled_again(run: Run, street: Path) -> None:
    status, _, err = run("predict", "model.onnx", str(street), "--compile")
    assert status == 2 and "'model.onnx' is compiled already; leave compile (--compile) out" in err
