"""What the system refuses: names that are too long, users that do not exist, full disks, files nobody may read."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run, runner
from PIL import Image

import knet
from knet.cli.main import lines_shown, main
from knet.cli.stopping import Stopping, signals_unwind
from knet.errors import CheckpointError, DataError
from knet.weights import load as weights

LONG = "n" * 300


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save("a.png")
    return runner(capsys)


def test_values_for_progress_bars_that_are_no_numbers() -> None:
    """tqdm reads them when it is imported, which was a traceback of each verb."""
    command = [sys.executable, "-m", "knet.cli.main", "models"]
    wrong = os.environ | {"TQDM_MININTERVAL": "often"}
    done = subprocess.run(command, env=wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "TQDM_MININTERVAL" in done.stderr


@pytest.mark.parametrize("name", [LONG, "~nobody-of-this-name/x", f"{LONG}/x"])
def test_names_that_cannot_be_are_one_sentence_wherever_they_are_given(run: Run, tiny_weights: Path, name: str) -> None:
    for words in (
        ["predict", tiny_weights, f"{name}.png"],
        ["predict", tiny_weights, f"{name}/*.png"],
        ["predict", f"{name}.safetensors", "a.png"],
        ["predict", f"{name}.onnx", "a.png"],
        ["predict", f"{name}.xml", "a.png"],
        ["train", f"{name}.yaml"],
        ["train", "--resume", name],
        ["config", name],
        ["bench", f"{name}.safetensors"],
        ["convert", f"{name}.pth", "out.safetensors", "--model", "rtknet-cityscapes"],
        ["data", "prepare", "cityscapes", name],
        ["data", "label", tiny_weights, name, "--output", "labels"],
        ["data", "from-coco", "--images", name, "--instances", f"{name}.json", "--output", "out"],
        ["eval", "--metric", "pq", "--truth", name, "--predictions", name],
    ):
        status, _, said = run(*words)
        assert status == 2 and said.startswith("knet: ") and said.count("\n") == 1, (words[0], said)


def test_outputs_that_are_no_names_or_too_deep_are_one_sentence(run: Run, tiny_weights: Path) -> None:
    status, _, said = run("predict", tiny_weights, "a.png", "--output", "d/" * 1500)
    assert status == 2 and said.startswith("knet: ") and said.count("\n") == 1, said
    status, _, said = run("predict", tiny_weights, "a.png", "--output", "")
    assert status == 2 and "--output is an empty text; give a path" in said


def test_names_that_are_not_in_utf_8_in_every_format(run: Run, tiny_weights: Path) -> None:
    Path("a.png").rename("\udcff.png")
    formats = "overlay,panoptic,instances,semantic,json,polygons,cvat,labelstudio"
    status, _, said = run("predict", tiny_weights, "\udcff.png", "--formats", formats)
    assert status == 0, said
    assert "%FF.png" in Path("results/labelstudio.json").read_text()


def test_such_names_are_ours_to_python_too(tiny_weights: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no weights file"):
        knet.load(f"{LONG}.safetensors")
    segmenter = knet.load(tiny_weights, device="cpu")
    for name in (f"{LONG}.png", "~nobody-of-this-name/x.png"):
        with pytest.raises(DataError):
            segmenter(name)
        with pytest.raises(DataError):
            list(segmenter.stream(name))


def test_weights_that_nobody_may_read(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights, "safe_open", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        knet.load(tiny_weights)


# Linux alone has such paths, so elsewhere the fault cannot happen.
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_patterns_go_past_what_may_not_be_looked_at(run: Run, tiny_weights: Path) -> None:
    # Not those of all processes: others on the machine may have pictures open.
    status, _, said = run("predict", tiny_weights, "/proc/self/task/*/fd/*")
    assert status == 2 and "matches no image or video" in said


def test_a_named_pipe_among_files_does_not_wait_for_its_writer(run: Run, tmp_path: Path) -> None:
    from knet.inference.sources.paths import open_source

    os.mkfifo(tmp_path / "frames")
    with pytest.raises(DataError):
        list(open_source(tmp_path / "frames"))


# macOS has no device that is always full; what is tested does not depend on the system.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["config rtknet-cityscapes", "--help", "predict --help", "--version"])
def test_standard_output_on_a_full_disk(unbuffered: str, words: str) -> None:
    command = [sys.executable, "-m", "knet.cli.main", *words.split()]
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("knet: standard output cannot be written: No space left on device;")
    assert done.stderr.count("\n") == 1


STOPPED = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from knet.cli.main import main

def stopped(work):
    def stop(*words, **options):
        for _ in range(2 if os.environ["SIGNAL"] == "SIGHUP" else 1):  # from the terminal and from its shell
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        return work(*words, **options)
    return stop

Path.replace, Image.Image.save = stopped(Path.replace), stopped(Image.Image.save)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("verb", "name"),
    [("convert", "SIGTERM"), ("synth", "SIGTERM"), ("predict", "SIGTERM"), ("convert", "SIGHUP"), ("synth", "SIGHUP")],
)
def test_a_signal_ends_every_verb_with_a_sentence_and_leaves_no_part(
    verb: str, name: str, tiny_weights: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    words = {
        "convert": ["convert", tiny_weights, tmp_path / "out/o.safetensors", "--model", "rtknet-slim-camvid"],
        "synth": ["data", "synth", "cityscapes", tmp_path / "out"],
        "predict": ["predict", tiny_weights, tmp_path / "a.png", "--output", tmp_path / "out"],
    }[verb]
    command = [sys.executable, "-c", STOPPED, *map(str, words)]
    env = os.environ | {"SIGNAL": name}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert f"stopped by {name}" in done.stderr and "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_is_ignored_is_left_so(name: str) -> None:
    """By `nohup`, so that the work goes on when the terminal is closed, and by scripts that end in `&`."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals_unwind(), Stopping() as stopping:
            os.kill(os.getpid(), number)
            assert stopping.signal is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def comes_as_another_error(number: int) -> None:
    """As where C code of a library looks at an object of Python and takes whatever goes wrong for its own trouble."""
    try:
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 1)
    except KeyboardInterrupt:
        pass
    raise ValueError("could not determine the shape of object type")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_of_which_a_library_makes_another_error_is_a_signal(name: str) -> None:
    number = getattr(signal, name)
    with pytest.raises(KeyboardInterrupt) as caught, signals_unwind():
        comes_as_another_error(number)
    assert getattr(caught.value, "signal", signal.SIGINT) == number
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        stopping.ask()
        comes_as_another_error(number)

    def frames() -> Iterator[None]:
        comes_as_another_error(number)
        yield

    with Stopping() as stopping:
        assert list(stopping.frames(frames())) == [] and stopping.signal == number
    with pytest.raises(ValueError, match="shape"), signals_unwind():
        raise ValueError("shape")


