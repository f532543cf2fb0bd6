"""A run folder, or a data set, that two processes make at the same time."""

import fcntl
import multiprocessing
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_config

from knet.config import load_config
from knet.data.make.from_export import import_export
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.errors import ConfigError, DataError
from knet.files import claimed
from knet.runs.train import only_run, open_folder

CONTEXT = multiprocessing.get_context("spawn")


def hold(path: Path, held: Event, let_go: Event) -> None:
    with claimed(path):
        held.set()
        let_go.wait(120)


def test_a_second_run_in_the_folder_of_a_living_one_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path))
    config.output.mkdir()
    held, let_go = CONTEXT.Event(), CONTEXT.Event()
    holder = CONTEXT.Process(target=hold, args=(config.output / ".knet-train.lock", held, let_go))
    holder.start()
    try:
        assert held.wait(120)
        with ExitStack() as claim, pytest.raises(ConfigError, match=r"Another run is going on in the folder '.*run'"):
            open_folder(config, claim)
        with pytest.raises(ConfigError, match="wait for it, or set another output"), only_run(config.output):
            pass
        assert not (config.output / "config.yaml").exists()
    finally:
        let_go.set()
        holder.join()
    with ExitStack() as claim:
        open_folder(config, claim)
    assert [path.name for path in config.output.iterdir()] == ["config.yaml"]


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had it ends between opening and locking: a third one would make the file anew, and two would have it."""
    lock, really = tmp_path / "lock", fcntl.lockf

    def late(descriptor: int, how: int) -> None:
        lock.unlink()
        really(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    with pytest.raises(BlockingIOError), claimed(lock):
        pass


def write(writer: PanopticWriter, number: int) -> None:
    writer.add({"id": 1, "file_name": "a.png"}, "a.png", np.full((4, 5), number), [SegmentRow(number, 1)])
    writer.finish([{"id": 1, "name": "car"}])


def test_of_two_that_make_the_same_data_set_the_second_to_finish_is_refused(tmp_path: Path) -> None:
    """It replaced what the first had made, though nobody had asked for that."""
    json, masks = tmp_path / "panoptic.json", tmp_path / "panoptic"
    with PanopticWriter(json, masks) as first, PanopticWriter(json, masks) as second:
        write(first, 1)
        whole = json.read_bytes()
        with pytest.raises(DataError, match=r"panoptic\.json exists already"):
            write(second, 2)
    assert json.read_bytes() == whole and [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []
    with PanopticWriter(json, masks, overwrite=True) as third:
        write(third, 3)
    assert json.read_bytes() != whole


def test_an_import_does_not_replace_what_came_while_it_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_run import make_data

    import knet.data.make.from_export as module

    source, target, real = make_data(tmp_path / "data"), tmp_path / "out", module._write

    def meanwhile(*args: object) -> int:
        (target / "mine").mkdir(parents=True, exist_ok=True)
        return real(*args)  # type: ignore[arg-type]

    (source / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "images/0.png", "width": 96, "height": 64}], "categories": [{"id": 1, '
        '"name": "car"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, '
        '"segmentation": [[1, 1, 30, 1, 30, 30]], "bbox": [1, 1, 29, 29], "area": 400}]}'
    )
    monkeypatch.setattr(module, "_write", meanwhile)
    with pytest.raises(DataError, match=r"out exists already; remove it"):
        import_export(source / "coco.json", target)
    assert (target / "mine").is_dir()
