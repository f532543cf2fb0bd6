"""Opens exported files."""

from pathlib import Path

from knet.inference.engines.exported import GraphEngine
from knet.inference.engines.onnx import OnnxEngine
from knet.inference.engines.openvino import OpenVinoEngine

ENDINGS = {".onnx": "onnx", ".xml": "openvino", ".engine": "tensorrt"}


def open_exported(path: str | Path, device: str = "auto", precision: str = "auto") -> GraphEngine:
    """The engine for an exported file, chosen by its ending, see `ENDINGS`. Raises as the engines.

    Args:
        path: the file.
        device: "auto", "cpu", or "cuda" for ONNX and TensorRT.
        precision: "auto", or one in which the engine can compute the file.
    """
    path, form = Path(path), ENDINGS[Path(path).suffix]
    if form == "tensorrt":
        from knet.inference.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(path, device, precision)
    return (OnnxEngine if form == "onnx" else OpenVinoEngine)(path, device, precision)
