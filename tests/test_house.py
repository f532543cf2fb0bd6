"""How the package is built: who may import whom, and that what users are shown is true."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "knet"

# Imports go down only; rooms of floor 1 do not know each other. The first prefix that fits counts.
FLOORS: tuple[tuple[str, int], ...] = (
    ("knet.cli", 5),
    ("knet.runs", 4),
    ("knet.preprocess", 0),
    ("knet.distributed", 0),
    ("knet.runs.train", 4),
    ("knet.runs.step", 4),
    ("knet.runs.build", 4),
    ("knet.runs.evaluate", 4),
    ("knet.runs.evaluate_clips", 4),
    ("knet.export", 4),
    ("knet.inference", 3),
    ("knet.weights", 2),
    ("knet.training", 2),
    ("knet.evaluation", 2),
    ("knet.track", 2),
    ("knet.models", 1),
    ("knet.data", 1),
    ("knet.merge", 1),
    ("knet.structures", 0),
    ("knet.config", 0),
    ("knet.errors", 0),
    ("knet.files", 0),
    ("knet.compiled", 0),
)


def place(module: str) -> tuple[str, int]:
    """The room of a module and its floor."""
    for prefix, floor in FLOORS:
        if module == prefix or module.startswith(prefix + "."):
            return prefix, floor
    raise AssertionError(f"{module} has no floor: give it one in FLOORS")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("knet"):
            found |= {
                f"{node.module}.{alias.name}" if node.module.count(".") < 1 else node.module for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("knet")}
    return {name for name in found if name not in ("knet", "knet.__version__")}


def modules() -> list[tuple[str, Path]]:
    named = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        named.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return [(name, path) for name, path in named if name != "knet"]  # the face shows rooms of all floors


def test_imports_go_down_only() -> None:
    wrong = []
    for module, path in modules():
        room, floor = place(module)
        for other in imports(path):
            other_room, other_floor = place(other)
            if other_floor > floor or (floor == other_floor == 1 and room != other_room):
                wrong.append(f"{module} (floor {floor}) imports {other} (floor {other_floor})")
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, knet; import knet.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_face_gives_what_it_lists() -> None:
    import knet

    for name in knet.__all__:
        assert getattr(knet, name) is not None
        assert name in dir(knet)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = knet.nothing  # type: ignore[attr-defined]


def test_every_public_thing_has_a_docstring() -> None:
    bare = []
    for module, path in modules():
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            bare.append(module)
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
                continue
            methods = node.body if isinstance(node, ast.ClassDef) else []
            public = [m for m in methods if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
            # A network's class says what its forward takes and gives.
            for thing in [node, *(method for method in public if method.name != "forward")]:
                if not ast.get_docstring(thing):
                    bare.append(f"{module}.{node.name}: {thing.name}")
    assert not bare, "\n".join(bare)


def test_files_stay_readable() -> None:
    long = {str(path): n for _, path in modules() if (n := len(path.read_text().splitlines())) > 380}
    assert not long


def readme_commands() -> list[str]:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").split("#")[0] for line in lines if line.removeprefix("$ ").startswith("knet ")]


def test_every_command_of_the_readme_is_one_that_knet_understands() -> None:
    from knet.cli.main import build_parser

    commands = readme_commands()
    assert len(commands) >= 6
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])  # exits, and so fails, if it does not understand


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")  # here, where torch is imported already
    assert capsys.readouterr().out
