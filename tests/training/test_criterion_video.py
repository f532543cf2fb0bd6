"""The losses of video networks: the original's losses, matches and gradients, and laws."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import knet
from knet.data.categories import load_categories
from knet.models.video import RTVideoKNet, VideoKNet, track_embedding
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.structures import Target
from knet.training.criterion import join_matches
from knet.training.criterion_image import KNetCriterion
from knet.training.criterion_rtknet import Criterion
from knet.training.criterion_video import (
    FrameCriterion,
    VideoCriterion,
    association_loss,
    same_object,
    similarity_loss,
)
from knet.training.match import Match
from knet.weights import openmmlab, swin, video_knet
from knet.weights.load import load_strict, read_checkpoint
from rounding import exact

R50, SWIN = "video-knet-r50-kitti-step", "video-knet-swinb-kitti-step"
CASES = [
    pytest.param((R50, "r50", "vk_r50_train_seed52_120x372", {})),
    pytest.param((R50, "r50", "vk_r50_train_seed53_128x384", {}), marks=pytest.mark.large),
    pytest.param(
        (SWIN, "swinb", "vk_swinb_train_seed54_128x384", {"drop_path": 0.0}),
        marks=pytest.mark.large,
    ),
]


def our_name(key: str, backbone: str) -> str:
    """An official parameter's name in our network."""
    if backbone == "swinb" and key.startswith("backbone."):
        return f"backbone.{swin.rename(key.removeprefix('backbone.'))}"
    return video_knet.rename_video(openmmlab.rename_image(key))


def our_loss(key: str) -> str:
    """An official loss's name here: our stage 1 are the initial masks, and the reference's losses begin with ref_."""
    name, reference = key.removesuffix("_ref_rpn").removesuffix("_ref"), key.endswith(("_ref_rpn", "_ref"))
    if name.startswith("loss_rpn_"):
        kind = name.removeprefix("loss_rpn_")
        name = "loss_seg" if kind == "seg" else f"s1_loss_{kind}"
    elif name.startswith("s"):
        name = f"s{int(name[1]) + 2}{name[2:]}"
    return f"ref_{name}" if reference else name


def golden_target(masks: np.ndarray, labels: np.ndarray, semantic: np.ndarray) -> Target:
    """Things, each in a layer of its own, then each stuff class of a map of Cityscapes' train ids."""
    layers, all_labels = [torch.from_numpy(mask.astype(np.int32)) for mask in masks], labels.astype(int).tolist()
    for label, category in enumerate(load_categories("kitti_step")):
        if not category.thing and (semantic == category.id).any():
            layers.append(torch.from_numpy((semantic == category.id).astype(np.int32)))
            all_labels.append(label)
    return Target(torch.stack([n * layer for n, layer in enumerate(layers, start=1)]).int(), torch.tensor(all_labels))


def official(model: str, manifest: str, seed: int, official_checkpoint: Any, **arguments: Any) -> Any:
    net = knet.create(model, **arguments).train()
    checkpoint = official_checkpoint(f"manifest_{manifest}.json", seed, "video_knet")
    load_strict(net, read_checkpoint(checkpoint).state, str(checkpoint))
    return net


def assert_gradients(net: Any, norms: dict[str, float | None], backbone: str) -> None:
    """Norms of all gradients, and no gradient where the original has none."""
    gradients = {key: p.grad for key, p in net.named_parameters()}
    compared = set()
    for key, norm in norms.items():
        name = our_name(key, backbone)
        if name in gradients:  # all but links that are never used
            gradient = gradients[name]
            assert (gradient is None) == (norm is None), key
            if gradient is not None and norm is not None:
                # The original's own distance to float64 is up to 1e-3.
                assert gradient.norm().item() == pytest.approx(norm, rel=3e-3, abs=1e-5), key
            compared.add(name)
    assert compared == gradients.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
