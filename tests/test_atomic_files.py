"""Files that are whole or not there, whoever else writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet import files
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.synthetic.layouts import whole_folder
from knet.errors import OutputError
from knet.files import atomic_path, claimed, hidden_folder


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OutputError, match="it is a device or a pipe"), atomic_path(tmp_path / name):
            pass
        assert (tmp_path / name).is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_threads_that_write_one_file_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    seen: list[bytes] = []

    def write(number: int) -> None:
        for _ in range(20):
            with atomic_path(target) as part, part.open("wb") as file:
                for _ in range(50):
                    file.write(bytes([number]) * 997)
            seen.append(target.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(seen) == 160
    assert all(len(content) == 50 * 997 and len(set(content)) == 1 for content in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["state.bin"]


def test_a_link_that_somebody_planted_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f".a.part{os.getpid()}.txt").symlink_to(precious)
    (folder / ".a.part-12345678.txt").symlink_to(precious)
    with atomic_path(folder / "a.txt") as part:
        part.write_text("new")
    assert precious.read_text() == "mine"
    assert (folder / "a.txt").read_text() == "new"


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from knet.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'a.bin') as part:\n"
        "    part.write_bytes(b'half'); print('ready', flush=True); time.sleep(600)"
    )
    files._looked_over.clear()
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        parts = sorted(tmp_path.glob(".a.part-*.bin"))
        assert len(parts) == 2
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        long_ago = time.time() - 60
        for part in parts:
            os.utime(part, (long_ago, long_ago))
        with atomic_path(tmp_path / "b.bin") as part:
            part.write_bytes(b"whole")
        assert len(list(tmp_path.glob(".a.part-*.bin"))) == 1
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


@pytest.mark.parametrize("make", ["mkstemp", "mkdtemp"])
def test_a_part_that_is_taken_for_a_dead_ones_before_it_is_locked_is_made_again(
    make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process does that starts meanwhile, to which a clock that jumped says that the part is old."""
    real, made = getattr(files.tempfile, make), list[str]()

    def removed_at_once(*words: object) -> object:
        result = real(*words)
        made.append(result[1] if make == "mkstemp" else result)
        if len(made) == 1:
            os.utime(made[0], (0, 0))
            files._remove_if_dead(made[0])
            assert not Path(made[0]).exists()
        return result

    monkeypatch.setattr(files.tempfile, make, removed_at_once)
    writing = atomic_path(tmp_path / "a.bin") if make == "mkstemp" else hidden_folder(tmp_path / "a")
    with writing as part:
        assert part.exists() and len(made) == 2
        os.utime(part, (0, 0))
        files._remove_if_dead(str(part))
        assert part.exists()


def test_what_died_a_moment_ago_or_in_the_future_is_removed_as_well(tmp_path: Path) -> None:
    for number, age in enumerate((0.0, 1e9, -1e9)):
        part = tmp_path / f".a.part-{number}.bin"
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age, time.time() - age))
    files._looked_over.clear()
    with atomic_path(tmp_path / "b.bin") as part:
        assert list(tmp_path.iterdir()) == [part]


def test_what_is_left_of_a_folder_is_removed_unless_its_writer_lives(tmp_path: Path) -> None:
    files._looked_over.clear()
    long_ago = time.time() - 60
    dead, precious = tmp_path / ".set.part-abcdefgh", tmp_path / "precious"
    for folder in (dead / "masks", precious):
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(b"half")
    (tmp_path / ".set.part-link").symlink_to(precious)
    os.utime(dead, (long_ago, long_ago))
    with hidden_folder(tmp_path / "set") as living:
        assert not dead.exists() and (precious / "0.png").exists()
        (living / "0.png").write_bytes(b"half")
        os.utime(living, (long_ago, long_ago))
        files._looked_over.clear()
        with hidden_folder(tmp_path / "set") as other:
            assert living != other and (living / "0.png").exists()
            assert living.stat().st_mode == precious.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.part-link", "precious"]


def test_writers_of_one_data_set_never_mix(tmp_path: Path) -> None:
    """The second begins while the first is at work, as processes do that are given the same output."""

    def write(writer: PanopticWriter, numbers: range, value: int) -> None:
        for number in numbers:
            row = {"id": number, "file_name": f"{number}.jpg"}
            writer.add(row, f"{number}.png", np.full((2, 3), value), [SegmentRow(value, 1)])

    json = tmp_path / "panoptic.json"
    first, second = (PanopticWriter(json, tmp_path / "panoptic") for _ in range(2))
    with first:
        write(first, range(3), 5)
        with second:
            write(second, range(2), 7)
            write(first, range(3, 5), 5)
            first.finish([{"id": 1, "name": "road"}])
    masks = sorted((tmp_path / "panoptic").iterdir())
    assert [np.asarray(Image.open(path))[0, 0, 0] for path in masks] == [5] * 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panoptic", "panoptic.json"]


def test_the_usual_folder_of_a_hidden_one_may_be_a_planted_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in (".set.partial", ".set.part-"):
        (tmp_path / name).symlink_to(precious)
    with whole_folder(tmp_path / "set") as folder:
        (folder / "a.txt").write_text("new")
    assert (tmp_path / "set" / "a.txt").read_text() == "new" and not list(precious.iterdir())


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt", durable=True) as part:
        part.write_text("x")
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == plain.stat().st_mode


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / f"{'ä' * 125}.json"  # 255 bytes
    with atomic_path(target) as part:
        part.write_text("x")
    assert target.read_text() == "x"


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(OutputError, match="No space"), atomic_path(target) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_looked_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    files._looked_over.clear()
    scandir = os.scandir
    monkeypatch.setattr(files.os, "scandir", lambda path: looked.append(path) or scandir(path))
    for number in range(3):
        with atomic_path(tmp_path / f"{number}.txt") as part:
            part.write_text("x")
    assert len(looked) == 1


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"c\xff.txt")
    with atomic_path(path) as part:
        part.write_text("whole")
    assert [os.fsencode(name) for name in os.listdir(tmp_path)] == [b"c\xff.txt"]  # noqa: PTH208


HOLDS = """
import os, sys, time
from pathlib import Path
from knet.files import claimed
with claimed(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader of images, which outlives a killed run by a moment
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_a_process_has_claimed_is_free_once_it_is_killed_whatever_its_children_do(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), claimed(path):
            pass
        assert path.exists()
        holder.kill()
        holder.wait()
        with claimed(path):
            pass
        assert not path.exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_claim_follows_no_link_and_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "planted").symlink_to(tmp_path / "other")
    with pytest.raises(OSError), claimed(tmp_path / "planted"):
        pass
    assert not (tmp_path / "other").exists()
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "mine"):
        _ = 1 / 0
    assert not (tmp_path / "mine").exists()
