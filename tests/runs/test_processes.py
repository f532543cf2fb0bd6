"""Runs of several processes, as torchrun and srun start them: on gloo, on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from tiny_run import rows, write_config
from torch import nn

from knet.cli.main import main
from knet.config import load_config
from knet.distributed import (
    Place,
    gather_numbers,
    gather_objects,
    joined,
    mean_over_processes,
    meeting_point,
    place_of,
    synchronized_norm,
)
from knet.errors import ConfigError
from knet.runs.state import read_state
from knet.runs.train import train


def start(arguments: list[str], processes: int = 2) -> list[subprocess.Popen[str]]:
    """`knet ARGUMENTS` in so many processes that meet each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "knet.cli.main", *arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[tuple[str, str]]]:
    said = [process.communicate(timeout=2400) for process in processes]
    return [process.returncode for process in processes], said


def stop_in_the_middle(processes: list[subprocess.Popen[str]], state: Path, number: int, who: slice) -> None:
    """Sends the signal to some processes once there is a state."""
    deadline = time.monotonic() + 2000
    while not state.exists() and processes[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    for process in processes[who]:
        process.send_signal(number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbs; its config lies beside it."""
    folder = tmp_path_factory.mktemp("whole")
    # Long enough that a signal meets a run in its middle however slow the machine is to send it.
    path = write_config(folder, iterations=16, validate_every=8, save_every=2, batch=4, workers=1)
    codes, said = finish(start(["train", str(path)]))
    assert codes == [0, 0], said
    assert "in 2 processes" in said[0][0] and not said[1][0]  # only the first speaks
    return folder


@pytest.mark.large  # a killed run of one process resumes in test_train.py
@pytest.mark.parametrize(("number", "who"), [(signal.SIGKILL, slice(None)), (signal.SIGTERM, slice(1, 2))])
def test_a_stopped_run_of_two_processes_resumes_to_the_same_losses(
    whole: Path, tmp_path: Path, number: int, who: slice
) -> None:
    """A machine that dies, and a scheduler that takes one machine back."""
    run = tmp_path / "run"
    processes = start(["train", str(whole / "config.yaml"), f"output={run}"])
    stop_in_the_middle(processes, run / "state.pt", number, who)
    codes, said = finish(processes)
    assert (run / "state.pt").exists(), said
    if number == signal.SIGTERM:
        assert codes == [143, 143], said  # both saved and ended, though only one was asked
        assert "go on with `knet train --resume" in said[0][1] and "Traceback" not in said[0][1] + said[1][1]
    done = read_state(run / "state.pt")["progress"]["iteration"]
    assert 2 <= done < 16, "the run was not stopped in its middle"
    codes, said = finish(start(["train", "--resume", str(run)]))
    assert codes == [0, 0], said
    assert rows(run) == rows(whole / "run") and len(rows(run)) == 16
    assert rows(run, "val") == rows(whole / "run", "val")
    ours, theirs = (read_state(folder / "state.pt")["net"] for folder in (run, whole / "run"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.large
def test_a_run_may_go_on_with_another_number_of_processes(whole: Path, tmp_path: Path) -> None:
    path = whole / "config.yaml"
    short = load_config(path, [f"output={tmp_path / 'run'}", "validate_every=16"])
    codes, said = finish(start(["train", str(path), f"output={tmp_path / 'run'}", "validate_every=2", "iterations=2"]))
    assert codes == [0, 0], said
    config = short.model_copy(update={"iterations": 4})
    train(config, resume=True)
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["1", "2", "3", "4"]


def test_evaluation_in_two_processes_gives_the_figures_of_one(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", str(whole / "config.yaml"), "--weights", str(whole / "run" / "best.safetensors"), "--json"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have, for the last digits
    try:
        assert main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    codes, ((together, _), (silence, _)) = finish(start(arguments))
    assert codes == [0, 0] and together == capsys.readouterr().out and silence == ""


@pytest.mark.large  # the rule itself is looked at in test_batches.py
def test_a_batch_that_does_not_divide_is_refused_before_anything_starts(whole: Path, tmp_path: Path) -> None:
    codes, said = finish(start(["train", str(whole / "config.yaml"), f"output={tmp_path / 'run'}", "batch=3"]))
    assert codes == [2, 2] and "A batch of 3 does not divide among 2 processes" in said[0][1]
    assert not (tmp_path / "run").exists()


def test_who_is_who() -> None:
    assert place_of({}) == Place(0, 1, 0)
    assert place_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Place(3, 4, 1)
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    assert place_of({**slurm, "SLURM_STEP_NUM_TASKS": "8"}) == Place(5, 8, 1)
    assert place_of(slurm) == Place(0, 1, 0)  # in the batch script itself nobody waits to be met
    with pytest.raises(ConfigError, match="start them with torchrun or srun"):
        place_of({"RANK": "1"})
    with pytest.raises(ConfigError, match="no number"):
        place_of({"RANK": "one", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu01", "gpu01"), ("gpu[07-09,12],login", "gpu07"), ("a1,b[2-3]", "a1"), ("n-[003]", "n-003")],
)
def test_where_slurm_jobs_meet(nodes: str, first: str) -> None:
    address, port = meeting_point({"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "123456"})
    assert address == first and 1024 < int(port) < 65536
    assert meeting_point({"MASTER_ADDR": "x", "MASTER_PORT": "1", "SLURM_STEP_NODELIST": nodes}) == ("x", "1")


TWO = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"WORLD_SIZE": text} for text in ("0", "-3", "", "two", "9" * 5000, "1e3", "٣")],
        *[{"RANK": text} for text in ("2", "-1", "0.5")],
        {"LOCAL_RANK": "2"},
        *[{"MASTER_PORT": text} for text in ("0", "65536", "x", "", "-1")],
    ],
    ids=str,
)
def test_numbers_of_the_environment_that_cannot_be_meant(wrong: dict[str, str]) -> None:
    """Some of them were tracebacks, with some the process waited for others without end."""
    (name,) = wrong
    with pytest.raises(
        ConfigError, match=f"no number that can be meant: {name} is .* start them with torchrun or srun"
    ) as error:
        place_of({**TWO, **wrong})
        meeting_point({**TWO, **wrong})
    assert len(str(error.value)) < 300


def test_a_job_number_that_is_none_and_an_address_that_is_empty() -> None:
    with pytest.raises(ConfigError, match="SLURM_JOB_ID is 'x'"):
        meeting_point({"SLURM_JOB_ID": "x"})
    assert meeting_point({"MASTER_ADDR": ""})[0] == "127.0.0.1"


def test_one_process_is_all_of_them() -> None:
    with joined(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        values = torch.rand(3)
        assert torch.equal(mean_over_processes(values), values)
        assert gather_objects("said") == ["said"] and gather_numbers([1, 2]).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, partial(BatchNormAct2d, act_layer=nn.PReLU)])
def test_synchronised_norm_is_batch_norm_when_alone(kind: Any) -> None:
    plain, ours = kind(5), kind(5)
    ours.forward = partial(synchronized_norm, ours)
    results: list[Any] = []
    for norm in (plain, ours):
        nn.init.constant_(norm.weight, 1.5)
        x = (torch.arange(2 * 5 * 4 * 3.0).view(2, 5, 4, 3).sin() * 3 + 10).requires_grad_()
        y = norm(x)
        (y * y.detach().cos()).sum().backward()
        results.append(
            [y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm.eval()(x)]
        )
        assert norm.num_batches_tracked == 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
