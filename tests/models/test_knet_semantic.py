"""K-Net for semantic segmentation against the numbers of the original, and as a network on its own."""

import functools
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import knet
from knet.errors import CheckpointError, ConfigError
from knet.merge.semantic import ViewLogits, best_classes, look, mean_probabilities
from knet.models.semantic import KNetSemantic
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.weights.load import load_strict, read_checkpoint
from knet.weights.openmmlab_semantic import translate_semantic
from rounding import again_in_avx2, compare_exactly, in_float64

NARROW = {"channels": 256}  # K-Net's repository; mmsegmentation's UPerNets have 512
EVAL = {
    "eval_seg_fcn_r50_96x128": ("knet-fcn-r50-ade20k", {}),
    "eval_seg_pspnet_r50_96x128": ("knet-pspnet-r50-ade20k", {}),
    "eval_seg_deeplabv3_r50_96x128": ("knet-deeplabv3-r50-ade20k", {}),
    "eval_seg_upernet_r50_96x128": ("knet-upernet-r50-ade20k", {}),
    "eval_seg_upernet_r50_c256_96x128": ("knet-upernet-r50-ade20k", NARROW),
    "eval_seg_upernet_swint_96x160": ("knet-upernet-swint-ade20k", {}),
    "eval_seg_upernet_swint_c256_96x128": ("knet-upernet-swint-ade20k", NARROW),
    "eval_seg_upernet_swinl_96x128": ("knet-upernet-swinl-ade20k", {}),
}
TRAIN = {
    "train_seg_fcn_r50_96x128": "knet-fcn-r50-ade20k",
    "train_seg_upernet_swint_96x128": "knet-upernet-swint-ade20k",
}
# A bias in front of the softmax over all pixels and classes changes nothing: its gradient is rounding noise.
NO_GRADIENT = 1e-6
# The original's own float32 gradients are up to 2.6e-3 from its float64 ones; another number of threads adds to that.
GRADIENT_RTOL = 1e-2
# Where rounding moves a pixel over an edge of a mask, gradients of layers far in front of it change by more than that.
# The golden is one of the results that float32 may give: as many draws tell how far apart these are.
DRAWS, DEVIATIONS = 8, 4
MOST = 0.5  # of the gradient itself: draws that are further apart than that say nothing


def official(name: str, arguments: dict[str, Any], golden: Any, official_checkpoint: Any) -> nn.Module:
    """Our model with the weights of a golden, read from a file in the official form."""
    net = knet.create(name, **arguments)
    path = official_checkpoint(str(golden["manifest"]), int(golden["seed"]), "knet")
    load_strict(net, read_checkpoint(path).state, str(path))
    return net


def batch(*images: np.ndarray) -> Tensor:
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    return normalize_and_pad(tensors, entry("knet-fcn-r50-ade20k").preprocessing)


def sliced(values: Tensor, key: str) -> np.ndarray:
    """The part of an array that a golden holds: "name[:, ::8]" is every eighth channel."""
    _, _, part = key.partition("[")
    steps = [int(step.rpartition(":")[2] or 1) for step in part.removesuffix("]").split(",")] if part else []
    return values.numpy()[tuple(slice(None, None, step) for step in steps)]


class Case:
    """An eval golden, our model with its weights, and everything that the model computes on its image."""

    def __init__(self, golden: str, goldens: Any, official_checkpoint: Any):
        self.again = functools.partial(Case, golden, goldens, official_checkpoint)
        path = goldens.file("knet", f"{golden}.npz")
        self.data = np.load(path)
        self.manifest = json.loads((goldens / "knet" / str(self.data["manifest"])).read_text())
        self.net = official(*EVAL[golden], self.data, official_checkpoint).eval()
        self.size = self.data["image"].shape[:2]
        self.own_size = tuple(self.data["original_shape_resized"].tolist())  # of the file that the image comes from
        self.seen = {"input": batch(self.data["image"])}
        hooks = (
            self.net.backbone.register_forward_hook(
                lambda _m, _i, maps: self.seen.update({f"backbone.c{n}": c for n, c in enumerate(maps, start=2)})
            ),
            self.net.neck.fuse.register_forward_hook(lambda _m, inputs, _o: self.seen.update(head_input=inputs[0])),
        )
        with torch.no_grad():
            self.outputs = self.net(self.seen["input"])
            self.seen["aux_logits"] = self.net.auxiliary(self.seen["backbone.c4"])
        for hook in hooks:
            hook.remove()

    def predict(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(images)[-1].mask_logits


# Parts of each are in another; `test_tasks.py` has the results of deeplabv3 and of upernet_r50.
LARGE = ("swinl", "deeplabv3", "upernet_r50", "c256")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.large] if any(word in name for word in LARGE) else []) for name in EVAL
    ],
)
def case(request: pytest.FixtureRequest, goldens: Any, official_checkpoint: Any) -> Case:
    return Case(request.param, goldens, official_checkpoint)


