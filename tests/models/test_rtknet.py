"""RT-K-Net against the numbers of the original, through its checkpoint format, and as a network on its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import knet
from knet.errors import ConfigError
from knet.inference.segments import nearest
from knet.merge.panoptic import MergedMasks, best_class, merge_panoptic
from knet.models.realtime import RTKNet
from knet.models.zoo import ZOO
from knet.preprocess import normalize_and_pad
from knet.structures import Preprocessing, Target
from knet.training.criterion_rtknet import Criterion
from knet.weights import rtknet
from rounding import compare_exactly, exact

EVAL = {
    "eval_cityscapes_base_128x256": "rtknet-cityscapes",
    "eval_cityscapes_slim_160x320": "rtknet-slim-cityscapes",
    "eval_mapillary_base_128x256": "rtknet-mapillary",
}
TRAIN = {"train_cityscapes_base_192x384": "rtknet-cityscapes", "train_mapillary_base_256x256": "rtknet-mapillary"}
LOGITS_ATOL = 1e-3
BACKBONE = {"stem": "stem", "rt1": "stage1", "rt2": "stage2", "rt3_high": "stage3_high", "rt3_low": "stage3_low"}


class Case:
    """An eval golden, our model with its weights, and everything that the model computes on its image."""

    def __init__(self, name: str, goldens: Any, official_checkpoint: Any):
        self.made_of = name, goldens, official_checkpoint
        self.data = np.load(goldens / "rtknet" / f"{name}.npz")
        path = official_checkpoint(str(self.data["manifest"]), int(self.data["seed"]))
        self.state = torch.load(path, weights_only=True)["model"]
        self.segmenter = knet.load(EVAL[name], weights=path, device="cpu", precision="fp32")
        self.manifest = json.loads((goldens / "rtknet" / str(self.data["manifest"])).read_text())
        self.seen: dict[str, Any] = {}
        net = self.segmenter.net
        watched = {key: getattr(net.backbone, ours) for key, ours in BACKBONE.items()}
        watched |= {"4": net.backbone.stage4, "5": net.backbone.stage5, "da_ppm": net.neck.context, "neck": net.neck}
        handles = [
            module.register_forward_hook(lambda _m, _i, out, key=key: self.seen.update({key: out}))
            for key, module in watched.items()
        ]
        self.outputs = self.run([self.data["image"]])
        for handle in handles:
            handle.remove()

    def again(self) -> "Case":
        """The same, computed anew in the numbers of now."""
        return Case(*self.made_of)

    def run(self, images: list[np.ndarray]) -> list[Any]:
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        with torch.no_grad():
            return self.segmenter.net(normalize_and_pad(tensors, self.segmenter.preprocessing))

    def official_map(self, index: int, outputs: list[Any], size: tuple[int, int], score: float, overlap: float) -> Any:
        scores, labels = best_class(outputs[-1].class_logits[index])
        merged = merge_panoptic(outputs[-1].mask_logits[index], scores, labels, size, score, overlap)
        things = torch.tensor([category.thing for category in self.segmenter.categories])
        return official_ids(merged, things)


def official_ids(merged: MergedMasks, things: Tensor) -> np.ndarray:
    """The original's numbering: label * 1000 + position among the kept masks for things, label * 1000 for stuff."""
    number = torch.where(things[merged.labels], torch.arange(len(merged.labels)), 0)
    ids = merged.labels * 1000 + number
    return torch.where(merged.owner < 0, -1, ids[merged.owner]).numpy()


@pytest.fixture(scope="module", params=list(EVAL))
def case(request: pytest.FixtureRequest, goldens: Any, official_checkpoint: Any) -> Case:
    return Case(request.param, goldens, official_checkpoint)


def test_the_rebuilt_weights_are_the_goldens(case: Case) -> None:
    checked = 0
    for key, summary in case.data.items():
        if key.startswith("weights_check/"):
            w = case.state[key.removeprefix("weights_check/")].double().flatten()
            ours = [*w[:4].tolist(), w.sum().item(), w.abs().sum().item(), w.square().sum().item()]
            np.testing.assert_allclose(ours[-3:], summary[-3:], rtol=1e-6)
            checked += 1
    assert checked > 0


def test_parameters_and_every_intermediate_map(case: Case) -> None:
    assert sum(p.numel() for p in case.segmenter.net.parameters()) == case.manifest["num_parameters"]
    seen, data = case.seen, case.data
    maps = {f"backbone.{key}": seen[key] for key in BACKBONE}
    for n in "45":
        maps[f"backbone.rt{n}_high"], maps[f"backbone.rt{n}_low"] = seen[n]
    for name, ours in maps.items():
        np.testing.assert_allclose(ours[:, ::8].numpy(), data[f"{name}[:, ::8]"], atol=LOGITS_ATOL, err_msg=name)
    np.testing.assert_allclose(seen["da_ppm"][:, ::2], data["da_ppm[:, ::2]"], atol=LOGITS_ATOL)
    np.testing.assert_allclose(seen["neck"][:, ::8], data["feature_map_generator[:, ::8]"], atol=LOGITS_ATOL)
    np.testing.assert_allclose(case.outputs[0].features[:, ::2], data["feature_map[:, ::2]"], atol=LOGITS_ATOL)


