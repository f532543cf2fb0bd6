"""docs/custom-data.md as a newcomer follows it, on tiny drawn pictures; and what `from-labels` says of bad input."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from drawn_exports import EXPORTS, scenes
from drawn_yard import make_yard
from knet.cli.main import build_parser
from knet.data.categories import load_categories

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "custom-data.md"
# What makes a command of the page quick; the page's own options stay.
TINY = {
    "train": [
        *("arguments={channels: 16, kernels: 8, stages: 1, hidden: 16}", "weights=null"),
        *("iterations=2", "batch=2", "workers=0", "precision=fp32", "device=cpu", "short_edge=48", "losses.pixels=64"),
        *("augment.short_edges=[48]", "augment.crop=[32, 48]"),
    ],
    "data show": ["augment.short_edges=[48]", "augment.crop=[32, 48]"],
    "eval": ["device=cpu"],
}


def page_blocks(kind: str) -> list[str]:
    """The page's code blocks of a kind, such as "sh"."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def command_lines() -> list[str]:
    """The lines of the page's commands, continued ones in one."""
    return "\n".join(page_blocks("sh")).replace("\\\n", " ").splitlines()


def page_commands() -> list[list[str]]:
    """The arguments of every `knet` command of the page, in its order."""
    return [shlex.split(line, comments=True)[1:] for line in command_lines() if line.startswith("knet ")]


