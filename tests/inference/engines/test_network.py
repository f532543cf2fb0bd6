"""What runs a network: equal results whatever was folded, cast or recorded, and weights that stay as they were."""

from __future__ import annotations

import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import knet
from knet.errors import ConfigError
from knet.inference import load as loading
from knet.inference.engines.network import PerSize, TorchEngine, folded, in_half, record
from knet.inference.load import choose_precision, fast_in_bf16
from knet.models.network import Network
from knet.models.realtime import RTKNet
from knet.preprocess import normalize_and_pad, uploaded
from knet.structures import Output, Preprocessing

CPU = torch.device("cpu")
SMALL: dict[str, dict[str, Any]] = {  # of every kind of network and backbone, as small as they get
    "rtknet-cityscapes": {"width": 8, "head_width": 16, "channels": 16, "kernels": 5, "stages": 2},
    "knet-r50-coco-panoptic": {"channels": 32, "kernels": 6, "stages": 1},
    "knet-r101dcn-coco-instance": {"channels": 32, "kernels": 6, "stages": 1},
    "knet-upernet-r50-ade20k": {"channels": 16, "update_channels": 8, "hidden": 32, "stages": 1},
    "knet-upernet-swint-ade20k": {"channels": 16, "update_channels": 8, "hidden": 32, "stages": 1},
    "rt-video-knet-slim-kitti-step": {"width": 8, "head_width": 16, "channels": 16, "kernels": 5, "stages": 2},
}


def network(name: str) -> Network:
    """With norms that do something."""
    torch.manual_seed(0)
    net = knet.create(name, **SMALL[name]).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                tensor.data.normal_(0, 0.2)
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.6, 1.6)
    return net


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_folding_changes_nothing_but_rounding_and_leaves_the_network_alone(name: str) -> None:
    net, images = network(name), torch.randn(1, 3, 64, 96)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    quick = folded(net)
    kept, left = (sum(type(m) is nn.BatchNorm2d for m in n.modules()) for n in (net, quick))
    assert left < kept or not kept
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    # The first masks: hard masks magnify rounding in all that follow.
    ours, theirs = (n(images)[0].mask_logits for n in (net, quick))
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()
    assert {id(p) for p in quick.parameters()} & {id(p) for p in net.parameters()}  # the rest is shared


def test_weights_in_half_are_the_weights_that_autocast_makes() -> None:
    net, images = network("rtknet-cityscapes"), torch.randn(1, 3, 64, 96)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    live = TorchEngine(net, CPU, "bf16")
    expected = live(images)[-1]
    half = TorchEngine(net, CPU, "bf16")
    half._ready = in_half(folded(net), torch.bfloat16)
    assert half._ready.decoder.stages[0].update.out.weight.dtype == torch.bfloat16  # type: ignore[union-attr,index]
    assert half._ready.decoder.kernels.dtype == torch.float32  # type: ignore[union-attr]
    close = half(images)[-1]
    assert close.mask_logits.shape == expected.mask_logits.shape
    assert (close.class_logits - expected.class_logits).abs().max() < 0.1  # type: ignore[operator]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_frozen_engine_in_fp32_is_the_network_as_written() -> None:
    net, images = network("rtknet-cityscapes"), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = net.to(memory_format=torch.channels_last)(images)[-1]  # type: ignore[call-overload]
    found = TorchEngine(net, CPU, "fp32", frozen=True)(images)[-1]
    assert torch.equal(found.mask_logits, expected.mask_logits)


def test_an_engine_that_is_not_frozen_follows_its_weights() -> None:
    net, images = network("rtknet-cityscapes"), torch.randn(1, 3, 64, 96)
    engine = TorchEngine(net, CPU, "bf16")
    before = engine(images)[-1].class_logits
    with torch.no_grad():
        net.decoder.stages[-1].to_class[-1].bias.add_(3)  # type: ignore[union-attr,index,operator]
    after = engine(images)[-1].class_logits
    assert before is not None and after is not None
    assert float((after - before).mean()) == pytest.approx(3, abs=0.05)


def test_what_an_engine_tells_of_its_network() -> None:
    plain, linked = network("rtknet-cityscapes"), network("rt-video-knet-slim-kitti-step")
    assert not TorchEngine(plain).embeds and list(TorchEngine(plain).stuff) == []
    engine = TorchEngine(linked, CPU, "bf16", frozen=True)
    assert engine.embeds and engine.net is linked
    images = torch.randn(1, 3, 64, 96)
    first = engine(images)[-1]
    second = engine(images, first.kernels)[-1]
    assert second.kernels.shape == first.kernels.shape
    embedded = engine.embed(first.linked[0])  # type: ignore[index]
    assert embedded.dtype == torch.float32 and len(embedded) == first.kernels.shape[1]


