"""Whether the tests would notice: changes the package in one small place at a time and runs the tests of that file.

    python tests/mutants/mutants.py [FILE ...] [--count 40] [--seed 0] [--only REGEX] [--list]

FILE is one of `TESTS` below, all of them by default. A mutant that the tests pass with survives, and gets a test, or a
line in equivalent.txt with the reason why none can tell it from the original. All mutants of a file run in children of
one process that has imported torch, so that each costs a second. Their limit is processor time, ten times that of the
tests without a mutant, so a busy machine kills none.
"""

import argparse
import ast
import copy
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "knet"
REASONS = Path(__file__).with_name("equivalent.txt")

TESTS = {
    "models/kernels.py": "models/test_kernels.py models/test_kernel_details.py",
    "models/decoder.py": "models/test_kernels.py models/test_kernel_details.py",
    "merge/panoptic.py": "merge/test_merge_details.py merge/test_panoptic.py",
    "merge/sorted.py": "merge/test_merge_details.py merge/test_sorted.py",
    "merge/semantic.py": "merge/test_semantic.py",
    "merge/regions.py": "merge/test_regions.py",
    "merge/clip.py": "inference/test_clip_results.py models/test_clip.py",
    "merge/votes.py": "merge/test_votes.py runs/test_label.py",
    "merge/pixels/plain.py": "merge/pixels/test_streaming.py",
    "merge/pixels/streaming.py": "merge/pixels/test_tiles.py merge/pixels/test_streaming.py",
    "merge/pixels/stretch.py": "merge/pixels/test_tiles.py merge/pixels/test_streaming.py",
    "merge/pixels/tile.py": "merge/pixels/test_tiles.py merge/pixels/test_streaming.py",
    "training/match.py": "training/test_match.py",
    "training/losses.py": "training/test_losses.py training/test_ignored.py",
    "track/embeddings.py": "track/test_embeddings.py track/test_never_reused.py",
    "track/overlap.py": "track/test_overlap.py track/test_never_reused.py",
    "track/settings.py": "track/test_settings.py",
    "evaluation/panoptic.py": "evaluation/test_panoptic_quality.py evaluation/test_panoptic_inputs.py "
    "evaluation/test_report_details.py evaluation/test_progress.py",
    "evaluation/semantic.py": "evaluation/test_mean_iou.py evaluation/test_ade20k.py "
    "evaluation/test_report_details.py evaluation/test_progress.py",
    "evaluation/matches.py": "evaluation/test_panoptic_quality.py evaluation/test_panoptic_inputs.py "
    "evaluation/test_video_vpq.py evaluation/test_report_details.py",
    "evaluation/means.py": "evaluation/test_instance_ap.py evaluation/test_video_vpq.py",
    "evaluation/video_counter.py": "evaluation/test_video_stq.py evaluation/test_video_files.py "
    "evaluation/test_progress.py",
    "evaluation/video_stq.py": "evaluation/test_video_stq.py",
    "evaluation/video_vpq.py": "evaluation/test_video_vpq.py evaluation/test_video_files.py",
    "evaluation/detections.py": "evaluation/test_mask_ap.py evaluation/test_report_details.py "
    "evaluation/test_progress.py runs/test_classes_by_name.py",
    "evaluation/instance.py": "evaluation/test_mask_ap.py evaluation/test_report_details.py "
    "evaluation/test_progress.py",
    "evaluation/instance_cityscapes.py": "evaluation/test_instance_ap.py evaluation/test_progress.py",
    "evaluation/objects.py": "evaluation/test_report_details.py",
    "evaluation/same_classes.py": "evaluation/test_same_classes.py runs/test_classes_by_name.py",
    "evaluation/video_instance.py": "evaluation/test_video_instance.py evaluation/test_progress.py",
    "runs/state.py": "runs/test_state.py",
}

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Continue: ast.Break, ast.Break: ast.Continue},
}
_NAMES = {"max": "min", "min": "max", "any": "all", "all": "any", "argmax": "argmin", "amax": "amin"}
_CHECKS = ("strict", "slots")  # of `zip` and of data classes, which tests cannot break without changing the file
_COPIES = ("copy", "clone", "detach", "contiguous")  # what can be left out of a chain of calls


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """What can be changed at a node of the tree: in words, and as an act on the node itself."""
    if isinstance(node, ast.keyword) and node.arg in _CHECKS:
        return
    for name, value in ast.iter_fields(node):
        for place, part in enumerate(value if isinstance(value, list) else [value]):

            def put(new: ast.AST, name: str = name, value: Any = value, place: int = place) -> None:
                if isinstance(value, list):
                    value[place] = new
                else:
                    setattr(node, name, new)

            def act(new: ast.AST, put: Callable[[ast.AST], None] = put, old: ast.AST = part) -> Callable[[], None]:
                return lambda: put(ast.copy_location(new, old))

            match part:
                case ast.operator() | ast.cmpop() | ast.boolop() | ast.stmt() if type(part) in _SWAPS:
                    other = _SWAPS[type(part)]
                    yield f"{type(part).__name__} -> {other.__name__}", act(other())
                case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                    yield f"{ast.unparse(part)} -> {ast.unparse(operand)}", act(operand)
                case ast.Constant(value=bool() as truth):
                    yield f"{truth} -> {not truth}", act(ast.Constant(not truth))
                case ast.Constant(value=int() as number):
                    yield f"{number} -> {number + 1}", act(ast.Constant(number + 1))
                case ast.Constant(value=float() as number):
                    yield f"{number} -> {number * 2 or 1.0}", act(ast.Constant(number * 2 or 1.0))
                case ast.Name(id=word) if word in _NAMES:
                    yield f"{word} -> {_NAMES[word]}", act(ast.Name(_NAMES[word], ast.Load()))
                case ast.Call(func=ast.Attribute(value=object_, attr=word)) if word in _COPIES:
                    yield f"without .{word}()", act(object_)
                case ast.Attribute(value=object_, attr=word) if word in _NAMES:
                    yield f".{word} -> .{_NAMES[word]}", act(ast.Attribute(object_, _NAMES[word], ast.Load()))
                case ast.AugAssign():
                    yield f"without {ast.unparse(part)}", act(ast.Pass())
                case ast.Expr(value=ast.Call()):
                    yield f"without {ast.unparse(part)}", act(ast.Pass())
            if name == "test" and isinstance(part, ast.Name | ast.Call | ast.Attribute | ast.BoolOp):
                yield "condition negated", act(ast.UnaryOp(ast.Not(), part))


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, what an error says, and strings."""
    if isinstance(tree, ast.Raise | ast.JoinedStr | ast.ImportFrom | ast.Import):
        return
    yield tree
    for name, value in ast.iter_fields(tree):
        if name not in ("annotation", "returns"):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from places(part)


def mutants(path: Path) -> list[tuple[int, str, CodeType]]:
    """Line, what is changed, and the code of each mutant of a file."""
    original, found = ast.parse(path.read_text()), []
    count = sum(1 for node in places(original) for _ in changes(node))
    for number in range(count):
        tree = copy.deepcopy(original)
        every = ((node, *change) for node in places(tree) for change in changes(node))
        node, what, act = next(item for place, item in enumerate(every) if place == number)
        line = getattr(node, "lineno", 0) or min((n.lineno for n in ast.walk(node) if hasattr(n, "lineno")), default=0)
        act()
        found.append((line, what, compile(ast.fix_missing_locations(tree), str(path), "exec")))
    return found


class _Mutated(MetaPathFinder, SourceFileLoader):
    """Imports one module with other code."""

    def __init__(self, name: str, path: Path, code: CodeType):
        super().__init__(name, str(path))
        self.code = code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == self.name else None
        if spec is not None:
            spec.loader = self
        return spec

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def passes(tests: list[str], mutated: _Mutated | None, seconds: float) -> tuple[bool, float]:
    """Whether the tests pass in a child of this process, within its processor time; and how much of that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
            signal.alarm(1800)  # it waits for what never comes
            os.setsid()
            quiet = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(quiet, descriptor)
            if mutated:
                sys.meta_path.insert(0, mutated)
            import pytest

            with tempfile.TemporaryDirectory() as folder:
                if mutated and "knet.compiled" in Path(mutated.path).read_text():
                    import numba

                    numba.config.CACHE_DIR = folder  # its usual cache takes a loop with other constants for the same
                options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--basetemp", f"{folder}/t"]
                code = pytest.main([*options, *tests])
            os._exit(int(code))
        except BaseException:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status == 0, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def known_reasons() -> dict[tuple[str, str, str], str]:
    """(file, text of the line, what is changed) -> why no test can tell the mutant from the original."""
    rows = [line.split(" | ", 1) for line in REASONS.read_text().splitlines() if line and not line.startswith("#")]
    parts = [(file, *rest.rsplit(" | ", 2)) for file, rest in rows]  # the text may have a | of its own
    for file, text, *_ in parts:
        if text not in map(str.strip, (PACKAGE / file).read_text().splitlines()):
            raise SystemExit(f"{REASONS.name}: {file} has no line '{text}' any more; mend the reason or take it out.")
    return {(file, text, what): reason for file, text, what, reason in parts}


