"""Callbacks, patience, batch=auto and the report of a run, as users have them."""

import multiprocessing
import os
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_run import rows, write_config

import knet
from knet.config import RunConfig, load_config
from knet.errors import ConfigError, TrainingError
from knet.runs import batch_size, validate
from knet.runs import train as loop
from knet.runs.callbacks import RunStart, Step, Validation
from knet.runs.state import read_state
from knet.runs.train import train


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    small = {"short_edges": [32], "max_edge": 64, "crop": [32, 32]}
    options = {"iterations": 4, "validate_every": 2, "save_every": 10, "losses": {"pixels": 64}, "augment": small}
    return load_config(write_config(tmp_path, **options))


class Listener(knet.Callback):
    """Notes what it is told, and fails when it is to."""

    def __init__(self, fails: str = "", at: int = 0) -> None:
        self.told: list[tuple[str, Any]] = []
        self.fails, self.at = fails, at

    def note(self, method: str, fact: Any, iteration: int) -> None:
        self.told.append((method, fact))
        if method == self.fails and iteration >= self.at:
            raise ValueError("no <disk>")

    def on_start(self, run: RunStart) -> None:
        self.note("on_start", run, run.iteration)

    def on_iteration(self, step: Step) -> None:
        self.note("on_iteration", step, step.iteration)

    def on_validation(self, validation: Validation) -> None:
        self.note("on_validation", validation, validation.iteration)

    def on_end(self, error: BaseException | None) -> None:
        self.note("on_end", error, 0)


def test_a_callback_is_told_how_a_run_goes(config: RunConfig) -> None:
    listener = Listener()
    folder = train(config, callbacks=[listener], log_every=3)
    begin, *between, (last, error) = listener.told
    start = begin[1]
    assert (begin[0], start.folder, start.iteration, start.classes) == ("on_start", folder, 0, ("road", "car"))
    assert start.config["batch"] == 2
    assert (last, error) == ("on_end", None)
    steps = [fact for method, fact in between if method == "on_iteration"]
    assert [(step.iteration, step.due) for step in steps] == [(n, n in (3, 4)) for n in range(1, 5)]
    assert [row["loss"] for row in rows(folder)] == [str(step.values["loss"]) for step in steps if step.due]
    found = [fact for method, fact in between if method == "on_validation"]
    assert [one.iteration for one in found] == [2, 4]
    assert found[0].best and found[0].figures["pq"] == (found[0].result["panoptic"]["all"]["pq"] or 0.0)
    assert found[0].pictures.keys() == {"val_0", "val_1", "val_2", "val_3", "confusion"}
    classes = found[1].result["panoptic"]["classes"].values()
    sums = found[1].details["panoptic"].confusion[:-1].sum(1).tolist()
    assert sums == [row["tp"] + row["fn"] for row in classes]

    page = (folder / "report.html").read_text()
    for words in ("Training run run", "Total loss", "Learning rate", "Confusion between classes", "4 of 4", "val_3"):
        assert words in page
    with Image.open(folder / "pictures" / "confusion.jpg") as image:
        assert min(image.size) > 150


@pytest.mark.parametrize(
    ("method", "at", "kept"), [pytest.param("on_iteration", 1, 1, marks=pytest.mark.large), ("on_validation", 2, 2)]
)
def test_a_run_whose_callback_fails_loses_nothing(config: RunConfig, method: str, at: int, kept: int) -> None:
    sentence = rf"The callback Listener failed in {method}: ValueError: no <disk>; the state is saved, .*--resume"
    failing, other = Listener(method, at), Listener()
    with pytest.raises(TrainingError, match=sentence) as raised:
        train(config, callbacks=[failing, other])
    assert isinstance(raised.value.__cause__, ValueError)
    assert read_state(config.output / "state.pt")["progress"]["iteration"] == kept
    assert failing.told[-1][0] == method  # it is not asked again
    assert other.told[-1] == ("on_end", raised.value)
    train(config, resume=True, callbacks=[again := Listener()])
    assert again.told[1][0] == method  # nobody has to do without a validation
    stopped = rows(config.output)
    whole = train(config.model_copy(update={"output": config.output.with_name("whole")}))
    assert stopped == rows(whole)
    assert rows(config.output, "val") == rows(whole, "val")


@pytest.mark.parametrize("method", ["on_iteration", "on_validation"])
def test_the_death_of_a_loader_process_is_not_a_callbacks_failure(config: RunConfig, method: str) -> None:
    """torch raises it wherever the run is by then: here in the midst of a callback."""

    class Killer(Listener):
        def note(self, method: str, fact: Any, iteration: int) -> None:
            if (method, iteration) == (self.fails, self.at):
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
                time.sleep(60)

    with pytest.raises(TrainingError, match=r"A process that loads images has died .*--resume"):
        train(config, callbacks=[Killer(method, 4)], workers=1)
    train(config, resume=True)
    assert [row["iteration"] for row in rows(config.output, "val")] == ["2", "4"]
    assert (config.output / "curves.png").exists()


