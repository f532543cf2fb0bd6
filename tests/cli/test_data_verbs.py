"""knet data prepare, check and synth as a user types them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from command_line import Run, runner

from knet.cli.main import build_parser

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("data", ...)` in an empty folder -> exit status, what it printed, what it said of errors."""
    monkeypatch.chdir(tmp_path)

    return runner(capsys)


@pytest.mark.parametrize(("layout", "split"), [("cityscapes", "train"), ("mapillary", "training")])
def test_synth_prepare_check(run: Run, layout: str, split: str) -> None:
    status, out, _ = run("data", "synth", layout, "streets", "--images", "2", "--size", "48x96", "--seed", "3")
    assert status == 0 and f"2 {split}" in out and f"knet data prepare {layout} streets" in out

    status, out, _ = run("data", "prepare", layout, "streets")
    assert status == 0
    assert re.search(rf"^{split}: 2 images, streets/.*\.json written$", out, re.MULTILINE)
    assert ("knet_categories.json (28 stuff, 37 things)" in out) == (layout == "mapillary")
    assert "kept as it was" in run("data", "prepare", layout, "streets")[1]

    status, out, _ = run("data", "check", layout, "streets", "--splits", split)
    assert status == 0
    assert out.startswith(f"{split}: 2 images, 96x48 pixels, ")
    assert re.search(r"^[Rr]oad +\d+ stuff +2 +2 +0 +\d+\.\d\d%$", out, re.MULTILINE)
    assert "error:" not in out


def test_json_output(run: Run) -> None:
    status, out, _ = run("data", "synth", "mapillary", "streets", "--images", "1", "--size", "48x64", "--json")
    assert status == 0 and json.loads(out)["images"] == {"training": 1, "validation": 1}
    status, out, _ = run("data", "prepare", "mapillary", "streets", "--json")
    made = json.loads(out)
    assert status == 0 and made["version"] == "1.2" and made["splits"][0]["images"] == 1
    status, out, _ = run("data", "check", "mapillary", "streets", "--json")
    reports = json.loads(out)
    assert status == 0 and [report["name"] for report in reports] == ["training", "validation"]
    assert reports[0]["errors"] == 0 and len(reports[0]["classes"]) == 65


def test_a_broken_set_gives_lines_and_status_2(run: Run) -> None:
    run("data", "synth", "cityscapes", "streets", "--images", "1", "--size", "48x96")
    run("data", "prepare", "cityscapes", "streets", "--splits", "val")
    panoptic = Path("streets/gtFine/cityscapes_panoptic_val")
    next(panoptic.iterdir()).write_bytes(b"no picture")
    files = ("--images", "streets/leftImg8bit/val", "--panoptic", f"{panoptic}.json", "--masks", str(panoptic))
    for arguments in (("cityscapes", "streets", "--splits", "val"), files, (*files, "--classes", "cityscapes")):
        status, out, _ = run("data", "check", *arguments)
        assert status == 2
        (line,) = [line for line in out.splitlines() if line.startswith("error:")]
        assert line.startswith("error: panoptic PNGs cannot be read as 8-bit RGB (1): kernelhausen_")
        assert line.endswith("; copy or create them again")
        assert out.splitlines()[-1].startswith("1 kinds of errors")


MISTAKES: dict[str, tuple[str, str]] = {
    "no root": ("prepare cityscapes nowhere", r"The folder nowhere does not exist.*cityscapes-dataset\.com"),
    "empty root": ("prepare cityscapes .", r"lacks gtFine/train, leftImg8bit/train, gtFine/val, leftImg8bit/val; "),
    "empty vistas": ("prepare mapillary .", r"lacks config\.json or .*mapillary\.com"),
    "unknown split": ("prepare cityscapes . --splits train,dev", r"no labelled split 'dev'; choose from train, val"),
    "test split": ("prepare cityscapes . --splits test", r"test has no labels"),
    "no split": ("prepare cityscapes . --splits ,", r"names no split"),
    "version of cityscapes": ("prepare cityscapes . --version 2.0", r"--version is for mapillary"),
    "train ids of mapillary": ("prepare mapillary . --train-ids", r"--train-ids is for cityscapes"),
    "unprepared": ("check mapillary .", r"lacks config\.json"),
    "nothing to check": ("check", r"Give a data set and its ROOT, or all of --images, --panoptic and --masks"),
    "half a set": ("check --images . --masks .", r"Give a data set and its ROOT"),
    "both": ("check cityscapes . --images .", r"Give a data set and its ROOT"),
    "unknown set": ("check coco .", r"'coco' is no folder that `knet data import` made, and no data set that is known"),
    "root without a name": ("check cityscapes", r"Give a data set and its ROOT"),
    "table of a root": ("check cityscapes . --classes camvid", r"--classes is for --panoptic"),
    "unknown table": ("check --images . --panoptic a.json --masks . --classes camvit", r"Did you mean 'camvid'"),
    "no images": ("check --images nowhere --panoptic a.json --masks .", r"The folder nowhere does not exist"),
    "no count": ("synth mapillary out --images 0", r"give at least 1 image"),
    "too small": ("synth mapillary out --size 8x8", r"8x8 pixels is too small"),
    "there already": ("synth cityscapes .", r"exists already"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_gets_one_sentence(run: Run, case: str, tmp_path: Path) -> None:
    command, message = MISTAKES[case]
    (tmp_path / "something").write_text("")
    status, out, err = run("data", *command.split())
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("knet: ") and "Traceback" not in err
    assert re.search(message, err)


@pytest.mark.parametrize("command", ["synth kitti out", "synth mapillary out --size big", "prepare coco ."])
def test_usage(run: Run, command: str) -> None:
    status, _, err = run("data", *command.split())
    assert status == 2 and "usage:" in err


@pytest.mark.parametrize("job", ["prepare", "check", "synth"])
def test_help_has_an_example_that_is_understood(run: Run, job: str) -> None:
    status, out, _ = run("data", job, "--help")
    assert status == 0
    examples = [line.strip() for line in out.split("example:")[1].splitlines() if line.strip()]
    for example in examples:
        build_parser().parse_args(shlex.split(example)[1:])


def test_every_command_of_the_page_is_understood() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text()
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", page, re.DOTALL))
    commands = re.findall(r"^(?:\$ )?(knet .*)$", blocks, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])
