"""knet bench: figures that add up, as a table and as JSON, and sentences where it cannot measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run, runner

from knet.errors import ConfigError
from knet.inference import bench
from knet.inference.bench import PeakMemory, measure, open_model, photo
from tiny_models import tiny_file

SMALL = ("--size", "64x96", "--rounds", "1", "--device", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture(autouse=True)
def _little_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WARM_UP", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {task: tiny_file(task, folder) for task in ("panoptic", "instance", "semantic", "clip")}


def test_figures_of_every_task(run: Run, files: dict[str, Path]) -> None:
    for task, file in files.items():
        status, out, err = run("bench", str(file), *SMALL, "--json")
        assert status == 0, err
        found = json.loads(out)
        (row,) = found["measurements"]
        assert found["backend"] == "torch" and not found["random_weights"]
        assert row["size"] == [64, 96] and row["rounds"] == 1
        assert 0 < row["median"] <= row["p95"] <= row["p99"]
        assert row["throughput"] > 0 and row["gflops"] > 0
        if task == "clip":
            assert row["steps"] == {}
        else:
            assert list(row["steps"]) == list(bench.STEPS)
            assert all(value > 0 for value in row["steps"].values())


def test_a_line_for_each_precision_and_size(run: Run, files: dict[str, Path]) -> None:
    threads = torch.get_num_threads()
    try:
        options = ("--size", "64x96", "96x64", "--precision", "fp32", "bf16", "--rounds", "1", "--threads", "1")
        status, out, err = run("bench", str(files["panoptic"]), *options, "--device", "cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert status == 0, err
    title, head, *lines = out.splitlines()
    assert "knet-r50-coco-panoptic, torch" in title and "1 thread," in title and "random" not in out
    assert head.split()[:2] == ["size", "precision"]
    assert [line.split()[:2] for line in lines] == [
        [size, precision] for precision in ("fp32", "bf16") for size in ("64x96", "96x64")
    ]


def test_models_without_weights_are_measured_with_random_ones_and_say_so(run: Run, monkeypatch: Any) -> None:
    small = {"width": 8, "head_width": 16, "channels": 16, "kernels": 5, "stages": 1, "classes": 19}
    create = bench.create
    monkeypatch.setattr(bench, "create", lambda name: create(name, **small))
    status, out, err = run("bench", "rtknet-cityscapes", *SMALL)
    assert status == 0, err
    assert "random weights" in out


def test_the_arithmetic_is_that_of_knet_models(files: dict[str, Path]) -> None:
    from knet.inference.cost import cost, count_flops
    from knet.models.zoo import create, entry

    counted, divisor = cost("rtknet-slim-camvid"), entry("rtknet-slim-camvid").preprocessing.divisor
    assert count_flops(create("rtknet-slim-camvid").eval(), divisor, counted.size) == counted.flops


def test_time_is_shared_among_the_steps(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by one second for each look at it."""
    segmenter, random = open_model(str(files["panoptic"]), None, "cpu", "fp32", compile=False)
    assert not random
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(bench.time, "perf_counter", clock)
    found = measure(segmenter, (64, 96), rounds=3)
    assert (found.median, found.p99, found.throughput) == (1000, 1000, 1)
    assert found.steps == dict.fromkeys(bench.STEPS, 1000.0)


def test_peak_memory_sees_what_was_held_for_a_moment() -> None:
    memory = PeakMemory(torch.device("cpu"))
    if memory.above() is None:
        pytest.skip("this system does not tell a process's memory")
    torch.ones(40_000_000).sum()
    assert memory.above() > 100  # type: ignore[operator]  # of 160 MB


def test_the_photo_has_the_size_that_was_asked_for() -> None:
    assert photo((48, 80)).shape == (48, 80, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "nothing"),
        (("MODEL", "--precision", "int8"), "'int8' is not one of: auto, fp32, bf16, fp16"),
        (("MODEL", "--device", "quantum"), "device 'quantum' cannot be used"),
        (("MODEL", "--weights", "nowhere.pth"), "nowhere.pth"),
        (("MODEL", "--rounds", "0"), "0 rounds"),
        (("MODEL", "--threads", "0"), "threads=0 (--threads) is too few"),
        (("MODEL", "--merge", "sorted"), "merge is for panoptic models"),
        (("nowhere.xml",), "nowhere.xml"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    run: Run, files: dict[str, Path], arguments: tuple[str, ...], words: str
) -> None:
    file = str(files["semantic"] if "--merge" in arguments else files["panoptic"])
    status, _, err = run("bench", *(file if word == "MODEL" else word for word in arguments))
    assert status == 2 and words in err and "Traceback" not in err and err.count("\n") == 1


@pytest.mark.parametrize("size", ["64", "64x", "0x96", "large"])
def test_a_size_is_height_by_width(run: Run, size: str) -> None:
    status, _, err = run("bench", "rtknet-lite-street", "--size", size)
    assert status == 2 and f"'{size}' is not HEIGHTxWIDTH" in err


def test_fewer_than_one_round_is_refused_from_python(files: dict[str, Path]) -> None:
    segmenter, _ = open_model(str(files["panoptic"]), None, "cpu", "fp32", compile=False)
    with pytest.raises(ConfigError, match="0 rounds of 64x96"):
        measure(segmenter, (64, 96), rounds=0)
