"""A network whose output is not finite: no merge sees it, and whoever asked is told which image it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_video import Linked, drive, segmenter_of
from PIL import Image

import knet
from knet.cli.main import main
from knet.errors import CheckpointError, PredictionError
from knet.inference.clip import segment_clip
from knet.inference.segmenter import Segmenter
from knet.inference.votes import vote
from knet.weights.load import load_strict, read_checkpoint, save_weights
from tiny_models import tiny_file

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def spoilt(path: Path, number: float, classes: bool, **options: Any) -> Segmenter:
    """The model of a file, whose last stage gives no finite masks, or classes."""
    segmenter = knet.load(path, device="cpu", **options)
    net: Any = segmenter.net
    stages = net.clip_stages if segmenter.task == "clip" else net.stages if segmenter.task == "semantic" else None
    stage = (net.decoder.stages if stages is None else stages)[-2 if segmenter.task == "clip" and classes else -1]
    with torch.no_grad():
        (stage.to_class if classes else stage.to_mask)[-1].bias[0] = number
    return segmenter


def ask(segmenter: Segmenter) -> None:
    """Has an image of the name street segmented."""
    if segmenter.task == "clip":
        segment_clip(segmenter, [IMAGE, IMAGE], name="street")
    else:
        segmenter.segment(IMAGE, "street")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "video", "clip"])
def test_the_image_of_an_output_that_is_not_finite_is_named(task: str, number: float, tmp_path: Path) -> None:
    path = tiny_file(task, tmp_path)
    for classes in (False, True) if task != "semantic" else (False,):
        segmenter = spoilt(path, number, classes)
        with pytest.raises(PredictionError, match=r"'street' is not finite .* take other weights"):
            ask(segmenter)
        if task in ("panoptic", "semantic"):
            with pytest.raises(PredictionError, match="'street' is not finite"):
                vote(segmenter, IMAGE, name="street")


def test_the_optimised_merge_and_half_precision(tmp_path: Path) -> None:
    path = tiny_file("panoptic", tmp_path)
    with pytest.raises(PredictionError, match="'street' is not finite"):
        ask(spoilt(path, float("nan"), True, merge="optimised"))
    engine = spoilt(path, float("nan"), False).engine
    engine.precision = "bf16"
    with pytest.raises(PredictionError, match="bf16 may be too small for it, so try fp32"):
        ask(Segmenter(engine, knet.load(path).card, knet.load(path).settings))


def test_embeddings_that_are_not_finite_name_the_frame() -> None:
    class Broken(Linked):
        def embed(self, kernels: torch.Tensor) -> torch.Tensor:
            return kernels * float("inf")

    with pytest.raises(PredictionError, match="'image_000000' is not finite"):
        list(segmenter_of(Broken()).track(drive(2)))


def test_sums_that_are_too_large_for_float32_are_no_fault(tmp_path: Path) -> None:
    segmenter = spoilt(tiny_file("panoptic", tmp_path), 3e38, True)
    ask(segmenter)


def test_the_command_line_tells_it_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of any image that failed: exit status 2."""
    path = tiny_file("instance", tmp_path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.card is not None
    state = dict(checkpoint.state)
    key = next(key for key in state if "to_mask" in key)
    save_weights(path, state | {key: torch.full_like(state[key], 3e38)}, checkpoint.card)
    Image.fromarray(IMAGE).save(tmp_path / "street.png")
    assert main(["predict", str(path), str(tmp_path / "street.png"), "--output", str(tmp_path / "out")]) == 2
    assert "street.png': What the network says of 'street' is not finite" in capsys.readouterr().err


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_and_the_tensor_is_named(number: float, tmp_path: Path) -> None:
    path = tiny_file("instance", tmp_path)
    checkpoint = read_checkpoint(path)
    state = dict(checkpoint.state)
    key = next(key for key in state if "running_var" in key)
    state[key] = state[key].clone()
    state[key][1] = number
    save_weights(path, state, checkpoint.card)
    with pytest.raises(CheckpointError, match=rf"The tensor '{key}' .*\.safetensors' is not finite: 1 of its"):
        knet.load(path)
    with pytest.raises(CheckpointError, match=rf"The tensor '{key}'"):
        knet.convert(path, tmp_path / "again.safetensors", checkpoint.card.model if checkpoint.card else "")


def test_tensors_that_are_not_plain_are_no_weights(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    plain = net.state_dict()
    load_strict(net, plain | {"bias": torch.full((2,), 3e38)}, "file")  # whose sum is too large for float32
    for wrong in (plain["bias"].to_sparse(), plain["bias"].to("meta"), plain["bias"].to(torch.complex64)):
        with pytest.raises(CheckpointError, match=r"The tensor 'bias' .* is sparse, quantised, complex or empty"):
            load_strict(net, plain | {"bias": wrong}, "file")
    with pytest.raises(CheckpointError, match="not finite"):  # once it is a float32
        load_strict(net, plain | {"bias": torch.tensor([0, 1e300], dtype=torch.float64)}, "file")


@pytest.mark.parametrize(("format", "precision"), [("onnx", "int8"), ("openvino", "fp32")])
@pytest.mark.parametrize("task", ["panoptic", "clip"])
def test_no_file_is_exported_of_a_network_that_says_no_finite_numbers(
    task: str, format: Any, precision: Any, tmp_path: Path
) -> None:
    """Its weights are finite, its variances are negative; the file was written, or quantising it was a traceback."""
    path = tiny_file(task, tmp_path)
    checkpoint = read_checkpoint(path)
    spoilt = {key: -tensor if "running_var" in key else tensor for key, tensor in checkpoint.state.items()}
    save_weights(path, spoilt, checkpoint.card)
    with pytest.raises(PredictionError, match="is not finite"):
        knet.export(
            path, format, output=tmp_path / f"out.{'xml' if format == 'openvino' else 'onnx'}", precision=precision
        )
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.large
def test_no_file_is_left_of_a_network_whose_numbers_half_precision_cannot_hold(tmp_path: Path, street: Path) -> None:
    """It was told, but the file lay there as if it were good."""
    path = tiny_file("panoptic", tmp_path)
    checkpoint = read_checkpoint(path)
    large = {key: tensor * (1e6 if "to_class" in key else 1) for key, tensor in checkpoint.state.items()}
    save_weights(path, large, checkpoint.card)
    with pytest.raises(PredictionError, match="is not finite"):
        knet.export(path, "onnx", output=tmp_path / "out.onnx", precision="fp16", images=[street])
    assert {file.name for file in tmp_path.iterdir()} == {path.name, street.name}