def test_kernels_masks_and_classes_of_every_stage(case: Case) -> None:
    compare_exactly(compare_stages, case)


def compare_stages(case: Case) -> None:
    compared = 0
    for stage, output in enumerate(case.outputs):
        kinds = {"kernels": output.kernels, "mask_logits": output.mask_logits, "cls_logits": output.class_logits}
        for key in case.data:
            name, _, part = key.partition(f".{stage}")
            if name in kinds and part in ("", "[:, ::2]"):
                ours = kinds[name][:, ::2] if part else kinds[name]
                np.testing.assert_allclose(ours.numpy(), case.data[key], atol=LOGITS_ATOL, err_msg=key)
                compared += 1
    assert compared == 14  # five kernels and mask logits, four class logits


def test_panoptic_maps(case: Case) -> None:
    height, width = case.data["image"].shape[:2]
    for (score, overlap), expected in zip(case.data["panoptic_thresholds"], case.data["panoptic"], strict=True):
        ours = case.official_map(0, case.outputs, (height, width), float(score), float(overlap))
        assert (ours == expected).mean() >= 0.999
    score, overlap = case.data["panoptic_config_thresholds"].tolist()
    assert (case.segmenter.score, case.segmenter.overlap) == pytest.approx((score, overlap))
    ours = case.official_map(0, case.outputs, (height, width), score, overlap)
    assert (ours == case.data["panoptic_config"]).mean() >= 0.999
    resized = nearest(torch.from_numpy(ours), (2 * height - 7, int(1.5 * width))).numpy()
    assert (resized == case.data["panoptic_config_resized"]).mean() >= 0.999


def test_a_batch_of_unlike_sizes(case: Case) -> None:
    images = [case.data["image"], case.data["batch_image1"]]
    outputs = case.run(images)
    for index, image in enumerate(images):
        ours = case.official_map(index, outputs, image.shape[:2], case.segmenter.score, case.segmenter.overlap)
        assert (ours == case.data[f"batch_panoptic{index}"]).mean() >= 0.999


