"""Exported models: what they say of themselves, their graphs, and their bytes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
from hand_made import card, hand_made, hand_made_clip, proto_of
from onnx import TensorProto

import knet
from fuzz.mutate import NUMBERS, STRINGS, mutated_bytes, mutated_tree
from fuzz.oracle import refused
from knet.export.openvino import save_openvino, to_openvino
from knet.weights.card import METADATA_KEY

_IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    protos = [onnx.load(make(folder / f"{make.__name__}.onnx")) for make in (hand_made, hand_made_clip)]
    protos.append(onnx.load(hand_made(folder / "fixed.onnx", size=[64, 96])))
    save_openvino(to_openvino(proto_of(card())), card(), folder / "case.xml")
    xml = (folder / "case.xml").read_text()

    def case(rng: Random) -> bool:
        if rng.random() < 0.25:
            path = folder / "case.xml"
            path.write_bytes(_other_xml(rng, xml))
        else:
            path = folder / "case.onnx"
            path.write_bytes(_other_onnx(rng, rng.choice(protos)))
        return refused(lambda: knet.load(path, device="cpu")(_IMAGE))

    return case


def _other_onnx(rng: Random, original: onnx.ModelProto) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    kind = rng.random()
    if kind < 0.5:
        own = next(row for row in proto.metadata_props if row.key == METADATA_KEY)
        own.value = json.dumps(mutated_tree(rng, json.loads(own.value)))
    elif kind < 0.9:
        _other_graph(rng, proto)
    else:
        return mutated_bytes(rng, proto.SerializeToString())
    return proto.SerializeToString()


def _other_graph(rng: Random, proto: onnx.ModelProto) -> None:
    graph = proto.graph
    kind, node, value = rng.randrange(8), rng.choice(graph.node), rng.choice([*graph.input, *graph.output])
    sides = value.type.tensor_type.shape.dim
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1:
        graph.output.remove(rng.choice(graph.output))
    elif kind == 2:
        value.name = rng.choice(STRINGS[:20]).encode(errors="replace").decode()
    elif kind == 3 and sides:
        rng.choice(sides).dim_value = int(rng.choice(NUMBERS[:14]) % 2**62)
    elif kind == 4:
        value.type.tensor_type.elem_type = rng.choice((TensorProto.INT64, TensorProto.FLOAT16, TensorProto.STRING, 99))
    elif kind == 5:
        array = rng.choice(graph.initializer)
        array.dims[rng.randrange(len(array.dims))] = rng.choice((0, 1, 7, -1, 2**31))
    elif kind == 6:
        node.op_type = rng.choice(("Relu", "Shape", "Sigmoid", "Nothing", "ReduceMax", "Cast", "Not", "Loop"))
    else:
        array = rng.choice(graph.initializer)
        array.raw_data = mutated_bytes(rng, array.raw_data)


def _other_xml(rng: Random, text: str) -> bytes:
    if rng.random() < 0.4:
        return mutated_bytes(rng, text.encode())
    tree = Xml.fromstring(text)
    for _ in range(rng.choice((1, 1, 3))):
        element = rng.choice(list(tree.iter()))
        if element.attrib and rng.random() < 0.7:
            key = rng.choice(sorted(element.attrib))
            value = element.attrib[key]
            is_card = value.startswith("{")
            changed = json.dumps(mutated_tree(rng, json.loads(value))) if is_card else str(rng.choice(NUMBERS[:12]))
            element.attrib[key] = changed.encode(errors="replace").decode()
        elif len(element):
            element.remove(rng.choice(list(element)))
        else:
            element.text = rng.choice(("", "0", "-1", "x", "99999999999"))
    return Xml.tostring(tree)
