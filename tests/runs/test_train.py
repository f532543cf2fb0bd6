"""Training runs as a user has them: a config in, a folder out, a kill in between."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import make_data, rows, write_config

import knet
from knet.cli.main import main
from knet.config import RunConfig, load_config
from knet.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError
from knet.models.zoo import ZOO
from knet.runs import step, validate
from knet.runs import train as loop
from knet.runs.build import scaled_learning_rate
from knet.runs.state import MovingAverage, read_state
from knet.runs.train import train
from knet.training.criterion_rtknet import Criterion


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(write_config(tmp_path))


def test_a_run_leaves_everything_that_is_promised(config: RunConfig) -> None:
    folder = train(config)
    assert [int(row["iteration"]) for row in rows(folder)] == list(range(1, 9))
    assert [int(row["iteration"]) for row in rows(folder, "val")] == [4, 8]
    assert {"loss", "rate", "s1_loss_dice", "s3_loss_cls", "loss_seg", "loss_inst_disc"} <= rows(folder)[0].keys()
    assert list((folder / "tensorboard").iterdir())
    assert load_config(folder / "config.yaml") == config
    segmenter = knet.load(folder / "best.safetensors")
    assert [category.name for category in segmenter.categories] == ["road", "car"]
    assert segmenter.preprocessing.short_edge == 64
    image = np.zeros((64, 96, 3), np.uint8)
    assert segmenter(image).id_map.shape == (64, 96)
    assert not list(folder.glob(".*"))  # no temporary file is left


@pytest.mark.parametrize(
    ("precision", "able", "shown"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_slow_half_precision_is_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    able: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr(loop, "fast_in_bf16", lambda device: able)
    caplog.set_level("INFO", "knet")
    train(write_config(tmp_path, iterations=1, validate_every=1), precision=precision)
    assert ("give precision=fp32" in caplog.text) == shown


def test_the_network_learns(tmp_path: Path) -> None:
    config = load_config(
        write_config(tmp_path), ["iterations=60", "log_every=5", "validate_every=60", "optimizer.learning_rate=3e-3"]
    )
    losses = [float(row["loss"]) for row in rows(train(config))]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_a_killed_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    # Long enough that the kill meets it in its middle however slow the machine is to send it.
    path = write_config(tmp_path, iterations=24, validate_every=12)
    whole = train(load_config(path, [f"output={tmp_path / 'whole'}"]))
    state = tmp_path / "run" / "state.pt"
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it in their last digit
    process = subprocess.Popen(
        [sys.executable, "-m", "knet.cli.main", "train", str(tmp_path / "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=threads,
    )
    deadline = time.monotonic() + 1200
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert state.exists(), output
    done = read_state(state)["progress"]["iteration"]
    assert 2 <= done < 24, "the run was not killed in its middle"
    assert main(["train", str(path), "--resume", str(tmp_path / "run")]) == 0
    assert rows(tmp_path / "run") == rows(whole)
    assert rows(tmp_path / "run", "val") == rows(whole, "val")
    ours, theirs = (knet.load(folder / "last.safetensors").net.state_dict() for folder in (tmp_path / "run", whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_to_finite_losses(precision: str, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), [f"precision={precision}", "iterations=3", "validate_every=3"])
    assert all(np.isfinite(float(row["loss"])) for row in rows(train(config)))


def test_loader_processes_give_the_same_run(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    short = ["iterations=2", "validate_every=2"]
    alone = train(load_config(path, [*short, f"output={tmp_path / 'a'}"]))
    helped = train(load_config(path, [*short, f"output={tmp_path / 'b'}", "workers=2"]))
    assert rows(alone) == rows(helped)
    ours, theirs = (read_state(folder / "state.pt") for folder in (alone, helped))
    for part in ("net", "average"):
        assert (ours[part] is None) == (theirs[part] is None)
        assert all(torch.equal(value, theirs[part][key]) for key, value in (ours[part] or {}).items())
    moments, others = (state["optimizer"]["state"] for state in (ours, theirs))
    assert all(torch.equal(moments[name][key], others[name][key]) for name in moments for key in moments[name])


@pytest.mark.large
def test_starting_from_weights(config: RunConfig, tmp_path: Path) -> None:
    first = train(config)
    path = tmp_path / "config.yaml"
    second = load_config(
        path, [f"weights={first / 'last.safetensors'}", f"output={tmp_path / 'tuned'}", "iterations=1"]
    )
    train(second)
    with pytest.raises(CheckpointError, match="do not fit"):
        train(
            load_config(
                path, [f"weights={first / 'last.safetensors'}", "arguments.channels=24", f"output={tmp_path / 'c'}"]
            )
        )


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), ["losses.dice=1e300"])
    with pytest.raises(TrainingError, match=r"not finite in iteration 0 \(.*dice.*\), for the images \d, \d;"):
        train(config)


def test_folders_that_hold_a_run_or_none(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="to resume from"):
        train(config, resume=True)
    train(config.model_copy(update={"iterations": 1}))
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot make the run folder"):
        train(config.model_copy(update={"output": tmp_path / "file" / "run"}))
    state = config.output / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged"):
        train(config, resume=True)


def test_configs_that_cannot_be_trained(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'augment'"):
        train(config.model_copy(update={"augment": None, "output": tmp_path / "a"}))
    without = config.data.model_copy(update={"train": None})
    with pytest.raises(ConfigError, match=r"no 'data\.train'"):
        train(config.model_copy(update={"data": without, "output": tmp_path / "b"}))


def test_a_full_disk_keeps_the_last_whole_state(tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: the system refuses to write on in the same way."""
    path = write_config(tmp_path)
    code = (
        "import resource, sys; from knet.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
        f"sys.exit(main(['train', {str(path)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 1
    assert "state.pt': File too large; free space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "state.pt").exists()
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_bad_images_are_left_out_named_counted_and_limited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "knet")
    path = write_config(tmp_path)
    (tmp_path / "data" / "images" / "2.png").write_bytes(b"not a picture")
    config = load_config(path, ["iterations=4", "validate_every=9", f"data.val.images={tmp_path / 'good'}"])
    make_data(tmp_path / "whole")
    (tmp_path / "whole" / "images").rename(tmp_path / "good")
    folder = train(config)
    said = caplog.text
    assert said.count("left out: The image") == 1 and "2.png cannot be read" in said
    assert [row["bad_images"] for row in rows(folder)][-1] == "1"
    assert "2.png" in read_state(folder / "state.pt")["progress"]["bad_images"]["2"]
    strict = load_config(path, ["skip_images=0", f"output={tmp_path / 'strict'}"])
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        train(strict)
    (tmp_path / "data" / "images" / "1.png").write_bytes(b"not a picture either")
    with pytest.raises(DataError, match="2 training images cannot be read, more than skip_images=1"):
        train(
            load_config(
                path, ["skip_images=1", f"output={tmp_path / 'limited'}", f"data.val.images={tmp_path / 'good'}"]
            )
        )


