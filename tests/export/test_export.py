"""Every type of model as ONNX and OpenVINO: what the file says is what the network says, at any size."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hand_made import card
from PIL import Image

import knet
from knet.data.categories import load_categories
from knet.data.files.masks import unpack_mask
from knet.errors import ConfigError
from knet.export import tensorrt
from knet.export.graph import Graph
from knet.export.onnx import to_onnx
from knet.export.openvino import save_openvino, to_openvino
from knet.export.report import same_segments
from knet.export.write import export
from knet.inference.clip import segment_clip
from knet.inference.engines.exported import GraphEngine
from knet.inference.engines.network import TorchEngine
from knet.inference.engines.open import open_exported
from knet.inference.identities import VideoState
from knet.inference.load import describe, read_model, segmenter_for
from knet.models.backbones.swin import Swin
from knet.models.clip import clip_result
from knet.models.zoo import create, entry
from knet.structures import Preprocessing
from knet.weights.load import save_weights
from tiny_models import ARGUMENTS, tiny_file

_REAL_TIME = {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2}
_SMALL = {"channels": 32, "stages": 1}
_SEMANTIC = {"channels": 16, "update_channels": 8, "hidden": 32, "stages": 1}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {  # as in `tiny_models`
    "real-time": ("rtknet-slim-camvid", _REAL_TIME),
    "real-time-stuff": ("rtknet-slim-camvid", {**_REAL_TIME, "stuff": [0, 1, 2]}),
    "real-time-video": ("rt-video-knet-slim-kitti-step", _REAL_TIME),
    "fusion": ("video-knet-swinb-kitti-step", _SMALL),
    "deformable": ("knet-r101dcn-coco-panoptic", _SMALL),
    "fcn": ("knet-fcn-r50-ade20k", _SEMANTIC),
    "pspnet": ("knet-pspnet-r50-ade20k", _SEMANTIC),
    "deeplabv3": ("knet-deeplabv3-r50-ade20k", _SEMANTIC),
    "swin": ("knet-upernet-swint-ade20k", _SEMANTIC),
    "swin-panoptic": ("knet-swinl-coco-panoptic", {**_SMALL, "backbone": "swint"}),
}
TYPES = [  # an export takes some 15 seconds
    pytest.param(name, marks=pytest.mark.large)
    for name in (
        "real-time-video",
        "real-time-stuff",
        *ARGUMENTS,
        *sorted(set(OTHERS) - {"real-time", "real-time-stuff", "real-time-video", "deformable"}),
    )
    if name != "clip"
]


def small_file(name: str, folder: Path) -> Path:
    if name in ARGUMENTS:
        return tiny_file(name, folder)
    model, arguments = OTHERS[name]
    torch.manual_seed(0)
    net = create(model, **arguments)
    with torch.no_grad():  # masks and classes that differ over the image
        if entry(model).task != "semantic":
            net.decoder.stages[-1].to_class[-1].weight.mul_(20)
            net.decoder.stages[-1].to_class[-1].bias.zero_()
    divisor = 1 if entry(model).task == "semantic" else 32
    preprocessing = Preprocessing(64, 128, antialias=False, divisor=divisor)
    card = describe(model, arguments, load_categories(entry(model).categories), preprocessing, 0.0, 0.1)
    path = folder / f"{name}.safetensors"
    save_weights(path, net.state_dict(), card)
    return path


def photo(size: tuple[int, int], path: Path | None = None) -> np.ndarray:
    demo = Path(knet.__file__).parent / "assets" / "demo" / "highway_1.jpg"
    picture = Image.open(demo).convert("RGB").resize((size[1], size[0]))
    if path is not None:
        picture.save(path)
    return np.array(picture)


def agree(original: TorchEngine, exported: GraphEngine, inputs: torch.Tensor) -> None:
    """On one of three images: of about one in sixteen, rounding moves a pixel over the edge of a hard mask, after which
    all that follows differs, while a wrong graph is wrong on each.
    """
    for _ in range(2):
        with suppress(AssertionError):
            return agree_on(original, exported, inputs)
        inputs = torch.randn_like(inputs)
    return agree_on(original, exported, inputs)


def agree_on(original: TorchEngine, exported: GraphEngine, inputs: torch.Tensor) -> None:
    """First frames, and for linked networks the frame after."""
    with torch.no_grad():
        expected, found = original(inputs), exported(inputs)
        close(expected, found, original)
        if original.embeds:
            kernels = expected[-1].kernels
            close(original(inputs.flip(3), kernels), exported(inputs.flip(3), kernels), original)


def close(expected: Any, found: Any, original: TorchEngine) -> None:
    pairs = [(expected[-1].mask_logits, found[-1].mask_logits)]
    if expected[-1].class_logits is not None:
        pairs += [(expected[-1].class_logits, found[-1].class_logits), (expected[-1].kernels, found[-1].kernels)]
    if expected[0].semantic_logits is not None:
        pairs.append((expected[0].semantic_logits, found[0].semantic_logits))
    if original.embeds:
        pairs.append((original.embed(expected[-1].linked), found[-1].linked))
    for a, b in pairs:
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-3 * max(1.0, float(a.abs().max()))


@pytest.mark.parametrize("name", TYPES)
def test_exports_of_any_size_say_what_the_network_says(name: str, tmp_path: Path) -> None:
    source, target = small_file(name, tmp_path), tmp_path / "model.onnx"
    picture = tmp_path / "street.png"
    photo((48, 80), picture)
    report, parity = export(source, output=target, images=[picture])
    assert json.loads((tmp_path / "model.onnx.report.json").read_text())["equal_pixels"] == parity.equal_pixels
    assert (report["size"], report["precision"], report["backend"]) == (None, "fp32", "onnxruntime")
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.99

    proto = onnx.load(str(target))
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    files = [target, tmp_path / "model.xml"]
    save_openvino(to_openvino(proto), open_exported(target).card, files[1])
    net, _ = read_model(source)
    original, torch_model = TorchEngine(net), knet.load(source, device="cpu", precision="fp32")
    sizes = ((64, 96), (160, 224)) if torch_model.task != "semantic" else ((70, 101), (160, 224))
    for path in files:
        model = knet.load(path)
        assert model.task == torch_model.task
        assert isinstance(model.engine, GraphEngine)
        for size in sizes:
            agree(original, model.engine, torch.randn(1, 3, *size))
        image = photo((90, 70))
        assert same_segments(torch_model(image), model(image)).mean() > 0.99
        if torch_model.engine.embeds:
            assert tracks(model) == tracks(torch_model)


def tracks(segmenter: knet.Segmenter) -> list[list[tuple[int, int | None]]]:
    """Class and identity of each segment in three frames."""
    state, found = VideoState(), []
    for number in range(3):
        image = photo((64, 96))[:, 4 * number : 4 * number + 80]
        result, state = segmenter.segment_next(image, state, number)
        found.append([(segment.category, segment.track) for segment in result.segments])
    return found


@pytest.mark.large
def test_deformable_convolutions_are_for_onnx(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    _, parity = export(small_file("deformable", tmp_path), output=target)
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.99
    with pytest.raises(ConfigError, match=r"OpenVINO cannot run this model \(has no DeformConv\); .*--format onnx"):
        to_openvino(onnx.load(str(target)))


@pytest.mark.large
def test_swin_of_a_fixed_size(tmp_path: Path) -> None:
    report, parity = export(small_file("swin", tmp_path), output=tmp_path / "model.onnx", size=(64, 112))
    assert report["size"] == [64, 112]
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.99


class Part(torch.nn.Module):
    """Stands for a graph of a whole network that takes images of any size."""

    batch, divisor, clips, linked, merging, seen = 1, 1, False, False, None, False
    inputs = Graph.inputs

    def __init__(self, net: Any, windows: bool):
        super().__init__()
        self.net, self.windows = net, windows

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {f"map{number}": found for number, found in enumerate(self.net(images))}


@pytest.mark.large
def test_windows_are_filled_up_at_any_size() -> None:
    """Two scales of Swin; the whole of it is compared above."""
    torch.manual_seed(0)
    net = Swin(embed_dim=8, depths=(2, 1), heads=(1, 2)).eval()
    proto = to_onnx(Part(net, windows=True), None, card())  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for size in ((64, 96), (61, 30), (1, 57), (225, 301)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = net(images)
        for a, b in zip(expected, session.run(None, {"images": images.numpy()}), strict=True):
            torch.testing.assert_close(torch.from_numpy(b), a, rtol=1e-4, atol=1e-4)


def test_a_network_of_one_size_says_so() -> None:
    with pytest.raises(ConfigError, match=r"can be exported for a fixed size only; give --size HxW"):
        to_onnx(Part(lambda x: [x + torch.ones(1, 3, 96, 160)], windows=False), None, card())  # type: ignore[arg-type]


def drive(folder: Path, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """A street that passes by, as a folder of frames."""
    folder.mkdir()
    wide = photo((size[0], size[1] + 8 * count))
    frames = [np.ascontiguousarray(wide[:, 8 * n : 8 * n + size[1]]) for n in range(count)]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    return frames


@pytest.mark.large
def test_clips_of_any_length_and_size(tmp_path: Path) -> None:
    source, target = tiny_file("clip", tmp_path), tmp_path / "model.onnx"
    frames = drive(tmp_path / "drive", 4, (48, 80))
    drive(tmp_path / "long", 10, (60, 40))
    report, parity = export(source, output=target, images=[tmp_path / "drive", tmp_path / "long"])
    assert [(row["image"], row["size"]) for row in parity.images] == [("drive", [48, 80]), ("long", [60, 40])]
    assert (report["task"], report["size"]) == ("clip", None)
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.999
    assert parity.mask_logits is not None and 0 < parity.mask_logits < 1e-3
    assert parity.class_logits is not None and parity.class_logits < 1e-3

    proto = onnx.load(str(target))
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    save_openvino(to_openvino(proto), open_exported(target).card, tmp_path / "model.xml")
    original = knet.load(source, device="cpu", precision="fp32")
    for path in (target, tmp_path / "model.xml"):
        model = knet.load(path)
        for count, size in ((1, (64, 96)), (2, (64, 96)), (5, (160, 224))):
            clip = torch.randn(count, 3, *size)
            expected, found = clip_result(original.engine(clip)), clip_result(model.engine(clip))
            for a, b in zip(expected, found, strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() <= 1e-3 * max(1.0, float(a.abs().max()))
        same_objects(segment_clip(original, frames), segment_clip(model, frames))
        with pytest.raises(ConfigError, match="looks at all frames of a clip at once, not at single images"):
            model(frames[0])


def same_objects(expected: Any, found: Any) -> None:
    """The same tracks: kernels, classes, scores and masks, best first."""
    assert [(o.kernel, o.label) for o in found] == [(o.kernel, o.label) for o in expected]
    assert [o.score for o in found] == pytest.approx([o.score for o in expected], abs=1e-4)
    assert any(mask is not None for o in expected for mask in o.masks)
    for a, b in zip(expected, found, strict=True):
        for one, other in zip(a.masks, b.masks, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert (unpack_mask(one) == unpack_mask(other)).mean() > 0.999


@pytest.mark.large
def test_clips_of_a_fixed_size_have_any_length(tmp_path: Path) -> None:
    source, target = tiny_file("clip", tmp_path), tmp_path / "model.onnx"
    _, parity = export(source, output=target, size=(64, 128))  # compared on the bundled video
    assert [row["image"] for row in parity.images] == ["drive"]
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.99
    original, model = knet.load(source, device="cpu", precision="fp32"), knet.load(target)
    for count in (1, 6):
        frames = drive(tmp_path / f"frames{count}", count, (64, 128))
        same_objects(segment_clip(original, frames), segment_clip(model, frames))
    found = segment_clip(model, drive(tmp_path / "small", 3, (30, 50)), size="image")
    assert {unpack_mask(mask).shape for o in found for mask in o.masks if mask is not None} == {(30, 50)}
    with pytest.raises(ConfigError, match=r"takes images of 64x128 pixels .* is 96x128"):
        segment_clip(model, drive(tmp_path / "large", 2, (90, 120)), size="image")


@pytest.mark.large
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_clips_in_lower_precisions(precision: Any, tmp_path: Path) -> None:
    source, target = tiny_file("clip", tmp_path), tmp_path / "model.onnx"
    _, parity = export(source, output=target, precision=precision)
    assert parity.class_logits is not None and 1e-4 < parity.class_logits < 2
    assert knet.load(target).precision == precision


def test_engines_for_clips_know_how_long_these_are() -> None:
    any_size, fixed = card("video-knet-r50-youtube-vis"), card("video-knet-r50-youtube-vis", size=(384, 640))
    assert tensorrt.shapes(any_size) == [(1, 3, 64, 64), (8, 3, 64, 96), (36, 3, 192, 192)]
    assert tensorrt.shapes(fixed) == [(count, 3, 384, 640) for count in (1, 8, 36)]
    assert tensorrt.shapes(card(size=(384, 640))) == [(1, 3, 384, 640)]


@pytest.mark.large
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_lower_precisions_are_smaller_and_near(
    form: Any, precision: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "knet")
    ending = {"onnx": ".onnx", "openvino": ".xml"}[form]
    whole, _ = export("rtknet-lite-street", form, output=tmp_path / f"whole{ending}", size=(416, 768))
    target = tmp_path / f"small{ending}"
    low, parity = export("rtknet-lite-street", form, output=target, size=(416, 768), precision=precision)
    assert low["bytes"] < 0.75 * whole["bytes"]
    assert parity.pq is not None and parity.pq > (0.98 if precision == "fp16" else 0.85)
    assert knet.load(target).precision == precision
    assert ("calibrating int8 on" in caplog.text) == (precision == "int8")


@pytest.mark.large
@pytest.mark.parametrize("size", [None, (64, 128)])
def test_the_merge_inside_gives_the_same_segments(size: tuple[int, int] | None, tmp_path: Path) -> None:
    source, target = small_file("real-time", tmp_path), tmp_path / "model.onnx"
    _, parity = export(source, output=target, size=size, merge_inside=True)
    assert parity.equal_pixels is not None and parity.equal_pixels > 0.999
    assert parity.mask_logits is None
    original, exported = knet.load(source, device="cpu", precision="fp32"), knet.load(target)
    for shape in ((60, 120), (50, 70)):  # of which the second is padded further by the fixed size
        image = photo(shape)
        expected, found = original(image, size="image"), exported(image, size="image")
        assert same_segments(expected, found).mean() > (0.999 if size is None or shape == (60, 120) else 0.9)
    with pytest.raises(ConfigError, match=r"merges inside, with score 0.0 and overlap 0.1, not 0.5 and 0.1"):
        exported(image, score=0.5)


def test_images_are_fitted_into_a_fixed_size() -> None:
    wide, high = np.zeros((60, 200, 3), np.uint8), np.zeros((200, 60, 3), np.uint8)
    any_size = knet.load("rtknet-lite-street", device="cpu")
    large, small = (
        segmenter_for(any_size.engine, any_size.card.model_copy(update={"graph": card(size=size).graph}))
        for size in ((416, 832), (64, 128))
    )
    assert large.prepare(wide, "model")[1] == any_size.prepare(wide, "model")[1]
    for image in (wide, high):
        inputs, _ = small.prepare(image, small.size)
        assert inputs.shape[2] <= 64 and inputs.shape[3] <= 128


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = {task: tiny_file(task, tmp_path) for task in ("clip", "instance", "panoptic")}
    with pytest.raises(ConfigError, match=r"is for clip segmentation; leave --merge-inside out\."):
        export(tiny["clip"], merge_inside=True)
    with pytest.raises(ConfigError, match=r"is for instance segmentation; leave --merge-inside out\."):
        export(tiny["instance"], merge_inside=True)
    with pytest.raises(ConfigError, match=r"merges the way 'sorted'.*or give --merge optimised"):
        export(tiny["panoptic"], merge_inside=True)
    with pytest.raises(ConfigError, match=r"multiples of 32, not 60x100; give --size 64x128"):
        export(tiny["panoptic"], size=(60, 100))
    with pytest.raises(ConfigError, match=r"no format 'coreml'; it is one of: onnx, openvino, tensorrt"):
        export(tiny["panoptic"], "coreml")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no precision 'bf16' to export in; it is one of: fp32, fp16, int8"):
        export(tiny["panoptic"], precision="bf16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"format openvino ends in \.xml, 'model\.onnx' does not"):
        export(tiny["panoptic"], "openvino", output="model.onnx")
    with pytest.raises(ConfigError, match=r"'model\.onnx' is an exported model already"):
        export("model.onnx")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".safetensors"]
