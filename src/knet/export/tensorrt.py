"""TensorRT engines, built from the ONNX file beside them on the machine that runs them."""

import importlib.util
import shlex
from pathlib import Path

from knet.errors import ConfigError
from knet.files import atomic_path
from knet.weights.card import Card


def installed() -> bool:
    """Whether TensorRT is installed here."""
    return importlib.util.find_spec("tensorrt") is not None


def shapes(card: Card) -> list[tuple[int, ...]]:
    """The smallest, the usual and the largest shape of `images`, for which an engine is built; one if it is fixed.

    Clips have at most 36 frames, as the videos of YouTube-VIS.
    """
    assert card.graph is not None
    counts = (1, 8, 36) if card.task == "clip" else (card.graph.batch,) * 3
    if card.graph.size is not None:
        sizes = [card.graph.size] * 3
    else:
        divisor, p = card.graph.divisor, card.preprocessing
        short, long = (-(-side // divisor) * divisor for side in (p.short_edge, p.max_edge))
        sizes = [(max(divisor, 64),) * 2, (short, long), (2 * long, 2 * long)]
    found: list[tuple[int, ...]] = [(count, 3, *size) for count, size in zip(counts, sizes, strict=True)]
    return found[:1] if len(set(found)) == 1 else found


def trtexec(onnx_file: Path, card: Card) -> str:
    """The command that builds the engine, with the types of the ONNX file, so that what must be float32 stays so."""
    words = ["trtexec", f"--onnx={onnx_file}", f"--saveEngine={onnx_file.with_suffix('.engine')}", "--stronglyTyped"]
    sizes = shapes(card)
    if len(sizes) == 3:
        for option, shape in zip(("min", "opt", "max"), sizes, strict=True):
            words.append(f"--{option}Shapes=images:{'x'.join(map(str, shape))}")
    return shlex.join(words)


def build_engine(onnx_file: Path, card: Card, path: Path) -> None:
    """Builds the engine with the installed TensorRT, as `trtexec` would. Raises `ConfigError` if it refuses."""
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
        profile.set_shape("images", *sizes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        command = trtexec(onnx_file, card)
        raise ConfigError(f"TensorRT could not build an engine from '{onnx_file}'; `{command}` says why.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(engine))