def test_losses_that_are_not_finite_may_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "knet")
    config = load_config(write_config(tmp_path), ["iterations=4", "validate_every=4", "skip_losses=1"])
    original = Criterion.__call__
    calls = []

    def sometimes(self: Criterion, *arguments: Any) -> dict[str, torch.Tensor]:
        calls.append(original(self, *arguments))
        return {name: loss * float("nan") if len(calls) == 2 else loss for name, loss in calls[-1].items()}

    monkeypatch.setattr(Criterion, "__call__", sometimes)
    folder = train(config)
    assert "left out: The loss is not finite in iteration 1" in caplog.text
    assert [row["bad_losses"] for row in rows(folder)] == ["0", "1", "1", "1"]
    noted = json.loads((folder / "not_finite.json").read_text())
    assert noted["iteration"] == 1 and len(noted["images"]) == 2 and noted["losses"]["loss_seg"] == "nan"
    assert all(np.isfinite(float(row["loss"])) for row in rows(folder) if row["iteration"] != "2")
    weights = read_state(folder / "state.pt")["net"].values()
    assert all(value.isfinite().all() for value in weights)
    calls.clear()
    with pytest.raises(TrainingError, match="not finite in iteration 1"):
        train(config.model_copy(update={"output": tmp_path / "strict", "skip_losses": 0}))


