"""What a run writes down: rows, pictures and curves in its folder, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knet.errors import ConfigError, OutputError
from knet.runs.plots import group_losses, plot_run, read_columns, smoothed
from knet.runs.record import RunRecord

PICTURE = np.full((8, 12, 3), (200, 30, 30), np.uint8)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_run(folder: Path, start: int, stop: int) -> None:
    with RunRecord(folder, start) as record:
        for iteration in range(start + 1, stop + 1):
            record.log("train", iteration, {"loss": 1 / iteration, "rate": 0.5})
            if iteration % 4 == 0:
                record.log("val", iteration, {"pq": iteration / 100})


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_a_resumed_run_reads_as_one_that_never_stopped(tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "whole", 0, 12)
    write_run(tmp_path / "stopped", 0, 9)
    write_run(tmp_path / "stopped", 6, 12)
    for name in ("train.csv", "val.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    scalars = [(event.step, event.value) for event in events(tmp_path / "stopped").Scalars("train/loss")]
    assert scalars == [(i, pytest.approx(1 / i)) for i in range(1, 13)]


@settings(max_examples=40)
@given(data=st.data())
def test_a_row_that_was_cut_off_is_none(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A kill may leave the file at any length beyond the rows that were on the disk when the state was saved."""
    folder = tmp_path_factory.mktemp("run")
    with RunRecord(folder, 0) as record:
        for iteration in range(95, 103):
            record.log("train", iteration, {"loss": 0.25, "rate": iteration})
    whole = (folder / "train.csv").read_bytes()
    saved = data.draw(st.integers(95, 102), label="iteration of the state")
    least = whole.index(f"\n{saved},".encode()) + len(f"\n{saved},0.25,{saved}\r\n")
    (folder / "train.csv").write_bytes(whole[: data.draw(st.integers(least, len(whole)), label="length")])
    with RunRecord(folder, saved) as record:
        for iteration in range(saved + 1, 103):
            record.log("train", iteration, {"loss": 0.25, "rate": iteration})
    assert (folder / "train.csv").read_bytes() == whole


def test_new_columns_of_a_resumed_run(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 4)
    with RunRecord(tmp_path, 4) as record:
        record.log("train", 5, {"loss": 0.2, "norm": 7.0})
        record.log("train", 6, {"loss": 0.1, "rate": 0.5, "norm": 8.0})
    found = rows(tmp_path / "train.csv")
    assert [row["iteration"] for row in found] == ["1", "2", "3", "4", "5", "6"]
    assert [row["rate"] for row in found] == ["0.5"] * 4 + ["", "0.5"]
    assert [row["norm"] for row in found] == [""] * 4 + ["7.0", "8.0"]
    assert all(None not in row and None not in row.values() for row in found)


def test_a_repeated_iteration_takes_the_place_of_its_row(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 8)
    with RunRecord(tmp_path, 8) as record:  # killed after it validated, before that was saved
        record.log("val", 8, {"pq": 0.9})
        record.log("val", 12, {"pq": 0.95})
    assert [(row["iteration"], row["pq"]) for row in rows(tmp_path / "val.csv")] == [
        ("4", "0.04"),
        ("8", "0.9"),
        ("12", "0.95"),
    ]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with RunRecord(tmp_path, 0, wandb="project", active=False) as record:
        record.log("train", 1, {"loss": 5.0})
        record.pictures(1, {"a": PICTURE})
        record.plot()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_pictures(tmp_path: Path) -> None:
    with RunRecord(tmp_path, 0) as record:
        record.pictures(1, {"city/one": PICTURE * 0})
        record.pictures(2, {"city/one": PICTURE})
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "city_one.jpg"
    with Image.open(path) as image:
        assert np.abs(np.asarray(image).astype(int) - PICTURE).max() < 10
    assert [event.step for event in events(tmp_path).Images("pictures/city/one")] == [1, 2]


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_run(tmp_path, 0, 4)
    with RunRecord(tmp_path, 4) as record:
        record.pictures(4, {"a": PICTURE})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "train.csv", "val.csv"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "train.csv").mkdir()
    with RunRecord(tmp_path, 0) as record, pytest.raises(OutputError, match=r"Cannot write '.*train\.csv'"):
        record.log("train", 1, {"loss": 1.0})


