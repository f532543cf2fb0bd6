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

# Imports go down only, and rooms of one floor do not know each other; those of floor 0 are one room, the ground.
FLOORS = {
    8: ("cli",),
    7: ("apps",),
    6: ("runs",),
    5: ("export",),
    4: ("inference", "evaluation", "training"),
    3: ("weights", "data"),
    2: ("models", "merge"),
    1: ("track", "preprocess", "config", "distributed"),
    0: ("structures", "class_names", "errors", "calls", "parse", "files", "compiled"),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def modules() -> dict[str, Path]:
    """All files by name, but for the face, which shows rooms of all floors."""
    named = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del named["knet"]
    return named


def imports() -> dict[str, set[str]]:
    """What each file imports of the others, wherever in it."""
    files = modules()
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[module] = {name for name in names if name in files and files[name].stat().st_size} - {module}
    return found


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The circles of a graph and what leads into them: what is left when ends are taken away, again and again."""
    graph = {node: set(others) for node, others in graph.items()}
    while ends := {node for node, others in graph.items() if not others & graph.keys() - {node}}:
        graph = {node: others - ends for node, others in graph.items() if node not in ends}
    return sorted(f"{node} -> {', '.join(sorted(others & graph.keys()))}" for node, others in graph.items())


def test_imports_go_down_and_never_to_a_neighbour() -> None:
    wrong = []
    for module, others in imports().items():
        room = module.split(".")[1]
        for other in others:
            floor, below = FLOOR_OF[room], FLOOR_OF[other.split(".")[1]]
            if room != other.split(".")[1] and (below > floor or below == floor > 0):
                wrong.append(f"{module} (floor {floor}) imports {other} (floor {below})")
    assert not wrong, "\n".join(wrong)


def test_no_file_needs_itself() -> None:
    assert not circles(imports())


def test_no_folder_needs_itself() -> None:
    files = modules()
    folders: dict[str, set[str]] = {}
    for module, others in imports().items():
        here = str(files[module].parent.relative_to(SOURCE))
        folders.setdefault(here, set()).update(
            {str(files[other].parent.relative_to(SOURCE)) for other in others} - {here}
        )
    assert not circles(folders)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a -> b", "b -> c", "c -> b"]


def test_the_table_of_floors_in_contributing_is_this_one() -> None:
    table = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert {int(floor): tuple(re.findall(r"`(\w+)`", rooms)) for floor, rooms in table} == FLOORS


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


NAME = re.compile(r"\bknet(?:\.[A-Za-z_]\w*)+")


def named() -> set[str]:
    """Every `knet.x.y` that a reader meets: in documents, examples, docstrings, comments and messages."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    texts = [path.read_text() for path in [*documents, *(ROOT / "examples").glob("*.py")]]
    for path in SOURCE.rglob("*.py"):
        texts.append(re.sub(r"^\s*(from|import) .*", "", path.read_text(), flags=re.MULTILINE))
    return {name for text in texts for name in NAME.findall(text)}


def lacking(names: set[str]) -> str:
    """Those of the names that nothing but `import knet`, in a new interpreter, does not give."""
    code = (
        "import functools, sys, knet\n"
        "for name in sys.argv[1:]:\n"
        "    try: functools.reduce(getattr, name.split('.')[1:], knet)\n"
        "    except AttributeError: print(name)"
    )
    command = [sys.executable, "-c", code, *sorted(names)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_name_that_readers_meet_is_there_after_importing_knet() -> None:
    assert {"knet.evaluation.panoptic_quality", "knet.inference.bench.measure", "knet.train"} <= named()
    assert lacking(named() | {"knet.inference.clip.segment_everything"}) == "knet.inference.clip.segment_everything\n"


def test_every_public_thing_has_a_docstring() -> None:
    bare = []
    for module, path in modules().items():
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
    long = {str(path): n for path in modules().values() if (n := len(path.read_text().splitlines())) > 380}
    assert not long


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, kinds: str) -> list[str]:
    """The blocks of code of a document."""
    return re.findall(rf"^```(?:{kinds})\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """The lines of a document's blocks that begin with `knet`."""
    lines = "\n".join(blocks(path, "sh|console")).replace("\\\n", " ").splitlines()
    found = [line.strip().removeprefix("$ ") for line in lines]
    return [line for line in found if line.startswith("knet ")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_block_of_a_document_can_be_understood(path: Path) -> None:
    """Commands by the parser, which exits at what it does not know, Python by its compiler; some pages' also run."""
    from knet.cli.main import build_parser

    for command in commands(path):
        words = shlex.split(command, comments=True)
        end = next((place for place, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
        _, rest = build_parser().parse_known_args(words[1:end])
        assert all("=" in word and not word.startswith("-") for word in rest), command  # key=value behind options
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


def test_the_readme_has_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 6


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")  # here, where torch is imported already
    assert capsys.readouterr().out
