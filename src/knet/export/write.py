"""`knet export`: writes a model as a file that runs without torch's network, and tries it on images at once."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from knet.calls import named_options
from knet.errors import ConfigError, PredictionError, require
from knet.export import openvino, tensorrt
from knet.export.graph import Graph, Merging, check_size
from knet.export.hides import hides_padding
from knet.export.onnx import quantize_onnx, save_onnx, to_onnx, write_card
from knet.export.report import Parity, compare, compare_clips, describe_run, write_report
from knet.inference.clip import segment_clip
from knet.inference.engines.exported import need
from knet.inference.engines.open import ENDINGS, exported_form
from knet.inference.load import load, read_model, segmenter_for
from knet.inference.segmenter import Segmenter
from knet.inference.sources.paths import open_source
from knet.inference.sources.streams import open_stream
from knet.inference.sources.videos import Item
from knet.models.network import Network
from knet.models.zoo import Merge
from knet.preprocess import MOST_SEEN, unpadded
from knet.weights.card import Card, GraphCard

_logger = logging.getLogger("knet")

Format = Literal["onnx", "openvino", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]
_ENDING = {form: ending for ending, form in ENDINGS.items()}
_PHOTOS, _VIDEO = (".",), ("drive.mp4",)  # bundled, in the folder of the demo
_MOST_AT_ONCE = 1024  # images of a batch
_CALIBRATION = 64  # images at most; more would hardly change the scales


@named_options
def export(
    model: str | Path,
    format: Format = "onnx",
    weights: str | Path | None = None,
    output: str | Path | None = None,
    size: tuple[int, int] | None = None,
    precision: Precision = "fp32",
    merge: Merge | None = None,
    merge_inside: bool = False,
    calibrate: Sequence[str | Path] = (),
    images: Sequence[str | Path] = (),
    batch: int = 1,
    opset: int | None = None,
    filled: bool = False,
) -> tuple[dict[str, Any], Parity]:
    """Writes a model as a file that `knet.load` and other programs run, and compares it with the model in torch.

    Args:
        model, weights, merge: see `knet.load`.
        format: "onnx", "openvino", or "tensorrt": an ONNX file, and where TensorRT is installed the engine made of it.
        output: the file to write; by default NAME.onnx, NAME.xml or NAME.engine in the current folder.
        size: height and width of the images that it takes; None for any.
        precision: "fp16" is faster on GPUs, "int8" on CPUs.
        merge_inside: whether the graph gives the owner of every pixel instead of masks and classes, for panoptic models
            whose merge is "optimised".
        calibrate: images, folders or videos like those that the model will see, for int8; by default the bundled ones.
        images: the same for the comparison; for models of clips, videos or folders of frames.
        batch: how many images the file takes at once.
        opset: of ONNX; None is 20.
        filled: whether all images fill the file's fixed size, up to the network's own padding. Such a file refuses
            others, and is faster, as it need not hide the padding.

    Returns:
        The report, as written to FILE.report.json beside the file, and its figures.

    Raises:
        ConfigError: an option does not fit the model, or an optional package is missing.
        CheckpointError: the weights do not fit.
        DataError: an image cannot be read.
        PredictionError: the model, or what was made of it, says no finite numbers of an image; no file is left.
        OutputError: the file cannot be written.
    """
    require(str | Path, "a name or a path", model=model)
    require(str | Path | None, "a path", weights=weights, output=output)
    require(tuple | list | None, "height and width", size=size)
    require(int, "a whole number", batch=batch)
    require(int | None, "a version of ONNX's operators, such as 20", opset=opset)
    path = _target(model, format, output, precision)
    if format == "tensorrt" and merge_inside:
        raise ConfigError("The merge cannot be inside of TensorRT engines; leave --merge-inside out.")
    net, card = read_model(model, weights, merge)
    path = path or Path(f"{card.model}{'' if precision == 'fp32' else '-' + precision}{_ENDING[format]}")
    if filled and size is None:
        raise ConfigError("--filled is for files of a fixed size; give --size HxW, too.")
    own = segmenter_for(net, card)
    card, asked = _card(net, card, size, precision, merge_inside, batch, filled)
    _needs(format, precision)
    for given in (calibrate, images):
        open_source(list(given))  # reports a missing file before any work
    original = segmenter_for(net, card)
    _require_finite(original, images)
    start = time.perf_counter()
    merging = _merging(original, asked) if merge_inside else None
    half = precision == "fp16" and format != "openvino"  # OpenVINO compresses weights itself
    graph = Graph(net, half, merging, batch, asked.seen)
    _logger.info(f"tracing {card.model}")
    proto = to_onnx(graph, size, card, opset)
    if precision == "int8":
        batches = _batches(original, asked, calibrate)
        with tempfile.TemporaryDirectory() as folder:
            proto = quantize_onnx(proto, batches, Path(folder), symmetric=format == "tensorrt")
        write_card(proto, card)
    with suppress(NotADirectoryError):  # which writing tells
        path.with_name(f"{path.name}.report.json").unlink(missing_ok=True)  # of an older file
    if format == "openvino":
        openvino.save_openvino(openvino.to_openvino(proto), card, path, precision == "fp16")
    else:
        save_onnx(proto, path.with_suffix(".onnx"))
        path = _engine(path, card) if format == "tensorrt" else path
    seconds = time.perf_counter() - start
    _logger.info(f"wrote {path}; comparing it with torch")
    files = [file for file in (path, path.with_suffix(".bin")) if file.is_file()]
    try:
        exported = load(path, device="cpu" if exported_form(path) != "tensorrt" else "auto")
        parity = _compared(original, exported, images, own)
    except PredictionError:  # as in fp16, where a number is too large for it
        for file in files:
            file.unlink()
        raise
    report: dict[str, Any] = {"model": card.model, "task": original.task, "file": str(path)}
    report |= {"bytes": sum(file.stat().st_size for file in files), "precision": precision, "size": size and list(size)}
    report |= {"batch": batch, "merge_inside": merge_inside, "export_seconds": round(seconds, 1)}
    report |= describe_run(exported) | asdict(parity)
    write_report(path.with_name(f"{path.name}.report.json"), report)
    return report, parity


def _target(model: str | Path, form: str, output: str | Path | None, precision: str) -> Path | None:
    """The file to write, None for the default. Raises `ConfigError` for an unknown format, precision or ending."""
    if form not in get_args(Format):
        raise ConfigError(f"There is no format '{form}'; it is one of: {', '.join(get_args(Format))}.")
    if precision not in get_args(Precision):
        raise ConfigError(f"There is no precision '{precision}' to export in; it is one of: fp32, fp16, int8.")
    if exported_form(model):
        raise ConfigError(f"'{model}' is an exported model already; give the model's name or its .safetensors file.")
    if output is not None and Path(output).suffix != _ENDING[form]:
        raise ConfigError(f"A file of the format {form} ends in {_ENDING[form]}, '{output}' does not; rename it.")
    return None if output is None else Path(output)


def _needs(form: str, precision: str) -> None:
    """Raises `ConfigError` before any work if a package is missing."""
    need("onnx", "onnxscript")
    if form == "openvino":
        need("openvino")
    if form != "openvino" or precision == "int8":
        need("onnxruntime")


def _card(
    net: Network,
    card: Card,
    size: tuple[int, int] | None,
    precision: Precision,
    merge_inside: bool,
    batch: int,
    filled: bool,
) -> tuple[Card, GraphCard]:
    """The model's card with what a graph needs. Raises `ConfigError` for what cannot be exported."""
    if merge_inside and (card.task != "panoptic" or card.merge != "optimised"):
        panoptic = card.task == "panoptic"
        merges = f"merges the way '{card.merge}'" if panoptic else f"is for {card.task} segmentation"
        raise ConfigError(
            f"Only the merge 'optimised' can be put into the graph, and '{card.model}' {merges}; leave "
            f"--merge-inside out{', or give --merge optimised' if panoptic else ''}."
        )
    if not 1 <= batch <= _MOST_AT_ONCE:
        raise ConfigError(f"The batch of {batch} images is not from 1 to {_MOST_AT_ONCE}; give another --batch.")
    if batch > 1 and (merge_inside or card.task == "clip"):
        what = "a graph with the merge inside" if merge_inside else f"'{card.model}', which looks at whole clips,"
        raise ConfigError(f"There is no batch for {what}; leave --batch out.")
    preprocessing = card.preprocessing
    if size is not None:
        check_size(size, net.size_divisor)
        if batch * size[0] * size[1] > MOST_SEEN:
            raise ConfigError(
                f"A batch of {batch} at the size {size[0]}x{size[1]} has more pixels than the {MOST_SEEN:,} that a "
                "network sees at most; give a smaller --size or --batch."
            )
        if preprocessing.resize:  # by default images fit
            preprocessing = replace(preprocessing, short_edge=min(size), max_edge=max(size))
    seen = size is not None and not filled and hides_padding(net, size)
    if size is not None and not filled and not seen:
        _logger.info("note: this network sees the padding of images that do not fill the size; --filled refuses them")
    previous: tuple[Literal[1], int, int] | None = None
    if net.embeds:
        decoder: Any = net.decoder
        previous = (1, decoder.kernels.shape[0] + len(net.stuff), decoder.kernels.shape[1])
    graph = GraphCard(
        precision=precision,
        size=size,
        merge_inside=merge_inside,
        stuff=tuple(net.stuff),
        embeds=net.embeds,
        previous=previous,
        stride=net.stride,
        divisor=net.size_divisor,
        batch=batch,
        seen=seen,
        filled=filled,
    )
    return card.model_copy(update={"preprocessing": preprocessing, "graph": graph}), graph


