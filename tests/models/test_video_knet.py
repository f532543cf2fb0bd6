"""Video K-Net against the numbers of the original, frame by frame, and its real-time form as a network."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import knet
from knet.errors import ConfigError
from knet.models.image import KNet
from knet.models.kernels import Link, LinkedStage
from knet.models.realtime import RTKNet
from knet.models.video import RTVideoKNet, VideoKNet
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.weights import openmmlab, video_knet
from knet.weights.load import load_strict, read_checkpoint
from rounding import compare_exactly

R50, SWIN, VIPSEG = "video-knet-r50-kitti-step", "video-knet-swinb-kitti-step", "video-knet-r50-vipseg"
CASES = [
    pytest.param((R50, "r50", "vk_r50_eval_seed26_120x372")),
    pytest.param((R50, "r50", "vk_r50_eval_seed1_128x384"), marks=pytest.mark.large),
    pytest.param((R50, "r50", "vk_r50_eval_seed5_128x384"), marks=pytest.mark.large),
    pytest.param((SWIN, "swinb", "vk_swinb_eval_seed32_128x384"), marks=pytest.mark.large),
    pytest.param((VIPSEG, "vipseg_r50", "vk_vipseg_r50_eval_seed41_128x384"), marks=pytest.mark.large),
    pytest.param(("knet-r50-cityscapes-step", "knet_citystep_r50", "knet_citystep_r50_seed112_120x250")),
    pytest.param(
        ("knet-r50-cityscapes-step", "knet_citystep_r50", "knet_citystep_r50_seed111_128x256"), marks=pytest.mark.large
    ),
]
KERNELS, LOGITS = 2e-4, 1e-3  # the README of the goldens


class Case:
    """A golden, our model with its weights, and what the model says of each frame under the golden's names."""

    def __init__(self, model: str, manifest: str, golden: str, goldens: Any, official_checkpoint: Any):
        self.again = functools.partial(Case, model, manifest, golden, goldens, official_checkpoint)
        self.data = np.load(goldens.file("video_knet", f"{golden}.npz"))
        self.info = json.loads(bytes(self.data["info"]))
        self.row, self.net = entry(model), knet.create(model).eval()
        checkpoint = official_checkpoint(f"manifest_{manifest}.json", self.info["seed"], "video_knet")
        load_strict(self.net, read_checkpoint(checkpoint).state, str(checkpoint))
        self.video = isinstance(self.net, VideoKNet)
        self.images = self.data["images"] if self.video else self.data["image"][None]
        self.frames: list[dict[str, Tensor]] = []
        self.outputs: list[Any] = []
        previous = None
        for image in self.images:
            self.frames.append(self.look(image, previous))
            previous = self.outputs[-1].kernels

    def look(self, image: np.ndarray, previous: Tensor | None) -> dict[str, Tensor]:
        net: Any = self.net
        seen: dict[str, Tensor] = {}

        def first_inputs(_module: Any, inputs: Any, _out: Any) -> None:
            seen.update(zip(("x_feats", "proposal_feats", "rpn_mask_logits"), inputs, strict=True))

        def semantics(_module: Any, _inputs: Any, out: Tensor) -> None:
            seen["seg_logits"] = out

        handles = [
            net.decoder.stages[0].register_forward_hook(first_inputs),
            net.semantic.register_forward_hook(semantics),
        ]
        batch = normalize_and_pad([torch.from_numpy(image).permute(2, 0, 1)], self.row.preprocessing)
        self.padded = (batch.shape[2], batch.shape[3])
        with torch.no_grad():
            outputs = net(batch, previous) if self.video else net(batch)
        for handle in handles:
            handle.remove()
        for number, output in enumerate(outputs[1:]):
            seen[f"s{number}_object_feats"] = output.kernels
            seen[f"s{number}_cls_logits"] = output.class_logits
            seen[f"s{number}_mask_logits"] = output.mask_logits
        if previous is not None:
            seen["linked_feats"] = outputs[-1].linked
        self.outputs.append(outputs[-1])
        return {name: tensor[0] for name, tensor in seen.items()}


