"""What a kill leaves in a folder, compared with what an undisturbed run leaves."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

_CHANGES = (".pt", ".safetensors", ".png", ".jpg")  # files that a training replaces by newer ones


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