class Recorder:
    """Counts what is run plainly and what is prepared, in place of CUDA graphs."""

    def __init__(self) -> None:
        self.plain, self.prepared, self.replayed = 0, list[tuple[int, ...]](), 0

    def run(self, inputs: Tensor, previous: Tensor | None) -> list[Output]:
        self.plain += 1
        return [Output(inputs, inputs, None, inputs)]

    def prepare(self, run: Any, inputs: Tensor, previous: Tensor | None) -> Any:
        self.prepared.append((*inputs.shape, previous is not None))

        def replay(inputs: Tensor, previous: Tensor | None) -> list[Output]:
            self.replayed += 1
            return [Output(inputs, inputs, None, inputs)]

        return replay


def test_only_sizes_that_come_again_are_prepared_and_the_latest_are_kept() -> None:
    recorder = Recorder()
    run = PerSize(recorder.run, recorder.prepare, most=2)
    sizes = {name: torch.zeros(1, 3, 32, 32 * n) for n, name in enumerate("abcd", start=1)}
    for name in "abcd":  # a folder of photos
        run(sizes[name], None)
    assert (recorder.plain, recorder.prepared) == (4, [])
    for _ in range(3):
        assert run(sizes["d"], None)[0].kernels is sizes["d"]
    assert (recorder.plain, recorder.replayed, len(recorder.prepared)) == (4, 3, 1)
    run(sizes["d"], torch.zeros(1, 5, 8))  # with the frame before it is another graph
    assert (recorder.plain, len(recorder.prepared)) == (5, 1)
    for name in "ab":
        run(sizes[name], None)
    run(sizes["d"], None)  # forgotten meanwhile: memory is bounded
    assert (recorder.plain, recorder.replayed, len(run._known)) == (8, 3, 2)


def test_a_size_that_cannot_be_recorded_runs_as_it_is_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def fail(run: Any, inputs: Tensor, previous: Tensor | None) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    run, images = PerSize(recorder.run, fail), torch.zeros(1, 3, 32, 32)
    for _ in range(4):
        assert run(images, None)[0].kernels is images
    assert recorder.plain == 4
    (warning,) = caplog.messages
    assert warning.endswith(
        "without a recorded graph here, which is slower: operation not permitted when stream is capturing"
    )


def test_threads_come_one_after_the_other_to_a_recorded_graph() -> None:
    """Which has one place for its inputs, and one for its outputs."""

    def record(run: Any, inputs: Tensor, previous: Tensor | None) -> Any:
        place = inputs.clone()

        def replay(inputs: Tensor, previous: Tensor | None) -> list[Output]:
            place.copy_(inputs)
            time.sleep(0.001)
            return [Output(place.clone(), place, None, place)]

        return replay

    run = PerSize(lambda inputs, previous: [Output(inputs, inputs, None, inputs)], record)
    images = [torch.full((1, 3, 8, 8), float(number)) for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: run(image, None)[0].kernels, images))
    assert all(torch.equal(a, b) for a, b in zip(found, images, strict=True))


def test_auto_precision_is_bf16_for_rtknet_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rtknet, other = network("rtknet-cityscapes"), network("knet-r50-coco-panoptic")
    assert isinstance(rtknet, RTKNet)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    assert fast_in_bf16(CPU)
    assert (choose_precision("auto", CPU, rtknet), choose_precision("auto", CPU, other)) == ("bf16", "fp32")
    assert choose_precision("fp32", CPU, rtknet) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_precision("auto", CPU, rtknet) == "fp32"
    assert not fast_in_bf16(torch.device("mps"))
    with pytest.raises(ConfigError, match="'int8' is not one of: auto, fp32, bf16, fp16"):
        choose_precision("int8", CPU, rtknet)


def test_load_passes_on_what_it_chose(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "fast_in_bf16", lambda device: True)
    segmenter = knet.load(tiny_weights, device="cpu")
    assert segmenter.precision == "bf16" and segmenter.engine.name == "torch"
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert segmenter(image).id_map.shape == (64, 96)


def test_where_nothing_can_be_compiled_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    def broken(_net: Any, **_options: Any) -> Any:
        def run(*_inputs: Any) -> Any:
            raise InvalidCxxCompiler

        return run

    monkeypatch.setattr(torch, "compile", broken)
    engine = TorchEngine(network("rtknet-cityscapes"), compile=True)
    with pytest.raises(ConfigError, match=r"torch\.compile does not work here \(.+\); leave compile out"):
        engine(torch.randn(1, 3, 64, 96))


