"""Command lines: words that the parser itself lists, with files that are there, that are not, and that are others."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from PIL import Image

from fuzz.configs import some_override
from fuzz.mutate import NUMBERS, STRINGS
from fuzz.oracle import command, no_parts
from knet.cli.main import build_parser
from tiny_models import ARGUMENTS, tiny_file

# Programs that serve, take minutes, or ask other computers.
_LEFT_OUT = frozenset({"synth", "demo", "download", "bench", "batch", "export", "serve"})
_SLOW = frozenset({"--compile", "--workers", "--threads", "--serve", "--completion", "--tta"})
_DEEP = (("predict",), ("eval",), ("train",), ("data", "label"))
_WORDS = (
    "car",
    "car,person",
    "Sky",
    "0.5",
    "1",
    "0",
    "2",
    "64",
    "32x64",
    "0,0,20,20",
    "overlay,json",
    "panoptic",
    "0:01",
)
_OUTPUTS = ("--output", "output")


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    from fuzz.annotations import _instances, _own, _panoptic
    from fuzz.videos import originals

    sets = {"panoptic": _panoptic, "instances": _instances, "own": _own}
    for name, make in sets.items():
        (folder / name).mkdir()
        make(folder / name)
    weights = [tiny_file(task, folder) for task in sorted(ARGUMENTS)]
    videos = folder / "videos"
    videos.mkdir()
    originals(videos, {".mp4": ("mpeg4",)})
    photos = folder / "photos"
    photos.mkdir()
    for number in range(2):
        Image.fromarray(np.full((24, 40, 3), 90 * number, np.uint8)).save(photos / f"{number}.png")
    files = {"images": "images", "json": "panoptic.json", "masks": "masks"}
    table = {"model": "knet-r50-coco-panoptic", "arguments": ARGUMENTS["panoptic"][2] | {"classes": 2, "stuff": [0]}}
    table |= {"data": {"root": str(folder / "panoptic"), "train": files, "val": files}, "iterations": 1, "batch": 1}
    table |= {"workers": 0, "device": "cpu", "output": "out/run", "augment": {"short_edges": [32], "max_edge": 64}}
    (folder / "run.yaml").write_text(yaml.safe_dump(table))
    there = [*(str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))), "photos/*.png", "**/*", "."]
    parsers = _verbs(build_parser())
    likely = {"model": [p.name for p in weights], "sources": ["photos/0.png", "photos", "videos/clip.mp4", "photos/*"]}
    likely |= {
        "config": ["run.yaml", "rtknet-cityscapes"],
        "target": ["run.yaml", weights[0].name],
        "models": [weights[0].name],
    }

    def value(rng: Random, action: argparse.Action) -> str:
        # Nothing may be written elsewhere; the second word of `knet convert` is where it writes.
        if any(name in _OUTPUTS for name in (*action.option_strings, action.dest)) or action.metavar == "OUT":
            return f"out/{rng.choice(('a', 'a/b', 'c.safetensors', 'd.json', 'x' * 260))}"
        if action.dest == "overrides":
            return some_override(rng).replace("output", "batch").replace("cache", "root")
        kind = rng.random()
        if action.choices and kind < 0.7:
            return str(rng.choice(list(action.choices)))
        if action.dest in likely and kind < 0.9:
            return rng.choice(likely[action.dest])
        if action.type in (int, float) and kind < 0.8:
            return str(rng.choice(NUMBERS))
        pool = rng.choice((there, _WORDS, STRINGS[:40], [str(n) for n in NUMBERS]))
        return rng.choice(pool).replace("\0", "")

    def case(rng: Random) -> bool:
        names = rng.choice(_DEEP if rng.random() < 0.5 else sorted(parsers))
        words = list[str](names)
        actions = [action for action in parsers[names]._actions if not isinstance(action, argparse._HelpAction)]
        optional = [action for action in actions if action.option_strings and not _SLOW & {*action.option_strings}]
        for action in [action for action in actions if not action.option_strings]:
            words += [value(rng, action) for _ in range(_count(rng, action))]
        chosen = rng.sample(optional, min(len(optional), rng.choice((0, 1, 1, 2, 3))))
        required = [action for action in optional if action.required and rng.random() < 0.95]
        for action in {id(action): action for action in [*chosen, *required]}.values():
            words.append(rng.choice(action.option_strings))
            words += [value(rng, action) for _ in range(_count(rng, action))]
        try:
            return command(*(word.encode(errors="ignore").decode() for word in words))
        finally:
            no_parts(folder)
            shutil.rmtree(folder / "out", ignore_errors=True)
            shutil.rmtree(folder / "results", ignore_errors=True)

    return case


def _verbs(parser: argparse.ArgumentParser) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """The parsers of all verbs, by the words that lead to them."""
    found = dict[tuple[str, ...], argparse.ArgumentParser]()
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for name, below in action.choices.items():
            if name not in _LEFT_OUT:
                found |= {(name, *words): deep for words, deep in _verbs(below).items()} or {(name,): below}
    return found


def _count(rng: Random, action: Any) -> int:
    if action.nargs == 0:
        return 0
    return rng.choice((0, 1, 2)) if action.nargs in ("*", "?", "+") else 1
