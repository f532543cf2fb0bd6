"""A run's state on disk: what comes back is what was written, and what is no state of this run is refused."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from knet.errors import CheckpointError, OutputError
from knet.runs.optimizer import adamw
from knet.runs.state import MovingAverage, Progress, load_state, read_state, save_state, whole_weights

MADE_FOR = {"model": "rtknet", "classes": ["road", "car"]}


class Run:
    """A tiny network and all that belongs to it, after some steps."""

    def __init__(self, steps: int = 0, seed: int = 0, ema: float | None = 0.5):
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.optimizer = adamw(self.net, 0.1, 0.05)
        self.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=64.0)
        self.average = None if ema is None else MovingAverage(self.net, ema)
        for number in range(steps):
            self.step(number)

    def step(self, number: int) -> None:
        self.net(torch.randn(5, 3, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(number + 1)

    def numbers(self) -> dict[str, Any]:
        moments = dict(enumerate(self.optimizer.state.values()))
        flat = {f"{n}.{key}": value for n, values in moments.items() for key, value in values.items()}
        mean = {} if self.average is None else {f"mean.{k}": v for k, v in self.average.values.items()}
        return {**self.net.state_dict(), **flat, **mean}

    def save(self, path: Path, progress: Progress) -> None:
        save_state(path, self.net, self.optimizer, self.scaler, self.average, progress, {"batch": 2})

    def load(self, path: Path, made_for: dict[str, Any] = MADE_FOR) -> Progress:
        return load_state(path, self.net, self.optimizer, self.scaler, self.average, made_for)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_run_that_begins_has_done_nothing() -> None:
    assert Progress() == Progress(
        iteration=0, validated=0, best=-1.0, bad_images={}, bad_losses=[], made_for={}, stale=0
    )


def test_a_run_goes_on_from_its_state_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, path = Run(3), tmp_path / "state.pt"
    whole.scaler.scale(torch.ones(1))
    whole.scaler.update(16.0)
    progress = Progress(3, 2, 0.25, {"2.png": "cannot be read"}, [1], MADE_FOR)
    whole.save(path, progress)
    resumed = Run(0, seed=7)
    assert not same(resumed.numbers(), whole.numbers())
    assert resumed.load(path) == progress
    assert same(resumed.numbers(), whole.numbers()) and resumed.scaler.get_scale() == 16.0
    for number in (3, 4):
        whole.step(number)
        resumed.step(number)
    assert same(resumed.numbers(), whole.numbers())
    state = read_state(path)
    assert state["config"] == {"batch": 2} and state["progress"] == vars(progress)
    assert [part.name for part in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_goes_on_that_has_taken_no_step_yet(tmp_path: Path) -> None:
    """As in fp16, whose first gradients overflow until the scale is small enough."""
    whole, resumed, path = Run(), Run(seed=7), tmp_path / "state.pt"
    whole.net(torch.ones(5, 3)).mean().backward()
    whole.save(path, Progress(1, made_for=MADE_FOR))
    whole.optimizer.zero_grad()
    resumed.load(path)
    assert same(resumed.numbers(), whole.numbers())
    whole.step(1)
    resumed.step(1)
    assert same(resumed.numbers(), whole.numbers())


def test_a_full_disk_is_told_in_the_words_of_the_system(tmp_path: Path) -> None:
    """torch hides them behind where in its own source it noticed. A limit of the size of files stands in for a disk."""
    run, path, before = Run(), tmp_path / "state.pt", resource.getrlimit(resource.RLIMIT_FSIZE)
    parts = run.net, run.optimizer, run.scaler, run.average, Progress()
    save_state(path, *parts, {})
    whole = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        for size in (0, 1_000_000):  # what fails is the end, which writes all at once, or a write in the middle
            with pytest.raises(OutputError, match=r"Cannot write '.*state\.pt': File too large; free space"):
                save_state(path, *parts, {"note": "x" * size})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_a_state_is_of_the_moment_in_which_it_was_saved(tmp_path: Path) -> None:
    run = Run(2)
    average = run.average
    assert average is not None
    before = {key: value.clone() for key, value in average.values.items()}
    run.save(tmp_path / "state.pt", Progress(2, made_for=MADE_FOR))
    assert all(torch.equal(whole_weights(run.net, average)[key], value) for key, value in before.items())
    assert all(torch.equal(whole_weights(run.net)[key], value) for key, value in run.net.state_dict().items())
    kept = Run(0)
    kept.load(tmp_path / "state.pt")
    assert kept.average is not None
    kept.step(2)  # the average has memory of its own
    assert not torch.equal(kept.average.values["0.weight"], kept.net.state_dict()["0.weight"])


def test_a_run_that_had_no_average_starts_one_from_its_weights(tmp_path: Path) -> None:
    plain, path = Run(2, ema=None), tmp_path / "state.pt"
    plain.save(path, Progress(2, made_for=MADE_FOR))
    assert read_state(path)["average"] is None
    averaged = Run(0, seed=3)
    averaged.load(path)
    assert averaged.average is not None
    assert torch.equal(averaged.average.values["0.weight"], plain.net.state_dict()["0.weight"])
    without = Run(0, seed=3, ema=None)
    without.load(path)
    assert same(without.numbers(), plain.numbers())


def test_the_mean_of_the_weights_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 8.0)
    average = MovingAverage(net, 0.5)
    nn.init.zeros_(net.weight)
    assert average.values["weight"].item() == 8.0
    average.update(1)  # a decay of 2 / 11
    assert average.values["weight"].item() == pytest.approx(16 / 11)
    average.update(100)  # of 0.5, which was asked for
    assert average.values["weight"].item() == pytest.approx(8 / 11)


def test_what_is_no_state_of_this_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with pytest.raises(CheckpointError, match=r"There is no '.*state\.pt' to resume from"):
        Run().load(path)
    Run(1).save(path, Progress(1, made_for=MADE_FOR))
    before = path.read_bytes()
    long = [f"class {number}" for number in range(100)]
    with pytest.raises(CheckpointError, match=r"of another classes \(road, car\) than the config \(class 0.*\.\.\.\)"):
        Run().load(path, {**MADE_FOR, "classes": long})
    exactly = ["x" * 80]
    with pytest.raises(CheckpointError, match=rf"than the config \({'x' * 80}\)"):
        Run().load(path, {**MADE_FOR, "classes": exactly})
    with pytest.raises(CheckpointError, match=rf"than the config \({'y' * 77}\.\.\.\)"):
        Run().load(path, {**MADE_FOR, "classes": ["y" * 81]})
    for share in (0.0, 0.3, 0.999):
        path.write_bytes(before[: int(share * len(before))])
        with pytest.raises(CheckpointError, match="is damaged"):
            read_state(path)
    for other in ([1, 2], {"net": {}, "optimizer": {}, "scaler": {}, "progress": {}}):
        torch.save(other, path)
        with pytest.raises(CheckpointError, match="was not written by this `knet train`"):
            read_state(path)


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"progress": part} for part in (None, [], 5, {"a": 1}, {1: 2}, {"iteration": -1}, {"iteration": "x"})],
        *[{"progress": {name: wrong}} for name in ("best", "bad_images", "made_for", "stale") for wrong in ("x", None)],
        *[{part: wrong} for part in ("net", "optimizer") for wrong in (None, [], {}, 5, {"a": 1}, {1: torch.ones(2)})],
        *[{"net": {"0.weight": wrong}} for wrong in (torch.ones(2), torch.full((4, 3), torch.nan), None, "x")],
        {"net": {"0.weight": torch.ones(4, 3, device="meta")}},
        {"net": {"0.weight": torch.ones(4, 3).to_sparse()}},
        {"optimizer": {"state": {"0.weight": {"exp_avg": torch.ones(7)}}}},
        {"optimizer": {"param_groups": None}},
        {"scaler": 5},
    ],
)
@pytest.mark.filterwarnings("ignore")  # of PyTorch's about sparse tensors
def test_a_state_of_which_a_part_is_another_is_refused_in_a_sentence(wrong: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Run(1).save(path, Progress(1, made_for=MADE_FOR))
    state = torch.load(path, weights_only=True)
    ((name, part),) = wrong.items()
    inner = isinstance(part, dict) and part and part.keys() <= state[name].keys()
    if inner and "state" in part:
        part["state"] = state[name]["state"] | {
            key: state[name]["state"][key] | row for key, row in part["state"].items()
        }
    state[name] = state[name] | part if inner else part
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt") as error:
        Run().load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_of_the_optimiser_that_are_not_finite_are_refused(number: float, tmp_path: Path) -> None:
    """The first step would have made the weights NaN, or, of the loss's scale, none would ever have been taken."""
    path = tmp_path / "state.pt"
    Run(2).save(path, Progress(2, made_for=MADE_FOR))
    state = torch.load(path, weights_only=True)
    state["optimizer"]["state"]["0.weight"]["exp_avg_sq"][1, 1] = number
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"The tensor '0\.weight \(exp_avg_sq\)' .* is not finite"):
        Run().load(path)
    Run(2).save(path, Progress(2, made_for=MADE_FOR))
    state = torch.load(path, weights_only=True)
    state["scaler"]["scale"] = number
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="the scale of its loss is"):
        Run().load(path)
