"""Kills knet at random moments and looks at what is left.

    python tests/kills/kills.py [TASK ...] [--count 20] [--seed 0] [--full]

TASK is one of `tasks` below, all of them by default; COUNT kills each. A task runs once undisturbed. Then, again and
again, it is started, killed by SIGKILL at a random moment, and started anew by the same command (a training by
--resume), until it comes to its end. After each kill every file under its final name is that of the undisturbed run or,
if it grows or changes while the task goes on, can be read; no process lives on and no shared memory is left. At the end
the files are those of the undisturbed run, to the last byte, and no temporary ones lie beside them.

With --full no process is killed: instead no file may grow above a random size, as on a disk that is full. The task has
to end with one sentence and the exit status 1.

All runs are children of one process that has imported torch, so that a kill costs the time of the work, not of imports.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
HANG = 600  # seconds in which everything ends that ends at all
OUT = "OUT"  # stands for the folder, or a file in it
_MODEL = "knet-r50-coco-panoptic"
_CHANGES = (".pt", ".safetensors", ".png", ".jpg")  # files that a training replaces by newer ones


@dataclass
class Task:
    """Something to kill: the command by what is in the output folder, and how its processes are started."""

    command: Callable[[Path], list[str]]
    processes: int = 1
    # "all" processes; "one", or a "worker" (a loader process), or one that "hangs": the others must end by themselves;
    # or "none", but the disk is full.
    victims: str = "all"
    once: bool = False  # a finished output is not written again
    growing: bool = False  # files have their final names while the task goes on
    environment: dict[str, str] = field(default_factory=dict)


def train(config: Path, out: Path) -> list[str]:
    """Starts a training, or goes on with it."""
    started = (out / "run" / "state.pt").exists()
    return ["train", "--resume", str(out / "run")] if started else ["train", str(config), f"output={out / 'run'}"]


def filled(words: tuple[object, ...], into: str, out: Path) -> list[str]:
    """The words of a command, with the folder or a file in it for OUT."""
    return [str(out / into if word is OUT else word) for word in words]


def prepare(work: Path) -> None:
    """Makes what the tasks need: data, configs, models, images and a video."""
    import av
    import numpy as np
    from tiny_run import write_config

    from tiny_models import tiny_file

    sizes: dict[str, Any] = {"iterations": 5, "validate_every": 5, "save_every": 1, "short_edge": 32, "max_edge": 48}
    sizes["augment"] = {"short_edges": [32], "max_edge": 48, "crop": [32, 32]}
    for name, workers in (("alone", 0), ("helped", 2)):
        write_config(work / name, workers=workers, batch=2, **sizes)
    for kind in ("panoptic", "video"):
        tiny_file(kind, work)
    rng = np.random.default_rng(1)
    with av.open(str(work / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            picture = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    prepare_data(work)


def prepare_data(work: Path) -> None:
    """Images with labels, and a JSON of objects in them."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (work / name).mkdir()
    for number in range(12):
        picture, label = rng.integers(0, 255, (40, 56, 3), np.uint8), rng.integers(0, 11, (5, 7), np.uint8)
        Image.fromarray(picture).save(work / "images" / f"{number}.png")
        Image.fromarray(np.kron(label, np.ones((8, 8), np.uint8))).save(work / "labels" / f"{number}.png")
    rows = [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 56} for n in range(12)]
    box = {"category_id": 1, "iscrowd": 0, "bbox": [4, 4, 26, 26], "area": 676}
    box["segmentation"] = [[4, 4, 30, 4, 30, 30, 4, 30]]
    objects = [{"id": n + 1, "image_id": n, **box} for n in range(12)]
    content = {"images": rows, "annotations": objects, "categories": [{"id": 1, "name": "box"}]}
    (work / "coco.json").write_text(json.dumps(content))


def tasks(work: Path, port: int) -> dict[str, Task]:
    """All of them, with what `prepare` made in the folder and the port of a server."""
    alone, helped = (partial(train, work / name / "config.yaml") for name in ("alone", "helped"))
    model, images, labels = work / "panoptic.safetensors", work / "images", work / "labels"

    def verb(*words: object, into: str = "", growing: bool = False) -> Task:
        command = partial(filled, words, into)
        return Task(command, growing=growing, once=words[0] == "data")

    forms = ("--formats", "overlay,panoptic,json,semantic")
    films = ("--formats", "video,tracks,mots,step", "--track")
    address = f"http://127.0.0.1:{port}/weights.bin"
    found = ("--images", images, "--output", OUT)
    return {
        "train": Task(alone, growing=True),
        "train-workers": Task(helped, growing=True),
        "train-two": Task(alone, 2, growing=True),
        "train-one-of-two": Task(alone, 2, "one", growing=True),
        "train-hang": Task(alone, 2, "hang", growing=True),
        "train-worker-dies": Task(helped, 1, "worker", growing=True),
        "predict": verb("predict", model, images, *forms, "--output", OUT),
        "film": verb("predict", work / "video.safetensors", work / "drive.mp4", *films, "--output", OUT, growing=True),
        "convert": verb("convert", model, OUT, "--model", _MODEL, "--half", into="half.safetensors"),
        "export": verb(
            "export", model, "--size", "64x96", "--images", images / "0.png", "--output", OUT, into="m.onnx"
        ),
        "from-labels": verb("data", "from-labels", *found, "--labels", labels, "--classes", "camvid"),
        "from-coco": verb("data", "from-coco", *found, "--instances", work / "coco.json"),
        "synth": verb("data", "synth", "cityscapes", OUT, "--images", "3", "--size", "64x128", into="made"),
        "download": Task(lambda out: ["download", address], environment={"KNET_HOME": "OUT", "KNET_OFFLINE": "0"}),
    }