@exact
def test_losses_matches_and_gradients_are_the_originals(case: Any, goldens: Any, official_checkpoint: Any) -> None:
    model, manifest, golden, arguments = case
    data = np.load(goldens.file("video_knet", f"{golden}.npz"))
    info = json.loads(bytes(data["info"]))
    net = official(model, manifest, info["seed"], official_checkpoint, **arguments)
    key, reference = normalize_and_pad(
        [torch.from_numpy(image).permute(2, 0, 1) for image in data["images"]], entry(model).preprocessing
    ).split(1)
    targets = [
        [golden_target(data["key_masks"], data["key_labels"], data["key_semantic"].squeeze())],
        [golden_target(data["ref_masks"], data["ref_labels"][:, 1], data["ref_semantic"].squeeze())],
    ]
    known = torch.from_numpy(data["track_gt_match_indices"])
    matches = [torch.cat([known, known.new_full((len(targets[0][0].labels) - len(known),), -1)])]
    criterion = VideoCriterion(frame=FrameCriterion(stuff=tuple(net.stuff)), stuff=tuple(net.stuff))
    before = net(reference)
    now = net(key, before[-1].kernels)
    losses = criterion(now, before, *targets, matches, [0], embed=net.embed)
    expected = {our_loss(name): value for name, value in info["losses"].items() if "pos_acc" not in name}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    assert sum(losses.values()).item() == pytest.approx(info["total"], rel=1e-5)  # type: ignore[union-attr]
    for outputs, target, name in ((now, targets[0], "key"), (before, targets[1], "ref")):
        (found,) = criterion.objects(outputs, target)
        np.testing.assert_array_equal(found.kernels, data[f"track_{name}_pos_inds"])
        np.testing.assert_array_equal(found.segments, data[f"track_{name}_gt"])
        with torch.no_grad():
            embeddings = net.embed(outputs[-1].linked[0][found.kernels])
        np.testing.assert_allclose(embeddings.numpy(), data[f"track_{name}_embeds"], rtol=0, atol=2e-4)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    norms = {**info["grad_norms"], **dict.fromkeys(info["no_grad"])}
    assert_gradients(net, norms, manifest)


@pytest.mark.parametrize(
    "golden",
    [
        "knet_citystep_r50_seed112_120x250",
        pytest.param("knet_citystep_r50_seed111_128x256", marks=pytest.mark.large),
    ],
)
def test_the_image_model_before_it(golden: str, goldens: Any, official_checkpoint: Any) -> None:
    data = np.load(goldens.file("video_knet", f"{golden}.npz"))
    info = json.loads(bytes(data["info"]))
    model = "knet-r50-cityscapes-step"
    net = official(model, "knet_citystep_r50", info["seed"], official_checkpoint)
    image = normalize_and_pad([torch.from_numpy(data["image"]).permute(2, 0, 1)], entry(model).preprocessing)
    targets = [golden_target(data["gt_masks"], data["gt_labels"], data["gt_semantic"])]
    losses = KNetCriterion(stuff=tuple(net.stuff))(net(image), targets)
    expected = {our_loss(name): value for name, value in info["losses"].items() if "pos_acc" not in name}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert_gradients(net, info["grad_norms"], "r50")


