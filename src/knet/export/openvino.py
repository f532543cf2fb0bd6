"""OpenVINO files: made from the ONNX model, with the model's card in `rt_info`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from knet.errors import ConfigError
from knet.files import alone_in, atomic_path, cannot_write
from knet.inference.engines.exported import need
from knet.inference.results.files import make_folder
from knet.weights.card import METADATA_KEY, Card

if TYPE_CHECKING:
    import openvino
    from onnx import ModelProto


def to_openvino(model: ModelProto) -> openvino.Model:
    """Turns an ONNX model, also in int8, into OpenVINO's. Raises `ConfigError` if that lacks an operator of it."""
    need("openvino")
    from openvino import Core

    try:
        return Core().read_model(model.SerializeToString())
    except RuntimeError as error:
        unknown = re.search(r"No conversion rule found for operations: (.+)", str(error))
        reason = f"has no {re.sub('-[0-9]+', '', unknown[1])}" if unknown else str(error).strip().splitlines()[-1]
        raise ConfigError(f"OpenVINO cannot run this model ({reason}); export it with --format onnx.") from error


def save_openvino(model: openvino.Model, card: Card, path: Path, half: bool = False) -> None:
    """Writes the .xml file `path` and the .bin file beside it, with weights in float16 if `half`."""
    from openvino import Core, save_model

    model.set_rt_info(card.text(), [METADATA_KEY])
    # The weights are in place first, so that an .xml file is never without them, nor beside those of another writer.
    with (
        alone_in(make_folder(path.parent)),
        atomic_path(path) as graph,
        atomic_path(path.with_suffix(".bin")) as weights,
    ):
        beside = graph.with_suffix(".bin")  # where OpenVINO puts them
        try:
            try:
                save_model(model, graph, compress_to_fp16=half)
                Core().read_model(graph)  # older versions of OpenVINO say nothing of a disk that is full
            except RuntimeError as error:  # its sentence for a full disk: "basic_ios::clear: iostream error"
                raise cannot_write(path, str(error).strip().splitlines()[-1]) from error
            beside.replace(weights)
            path.unlink(missing_ok=True)  # an older one would for a moment be beside newer weights
        finally:
            beside.unlink(missing_ok=True)
