"""Errors that a caller can cause. Each carries one sentence: what was wrong, the value, what is allowed, the next step.

The command line prints the sentence and exits with status 2 (1 for OutputError and TrainingError, which are failures
rather than bad input), so none ever reaches a user as a traceback.
"""


class KNetError(Exception):
    """Something that the caller can put right."""


class ConfigError(KNetError):
    """An option or a config file: unknown key, wrong type, value out of range."""


class DataError(KNetError):
    """An image, a video, a label file or a data set that cannot be read or contradicts itself."""


class CheckpointError(KNetError):
    """A weights file that is missing, damaged, unsafe, or made for another model."""


class OutputError(KNetError):
    """A result that cannot be written: no permission, no space, not a folder."""


class TrainingError(KNetError):
    """A training run that cannot go on: its loss is not a finite number."""


class StoppedError(KNetError):
    """A run was asked to stop (SIGTERM) and did, with its state saved. The command line ends with status 143."""
