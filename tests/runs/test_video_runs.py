"""Training on frames that belong together: pairs for video networks, clips for those that see whole videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import rows, write_config

from knet.config import load_config
from knet.data.categories import load_categories
from knet.data.readers.open import open_data
from knet.data.samples.batches import BatchPlan, load_batches
from knet.data.samples.pairs import PairBatch
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.errors import CheckpointError, ConfigError
from knet.models.zoo import create
from knet.runs.build import added_to_image_model, build_criterion, load_first, on_frames, run_card
from knet.runs.optimizer import adamw
from knet.runs.samples import training_set
from knet.runs.step import train_step
from knet.runs.train import train
from knet.weights.load import save_weights

TINY = {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2, "drop_path": 0.0}


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of four frames in KITTI-STEP's layout, and one to validate."""
    root = tmp_path_factory.mktemp("data") / "step"
    synthesize_clips("step", root, 2, 4, (64, 128), seed=3)
    return root


def config_of(folder: Path, step: Path, **more: Any) -> Any:
    data = {"root": str(step), "train": {"format": "step", "split": "train"}, "val": {"format": "step", "split": "val"}}
    table = {"model": "rt-video-knet-slim-kitti-step", "arguments": TINY, "data": data, "score": 0.0, **more}
    table = {"augment": {"short_edges": [64], "max_edge": 128, "crop": [64, 96]}, **table}
    return load_config(write_config(folder, **table), ["losses.pixels=64"])


def test_a_video_network_trains_on_pairs_and_resumes(tmp_path: Path, step: Path) -> None:
    config = config_of(tmp_path, step, iterations=4, validate_every=4, save_every=2)
    whole = train(config)
    first = rows(whole)[0]
    assert {"loss_track", "loss_track_aux", "s1_loss_dice", "ref_s1_loss_dice", "ref_loss_seg"} <= first.keys()
    assert float(first["loss_track"]) > 0
    assert {"stq", "aq", "vpq", "pq"} <= rows(whole, "val")[0].keys()
    half = train(config.model_copy(update={"iterations": 2, "output": tmp_path / "half"}))
    assert len(rows(half)) == 2
    assert [row["loss_track"] for row in rows(half)] == [row["loss_track"] for row in rows(whole)[:2]]


def test_a_step_on_pairs_reaches_link_and_embedding_also_in_parts(tmp_path: Path, step: Path) -> None:
    config = config_of(tmp_path, step, batch=4)
    reader = open_data(config.data, config.data.train)
    card = run_card(config, reader.categories)
    torch.manual_seed(0)
    net = create(config.model, **card.arguments)
    samples = training_set(config, reader, net)
    batch = next(load_batches(samples, BatchPlan(len(samples), 4, 0), 0, False))
    assert isinstance(batch, PairBatch) and any((matches >= 0).any() for matches in batch.matches)
    criterion, scaler = build_criterion(config, net, card), torch.amp.GradScaler("cpu", enabled=False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    norms = []
    for parts in (1, 2):
        net.load_state_dict(before)
        optimizer = adamw(net, 1e-3, 0.0)
        step_ = train_step(on_frames(net), criterion, optimizer, scaler, batch, parts=parts, max_norm=1e9)
        assert step_.taken
        norms.append(step_.gradient_norm)
        link = [p.grad for name, p in net.named_parameters() if ".link." in name or "embedding" in name]
        assert link and all(grad is not None for grad in link)
    assert norms[0] != norms[1]  # batch norms see a part at a time


def test_an_image_network_learns_from_single_frames_of_clips(tmp_path: Path, step: Path) -> None:
    folder = train(config_of(tmp_path, step, model="rtknet-slim-cityscapes", iterations=1))
    assert "loss_track" not in rows(folder)[0]


def test_mixed_precision_trains_and_judges_a_video_network(tmp_path: Path, step: Path) -> None:
    folder = train(config_of(tmp_path, step, iterations=1, precision="bf16"))
    assert float(rows(folder)[0]["loss_track"]) > 0


def test_a_video_network_refuses_images_that_belong_to_no_clip(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, model="rt-video-knet-slim-kitti-step"))
    with pytest.raises(ConfigError, match=r"learns from clips; give data\.train\.format"):
        train(config)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"format": "step"}, "needs its split"),
        ({"images": "a", "instances": "b"}, "needs images, and json and masks"),
        ({"labels": "a"}, "needs images, and json and masks"),
    ],
)
def test_data_sets_that_lack_a_part_are_refused(tmp_path: Path, files: dict[str, str], match: str) -> None:
    config = load_config(write_config(tmp_path, data={"root": str(tmp_path), "train": files, "val": files}))
    with pytest.raises(ConfigError, match=match):
        open_data(config.data, config.data.train)


def test_a_network_for_clips_trains_on_clips_and_is_judged(tmp_path: Path) -> None:
    root = tmp_path / "vis"
    synthesize_clips("youtube-vis", root, 2, 6, (64, 96), seed=3)
    data = {"root": str(root), "categories": "youtube_vis"}
    splits = {"train": {"format": "youtube-vis", "split": "train"}, "val": {"format": "youtube-vis", "split": "valid"}}
    arguments = {"channels": 32, "kernels": 4, "stages": 1, "clip_stages": 2}
    folder = train(
        config_of(
            tmp_path,
            root,
            model="video-knet-r50-youtube-vis",
            arguments=arguments,
            data={**data, **splits},
            augment={"short_edges": [64]},
            iterations=1,
            batch=1,
        )
    )
    assert {"clip1_loss_cls", "clip2_loss_dice"} <= rows(folder)[0].keys()
    assert 0 <= float(rows(folder, "val")[0]["ap"]) <= 1


@pytest.mark.parametrize("link", ["attention", pytest.param("linear", marks=pytest.mark.large)])
def test_a_video_network_starts_from_an_image_models_weights(tmp_path: Path, step: Path, link: str) -> None:
    torch.manual_seed(1)
    image = create("rtknet-slim-cityscapes", classes=19, **TINY).eval()
    save_weights(tmp_path / "image.safetensors", image.state_dict())
    config = config_of(tmp_path, step, weights=str(tmp_path / "image.safetensors"), arguments={**TINY, "link": link})
    net = create(config.model, **config.arguments, classes=19).eval()
    card = run_card(config, load_categories("cityscapes"))
    assert load_first(net, config, card).endswith("that only videos need start anew")
    pictures = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(net(pictures)[-1].mask_logits, image(pictures)[-1].mask_logits)
    first = next(key for key in image.state_dict() if key.startswith("backbone"))
    save_weights(tmp_path / "image.safetensors", {k: v for k, v in image.state_dict().items() if k != first})
    with pytest.raises(CheckpointError):  # not only what videos need is missing
        load_first(net, config, card)


def test_stages_over_clips_start_as_those_of_the_image_model() -> None:
    net = create("video-knet-r50-youtube-vis", channels=32, kernels=4)
    image = {key: value + 1 for key, value in net.state_dict().items() if not key.startswith("clip_stages")}
    added = added_to_image_model(net, image)
    assert torch.equal(added["clip_stages.1.update.out.weight"], image["decoder.stages.1.update.out.weight"])
    net.load_state_dict(image | added)