def test_signals_are_caught_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the words of the command line are understood, which takes its time."""
    monkeypatch.setattr("knet.cli.main.build_parser", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["config"]) == 143


EARLY = """
import os, signal, sys
import importlib.abc
class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "knet.errors":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Stop())
from knet.cli.main import main
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_the_command_line_is_imported(name: str) -> None:
    number = getattr(signal, name)
    command = [sys.executable, "-c", EARLY, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert (done.returncode, done.stderr) == (128 + number, f"knet: {said}\n")


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2>&- >&-", "2>&- <&-"])
def test_standard_error_that_cannot_be_written_changes_no_exit_status(where: str) -> None:
    command = f"'{sys.executable}' -m knet.cli.main config nothing {where}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path: Path) -> None:
    """Else libraries in C write their remarks into them, and every `print` is a traceback."""
    code = (
        "import os, sys; from knet.cli.main import _open_streams; _open_streams()\n"
        "file = open(sys.argv[1], 'w'); os.write(2, b'noise'); print('a'); print('b', file=sys.stderr)\n"
        "assert sys.stdin.read() == '' and file.fileno() > 2; file.write('mine')"
    )
    command = f"'{sys.executable}' -c \"$CODE\" '{tmp_path / 'a.txt'}' <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, check=False, env=os.environ | {"CODE": code}).returncode == 0
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_work_goes_on_when_nobody_reads_its_lines_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file, lines_shown(json=False):
        monkeypatch.setattr(sys, "stdout", file)
        for _ in range(2):
            logging.getLogger("knet").info("iteration 1")