def test_callbacks_that_fail_at_either_end(config: RunConfig) -> None:
    with pytest.raises(TrainingError, match=r"Listener failed in on_start: ValueError: no <disk>\.$"):
        train(config, callbacks=[Listener("on_start")])
    assert not (config.output / "state.pt").exists()
    with pytest.raises(TrainingError, match=r"Listener failed in on_end: ValueError: no <disk>\.$"):
        train(config, callbacks=[Listener("on_end")], iterations=1)
    assert (config.output / "best.safetensors").exists()


class Partly:
    def on_start(self, run: RunStart) -> None: ...


@pytest.mark.parametrize(
    ("callbacks", "sentence"),
    [
        ([Listener], "holds the class Listener; give an object of it"),
        ([Partly()], "has no on_iteration; derive its class from knet.Callback"),
        (Listener(), "option callbacks cannot be .*; give a list of objects"),
    ],
)
def test_what_cannot_be_a_callback(config: RunConfig, callbacks: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(config, callbacks=callbacks)
    assert not config.output.exists()


def falling(monkeypatch: pytest.MonkeyPatch, figures: list[float]) -> None:
    """Has the validations of the next run find these figures, one after the other."""
    told = iter(figures)
    monkeypatch.setattr(validate, "judge", lambda *data, **more: {})
    monkeypatch.setattr(validate, "figures_of", lambda result: {"pq": next(told)})
    monkeypatch.setattr(loop, "pictures", lambda *data: {})


@pytest.mark.large
def test_patience_ends_a_run_that_gets_no_better(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "knet")
    falling(monkeypatch, [0.5, 0.4, 0.6, 0.6, 0.1, 0.9])
    folder = train(config, patience=2, validate_every=1, iterations=6)
    assert len(rows(folder)) == 5  # an equal figure is no better one
    assert "stopped after iteration 5: 2 validations without a better figure than 60.0 (patience)" in caplog.text
    train(config, resume=True, patience=2, validate_every=1, iterations=6)
    assert len(rows(folder)) == 5
    train(config, resume=True, patience=9, validate_every=1, iterations=6)
    assert len(rows(folder)) == 6


def test_a_resumed_run_remembers_how_long_it_waited(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    falling(monkeypatch, [0.5, 0.4])
    with pytest.raises(TrainingError):
        train(config, callbacks=[Listener("on_iteration", 3)], patience=2, validate_every=1, iterations=5)
    assert read_state(config.output / "state.pt")["progress"]["stale"] == 1
    falling(monkeypatch, [0.3, 0.9])
    folder = train(config, resume=True, patience=2, validate_every=1, iterations=5)
    assert [row["pq"] for row in rows(folder, "val")] == ["0.5", "0.4", "0.3"]


def test_patience_needs_a_validation(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"patience waits for a better validation, but data\.val is null"):
        train(config, patience=2, data__val=None)


def test_the_batch_is_chosen_from_the_memory(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "knet")
    falling(monkeypatch, [0.5])
    folder = train(config, batch="auto", iterations=1)
    assert load_config(folder / "config.yaml").batch == 4
    assert "batch 4 (auto): there are 4 images; batch=N sets another" in caplog.text
    assert "learning rate" not in caplog.text
    # A resumed run keeps it, whatever the memory is now, and whatever its config says.
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 0)
    for config_again in (load_config(folder / "config.yaml"), config.model_copy(update={"batch": "auto"})):
        with ExitStack() as claim:
            started = loop._Run(config_again, True, torch.device("cpu"), claim)
            assert started.config.batch == 4


@pytest.mark.parametrize(
    ("free", "more", "batch", "why"),
    [
        (1e12, {}, 8, "a CPU computes no faster with more"),
        (1e12, {"optimizer__for_batch": 4}, 4, "the learning rate is meant for 4"),
        (1e12, {"accumulate": 3}, 6, "a CPU computes no faster with more"),
        (0, {}, 1, "an image takes some .* GB, and 0 GB are free"),
        (0, {"accumulate": 2}, 2, "an image takes some"),
    ],
)
def test_what_decides_the_batch(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, free: float, more: dict[str, Any], batch: int, why: str
) -> None:
    monkeypatch.setattr(batch_size, "free_memory", lambda device: int(free))
    options = knet.read_config(config, batch="auto", **more)
    card = loop.run_card(options, knet.load("rtknet-lite-street").categories[:2])
    chosen, line = batch_size.with_batch(options, card, 100, torch.device("cpu"), resume=False)
    assert chosen.batch == batch
    assert re.search(why, line)


def test_an_image_needs_memory_in_proportion_to_its_pixels(config: RunConfig) -> None:
    small, large = (knet.read_config(config, augment__crop=crop) for crop in ([256, 384], [512, 768]))
    card = loop.run_card(small, knet.load("rtknet-lite-street").categories[:2])
    needs = [batch_size.bytes_for_image(one, card) for one in (small, large)]
    assert needs[1] == pytest.approx(4 * needs[0], rel=0.1)
    half = batch_size.bytes_for_image(knet.read_config(large, precision="bf16"), card)
    assert half < 0.9 * needs[1]
    assert batch_size.free_memory(torch.device("cpu")) > 1e8


@pytest.mark.parametrize("value", ["many", 0, 1.5])
def test_a_batch_that_is_none(config: RunConfig, value: Any) -> None:
    with pytest.raises(ConfigError, match="option 'batch' in the config cannot be"):
        knet.read_config(config, batch=value)