@pytest.mark.large
def test_a_moving_average_is_what_gets_judged_and_saved(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    short = ["iterations=3", "validate_every=3", "save_every=1", "ema=0.5"]
    folder = train(load_config(path, short))
    plain = train(load_config(path, [*short[:3], f"output={tmp_path / 'plain'}"]))
    assert [r["loss"] for r in rows(folder)] == [r["loss"] for r in rows(plain)]  # it changes nothing in the training
    state, saved = read_state(folder / "state.pt"), knet.load(folder / "last.safetensors").net.state_dict()
    key = "decoder.kernels"
    assert torch.equal(saved[key], state["average"][key]) and not torch.equal(saved[key], state["net"][key])
    resumed = tmp_path / "resumed"
    train(load_config(path, [*short, f"output={resumed}", "iterations=2"]))
    train(load_config(path, [*short, f"output={resumed}"]), resume=True)
    again = read_state(resumed / "state.pt")
    # The schedule of the shorter run differs, so its weights do; the mean still follows from the weights.
    assert not torch.equal(again["average"][key], again["net"][key])


def test_going_through_a_batch_in_parts(tmp_path: Path) -> None:
    """Not the same as at once, for batch norms see a part at a time; but near it, and it learns."""
    path = write_config(tmp_path, batch=4, validate_every=9, iterations=2)
    at_once = rows(train(load_config(path)))
    parts = rows(train(load_config(path, ["accumulate=2", f"output={tmp_path / 'parts'}"])))
    for one, other in zip(at_once, parts, strict=True):
        assert float(other["loss"]) == pytest.approx(float(one["loss"]), rel=0.15)
    with pytest.raises(ConfigError, match="do not divide into accumulate=3 parts"):
        train(load_config(path, ["accumulate=3", f"output={tmp_path / 'three'}"]))


def test_a_run_only_resumes_with_its_own_model_and_data(tmp_path: Path) -> None:
    path = write_config(tmp_path, iterations=2, validate_every=2)
    train(load_config(path))
    with pytest.raises(CheckpointError, match=r"is of another model \(.*kernels=6.*\) than the config \(.*kernels=7"):
        train(load_config(path, ["arguments.kernels=7"]), resume=True)
    make_data(tmp_path / "other", images=5)
    with pytest.raises(CheckpointError, match=r"another data set \(4 images, 0 to 3"):
        train(load_config(path, [f"data.root={tmp_path / 'other'}"]), resume=True)
    table = json.loads((tmp_path / "other" / "panoptic.json").read_text())
    table["categories"][1]["name"] = "lorry"
    (tmp_path / "data" / "panoptic.json").write_text(json.dumps({**table, "images": table["images"][:4],
                                                                 "annotations": table["annotations"][:4]}))  # fmt: skip
    with pytest.raises(CheckpointError, match=r"another class table \(road, car\) than the config \(road, lorry\)"):
        train(load_config(path), resume=True)


def test_a_run_that_died_while_it_validated_validates_when_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path, iterations=4, validate_every=2)
    whole = train(load_config(path, [f"output={tmp_path / 'whole'}"]))

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(validate, "judge", die)
        train(load_config(path))
    assert read_state(tmp_path / "run" / "state.pt")["progress"]["validated"] == 0
    resumed = train(load_config(path), resume=True)
    assert rows(resumed) == rows(whole) and rows(resumed, "val") == rows(whole, "val")


def test_the_learning_rate_follows_the_batch_and_says_so(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    config = load_config(path, ["optimizer.for_batch=8", "optimizer.learning_rate=4e-4"])
    rate, note = scaled_learning_rate(config)
    assert rate == pytest.approx(1e-4) and "0.0004 is meant for a batch of 8 and is scaled to 2" in note
    assert scaled_learning_rate(load_config(path)) == (2e-4, "")


def test_compiled_networks_train_and_save_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the compiler makes of it is torch's business and takes minutes; that it is asked, and saved whole, is ours.
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(type(self).__name__))
    train(load_config(write_config(tmp_path), ["iterations=1", "compile=true"]))
    assert asked == ["RTKNet"]


@pytest.mark.parametrize(
    "option",
    [
        "arguments.pooling=sum",
        *(
            pytest.param(option, marks=pytest.mark.large)
            for option in (
                "arguments.auxiliary=false",
                "merge=sorted",
                "augment.instance_crop=false",
                "losses.instance=0",
                "losses.match_pixels=16",
            )
        ),
    ],
)
def test_each_row_of_the_ablation_is_an_option(option: str, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), ["iterations=2", "validate_every=2", option])
    folder = train(config)
    names = rows(folder)[0].keys()
    assert ("loss_seg" in names) == ("auxiliary" not in option)
    assert ("loss_inst_disc" in names) == ("losses.instance" not in option)
    assert knet.load(folder / "last.safetensors").merge == ("sorted" if "merge" in option else "optimised")