def quick(arguments: list[str]) -> list[str]:
    """The same command with `TINY`'s options after its own key=value options."""
    verb = " ".join(arguments[: 2 if arguments[0] == "data" else 1])
    if verb not in TINY:
        return arguments
    given = (place for place, word in enumerate(arguments) if "=" in word and not word.startswith("-"))
    last = max(given, default=1)
    return [*arguments[: last + 1], *TINY[verb], *arguments[last + 1 :]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("data", ...)` in a folder with the page's yard/ -> exit status, what it printed, what it said of errors."""
    monkeypatch.chdir(tmp_path)
    (table,) = (block for block in page_blocks("json") if '"categories"' in block)
    make_yard(Path("yard"), {"train": 3, "val": 2}, (48, 64), table)
    for form, write in EXPORTS.items():
        write(Path("exports", form), scenes())

    return runner(capsys)


@pytest.mark.parametrize("exports", [False, pytest.param(True, marks=pytest.mark.heavy)], ids=["", "with export"])
def test_the_commands_of_the_page_lead_from_exports_and_masks_to_pictures(run: Run, exports: bool) -> None:
    Path("configs").symlink_to(ROOT / "configs")
    verbs = []
    for arguments in page_commands():
        if arguments[0] == "export" and not exports:  # a minute for the exporter, which has tests of its own
            continue
        status, out, err = run(*quick(arguments))
        assert status == 0, f"knet {shlex.join(arguments)}\n{out}{err}"
        verbs.append(" ".join(arguments[: 2 if arguments[0] == "data" else 1]))
        if verbs[-1] == "data from-labels":
            assert "crowd region of their class" in out
            assert "components" not in out
        if verbs[-1] == "data check":
            assert "nothing wrong" in out
    assert list(dict.fromkeys(verbs)) == [
        *("data import", "train", "eval", "predict", *(["export"] if exports else [])),
        *("data from-labels", "data check", "data show"),
    ]
    names = [category["name"] for category in json.loads(Path("yard/val/panoptic.json").read_text())["categories"]]
    assert names == ["floor", "wall", "box"]
    for split, count in (("train", 3), ("val", 2)):
        assert len(list(Path("yard", split, "panoptic").glob("*.png"))) == count
    assert list(Path("look").rglob("*.*"))
    imported = [shlex.split(line)[3].removeprefix("exports/") for line in command_lines() if "data import" in line]
    assert set(imported) == set(EXPORTS)
    assert Path("parts.onnx").is_file() == exports and list(Path("found").iterdir())
    made = {path.name for path in Path("runs/yard").iterdir()}
    assert {"config.yaml", "train.csv", "val.csv", "state.pt", "best.safetensors", "last.safetensors"} <= made
    assert {path.name for path in Path("results").iterdir()} == {"000_overlay.jpg", "001_overlay.jpg"}


def labels_command(*more: str, **folders: str) -> list[str]:
    """from-labels of the yard's training images; `folders` replaces options, None leaves one out."""
    options = {"images": "yard/images/train", "labels": "yard/labels/train", "classes": "yard/classes.json"}
    options |= {"output": "out"} | folders
    return ["data", "from-labels", *(word for key, value in options.items() for word in (f"--{key}", value)), *more]


def test_without_instances_the_note_says_what_the_objects_are(run: Run) -> None:
    status, out, _ = run(*labels_command())
    assert status == 0
    assert "components" in out
    status, out, _ = run(*labels_command("--json", output="other", instances="yard/instances/train"))
    made = json.loads(out)
    assert status == 0
    assert "components" not in made["note"]
    numbers = [np.unique(Image.open(path)) for path in Path("yard/instances/train").iterdir()]
    assert made["segments"]["box"] >= sum(len(values) - 1 for values in numbers) - made["crowds"]["box"] > 0


def test_objects_that_nobody_told_apart_are_counted_as_crowds(run: Run) -> None:
    for path in Path("yard/instances/train").iterdir():
        Image.new("L", Image.open(path).size).save(path)
    status, out, _ = run(*labels_command(instances="yard/instances/train"))
    assert status == 0
    assert re.search(r"^box +3 segments  \(3 are crowd regions\)$", out, re.MULTILINE)


def test_no_class_table(run: Run) -> None:
    command = labels_command()
    place = command.index("--classes")
    status, out, err = run(*command[:place], *command[place + 2 :])
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    shown = re.search(r"\{.*\}", err)
    assert shown is not None
    Path("shown.json").write_text(shown.group())
    assert [category.name for category in load_categories("shown.json")] == ["floor", "box"]


def test_help_has_an_example_that_is_understood(run: Run) -> None:
    status, out, _ = run("data", "from-labels", "--help")
    assert status == 0
    example = out.split("example:")[1].strip()
    assert build_parser().parse_args(shlex.split(example)[1:]).instances == "ins/train"


def _paint(path: str, mode: str, size: tuple[int, int], value: int | tuple[int, ...]) -> None:
    Image.new(mode, size, value).save(path)


MISTAKES: dict[str, tuple[Callable[[], object], dict[str, str], str]] = {
    "size of labels": (
        lambda: _paint("yard/labels/train/001.png", "L", (32, 24), 1),
        {},
        r"labels/train/001\.png is 32x24 pixels but its image yard/images/train/001\.jpg is 64x48",
    ),
    "size of instances": (
        lambda: _paint("yard/instances/train/001.png", "L", (32, 24), 1),
        {"instances": "yard/instances/train"},
        r"instances/train/001\.png is 32x24 pixels but its image",
    ),
    "no label": (
        lambda: Path("yard/labels/train/002.png").unlink(),
        {},
        r"yard/images/train has 002 but yard/labels/train has no file of that name",
    ),
    "a label more": (
        lambda: _paint("yard/labels/train/x.png", "L", (64, 48), 1),
        {},
        r"yard/labels/train has x but yard/images/train has no file",
    ),
    "no instances": (
        lambda: Path("yard/instances/train/000.png").unlink(),
        {"instances": "yard/instances/train"},
        r"yard/images/train has 000 but yard/instances/train has no file",
    ),
    "no folder": (lambda: None, {"instances": "nowhere"}, r"The folder nowhere does not exist"),
    "unknown value": (
        lambda: _paint("yard/labels/train/000.png", "L", (64, 48), 77),
        {},
        r"000\.png has the pixel value 77, which is neither a class of the table nor void",
    ),
    "unknown colour": (
        lambda: _paint("yard/labels/train/000.png", "RGB", (64, 48), (1, 2, 3)),
        {},
        r"000\.png has the colour \(1, 2, 3\), which is neither a class's nor black",
    ),
    "labels as JPEG": (
        lambda: Path("yard/labels/train/000.png").rename("yard/labels/train/000.jpg"),
        {},
        r"yard/labels/train has 000\.jpg, in a format that changes pixel values; export PNGs",
    ),
    "no table": (lambda: None, {"classes": "no.json"}, r"The class table no\.json does not exist"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_gets_one_sentence(run: Run, case: str) -> None:
    spoil, folders, message = MISTAKES[case]
    spoil()
    status, out, err = run(*labels_command(**folders))
    assert (status, out) == (2, "")
    sentences = [line for line in err.splitlines() if line.startswith("knet: ")]
    assert len(sentences) == 1
    assert "Traceback" not in err
    assert re.search(message, sentences[0])
    assert not Path("out/panoptic.json").exists()