def test_every_intermediate_array(case: Case) -> None:
    compare_exactly(compare_arrays, case)


def compare_arrays(case: Case) -> None:
    assert sum(p.numel() for p in case.net.parameters()) == case.manifest["num_parameters"]
    seen = {**case.seen, "feats": case.outputs[0].features}
    for stage, output in enumerate(case.outputs):
        seen |= {f"kernels.{stage}": output.kernels.detach(), f"logits.{stage}": output.mask_logits}
        assert output.class_logits is None
    last = case.outputs[-1].mask_logits[0]
    for name, size in (("logits_input_size", case.size), ("logits_resized", case.own_size)):
        seen[name] = torch.cat(list(ViewLogits(last, case.size, size).parts()))[None]
    compared = set()
    for key in case.data:
        name = key.partition("[")[0]
        if name in seen:
            # The original's own distance to float64; another order of summation gives up to about twice that.
            error, _largest = case.data.get(f"err/{name}", (0, 0))
            atol = max(1e-4 if name.startswith(("backbone", "input")) else 1e-3, 2 * error)
            np.testing.assert_allclose(sliced(seen[name], key), case.data[key], rtol=0, atol=atol, err_msg=key)
            compared.add(name)
    assert compared == seen.keys()


def test_classes_at_the_size_of_the_input_and_of_the_file(case: Case) -> None:
    for key, size in (("argmax", case.size), ("argmax_resized", case.own_size)):
        labels, _ = best_classes([ViewLogits(case.outputs[-1].mask_logits[0], case.size, size)])
        assert (labels.numpy() == case.data[key]).mean() >= 0.999, key


def test_several_scales_and_mirror_images(case: Case) -> None:
    scaled = [key for key in case.data if key.startswith("tta_image_")]
    if not scaled:  # the originals' run recorded it for fcn_r50 and upernet_swint alone
        pytest.skip("this golden has no test-time augmentation")
    views = [view for key in scaled for view in look(case.predict, batch(case.data[key]), case.size, flip=True)]
    assert len(views) == 12
    key = "tta_probs[:, ::10, ::4, ::4]"
    probabilities = torch.cat(list(mean_probabilities(views)))[None]
    np.testing.assert_allclose(sliced(probabilities, key), case.data[key], rtol=0, atol=1e-4)
    assert (best_classes(views)[0].numpy() == case.data["tta_argmax"]).mean() >= 0.999


def losses(outputs: list[Any], truth: Tensor) -> dict[str, Tensor]:
    """K-Net's semantic losses, plainly: cross entropy whose mean counts ignored pixels too."""

    def loss(logits: Tensor) -> Tensor:
        logits = F.interpolate(logits, truth.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, truth, ignore_index=255, reduction="none").mean()

    stages = {f"decode.loss_ce.s{s}": loss(output.mask_logits) for s, output in enumerate(outputs)}
    return {**stages, "aux.loss_ce": 0.4 * loss(outputs[0].semantic_logits)}


def prepared(golden: str, goldens: Any, official_checkpoint: Any, quiet: tuple[type[nn.Module], ...]) -> Any:
    """The golden, and its network in training but for the modules of the given kinds."""
    data = np.load(goldens / "knet" / f"{golden}.npz")
    net = official(TRAIN[golden], {"drop_path": 0.0} if "swin" in golden else {}, data, official_checkpoint).train()
    for module in net.modules():
        if isinstance(module, quiet):
            module.eval()
    truth = torch.from_numpy(np.stack([data["gt_sem_seg0"], data["gt_sem_seg1"]])).long()
    return data, net, losses(net(batch(data["image0"], data["image1"])), truth)


def check_losses(data: Any, ours: dict[str, Tensor], prefix: str) -> None:
    for key, loss in ours.items():
        assert loss.item() == pytest.approx(float(data[f"{prefix}loss/{key}"]), rel=1e-4), key
    assert sum(ours.values()).item() == pytest.approx(float(data[f"{prefix}loss_total"]), rel=1e-4)


Gradients = dict[str, tuple[int, float, Tensor]]  # name -> number of values, norm, the first 64


