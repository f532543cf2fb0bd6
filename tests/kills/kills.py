"""Kills knet at random moments and looks at what is left.

    python tests/kills/kills.py [TASK ...] [--count 20] [--seed 0] [--full]

TASK is one of `tasks` in kill_tasks.py, all of them by default; COUNT kills each. A task runs once undisturbed. Then,
again and again, it is started, killed by SIGKILL at a random moment, and started anew by the same command (a training
by --resume), until it comes to its end. After each kill every file under its final name is that of the undisturbed run
or, if it grows or changes while the task goes on, can be read; no process lives on and no shared memory is left. At the
end the files are those of the undisturbed run, to the last byte, and no temporary ones lie beside them.

With --full no process is killed: instead no file may grow above a random size, as on a disk that is full. The task has
to end with one sentence and the exit status 1.

All runs are children of one process that has imported torch, so that a kill costs the time of the work, not of imports.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path

from kill_tasks import SlowServer, Task, prepare, tasks
from leftovers import all_is_there, files, is_whole, nothing_half

TESTS = Path(__file__).parents[1]
HANG = 600  # seconds in which everything ends that ends at all


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

        distributed._MEETING = timedelta(seconds=30)
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
                with suppress(ProcessLookupError):
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
        seconds = rng.uniform(0, usual * (0.6 if task.growing else 1))
        if not last and not full:
            bide(task, children[0], seconds)
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


def bide(task: Task, child: int, seconds: float) -> None:
    """Waits so long, from when there is somebody to be hit, but not longer than the child lives."""
    deadline = math.inf
    while not has_ended(child) and time.monotonic() < deadline:
        if deadline == math.inf and (task.victims != "worker" or len(members(child)) > 1):
            deadline = time.monotonic() + seconds
        time.sleep(0.002)


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
