"""Opens exported files."""

from pathlib import Path

from knet.inference.engines.exported import GraphEngine
from knet.inference.engines.onnx import OnnxEngine
from knet.inference.engines.openvino import OpenVinoEngine

ENDINGS = {".onnx": "onnx", ".xml": "openvino", ".engine": "tensorrt"}


def exported_form(model: str | Path) -> str | None:
    """The format of an exported file by its ending, in capitals or not; None for all other models."""
    return ENDINGS.get(Path(model).suffix.lower())


def open_exported(path: str | Path, device: str = "auto", precision: str = "auto") -> GraphEngine:
    """The engine for an exported file, chosen by its ending, see `ENDINGS`.

    Args:
        device: "auto", "cpu", or "cuda" for ONNX and TensorRT.
        precision: "auto", or one in which the engine can compute the file.

    Raises:
        ConfigError: the runtime is not installed, or lacks the device or the precision.
        CheckpointError: the file is missing, damaged, not from `knet export`, or for another GPU or TensorRT.
    """
    path, form = Path(path), exported_form(path)
    if form == "tensorrt":
        from knet.inference.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(path, device, precision)
    return (OnnxEngine if form == "onnx" else OpenVinoEngine)(path, device, precision)
