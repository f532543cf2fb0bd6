"""How fast a model is here: time from an image to its segments, step by step, and the memory that it takes."""

import ctypes
import gc
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from knet.calls import named_options
from knet.errors import ConfigError
from knet.inference.clip import segment_clip
from knet.inference.cost import count_flops, usual_size
from knet.inference.engines.network import TorchEngine
from knet.inference.engines.open import ENDINGS
from knet.inference.load import (
    choose_device,
    choose_precision,
    describe_official,
    exact_precision,
    load,
    segmenter_for,
)
from knet.inference.segmenter import Segmenter
from knet.models.zoo import create, entry
from knet.weights.fetch import in_folder, is_address

STEPS = ("prepare", "network", "merge", "result")
WARM_UP = 3  # compiling, choosing algorithms and recording graphs happen in the first images
_MOST_ROUNDS = 1_000_000
CLIP = 5  # frames of a clip, for models that look at whole ones
_PHOTO = Path(__file__).parents[1] / "assets" / "demo" / "highway_1.jpg"


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured for images of one size, in milliseconds an image (of models for clips: a frame).

    Attributes:
        median, p95, p99: of the time from the decoded image in memory to its segments.
        throughput: images a second, one after the other.
        memory: the most MB above the loaded model, of the device (on a CPU of the process); None where the system
            does not tell.
        gflops: of the network; None for files whose network is not at hand.
        segments: how many were found in the photo.
        steps: the means of "prepare" (resize, normalise, pad), "network", "merge" (who owns each pixel) and "result"
            (boxes, areas), in rounds of their own, in which a GPU is waited for after each.
    """

    size: tuple[int, int]
    precision: str
    rounds: int
    median: float
    p95: float
    p99: float
    throughput: float
    memory: float | None
    gflops: float | None
    segments: int
    steps: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def open_model(
    model: str,
    weights: str | None,
    device: str,
    precision: str,
    compile: bool,
    merge: Any = None,
    compatible: bool = False,
) -> tuple[Segmenter, bool]:
    """A model as `load` opens it, and whether its weights are random: those of names that come without any."""
    model = str(in_folder(model))
    named = not is_address(model) and Path(model).suffix.lower() not in (*ENDINGS, ".safetensors", ".pth", ".pt")
    if weights is not None or not named or entry(model).bundled is not None:
        return load(model, weights, device, precision, merge, compile, compatible), False
    if compatible:
        precision = exact_precision(model, precision, compile)
    torch.manual_seed(0)
    net, place = create(model), choose_device(device)
    engine = TorchEngine(net, place, choose_precision(precision, place, net), frozen=True, compile=compile)
    return segmenter_for(engine, describe_official(model), compatible), True


def default_size(segmenter: Segmenter) -> tuple[int, int]:
    """The size to measure a model at: the only one that an exported file takes, or the published one."""
    graph = segmenter.card.graph
    return graph.size if graph and graph.size else usual_size(segmenter.name)


def photo(size: tuple[int, int]) -> np.ndarray:
    """A photo of a street, stretched to a height and width. -> (H,W,3) uint8 RGB"""
    with Image.open(_PHOTO) as picture:
        return np.array(picture.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


@named_options
def measure(segmenter: Segmenter, size: tuple[int, int], rounds: int = 20) -> Timing:
    """Times a model on a photo of a height and width, which its network sees as it is, padded only.

    Raises:
        ConfigError: fewer than 1 round, or a size that an exported file does not take.
    """
    if not 1 <= rounds <= _MOST_ROUNDS or min(size) < 1:
        raise ConfigError(
            f"{rounds} rounds of {size[0]}x{size[1]} pixels cannot be measured; give 1 or more of each, and "
            f"{_MOST_ROUNDS:,} rounds at most."
        )
    image, device, found = photo(size), segmenter.device, 0
    frames = CLIP if segmenter.task == "clip" else 1

    def once() -> None:
        nonlocal found
        if segmenter.task == "clip":
            found = len(segment_clip(segmenter, [image] * frames, size="image"))
        else:
            found = len(segmenter.segment(image, size="image").segments)
        wait(device)

    memory = PeakMemory(device)
    for _ in range(WARM_UP):
        once()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    peak = memory.above()
    steps = {} if frames > 1 else _steps(segmenter, once, max(3, rounds // 2))
    times = np.array(seconds) * 1000 / frames
    median, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    throughput, gflops = float(1000 / times.mean()), None
    if segmenter.net is not None:
        gflops = count_flops(segmenter.net, segmenter.preprocessing.divisor, size) / 1e9
    precision = segmenter.precision
    return Timing(size, precision, rounds, median, p95, p99, throughput, peak, gflops, found, steps)


def _steps(segmenter: Segmenter, once: Callable[[], None], rounds: int) -> dict[str, float]:
    """The mean time of each step in milliseconds."""
    spent = defaultdict[str, float](float)
    last = 0.0

    def mark(step: str) -> None:
        nonlocal last
        wait(segmenter.device)
        now = time.perf_counter()
        spent[step] += now - last
        last = now

    before, segmenter.mark = segmenter.mark, mark
    try:
        for _ in range(rounds):
            last = time.perf_counter()
            once()
    finally:
        segmenter.mark = before
    return {step: 1000 * spent[step] / rounds for step in STEPS}


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was given; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """The most memory from now on: of a GPU what torch took, of a CPU the process's resident memory (Linux)."""

    def __init__(self, device: torch.device):
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._base: float | None = torch.cuda.memory_allocated(device) / 1e6
        else:
            gc.collect()
            with suppress(OSError, AttributeError):  # what was freed before, but not given back, would hide what comes
                ctypes.CDLL(None).malloc_trim(0)
            with suppress(OSError):  # where it is not allowed the peak is that of the whole run
                Path("/proc/self/clear_refs").write_text("5")
            self._base = _status("VmRSS")

    def above(self) -> float | None:
        """MB above what there was at the start; None where the system does not tell."""
        if self._device.type == "cuda":
            peak: float | None = torch.cuda.max_memory_allocated(self._device) / 1e6
        else:
            peak = _status("VmHWM")
        return None if peak is None or self._base is None else max(peak - self._base, 0.0)


def _status(name: str) -> float | None:
    """A line of the process's own status in MB."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def machine(device: torch.device) -> str:
    """What computes, in words: the GPU, or the processor and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
