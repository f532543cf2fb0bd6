"""Engines for exported files: what they give, and every way in which a file or an option can be wrong."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hand_made import FILTERS, MASKS, STRIDE, card, hand_made, hand_made_clip, proto_of
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

import knet
from knet.errors import CheckpointError, ConfigError, KNetError, PredictionError
from knet.export.onnx import write_card
from knet.export.openvino import save_openvino, to_openvino
from knet.inference.clip import segment_clip
from knet.inference.engines.exported import Pool
from knet.inference.engines.onnx import OnnxEngine
from knet.inference.engines.open import open_exported
from knet.inference.engines.openvino import OpenVinoEngine


@pytest.fixture
def image() -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return small.repeat(10, 0).repeat(10, 1)


@pytest.fixture(scope="module")
def xml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    save_openvino(to_openvino(proto_of(card())), card(), path)
    return path


def test_a_file_segments_images_like_any_model(tmp_path: Path, image: np.ndarray, xml: Path) -> None:
    path = hand_made(tmp_path / "model.onnx")
    segmenter = knet.load(path)
    found = segmenter(image)
    assert found.id_map.shape == image.shape[:2]
    assert len(found.segments) >= 2
    assert segmenter.net is None
    assert (segmenter.engine.name, segmenter.precision, segmenter.task) == ("onnxruntime", "fp32", "panoptic")
    assert [category.name for category in segmenter.categories][:2] == ["Sky", "Building"]
    other = knet.load(xml)(image)
    assert (found.id_map == other.id_map).all()
    assert [s.category for s in found.segments] == [s.category for s in other.segments]


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_threads_may_share_an_exported_model(form: str, tmp_path: Path, xml: Path) -> None:
    segmenter = knet.load(hand_made(tmp_path / "model.onnx") if form == "onnx" else xml)
    images = [torch.from_numpy(np.random.default_rng(n).normal(size=(1, 3, 320, 480)).astype("f")) for n in range(24)]
    expected = [segmenter.engine(image)[-1].mask_logits for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: segmenter.engine(image)[-1].mask_logits, images))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_call_has_its_request_for_itself() -> None:
    made = list[object]()
    pool = Pool(lambda: made.append(object()) or made[-1])
    with pool.one() as first, pool.one() as second:
        assert first is not second
    with pytest.raises(RuntimeError), pool.one():
        raise RuntimeError
    with pool.one() as again:
        assert again in (first, second)
    assert len(made) == 2


def test_options_reach_the_segmenter(tmp_path: Path, image: np.ndarray) -> None:
    path = hand_made(tmp_path / "model.onnx")
    whole, certain = knet.load(path)(image), knet.load(path, score=0.9)(image)
    assert len(certain.segments) < len(whole.segments)
    assert min(segment.score for segment in certain.segments) >= 0.9
    assert knet.load(path, merge="sorted").merge == "sorted"
    assert knet.load(path, size=32)(image).id_map.shape == image.shape[:2]


def test_smaller_images_are_padded_to_a_fixed_size(tmp_path: Path) -> None:
    engine = OnnxEngine(hand_made(tmp_path / "model.onnx", size=[64, 96]))
    inputs = torch.randn(1, 3, 32, 64)
    output = engine(inputs)[-1]
    expected = F.conv2d(F.avg_pool2d(inputs, STRIDE), torch.from_numpy(FILTERS))
    torch.testing.assert_close(output.mask_logits, expected)


def test_a_file_finds_the_objects_of_clips_of_any_length(tmp_path: Path, image: np.ndarray) -> None:
    segmenter = knet.load(hand_made_clip(tmp_path / "clip.onnx"))
    assert (segmenter.task, segmenter.net) == ("clip", None)
    single = segment_clip(segmenter, [image])
    clip = segment_clip(segmenter, iter([image, image[::-1], image]))
    assert [(o.kernel, o.label, o.score) for o in clip] == [(o.kernel, o.label, o.score) for o in single]
    assert {o.kernel for o in clip} == set(range(MASKS))
    for alone, tube in zip(single, clip, strict=True):
        assert tube.masks[0] == tube.masks[2] == alone.masks[0]
        assert tube.masks[1] is not None and tube.masks[1] != tube.masks[0]
    with pytest.raises(ConfigError, match=r"looks at all frames of a clip at once, not at single images"):
        segmenter(image)


def test_frames_are_padded_to_a_fixed_size(tmp_path: Path, image: np.ndarray) -> None:
    fixed = knet.load(hand_made_clip(tmp_path / "fixed.onnx", size=[96, 128]))
    free = knet.load(hand_made_clip(tmp_path / "free.onnx"))
    assert segment_clip(fixed, [image] * 2) == segment_clip(free, [image] * 2)  # its masks know no surroundings
    small = knet.load(hand_made_clip(tmp_path / "small.onnx", size=[32, 64]))
    with pytest.raises(ConfigError, match=r"takes images of 32x64 pixels .* is 64x96 .* smaller --size.*--dynamic"):
        segment_clip(small, [image], size="image")
    assert segment_clip(small, [image])  # shrunk to fit


def test_what_does_not_fit_into_a_fixed_size_says_what_to_do(tmp_path: Path, image: np.ndarray) -> None:
    path = hand_made(tmp_path / "model.onnx", size=[32, 64])
    with pytest.raises(ConfigError, match=r"takes images of 32x64 pixels .* is 64x96 .* smaller --size.*--dynamic"):
        knet.load(path, size="image")(image)
    assert knet.load(path)(image).segments  # shrunk to fit


def test_a_file_computes_in_its_own_precision(tmp_path: Path) -> None:
    path = hand_made(tmp_path / "model.onnx")
    assert knet.load(path, precision="fp32").precision == "fp32"
    with pytest.raises(ConfigError, match=r"computes in fp32 and cannot in bf16; leave --precision out, or export"):
        knet.load(path, precision="bf16")


def test_openvino_computes_in_bfloat16_only_when_asked(xml: Path) -> None:
    from openvino import Core

    inputs = torch.randn(1, 3, 64, 96)
    expected = F.conv2d(F.avg_pool2d(inputs, STRIDE), torch.from_numpy(FILTERS))
    torch.testing.assert_close(OpenVinoEngine(xml)(inputs)[-1].mask_logits, expected)
    if "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        rounded = OpenVinoEngine(xml, precision="bf16")
        assert rounded.precision == "bf16"
        assert 0 < (rounded(inputs)[-1].mask_logits - expected).abs().max() < 0.2
    else:
        with pytest.raises(ConfigError, match=r"cannot compute in bf16 on this processor"):
            OpenVinoEngine(xml, precision="bf16")
    with pytest.raises(ConfigError, match=r"computes in fp32 and cannot in int8"):
        OpenVinoEngine(xml, precision="int8")


def test_a_precision_that_the_processor_lacks(xml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    class Old(openvino.Core):
        def get_property(self, *_: object) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(ConfigError, match=r"cannot compute in bf16 on this processor, only in fp32, int8;"):
        OpenVinoEngine(xml, precision="bf16")


def test_devices(tmp_path: Path, xml: Path) -> None:
    path = hand_made(tmp_path / "model.onnx")
    assert knet.load(path, device="cpu").device.type == "cpu"
    with pytest.raises(ConfigError, match=r"onnxruntime cannot use the device 'cuda:7'"):
        knet.load(path, device="cuda:7")
    with pytest.raises(ConfigError, match=r"not on 'cuda'; give --device cpu"):
        knet.load(xml, device="cuda")


def test_weights_lie_inside(tmp_path: Path) -> None:
    path = hand_made(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"holds its weights already; leave weights \(--weights\) out"):
        knet.load(path, weights="other.pth")


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_files_that_cannot_be_opened(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    with pytest.raises(CheckpointError, match=r"There is no file .*; give the path of a file that `knet export` wrote"):
        knet.load(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"cannot be opened \(.*\); export or copy it again"):
        knet.load(path)


def test_a_file_of_others(tmp_path: Path, xml: Path) -> None:
    proto = proto_of(card())
    del proto.metadata_props[:]
    path = tmp_path / "other.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=r"does not say which model .* not written by `knet export`"):
        knet.load(path)
    other = tmp_path / "other.xml"
    save_openvino(to_openvino(proto), card(), other)
    other.write_text(other.read_text().replace("<knet ", "<somebody ").replace("</knet>", "</somebody>"))
    with pytest.raises(CheckpointError, match=r"not written by `knet export`"):
        knet.load(other)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"model": "rtknet-cityscapes"}, "The graph in '.*' knows 11 classes, its card 19; export the model again"),
        ({"embeds": True, "previous": (1, MASKS, 2)}, r"The file '.*' cannot be run \(.*\); export or copy it again"),
        ({"merge_inside": True}, r"The file '.*' cannot be run \(.*\); export or copy it again"),
    ],
)
def test_a_card_of_another_graph(other: dict[str, Any], sentence: str, tmp_path: Path, image: np.ndarray) -> None:
    proto = proto_of(card())
    write_card(proto, card(**other))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    save_openvino(to_openvino(proto), card(**other), tmp_path / "model.xml")
    for file in (path, tmp_path / "model.xml"):
        with pytest.raises(CheckpointError, match=sentence):
            knet.load(file)(image)


def test_the_card_is_in_the_file_once(tmp_path: Path) -> None:
    proto = onnx.load(str(hand_made(tmp_path / "model.onnx")))
    write_card(proto, card(precision="fp16"))
    (row,) = (row for row in proto.metadata_props if row.key == "knet")
    assert json.loads(row.value)["graph"]["precision"] == "fp16"


@pytest.mark.parametrize(
    ("package", "ending", "extra"), [("onnxruntime", ".onnx", "export"), ("openvino", ".xml", "openvino")]
)
def test_a_missing_package(
    package: str, ending: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"package {package}.* pip install 'knet\[{extra}\]'"):
        open_exported(path)


def test_a_merge_inside_keeps_its_thresholds(tmp_path: Path, image: np.ndarray) -> None:
    path = hand_made(tmp_path / "model.onnx", merge_inside=True)
    with pytest.raises(ConfigError, match=r"merges inside, the optimised way; leave merge \(--merge\) out"):
        knet.load(path, merge="sorted")


def spoilt(proto: onnx.ModelProto, name: str, node: str, **attributes: Any) -> onnx.ModelProto:
    """The graph, in which another operation makes the output of this name from what it was."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for maker in changed.graph.node:
        for place, output in enumerate(maker.output):
            maker.output[place] = f"{name}_before" if output == name else output
        for place, given in enumerate(maker.input):
            maker.input[place] = f"{name}_before" if given == name else given
    changed.graph.node.append(helper.make_node(node, [f"{name}_before"], [name], **attributes))
    (row,) = (row for row in changed.graph.output if row.name == name)
    row.type.tensor_type.ClearField("shape")
    if node == "Cast":
        row.type.tensor_type.elem_type = attributes["to"]
    return changed


