"""Finds the images of a data set below a folder by the file_name of a COCO JSON."""

import re
from pathlib import Path, PurePosixPath

from knet.data.files.io import list_images, name_some, without_ending
from knet.errors import DataError


class ImageFinder:
    """Looks for images under the JSON's file_name, then under the same name with another ending anywhere below.

    Last comes the real name of a Cityscapes image: the official conversion writes "..._gtFine_leftImg8bit".
    """

    def __init__(self, folder: Path, json: Path):
        self._folder, self._json = folder, json
        self._names = set(list_images(folder))
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_path.setdefault(without_ending(name), []).append(name)
            self._by_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def candidates(self, file_name: str) -> list[str]:
        """The paths relative to the folder that a file_name may mean: one, if all is well."""
        name = PurePosixPath(file_name).as_posix()
        if name in self._names:
            return [name]
        stem = PurePosixPath(name).stem
        if not stem:
            return []
        original = re.sub(r"_gtFine_leftImg8bit$", "_leftImg8bit", stem)
        return self._by_path.get(without_ending(name)) or self._by_stem.get(stem) or self._by_stem.get(original) or []

    def __call__(self, file_name: str) -> str:
        """The path relative to the folder."""
        found = self.candidates(file_name)
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{self._json}: image {file_name} could be any of {name_some(found)} in {self._folder}.")
        raise DataError(
            f"The image {self._folder / file_name} ({self._json}) does not exist; is this the right folder?"
        )
