"""Errors that a caller can cause. Each has one sentence: what is wrong, the value, what is allowed, what to do.

The command line prints the sentence and exits with status 2, or 1 for OutputError, DownloadError, PredictionError and
TrainingError, which are failures rather than bad input. So no user sees a traceback.
"""

import difflib
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from types import UnionType
from typing import Any

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,30}):(/{1,3})((?:\S*@)?[^\s'\"<>]*)")
_WEB = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "ftp", "s3", "gs")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\](?::\d+)?|[A-Za-z0-9._-]*(?::\d+)?")
# What may be shown of a path: words that cameras use, and what is too short for a password.
_WORD = (
    r"(?:live|stream(?:ing|s)?|videos?|media|camera|cams?|channels?|main|sub|preview|profile|track(?:id)?|onvif|axis|cgi|"
    r"mjpe?g|h26[45]|hls|index|playlist|master|low|high|front|back|rear|left|right|m3u8|jpe?g|drive|house|street)\d{0,4}"
)
_PLAIN = re.compile(rf"(?:{_WORD}|\d{{1,4}})(?:[-_.]?(?:{_WORD}|mp4|ts|bin|\d{{1,4}}))*|[\w.-]{{1,4}}", re.IGNORECASE)


class KNetError(Exception):
    """Something that the caller can correct. Its sentence never shows a password in an address, and has an end."""

    def __init__(self, sentence: object = ""):
        super().__init__(readable(str(sentence)))


class ConfigError(KNetError):
    """An option or a config file: unknown key, wrong type, value out of range."""


class DataError(KNetError):
    """An image, video, label file or data set that cannot be read or contradicts itself."""


class CheckpointError(KNetError):
    """A weights file that is missing, damaged, unsafe, or made for another model."""


class OutputError(KNetError):
    """A result that cannot be written: no permission, no space, not a folder."""


class PredictionError(KNetError):
    """An image of which a network says nothing that can be used: not finite, or there is too little memory for it."""


class NotFiniteError(PredictionError):
    """An image of which a network says no finite numbers: no fault of the machine, as too little memory is."""


class DownloadError(KNetError):
    """A file on the net that cannot be fetched, or is not the one that was meant."""


class TrainingError(KNetError):
    """A run that cannot go on: its loss is not a finite number, or a process that belongs to it has died."""


class StoppedError(KNetError):
    """A run that a signal asked to stop and that saved its state. The command line exits with 128 + the signal."""

    def __init__(self, sentence: object = "", signal: int = 15):
        super().__init__(sentence)
        self.signal = signal


