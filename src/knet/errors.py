"""Errors that a caller can cause. Each has one sentence: what is wrong, the value, what is allowed, what to do.

The command line prints the sentence and exits with status 2, or 1 for OutputError, DownloadError and TrainingError,
which are failures rather than bad input. So no user sees a traceback.
"""

import difflib
from collections.abc import Callable, Iterable


class KNetError(Exception):
    """Something that the caller can correct."""


class ConfigError(KNetError):
    """An option or a config file: unknown key, wrong type, value out of range."""


class DataError(KNetError):
    """An image, video, label file or data set that cannot be read or contradicts itself."""


class CheckpointError(KNetError):
    """A weights file that is missing, damaged, unsafe, or made for another model."""


class OutputError(KNetError):
    """A result that cannot be written: no permission, no space, not a folder."""


class DownloadError(KNetError):
    """A file on the net that cannot be fetched, or is not the one that was meant."""


class TrainingError(KNetError):
    """A training run that cannot go on: its loss is not a finite number."""


class StoppedError(KNetError):
    """A run that was asked to stop (SIGTERM) and saved its state. The command line exits with status 143."""


def did_you_mean(
    name: object, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6, shown: Callable[[str], object] = str
) -> str:
    """The end of a sentence about an unknown name: "did you mean 'x'?", or `otherwise` where no known name is near.

    Args:
        cutoff: how alike names have to be, from 0 to 1.
        shown: what the hint gives in place of the name, such as a path.
    """
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    return f"did you mean '{shown(near[0])}'?" if near else otherwise
