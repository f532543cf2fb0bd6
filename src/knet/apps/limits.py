"""What the page takes: files of a size, images of so many pixels, videos of a length. More is refused in a sentence."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from knet.errors import DataError
from knet.inference.sources.content import opens_as_video, shows_video
from knet.inference.sources.videos import VIDEO_SUFFIXES, probe_video


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that the page takes.

    Attributes:
        megabytes: of a file.
        megapixels: of an image.
        frame_megapixels: of a frame of a video.
        seconds, frames: of a video.
        waiting: visitors in the queue, one of whom is served at a time.
        visits: visitors whose results are kept; those of the one who was away longest go first.
        stored_megabytes: of all that is on the disk.
    """

    megabytes: int = 100
    megapixels: int = 50
    frame_megapixels: int = 9  # 4K
    seconds: int = 60
    frames: int = 1800
    waiting: int = 8
    visits: int = 16
    stored_megabytes: int = 4000

    def sentence(self) -> str:
        """What a visitor may give."""
        return (
            f"An image of up to {self.megapixels} megapixels, or a video of up to {self.seconds} seconds and "
            f"{self.frames} frames; {self.megabytes} MB at most."
        )


def check_file(path: Path, limits: Limits) -> bool:
    """Whether a file is a video. Raises `DataError` if it is too large, too long, or neither image nor video."""
    megabytes = path.stat().st_size / 1e6
    if megabytes > limits.megabytes:
        raise DataError(f"'{path}' has {megabytes:.0f} MB, and this page takes {limits.megabytes}; make it smaller.")
    video = shows_video(path)
    if video is None:
        video = path.suffix.lower() in VIDEO_SUFFIXES or (_pixels(path) is None and opens_as_video(path))
    if video:
        _check_video(path, limits)
        return True
    width, height = _pixels(path) or (0, 0)  # what cannot be read says so when it is
    if width * height > limits.megapixels * 1e6:
        raise DataError(
            f"'{path}' has {width} x {height} pixels, and this page takes {limits.megapixels} million; make it smaller."
        )
    return False


def _check_video(path: Path, limits: Limits) -> None:
    info = probe_video(path)
    if info.width * info.height > limits.frame_megapixels * 1e6:
        raise DataError(
            f"The frames of '{path}' have {info.width} x {info.height} pixels, and this page takes "
            f"{limits.frame_megapixels} million; make it smaller."
        )
    if info.frames is not None:  # else it ends where the limit is, see `check_frame`
        check_frame(path, info.frames, info.frames / float(info.rate), limits)


def check_frame(path: Path, frames: int, seconds: float, limits: Limits) -> None:
    """Raises `DataError` if a video has so many frames, or is so long, that it is too much."""
    if frames > limits.frames or seconds > limits.seconds:
        raise DataError(
            f"'{path}' has {frames} frames in {seconds:.0f} seconds, and this page takes {limits.frames} in "
            f"{limits.seconds}; cut a part out of it, or use `knet predict`, which takes any length."
        )


def _pixels(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file, without decoding it; None if it is none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are refused here
            with Image.open(path) as image:
                return image.size
    except Image.DecompressionBombError:
        return 100_000, 100_000
    except Exception:  # what Pillow raises for broken files has no common class
        return None
