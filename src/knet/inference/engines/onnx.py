"""ONNX files, run by onnxruntime."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from knet.errors import ConfigError
from knet.inference.engines.exported import GraphEngine, existing, need, opening, own_precision, read_card
from knet.weights.card import METADATA_KEY


class OnnxEngine(GraphEngine):
    """An .onnx file, run by onnxruntime."""

    name = "onnxruntime"

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto"):
        need("onnxruntime", what=f"'{path}'")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        spin = os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE"  # one switch for all, see knet/__init__.py
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        options.log_severity_level = 4  # what is wrong comes as an exception
        with opening(path):
            session = onnxruntime.InferenceSession(existing(path), options, providers=_providers(device))
            text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        card, graph = read_card(path, text)
        self.asked = device, precision
        super().__init__(path, card, graph, own_precision(path, graph, precision))
        self._session = session
        self._names = [output.name for output in session.get_outputs()]

    def run(self, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """See `GraphEngine`."""
        values = self._session.run(self._names, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(self._names, values, strict=True)}


def _providers(device: str) -> list[str]:
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in onnxruntime.get_available_providers()):
        return ["CPUExecutionProvider"]
    if device not in ("auto", "cuda") or cuda not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"The installed onnxruntime cannot use the device '{device}'; give --device cpu, or for 'cuda' install "
            "onnxruntime-gpu in the place of onnxruntime."
        )
    return [cuda, "CPUExecutionProvider"]