def test_track_losses_are_the_originals(goldens: Any, fill_torch: Any) -> None:
    data = np.load(goldens / "video_knet" / "track_head_seed310.npz")
    info = json.loads(bytes(data["info"]))
    names = {"fcs.0": "1", "fcs.1": "3", "fc_embed": "5"}
    state = fill_torch(info["manifest"], info["seed"], "video")
    head = track_embedding(info["channels"])[1:]
    load_strict(head, {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": x for k, x in state.items()}, "golden")
    totals = []
    for c in range(3):
        key, other = (head(torch.from_numpy(data[f"c{c}_{name}_in"])) for name in ("key", "ref"))
        own, seen = (torch.from_numpy(data[f"c{c}_{name}_gt"]) for name in ("key", "ref"))
        same = same_object(Match(own, own), Match(seen, seen), torch.from_numpy(data[f"c{c}_gt_match"]))
        np.testing.assert_array_equal(same, data[f"c{c}_targets"] == 1)
        np.testing.assert_allclose((key @ other.T).detach().numpy(), data[f"c{c}_dots"], rtol=1e-5, atol=1e-4)
        losses = 0.25 * association_loss(key, other, same), similarity_loss(key, other, same)
        for loss, name in zip(losses, ("loss_track", "loss_track_aux"), strict=True):
            assert loss.item() == pytest.approx(float(data[f"c{c}_{name}"]), rel=1e-5)
        totals.append(torch.stack(losses))
    association, similarity = torch.stack(totals).mean(0)
    assert association.item() == pytest.approx(float(data["loss_track"]), rel=1e-5)
    assert similarity.item() == pytest.approx(float(data["loss_track_aux"]), rel=1e-5)
    (association + similarity).backward()
    for name, layer in names.items():
        for kind in ("weight", "bias"):
            gradient = getattr(head.get_submodule(layer), kind).grad
            np.testing.assert_allclose(gradient.numpy(), data[f"grad_{name}.{kind}"], rtol=1e-4, atol=1e-5)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**31))
