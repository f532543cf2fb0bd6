"""knet export on the command line, and knet predict with what it wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_line import Run, runner
from PIL import Image

import knet
from knet.data.categories import load_categories
from knet.export import tensorrt, write
from knet.export.onnx import to_onnx
from knet.export.openvino import save_openvino, to_openvino
from knet.inference.engines.open import open_exported
from knet.inference.load import describe
from knet.models.zoo import create
from knet.structures import Preprocessing
from knet.weights.load import save_weights
from tiny_models import tiny_file

DEMO = Path(knet.__file__).parent / "assets" / "demo"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's file, in the place of whose graph a ready one is written: no waiting for the exporter."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
    from hand_made import proto_of

    monkeypatch.setattr(write, "to_onnx", lambda graph, size, card, opset: proto_of(card))
    arguments = {"width": 8, "head_width": 16, "channels": 16, "kernels": 4, "stages": 1}
    seen = Preprocessing(short_edge=64, max_edge=96)
    card = describe("rtknet-slim-camvid", arguments, load_categories("camvid"), seen, 0.0, 0.1)
    torch.manual_seed(0)
    path = tmp_path / "quick.safetensors"
    save_weights(path, create("rtknet-slim-camvid", **arguments).state_dict(), card)
    return path


@pytest.mark.large
def test_the_bundled_model_predicts_the_same_from_a_file(run: Run, tmp_path: Path) -> None:
    status, out, err = run(
        "export", "rtknet-lite-street", "--size", "416x768", "--output", "files/model.onnx", "--json"
    )
    assert status == 0, err
    report = json.loads(out)
    assert report["equal_pixels"] > 0.9999
    assert report["pq"] > 0.999
    assert 0 < report["mask_logits"] < 1e-2
    assert report == json.loads(Path("files/model.onnx.report.json").read_text())
    card = open_exported("files/model.onnx").card
    save_openvino(to_openvino(onnx.load("files/model.onnx")), card, Path("files/model.xml"))
    for model in ("rtknet-lite-street", "files/model.onnx", "files/model.xml"):
        folder = Path(model).suffix[1:] or "torch"
        status, out, err = run(
            "predict", model, str(DEMO), "--formats", "panoptic,json", "--output", folder, "--precision", "fp32"
        )
        assert status == 0, err
        assert "5 images" in out
    for name in ("city_1", "city_2", "highway_1", "highway_2", "suburb_1"):
        expected = results("torch", name)
        for folder in ("onnx", "xml"):
            pixels, segments = results(folder, name)
            assert (pixels == expected[0]).mean() > 0.9999
            assert [(s["id"], s["category"]) for s in segments] == [(s["id"], s["category"]) for s in expected[1]]


def results(folder: str, name: str) -> tuple[np.ndarray, Any]:
    pixels = np.array(Image.open(Path(folder) / f"{name}_panoptic.png")).astype(np.int64)
    segments = json.loads((Path(folder) / f"{name}_segments.json").read_text())["segments"]
    return pixels @ [1, 256, 65536], segments


def test_files_have_names_and_a_report(run: Run, quick: Path) -> None:
    street = str(DEMO / "highway_1.jpg")
    status, out, _ = run("export", str(quick), "--images", street)
    assert status == 0
    assert "rtknet-slim-camvid.onnx" in out
    assert "PQ of the exported model, with torch's result as the truth:" in out
    assert "use it with: knet predict rtknet-slim-camvid.onnx IMAGE" in out
    assert run("export", str(quick), "--format", "openvino", "--images", street)[0] == 0
    names = {path.name for path in Path().iterdir()} - {quick.name}
    endings = (".onnx", ".onnx.report.json", ".xml", ".xml.report.json", ".bin")
    assert names == {f"rtknet-slim-camvid{ending}" for ending in endings}
    assert len(json.loads(Path("rtknet-slim-camvid.xml.report.json").read_text())["images"]) == 1


@pytest.mark.skipif(tensorrt.installed(), reason="says what to do without TensorRT")
def test_without_tensorrt_the_command_is_printed(run: Run, quick: Path) -> None:
    options = ("--format", "tensorrt", "--images", str(DEMO / "highway_1.jpg"), "--output", "model.engine")
    status, out, _ = run("export", str(quick), *options)
    assert status == 0
    assert "TensorRT is not installed here" in out
    assert "trtexec --onnx=model.onnx --saveEngine=model.engine --stronglyTyped --minShapes=images:1x3x64x64" in out
    assert "--optShapes=images:1x3x64x96 --maxShapes=images:1x3x192x192" in out
    assert Path("model.onnx").is_file() and not Path("model.engine").exists()
    _, out, _ = run("export", str(quick), "--size", "64x96", *options)
    assert "trtexec --onnx=model.onnx --saveEngine=model.engine --stronglyTyped\n" in out
    Path("model.engine").write_bytes(b"an engine")
    status, _, err = run("predict", "model.engine", str(DEMO / "highway_1.jpg"))
    assert status == 2
    assert "needs the package tensorrt, which is not installed" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "100"], "'100' is not HEIGHTxWIDTH in pixels, such as 512x1024"),
        (["--size", "100x100"], "multiples of 32, not 100x100; give --size 128x128"),
        (["--size", "64x96", "--dynamic"], "not allowed with argument"),
        (["--calibrate", "photos"], "--calibrate is for --precision int8"),
        (["--precision", "bf16"], "invalid choice: 'bf16'"),
        (["--format", "coreml"], "invalid choice: 'coreml'"),
        (["--output", "model.pt"], "A file of the format onnx ends in .onnx, 'model.pt' does not; rename it."),
        (["--merge", "sorted", "--merge-inside"], "merges the way 'sorted'; leave --merge-inside out"),
        (["--format", "tensorrt", "--merge-inside"], "cannot be inside of TensorRT engines"),
        (["--batch", "0"], "The batch of 0 images is not from 1 to 1024"),
        (
            ["--batch", "64", "--size", "2048x2048"],
            "A batch of 64 at the size 2048x2048 has more pixels than the 134,217,728",
        ),
        (["--batch", "4", "--merge-inside"], "There is no batch for a graph with the merge inside"),
        (["--weights", "missing.pth"], "There is no weights file 'missing.pth'"),
        (["--images", "missing.jpg"], "missing.jpg"),
        (["--precision", "int8", "--calibrate", "missing"], "missing"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run: Run, quick: Path, options: list[str], sentence: str) -> None:
    status, _, err = run("export", str(quick), *options)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.large
def test_a_batch_and_an_opset_of_choice(run: Run, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs give the file as many images as it takes; knet itself runs it as any other."""
    monkeypatch.setattr(write, "to_onnx", to_onnx)
    street, size = str(DEMO / "highway_1.jpg"), ("--size", "64x96")
    status, _, err = run("export", str(quick), "--batch", "3", "--opset", "21", *size, "--images", street)
    assert status == 0, err
    file = Path("rtknet-slim-camvid.onnx")
    proto = onnx.load(str(file))
    assert [row.version for row in proto.opset_import] == [21]
    assert [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim] == [3, 3, 64, 96]
    engine = open_exported(file)
    images = torch.randn(3, 3, 64, 96)
    together = engine(images)[-1]
    assert len(together.mask_logits) == len(together.kernels) == 3
    alone = engine(images[1:2])[-1]
    assert len(alone.mask_logits) == 1
    torch.testing.assert_close(alone.mask_logits, together.mask_logits[1:2], rtol=0, atol=1e-3)
    assert json.loads(Path(f"{file}.report.json").read_text())["batch"] == 3
    file.rename("model.ONNX")  # as other programs may call it
    assert run("predict", "model.ONNX", street, "--formats", "json")[0] == 0
    status, _, err = run("eval", "model.ONNX")
    assert status == 2 and "'model.ONNX' is a model, and there is no data to evaluate it on" in err
    status, _, err = run("export", str(quick), "--opset", "3", *size)
    assert status == 2 and "opset" in err and "Traceback" not in err


