"""Runs over many images: in parts, and going on where an earlier run was ended."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knet.cli.drawing import drawing_options
from knet.errors import counted

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from knet.inference.pipeline import Here
    from knet.inference.segmenter import Segmenter
    from knet.inference.sources.paths import SourceFile
    from knet.inference.sources.plan import ImagePlan
    from knet.inference.sources.streams import Frame

_SHOWN = 20  # failures that are told one by one
_OPTIONS = ("model", "weights", "compatible", "size", "score", "overlap", "merge", "tta", "window", "only", "region")
_DRAWING = ("alpha", "legend", "names", "scores", "contours")


def add_many_options(parser: argparse.ArgumentParser) -> None:
    """--resume and --shard."""
    resume = "images that an earlier run with the same options finished in the output folder are not done again"
    parser.add_argument("--resume", action="store_true", help=resume)
    shard = "do the Ith of N parts of the images: N processes, each with its number, share a run (a Slurm array)"
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help=shard)


def image_plan(args: argparse.Namespace, files: Sequence[SourceFile], others: bool) -> ImagePlan | None:
    """The plan of a run over images alone; see `without_plan` where there are `others` as well, such as cameras."""
    from knet.inference.sources.plan import plan_images

    if others or args.track or any(file.video for file in files):
        without_plan(args)
        return None
    return plan_images(files)


def without_plan(args: argparse.Namespace) -> None:
    """Does nothing, but raises `ConfigError` for options that are for runs over images alone."""
    from knet.errors import ConfigError

    if args.resume or args.shard != (1, 1):
        raise ConfigError(
            "The options --resume and --shard are for runs over images that have files of their own as results; leave "
            "out videos, cameras, --track, --every, --start, --end and the format 'video'."
        )


class ImageRun:
    """A run over the images of a plan, noted in a journal. A context manager; `failed` gets what cannot be read.

    Attributes:
        left: how many images this process has to do.
        writing: arguments for `PredictionWriter`.
        listed: the end of a sentence that names the file which lists what failed; nothing before `end`.
    """

    def __init__(
        self, args: argparse.Namespace, plan: ImagePlan, segmenter: Segmenter, formats: Sequence[str], failed: list[str]
    ):
        from knet.inference.results.journal import Journal

        options = result_options(args, formats) | {"submission": args.submission, "precision": segmenter.precision}
        options |= drawing_options(args)
        self._journal = Journal(args.output, plan, options, args.shard, args.resume)
        self._args, self._plan, self._failed, self.listed = args, plan, failed, ""
        self._undone: dict[int, str] = {}
        self.left = sum(1 for _ in self._journal.places())
        self.writing = {"plan": plan, "journal": self._journal}
        if args.resume and not args.json:
            print(f"{counted(self._journal.resumed, 'image')} done before, {self.left} left")

    def __enter__(self) -> ImageRun:
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.__exit__(*error)

    def frames(self, here: Here) -> Generator[Frame, None, None]:
        """The images that are left, for `read_ahead`."""
        return self._plan.frames(self._journal.places(), here(self.note))

    def end(self) -> None:
        """Notes that no image is left, and lists those that failed in a file; an earlier run's is removed."""
        self._journal.end(clean=not self._undone)
        number, count = self._args.shard
        part = f"-{number}-of-{count}" if count > 1 else ""
        self.listed = list_failures(self._journal.folder / f"failed_images{part}.txt", self._plan, self._undone)

    def note(self, place: int, error: object) -> None:
        """Notes that an image of the plan has no result, and why."""
        self._undone[place] = str(error)
        self._failed.append(str(error))


def unfinished_files(args: argparse.Namespace, resumable: bool) -> str:
    """The end of a sentence about a run that was stopped."""
    more = "; with --resume it goes on" if resumable else ""
    return f"; files of several images in {args.output}/ end there, and are named _unfinished{more}"


def list_failures(path: Path, plan: ImagePlan, failed: dict[int, str]) -> str:
    """Writes which images failed and why; the end of a sentence that names the file. Without any it is removed."""
    from knet.inference.results.files import write_bytes

    if not failed:
        path.unlink(missing_ok=True)
        return ""
    lines = "".join(f"{plan.paths[place]}\t{reason}\n" for place, reason in failed.items())
    write_bytes(path, lines.encode("utf-8", "surrogateescape"))
    return f", see {path}"


def tell_failures(failed: Sequence[str], listed: str) -> None:
    """Prints what could not be read; of what is `listed` in a file the first alone, where it is much."""
    shown = failed[:_SHOWN] if listed else failed
    for sentence in shown:
        print(f"knet: {sentence}", file=sys.stderr)
    if len(failed) > len(shown):
        print(f"knet: and {counted(len(failed) - len(shown), 'image')} more without a result{listed}", file=sys.stderr)


def result_options(args: argparse.Namespace, formats: Sequence[str]) -> dict[str, Any]:
    """What the results of a run over images depend on."""
    from knet import __version__

    options = {name: getattr(args, name) for name in _OPTIONS}
    options |= {name: value for name in _DRAWING if (value := getattr(args, name, None)) is not None}
    options |= {"formats": list(formats), "version of knet": __version__}
    return options | {f"{name} file": _stamp(getattr(args, name)) for name in ("model", "weights")}


def _stamp(file: str | None) -> Any:
    """Size and time of a file of weights; None of what is no file."""
    from knet.files import is_file

    status = Path(file).stat() if file is not None and is_file(file) else None
    return status and [status.st_size, status.st_mtime_ns]


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) < 10**6:
        return int(number), int(count)
    raise argparse.ArgumentTypeError(f"'{text}' is not I/N, a part and their number, such as 1/8 to 8/8")
