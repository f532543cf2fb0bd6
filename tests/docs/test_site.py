"""The site of the documents: made pages are whole, the notebook runs, and nothing is asked of other hosts."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import knet
from knet import config
from knet.cli.main import build_parser

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    made = runpy.run_path(str(ROOT / "docs" / "hooks" / "site.py"))["PAGES"]
    return {name: make() for name, make in made.items()}


@pytest.mark.parametrize(
    "kind",
    [config.RunConfig, config.Data, config.Files, config.TrainFiles, config.Augment, config.Losses, config.Optimizer],
)
def test_every_option_of_a_run_is_in_the_reference(kind: Any, pages: dict[str, str]) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", pages["options.md"], re.MULTILINE))
    assert {field.alias or name for name, field in kind.model_fields.items()} <= listed


def test_options_say_what_they_are(pages: dict[str, str]) -> None:
    assert "| `Pixels \\| None` | `None` | test-time size; null: the model's own |" in pages["options.md"]
    assert "| `batch` | `_Batch` | `32` | Images an iteration, over all processes;" in pages["options.md"]
    assert "| `weights` | `str \\| Path \\| None` | `None` | Start from these instead of" in pages["options.md"]


def test_every_model_and_every_name_has_its_place(pages: dict[str, str]) -> None:
    assert all(f"| `{name}` |" in pages["model-table.md"] for name in knet.models())
    shown = re.findall(r"^::: (\S+)$", pages["reference.md"], re.MULTILINE)
    assert {place.rpartition(".")[2] for place in shown} == set(knet.__all__) - {"__version__", "evaluation"}


def test_every_document_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name}" not in readme]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_is_kept_without_its_outputs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), str(path), "exec"), names)
    assert "Road" in capsys.readouterr().out
    assert {path.stem for path in names["written"]} == {"highway_1_overlay", "highway_1_panoptic"}
    assert len(names["tracks"]) >= 2


@pytest.mark.heavy
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_in_jupyter(path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in data for data in shown)


def test_commands_for_those_who_come_from_elsewhere_are_ours() -> None:
    commands = re.findall(r"`(?:torchrun [^`]*-m knet\.cli\.main|knet) ([^`]+)`", (ROOT / "docs/moving.md").read_text())
    assert len(commands) > 15
    for command in commands:
        build_parser().parse_args(shlex.split(command.replace("NAME", "rtknet-cityscapes")))


@pytest.mark.heavy
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {path.name: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    assert {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")} < pages.keys()
    asked = r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\">]*"
    assert not {name: found for name, text in pages.items() if (found := re.findall(asked, text))}
