"""ONNX files: made by torch's exporter, in standard operators, with the model's card inside."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from knet.errors import ConfigError, OutputError
from knet.export.graph import Graph
from knet.files import atomic_path
from knet.inference.engines.exported import need
from knet.weights.card import METADATA_KEY, Card

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20  # the first with all operators: Gelu (20), DeformConv (19)
_QUANTIZED = re.compile(r"net\.(backbone|neck|pyramid)\.(?!.*attention\.)")  # names of weights
_CUTS = ("Relu", "Clip")  # behind a convolution, whose scale then is that of what they leave: 0 to 6 of ReLU6
_ONE_FILE = 2**31 - 2**20  # bytes; protobuf allows no more


def to_onnx(graph: Graph, size: tuple[int, int] | None, card: Card, opset: int | None = None) -> ModelProto:
    """Turns a graph into an ONNX model, for images of this height and width, or of any, and clips of any length.

    Raises:
        ConfigError: onnx or onnxscript is not installed, or ONNX cannot express the network, or not in this opset.
    """
    need("onnx", "onnxscript")
    # Traced with different sides, so that none is mixed up; with larger ones for several windows on Swin's c5.
    inputs = graph.inputs(size or ((288, 480) if graph.windows else (96, 160)))
    dynamic: dict[str, Any] = dict.fromkeys(inputs)
    free: dict[int, Any] = {0: torch.export.Dim("frames")} if graph.clips else {}
    if size is None:
        free |= _sides(graph)
    dynamic["images"] = free or None
    if "like" in inputs:
        most = size or (None, None)
        names = ("result_height", "result_width")
        results = (torch.export.Dim(name, min=1, max=side) for name, side in zip(names, most, strict=True))
        dynamic["like"] = dict(zip((1, 2), results, strict=True))
    try:
        with torch.no_grad(), _quiet():
            outputs = list(graph(**inputs))
            program = torch.onnx.export(
                graph,
                kwargs=inputs,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=outputs,
                opset_version=opset or OPSET,
                verbose=False,
            )
            model: ModelProto = program.model_proto  # type: ignore[union-attr]
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        way = "try a fixed size (--size HxW)" if size is None else "this network cannot be exported"
        what = f"torch's exporter could not write this network as ONNX ({_reason(error)})"
        raise ConfigError(f"{what}; {way}.") from error
    written = max(row.version for row in model.opset_import if row.domain in ("", "ai.onnx"))
    if opset not in (None, written):
        raise ConfigError(
            f"This network was written in ONNX's opset {written}, not in {opset}; give --opset {written}."
        )
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise ConfigError(f"The exported graph would need operators outside of standard ONNX ({', '.join(foreign)}).")
    if size is None and any(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[2:]):
        raise ConfigError("This network can be exported for a fixed size only; give --size HxW.")
    write_card(model, card)
    return model


def _sides(graph: Graph) -> dict[int, Any]:
    """Height and width of the images as dimensions that torch's exporter must not fix, with what it may assume."""
    if graph.windows:
        # The exporter would have to prove, if there were bounds, that windows fit into every side after rounding up,
        # which it cannot. Without bounds it only must not fix a side.
        return {2: "height", 3: "width"}
    least = -(-32 // graph.divisor)
    return {axis: graph.divisor * torch.export.Dim(name, min=least) for axis, name in ((2, "height"), (3, "width"))}


def _reason(error: BaseException) -> str:
    """The first line of the original error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides messages of the exporter and the optimiser that are meant for developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def write_card(model: ModelProto, card: Card) -> None:
    """Puts the card into the model, where it replaces an earlier one."""
    for row in [row for row in model.metadata_props if row.key == METADATA_KEY]:
        model.metadata_props.remove(row)
    model.metadata_props.add(key=METADATA_KEY, value=card.text())
    model.producer_name = "knet"


def save_onnx(model: ModelProto, path: Path) -> None:
    """Writes the file, completely or not at all. Raises `OutputError` also if the model is too large for one."""
    if model.ByteSize() > _ONE_FILE:
        raise OutputError(f"'{path}' would be larger than 2 GB, which ONNX files cannot be; try --precision fp16.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def quantize_onnx(
    model: ModelProto, batches: Sequence[dict[str, np.ndarray]], folder: Path, symmetric: bool = False
) -> ModelProto:
    """The model with the convolutions of backbone and necks in int8 (QDQ, one scale a channel).

    The rest stays float32: the first convolution, whose inputs are the colours themselves; attention that is normalised
    over pixels, whose values are tiny; and, because their rounding would move borders and classes, the last
    convolutions before the features, the updates of kernels and their products with the features.

    Args:
        batches: the inputs of the float32 model for the images to calibrate on.
        folder: where onnxruntime's quantiser puts its files.
        symmetric: whether activations have no zero point either, as TensorRT requires.
    """
    need("onnx", "onnxruntime")
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    inner = {node.name for node in convolutions[1:] if _QUANTIZED.match(node.input[1])}
    source, folded, target = (folder / f"{name}.onnx" for name in ("float", "folded", "int8"))
    source.write_bytes(model.SerializeToString())
    with _quiet():
        # Batch norms are folded first, as nothing may stand between a convolution and its scale.
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        nodes = onnx.load(str(folded)).graph.node
        ends = {node.output[0] for node in nodes if node.name in inner}
        cut = [node.name for node in nodes if node.op_type in _CUTS and node.input[0] in ends]
        quantization.quantize_static(
            str(folded),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *_CUTS],
            nodes_to_quantize=[*inner, *cut],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
            extra_options={"ActivationSymmetric": symmetric},
        )
    return onnx.load(str(target))