CONTENT = bytes(range(256)) * 8192


class SlowServer(BaseHTTPRequestHandler):
    """Gives a file of 2 MB in pieces, also from the middle on."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """The file, in a third of a second."""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.headers.get("If-Range") == '"one"' else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        with suppress(OSError):  # the other side was killed
            for place in range(start, len(CONTENT), 65_536):
                self.wfile.write(CONTENT[place : place + 65_536])
                time.sleep(0.01)


def start(task: Task, out: Path, log: Path, most: int = -1) -> list[int]:
    """The task's processes, each the first of a session of its own. No file grows above `most` bytes (-1: any size)."""
    arguments, port = task.command(out), free_port()
    children = []
    for rank in range(task.processes):
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            _become(arguments, task, out, log, rank, port)
        children.append(child)
    return children


def _become(arguments: list[str], task: Task, out: Path, log: Path, rank: int, port: int) -> None:
    """Is `knet ARGUMENTS` from here on."""
    code = 99
    try:
        os.setsid()
        os.environ.update({key: value.replace("OUT", str(out)) for key, value in task.environment.items()})
        if task.processes > 1:
            os.environ.update(WORLD_SIZE=str(task.processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(said, descriptor)
        from knet import distributed
        from knet.cli.main import main

        if task.victims == "hang":
            distributed._PATIENCE = timedelta(seconds=30)
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def members(session: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[3]) == session and fields[0] not in "ZX":
            found.add(int(entry.name))
    return found


def ended(children: list[int], seconds: float = HANG) -> list[int]:
    """Waits for them; their exit statuses. A process that does not end in time is an AssertionError."""
    deadline, codes = time.monotonic() + seconds, dict.fromkeys(children, None)
    while None in codes.values():
        for child in [child for child, code in codes.items() if code is None]:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for child in children:
                os.killpg(child, signal.SIGKILL)
            raise AssertionError(f"hangs for {seconds:.0f} s")
        time.sleep(0.01)
    return [code for code in codes.values() if code is not None]


def nothing_lives(sessions: list[int], pids: set[int]) -> None:
    """Waits until the processes of these sessions have ended; none of `pids` may have left shared memory."""
    deadline = time.monotonic() + HANG
    while left := {pid for session in sessions for pid in members(session)}:
        assert time.monotonic() < deadline, f"orphans: {left}"
        time.sleep(0.05)
    shared = [path.name for path in Path("/dev/shm").iterdir() if any(f"_{pid}_" in path.name for pid in pids)]
    assert not shared, f"shared memory is left: {shared}"


def files(folder: Path) -> dict[str, Path]:
    """What lies in a folder, by name, but for locks and TensorBoard's logs, which have the time in their names."""
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in found}
    return {name: path for name, path in named.items() if "tensorboard" not in name and not name.endswith(".lock")}


def content(path: Path) -> Any:
    """What is compared of a file: all of it, but for what the clock says."""
    if path.suffix == ".pt":
        from knet.runs.state import read_state

        return plain(read_state(path))
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{k: v for k, v in row.items() if k not in ("seconds", "waiting")} for row in csv.DictReader(file)]
    if path.name.endswith(".report.json"):
        return {k: v for k, v in json.loads(path.read_text()).items() if "seconds" not in k}
    if path.suffix == ".html":
        return re.sub(r"on \d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text(encoding="utf-8"))
    if path.name == "curves.png":
        return "a picture" if readable(path) else None
    return path.read_bytes()


def plain(value: Any) -> Any:
    """Tensors as bytes, and lists for tuples, of which a resumed run makes some."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def readable(path: Path) -> bool:
    """Whether a file that will still change is whole."""
    from PIL import Image

    if path.suffix == ".pt":
        from knet.runs.state import read_state

        return bool(read_state(path))
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as opened:
            return bool(opened.keys())
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
    return True


def nothing_half(out: Path, whole: Path, growing: bool) -> None:
    """No file with a final name is half-written."""
    finished = files(whole)
    for name, path in files(out).items():
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        assert name in finished, f"{name} is no file of an undisturbed run"
        if growing and path.suffix in (".csv", ".jsonl", ".txt"):  # these have their names from the beginning
            continue
        if growing and path.suffix in _CHANGES:
            assert readable(path), name
            continue
        assert content(path) == content(finished[name]), f"{name} is not that of an undisturbed run"


def is_whole(out: Path, whole: Path) -> bool:
    """Whether the kill came when all was done, after which the same command refuses to write again."""
    return {name for name in files(out) if not name.startswith(".")} == files(whole).keys()


def all_is_there(out: Path, whole: Path) -> None:
    """The folder is that of an undisturbed run."""
    ours, theirs = files(out), files(whole)
    assert ours.keys() == theirs.keys(), f"other files: {sorted(ours.keys() ^ theirs.keys())}"
    for name, path in ours.items():
        assert content(path) == content(theirs[name]), f"{name} is not that of an undisturbed run"


def rounds(task: Task, work: Path, count: int, rng: random.Random, pause: float = 1.05) -> Iterator[str]:
    """Kills the task so often; yields a word on each kill that met it, raises AssertionError at what is wrong.

    After `pause` seconds the next start takes what the kill left for left behind, and removes it.
    """
    out, whole, log = work / "out", work / "whole", work / "log"
    for folder in (out, whole):
        shutil.rmtree(folder, ignore_errors=True)
    out.mkdir()
    began = time.monotonic()
    children = start(task, out, log)
    codes = ended(children)
    assert not any(codes), f"does not run undisturbed: {log.read_text()[-2000:]}"
    nothing_lives(children, set())
    usual, kills = time.monotonic() - began, 0
    largest = max(path.stat().st_size for path in files(out).values())
    out.rename(whole)
    out.mkdir()
    while kills < count or any(out.iterdir()):
        last = kills >= count or rng.random() < 0.15  # left alone, it comes to its end
        began = time.monotonic()
        full = task.victims == "none" and not last
        children = start(task, out, log, rng.randrange(largest) if full else -1)
        moment = began + rng.uniform(0, usual * (0.6 if task.growing else 1))
        while not last and not full and time.monotonic() < moment and not has_ended(children[0]):
            time.sleep(0.002)
        pids = set(children).union(*map(members, children))
        hit = [] if last or full else sorted(strike(task, children, pids, rng))
        codes = ended([child for child in children if task.victims != "hang" or child not in hit])
        if task.victims == "hang" and hit:
            os.kill(hit[0], signal.SIGKILL)
            ended(hit)
        nothing_lives(children, pids)
        if (hit or full) and any(codes):
            kills += 1
            said = log.read_text() if log.exists() else ""
            assert "Traceback" not in said, f"a traceback: {said[-2000:]}"
            assert set(codes) <= {0, 1, -signal.SIGKILL}, f"the processes ended by {codes}: {said[-2000:]}"
            nothing_half(out, whole, task.growing)
            if task.once and is_whole(out, whole):
                shutil.rmtree(out)
                out.mkdir()
            yield f"{time.monotonic() - began:.1f} s"
        else:
            assert not any(codes), f"fails after a kill: {log.read_text()[-2000:]}"
            all_is_there(out, whole)
            usual = min(usual, time.monotonic() - began) if last else usual
            shutil.rmtree(out)
            out.mkdir()
        log.unlink(missing_ok=True)
        time.sleep(pause)


def has_ended(child: int) -> bool:
    """Whether it has, without taking its status from those who wait for it."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def strike(task: Task, children: list[int], pids: set[int], rng: random.Random) -> set[int]:
    """Kills or stops some of the processes; those that were hit."""
    others = sorted(pids - set(children))
    if task.victims == "worker" and not others:
        return set()
    hit = {"all": children, "worker": [rng.choice(others or children)]}.get(task.victims, [rng.choice(children)])
    for pid in hit:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if task.victims == "hang" else signal.SIGKILL)
    return set(hit)


