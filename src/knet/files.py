"""Writes files and folders that are complete or not there at all."""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from knet.errors import OutputError

_PART = ".part-"  # in the names of temporary files
_UMASK = os.umask(0)
os.umask(_UMASK)
_kept: list[set[tuple[int, int]]] = []  # device and inode of files that are read, see `keeping`
_looked_over: set[tuple[int, int]] = set()  # device and inode of folders


@contextmanager
def atomic_path(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """A temporary path with the suffix of `path`, which replaces it when the block ends; after an error none is left.

    The temporary file exists from the beginning, under a name that nobody can foresee, so threads, processes and
    machines that share a folder do not meet in it. It is locked while its writer lives: what killed processes left in
    the folder is removed.

    Args:
        durable: the file is on the disk, not only in the system's memory, before it gets its name: for files that later
            work relies on.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    lock, temporary = -1, None
    try:
        if exists(path) and not is_file(path) and not is_dir(path):  # such as /dev/null, which root could replace
            raise cannot_write(path, "it is a device or a pipe")
        if _kept and any(_identity(path) in read for read in _kept):
            raise OutputError(f"'{path}' is read by this command, and would be overwritten; choose another output.")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_parts(path.parent)
        lock, temporary = _new_part(path, folder=False)
        os.fchmod(lock, 0o666 & ~_UMASK)
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # as when the folder itself is the problem
                temporary.unlink(missing_ok=True)
        if lock >= 0:
            os.close(lock)


@contextmanager
def keeping(inputs: Iterable[str | Path | None], below: str | Path | None = None) -> Iterator[None]:
    """While this lasts, `atomic_path` puts nothing in the place of these files, which are read.

    Args:
        below: only inputs in this folder matter, as all outputs are in it; a million others cost nothing then.
    """
    root = None if below is None else os.path.realpath(below)
    within = {"": True} if root is None else dict[str, bool]()
    read = set[tuple[int, int]]()
    for path in map(str, filter(None, inputs)):
        folder = os.path.dirname(path) if root else ""  # noqa: PTH120
        if folder not in within:
            within[folder] = Path(os.path.realpath(folder)).is_relative_to(str(root))
        if within[folder]:
            read |= {found for follow in (False, True) if (found := _identity(path, follow))}
    _kept.append(read)
    try:
        yield
    finally:
        _kept[:] = [other for other in _kept if other is not read]


def _identity(path: str | Path, follow: bool = False) -> tuple[int, int] | None:
    """Device and inode of what is at a path, a link or what it leads to; None where nothing is."""
    with suppress(OSError, ValueError):
        status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116
        return status.st_dev, status.st_ino
    return None


@contextmanager
def hidden_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder for what will be at `beside` or be part of it; what is left of it is removed at the end.

    As with the files of `atomic_path`, nobody can foresee its name, and it is locked while its writer lives.

    Raises:
        OSError: it cannot be made.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead_parts(beside.parent)
    lock, folder = _new_part(beside, folder=True)
    try:
        folder.chmod(0o777 & ~_UMASK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def hidden_start(path: Path) -> str:
    """How the names of temporary files and folders for a path begin."""
    return f".{os.fsencode(path.stem)[:100].decode(errors='ignore')}{_PART}"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits for other threads and processes that are here; on file systems without locks it does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_dead_parts(folder: Path) -> None:
    """Removes temporary files and folders that no living process holds, once a process for each folder."""
    with suppress(OSError):
        status = folder.stat()
        if (status.st_dev, status.st_ino) in _looked_over:
            return
        _looked_over.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            parts = [entry.path for entry in entries if entry.name.startswith(".") and _PART in entry.name]
        for part in parts:
            _remove_if_dead(part)


def _remove_if_dead(part: str) -> None:
    with suppress(OSError):
        folder = is_dir(part)
        descriptor = os.open(part, (os.O_RDONLY if folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _lock(descriptor):
                shutil.rmtree(part) if folder else Path(part).unlink()
        finally:
            os.close(descriptor)


def _new_part(beside: Path, folder: bool) -> tuple[int, Path]:
    """A new temporary file or folder, and the descriptor that locks it.

    Until it is locked, somebody may take it for a dead process's and remove it, whatever any clock says: then there is
    another one.
    """
    while True:
        if folder:
            part = tempfile.mkdtemp("", hidden_start(beside), beside.parent)
            descriptor = -1
        else:
            descriptor, part = tempfile.mkstemp(beside.suffix, hidden_start(beside), beside.parent)
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(part, os.O_RDONLY) if folder else descriptor
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.lstat(part)):
                return descriptor, Path(part)
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the lock of a file, and returns whether there are locks on its file system.

    Raises:
        BlockingIOError: somebody else holds the file.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, from the system's memory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a file that is used under its own name while it grows, made if `flags` say so.

    Others may know such a name before the file is there: what is no plain file is neither followed nor waited for.

    Raises:
        OSError: it cannot be opened, or is a link, a folder, a device or a pipe.
    """
    odd = OSError(errno.EINVAL, "it is a link, a folder, a device or a pipe, where a file is meant", str(path))
    if path.is_symlink() or (exists(path) and not is_file(path)):
        raise odd
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise odd
    return descriptor


def open_plain(path: Path) -> BufferedReader:
    """A file of others, open for reading; a pipe would be waited for, and a device may have no end.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    # Opened and then looked at, not the other way round: that would be a second question to a network disk.
    file = open(path, "rb", opener=at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a folder, a device or a pipe, where a file is meant", str(path))
    return file


def at_once(path: str, flags: int) -> int:
    """An opener for `open` that does not wait for somebody who writes to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keeps other processes from what this file stands for, until the block ends or the process dies.

    Processes that are forked meanwhile do not keep it, so what a killed one leaves is free at once. On file systems
    without locks it keeps nobody away.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be made.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(errno.EAGAIN, "another process has it", str(path)) from error
        if not _is_open_as(path, descriptor):  # who had it has removed it meanwhile, and others may have made a new one
            raise BlockingIOError(errno.EAGAIN, "another process had it a moment ago", str(path))
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_file(path: str | Path) -> bool:
    """Whether it is a file; False also for what the system refuses to look at, such as a name of over 255 bytes."""
    return os.path.isfile(path)  # noqa: PTH113  # pathlib raises for some refusals, other ones in each version


def is_dir(path: str | Path) -> bool:
    """Whether it is a folder; see `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def exists(path: str | Path) -> bool:
    """Whether anything is there; see `is_file`."""
    return os.path.exists(path)  # noqa: PTH110


def from_home(path: str | os.PathLike[str]) -> Path:
    """The path with ~ and ~user replaced by the folder of that user; as it is, where there is no such user."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def cannot_write(path: Path, reason: object) -> OutputError:
    """The error for a file that cannot be written."""
    return OutputError(f"Cannot write '{path}': {reason}; free space or choose another folder.")


def safe_name(name: str) -> str:
    """A name for any file system: without folders or reserved characters, at most 150 bytes long."""
    cleaned = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", name).strip(" .") or "image"
    return cleaned.encode("utf-8", "replace")[:150].decode("utf-8", "ignore")


class UniqueNames:
    """Names for files in one folder: each as it is, or with the first number that makes it another, x_2, x_3, ..."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """The name, or the first of name_2, name_3, ... that is free; case does not count as a difference."""
        number = self._last.get(name.casefold(), 0) + 1
        candidate = name if number == 1 else f"{name}_{number}"
        while number > 1 and candidate.casefold() in self._last:
            number += 1
            candidate = f"{name}_{number}"
        self._last[name.casefold()] = number
        self._last.setdefault(candidate.casefold(), 1)
        return candidate