def merged_inside() -> onnx.ModelProto:
    """A graph that gives every pixel of 64x96 to the first of the masks, as one with the merge inside does."""
    content = card(merge_inside=True, size=(64, 96))
    values: dict[str, np.ndarray] = {
        "owner": np.zeros((1, 64, 96), np.int32),
        "scores": np.ones((1, MASKS), np.float32),
        "labels": np.zeros((1, MASKS), np.int32),
        "kernels": np.ones((1, MASKS, 2), np.float32),
    }
    made = [numpy_helper.from_array(value, f"{name}_made") for name, value in values.items()]
    nodes = [helper.make_node("Identity", [f"{name}_made"], [name]) for name in values]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 96]),
        helper.make_tensor_value_info("like", TensorProto.UINT8, [1, "y", "x"]),
    ]
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    outputs = [helper.make_tensor_value_info(name, types[name], value.shape) for name, value in values.items()]
    graph = helper.make_graph(nodes, "merged", inputs, outputs, made)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    write_card(proto, content)
    return proto


def test_a_graph_with_the_merge_inside_gives_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(merged_inside().SerializeToString())
    (segment,) = knet.load(path)(np.zeros((64, 96, 3), np.uint8)).segments
    assert segment.area == 64 * 96


@pytest.mark.parametrize("merge_inside", [False, True])
@pytest.mark.parametrize(
    ("node", "attributes"),
    [
        ("Transpose", {}),
        ("Shape", {}),
        ("Cast", {"to": TensorProto.BOOL}),
        ("ReduceMax", {"keepdims": 0}),
        ("Size", {}),
    ],
)
def test_outputs_that_do_not_match_the_card_are_refused(
    node: str, attributes: dict[str, Any], merge_inside: bool, tmp_path: Path, image: np.ndarray
) -> None:
    whole = merged_inside() if merge_inside else proto_of(card())
    for name in ("owner", "scores", "labels") if merge_inside else ("mask_logits", "class_logits"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(spoilt(whole, name, node, **attributes).SerializeToString())
        with pytest.raises(CheckpointError, match=rf"{name}\.onnx"):
            knet.load(path)(image[:60, :90])


@pytest.mark.parametrize("wrong", [{"stride": 1}, {"stride": 512}, {"stuff": list(range(11))}])
def test_a_card_with_other_numbers_than_the_graph(wrong: dict[str, Any], tmp_path: Path, image: np.ndarray) -> None:
    proto = proto_of(card())
    write_card(proto, card(**wrong))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="export the model again"):
        knet.load(path)(image)


