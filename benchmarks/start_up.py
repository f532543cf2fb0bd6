"""Processor time of short commands, from the start of Python to its end.

    python benchmarks/start_up.py             # 5 rounds
    python benchmarks/start_up.py --rounds 1  # to see that it runs

Each command is a process of its own; what is compiled once, also Python's bytecode, is compiled before, as pip
does it. Processor time hardly depends on what else the machine does. The script fails if a goal is missed.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import knet

STREET = str(Path(knet.__file__).parent / "assets" / "demo" / "highway_1.jpg")
# Words, exit status, and the goal in seconds.
COMMANDS = (
    (("--help",), 0, 0.3),
    (("models",), 0, 1.0),
    (("predict", "no.pth", STREET), 2, 1.0),
    (("predict", "rtknet-lite-street", STREET), 0, 4.0),
)


def seconds(words: tuple[str, ...], status: int, folder: str) -> float:
    """Processor time of one run, of the user and of the system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "knet.cli.main", *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures, and prints rows for README.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for words, status, goal in COMMANDS:
            seconds(words, status, folder)
            least = min(seconds(words, status, folder) for _ in range(args.rounds))
            shown = " ".join(["knet", *words]).replace(STREET, "highway_1.jpg")
            print(f"| {date.today()} | `{shown}` | {least:.2f} s | {goal:g} s |", flush=True)
            if least > goal:
                missed.append(shown)
    assert not missed, missed


if __name__ == "__main__":
    main()