@pytest.fixture(scope="module")
def cases(goldens: Any, official_checkpoint: Any) -> Callable[[tuple[str, str, str]], Case]:
    """(model, manifest, golden) -> its case, made once."""
    return functools.lru_cache(1)(lambda names: Case(*names, goldens, official_checkpoint))


@pytest.fixture(params=CASES, ids=lambda names: names[2], scope="module")
def case(request: pytest.FixtureRequest, cases: Any) -> Case:
    return cases(request.param)


def test_every_intermediate_array(case: Case) -> None:
    compare_exactly(compare_arrays, case)


def compare_arrays(case: Case) -> None:
    compared = set()
    for t, seen in enumerate(case.frames):
        prefix = f"f{t}_" if case.video else ""
        for name, ours in seen.items():
            for key in case.data:
                if key.startswith(prefix) and key.removeprefix(prefix).partition("_every")[0] == name:
                    bound = LOGITS if name.endswith("logits") else KERNELS
                    # Sums over hundreds of pixels: float32 keeps seven digits of them.
                    relative = 1e-5 if name in ("proposal_feats", "x_feats") else 0
                    found = ours[:: -(-len(ours) // len(case.data[key]))].numpy()  # some hold every 4th channel or so
                    np.testing.assert_allclose(found, case.data[key], rtol=relative, atol=bound, err_msg=key)
                    compared.add(name)
    stages = {f"s{s}_{kind}" for s in range(3) for kind in ("object_feats", "cls_logits")}
    assert compared >= (stages | {"x_feats", "proposal_feats", "seg_logits", "linked_feats"} if case.video else stages)


def test_embeddings_of_the_kept_things(case: Case) -> None:
    if not case.video:
        pytest.skip("an image model has no embeddings")
    net: Any = case.net
    for t, output in enumerate(case.outputs):
        segments = case.info["frames"][t]["segments"]
        kept = [segment["instance_id"] for segment in segments if segment["isthing"]]
        things = len(entry_things(case))
        kernels = output.linked[0][flattened_kernels(output.class_logits[0], net.stuff, things)[kept]]
        with torch.no_grad():
            embeddings, inner = net.embed(kernels), net.embedding[0](kernels)
        for name, ours in (("thing_kernels", kernels), ("pre_track", inner), ("track_embeds", embeddings)):
            np.testing.assert_allclose(ours.numpy(), case.data[f"f{t}_{name}"], rtol=0, atol=KERNELS, err_msg=name)


def entry_things(case: Case) -> list[int]:
    return [label for label in range(case.row.arguments["classes"]) if label not in set(case.row.arguments["stuff"])]


def flattened_kernels(class_logits: Tensor, stuff: list[int], things: int) -> Tensor:
    """The kernel of each of the 100 best pairs of kernel and thing class, which the original numbers its things by."""
    logits = class_logits[: len(class_logits) - len(stuff), :things]
    return logits.sigmoid().flatten().topk(100).indices // things


@pytest.mark.parametrize(
    ("manifest", "name", "unused"),
    [
        ("r50", R50, r"mask_head\.[01]\.(attention_previous|link_ffn)"),
        ("r50_fpn8", R50, r"mask_head\.[01]\.(attention_previous|link_ffn)|neck\.fpn_convs\.[4-7]\."),
        ("swinb", SWIN, r"mask_head\.[01]\.(attention_previous|link_ffn)"),
        ("vipseg_r50", VIPSEG, r"mask_head\.[01]\.(attention_previous|link_ffn)"),
        ("knet_citystep_r50", "knet-r50-cityscapes-step", "none"),
    ],
)
def test_official_keys_map_one_to_one_onto_the_networks(manifest: str, name: str, unused: str, goldens: Any) -> None:
    keys: dict[str, list[int]] = json.loads((Path(goldens / "video_knet") / f"manifest_{manifest}.json").read_text())
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in keys.items()}
        ours = {key: tuple(tensor.shape) for key, tensor in knet.create(name).state_dict().items()}
    translate = (
        video_knet.translate_video if any(key.startswith("track_head.") for key in keys) else openmmlab.translate_image
    )
    renamed = translate(state)
    assert {key: tuple(tensor.shape) for key, tensor in renamed.items()} == ours
    # Nothing is lost but what the original never reads, and each of our tensors comes from one of its.
    used = {key for key, tensor in state.items() if any(tensor is mine for mine in renamed.values())}
    # These are copied: the first loses two axes, the second's inputs change order.
    used |= {key for key in keys if re.match(r"rpn_head\.init_kernels|backbone\.layers\.\d\.downsample", key)}
    assert {key for key in keys if re.search(unused, key)} == keys.keys() - used
    assert len(used) == len(renamed)


@pytest.mark.parametrize("seed", [300, 301, 302])
def test_linked_stages_are_the_originals(seed: int, goldens: Any, fill_torch: Any) -> None:
    path = next(Path(goldens / "video_knet").glob(f"link_head_*_seed{seed}.npz"))
    data = np.load(path)
    info = json.loads(bytes(data["info"]))
    from_kernels = info["previous_type"] == "update_obj"  # in no configuration: the link adapts to kernels instead
    kind: Any = "attention" if info["previous_type"] == "ffn" else "update"
    stage = LinkedStage(
        info["channels"], 7, "sum", True, info["feedforward"], link=kind, fusion=info["previous_link"] is not None
    )
    if info["previous_link"] == "link_atten":
        stage.fusion = Link(info["channels"], info["feedforward"])
    state = fill_torch(info["manifest"], info["seed"], "video")
    whole = {f"roi_head.mask_head.0.{key}".replace("_track_obj.", "_track."): value for key, value in state.items()}
    ours = video_knet.translate_video(whole)
    load_strict(stage, {key.removeprefix("decoder.stages.0."): value for key, value in ours.items()}, path.name)
    stage.eval()
    if from_kernels:
        made: list[Tensor] = []
        stage.interaction.register_forward_hook(lambda _m, _i, out: made.append(out))
        stage.link.register_forward_pre_hook(lambda _m, inputs: (*inputs[:2], made[-1]))
    features, masks = torch.from_numpy(data["x"]), torch.from_numpy(data["mask_logits"])
    masks = torch.nn.functional.interpolate(masks, features.shape[2:], mode="bilinear")
    kernels, previous = (torch.from_numpy(data[name])[..., 0, 0] for name in ("kernels", "previous"))
    for when, memory in (("first", None), ("next", previous)):
        with torch.no_grad():
            found, mask_logits, class_logits, _, linked = stage(features, kernels, masks, memory)
        expected = {"cls": class_logits, "mask": mask_logits, "object_feats": found}
        if memory is None:
            assert torch.equal(linked, found)
        else:
            expected["track_feats"] = linked
        for name, array in expected.items():
            golden = data[f"{when}_{name}"]
            np.testing.assert_allclose(array.numpy(), golden.reshape(array.shape), rtol=0, atol=2e-5, err_msg=name)


def tiny_video(**arguments: Any) -> VideoKNet:
    torch.manual_seed(0)
    options = {"classes": 5, "stuff": [1, 4], "backbone": "timm/resnet10t", "kernels": 6, "stages": 2, "channels": 64}
    return VideoKNet(**{**options, **arguments})


def tiny_real_time(**arguments: Any) -> RTVideoKNet:
    torch.manual_seed(0)
    return RTVideoKNet(
        **{"classes": 5, "kernels": 6, "stages": 2, "width": 8, "head_width": 16, "channels": 32} | arguments
    )


NETS = [
    pytest.param(tiny_video, id="attention"),
    pytest.param(lambda: tiny_video(link="update", fusion=True), id="fusion"),
    pytest.param(tiny_real_time, id="rt-attention"),
    pytest.param(lambda: tiny_real_time(link="linear"), id="rt-linear"),
    pytest.param(lambda: tiny_real_time(link="linear", stuff=(0, 1)), id="rt-linear-stuff"),
]


@pytest.mark.parametrize("make", NETS)
def test_every_parameter_learns_and_the_link_reaches_the_frame_before(make: Any) -> None:
    net = make()
    frames = torch.randn(2, 2, 3, 64, 96)
    before = net(frames[0])
    before[-1].kernels.retain_grad()
    outputs = net(frames[1], before[-1].kernels)
    assert [output.linked is not None for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert net.embed(outputs[-1].linked).shape == outputs[-1].kernels.shape
    if isinstance(net, RTVideoKNet):  # a closed link hands nothing back
        with torch.no_grad():
            gate = net.decoder.link.gate if net.decoder.link is not None else net.decoder.carry.weight
            gate.add_(0.01)
        outputs = net(frames[1], before[-1].kernels)
    total = net.embed(outputs[-1].linked).square().mean()
    for output in outputs:
        for tensor in (output.mask_logits, output.class_logits, output.semantic_logits):
            if tensor is not None:
                total = total + tensor.square().mean()
    total.backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]
    assert before[-1].kernels.grad.abs().sum() > 0


@pytest.mark.parametrize("make", NETS)
def test_nothing_stays_in_the_network_between_frames(make: Any) -> None:
    net = make().eval()
    image, other = torch.randn(2, 1, 3, 64, 96)
    with torch.no_grad():
        first = net(image)[-1]
        net(other, torch.randn_like(first.kernels))
        again = net(image)[-1]
    assert torch.equal(first.linked, first.kernels)
    assert torch.equal(first.mask_logits, again.mask_logits)


@pytest.mark.parametrize(("make", "depends"), [(tiny_video, False), (lambda: tiny_video(fusion=True), True)])
def test_masks_depend_on_the_frame_before_by_fusion_alone(make: Any, depends: bool) -> None:
    net = make().eval()
    image, memory = torch.randn(1, 3, 64, 64), torch.randn(1, 8, 64)
    with torch.no_grad():
        alone, linked = net(image)[-1], net(image, memory)[-1]
    assert torch.equal(alone.mask_logits, linked.mask_logits) != depends
    assert not torch.equal(linked.linked, linked.kernels)


@pytest.mark.parametrize("link", ["attention", "linear"])
def test_a_new_real_time_link_leaves_the_image_model_as_it_is(link: Any) -> None:
    net = tiny_real_time(link=link).eval()
    image = RTKNet(classes=5, kernels=6, stages=2, width=8, head_width=16, channels=32).eval()
    missing = image.load_state_dict(net.state_dict(), strict=False)
    assert not missing.missing_keys
    frame, memory = torch.randn(2, 3, 64, 96), torch.randn(2, 6, 32)
    with torch.no_grad():
        for ours, theirs in zip(net(frame, memory), image(frame), strict=True):
            assert torch.equal(ours.mask_logits, theirs.mask_logits)
            assert torch.equal(ours.kernels, theirs.kernels)
        for parameter in (net.decoder.carry or net.decoder.link).parameters():  # type: ignore[union-attr]
            parameter.add_(0.1)
        assert not torch.equal(net(frame, memory)[0].kernels, image(frame)[0].kernels)


def test_weights_of_the_image_model_are_a_part_of_the_video_models() -> None:
    image = KNet(classes=5, stuff=[1, 4], backbone="timm/resnet10t", kernels=6, stages=2, channels=64)
    ours, theirs = tiny_video().state_dict(), image.state_dict()
    assert theirs.keys() <= ours.keys()
    assert all(tensor.shape == ours[key].shape for key, tensor in theirs.items())
    assert {key.split(".link.")[0].split(".")[0] for key in ours.keys() - theirs.keys()} == {"decoder", "embedding"}


@pytest.mark.parametrize("name", [R50, "rt-video-knet-slim-kitti-step"])
def test_links_that_do_not_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot have link = 'memory': input should be 'attention' or "):
        knet.create(name, link="memory")
