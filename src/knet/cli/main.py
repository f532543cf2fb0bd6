"""The command `knet`. Each verb has a file beside this one; torch is imported only by verbs that compute."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, NoReturn

from knet.cli.starting import sentence_for_signals

with sentence_for_signals():
    from knet import __version__
    from knet.cli import (
        batch,
        bench,
        config,
        convert,
        data,
        demo,
        download,
        evaluate,
        export,
        models,
        predict,
        push,
        train,
    )
    from knet.cli.stopping import Terminated, signals_unwind
    from knet.errors import (
        ConfigError,
        DownloadError,
        KNetError,
        OutputError,
        PredictionError,
        StoppedError,
        TrainingError,
        did_you_mean,
        harmless,
        memory_asked,
        readable,
    )

_FAILURES = (OutputError, DownloadError, PredictionError, TrainingError)  # the others are bad usage or input

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM)  # of the machine, not of what was asked

_VERBS = (predict, train, evaluate, export, bench, convert, models, config, download, push, data, demo, batch)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help; argparse itself says nothing of it where that cannot be written."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        super().error(readable(message))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, to which each verb adds its own options."""
    parser = _Parser(
        prog="knet",
        description="What every pixel is and which object it belongs to: panoptic segmentation with learned kernels.",
        epilog="`knet VERB --help` explains a verb, with an example. Try: knet demo",
    )
    parser.add_argument("--version", action="version", version=f"knet {__version__}")
    if find_spec("shtab"):
        import shtab

        shtab.add_argument_to(parser, ["--completion"], help="print what completes commands in this shell")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser


class _Lines(logging.Handler):
    """What the package says while it works as plain lines, past progress bars: information to standard output."""

    def __init__(self, everything_to_errors: bool):
        super().__init__()
        self.everything_to_errors = everything_to_errors

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        warning = record.levelno >= logging.WARNING
        file = sys.stderr if warning or self.everything_to_errors else sys.stdout
        try:
            text = "\n".join(map(harmless, record.getMessage().split("\n")))
            tqdm.write(f"knet: {text}" if warning else text, file=file)
            file.flush()
        except BrokenPipeError:  # nobody reads on; what is being done goes on
            _forget_output()


@contextmanager
def lines_shown(json: bool) -> Iterator[None]:
    """While this lasts, the logger `knet` is shown; on standard error alone where standard output is to be JSON."""
    logger, handler = logging.getLogger("knet"), _Lines(json)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line: the words after `knet`, by default those of this process.

    Returns:
        The exit status: 0 done, 1 a failure, 2 bad usage or input, 128 + signal when stopped.
    """
    _open_streams()
    try:
        with signals_unwind():
            try:
                return _run(arguments)
            finally:
                sys.stdout.flush()  # here, where a failure can still be told
    except StoppedError as error:  # not 0: a scheduler must not take the run for a finished one
        _say(error)
        return 128 + error.signal
    except KNetError as error:
        _say(error)
        return 1 if isinstance(error, _FAILURES) else 2
    except RecursionError:
        _say("what was given is nested too deep, such as a path of a thousand folders; give something flatter.")
        return 2
    except (MemoryError, RuntimeError) as error:
        asked = memory_asked(error)
        if asked is None:
            raise
        _say(f"there is too little memory ({asked}); take smaller images or less at once.")
        return 1
    except Terminated as stop:
        _say(f"stopped by {stop.signal.name}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        _forget_output()
        return 0
    except OSError as error:
        return _refused(error)


def _run(arguments: list[str] | None) -> int:
    parser = build_parser()
    args, rest = parser.parse_known_args(arguments)
    # argparse gives up on the rest of a list once an option stands in it: `knet eval MODEL --weights W key=value`.
    if rest and hasattr(args, "overrides") and not any(word.startswith("-") for word in rest):
        args.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_hint(parser, rest, arguments)}")
    if getattr(args, "output", None) == "":
        parser.error("--output is an empty text; give a path (an unset variable of a shell is empty)")
    if getattr(args, "offline", False):
        os.environ["KNET_OFFLINE"] = "1"
    _check_bars()
    with lines_shown(getattr(args, "json", False)):
        return args.run(args)


def _check_bars() -> None:
    """Raises `ConfigError` where the environment has values for progress bars with which tqdm cannot be imported."""
    if any(name.startswith("TQDM_") for name in os.environ):
        try:
            import tqdm  # noqa: F401
        except ValueError as error:
            names = ", ".join(name for name in os.environ if name.startswith("TQDM_"))
            raise ConfigError(
                f"Progress bars cannot take what the environment says of them ({error}); unset or mend {names}."
            ) from error


def _hint(parser: argparse.ArgumentParser, rest: list[str], arguments: list[str] | None) -> str:
    """The nearest option of the verb, for the first word that is none."""
    known, words = list[str](), sys.argv[1:] if arguments is None else arguments
    waiting = [parser]
    for one in waiting:
        for action in one._actions:
            known += [name.removeprefix("--") for name in action.option_strings]
            if isinstance(action, argparse._SubParsersAction):
                waiting += [action.choices[word] for word in words if word in action.choices][:1]
    option = next((word for word in rest if word.startswith("--")), "").removeprefix("--").partition("=")[0]
    hint = did_you_mean(option.replace("_", "-"), known, shown="--{}".format) or did_you_mean(
        option, known, shown="--{}".format
    )
    return f"; {hint}" if option and hint else ""


def _refused(error: OSError) -> int:
    """Tells what the system refused, for which nothing before had a sentence of its own, and gives the exit status."""
    reason, broken = error.strerror or error, error.errno in _DISK
    if error.filename is None and broken:  # what is opened has a name, and files of ours have an `OutputError`
        _forget_output()
        _say(f"standard output cannot be written: {reason}; free space or send it elsewhere.")
    else:
        what = "a file" if error.filename is None else f"'{error.filename}'"
        _say(f"the system refuses {what}: {reason}; give another path, or mend that.")
    return 1 if broken else 2


def _say(sentence: object) -> None:
    """Tells why the work ended, unless standard error is full, or a terminal that is gone."""
    with suppress(OSError):
        print(readable(f"knet: {sentence}"), file=sys.stderr)


def _open_streams() -> None:
    """Gives standard streams that are closed nothing to read and nowhere to write.

    Else the next files that are opened get their numbers, and libraries in C write their remarks into these.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _forget_output() -> None:
    """Lets what is still to be printed go nowhere, so that the end of the process does not fail over it."""
    with suppress(OSError):  # it is no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