def gradients(net: nn.Module, losses: dict[str, Tensor]) -> Gradients:
    sum(losses.values()).backward()
    found = ((name, torch.zeros_like(p) if p.grad is None else p.grad) for name, p in net.named_parameters())
    return {name: (g.numel(), g.norm().item(), g.flatten()[:64].clone()) for name, g in found}


def check_gradients(data: Any, draws: list[Gradients], prefix: str) -> None:
    """Norms of all gradients, and the beginnings of those that the golden holds. Several `draws` differ by rounding
    errors: the golden may then lie as far from their mean as one of them would.
    """
    norms = data[f"{prefix}grad_norms"]
    official_names = list(map(str, data["grad_names"]))
    ours = {theirs: name for name, theirs in translate_semantic({key: key for key in official_names}).items()}
    compared = beginnings = 0
    for key, norm in zip(official_names, norms.tolist(), strict=True):
        if norm < NO_GRADIENT * norms.max():
            continue
        found = [draw[ours[key]] for draw in draws]
        values = np.array([value for _, value, _ in found])
        bound = min(max(GRADIENT_RTOL * norm, DEVIATIONS * values.std()), MOST * norm)
        assert values.mean() == pytest.approx(norm, rel=0, abs=bound), key
        compared += 1
        beginning = data.get(f"{prefix}grad/{key}[:64]")
        if beginning is not None:
            firsts = torch.stack([first for *_, first in found]).double().numpy()
            atol = GRADIENT_RTOL * max(np.abs(beginning).max(), norm / found[0][0] ** 0.5)
            bounds = min(max(atol, DEVIATIONS * firsts.std(0).max()), MOST / GRADIENT_RTOL * atol)
            np.testing.assert_allclose(firsts.mean(0), beginning, rtol=0, atol=bounds, err_msg=key)
            beginnings += 1
    assert compared >= len(draws[0]) - 3  # all but the last bias of each stage
    held = [key for key in data if key.startswith(f"{prefix}grad/") and "fc_mask.bias" not in key]
    assert beginnings == len(held)


def compare_gradients(run: Callable[[], Any], prefix: str) -> nn.Module:
    """Compares losses and gradients of what `run` makes: the golden's data, the network, its losses. -> the network"""

    def compare() -> nn.Module:
        data, net, ours = run()
        check_losses(data, ours, prefix)
        check_gradients(data, [gradients(net, ours)], prefix)
        return net

    for fused in (True, False):  # oneDNN's convolutions, and others that add up in another order
        with suppress(AssertionError), torch.backends.mkldnn.flags(enabled=fused):
            return compare()
    warnings.warn(f"met in {DRAWS} draws of float32, not in float32 as it is", stacklevel=2)
    draws = []  # see `rounding`
    for seed in range(DRAWS):
        with in_float64(seed):
            data, net, ours = run()
            check_losses(data, ours, prefix)
            draws.append(gradients(net, ours))
    check_gradients(data, draws, prefix)
    return net


@pytest.mark.large  # test_criterion_semantic.py has the same goldens, with the losses that training uses
@pytest.mark.parametrize("golden", list(TRAIN))
def test_losses_and_gradients(
    golden: str, goldens: Any, official_checkpoint: Any, request: pytest.FixtureRequest
) -> None:
    try:
        compare_gradients(lambda: prepared(golden, goldens, official_checkpoint, (nn.BatchNorm2d, nn.Dropout2d)), "")
    except AssertionError:
        again_in_avx2(request)


