"""The documents as a reader follows them: blocks in their order, commands in one process, outputs by their shape."""

from __future__ import annotations

import io
import os
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

import knet
from knet.cli.main import build_parser, main
from knet.data.categories import load_categories
from knet.inference.load import fast_in_bf16

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = ("sh", "console", "text")  # kinds of blocks with command lines
TABLES = sorted(path.stem for path in (ROOT / "src/knet/data/tables").glob("*.json"))
OWN = ["floor", "wall", "box", "disc"]  # classes that the pages make up
CLASSES = sorted({row.name for table in TABLES for row in load_categories(table)} | {*OWN}, key=len, reverse=True)
IN_BF16 = fast_in_bf16(torch.device("cpu"))  # as on the machine of the documents
# Lines that depend on the machine and on the size of what a page works with.
PASSING = ("Compiling loops", "note: by itself torch sees these images at another size")
CLASS = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, CLASSES))})(?![\w-])")


class Block(NamedTuple):
    """A block of a document: the word behind its fence, its text, and its line."""

    kind: str
    text: str
    line: int


class Change(NamedTuple):
    """What makes one thing on a page small enough, or says what it is for.

    Attributes:
        at: a part of the command or, for other blocks than commands, of the block's text.
        more: words that the command gets as well.
        swap: words that are replaced.
        before: is done first, in the page's folder.
        file: the block is kept under this name,
        then: and these commands follow it.
        status: the exit status of the command.
        call: gets the page's names of Python and the block's text, once the block has run, or in its place.
    """

    at: str
    more: str = ""
    swap: dict[str, str] = {}  # noqa: RUF012
    before: Callable[[], object] = lambda: None
    file: str = ""
    then: tuple[str, ...] = ()
    status: int = 0
    call: Callable[[dict[str, Any], str], object] | None = None


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a document."""
    text = page.read_text()
    return [Block(found[1], found[2], text[: found.start()].count("\n") + 1) for found in FENCE.finditer(text)]


def shape(line: str) -> str:
    """A line of output without what may differ between two runs: numbers, classes, and how wide columns are."""
    line = re.sub(r"(?<=\(\d\): )[^;]+(?=;)", "NAMES", line)
    line = re.sub(r", torch, .+, (?=\d+ thread)", ", torch, PROCESSOR, ", line)
    line = CLASS.sub("CLASS", line if IN_BF16 else line.replace(" in bf16 (--official for the original's results)", ""))
    line = re.sub(r"^\S+(?= +\d+x\d+ )", "IMAGE", line)
    line = re.sub(r"\((?:bf16|fp16|fp32)\)", "(PRECISION)", re.sub(r"'\S*[/*]\S*'", "'PATH'", line))
    line = re.sub(r"(?<=\(auto\): )[^;]+(?=; batch=)", "REASON", re.sub(r"\([^() ]+\*(?:, \S+\*)*\)", "(NAMES)", line))
    line = re.sub(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?(?!\.\w)", "N", line)
    line = re.sub(r"\d+", "N", re.sub(r"(?<=\s)-(?=\s|$)", "N", line))
    line = re.sub(r"\bN (\w+?)s\b", r"N \1", line)
    line = re.sub(r"(CLASS(?: N)?)(?:, (?:CLASS(?: N)?|\.\.\.|N more|and N more))+", r"\1", line)
    return re.sub(r"-{3,}", "---", re.sub(r" +", " ", line)).strip()


def shapes(text: str) -> list[str]:
    """The shapes of a text's lines; rows of a table count as one, however many, and so do lines of a run's log."""
    found, last = list[str](), ""
    for line in map(shape, text.splitlines()):
        again = found if line.startswith("iteration") else (last, *found[-1:])
        if line and line not in again and not line.startswith(PASSING):
            found.append(line)
            last = last if line == "..." else line
    return found


def agrees(shown: str, printed: str) -> bool:
    """Whether a document shows what was printed; `...` stands for the rest of a line, or for any lines."""
    parts = []
    for line in shapes(shown):
        text = re.escape(line).replace(re.escape("..."), ".*")
        parts.append(r"(?:.*\n)*?" if line == "..." else rf"{text}\n")
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in shapes(printed))) is not None


def flat(table: dict[str, Any], start: str = "") -> dict[str, Any]:
    """Options in their groups as options with dots in their names."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{start}{key}.") if isinstance(value, dict) else {f"{start}{key}": value}
    return found


