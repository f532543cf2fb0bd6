"""`knet batch`: its workers without Ray, and on a local Ray with one of two workers killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.apps import batch, batch_images
from knet.apps.batch import Job, Worker, Workers, own_sigterm, run_batch
from knet.apps.batch_images import Source, chunks, find_source, image_bytes
from knet.cli import batch as verb
from knet.cli.main import main
from knet.cli.stopping import Terminated, signals_unwind
from knet.data.categories import load_categories
from knet.errors import ConfigError, DataError, OutputError, PredictionError
from knet.files import cannot_write
from knet.inference.results import writers

FORMATS = ("json", "panoptic")
# The extra "dev" has Ray, so this skips nothing but where there is no wheel of it; all other tests do without.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray has no wheels for the newest Pythons at first")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "b.jpg", "10.png"):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(f"photos/{name}")
    return Path("photos")


def job_of(source: Source, weights: Path, **more: Any) -> Job:
    categories = tuple(load_categories("camvid"))
    return Job(source, str(weights), "out", FORMATS, categories, {"threads": 1}, **more)


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix != ".jsonl"}


def test_a_worker_writes_what_predict_writes(photos: Path, tiny_weights: Path) -> None:
    assert main(["predict", str(tiny_weights), "photos", "--formats", "json,panoptic", "--output", "whole"]) == 0
    (photos / "c.png").write_bytes(b"no picture")
    worker = Worker(job_of(find_source("photos"), tiny_weights))
    done = worker({"places": np.array(["[0, 1, 2]", "[3, 4]"])})["done"]
    rows = [row for part in done for row in json.loads(part)]
    assert [row["place"] for row in rows] == [0, 1, 2, 3, 4] and "not an image" in rows[4]["error"]
    whole = content("whole")
    document = json.loads(whole.pop("panoptic.json"))
    assert content("out") == whole
    assert [row["rows"][0][1]["segments_info"] for row in rows[:4]] == [
        annotation["segments_info"] for annotation in document["annotations"]
    ]


@pytest.mark.parametrize("tables", [False, True])
def test_an_image_over_which_workers_died_is_not_begun_again(photos: Path, tiny_weights: Path, tables: bool) -> None:
    if tables:  # of Ray, and it needs NumPy 2: the lowest versions are beside an older one
        pytest.importorskip("pyarrow")
    job = job_of(find_source("photos"), tiny_weights, tables=tables)
    Path("out").mkdir()
    deaths = Path("out/.knet-batch-tries-0")
    for times, failed in ((3, []), (4, [2])):
        deaths.write_bytes(b"2\n1\n" + (times - 1) * b"2\n")  # as they leave it
        rows = json.loads(Worker(job)({"places": np.array(["[0, 1, 2, 3]"])})["done"][0])
        assert [row["place"] for row in rows] == [0, 1, 2, 3] and not deaths.exists()
        assert [row["place"] for row in rows if "error" in row] == failed
    assert "b.jpg': a worker died 4 times over it" in rows[2]["error"]


@pytest.mark.parametrize("tables", [False, True])
def test_a_full_disk_ends_the_run_and_keeps_what_is_done(
    photos: Path, tiny_weights: Path, tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as advice of Ray on its settings, for the error of a worker comes with all of that."""
    if tables:  # of Ray, and it needs NumPy 2: the lowest versions are beside an older one
        pytest.importorskip("pyarrow")
    write, job = writers.write_files, job_of(find_source("photos"), tiny_weights, tables=tables)

    def full(result: Any, folder: Path, name: str, *more: Any) -> list[Path]:
        if name == "b":
            raise cannot_write(folder / "b_panoptic.png", "No space left on device")
        return write(result, folder, name, *more)

    def results(ray: object, job: Job, workers: Workers, parts: list[list[int]]) -> Iterator[dict[str, Any]]:
        worker = Worker(job)
        for done in worker({"places": np.array([json.dumps(part) for part in parts])})["done"]:
            yield from json.loads(done)

    monkeypatch.setattr(writers, "write_files", full)
    monkeypatch.setattr(batch, "_results", results)
    monkeypatch.setattr(batch, "_ray", lambda workers: nullcontext())
    with pytest.raises(OutputError, match=r"b_panoptic\.png': No space left .*\. What is done is kept: .* --resume\."):
        run_batch(job, Workers(), {})
    assert not Path("out/panoptic.json").exists()
    monkeypatch.setattr(writers, "write_files", write)
    done = len(find_source("photos").plan) if tables else 2
    assert run_batch(job, Workers(), {}, resume=True) == (done, {})
    assert Path("out/part-000000000.parquet" if tables else "out/panoptic.json").exists()


