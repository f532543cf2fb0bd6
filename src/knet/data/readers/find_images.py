"""Finds the files of a data set below a folder by the file_name of a JSON."""

import logging
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from knet.data.files.io import list_images, name_some, without_ending
from knet.errors import DataError
from knet.files import is_file

_logger = logging.getLogger("knet")


class ImageFinder:
    """Looks for images under the JSON's file_name, which may lack its ending or have another, or Windows' backslashes.

    A name without folders may lie anywhere below the folder, if there is only one file of that name. A name with
    folders is found with its folders; only those that lead to the folder itself may be left out or come on top, and
    `elsewhere` lists such names. No file is found under two names.

    A file whose ending does not say that it is an image is found by exactly its name. Last comes the real name of a
    Cityscapes image: the official conversion writes "..._gtFine_leftImg8bit".
    """

    def __init__(self, folder: Path, json: Path):
        self._folder, self._json = folder, json
        self._names = set(list_images(folder))
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self._names):
            path = _composed(without_ending(name))
            self._by_path.setdefault(path, []).append(name)
            self._by_stem.setdefault(PurePosixPath(path).name, []).append(name)
        self._named: dict[str, str] = {}  # file -> the name under which it was found
        self.elsewhere: dict[str, str] = {}  # name -> file
        self._twice = dict[str, None]()  # names that were looked for again

    def candidates(self, file_name: str) -> list[str]:
        """The paths relative to the folder that a file_name may mean: one, if all is well."""
        name = plain_name(file_name, self._names)
        if name in self._names:
            return [name]
        path = next((path for path in _without_endings(name) if path in self._by_path), None)
        if path is not None:
            return self._by_path[path]
        found = _below(list(PurePosixPath(name).parts[:-1]), self._of_that_name(name))
        return found or [name] * self._is_there(name)

    def _is_there(self, name: str) -> bool:
        """Whether a file has exactly that name, whose ending, or lack of one, does not say that it is an image."""
        inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        return inside and is_file(self._folder / name)

    def _of_that_name(self, name: str) -> list[str]:
        """The files of the same name in whatever folders."""
        stems = [PurePosixPath(path).name for path in _without_endings(name)]
        stems += [re.sub(r"_gtFine_leftImg8bit$", "_leftImg8bit", stem) for stem in stems]
        return next((self._by_stem[stem] for stem in stems if stem in self._by_stem), [])

    def __call__(self, file_name: str) -> str:
        """The path relative to the folder."""
        found = self.candidates(file_name)
        if len(found) > 1:
            raise DataError(f"{self._json}: image {file_name} could be any of {name_some(found)} in {self._folder}.")
        if not found:
            others = self._of_that_name(plain_name(file_name))
            why = f"{name_some(others)} is in another folder" if others else "is this the right folder?"
            end = "; correct the names in the JSON." if others else ""
            raise DataError(f"The image {self._folder / file_name} ({self._json}) does not exist; {why}{end}")
        if found[0] in self._named:
            self._twice[file_name] = None
        other = self._named.setdefault(found[0], file_name)
        if plain_name(other) != plain_name(file_name):
            raise DataError(
                f"{self._json}: {other} and {file_name} would both be the image {self._folder / found[0]}; copy the "
                "images with their folders, or give the folder that the names start from."
            )
        folders = PurePosixPath(plain_name(file_name)).parts[:-1]
        if folders and folders != PurePosixPath(found[0]).parts[:-1]:
            self.elsewhere[file_name] = found[0]
        return found[0]

    def say_oddities(self) -> None:
        """Logs which names were found in other folders than they say, and which stand in several rows."""
        if self._twice:
            _logger.warning(
                f"{self._json} lists {name_some(self._twice)} in several rows, each of which counts as an image with "
                "its own objects alone; give each file one row."
            )
        if self.elsewhere:
            some = name_some(f"{name} as {file}" for name, file in self.elsewhere.items())
            _logger.info(f"{self._json}: {len(self.elsewhere)} images were found in other folders: {some}.")


def plain_name(file_name: str, present: Iterable[str] = ()) -> str:
    """A file_name with forward slashes and without "./", unless a file of those `present` has it as it stands."""
    return file_name if file_name in present else PurePosixPath(file_name.replace("\\", "/")).as_posix()


def _without_endings(name: str) -> list[str]:
    """What may be the name without its ending: it has none, or what comes after the last dot, unless that is a number.

    Names such as "1305031452.791720" have dots and no ending.
    """
    ending, name = PurePosixPath(name).suffix[1:], _composed(name)
    return [name, without_ending(name)] if ending and not ending.isdecimal() else [name]


def _composed(name: str) -> str:
    """The name with each accented letter as one character; some systems write files with letter and accent apart."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _below(folders: list[str], files: list[str]) -> list[str]:
    """Those of the files, which have the right name, whose folders do not contradict these.

    They may lie deeper than the name says, or the name begins above the folder; then the one with most folders counts.
    """
    deeper = [file for file in files if _ends_with(PurePosixPath(file).parts[:-1], folders)]
    if deeper:
        return deeper
    higher = [file for file in files if _ends_with(folders, PurePosixPath(file).parts[:-1])]
    longest = max((file.count("/") for file in higher), default=0)
    if not longest and len(files) > 1:  # only the bare name is the same, and others have it, too
        return []
    return [file for file in higher if file.count("/") == longest]


def _ends_with(folders: Iterable[str], end: Iterable[str]) -> bool:
    whole, part = list(folders), list(end)
    return whole[len(whole) - len(part) :] == part if len(part) <= len(whole) else False