def test_track_losses_of_any_objects(own: int, other: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    key, reference = (torch.randn(count, 4, generator=g).requires_grad_() for count in (own, other))
    match = torch.randperm(other + own, generator=g)[:own]  # numbers from `other` on are nobody
    same = match[:, None] == torch.arange(other)
    association, similarity = association_loss(key, reference, same), similarity_loss(key, reference, same)
    assert association >= 0 and 0 <= similarity <= 1
    if not same.any():
        assert association == 0
    else:  # written out
        s = (key @ reference.T).detach()
        rows = [(s[a][~same[a]] - s[a][same[a]]).exp().sum().log1p() for a in range(own) if same[a].any()]
        torch.testing.assert_close(association.detach(), torch.stack(rows).mean())
    (association + similarity).backward()
    for embeddings in (key, reference):
        assert embeddings.grad is not None and embeddings.grad.isfinite().all()
    order = torch.randperm(other, generator=g)
    torch.testing.assert_close(association_loss(key, reference[order], same[:, order]), association)
    torch.testing.assert_close(similarity_loss(key, reference[order], same[:, order]), similarity)


def test_objects_that_look_alike_in_both_frames_and_unlike_others_cost_next_to_nothing() -> None:
    embeddings = 10 * torch.eye(4)
    order = torch.tensor([2, 0, 3, 1])
    same = order[:, None] == torch.arange(4)
    assert association_loss(embeddings[order], embeddings, same) < 1e-6
    assert similarity_loss(embeddings[order], embeddings, same) < 1e-6
    wrong = same.roll(1, 0)
    assert association_loss(embeddings[order], embeddings, wrong) > 10
    assert similarity_loss(embeddings[order], embeddings, wrong) > 0.3


STUFF = (1, 4)


def tiny(kind: str) -> tuple[Any, VideoCriterion]:
    torch.manual_seed(0)
    if kind == "video":
        net: Any = VideoKNet(5, fusion=True, stuff=STUFF, backbone="timm/resnet10t", kernels=6, stages=2, channels=32)
        return net, VideoCriterion(frame=FrameCriterion(stuff=STUFF), stuff=STUFF)
    net = RTVideoKNet(5, link=kind, kernels=6, stages=2, width=8, head_width=16, channels=32)  # type: ignore[arg-type]
    return net, VideoCriterion(frame=Criterion(pixels=64), stuff=STUFF)


def clip(labels: list[list[int]], seed: int = 0) -> list[Target]:
    g = torch.Generator().manual_seed(seed)
    targets = []
    for own in labels:
        blocks = torch.randint(0, len(own) + 1, (8, 12), generator=g)
        ids = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
        targets.append(Target(ids.int(), torch.tensor(own, dtype=torch.int64)))
    return targets


def step(net: Any, criterion: VideoCriterion, key: list[Target], reference: list[Target], matches: list[Tensor]) -> Any:
    g = torch.Generator().manual_seed(1)
    frames = torch.randn(2, len(key), 3, 64, 96, generator=g)
    before = net(frames[1])
    now = net(frames[0], before[-1].kernels)
    noise = torch.rand(len(key), 16 * 24, generator=g)
    return now, before, criterion(now, before, key, reference, matches, list(range(len(key))), noise, embed=net.embed)


@pytest.mark.parametrize("kind", ["video", "attention", "linear"])
@pytest.mark.parametrize("labels", [[[0, 1, 2], [3, 3]], [[1], [4, 1]], [[], [0]]], ids=str)
def test_every_network_learns_from_pairs_of_frames(kind: str, labels: list[list[int]]) -> None:
    net, criterion = tiny(kind)
    key, reference = clip(labels), clip(labels, seed=1)
    matches = [torch.arange(len(own)) for own in labels]
    now, _, losses = step(net, criterion, key, reference, matches)
    alone = criterion.frame(now, key, torch.rand(2, 16 * 24))
    assert losses.keys() == {*alone, *(f"ref_{name}" for name in alone), "loss_track", "loss_track_aux"}
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    # Also with nothing to follow, or distributed training would wait for gradients for ever.
    assert not [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]


def test_stuff_is_nobody_to_follow() -> None:
    net, criterion = tiny("attention")
    net.eval()  # a single small image is too little for its batch norms
    labels = [[0, 1, 2, 4]]
    key, reference = clip(labels), clip(labels, seed=1)
    now, _, _ = step(net, criterion, key, reference, [torch.tensor([0, -1, 2, -1])])
    (objects,) = criterion.objects(now, key)
    assert sorted(objects.segments.tolist()) == [0, 2]


@pytest.mark.parametrize("kind", ["video", "attention"])
def test_objects_that_nobody_matched_teach_no_association(kind: str) -> None:
    net, criterion = tiny(kind)
    net.eval()
    key, reference = clip([[0, 2, 3]]), clip([[0, 2]], seed=1)
    _, _, losses = step(net, criterion, key, reference, [torch.tensor([-1, -1, -1])])
    assert losses["loss_track"] == 0
    _, _, losses = step(net, criterion, key, reference, [torch.tensor([1, -1, -1])])
    assert losses["loss_track"] > 0


def test_objects_of_other_clips_are_others_where_that_is_asked_for() -> None:
    net, criterion = tiny("attention")
    net.eval()  # batch norms
    labels = [[0, 2], [3, 0, 2]]
    key, reference = clip(labels), clip(labels, seed=1)
    matches = [torch.tensor([0, -1]), torch.tensor([-1, 1, 2])]
    now, before, alone = step(net, criterion, key, reference, matches)
    last = now[-1], before[-1]
    objects = criterion.objects(now, key), criterion.objects(before, reference)

    def losses(clips: list[int], across: bool) -> list[Tensor]:
        criterion.across = across
        return list(criterion.track_losses(last, objects, matches, clips, net.embed).values())

    expected = []  # written out
    embedded = [
        [net.embed(output.linked[b, one.kernels]) for b, one in enumerate(found)]
        for output, found in zip(last, objects, strict=True)
    ]
    for b in (0, 1):
        known = [(b, int(segment)) for segment in objects[1][b].segments]
        strangers = [(1 - b, int(segment)) for segment in objects[1][1 - b].segments]
        same = torch.tensor(
            [[(b, int(matches[b][own])) == other for other in known + strangers] for own in objects[0][b].segments]
        )
        pair = embedded[0][b], torch.cat([embedded[1][b], embedded[1][1 - b]])
        expected.append(torch.stack([0.25 * association_loss(*pair, same), similarity_loss(*pair, same)]))
    torch.testing.assert_close(losses([4, 7], True), list(torch.stack(expected).mean(0)))
    for clips, across in (([4, 7], False), ([4, 4], True)):  # one clip's objects may be the same
        torch.testing.assert_close(losses(clips, across), [alone["loss_track"], alone["loss_track_aux"]])
    assert losses([4, 7], True)[0] > alone["loss_track"]


@pytest.mark.parametrize("kind", ["video", "linear"])
def test_a_steady_kernel_keeps_its_object_and_the_others_are_matched(kind: str) -> None:
    net, criterion = tiny(kind)
    net.eval()  # batch norms
    key, reference = clip([[4, 0, 2, 3], [2, 0]]), clip([[2, 0, 3], [0]], seed=1)
    matches = [torch.tensor([-1, 1, 0, -1]), torch.tensor([-1, -1])]  # stuff first: things are not numbered as segments
    now, before, free = step(net, criterion, key, reference, matches)
    criterion.steady = True
    _, _, steady = step(net, criterion, key, reference, matches)

    kernel_of = dict(zip(*(x.tolist() for x in reversed(criterion.objects(before, reference)[0])), strict=True))
    held = Match(torch.tensor([kernel_of[1], kernel_of[0]]), torch.tensor([1, 2]))
    nobody = Match(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    noise = torch.rand(2, 16 * 24, generator=torch.Generator().manual_seed(2))
    expected = criterion.frame(now, key, noise, None, [held, nobody])
    for name in expected.keys() - {"loss_inst_disc"}:  # that one depends on what is drawn
        torch.testing.assert_close(steady[name], expected[name])
    changed = {name for name in free if not torch.equal(free[name], steady[name])}
    assert changed and changed <= expected.keys()  # nothing of the reference frame, nor of the embeddings


@pytest.mark.parametrize("kind", ["video", "linear"])
def test_held_segments_have_their_kernel_at_every_stage(kind: str) -> None:
    net, criterion = tiny(kind)
    net.eval()  # batch norms
    key = clip([[4, 0, 2]])
    now = net(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
    frame = criterion.frame
    own = Match(torch.tensor([2, 5]), torch.tensor([2, 1]))
    if kind == "linear":
        own = Match(torch.tensor([2, 5, 0]), torch.tensor([2, 1, 0]))
    losses = frame(now, key, torch.rand(1, 16 * 24), None, [own])
    truth = frame.prepare(now, key)
    for s, output in enumerate(now, start=1):
        kernels, segments = own
        if kind == "video" and s > 1:  # the stuff class of the image has a kernel of its own, 4 the second of these
            kernels, segments = torch.cat([kernels, torch.tensor([6 + 1])]), torch.cat([segments, torch.tensor([0])])
        matched = join_matches([Match(kernels, segments)], output.mask_logits.device)
        for name, loss in frame.mask_losses(output, truth, matched, len(kernels)).items():
            torch.testing.assert_close(losses[f"s{s}_{name}"], loss)


def test_parts_of_a_batch_have_the_mean_of_their_losses_equal_to_that_of_the_whole() -> None:
    net, criterion = tiny("video")
    net.eval()  # batch norms
    labels = [[0, 1, 2], [3, 0, 4, 2]]
    key, reference = clip(labels), clip(labels, seed=1)
    matches = [torch.tensor([0, -1, 2]), torch.tensor([-1, 1, -1, 3])]
    now, before, whole = step(net, criterion, key, reference, matches)
    counts = criterion.count(key, reference, 6, parts=2)

    def part(outputs: Any, b: int) -> Any:
        picked = []
        for o in outputs:
            fields = {
                name: getattr(o, name)
                for name in ("kernels", "mask_logits", "class_logits", "features", "semantic_logits", "linked")
            }
            picked.append(type(o)(**{name: x if x is None else x[b : b + 1] for name, x in fields.items()}))
        return picked

    parts = [
        criterion(
            part(now, b), part(before, b), key[b : b + 1], reference[b : b + 1], matches[b : b + 1], [b], None,
            counts, embed=net.embed,
        )
        for b in (0, 1)
    ]  # fmt: skip
    for name, loss in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, loss, msg=name)
