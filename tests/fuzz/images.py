"""Pictures of every format and mode that Pillow writes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fuzz.mutate import mutated_bytes, mutated_png
from fuzz.oracle import BrokenError, refused
from knet.data.files import io as files
from knet.errors import KNetError
from knet.inference.sources.content import shows_video
from knet.inference.sources.images import load_image

_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr")
_FORMATS = {
    ".png": ({}, {"optimize": True}),
    ".jpg": ({}, {"progressive": True}, {"quality": 5}),
    ".tif": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
    ".bmp": ({},),
    ".webp": ({}, {"lossless": True}),
    ".ppm": ({},),
    ".jp2": ({},),
    ".avif": ({},),
    ".gif": ({},),
    ".tga": ({},),
    ".ico": ({},),
}


def originals() -> list[tuple[str, bytes]]:
    """Small pictures as files: their endings and contents."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    found = list[tuple[str, bytes]]()
    for ending, choices in _FORMATS.items():
        for mode in _MODES:
            for options in choices:
                for turned in (1, 6):
                    exif = Image.Exif()
                    exif[274] = turned
                    buffer = io.BytesIO()
                    with suppress(OSError, ValueError, KeyError):  # a format that lacks the mode
                        picture = Image.fromarray(noise).convert("L" if mode[0] in "IF" else mode).convert(mode)
                        picture.save(buffer, Image.registered_extensions()[ending], exif=exif, **options)
                        found.append((ending, buffer.getvalue()))
    return found


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    seeds = originals()
    endings = sorted({ending for ending, _ in seeds})

    def case(rng: Random) -> bool:
        ending = rng.choice(endings)
        data = rng.choice([data for kind, data in seeds if kind == ending])
        path = folder / f"picture{ending if rng.random() < 0.95 else rng.choice(endings)}"
        path.write_bytes(mutated_png(rng, data) if ending == ".png" else mutated_bytes(rng, data))
        shows_video(path)
        reads = (files.read_ids, files.read_labels, files.read_labels_or_colors, files.read_gray, load_image)
        said = [refused(lambda read=read: read(path)) for read in reads]
        with suppress(KNetError):
            size, image = files.read_image_size(path), files.read_image(path)
            if image.shape != (*size, 3) or image.dtype != np.uint8:
                raise BrokenError(f"the size {size} of an image of {image.shape}")
        return all(said)

    return case
