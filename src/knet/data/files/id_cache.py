"""Keeps id maps as runs of equal ids, so that each PNG is decoded once and not in every epoch."""

import hashlib
from pathlib import Path

import numpy as np

from knet.data.files.io import read_ids
from knet.data.files.pictures import MAX_PIXELS
from knet.files import atomic_path, open_plain


class IdCache:
    """Reads the panoptic PNGs of a data set, and keeps what it read in a folder.

    Decoding the PNG of a 2048x1024 street takes 5 to 19 ms, repeating its runs less than 1 ms. A file of the folder
    holds `ids` and `lengths` (R,) int32 of the runs in reading order, and `size` (height, width). Its name depends on
    the PNG's path, size and date: a PNG that changed is read again.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self, path: Path) -> np.ndarray:
        """Reads the segment ids of a PNG, as `read_ids` does. -> (H,W) int32"""
        kept = self._folder / self._name(path)
        try:
            with open_plain(kept) as old, np.load(old) as runs:
                return _repeated(runs["ids"], runs["lengths"], runs["size"])
        except Exception:  # not there, or damaged, which has no common class
            ids = read_ids(path)
        flat = ids.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1))
        lengths = np.diff(starts, append=flat.size).astype(np.int32)
        with atomic_path(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=flat[starts], lengths=lengths, size=np.array(ids.shape))
        return ids

    def _name(self, path: Path) -> str:
        try:
            found = path.stat()
        except OSError:
            return "missing"
        key = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
        return hashlib.sha256(key.encode()).hexdigest()[:32] + ".npz"


def _repeated(ids: np.ndarray, lengths: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The id map of the runs; `ValueError` unless they are what `IdCache` writes."""
    height, width = map(int, size)
    sound = ids.dtype == lengths.dtype == np.int32 and ids.ndim == 1 and ids.shape == lengths.shape
    if not sound or min(height, width, lengths.min(initial=1)) < 1 or ids.min(initial=0) < 0:
        raise ValueError("no runs of ids")
    if int(lengths.sum(dtype=np.int64)) != height * width or height * width > MAX_PIXELS:
        raise ValueError("runs of another size")
    return np.repeat(ids, lengths).reshape(height, width)
