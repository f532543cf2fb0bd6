"""Errors that a caller can cause. Each has one sentence: what is wrong, the value, what is allowed, what to do.

The command line prints the sentence and exits with status 2, or 1 for OutputError and TrainingError, which are failures
rather than bad input. So no user sees a traceback.
"""


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


class TrainingError(KNetError):
    """A training run that cannot go on: its loss is not a finite number."""


class StoppedError(KNetError):
    """A run that was asked to stop (SIGTERM) and saved its state. The command line exits with status 143."""
