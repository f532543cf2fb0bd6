"""Training runs as a user has them: a config in, a folder out, a kill in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import rows, write_config

import knet
from knet.config import RunConfig, load_config
from knet.errors import CheckpointError, ConfigError, OutputError, TrainingError
from knet.training.loop import train
from knet.training.state import read_state


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


def test_the_network_learns(tmp_path: Path) -> None:
    config = load_config(
        write_config(tmp_path), ["iterations=60", "log_every=5", "validate_every=60", "optimizer.learning_rate=3e-3"]
    )
    losses = [float(row["loss"]) for row in rows(train(config))]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_a_killed_run_resumes_to_the_same_losses(tmp_path: Path) -> None:
    # Long enough that the kill meets it in its middle however slow the machine is to send it.
    path = write_config(tmp_path, iterations=40, validate_every=20)
    whole = train(load_config(path, [f"output={tmp_path / 'whole'}"]))
    state = tmp_path / "run" / "state.pt"
    process = subprocess.Popen(
        [sys.executable, "-m", "knet.cli.main", "train", str(tmp_path / "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert state.exists(), output
    done = read_state(state)["progress"]["iteration"]
    assert 2 <= done < 40, "the run was not killed in its middle"
    resumed = subprocess.run(
        [
            sys.executable,
            "-m",
            "knet.cli.main",
            "train",
            str(tmp_path / "config.yaml"),
            "--resume",
            str(tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
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
                path, [f"weights={first / 'last.safetensors'}", "arguments.kernels=7", f"output={tmp_path / 'c'}"]
            )
        )


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), ["losses.dice=.inf"])
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
    assert "Cannot write" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "state.pt").exists()
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
