"""Short videos of every container and coding that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random

import av
import numpy as np
from PIL import Image

from fuzz.mutate import mutated_bytes
from fuzz.oracle import refused
from knet.inference.sources.content import shows_video
from knet.inference.sources.videos import probe_video, read_video

_CODINGS = {
    ".mp4": ("mpeg4", "libx264", "mjpeg"),
    ".mov": ("mpeg4", "png", "qtrle"),
    ".avi": ("mpeg4", "mjpeg", "rawvideo", "ffv1"),
    ".mkv": ("libx264", "libvpx", "ffv1"),
    ".webm": ("libvpx", "libvpx-vp9"),
    ".ts": ("mpeg2video", "libx264"),
    ".m2ts": ("libx264",),
    ".mpg": ("mpeg1video",),
    ".flv": ("flv",),
    ".y4m": ("rawvideo",),
    ".h264": ("libx264",),
    ".ivf": ("libvpx",),
    ".wmv": ("wmv2",),
    ".ogv": ("libtheora",),
    ".mjpeg": ("mjpeg",),
}
_PIXELS = {"mjpeg": "yuvj420p", "png": "rgb24", "qtrle": "rgb24"}
_FRAMES = 6
_MOST = 2000  # frames that are read of one file


def originals(folder: Path, choice: Mapping[str, Sequence[str]] = _CODINGS) -> list[tuple[str, bytes]]:
    """Clips of a moving square: their endings and contents."""
    found = list[tuple[str, bytes]]()
    for ending, codings in choice.items():
        for coding in codings:
            with suppress(av.error.FFmpegError, ValueError):  # not in this build of FFmpeg
                found.append((ending, _clip(folder / f"clip{ending}", coding)))
    frames = [Image.fromarray(frame) for frame in _frames()]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:], duration=40)
    return [*found, (".gif", (folder / "clip.gif").read_bytes())]


def _frames() -> list[np.ndarray]:
    frames = np.full((_FRAMES, 32, 48, 3), 60, np.uint8)
    for number, frame in enumerate(frames):
        frame[8:20, 4 * number : 4 * number + 12] = (200, 30, 90)
    return list(frames)


def _clip(path: Path, coding: str) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(coding, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, _PIXELS.get(coding, "yuv420p")
        for frame in _frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path.read_bytes()


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    av.logging.set_level(None)
    seeds = originals(folder)

    def case(rng: Random) -> bool:
        ending, data = rng.choice(seeds)
        path = folder / f"video{ending if rng.random() < 0.95 else rng.choice(seeds)[0]}"
        path.write_bytes(mutated_bytes(rng, data) if rng.random() < 0.8 else data[: rng.randrange(len(data))])
        shows_video(path)
        calls = (lambda: probe_video(path), lambda: [None for _ in islice(read_video(path), _MOST)])
        said = [refused(call) for call in calls]
        return all(said)

    return case