def test_the_truth_of_a_data_set_is_refused_before_anything_is_started(photos: Path, tiny_weights: Path) -> None:
    (photos / "panoptic.json").write_text('{"images": []}')
    with pytest.raises(ConfigError, match="would be replaced by results"):
        run_batch(replace(job_of(find_source("photos"), tiny_weights), folder="photos"), Workers(), {})


def test_parquet_in_and_out(photos: Path, tiny_weights: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    assert main(["predict", str(tiny_weights), "photos", "--formats", "json,panoptic", "--output", "whole"]) == 0
    files = sorted(photos.iterdir())
    rows = [{"file": file.name, "image": file.read_bytes()} for file in files] + [{"file": "none.png", "image": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), "pictures.parquet", row_group_size=2)
    source = find_source("pictures.parquet", "image", "file")
    assert source.plan.paths == [*(file.name for file in files), "none.png"]
    assert [image_bytes(source, place) for place in (3, 0)] == [files[3].read_bytes(), files[0].read_bytes()]
    Path("out").mkdir()
    done = json.loads(
        Worker(job_of(source, tiny_weights, tables=True, retries=0))({"places": np.array(["[0, 1, 2, 3, 4]"])})["done"][
            0
        ]
    )
    assert "holds no bytes" in done[4]["error"] and {file for row in done[:4] for file in row["files"]} == {
        "part-000000000.parquet"
    }
    table = {row["name"]: row for row in parquet.read_table("out/part-000000000.parquet").to_pylist()}
    whole = content("whole")
    same = json.loads(table["10"]["segments"])
    assert same == json.loads(whole["10_segments.json"]) and table["10"]["panoptic"] == whole["10_panoptic.png"]
    assert "segments_info" in json.loads(table["a"]["panoptic_json"])
    assert find_source("pictures.parquet").plan.paths[3] == "pictures_000003"
    with pytest.raises(ConfigError, match=r"no column 'pixels'; it has: file, image"):
        find_source("pictures.parquet", "pixels")
    Path("bad.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"'bad.parquet' as Parquet"):
        find_source("bad.parquet")


def test_images_of_a_store(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/bucket/photos/", recursive=True)
    for source in ("memory://bucket/photos", "memory://bucket/photos/*.png"):
        found = find_source(source)
        assert [Path(path).name for path in found.plan.paths][:2] == ["10.png", "a.png"]
        assert image_bytes(found, 1) == (photos / "a.png").read_bytes()
    tries: list[float] = []
    monkeypatch.setattr(batch_images.time, "sleep", tries.append)
    store.rm("/bucket/photos/a.png")
    with pytest.raises(DataError, match=r"Cannot read 'memory:.*it is not there"):
        image_bytes(found, 1, retries=2)
    assert len(tries) == 2
    with pytest.raises(DataError, match=r"There is no \.jpg or "):
        find_source("memory://nothing")
    with pytest.raises(ConfigError, match="nostore"):
        find_source("nostore://bucket/photos")


def test_chunks_do_not_depend_on_what_is_left() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([1, 4, 5, 6], 3)) == [[1], [4, 5], [6]] and list(chunks([], 3)) == []


def test_mistakes_are_told_before_anything_is_started(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(["batch", *arguments]) == 2
        return capsys.readouterr().err

    assert "There is no 'nowhere'" in said("nowhere", "out")
    assert "did you mean 'rtknet-lite-street'" in said("photos", "out", "--model", "rtknet-lite-strete")
    assert "for single images" in said("photos", "out", "--model", str(tiny_weights), "--formats", "video")
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    assert "needs Ray, which is not installed: pip install 'knet[cluster]'" in said("photos", "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("meanwhile", [True, False])
def test_sigterm_stays_the_command_lines(meanwhile: bool) -> None:
    """Ray answers it by `sys.exit(15)`, whose status says nothing of a signal."""
    with pytest.raises(Terminated), signals_unwind():
        with own_sigterm():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
            if meanwhile:
                os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


def test_no_alarm_of_ray_ends_the_process_later() -> None:
    """The handler of its C++ sets one, which aborts, if SIGTERM comes while Ray starts."""
    with pytest.raises(Terminated), signals_unwind(), own_sigterm():
        signal.alarm(100)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.alarm(0) == 0


@pytest.mark.heavy
@needs_ray
def test_two_workers_of_which_one_is_killed(photos: Path, tiny_weights: Path) -> None:
    import psutil

    for number in range(20):
        Image.open("photos/a.png").rotate(number).save(f"photos/{number:03d}.png")
    assert main(["predict", str(tiny_weights), "photos", "--formats", "json,panoptic", "--output", "whole"]) == 0
    killed: list[int] = []
    listening: set[str] = set()

    def actors() -> Iterator[Any]:
        for process in psutil.Process().children(recursive=True):
            if "MapWorker" in " ".join(process.cmdline()):
                yield process

    def kill_one() -> None:
        journal = Path("out/.knet-predict.jsonl")
        while not killed:
            time.sleep(0.05)
            if journal.exists() and journal.read_bytes().count(b"\n") > 4:
                for child in psutil.Process().children(recursive=True):
                    listening.update(one.laddr.ip for one in child.net_connections() if one.status == "LISTEN")
                process = next(actors())
                killed.append(process.pid)
                process.kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    job = job_of(find_source("photos"), tiny_weights, home=str(Path.cwd()))
    done, failed = run_batch(job, Workers(2, chunk=1), {"of": "a test"}, resume=True)
    assert killed and (done, failed) == (24, {})
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}  # nobody else's machine is spoken to
    assert content("out") == content("whole")
    assert run_batch(job, Workers(2, chunk=1), {"of": "a test"}, resume=True) == (0, {})


@pytest.mark.heavy
@needs_ray
def test_an_image_over_which_workers_die_has_failed(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New workers were started for it without end."""

    class Dying(Worker):
        def _image(self, place: int, writer: writers.ResultWriter) -> dict[str, Any]:
            return os._exit(3) if place == 1 else super()._image(place, writer)

    class Refused:
        def __init__(self, job: Job) -> None:
            raise RuntimeError("not today")

    class Wrong:
        def __init__(self, job: Job) -> None: ...

        def __call__(self, rows: dict[str, np.ndarray]) -> None:
            raise RuntimeError("not today")

    job = job_of(find_source("photos"), tiny_weights, home=str(Path.cwd()))
    monkeypatch.setattr(batch, "Worker", Dying)
    done, failed = run_batch(job, Workers(), {})
    assert (done, failed.keys()) == (3, {1}) and "a worker died 4 times over it" in failed[1]
    assert not list(Path("out").glob(".knet-batch*"))
    for worker in (Refused, Wrong):
        monkeypatch.setattr(batch, "Worker", worker)
        with pytest.raises(
            PredictionError, match="Ray's workers failed: RuntimeError: not today; what is done is kept"
        ):
            run_batch(job, Workers(), {})
