"""TensorRT engines, which are built on the machine that runs them: from the ONNX file beside them."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

from knet.errors import ConfigError
from knet.files import atomic_path


def installed() -> bool:
    """Whether TensorRT is here to build with."""
    return importlib.util.find_spec("tensorrt") is not None


def shapes(card: dict[str, Any]) -> list[tuple[int, int]]:
    """The smallest, the usual and the largest height and width of an engine, which has to know them; one if fixed."""
    graph, p = card["graph"], card["preprocessing"]
    if graph["size"] is not None:
        return [tuple(graph["size"])]
    divisor = graph["divisor"]
    short, long = (-(-side // divisor) * divisor for side in (p["short_edge"], p["max_edge"]))
    side = 2 * long
    return [(max(divisor, 64),) * 2, (short, long), (side, side)]


def trtexec(onnx_file: Path, card: dict[str, Any]) -> str:
    """The command that builds the engine. Types are those of the ONNX file: what has to be in float32 stays so."""
    words = ["trtexec", f"--onnx={onnx_file}", f"--saveEngine={onnx_file.with_suffix('.engine')}", "--stronglyTyped"]
    sizes = shapes(card)
    if len(sizes) == 3:
        for option, (height, width) in zip(("min", "opt", "max"), sizes, strict=True):
            words.append(f"--{option}Shapes=images:1x3x{height}x{width}")
    return shlex.join(words)


def build_engine(onnx_file: Path, card: dict[str, Any], path: Path) -> None:
    """Builds the engine with the installed TensorRT, as `trtexec` would.

    Raises:
        ConfigError: TensorRT refuses the graph; says why.
        OutputError: the file cannot be written.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_file.read_bytes()):
        raise ConfigError(f"TensorRT cannot read '{onnx_file}' ({parser.get_error(0).desc()}); try a fixed --size.")
    config = builder.create_builder_config()
    sizes = shapes(card)
    if len(sizes) == 3:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *((1, 3, *size) for size in sizes))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ConfigError(
            f"TensorRT could not build an engine from '{onnx_file}'; `{trtexec(onnx_file, card)}` says why."
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(engine))