@pytest.mark.large
def test_batch_norm_with_the_batchs_own_statistics(goldens: Any, official_checkpoint: Any) -> None:
    golden = "train_seg_fcn_r50_96x128"
    data = np.load(goldens / "knet" / f"{golden}.npz")
    net = compare_gradients(lambda: prepared(golden, goldens, official_checkpoint, (nn.Dropout2d,)), "bn_train/")
    statistics = [key for key in data if key.startswith("bn_train/after/")]
    for key in statistics:
        (name,) = translate_semantic({key.removeprefix("bn_train/after/"): torch.empty(0)})
        np.testing.assert_allclose(net.get_buffer(name).numpy(), data[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert len(statistics) == 4


@pytest.mark.parametrize("name", sorted({name for name, _ in EVAL.values()} | {"knet-upernet-swinl640-ade20k"}))
@pytest.mark.parametrize("arguments", [{}, NARROW], ids=["512", "256"])
def test_official_keys_map_one_to_one_onto_the_networks(name: str, arguments: dict[str, int], goldens: Any) -> None:
    kind = "_".join(name.removeprefix("knet-").removesuffix("-ade20k").replace("swinl640", "swinl").split("-"))
    path = goldens / "knet" / f"manifest_seg_{kind}{'_c256' if arguments else ''}.json"
    if arguments and "upernet" not in name:
        assert not path.exists()  # the other heads have 512 channels in both repositories
        return
    keys: dict[str, list[int]] = json.loads(path.read_text())["keys"]
    with torch.device("meta"):
        ours = {key: tuple(tensor.shape) for key, tensor in knet.create(name, **arguments).state_dict().items()}
        theirs = translate_semantic({key: torch.empty(shape) for key, shape in keys.items()})
    assert {key: tuple(tensor.shape) for key, tensor in theirs.items()} == ours


def tiny(**arguments: Any) -> KNetSemantic:
    torch.manual_seed(0)
    options = {"classes": 5, "backbone": "timm/resnet10t", "channels": 16, "update_channels": 8, "stages": 2}
    return KNetSemantic(**{**options, "hidden": 32, **arguments})


@pytest.mark.parametrize("head", ["fcn", "pspnet", "deeplabv3", "upernet"])
def test_any_size_works_and_every_parameter_learns(head: str) -> None:
    net = tiny(head=head)
    outputs = net(torch.randn(2, 3, 70, 99))
    side = 4 if head == "upernet" else 32
    grid = tuple(-(-pixels // side) for pixels in (70, 99))
    assert [tuple(output.mask_logits.shape) for output in outputs] == [(2, 5, *grid)] * 3
    assert outputs[0].semantic_logits.shape == (2, 5, 5, 7)
    total = outputs[0].semantic_logits.square().mean()
    for output in outputs:
        total = total + (output.mask_logits * torch.randn(output.mask_logits.shape)).mean()
    total.backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]
    assert net.eval()(torch.randn(1, 3, 32, 32))[0].semantic_logits is None


def test_permuting_the_classes_permutes_everything() -> None:
    net, order = tiny().eval(), torch.tensor([3, 0, 4, 1, 2])
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = net(image)
        before[0].kernels = before[0].kernels.clone()  # the class weights themselves
        net.kernels[-1].weight.copy_(net.kernels[-1].weight[order])
        net.kernels[-1].bias.copy_(torch.arange(5.0)[order])
        after = net(image)
        net.kernels[-1].bias.zero_()
        unbiased = net(image)
        assert torch.allclose(after[0].mask_logits, before[0].mask_logits[:, order] + order[:, None, None], atol=1e-5)
        for old, new in zip(before, unbiased, strict=True):
            assert torch.allclose(new.kernels, old.kernels[:, order], atol=1e-4)
            assert torch.allclose(new.mask_logits, old.mask_logits[:, order], atol=1e-4)


def test_the_stages_start_as_the_official_code_leaves_them() -> None:
    stage = tiny(channels=512, update_channels=256).stages[0]
    weight = stage.update.from_group.weight
    assert 0.99 / 16 < weight.abs().max() <= 1 / 16  # PyTorch's own bound, the root of 1 / 256; Xavier's is 0.088
    assert stage.transform.bias.abs().max() == 0
    assert stage.transform.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)  # Kaiming's, fan out


def test_unknown_heads_and_backbones_are_named() -> None:
    with pytest.raises(ConfigError, match="no semantic head 'unet'; it is one of: fcn"):
        tiny(head="unet")
    with pytest.raises(ConfigError, match="no backbone 'vgg'"):
        tiny(backbone="vgg")


@pytest.mark.large
def test_weights_say_which_model_they_fit_and_convert_for_it(
    tmp_path: Any, goldens: Any, official_checkpoint: Any
) -> None:
    golden = np.load(goldens / "knet" / "eval_seg_deeplabv3_r50_96x128.npz")
    path = official_checkpoint(str(golden["manifest"]), int(golden["seed"]), "knet")
    with pytest.raises(CheckpointError, match=r"They fit: knet-deeplabv3-r50-ade20k\."):
        knet.load("knet-pspnet-r50-ade20k", weights=path, device="cpu")
    card = knet.convert(path, tmp_path / "knet.safetensors", "knet-deeplabv3-r50-ade20k")
    assert (card.model, len(card.categories)) == ("knet-deeplabv3-r50-ade20k", 150)
    ours, theirs = read_checkpoint(tmp_path / "knet.safetensors").state, read_checkpoint(path).state
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
