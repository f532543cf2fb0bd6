"""Opens exported files."""

from pathlib import Path

from knet.errors import ConfigError
from knet.inference.engines.exported import GraphEngine
from knet.inference.engines.onnx import OnnxEngine
from knet.inference.engines.openvino import OpenVinoEngine
from knet.weights.fetch import is_address, local

ENDINGS = {".onnx": "onnx", ".xml": "openvino", ".engine": "tensorrt"}


def exported_form(model: str | Path) -> str | None:
    """The format of an exported file by its ending or its address's, in capitals or not; None for other models."""
    path = str(model).partition("?")[0] if is_address(model) else str(model)
    return ENDINGS.get(Path(path).suffix.lower())


def open_exported(model: str | Path, device: str = "auto", precision: str = "auto") -> GraphEngine:
    """The engine for an exported file, chosen by its ending, see `ENDINGS`.

    Args:
        model: a path, or the address of an .onnx file, which is fetched once.
        device: "auto", "cpu", or "cuda" for ONNX and TensorRT.
        precision: "auto", or one in which the engine can compute the file.

    Raises:
        ConfigError: the runtime is not installed, or lacks the device or the precision; an address of two files.
        DownloadError: the file cannot be fetched.
        CheckpointError: the file is missing, damaged, not from `knet export`, or for another GPU or TensorRT.
    """
    form = exported_form(model)
    if is_address(model) and form != "onnx":
        raise ConfigError(
            f"A model of the format {form} is more than one file, so it cannot be fetched from '{model}'; fetch its "
            "files into one folder, or give the address of an .onnx file."
        )
    path = local(model)
    if form == "tensorrt":
        from knet.inference.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(path, device, precision)
    return (OnnxEngine if form == "onnx" else OpenVinoEngine)(path, device, precision)