@pytest.mark.large
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_a_compiled_network_says_what_it_said() -> None:
    net, images = network("rtknet-cityscapes"), torch.randn(1, 3, 64, 96)
    expected = TorchEngine(net, CPU)(images)[0].mask_logits
    for frozen in (False, True):
        found = TorchEngine(net, CPU, frozen=frozen, compile=True)(images)[0].mask_logits
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalising_is_that_of_the_formula_to_the_bit(form: torch.memory_format, dtype: torch.dtype) -> None:
    p = Preprocessing(0, 0)
    images = [torch.randint(0, 256, (3, h, w)).to(dtype) for h, w in ((20, 41), (33, 10))]
    batch = normalize_and_pad(images, p, least=(1, 70), memory_format=form)
    assert batch.shape == (2, 3, 64, 96) and batch.is_contiguous(memory_format=form)
    mean, std = torch.tensor(p.mean)[:, None, None], torch.tensor(p.std)[:, None, None]
    for row, image in zip(batch, images, strict=True):
        expected = torch.zeros(3, 64, 96)
        expected[:, : image.shape[1], : image.shape[2]] = (image.float() - mean) / std
        assert torch.equal(row, expected)


def test_images_of_others_are_not_touched() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image.flags.writeable = False
    for given in (image, image[:, ::-1], np.asfortranarray(image)):
        assert (uploaded(given, CPU).numpy() == given).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_recorded_graphs_give_what_plain_runs_give(precision: str) -> None:
    device = torch.device("cuda")
    engine = TorchEngine(network("rt-video-knet-slim-kitti-step"), device, precision, frozen=True)
    images = torch.randn(3, 1, 3, 64, 96, device=device)
    plain = [engine._forward(image, None)[-1].mask_logits for image in images]
    kernels = engine(images[0])[-1].kernels
    recorded = [engine(image) for image in images]  # from the second on
    again = [engine(image)[-1].mask_logits for image in images]
    tolerance = 1e-4 if precision == "fp32" else 0.05
    for one, outputs, last in zip(plain, recorded, again, strict=True):
        scale = float(one.abs().max())
        assert (one - outputs[-1].mask_logits).abs().max() <= tolerance * scale
        assert torch.equal(outputs[-1].mask_logits, last)  # and is not overwritten by the next image
    linked = [engine(image, kernels)[-1].kernels for image in images]
    assert all(torch.isfinite(k).all() for k in linked)


def test_fp32_on_a_gpu_is_not_tf32() -> None:
    """Which cuDNN takes for convolutions unless it is told not to."""
    for precision, allowed in (("fp32", False), ("bf16", True)):
        engine = TorchEngine(network("rtknet-cityscapes"), CPU, precision)
        engine.device = torch.device("cuda")  # nothing is run there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is none
            context = engine.autocast()
        with context:
            assert torch.backends.cudnn.allow_tf32 == allowed


def test_what_a_recorded_graph_gave_is_not_overwritten_by_the_next_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph has one place for its outputs; here one that is replayed by hand."""
    places = [torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 4)]
    given: list[Any] = []

    def run(inputs: Tensor, previous: Tensor | None) -> list[Output]:
        given[:] = inputs, previous
        places[0].fill_(float(inputs.mean()) + (0.0 if previous is None else float(previous.mean())))
        places[1].fill_(-float(inputs.mean()))
        return [Output(places[0], places[1], None, places[1], linked=places[0])]

    class Graph:
        def replay(self) -> None:
            run(*given)

    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    image, kernels = torch.full((1, 3, 4, 4), 5.0), torch.full((1, 2, 3), 7.0)
    replay = record(run, image, kernels)
    assert given[0] is not image and given[1] is not kernels  # the graph's own, which later images are copied to
    first = replay(torch.ones(1, 3, 4, 4), torch.full((1, 2, 3), 10.0))[-1]
    second = replay(torch.full((1, 3, 4, 4), 2.0), torch.full((1, 2, 3), 20.0))[-1]
    for output, level in ((first, 1.0), (second, 2.0)):
        linked, masks = output.linked, output.mask_logits
        assert linked is not None and (output.kernels == 11 * level).all() and (linked == 11 * level).all()
        assert (masks == -level).all() and (output.features == -level).all()
    assert (image == 5).all() and (kernels == 7).all()