class FakeWandb(ModuleType):
    """Stands in for the package: keeps what it is told."""

    class Error(Exception):
        pass

    def __init__(self, fails: str | None = None) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished: list[int] = []
        self.fails = fails

    def init(self, **options: Any) -> SimpleNamespace:
        if self.fails:
            raise self.Error(self.fails)
        self.started.append(options)
        return SimpleNamespace(
            id=options["id"] or f"id{len(self.started)}",
            log=lambda values, step: self.logged.append((step, values)),
            finish=lambda exit_code: self.finished.append(exit_code),
        )

    def Image(self, picture: np.ndarray) -> tuple[str, np.ndarray]:  # noqa: N802
        return ("image", picture)


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with RunRecord(tmp_path, 0, wandb="streets", config={"batch": 2}) as record:
        record.log("train", 1, {"loss": 0.5})
        record.pictures(1, {"a": PICTURE})
    first = wandb.started[0]
    assert (first["project"], first["config"], first["name"]) == ("streets", {"batch": 2}, tmp_path.name)
    assert first["id"] is None and first["dir"] == str(tmp_path)
    assert wandb.logged == [(1, {"train/loss": 0.5}), (1, {"pictures/a": ("image", PICTURE)})]

    with pytest.raises(ValueError, match="stop"), RunRecord(tmp_path, 1, wandb="streets"):
        raise ValueError("stop")
    assert (wandb.started[1]["id"], wandb.started[1]["resume"]) == ("id1", "allow")
    with RunRecord(tmp_path, 0, wandb="streets"):  # from the beginning: another run
        pass
    assert wandb.started[2]["id"] is None
    assert (tmp_path / "wandb_run.txt").read_text() == "id3"
    assert wandb.finished == [0, 1, 0]


def test_weights_and_biases_is_not_there_or_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What Python makes of a mere folder of that name, which runs leave behind, can be imported but is empty.
    for module in (None, ModuleType("wandb")):
        monkeypatch.setitem(sys.modules, "wandb", module)
        with pytest.raises(ConfigError, match=r"install knet\[wandb\]"):
            RunRecord(tmp_path, 0, wandb="streets")
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(fails="no API key\nconfigured"))
    with pytest.raises(ConfigError, match=r"does not start: no API key configured; .*WANDB_MODE=offline"):
        RunRecord(tmp_path, 0, wandb="streets")
    assert not list(tmp_path.iterdir())


def drawn(folder: Path) -> np.ndarray:
    with Image.open(folder / "curves.png") as image:
        return np.asarray(image.convert("RGB"))


def test_curves_of_whole_and_of_poor_runs(tmp_path: Path) -> None:
    assert plot_run(tmp_path) is None
    (tmp_path / "train.csv").write_text("")
    (tmp_path / "val.csv").write_text("iteration,pq\n")
    assert plot_run(tmp_path) is None and not (tmp_path / "curves.png").exists()
    pictures = []
    for text in (
        "iteration,loss\n20,1.5\n",
        "iteration,seconds\n20,0.5\n",
        "iteration,loss,rate,s1_loss_dice\n20,1.5,0.1,1\n40,nan,,x\n60,-1,0.2,2\n80",
        "iteration,loss,s1_loss_dice\n" + "".join(f"{i},{3 / i},{2 / i}\n" for i in range(1, 200)),
    ):
        (tmp_path / "train.csv").write_text(text)
        assert plot_run(tmp_path) == tmp_path / "curves.png"
        pictures.append(drawn(tmp_path))
    (tmp_path / "val.csv").write_text("iteration,pq,sq,miou\n100,0.2,0.5,0.3\n199,0.4,,0.35\n")
    plot_run(tmp_path)
    pictures.append(drawn(tmp_path))
    assert all(picture.shape == pictures[0].shape for picture in pictures)
    assert all((a != b).any() for a, b in pairwise(pictures))
    height, width = pictures[0].shape[:2]
    before, after = (picture[height // 2 :, width // 2 :] for picture in pictures[-2:])
    assert (before != after).any()  # the metrics are in the lower right
    assert not list(tmp_path.glob(".*"))


def test_record_plots(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 8)
    with RunRecord(tmp_path, 8) as record:
        record.plot()
    assert drawn(tmp_path).std() > 0


def test_columns_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    assert read_columns(path) == {}
    path.write_text("iteration,loss,rate\n1,0.5,\n,7,7\n2,x,0.25\n3")
    columns = read_columns(path)
    np.testing.assert_array_equal(columns["iteration"], [1, 2, 3])
    np.testing.assert_array_equal(columns["loss"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(columns["rate"], [np.nan, 0.25, np.nan])


def test_losses_are_grouped_over_the_stages() -> None:
    one = np.array([1.0, 2.0])
    groups = group_losses({"loss": one * 9, "s1_loss_cls": one, "s12_loss_cls": one, "loss_seg": one, "rate": one})
    assert {name: values.tolist() for name, values in groups.items()} == {"classes": [2.0, 4.0], "semantic": [1.0, 2.0]}


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6)), min_size=1, max_size=90))
def test_smoothing_stays_between_the_neighbours(values: list[float]) -> None:
    array = np.array(values)
    smooth, reach = smoothed(array), len(values) // 20
    np.testing.assert_array_equal(np.isfinite(smooth), np.isfinite(array))
    for i in np.flatnonzero(np.isfinite(array)):
        near = array[max(i - reach, 0) : i + reach + 1]
        assert np.nanmin(near) - 1e-6 <= smooth[i] <= np.nanmax(near) + 1e-6