def _require_finite(segmenter: Segmenter, images: Sequence[str | Path]) -> None:
    """Raises `PredictionError` for a model that says no finite numbers of an image, before a file is made of it."""
    clips = segmenter.task == "clip"
    with _sources(images, _VIDEO if clips else _PHOTOS) as sources:
        item = next(iter(open_source(sources)))
    if clips:
        segment_clip(segmenter, [item.image], name=item.name)
    else:
        segmenter.segment(item.image, item.name)


def _merging(segmenter: Segmenter, graph: GraphCard) -> Merging:
    """The settings of the merge inside the graph, with the model's own thresholds."""
    cut = None if graph.size is None else (graph.divisor, graph.divisor // graph.stride)
    s, rules = segmenter, segmenter.rules
    return Merging(s.score, s.overlap, graph.stuff, rules.thing_candidates, cut, rules.stretches_padding)


def _batches(segmenter: Segmenter, graph: GraphCard, calibrate: Sequence[str | Path]) -> list[dict[str, np.ndarray]]:
    """The graph's inputs for the images to calibrate on, preprocessed like any image."""
    with _sources(calibrate, (*_PHOTOS, *_VIDEO)) as sources:
        items = islice(open_source(sources), _CALIBRATION)
        batches = [graph_inputs(segmenter, graph, item) for item in items]
    whose = "the given images" if calibrate else "the bundled demo images; --calibrate takes others"
    _logger.info(f"calibrating int8 on {len(batches)} of {whose}")
    return batches


def graph_inputs(segmenter: Segmenter, graph: GraphCard, item: Item) -> dict[str, np.ndarray]:
    """The graph's inputs for an image, as a first frame, or as a clip of one frame."""
    inputs, sizes = segmenter.prepare(item.image, segmenter.size)
    if segmenter.task == "semantic":
        inputs = unpadded(inputs, sizes)
    seen = inputs.shape[2:]
    if graph.size is not None:
        height, width = graph.size
        inputs = nn.functional.pad(inputs, (0, width - inputs.shape[3], 0, height - inputs.shape[2]))
    fed = {"images": np.ascontiguousarray(inputs.numpy())}
    if graph.previous is not None:
        fed["previous"] = np.zeros(graph.previous, np.float32)
    if graph.merge_inside:
        fed["like"] = np.zeros((1, *sizes.resized), np.uint8)
    fed = {name: value.repeat(graph.batch, 0) for name, value in fed.items()}
    return fed | ({"seen": np.array(seen)} if graph.seen else {})


def _engine(path: Path, card: Card) -> Path:
    """Builds the TensorRT engine from the ONNX file beside it; returns that file if TensorRT is not installed."""
    source = path.with_suffix(".onnx")
    if not tensorrt.installed():
        _logger.info(
            f"TensorRT is not installed here; on the machine that has it, with {source.name} there, run:\n"
            f"  {tensorrt.trtexec(source, card)}"
        )
        return source
    tensorrt.build_engine(source, card, path)
    return path


def _compared(original: Segmenter, exported: Segmenter, images: Sequence[str | Path], own: Segmenter) -> Parity:
    """Compares both on the given images, or on the bundled ones."""
    clips = original.task == "clip"
    with _sources(images, _VIDEO if clips else _PHOTOS) as sources:
        if clips:
            return compare_clips(original, exported, open_stream(sources, on_note=lambda text: None))
        return compare(original, exported, open_source(sources), own)


@contextmanager
def _sources(given: Sequence[str | Path], bundled: Sequence[str]) -> Iterator[list[Any]]:
    """The given sources, or the bundled ones."""
    if given:
        yield list(given)
        return
    with resources.as_file(resources.files("knet") / "assets" / "demo") as folder:
        yield [folder / name for name in bundled]
