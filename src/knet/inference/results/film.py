"""Annotated videos: pictures in, H.264 out."""

from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image, ImageOps

from knet.errors import OutputError
from knet.files import atomic_path
from knet.inference.results.files import OpenFile, refused
from knet.inference.sources.videos import VideoInfo

STILL_RATE = Fraction(10)  # frames a second of a film made of single images
_TICKS = 60_000  # of the clock of a film, in a second, at least
_MOST = Fraction(10_000)  # frames a second, and seconds a frame
_LONGEST = 2**31 - 2  # ticks that the format can show a picture, ten hours; a longer hole in the times is made so long
_ROUNDED = 0.0011  # seconds by which a container that counts in milliseconds moves a frame
# A quarter of the time of "veryfast" at crf 20, files a third larger, pictures a little closer to what was drawn.
_X264 = {"preset": "ultrafast", "crf": "22", "x264-params": "deblock=0,0:partitions=i4x4"}


def still_video(name: str, image: np.ndarray) -> VideoInfo:
    """Describes a video of that name made of single images, the first of which is given, for `ResultWriter.write`."""
    return VideoInfo(Path(f"{name}.images"), STILL_RATE, None, *image.shape[:2])


class Film(OpenFile):
    """An annotated video (MP4) in the making, whose pictures are shown at their times or else at a rate a second."""

    def __init__(self, path: Path, rate: Fraction):
        super().__init__(path)
        self._rate = min(max(Fraction(rate).limit_denominator(100_000), 1 / _MOST), _MOST)
        # A clock in which the frames of the rate are whole numbers of ticks.
        self._frame_ticks = -(-_TICKS // self._rate.numerator) * self._rate.denominator
        self._tick = 1 / (self._rate * self._frame_ticks)
        self._began: float | None = None
        self._shown = -self._frame_ticks  # when the last picture is shown, in ticks
        self._size: tuple[int, int] | None = None
        self._failed: OutputError | None = None

    def add(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Adds a picture, (H,W,3) uint8 RGB, which is shown from `seconds` on, or else one frame after the last.

        The first decides the size of the film and is shown at its beginning; others are fitted into it.

        If it cannot be written, the file is removed, and this and every later call raises the same OutputError.
        """
        if self._failed:
            raise self._failed
        try:
            height, width = picture.shape[:2]
            if self._size is None:
                # H.264 halves the colours, so its sizes are even: odd ones get a line or column more.
                self._begin(width + width % 2, height + height % 2)
                self._size = (width, height)
            elif self._size != (width, height):
                picture = np.asarray(ImageOps.pad(Image.fromarray(picture), self._size))
            if picture.shape[0] % 2 or picture.shape[1] % 2:
                picture = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            # The frame uses the picture's memory, and is converted before that is gone. More threads take longer.
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="rgb24")
            yuv = frame.reformat(format="yuv420p", dst_colorspace="ITU709", threads=1)
            yuv.pts, yuv.time_base = self._ticks(seconds), self._tick
            yuv.duration = self._frame_ticks
            self._container.mux(self._stream.encode(yuv))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self._failed = refused(self.path, error)
            self.abort()
            raise self._failed from error

    def _ticks(self, seconds: float | None) -> int:
        """When a picture is shown: at its time, which is that of the rate's frame if it differs by rounding alone."""
        after = self._shown + self._frame_ticks
        if seconds is not None:
            self._began = seconds if self._began is None else self._began
            frame = round((seconds - self._began) * self._rate)
            regular = abs(frame / self._rate - (seconds - self._began)) <= _ROUNDED
            after = frame * self._frame_ticks if regular else round((seconds - self._began) / self._tick)
            longer = after - self._shown - _LONGEST
            if longer > 0:
                after, self._began = after - longer, self._began + float(longer * self._tick)
        self._shown = max(after, self._shown + 1)
        return self._shown

    def _begin(self, width: int, height: int) -> None:
        temporary = self._stack.enter_context(atomic_path(self.path))
        container = av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
        self._container = self._stack.enter_context(container)
        codec = next((c for c in ("libx264", "libopenh264") if c in av.codecs_available), "mpeg4")
        options = _X264 if codec == "libx264" else {}
        self._stream = cast(Any, container.add_stream(codec, rate=self._rate, options=options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        self._stream.time_base = context.time_base = self._tick
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited

    def finish(self) -> None:
        """See `OpenFile`."""
        if self._failed:
            raise self._failed
        try:
            self._container.mux(self._stream.encode(None))
            super().finish()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self.abort()
            raise refused(self.path, error) from error

    def stop(self, asked: bool) -> None:
        """Removes the film: one that ends early would look like a whole one."""
        self.abort()
