"""What a run writes down: rows, pictures and curves in its folder, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import os
import subprocess
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
from knet.runs.callbacks import (
    CSV,
    Callback,
    Curves,
    MLflow,
    Pictures,
    RunStart,
    Step,
    TensorBoard,
    Validation,
    WeightsAndBiases,
)
from knet.runs.callbacks.rows import _Rows
from knet.runs.report.plots import group_losses, plot_run, read_columns, smoothed

PICTURE = np.full((8, 12, 3), (200, 30, 30), np.uint8)


class Recorded:
    """Tells callbacks of a run: `with Recorded(folder, start, CSV()) as run: run.log("train", 1, {"loss": 0.5})`."""

    def __init__(self, folder: Path, start: int, *callbacks: Callback) -> None:
        self.callbacks = callbacks or (CSV(), TensorBoard(), Pictures(), Curves())
        self.start = RunStart(folder, start, {"batch": 2, "data": {"train": [{"images": "a"}]}})

    def log(self, kind: str, iteration: int, values: dict[str, float], due: bool = True) -> None:
        for callback in self.callbacks:
            if kind == "train":
                callback.on_iteration(Step(iteration, values, due))
            else:
                callback.on_validation(Validation(iteration, values))

    def pictures(self, iteration: int, pictures: dict[str, np.ndarray]) -> None:
        for callback in self.callbacks[1:] or self.callbacks:
            callback.on_validation(Validation(iteration, {}, pictures=pictures))

    def __enter__(self) -> Recorded:
        for callback in self.callbacks:
            callback.on_start(self.start)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for callback in self.callbacks:
            callback.on_end(error)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_run(folder: Path, start: int, stop: int) -> None:
    with Recorded(folder, start) as record:
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
    with Recorded(folder, 0) as record:
        for iteration in range(95, 103):
            record.log("train", iteration, {"loss": 0.25, "rate": iteration})
    whole = (folder / "train.csv").read_bytes()
    saved = data.draw(st.integers(95, 102), label="iteration of the state")
    least = whole.index(f"\n{saved},".encode()) + len(f"\n{saved},0.25,{saved}\r\n")
    (folder / "train.csv").write_bytes(whole[: data.draw(st.integers(least, len(whole)), label="length")])
    with Recorded(folder, saved) as record:
        for iteration in range(saved + 1, 103):
            record.log("train", iteration, {"loss": 0.25, "rate": iteration})
    assert (folder / "train.csv").read_bytes() == whole


def test_new_columns_of_a_resumed_run(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 4)
    with Recorded(tmp_path, 4) as record:
        record.log("train", 5, {"loss": 0.2, "norm": 7.0})
        record.log("train", 6, {"loss": 0.1, "rate": 0.5, "norm": 8.0})
    found = rows(tmp_path / "train.csv")
    assert [row["iteration"] for row in found] == ["1", "2", "3", "4", "5", "6"]
    assert [row["rate"] for row in found] == ["0.5"] * 4 + ["", "0.5"]
    assert [row["norm"] for row in found] == [""] * 4 + ["7.0", "8.0"]
    assert all(None not in row and None not in row.values() for row in found)


def test_a_repeated_iteration_takes_the_place_of_its_row(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 8)
    with Recorded(tmp_path, 8) as record:  # killed after it validated, before that was saved
        record.log("val", 8, {"pq": 0.9})
        record.log("val", 12, {"pq": 0.95})
    assert [(row["iteration"], row["pq"]) for row in rows(tmp_path / "val.csv")] == [
        ("4", "0.04"),
        ("8", "0.9"),
        ("12", "0.95"),
    ]


def test_iterations_between_the_rows_are_not_written(tmp_path: Path) -> None:
    with Recorded(tmp_path, 0) as record:
        for iteration in range(1, 7):
            record.log("train", iteration, {"loss": 0.5}, due=iteration % 3 == 0)
    assert [row["iteration"] for row in rows(tmp_path / "train.csv")] == ["3", "6"]
    assert [event.step for event in events(tmp_path).Scalars("train/loss")] == [3, 6]


@pytest.mark.parametrize("kind", ["nowhere", "pipe"])
def test_a_planted_csv_is_neither_followed_nor_waited_for(kind: str, tmp_path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "train.csv")
    else:
        (tmp_path / "train.csv").symlink_to(tmp_path / "new")
    with pytest.raises(OutputError, match="it is a link, a folder, a device or a pipe"):
        _Rows(tmp_path / "train.csv", 0).append({"iteration": 1, "loss": 0.5})
    assert not (tmp_path / "new").exists()


def test_pictures(tmp_path: Path) -> None:
    with Recorded(tmp_path, 0) as record:
        record.pictures(1, {"city/one": PICTURE * 0})
        record.pictures(2, {"city/one": PICTURE})
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "city_one.jpg"
    with Image.open(path) as image:
        assert np.abs(np.asarray(image).astype(int) - PICTURE).max() < 10
    assert [event.step for event in events(tmp_path).Images("pictures/city/one")] == [1, 2]


def test_a_disk_that_is_full_for_tensorboard_is_one_sentence(tmp_path: Path) -> None:
    """Its thread meets it, and Python prints what a thread ends with."""
    code = (
        "import resource, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from knet.errors import OutputError; from knet.runs.callbacks.tensorboard import TensorBoard\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); board = TensorBoard()\n"
        "board.on_start(SimpleNamespace(folder=Path(sys.argv[1]), iteration=0))\n"
        "try:\n for n in range(10**5): board._add('train', {'loss': 1.0}, n)\n"
        "except OutputError as error: board.on_end(error); sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "tensorboard': File too large" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_run(tmp_path, 0, 4)
    with Recorded(tmp_path, 4) as record:
        record.pictures(4, {"a": PICTURE})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "pictures", "train.csv", "val.csv"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "train.csv").mkdir()
    with Recorded(tmp_path, 0, CSV()) as record, pytest.raises(OutputError, match=r"Cannot write '.*train\.csv'"):
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
    with Recorded(tmp_path, 0, WeightsAndBiases("streets")) as record:
        record.log("train", 1, {"loss": 0.5})
        record.log("train", 2, {"loss": 0.4}, due=False)
        record.pictures(2, {"a": PICTURE})
    first = wandb.started[0]
    assert (first["project"], first["config"]["batch"], first["name"]) == ("streets", 2, tmp_path.name)
    assert first["id"] is None and first["dir"] == str(tmp_path)
    assert wandb.logged == [(1, {"train/loss": 0.5}), (2, {"pictures/a": ("image", PICTURE)})]

    with pytest.raises(ValueError, match="stop"), Recorded(tmp_path, 1, WeightsAndBiases("streets")):
        raise ValueError("stop")
    assert (wandb.started[1]["id"], wandb.started[1]["resume"]) == ("id1", "allow")
    with Recorded(tmp_path, 0, WeightsAndBiases("streets")):  # from the beginning: another run
        pass
    assert wandb.started[2]["id"] is None
    assert (tmp_path / "wandb_run.txt").read_text() == "id3"
    assert wandb.finished == [0, 1, 0]


def test_weights_and_biases_is_not_there_or_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What Python makes of a mere folder of that name, which runs leave behind, can be imported but is empty.
    for module in (None, ModuleType("wandb")):
        monkeypatch.setitem(sys.modules, "wandb", module)
        with pytest.raises(ConfigError, match=r"install knet\[wandb\]"):
            WeightsAndBiases("streets").on_start(RunStart(tmp_path))
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(fails="no API key\nconfigured"))
    with pytest.raises(ConfigError, match=r"does not start: no API key configured; .*WANDB_MODE=offline"):
        WeightsAndBiases("streets").on_start(RunStart(tmp_path))
    assert not list(tmp_path.iterdir())


class FakeMlflow(ModuleType):
    """Stands in for the package: keeps what its client is told."""

    class MlflowException(Exception):  # noqa: N818
        pass

    def __init__(self, fails: str | None = None) -> None:
        super().__init__("mlflow")
        self.told: list[tuple[Any, ...]] = []
        self.fails = fails

    def MlflowClient(self) -> Any:  # noqa: N802
        if self.fails:
            raise self.MlflowException(self.fails)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return None if name == "new" else SimpleNamespace(experiment_id="7")

    def create_experiment(self, name: str) -> str:
        return "8"

    def create_run(self, number: str, run_name: str) -> Any:
        self.told.append(("run", number, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id{number}"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *facts, **more: self.told.append((name, *facts, *more.values()))


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    with Recorded(tmp_path, 0, MLflow("new")) as record:
        record.log("train", 1, {"loss": 0.5})
        record.log("train", 2, {"loss": 0.4}, due=False)
        record.pictures(2, {"a/b": PICTURE})
    assert mlflow.told[0] == ("run", "8", tmp_path.name)
    assert ("log_param", "id8", "batch", "2") in mlflow.told
    assert ("log_param", "id8", "data.train.0.images", "a") in mlflow.told
    assert [fact for fact in mlflow.told if fact[0] == "log_metric"] == [("log_metric", "id8", "train/loss", 0.5, 1)]
    assert [fact[3] for fact in mlflow.told if fact[0] == "log_image"] == ["pictures/a_b_2.png"]
    assert mlflow.told[-1] == ("set_terminated", "id8", "FINISHED")
    mlflow.told.clear()
    with pytest.raises(ValueError, match="stop"), Recorded(tmp_path, 1, MLflow("new")):
        raise ValueError("stop")
    assert mlflow.told == [("update_run", "id8", "RUNNING"), ("set_terminated", "id8", "FAILED")]


def test_mlflow_is_not_there_or_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"install knet\[mlflow\]"):
        MLflow("streets").on_start(RunStart(tmp_path))
    monkeypatch.setitem(sys.modules, "mlflow", FakeMlflow(fails="no server\nthere"))
    with pytest.raises(ConfigError, match=r"does not start: no server there; .*MLFLOW_TRACKING_URI"):
        MLflow("streets").on_start(RunStart(tmp_path))
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
