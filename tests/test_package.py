"""What is published: the source distribution is the whole repository, and the wheel works in a new environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]
# setuptools changes sys.argv.
BUILD = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"


def tracked() -> list[str]:
    """All files of the repository; links to folders are in no distribution."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        # An unpacked source distribution has no list of tracked files to compare with.
        pytest.skip("needs the repository and git, to know its files")
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in found.split("\0") if name and not (ROOT / name).is_symlink() and (ROOT / name).is_file()]


@pytest.mark.heavy
def test_the_distributions_are_whole_and_the_wheel_works(tmp_path: Path) -> None:
    files, copy, made = tracked(), tmp_path / "copy", tmp_path / "dist"
    made.mkdir()
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-c", BUILD, str(made)], cwd=copy, check=True, capture_output=True)

    (source,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not set(files) - held

    # An environment of its own, which sees the packages that knet needs but not this repository.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    needed = Path(pytest.__file__).parents[1]
    (site / "needed.pth").write_text(f"{needed}\n")
    code = "import sys, knet; from knet.cli.main import main; print(knet.__file__); sys.exit(main(sys.argv[1:]))"
    street = str(site / "knet" / "assets" / "demo" / "highway_1.jpg")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUNBUFFERED": "1"}
    knet = [str(tmp_path / "venv" / "bin" / "python"), "-c", code]
    place: Any = {"cwd": tmp_path, "env": clean}

    def run(*words: str) -> str:
        done = subprocess.run([*knet, *words], **place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("predict", "rtknet-lite-street", street, "--formats", "overlay,panoptic")
    assert str(site) in said and "1 image" in said
    assert list((tmp_path / "results").glob("highway_1_overlay.*"))
    panoptic = str(tmp_path / "results" / "panoptic.json")
    run("eval", "--metric", "pq", "--truth", panoptic, "--predictions", panoptic, "--report", "report.html")
    assert "100.0" in (tmp_path / "report.html").read_text()

    pytest.importorskip("gradio")
    server = subprocess.Popen([*knet, "demo", "--serve"], **place, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    said = server.stdout.readline() + server.stdout.readline()  # where knet lies, and where the page is
    with urlopen(said.split("The page is at ")[1].split()[0]) as answer:
        assert b"gradio" in answer.read()
    server.terminate()
    assert server.wait() == 143