def test_models_without_weights_cannot_be_exported(run: Run) -> None:
    status, _, err = run("export", "rtknet-slim-cityscapes")
    assert status == 2
    assert "no published weights" in err


@pytest.mark.large
def test_a_clip_has_the_same_tracks_from_a_file(run: Run, tmp_path: Path) -> None:
    source, clip = tiny_file("clip", tmp_path), tmp_path / "clip"
    clip.mkdir()
    for number in range(3):
        street = Image.open(DEMO / "highway_1.jpg").crop((40 * number, 0, 40 * number + 800, 500))
        street.resize((128, 80)).save(clip / f"{number:05d}.jpg")
    status, out, err = run("export", str(source), "--output", "clip.onnx", "--images", str(clip))
    assert status == 0, err
    assert "clip                    80x128 " in out
    assert "use it with: knet predict clip.onnx CLIP" in out
    found = {}
    for model in (str(source), "clip.onnx"):
        status, out, err = run("predict", model, str(clip), "--json", "--output", Path(model).suffix[1:])
        assert status == 0, err
        found[model] = [
            [(s["track"], s["category"], s["id"]) for s in frame["segments"]] for frame in json.loads(out)["results"]
        ]
    assert len(found["clip.onnx"]) == 3 and found["clip.onnx"][0]
    assert found["clip.onnx"] == found[str(source)]
    assert [path.suffix for path in Path("onnx").iterdir()] == [".mp4"]
    status, _, err = run("predict", "clip.onnx", str(clip / "00000.jpg"), "--track-memory", "3")
    assert status == 2
    assert "--track-memory is for models that track from frame to frame" in err
    status, _, err = run("predict", "clip.onnx", str(clip / "00000.jpg"), "--official")
    assert status == 2 and "compatible (--official) needs torch's network, and 'clip.onnx' is an exported file" in err


@pytest.mark.parametrize(
    ("package", "form", "extra"),
    [("onnx", "onnx", "export"), ("onnxscript", "tensorrt", "export"), ("openvino", "openvino", "openvino")],
)
def test_missing_packages(
    run: Run, quick: Path, monkeypatch: pytest.MonkeyPatch, package: str, form: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = run("export", str(quick), "--format", form)
    assert status == 2
    assert f"needs the package {package}" in err
    assert f"pip install 'knet[{extra}]'" in err


def test_a_folder_that_cannot_be_written(run: Run, quick: Path) -> None:
    Path("file").write_text("in the way")
    status, _, err = run("export", str(quick), "--output", "file/model.onnx")
    assert status == 1
    assert "Cannot write 'file/model.onnx'" in err


def test_what_lies_beside_a_new_file_is_never_of_an_older_one(
    run: Run, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that dies at any moment: the report, and OpenVINO's weights, are of the file that is there."""
    options = ("export", str(quick), "--format", "openvino", "--images", str(DEMO / "city_1.jpg"), "--output", "m.xml")
    assert run(*options)[0] == 0
    assert Path("m.xml.report.json").is_file()
    seen: list[bool] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        if str(target) == "m.bin":
            seen.append(Path("m.xml").exists())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    monkeypatch.setattr(write, "_compared", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(*options)[0] == 130
    assert seen == [False] and Path("m.xml").is_file() and not Path("m.xml.report.json").exists()
