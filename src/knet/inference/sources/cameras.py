"""Cameras: webcams by their number, and network cameras by an rtsp:// address."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av

from knet.errors import DataError
from knet.files import safe_name
from knet.inference.sources.decoding import decode_frames
from knet.inference.sources.videos import Item, VideoInfo

_DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}

_PATIENCE = 10.0  # seconds that a network camera may be silent


@dataclass(frozen=True, slots=True)
class Camera:
    """A source without an end. `address` is the number of a webcam or an rtsp:// address."""

    address: str

    @property
    def name(self) -> str:
        """The name of its results, without the password that an address may contain."""
        if self.address.isdecimal():
            return f"camera_{self.address}"
        place = urlsplit(self.address)
        return safe_name("_".join([place.hostname or "camera", *place.path.split("/")[1:]]).strip("_"))


def camera(source: Any) -> Camera | None:
    """The camera that a source stands for: a number that is not a file, or an rtsp:// address; else None."""
    if isinstance(source, int) and not isinstance(source, bool) and source >= 0:
        return Camera(str(source))
    if isinstance(source, str):
        if re.match(r"rtsps?://", source, re.IGNORECASE):
            return Camera(source)
        if source.isdecimal() and source.isascii() and not Path(source).exists():
            return Camera(str(int(source)))
    return None


def read_camera(device: Camera) -> Iterator[Item]:
    """The frames of a camera as they come, named `<name>_000000` and so on, until it ends.

    Raises:
        DataError: the camera cannot be opened; or, after the last frame, it has ended, as cameras never announce that.
    """
    what = f"The camera '{device.name}'"
    container = _open_camera(device, what)
    done = 0
    try:
        stream = container.streams.video[0]
        rate = Fraction(stream.guessed_rate or stream.average_rate or 25)
        info: VideoInfo | None = None
        for done, image in enumerate(decode_frames(container, what, "look whether it is still connected"), start=1):
            info = info or VideoInfo(Path(device.name), rate, None, *image.shape[:2])
            yield Item(image, f"{device.name}_{done - 1:06d}", None, info, done - 1)
    finally:
        container.close()
    raise DataError(f"{what} ended after {done} frames; look whether it is still connected.")


def _open_camera(device: Camera, what: str) -> Any:
    try:
        if not device.address.isdecimal():
            options = {"rtsp_transport": "tcp"}
            return _with_pictures(av.open(device.address, options=options, timeout=_PATIENCE), what)
        if sys.platform not in _DEVICES:
            raise DataError(f"{what}: webcams are opened by number on Linux and macOS only; pass an rtsp:// address.")
        form, file = _DEVICES[sys.platform]
        return _with_pictures(av.open(file.format(device.address), format=form), what)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__  # the full text may contain a password
        raise DataError(f"{what} cannot be opened ({why}); is it connected, and used by no other program?") from None


def _with_pictures(container: Any, what: str) -> Any:
    if not container.streams.video:
        container.close()
        raise DataError(f"{what} sends no pictures; pass another.")
    return container
