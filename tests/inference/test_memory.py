"""Too little memory: one sentence with the size that was asked for, whichever library ran out of it."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

import knet
from knet.cli.main import main
from knet.errors import PredictionError, memory_asked
from knet.inference.engines.network import TorchEngine
from tiny_models import tiny_file

IMAGE = np.zeros((40, 56, 3), np.uint8)


def fault_of(make: Any) -> BaseException:
    with pytest.raises((RuntimeError, MemoryError)) as error:
        make()
    return error.value


def test_what_was_asked_for_is_read_from_the_errors_of_all_libraries() -> None:
    torch_asked = memory_asked(fault_of(lambda: torch.empty(10**17, dtype=torch.uint8)))
    assert torch_asked is not None and "100000000000000000 bytes" in torch_asked
    numpy_asked = memory_asked(fault_of(lambda: np.zeros(10**17, np.uint8)))
    assert numpy_asked is not None and "88.8 PiB" in numpy_asked
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total of 8 GiB.")
    assert memory_asked(cuda) == "20.00 GiB were asked for at once"
    assert memory_asked(MemoryError()) == "it does not say how much was asked for"
    assert memory_asked(RuntimeError("a size does not fit")) is None


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> NoReturn:
        torch.empty(10**17, dtype=torch.uint8)
        raise AssertionError

    monkeypatch.setattr(TorchEngine, "__call__", run)


@pytest.mark.parametrize("task", ["panoptic", "semantic", "video"])
@pytest.mark.usefixtures("starved")
def test_an_image_that_does_not_fit_is_named(task: str, tmp_path: Path) -> None:
    segmenter = knet.load(tiny_file(task, tmp_path), device="cpu")
    sentence = r"too little memory for the image 'street' of 40x56 pixels \(1\d+ bytes were asked for at once\); take"
    with pytest.raises(PredictionError, match=sentence):
        segmenter.segment(IMAGE, "street")
    if task != "semantic":
        with pytest.raises(PredictionError, match="too little memory"):
            next(segmenter.track([IMAGE]))


@pytest.mark.usefixtures("starved")
def test_the_command_line_says_it_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, photo = tiny_file("panoptic", tmp_path), tmp_path / "street.png"
    Image.fromarray(IMAGE).save(photo)
    assert main(["predict", str(path), str(photo), "--output", str(tmp_path / "out")]) == 2
    assert "too little memory for the image 'street'" in capsys.readouterr().err


def test_other_verbs_say_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: object) -> NoReturn:
        raise MemoryError("Unable to allocate 3.00 GiB for an array")

    monkeypatch.setattr("knet.cli.models.run", run)
    assert main(["models"]) == 1
    assert capsys.readouterr().err == (
        "knet: there is too little memory (3.00 GiB were asked for at once); take smaller images or less at once.\n"
    )
