"""Writes files that are complete or not there at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from knet.errors import OutputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path with the suffix of `path`, which replaces it when the block ends; after an error none is left.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error
    finally:
        with suppress(OSError):  # as when the folder itself is the problem
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, reason: object) -> OutputError:
    """The error for a file that cannot be written."""
    return OutputError(f"Cannot write '{path}': {reason}; free space or choose another folder.")


def safe_name(name: str) -> str:
    """A name for any file system: without folders or reserved characters, at most 150 bytes long."""
    cleaned = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", name).strip(" .") or "image"
    return cleaned.encode("utf-8", "replace")[:150].decode("utf-8", "ignore")
