"""Networks run by torch: laid out, folded and recorded for speed."""

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields
from itertools import pairwise
from threading import Lock
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from knet.errors import ConfigError
from knet.inference.engines.engine import DTYPES
from knet.models.clip import ClipKNet, clip_result
from knet.models.kernels import exact_modules
from knet.models.network import Network
from knet.structures import Output

_logger = logging.getLogger("knet")

Run = Callable[[Tensor, Tensor | None], list[Output]]


class TorchEngine:
    """A network run by torch, set to evaluation, in the layout that is fastest on the device.

    Args:
        precision: "fp32" runs the network as it is, others by autocast.
        frozen: whether the weights will not change any more. Then half precision runs a copy with batch norms folded
            into convolutions and weights stored in half precision, and a GPU runs sizes that recur as a recorded graph.
        compile: whether torch compiles the network for each size; ConfigError at the first image if it cannot.
    """

    name = "torch"

    def __init__(
        self,
        net: Network,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        frozen: bool = False,
        compile: bool = False,
    ):
        self.device, self.precision = torch.device(device), precision
        self._frozen, self._compiled = frozen, compile
        # Channels last is the faster layout for convolutions on a CPU and for half precision on a GPU.
        self.net: Network = net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.stuff, self.embeds = net.stuff, net.embeds
        faster = frozen and precision != "fp32"
        self._ready = in_half(folded(self.net), DTYPES[precision]) if faster else self.net
        if compile:
            # Freezing lets the compiler choose the layout of the weights for the processor.
            self._ready = torch.compile(self._ready, dynamic=False, options={"freezing": frozen})
        graphs = frozen and self.device.type == "cuda"
        self._run: Run = PerSize(self._forward, record) if graphs else self._forward

    @torch.inference_mode()
    def __call__(
        self, inputs: Tensor, previous: Tensor | None = None, resized: tuple[int, int] | None = None
    ) -> list[Output]:
        """See `Engine`."""
        try:
            return self._run(inputs, previous)
        except Exception as error:
            if self._compiled and type(error).__module__.startswith("torch._"):  # one of the compiler's own
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise ConfigError(f"torch.compile does not work here ({reason}); leave compile out.") from error
            raise

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled is the network alone; what was prepared and recorded of it is made again."""
        return TorchEngine, (self.net, self.device, self.precision, self._frozen, self._compiled)

    def _forward(self, inputs: Tensor, previous: Tensor | None) -> list[Output]:
        with self.autocast():
            return self._ready(inputs) if previous is None else self._ready(inputs, previous)

    def merged(self, output: Output, score: float, overlap: float) -> None:
        """See `Engine`; a network leaves its masks to be merged."""

    @torch.inference_mode()
    def look(self, frame: Tensor) -> tuple[Tensor, ...]:
        """See `Engine`: features, kernels and mask logits."""
        with self.autocast():
            outputs, features = cast(ClipKNet, self.net).look(frame)
        return features, outputs[-1].kernels, outputs[-1].mask_logits

    @torch.inference_mode()
    def link(self, frames: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """See `Engine`."""
        tubes = [torch.stack(parts, dim=2) for parts in zip(*frames, strict=True)]
        frames.clear()
        with self.autocast():
            return clip_result(cast(ClipKNet, self.net).link(*tubes))

    @torch.inference_mode()
    def embed(self, kernels: Tensor) -> Tensor:
        """See `Engine`."""
        return self.net.embed(kernels)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which parts of the network compute in its precision."""
        half = self.precision != "fp32"
        contexts = ExitStack()
        # Weights were cast in advance: a cache would hold them twice, and cannot be recorded.
        contexts.enter_context(torch.autocast(self.device.type, DTYPES[self.precision], half, cache_enabled=False))
        if self.device.type == "cuda":  # otherwise fp32 would compute convolutions in TF32
            contexts.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=half))
        return contexts


def folded(net: nn.Module) -> nn.Module:
    """A copy of a network in evaluation, with batch norms folded into the convolutions directly before them.

    The network itself does not change, and shares with the copy what is not folded. A norm belongs to a convolution if
    it comes next in a `Sequential`, or by its name (conv1, bn1), as in all backbones here.
    """
    shared = {id(tensor): tensor for tensor in [*net.parameters(), *net.buffers()]}
    net = copy.deepcopy(net, shared)
    for module in net.modules():
        names = list(module._modules)
        if isinstance(module, nn.Sequential):
            pairs = list(pairwise(names))
        else:
            pairs = [(name, f"bn{name[4:]}") for name in names if name.startswith("conv") and f"bn{name[4:]}" in names]
        for first, second in pairs:
            conv, norm = module._modules[first], module._modules[second]
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                module._modules[first] = fuse_conv_bn_eval(conv, norm)
                module._modules[second] = nn.Identity()
    return net


def in_half(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network with the weights of convolutions and linear layers in half precision, to be run by autocast.

    Weights are replaced, so a copy that shares them keeps its own. Layers that need float32 keep it.
    """
    exact = exact_modules(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in exact:
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    return net


class PerSize:
    """A function that is prepared for each image size as soon as that comes for the second time.

    A video has one size, a folder of photos many, of which those that come once are not worth the preparation. The
    latest `most` sizes are kept prepared, as each takes memory. A size that cannot be prepared runs as it is, with a
    warning. Calls of several threads come one after the other, as a recorded graph has one place for its inputs.
    """

    def __init__(self, run: Run, prepare: Callable[[Run, Tensor, Tensor | None], Run], most: int = 4):
        self._run, self._prepare, self._most = run, prepare, most
        self._known = OrderedDict[object, Run | None]()
        self._one_at_a_time = Lock()

    def __call__(self, inputs: Tensor, previous: Tensor | None) -> list[Output]:
        """The result of `run`."""
        with self._one_at_a_time:
            return self._ready(inputs, previous)(inputs, previous)

    def _ready(self, inputs: Tensor, previous: Tensor | None) -> Run:
        """What to run inputs of this size by."""
        key = (inputs.shape, inputs.dtype, None if previous is None else previous.shape)
        if key not in self._known:
            self._known[key] = None
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return self._run
        self._known.move_to_end(key)
        ready = self._known[key]
        if ready is None:
            ready = self._known[key] = self._prepared(inputs, previous)
        return ready

    def _prepared(self, inputs: Tensor, previous: Tensor | None) -> Run:
        try:
            return self._prepare(self._run, inputs, previous)
        except RuntimeError as fault:  # something that a graph cannot hold, or too little memory for it
            reason = next(iter(str(fault).splitlines()), type(fault).__name__)
            _logger.warning("The network runs without a recorded graph here, which is slower: %s", reason)
            return self._run


def record(run: Run, inputs: Tensor, previous: Tensor | None) -> Run:
    """Records a run for inputs of these sizes as a CUDA graph, which gives copies of the first and the last output."""
    images = inputs.clone(memory_format=torch.preserve_format)
    kernels = None if previous is None else previous.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries choose algorithms in the first runs, which must not be recorded
        for _ in range(3):
            run(images, kernels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on with their work
        outputs = run(images, kernels)

    def replay(inputs: Tensor, previous: Tensor | None) -> list[Output]:
        images.copy_(inputs)
        if kernels is not None and previous is not None:
            kernels.copy_(previous)
        graph.replay()
        return [_copied(output) for output in (*outputs[:-1][:1], outputs[-1])]

    return replay


def _copied(output: Output) -> Output:
    parts = {field.name: getattr(output, field.name) for field in fields(Output)}
    return Output(**{name: part.clone() if isinstance(part, Tensor) else part for name, part in parts.items()})