def test_the_mean_of_the_weights_soon_forgets_the_random_ones() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    average = MovingAverage(net, 0.9998)
    torch.nn.init.ones_(net.weight)
    seen = []
    for iteration in range(1, 101):
        average.update(iteration)
        seen.append(average.values["weight"].item())
    assert seen[0] > 0.8 and seen[-1] > 0.999  # with a decay of 0.9998 throughout it would be 0.02
    late = MovingAverage(net, 0.9)
    torch.nn.init.zeros_(net.weight)
    late.update(10**6)
    assert late.values["weight"].item() == pytest.approx(0.9)


@pytest.mark.large
def test_two_sets_with_different_classes(tmp_path: Path) -> None:
    """A run learns from both, and says how often each is drawn; stopped and resumed it goes on the same way."""
    other = make_data(tmp_path / "other")
    content = json.loads((other / "panoptic.json").read_text())
    for category, name in zip(content["categories"], ("street", "bus"), strict=True):
        category["name"] = name
    (other / "panoptic.json").write_text(json.dumps(content))
    path = write_config(tmp_path)
    own = {"images": "images", "json": "panoptic.json", "masks": "masks"}
    second = {name: str(other / file) for name, file in own.items()}
    second |= {"classes": {"street": "road", "bus": "car"}, "weight": 2, "ignore_void": True, "paste": True}
    table = {"data": {"root": str(tmp_path / "data"), "train": [own, second], "val": own}}
    augment = {"short_edges": [48, 64], "max_edge": 128, "crop": [48, 64], "paste": 2, "paste_onto": ["road"]}
    path = write_config(tmp_path / "mixed", **table, augment={**augment, "camera": 0.5}, iterations=4)
    folder = train(load_config(path))
    assert [float(row["loss"]) > 0 for row in rows(folder)] == [True] * 4
    assert knet.load(folder / "last.safetensors").card.categories[1].name == "car"
    halves = [f"output={tmp_path / 'halves'}", "save_every=1"]
    train(load_config(path, [*halves, "iterations=4", "validate_every=2"]))
    assert [row["loss"] for row in rows(tmp_path / "halves")] == [row["loss"] for row in rows(folder)]


def test_batch_norms_keep_their_statistics_from_an_iteration_on(tmp_path: Path) -> None:
    path = write_config(tmp_path, iterations=3, save_every=1, validate_every=3)
    frozen = train(load_config(path, ["freeze_norms=1"]))
    learned = train(load_config(path, [f"output={tmp_path / 'learned'}"]))
    once = train(load_config(path, [f"output={tmp_path / 'once'}", "iterations=1", "validate_every=1"]))
    states = [read_state(folder / "state.pt")["net"] for folder in (frozen, learned, once)]
    means = [key for key in states[0] if key.endswith("running_mean")]
    assert means
    assert all(torch.equal(states[0][key], states[2][key]) for key in means)
    assert not any(torch.equal(states[1][key], states[2][key]) for key in means)
    weights = [key for key in states[0] if key.endswith("decoder.kernels")]
    assert not torch.equal(states[0][weights[0]], states[2][weights[0]])  # it goes on learning


def test_training_shows_the_values_that_inference_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's mean and std are those of its row in the zoo, in training as later."""
    path = write_config(tmp_path, iterations=1, validate_every=1)
    row = ZOO["rtknet-slim-camvid"]
    own = replace(row.preprocessing, mean=(10.0, 20.0, 30.0), std=(40.0, 50.0, 60.0))
    monkeypatch.setitem(ZOO, "rtknet-slim-camvid", replace(row, preprocessing=own))
    seen: list[Any] = []
    original = step.normalize_and_pad

    def record(images: Any, values: Any, **rest: Any) -> Any:
        seen.append(values)
        return original(images, values, **rest)

    monkeypatch.setattr(step, "normalize_and_pad", record)
    folder = train(load_config(path))
    assert {(values.mean, values.std) for values in seen} == {(own.mean, own.std)}
    assert knet.load(folder / "last.safetensors").card.preprocessing.mean == own.mean