@pytest.mark.parametrize("form", ["onnx", "xml"])
def test_files_with_changed_bytes_give_a_sentence_or_a_result(
    form: str, tmp_path: Path, xml: Path, image: np.ndarray
) -> None:
    whole = hand_made(tmp_path / "whole.onnx").read_bytes() if form == "onnx" else xml.read_bytes()
    (tmp_path / "model.bin").write_bytes(xml.with_suffix(".bin").read_bytes())
    random, refused = np.random.default_rng(0), 0
    for _ in range(25):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            content[place] = random.integers(0, 256)
        path = tmp_path / f"model.{form}"
        path.write_bytes(content)
        try:
            knet.load(path)(image)
        except KNetError:
            refused += 1
    assert refused


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_weights_of_openvino_that_are_no_file(kind: str, tmp_path: Path, xml: Path) -> None:
    """A pipe would be waited for without end."""
    path, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    path.write_bytes(xml.read_bytes())
    {"missing": lambda: None, "folder": weights.mkdir, "pipe": lambda: os.mkfifo(weights)}[kind]()
    with pytest.raises(CheckpointError, match=r"model\.xml' cannot be opened \(there is no file model\.bin beside it"):
        knet.load(path)


def enormous(path: Path) -> Path:
    """A graph that makes a tensor of 70 terabytes while it runs."""
    proto = proto_of(card())
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20, 16]), "shape"))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    proto.graph.node.append(helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0))
    (node,) = (node for node in proto.graph.node if "mask_logits" in node.output)
    node.output[0] = "before"
    proto.graph.node.append(helper.make_node("Add", ["before", "zero"], ["mask_logits"]))
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_graph_that_asks_for_too_much_memory_says_how_much(tmp_path: Path, image: np.ndarray) -> None:
    # ONNX Runtime 1.22 has it all computed when it opens the file, and does not say how much it takes.
    asked = r"the image .* \(70368744177664 were asked for|what '.*model\.onnx' computes \(it does not say how much"
    with pytest.raises(PredictionError, match=f"too little memory for ({asked})"):
        knet.load(enormous(tmp_path / "model.onnx"))(image)


def test_a_runtime_says_nothing_beside_our_sentence(
    tmp_path: Path, image: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would be in red, with the control characters of a terminal."""
    with pytest.raises(PredictionError):
        knet.load(enormous(tmp_path / "model.onnx"))(image)
    proto = proto_of(card())
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    for key, value in (("location", "."), ("offset", "0"), ("length", "48")):
        proto.graph.initializer[0].external_data.add(key=key, value=value)
    (tmp_path / "outside.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=r"outside\.onnx' cannot be opened"):
        knet.load(tmp_path / "outside.onnx")
    assert capfd.readouterr() == ("", "")


def test_an_engine_is_named_whatever_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.engine"
    with pytest.raises(CheckpointError, match=r"no file '.*model\.engine'"):
        knet.load(path)
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ConfigError, match=r"'.*model\.engine' needs the package tensorrt"):
        knet.load(path)