def commands_in(block: Block) -> list[tuple[str, str]]:
    """The commands of a block, continued lines in one, each with the output that is shown below it."""
    if block.kind != "console":
        lines = re.sub(r"\\?\n +", " ", block.text).splitlines()
        return [(line, "") for line in lines if line.strip() and not line.startswith("#")]
    lines = re.sub(r"\\\n *", "", block.text).splitlines()
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            left_out = "...\n" if "left out" in found[-1][0] else ""
            found[-1] = (found[-1][0], f"{found[-1][1]}{left_out}{line}\n{left_out}")
    return found


def words_of(command: str) -> list[str]:
    """The words behind `knet`; what starts several processes is left out, one is enough."""
    words = shlex.split(os.path.expandvars(command), comments=True)
    if words[0] in ("torchrun", "srun"):
        start = words.index("knet.cli.main") if "knet.cli.main" in words else words.index("knet")
        words = ["knet", *words[start + 1 :]]
    return words[1:-1] if words[-1] == "..." else words[1:]


def put(words: list[str], more: list[str]) -> list[str]:
    """The words with more of them: `key=value` behind those that are there, options at the end."""
    options = [word for word in more if "=" in word and not word.startswith("-")]
    given = [place for place, word in enumerate(words) if re.match(r"[\w.]+=", word)]
    at = given[-1] + 1 if given else len(words)
    return [*words[:at], *options, *words[at:], *(word for word in more if word not in options)]


class Reader:
    """Follows a page from block to block, in the folder in which the process is.

    Attributes:
        faults: what did not go as the page says.
        said: what each command has printed.
    """

    def __init__(
        self,
        page: Path,
        changes: list[Change],
        small: dict[str, str],
        not_run: dict[str, str],
        no_output: tuple[str, ...],
    ):
        self.page, self.changes, self.small, self.not_run, self.no_output = page, changes, small, not_run, no_output
        self.used, self.names = set[str](), dict[str, Any]()
        self.faults, self.said, self.done = list[str](), list[str](), dict[str, tuple[int, str]]()

    def follow(self) -> None:
        """Goes through the whole page."""
        for block in blocks_of(self.page):
            before = len(self.faults)
            try:
                self.block(block)
            except Exception as error:  # the other blocks are tried as well
                self.faults.append(f"{type(error).__name__}: {error}")
            where = f"{self.page.name}:{block.line}"
            self.faults[before:] = [f"{where}: {fault}" for fault in self.faults[before:]]
        unused = [change.at for change in self.changes if change.at not in self.used]
        self.faults += [f"{self.page.name}: nothing there has '{at}'" for at in unused]

    def block(self, block: Block) -> None:
        """Does what a block is for."""
        if block.kind in COMMANDS:
            for command, shown in commands_in(block):
                self.command(command, shown)
            return
        change = self.change(block.text)
        change.before()
        if change.file:
            Path(change.file).write_text(block.text)
        if block.kind in ("python", "py"):
            self.python(block)
        elif block.kind == "yaml" and not change.file:
            knet.read_config("custom", **flat(yaml.safe_load(block.text)))
        elif block.kind == "json":
            Path("classes_of_the_page.json").write_text(block.text)
            load_categories("classes_of_the_page.json")
        elif block.kind == "" and not change.call:
            self.output(block.text)
        for command in change.then:
            self.command(command, "")
        if change.call:
            change.call(self.names, block.text)

    def output(self, text: str) -> None:
        """Looks for what is shown among what was printed on the page so far."""
        if any(part in text for part in self.no_output) or any(agrees(text, said) for said in self.said):
            return
        start = shapes(text)[0]
        nearest = next((said for said in reversed(self.said) if start in shapes(said)), "".join(self.said[-1:]))
        self.faults.append(f"nothing printed\n{text}--- but for instance\n{nearest}")

    def change(self, text: str) -> Change:
        """What the page's table says about a command or a block."""
        found = [change for change in self.changes if change.at in text]
        self.used |= {change.at for change in found}
        return found[0] if found else Change("")

    def python(self, block: Block) -> None:
        """Runs Python with the names of the blocks before."""
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile("\n" * block.line + block.text, str(self.page), "exec"), self.names)
        self.said.append(output.getvalue())

    def command(self, command: str, shown: str) -> None:
        """Runs a command line, and compares what it prints with what is shown."""
        change = self.change(command)
        not_run = any(part in command.partition("#")[0] for part in self.not_run)
        if not_run and not command.startswith("knet "):
            other_program(command)
            return
        words = [change.swap.get(word, word) for word in words_of(command)]
        verb = " ".join(words[: 2 if words[0] == "data" else 1])
        if any(word.startswith("[") for word in words):
            self.faults += synopsis(" ".join(words), self.page.read_text())
            return
        build_parser().parse_known_args(words)
        if not_run:
            return
        change.before()
        words = put(words, shlex.split(f"{self.small.get(verb, '')} {change.more}"))
        key = shlex.join(words)
        if key not in self.done:  # what stands on a page twice is done once
            self.done[key] = called(words)
        status, printed = self.done[key]
        self.said.append(printed)
        if status != change.status:
            self.faults.append(f"knet {key}\nexit status {status}\n{printed}")
        elif shown and not agrees(shown, printed):
            self.faults.append(f"knet {key}\n{printed}--- but shown is\n{shown}")


