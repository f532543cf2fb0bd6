"""Exported files that no exporter made: a graph of three nodes with a card, at once there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from knet.data.categories import load_categories
from knet.export.onnx import save_onnx, write_card
from knet.inference.load import describe
from knet.models.zoo import entry
from knet.structures import Preprocessing
from knet.weights.card import Card

MASKS, STRIDE = 4, 8
FILTERS = np.random.default_rng(0).normal(size=(MASKS, 3, 1, 1)).astype(np.float32) * 4


def card(model: str = "rtknet-slim-camvid", overlap: float = 0.1, **graph: Any) -> Card:
    """The card of a model, by default of CamVid's, with other entries of `graph`."""
    table, preprocessing = load_categories(entry(model).categories), Preprocessing(short_edge=64, max_edge=96)
    whole = {
        "precision": "fp32",
        "size": None,
        "merge_inside": False,
        "stuff": [],
        "embeds": False,
        "previous": None,
        "stride": STRIDE,
        "divisor": 32,
        **graph,
    }
    return describe(model, {}, table, preprocessing, score=0.0, overlap=overlap, graph=whole)


def hand_made(path: Path, **graph: Any) -> Path:
    """Masks are mean colours of 8x8 pixels in four mixtures; every mask has a class of its own."""
    proto = proto_of(card(**graph))
    save_onnx(proto, path)
    return path


def hand_made_clip(path: Path, **graph: Any) -> Path:
    """The same masks in every frame of a clip of any length."""
    save_onnx(proto_of(card("video-knet-r50-youtube-vis", overlap=0.0, **graph)), path)
    return path


def proto_of(content: Card) -> onnx.ModelProto:
    """The graph as ONNX, with this card."""
    assert content.graph is not None
    size = content.graph.size or ("height", "width")
    clip, count = content.task == "clip", len(content.categories)
    classes = np.full((1, MASKS, count), -4, np.float32)
    classes[0, range(MASKS), [0, 3, 8, 9]] = [3, 2, 1, 2]
    constants: dict[str, np.ndarray] = {
        "filters": FILTERS,
        "classes": classes,
        "vectors": np.ones((1, MASKS, 2), np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["cells", "filters"], ["frames" if clip else "mask_logits"]),
        helper.make_node("Identity", ["classes"], ["class_logits"]),
    ]
    shapes: dict[str, list[int | str]] = {"mask_logits": [1, MASKS, "h", "w"], "class_logits": [1, MASKS, count]}
    if clip:
        constants["first"] = np.zeros(1, np.int64)
        nodes.append(helper.make_node("Unsqueeze", ["frames", "first"], ["batch"]))
        nodes.append(helper.make_node("Transpose", ["batch"], ["mask_logits"], perm=[0, 2, 1, 3, 4]))
        shapes["mask_logits"].insert(2, "count")
    else:
        nodes.append(helper.make_node("Identity", ["vectors"], ["kernels"]))
        shapes["kernels"] = [1, MASKS, 2]
    whole = helper.make_graph(
        nodes,
        "hand_made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["count" if clip else 1, 3, *size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    write_card(proto, content)
    return proto
