"""What comes as it comes: webcams by number or device, addresses in the network, named pipes, and standard input."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from knet.errors import DataError, plain_parts
from knet.files import exists, safe_name
from knet.inference.sources.decoding import decode_frames, reason_of, refuse_unknown_coding
from knet.inference.sources.opening import open_content, picture_stream
from knet.inference.sources.pipes import open_pipe
from knet.inference.sources.videos import Item, VideoInfo, rate_and_length

_WEBCAMS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
_DEVICE = re.compile(r"/dev/(?:video(\d+)|v4l/.+)")
_V4L2 = 81  # Linux's number for cameras
_ADDRESS = re.compile(r"(?:rtsps?|rtmp(?:s|e|t|te|ts)?|https?|udp|tcp|rtp|srt|mms[ht]?)://", re.IGNORECASE)
_STDIN = "-"
# Formats whose pictures carry no time.
_TIMELESS = ("mpjpeg", "mjpeg")
_OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}, "udp": {"overrun_nonfatal": "1"}}

_PATIENCE = 10.0  # seconds that a network camera may be silent


@dataclass(frozen=True, slots=True)
class Camera:
    """A source that is read once, in the order in which it comes.

    `address` is the number of a webcam, its device such as /dev/video0, an address such as rtsp://..., the path of a
    named pipe, or "-" for standard input.
    """

    address: str

    @property
    def device(self) -> str | None:
        """The number or the path of a webcam, None if it is none."""
        numbered = _DEVICE.fullmatch(self.address)
        if numbered and numbered[1] and sys.platform == "linux":
            return numbered[1]
        return self.address if self.address.isdecimal() or numbered or _is_camera_device(self.address) else None

    @property
    def in_network(self) -> bool:
        """Whether it is an address in the network."""
        return _ADDRESS.match(self.address) is not None

    @property
    def has_end(self) -> bool:
        """Whether it may be a whole video: a pipe, or what a web server sends if that says how long it is."""
        return self.device is None and (not self.in_network or self.address.startswith("http"))

    @property
    def name(self) -> str:
        """The name of its results, without the passwords that an address may contain."""
        if self.device is not None:
            return safe_name(f"camera_{self.device.strip('/').removeprefix('dev/')}")
        if self.address == _STDIN:
            return "stdin"
        if not self.in_network:
            return safe_name(Path(self.address).stem)
        host, parts, _ = plain_parts(self.address)
        host = re.sub(r":\d+$", "", host)
        return safe_name("_".join([host or "camera", *parts]).strip("_"))

    def __str__(self) -> str:
        """What messages call it."""
        if self.address == _STDIN:
            return "Standard input"
        return f"The {'camera' if self.device is not None or self.in_network else 'pipe'} '{self.name}'"


def camera(source: Any) -> Camera | None:
    """The camera that a source stands for, see `Camera`; None for all others, such as a file whose name is a number."""
    if isinstance(source, int) and not isinstance(source, bool) and 0 <= source < 2**31:
        return Camera(str(source))
    if not isinstance(source, str | os.PathLike):
        return None
    text = os.fsdecode(os.fspath(source))
    if text == _STDIN or _DEVICE.fullmatch(text):
        return Camera(text)
    if scheme := _ADDRESS.match(text):
        return Camera(scheme[0].lower() + text[scheme.end() :])  # FFmpeg knows protocols in small letters only
    with suppress(OSError, ValueError):
        if _is_pipe(text) or _is_camera_device(text):
            return Camera(text)
        if isinstance(source, str) and source.isdecimal() and source.isascii() and not exists(source):
            return Camera(str(int(source)))
    return None


def _is_pipe(path: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(path).is_fifo()
    return False


def _is_camera_device(path: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(path).is_char_device() and sys.platform == "linux" and os.major(Path(path).stat().st_rdev) == _V4L2
    return False


def read_camera(device: Camera, stop: threading.Event | None = None) -> Iterator[Item]:
    """The frames of a camera as they come, named `<name>_000000` and so on, until it ends.

    Args:
        stop: when it is set, waiting for a pipe ends.

    Raises:
        DataError: the camera cannot be opened; or, after the last frame, it has ended, as cameras never announce that.
    """
    container, file = _open(device, stop)
    done, began = 0, 0.0
    try:
        rate, length = rate_and_length(container)
        length = length if device.has_end else None
        clocked = device.in_network and container.format.name in _TIMELESS
        info: VideoInfo | None = None
        live = device.device is not None or device.in_network
        advice = "look whether it is still connected" if live else "look what writes to it"
        for image, seconds in decode_frames(container, str(device), advice, live):
            now = time.monotonic()
            began = began or now
            info = info or VideoInfo(Path(device.name), rate, length, *image.shape[:2])
            seconds = now - began if clocked else seconds
            yield Item(image, f"{device.name}_{done:06d}", None, info, done, seconds)
            done += 1
        announced = not live or (device.has_end and (length is not None or container.size > 0))
    except DataError:
        if stop is None or not stop.is_set():
            raise
        return
    finally:
        container.close()
        if file is not None:
            file.close()
    if not announced:
        raise DataError(f"{device} ended after {done} frames; look whether it is still connected.")


def _open(device: Camera, stop: threading.Event | None) -> tuple[Any, Any]:
    """The open container, and the file that it reads, if that is ours to close."""
    file: Any = None
    try:
        if device.device is not None:
            return _with_pictures(_open_webcam(device), device), None
        if device.in_network:
            options = _OPTIONS.get(device.address.partition(":")[0], {})
            return _with_pictures(av.open(device.address, options=options, timeout=_PATIENCE), device), None
        file = open_pipe(None if device.address == _STDIN else Path(device.address), stop)
        return _with_pictures(open_content(file), device), file
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if file is not None:
            file.close()
        hint = "is it connected, and used by no other program?"
        if file is not None:
            hint = "send a video that needs no jumps in it, such as MPEG-TS, Matroska or MJPEG."
        elif device.in_network:
            hint = "is the address right, and does it send?"
        raise DataError(f"{device} cannot be opened ({reason_of(error)}); {hint}") from None


def _open_webcam(device: Camera) -> Any:
    if sys.platform not in _WEBCAMS:
        raise DataError(f"{device}: webcams are opened by number on Linux and macOS only; pass an rtsp:// address.")
    form, file = _WEBCAMS[sys.platform]
    number = device.device or ""
    return av.open(file.format(number) if number.isdecimal() else number, format=form)


def _with_pictures(container: Any, device: Camera) -> Any:
    if picture_stream(container) is None:
        container.close()
        raise DataError(f"{device} sends no pictures; pass another.")
    refuse_unknown_coding(container, str(device))
    return container