def called(words: list[str]) -> tuple[int, str]:
    """Runs the command line: its exit status, and all that it prints."""
    output = io.StringIO()
    os.environ["KNET_OFFLINE"] = "0"
    with redirect_stdout(output), redirect_stderr(output):
        try:
            status = main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, output.getvalue()


def other_program(command: str) -> None:
    """Looks at a command of pip, make or Python as far as can be without running it."""
    words = shlex.split(command, comments=True)
    known = {"pip": "pyproject.toml", "make": "Makefile", "python": words[1]}
    text = (ROOT / known[words[0]]).read_text()
    if words[0] == "pip":
        extras = re.findall(r"knet\[(\w+)\]", command)
        assert extras and all(re.search(rf"^{extra} = \[", text, re.MULTILINE) for extra in extras), command
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", text, re.MULTILINE), command
        assert all(f"$({word.partition('=')[0]})" in text for word in words[2:]), command
    else:
        assert all(f'"{word}"' in text for word in words if word.startswith("--")), command


def synopsis(text: str, page: str) -> list[str]:
    """What a usage line, or the page around it, says otherwise than the parser."""
    verb, faults = text.split()[0], []
    verbs = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    actions = [action for action in verbs[verb]._actions if action.help != SUPPRESS]  # type: ignore[index]
    known = {name: action for action in actions for name in action.option_strings}
    for option, value in re.findall(r"(--[\w-]+)(?:[ =]([\w|]+))?", text):
        if option not in known:
            faults.append(f"knet {verb} has no option {option}")
        elif (known[option].nargs == 0) == bool(value):
            faults.append(f"knet {verb} {option}: a value is shown and none is taken, or the reverse")
        elif known[option].choices and "|" in value and value.split("|") != [*map(str, known[option].choices)]:
            faults.append(f"knet {verb} {option} takes {'|'.join(known[option].choices)}, not {value}")
    silent = [action.option_strings for action in actions if not any(name in page for name in action.option_strings)]
    return faults + [f"the page says nothing of {names[-1]}" for names in silent if names and "--help" not in names]