def main() -> int:
    """Runs the command line; the exit status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--count", type=int, default=20, help="kills a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the disk is full; nobody is killed")
    args = parser.parse_args()
    sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS), str(TESTS / "runs")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import faster_coco_eval  # noqa: F401
    import torch
    import torch.utils.tensorboard

    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    serving = os.fork()
    if not serving:
        server.serve_forever()
    wrong = met = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            every = _made(Path(folder), server.server_address[1])
            for name in args.tasks or every:
                rng = random.Random(f"{args.seed} {name}")
                task = replace(every[name], victims="none") if args.full else every[name]
                work = Path(folder) / f"of-{name}"
                work.mkdir()
                kills, fault = 0, ""
                try:
                    for word in rounds(task, work, args.count, rng):
                        kills += 1
                        print(f"{name}: kill {kills}, recovered, {word}", flush=True)
                except AssertionError as error:
                    fault = str(error)
                met, wrong = met + kills, wrong + bool(fault)
                print(f"== {name}: {kills} kills{': ' + fault if fault else ', all well'}", flush=True)
    finally:
        os.kill(serving, signal.SIGKILL)
    print(f"== together: {met} kills, {wrong} tasks at fault")
    return int(wrong > 0)


def _made(work: Path, port: int) -> dict[str, Task]:
    """The tasks; what they need is made in a process of its own, for torch must not have computed before a fork."""
    child = os.fork()
    if not child:
        try:
            prepare(work)
            os._exit(0)
        finally:
            os._exit(1)
    if ended([child]) != [0]:
        raise SystemExit("the data of the tasks cannot be made")
    return tasks(work, port)


if __name__ == "__main__":
    sys.exit(main())