def judge(file: str, count: int, seed: int, only: str, show: bool) -> tuple[int, int]:
    """Runs a sample of a file's mutants. -> how many, and how many of them survived without a reason"""
    path = PACKAGE / file
    lines, reasons = path.read_text().splitlines(), known_reasons()
    every = [m for m in mutants(path) if re.search(only, f"{m[0]}: {lines[m[0] - 1].strip()} | {m[1]}")]
    chosen = sorted(random.Random(seed).sample(range(len(every)), min(count, len(every))))
    tests = [str(ROOT / "tests" / test) for test in TESTS[file].split()]
    name = "knet." + file.removesuffix(".py").replace("/", ".")
    killed = excused = 0
    if not show:
        sound, usual = passes(tests, None, 600)
        if not sound:
            raise SystemExit(f"{file}: the tests do not pass without a mutant.")
    for number in chosen:
        line, what, code = every[number]
        text = lines[line - 1].strip()
        began = time.monotonic()
        if show:
            verdict = "mutant"
        elif not passes(tests, _Mutated(name, path, code), 10 * usual + 10)[0]:
            killed, verdict = killed + 1, "killed"
        elif (file, text, what) in reasons:
            excused, verdict = excused + 1, "no difference"
        else:
            verdict = "SURVIVED"
        print(f"{verdict:<13} {time.monotonic() - began:5.1f} s  {file}:{line} | {text} | {what}", flush=True)
    survived = 0 if show else len(chosen) - killed - excused
    share = f"{100 * killed / max(killed + survived, 1):.0f} %"
    print(f"== {file}: {len(chosen)} of {len(every)} mutants, {killed} killed, {survived} survived, {excused} "
          f"without a difference: {share}", flush=True)  # fmt: skip
    return killed, survived


def main() -> int:
    """Runs the command line; the exit status is 1 where less than 85 % are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=[*TESTS], metavar="FILE", help=", ".join(TESTS))
    parser.add_argument("--count", type=int, default=40, help="mutants a file (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--only", default="", help="those with this regular expression in 'LINE: TEXT | CHANGE'")
    parser.add_argument("--list", action="store_true", help="show them, run nothing")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT / "src")]
    os.chdir(ROOT)
    if not args.list:  # all that is not ours, once
        import hypothesis.strategies, numba, PIL.Image, pydantic, pytest, scipy.optimize, timm, torchvision, yaml  # noqa: E401, F401, I001
    results = [judge(file, args.count, args.seed, args.only, args.list) for file in args.files]
    killed, survived = (sum(column) for column in zip(*results, strict=True))
    print(f"== together: {killed} of {killed + survived} killed ({100 * killed / max(killed + survived, 1):.1f} %)")
    return int(killed < 0.85 * (killed + survived))


if __name__ == "__main__":
    sys.exit(main())