def test_the_segmenter_gives_the_same_segments(case: Case) -> None:
    result = case.segmenter(case.data["image"], size="image")
    expected = case.data["panoptic_config"]
    ids = [category.id for category in case.segmenter.categories]
    category_map = np.where(expected < 0, -1, np.array(ids)[expected.clip(0) // 1000])
    assert (result.semantic_map() == category_map).mean() >= 0.999
    assert len(result.segments) == len(set(np.unique(expected)) - {-1})


@pytest.mark.parametrize("name", list(TRAIN))
@exact
def test_losses_matches_and_gradients(name: str, goldens: Any, official_checkpoint: Any) -> None:
    data = np.load(goldens / "rtknet" / f"{name}.npz")
    net = knet.create(TRAIN[name])
    path = official_checkpoint(str(data["manifest"]), int(data["seed"]))
    net.load_state_dict(rtknet.translate(torch.load(path, weights_only=True)["model"]))
    for module in net.train().modules():  # the golden: train mode, but batch norm in eval and drop path off
        if type(module).__name__ in ("BatchNorm2d", "StochasticDepth"):
            module.eval()
    images = [torch.from_numpy(data[f"image{b}"]).permute(2, 0, 1) for b in (0, 1)]
    targets = []
    for b in (0, 1):
        id_map = np.zeros(data[f"ids{b}"].shape, np.int64)
        for number, value in enumerate(data[f"mask_ids{b}"], start=1):
            id_map[data[f"ids{b}"] == value] = number
        targets.append(Target(torch.from_numpy(id_map), torch.from_numpy(data[f"labels{b}"])))
    outputs = net(normalize_and_pad(images, Preprocessing(0, 0)))
    criterion = Criterion()

    truth = criterion.prepare(outputs, targets)
    for stage, matches in enumerate(criterion.match(outputs, truth), start=1):
        for b, match in enumerate(matches):
            np.testing.assert_array_equal(torch.stack(tuple(match)).numpy(), data[f"match/s{stage}/image{b}"])

    losses = criterion(outputs, targets, torch.from_numpy(data["uniform_noise"]))
    expected = {key.removeprefix("loss/"): float(data[key]) for key in data if key.startswith("loss/")}
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4), key
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(float(data["loss_total"]), rel=1e-4)

    total.backward()
    gradients = {key: parameter.grad for key, parameter in net.named_parameters()}
    norms = dict(zip(map(str, data["grad_names"]), data["grad_norms"].tolist(), strict=True))
    assert len(norms) == len(gradients)
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    assert sum(g.norm().item() ** 2 for g in gradients.values()) ** 0.5 == pytest.approx(whole, rel=2.5e-2)
    for key, norm in norms.items():
        # The bias in front of a softmax over pixels changes nothing: its gradient is rounding noise around zero.
        assert gradients[rtknet.rename(key)].norm().item() == pytest.approx(norm, rel=2.5e-2, abs=1e-6), key
    for key in data:
        if key.startswith("grad/"):
            name_, _, _ = key.removeprefix("grad/").partition("[")
            ours = gradients[rtknet.rename(name_)].flatten()[:64].numpy()
            np.testing.assert_allclose(ours, data[key].ravel(), atol=2.5e-2 * np.abs(data[key]).max() + 1e-7)


def test_official_keys_map_one_to_one_onto_the_networks(goldens: Any) -> None:
    for manifest, name in (
        ("manifest_cityscapes_base.json", "rtknet-cityscapes"),
        ("manifest_cityscapes_slim.json", "rtknet-slim-cityscapes"),
        ("manifest_mapillary_base.json", "rtknet-mapillary"),
    ):
        keys = json.loads((goldens / "rtknet" / manifest).read_text())["keys"]
        assert {rtknet.rename(key) for key in keys} == set(knet.create(name).state_dict())


def test_class_order_is_the_originals(goldens: Any) -> None:
    meta = json.loads((Path(goldens / "rtknet") / "datasets_meta.json").read_text())
    for model, dataset in (
        ("rtknet-cityscapes", "cityscapes_fine_panoptic_val"),
        ("rtknet-mapillary", "mapillary_vistas_panoptic_val"),
    ):
        from knet.data.categories import load_categories

        categories = load_categories(ZOO[model].categories)
        things = meta[dataset]["thing_dataset_id_to_contiguous_id"]
        stuff = meta[dataset]["stuff_dataset_id_to_contiguous_id"]
        for id_, label in {**stuff, **things}.items():
            assert categories[label].id == int(id_)
            assert categories[label].thing == (id_ in things)


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_any_padded_size_works_and_every_parameter_learns(size: tuple[int, int]) -> None:
    net = RTKNet(classes=3, kernels=5, stages=2, width=8, head_width=16, channels=16, drop_path=0.0)
    outputs = net(torch.randn(2, 3, *size))
    assert outputs[-1].mask_logits.shape == (2, 5, size[0] // 8, size[1] // 8)
    assert outputs[0].semantic_logits.shape == (2, 3, size[0] // 8, size[1] // 8)
    total = sum(
        o.mask_logits.square().mean() + (o.class_logits.square().mean() if o.class_logits is not None else 0)
        for o in outputs
    )
    (total + outputs[0].semantic_logits.square().mean()).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]
    assert net.eval()(torch.randn(1, 3, *size))[0].semantic_logits is None


def test_stuff_with_kernels_of_its_own_comes_last_and_starts_from_the_semantic_head() -> None:
    small = {"kernels": 5, "stages": 2, "width": 8, "head_width": 16, "channels": 16, "drop_path": 0.0}
    net = RTKNet(classes=4, stuff=[0, 2], **small)
    seen = []
    net.decoder.stages[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs))
    outputs = net(torch.randn(2, 3, 32, 64))
    assert [o.mask_logits.shape[1] for o in outputs] == [5, 7, 7]
    _, kernels, mask_logits = seen[0]
    weights = net.semantic[-1].weight.flatten(1)
    assert torch.equal(kernels[:, 5:], weights[[0, 2]].expand(2, -1, -1))
    assert torch.equal(mask_logits[:, 5:], outputs[0].semantic_logits[:, [0, 2]])
    sum(o.mask_logits.square().mean() for o in outputs[1:]).backward()
    assert not weights.isnan().any() and net.semantic[-1].weight.grad[[0, 2]].abs().sum() > 0
    last = net.eval()(torch.randn(1, 3, 32, 64))
    assert last[-1].class_logits.shape == (1, 7, 4) and last[0].semantic_logits is None
    # With merged kernels nothing else is in a file of weights: one fits the other.
    assert RTKNet(classes=4, **small).state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"stuff": [0], "auxiliary": False}, "set auxiliary to true"), ({"stuff": [3]}, r"stuff labels \[3\] are not")],
)
def test_kernels_of_stuff_that_cannot_be(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RTKNet(classes=3, width=8, head_width=16, channels=16, **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_gpu_and_cpu_agree(goldens: Any, official_checkpoint: Any) -> None:
    case = Case("eval_cityscapes_slim_160x320", goldens, official_checkpoint)
    image = case.data["image"]
    here = case.segmenter(image, size="image")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    path = official_checkpoint(str(case.data["manifest"]), int(case.data["seed"]))
    there = knet.load("rtknet-slim-cityscapes", weights=path, device="cuda", precision="fp32")(image, size="image")
    assert (here.semantic_map() == there.semantic_map()).mean() >= 0.999
