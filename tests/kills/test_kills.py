"""A few kills of each quick kind (`make kills` has them all), and what the first hundreds of them found."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import timedelta
from email.message import Message
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kill_tasks import CONTENT, SlowServer, prepare_data, tasks
from PIL import Image

from kills import free_port, rounds
from knet import distributed, files
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.samples import batches as module_of_batches
from knet.data.samples.batches import BatchPlan, Share, load_batches, loaders_needed
from knet.errors import DataError, TrainingError
from knet.files import atomic_path
from knet.weights import fetch as module
from knet.weights.fetch import fetch


@pytest.fixture(scope="module")
def port() -> Any:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "name", ["download", *(pytest.param(name, marks=pytest.mark.large) for name in ("from-labels", "from-coco"))]
)
def test_what_was_killed_leaves_nothing_half_and_comes_to_its_end_later(tmp_path: Path, port: int, name: str) -> None:
    # Of a new process: what is forked from one that has computed in threads, as this one has by now, may hang.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(kills_of, name, tmp_path, port).result() == 2


def kills_of(name: str, folder: Path, port: int) -> int:
    prepare_data(folder)
    task = tasks(folder, port)[name]
    return len(list(rounds(task, folder, 2, random.Random(0), pause=0.0 if name == "download" else 1.1)))


def test_a_download_that_died_between_two_versions_mixes_no_bytes_of_them(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has a new file; the tag of the old one was replaced, and then the machine failed."""
    monkeypatch.delenv("KNET_OFFLINE", raising=False)
    target = tmp_path / "weights.bin"
    part, tag = (target.with_name(f".weights.bin.{end}") for end in ("part", "tag"))
    part.write_bytes(b"of another file" * 1000)
    tag.write_text('"zero"')
    whole = Message.get

    def die(self: Message, name: str, failobj: Any = None) -> Any:
        if name == "Content-Length":
            raise KeyboardInterrupt
        return whole(self, name, failobj)

    address = f"http://127.0.0.1:{port}/weights.bin"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Message, "get", die)
        fetch(address, target=target)
    assert tag.read_text() == '"one"' and not target.exists()
    assert fetch(address, target=target).read_bytes() == CONTENT
    assert module.is_address(address)


@pytest.mark.parametrize("hours", [-1, 1])
def test_what_was_left_goes_also_after_the_clock_was_set(tmp_path: Path, hours: int) -> None:
    files._looked_over.clear()
    left = tmp_path / ".state.part-abcdefgh.pt"
    left.write_bytes(b"half")
    moment = time.time() + 3600 * hours
    os.utime(left, (moment, moment))
    with atomic_path(tmp_path / "state.pt") as part:
        part.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def write(folder: Path, value: int) -> None:
    with PanopticWriter(folder / "panoptic.json", folder / "panoptic") as writer:
        writer.add({"id": 1, "file_name": "1.jpg"}, "1.png", np.full((2, 3), value), [SegmentRow(value, 1)])
        writer.finish([{"id": 1, "name": "road", "isthing": 0}])


def test_a_data_set_that_was_killed_before_its_json_was_in_place_can_be_made_again(tmp_path: Path) -> None:
    write(tmp_path, 5)
    hidden = tmp_path / ".panoptic.part-abcdefgh"
    hidden.mkdir()
    (tmp_path / "panoptic.json").rename(hidden / "panoptic.json")
    os.utime(hidden, (0, 0))
    files._looked_over.clear()
    write(tmp_path, 7)
    assert np.asarray(Image.open(tmp_path / "panoptic" / "1.png"))[0, 0].tolist() == [7, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panoptic", "panoptic.json"]
    (tmp_path / "panoptic.json").unlink()  # PNGs that lie there for another reason are nobody's to remove
    with pytest.raises(DataError, match="panoptic exists already"):
        write(tmp_path, 9)


class Deadly:
    """Samples whose loader process is killed at the third batch."""

    shares = (Share(4, 4),)
    collate = staticmethod(list)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, draw: Any) -> int:
        if draw.iteration == 2:
            os.kill(os.getpid(), 9)
        return int(draw.image)

    def name(self, number: int) -> str:
        return str(number)


def test_a_loader_process_that_dies_is_one_sentence() -> None:
    batches = load_batches(Deadly(), BatchPlan(4, 2, 0), workers=1)
    sentence = r"A process that loads images has died \(DataLoader worker .*--resume"
    with pytest.raises(TrainingError, match=sentence), loaders_needed(), closing(batches):
        for _ in range(4):
            next(batches)
    with pytest.raises(RuntimeError, match="another"), loaders_needed():
        raise RuntimeError("another fault")


@pytest.mark.parametrize("fault", [ConnectionResetError(104, "Connection reset by peer"), EOFError()], ids=repr)
def test_a_loader_process_that_dies_while_its_batch_is_fetched(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> Iterator[Any]:
        yield "a batch"
        raise fault

    monkeypatch.setattr(module_of_batches, "DataLoader", dies)
    batches = load_batches(Deadly(), BatchPlan(4, 2, 0), workers=1)
    with pytest.raises(TrainingError, match=r"has died \((.*Connection reset|EOFError).*--resume"), closing(batches):
        assert next(batches) == "a batch"
        next(batches)


def test_other_loader_processes_say_nothing_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    module_of_batches._leave_signals_to_the_run(0)
    sys.excepthook(EOFError, EOFError(), None)
    assert not capsys.readouterr().err
    sys.excepthook(ValueError, ValueError("another"), None)
    assert "another" in capsys.readouterr().err


def test_the_others_of_a_run_end_with_one_sentence_when_one_process_dies() -> None:
    code = (
        "import os, torch; from knet.distributed import gather_numbers, joined, rank\n"
        "from knet.errors import TrainingError\n"
        "try:\n"
        "    with joined(torch.device('cpu')):\n"
        "        gather_numbers([1])\n"
        "        if rank() == 1: os._exit(9)\n"
        "        gather_numbers([1])\n"
        "except TrainingError as error: print(error)"
    )
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=2400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 9]
    assert "Process 0 of 2 waits in vain for another one" in said[0] and "--resume" in said[0] and not said[1]


@pytest.mark.parametrize(("rank", "mute"), [("0", False), ("1", False), ("1", True)])
def test_a_process_whose_companion_never_comes_or_stands_still_does_not_wait_for_ever(
    rank: str, mute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # one that accepts and says nothing, as after SIGSTOP
        port = server.getsockname()[1] if mute else free_port()
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in (place | {"MASTER_PORT": str(port)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(distributed, "_MEETING", timedelta(seconds=1))
        sentence = f"Process {rank} of 2 waits in vain for another one.*--resume"
        with pytest.raises(TrainingError, match=sentence), distributed.joined(torch.device("cpu")):
            pass
