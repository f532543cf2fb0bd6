"""Configs of runs: their YAML, and options as on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import yaml
from pydantic import BaseModel

from fuzz.mutate import NUMBERS, STRINGS, mutated_bytes, mutated_tree, some_value
from fuzz.oracle import BrokenError, command, refused
from knet.config import RunConfig, config_names, dump_config, load_config, published_config, validate_config
from knet.data.categories import load_table


def options(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """The names of all options, as `optimizer.learning_rate`."""
    for name, field in model.model_fields.items():
        full = before + (field.alias or name)
        yield full
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from options(kind, f"{full}.")


NAMES = sorted({*options(RunConfig), "data.train.images", "data.val.json", "data.train.classes.car"})


def some_override(rng: Random) -> str:
    """`key=value`, mostly of a key that there is."""
    name = rng.choice(NAMES) if rng.random() < 0.95 else rng.choice(STRINGS[:40])[:50]
    kind = rng.random()
    if kind < 0.4:
        return f"{name}={rng.choice(NUMBERS)}"
    if kind < 0.6:
        return f"{name}={rng.choice(STRINGS)}"
    return f"{name}={yaml.safe_dump(some_value(rng), default_flow_style=True)}"


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    configs = [published_config(name).read_text() for name in config_names()]
    trees = [yaml.safe_load(text) for text in configs]
    path = folder / "case.yaml"

    def case(rng: Random) -> bool:
        number, kind = rng.randrange(len(configs)), rng.random()
        if kind < 0.5:
            tree = mutated_tree(rng, trees[number])
            text = _written(tree, rng.random() < 0.3).encode(errors="surrogatepass")
        elif kind < 0.7:
            text = mutated_bytes(rng, configs[number].encode())
        else:
            text = configs[number].encode()
        path.write_bytes(text)
        overrides = [
            some_override(rng) for _ in range(rng.choice((0, 0, 1, 2)) if kind < 0.7 else rng.choice((1, 2, 3)))
        ]
        if rng.random() < 0.1:
            return command("train", path, *overrides, "--print")
        if rng.random() < 0.1:
            return refused(lambda: load_table(path))
        return refused(lambda: _load(path, overrides))

    return case


def _load(path: Path, overrides: list[str]) -> None:
    config = load_config(path, overrides)
    if validate_config(dump_config(config), "again") != config:
        raise BrokenError(f"another config after it was written: {config}"[:2000])


def _written(tree: object, as_json: bool) -> str:
    try:
        return json.dumps(tree) if as_json else yaml.safe_dump(tree)
    except RecursionError:  # of who writes it, who is not on trial
        return "[" * 10_000
