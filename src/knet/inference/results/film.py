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
# A quarter of the time of "veryfast" at crf 20, files a third larger, pictures a little closer to what was drawn.
_X264 = {"preset": "ultrafast", "crf": "22", "x264-params": "deblock=0,0:partitions=i4x4"}


def still_video(name: str, image: np.ndarray) -> VideoInfo:
    """Describes a video of that name made of single images, the first of which is given, for `ResultWriter.write`."""
    return VideoInfo(Path(f"{name}.images"), STILL_RATE, None, *image.shape[:2])


class Film(OpenFile):
    """An annotated video (MP4) in the making, at a rate of frames a second."""

    def __init__(self, path: Path, rate: Fraction):
        super().__init__(path)
        self._rate = Fraction(rate).limit_denominator(100_000)
        self._size: tuple[int, int] | None = None
        self._failed: OutputError | None = None

    def add(self, picture: np.ndarray) -> None:
        """Adds a picture, (H,W,3) uint8 RGB. The first decides the size of the film; others are fitted into it.

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
            self._container.mux(self._stream.encode(yuv))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self._failed = refused(self.path, error)
            self.abort()
            raise self._failed from error

    def _begin(self, width: int, height: int) -> None:
        temporary = self._stack.enter_context(atomic_path(self.path))
        container = av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
        self._container = self._stack.enter_context(container)
        codec = next((c for c in ("libx264", "libopenh264") if c in av.codecs_available), "mpeg4")
        options = _X264 if codec == "libx264" else {}
        self._stream = cast(Any, container.add_stream(codec, rate=self._rate, options=options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
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

    def stop(self) -> None:
        """Removes the film: one that ends early would look like a whole one."""
        self.abort()
