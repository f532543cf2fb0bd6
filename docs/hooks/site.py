"""Pages of the site that are made of what they describe, so that they cannot become old: see `PAGES`.

mkdocs calls `on_files` and `on_page_markdown`; `make docs` builds the site.
"""

import ast
import inspect
import io
import json
import re
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

_OUTSIDE = r"\.\./|configs|benchmarks|examples|src|[A-Z]{4}"  # how links to what is no page begin
_ELSEWHERE = re.compile(rf"\[([^\]]+)\]\(((?:{_OUTSIDE})[^)]*)\)")
_OF_README = re.compile(r"\]\(docs/([^)]+)\)")


def home() -> str:
    """The README, as the first page."""
    text = _OF_README.sub(r"](\1)", (ROOT / "README.md").read_text("utf-8"))
    return text.replace("(tutorial.ipynb)", "(tutorial.md)")


def tutorial() -> str:
    """The notebook as a page: its text and its code."""
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text("utf-8"))
    cells = (("".join(cell["source"]), cell["cell_type"]) for cell in notebook["cells"])
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in cells]
    return "\n\n".join(
        [*parts, "This page is a notebook, to be run as it is: `docs/tutorial.ipynb` of the repository."]
    )


def options() -> str:
    """Every option of a run, from the classes of `config.py`."""
    from knet import config

    parts = [
        "# Options of a run",
        "What a config file (`knet config NAME` prints one) and `key=value` behind `knet train` may say; for editors "
        "`knet config --schema` says the same.",
    ]
    for name, kind in (
        ("the run itself", config.RunConfig),
        ("data", config.Data),
        ("data.train, each of its sets", config.TrainFiles),
        ("data.val", config.Files),
        ("augment", config.Augment),
        ("losses", config.Losses),
        ("optimizer", config.Optimizer),
    ):
        rows = [f"| `{row.name}` | {_code(row.kind)} | {_code(row.default)} | {row.about} |" for row in _rows(kind)]
        parts += [f"## {name[0].upper()}{name[1:]}", inspect.cleandoc(kind.__doc__ or "")]
        parts.append("\n".join(["| option | is | default | |", "| --- | --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


class Row(NamedTuple):
    """An option: its name, type, default and comment."""

    name: str
    kind: str
    default: str
    about: str


def _rows(kind: type) -> list[Row]:
    """The options that a class adds."""
    source = inspect.getsource(kind)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines, found = source.splitlines(), []
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        first = node.lineno
        while lines[first - 2].lstrip().startswith("#"):  # the comment above
            first -= 1
        about = [comments[line] for line in range(first, (node.end_lineno or first) + 1) if line in comments]
        default = "" if node.value is None else ast.unparse(node.value)
        alias = re.search(r"alias='(\w+)'", default)
        name = alias[1] if alias else node.target.id
        found.append(Row(name, ast.unparse(node.annotation), _default(default), " ".join(about)))
    return found


def _default(text: str) -> str:
    """Of `Field(4, ge=1)` the 4."""
    if not text.startswith("Field("):
        return text
    call = ast.parse(text).body[0].value  # type: ignore[attr-defined]
    return ast.unparse(call.args[0]) if call.args else ""


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def models() -> str:
    """Every model, from the table that `knet models` prints."""
    rows = json.loads((ROOT / "src" / "knet" / "assets" / "models.json").read_text("utf-8"))
    parts = ["# All models", "As `knet models` prints them; [models](models.md) says what they are.", ""]
    head = ("model", "task", "parameters", "GFLOPs", "at", "weights", "published")
    parts += [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        figures = ", ".join(f"{name} {figure}" for name, figure in row["published"].items())
        numbers = f"{row['parameters'] / 1e6:.1f} M | {row['gflops']:.1f} | {row['size'][0]}x{row['size'][1]}"
        parts.append(f"| `{row['name']}` | {row['task']} | {numbers} | {row['weights']} | {figures} |")
    return "\n".join(parts)


def reference() -> str:
    """The public face: what `knet` lists, from its docstrings."""
    import knet

    names = [name for name in knet.__all__ if name in knet._HOMES]
    parts = ["# Reference", "What `import knet` gives. [From Python](python.md) shows how it is used."]
    return "\n\n".join([*parts, *(f"::: {knet._HOMES[name]}.{name}" for name in names)])


PAGES: dict[str, Callable[[], str]] = {
    "index.md": home,
    "tutorial.md": tutorial,
    "options.md": options,
    "model-table.md": models,
    "reference.md": reference,
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to what is not part of the site become the names of the files."""
    return _ELSEWHERE.sub(lambda link: f"{link[1]} (`{link[2].removeprefix('../')}` in the repository)", markdown)
