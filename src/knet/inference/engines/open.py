"""The engine for an exported file."""

from __future__ import annotations

from pathlib import Path

from knet.inference.engines.exported import GraphEngine
from knet.inference.engines.onnx import OnnxEngine
from knet.inference.engines.openvino import OpenVinoEngine

ENDINGS = {".onnx": "onnx", ".xml": "openvino", ".engine": "tensorrt"}


def open_exported(path: str | Path, device: str = "auto", precision: str = "auto") -> GraphEngine:
    """The engine for an exported file, by its ending, see `ENDINGS`.

    device: "auto", "cpu", or for ONNX files and TensorRT "cuda". precision: "auto" or what the engine can compute the
    file in.

    Raises: as the engines.
    """
    path, form = Path(path), ENDINGS[Path(path).suffix]
    if form == "tensorrt":
        from knet.inference.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(path, device, precision)
    return (OnnxEngine if form == "onnx" else OpenVinoEngine)(path, device, precision)