_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxdict = 8
_brief.maxstring = _brief.maxother = 80
_LONG_WORD = re.compile(r"\S{300,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # moves a cursor, turns a line around
_LONGEST = 2000  # characters of a line; lists of all models have some 1000
_LOOKED_AT = 20_000  # characters of a line that are searched for secrets, which takes time with the square of them


def shown(value: Any, most: int = 100) -> str:
    """A value of others as a message quotes it: as Python writes it, shortened where it is long."""
    try:
        text = _brief.repr(value)
    except Exception:  # the `repr` of others may raise anything, and Python's that of a number with many digits
        text = f"a {type(value).__name__} that cannot be written"
    return text if len(text) <= most else f"{text[:most]}..."


def counted(count: int, what: str) -> str:
    """A number of things in words: "1 image", "2 images", "2 classes"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def require(kind: type | UnionType, what: str, **values: object) -> None:
    """Raises `ConfigError` for the first of the values, by its name, that is not of a kind: for calls from Python."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise ConfigError(f"The option {name} cannot be {shown(value)}; give {what}.")


def members(value: Any) -> tuple[Any, ...] | None:
    """What is in a list or the like; None of other things, such as an array without axes, which says it had some."""
    try:
        return tuple(value)
    except TypeError:
        return None


def readable(text: str) -> str:
    """A message without secrets, whose lines, whatever they quote, have an end and leave the terminal alone."""
    return "\n".join(map(_readable_line, text.split("\n")))


def harmless(line: str) -> str:
    """A line whose control characters, which would move a terminal's cursor, are written out."""
    return _CONTROL.sub(lambda sign: sign[0].encode("unicode_escape").decode(), line)


def _readable_line(line: str) -> str:
    if len(line) > _LOOKED_AT:  # between words, as half of an address may be a secret
        line = f"{line[: _LOOKED_AT // 2].rpartition(' ')[0]} [...] {line[-_LOOKED_AT // 2 :].partition(' ')[2]}"
    plain = harmless(without_secrets(line))
    words = _LONG_WORD.sub(lambda word: f"{word[0][:200]}[...]{word[0][-60:]}", plain)
    return words if len(words) <= _LONGEST else f"{words[:1500]} [...] {words[-400:]}"


_NO_MEMORY = re.compile(r"out of memory|allocate memory|bad_alloc|bad allocation", re.IGNORECASE)
_ASKED = re.compile(r"(?:allocate|of size) ([\d.,]+ ?(?:[KMGTPE]i?B|bytes)?)")


def memory_asked(fault: BaseException) -> str | None:
    """Of an error of too little memory, whichever library raised it, how much was asked for; None of all others."""
    if isinstance(fault, KNetError) or not (isinstance(fault, MemoryError) or _NO_MEMORY.search(str(fault))):
        return None
    asked = _ASKED.search(str(fault))
    return f"{asked[1].rstrip('. ')} were asked for at once" if asked else "it does not say how much was asked for"


@contextmanager
def enough_memory(what: str, advice: str, error: type[KNetError] = PredictionError) -> Iterator[None]:
    """Has an error of too little memory in the block raised as one sentence."""
    try:
        yield
    except Exception as fault:  # those of onnxruntime have a class of their own
        asked = memory_asked(fault)
        if asked is None:
            raise
        raise error(f"There is too little memory for {what} ({asked}); {advice}.") from fault


_ELSEWHERE = {  # what other programs call an option -> its name here, or one of several that there may be
    **dict.fromkeys(("conf", "confidence", "threshold", "score_threshold", "min_score"), ("score",)),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "resolution"), ("size", "short_edge")),
    **dict.fromkeys(("half", "fp16", "amp", "dtype"), ("precision",)),
    **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr"), ("optimizer.learning_rate",)),
    **dict.fromkeys(("epochs", "max_epochs", "max_steps", "max_iter"), ("iterations",)),
    **dict.fromkeys(("project", "save_dir", "output_dir", "work_dir"), ("output",)),
    **dict.fromkeys(("opacity", "transparency"), ("alpha",)),
    **{"classes": ("only",), "iou": ("overlap",), "batch_size": ("batch",), "num_workers": ("workers",)},
    **{"weight_decay": ("optimizer.weight_decay",), "show_conf": ("scores",), "show_labels": ("names",)},
}


def did_you_mean(
    name: object, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6, shown: Callable[[str], object] = str
) -> str:
    """The end of a sentence about an unknown name: "did you mean 'x'?", or `otherwise` where no known name is near.

    Args:
        cutoff: how alike names have to be, from 0 to 1.
        shown: what the hint gives in place of the name, such as a path.
    """
    text = str(name) if isinstance(name, str | int | PathLike) else ""  # of other things it may have no end
    names, there = list(known), _ELSEWHERE.get(text, ())
    near = [one for one in there if one.partition(".")[0] in names]
    near = near or difflib.get_close_matches(text, names, n=1, cutoff=cutoff)
    return f"did you mean '{shown(near[0])}'?" if near else otherwise


def no_such_model(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is none of the known models'."""
    names = list(known)
    hint = did_you_mean(name, names, f"it is one of: {', '.join(names)}.")
    return ConfigError(f"There is no model '{name}'; {hint} `knet models` lists all.")


def no_weights_file(path: object) -> CheckpointError:
    """The error for a file of weights that is not there."""
    return CheckpointError(f"There is no weights file '{path}'; give the path of a .pth or .safetensors file.")


def plain_parts(address: str) -> tuple[str, list[str], bool]:
    """What may be shown of `scheme://...`: host and port, parts of the path, and whether more of the path was there."""
    place = address.split(":", 1)[1].lstrip("/").rpartition("@")[2]  # what stands before is the user's
    host, _, path = place.partition("/")
    host, _, query = host.partition("?")
    path, question, _ = path.partition("?")
    parts = [part for part in path.split("/") if part]
    # A broadcast's address ends with its key.
    shown = parts[:1] if address.lower().startswith("rtmp") else parts
    plain = [part for part in shown if _PLAIN.fullmatch(part)]
    return host if _HOST.fullmatch(host) else "", plain, bool(query or question) or plain != parts


def without_secrets(text: str) -> str:
    """The text with every address in it shortened to what can be no password, no token and no key."""

    def shown(found: re.Match[str]) -> str:
        if found[1].casefold() == "file":
            return found[0]
        host, plain, more = plain_parts(found[0])
        # A path made of an address has lost one of its slashes.
        slashes = "//" if found[1].casefold() in _WEB else found[2]
        return f"{found[1]}:{slashes}" + "/".join([host, *plain, *(["..."] if more else [])])

    return _ADDRESS.sub(shown, text)
