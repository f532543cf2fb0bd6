"""Finds an export's images by whatever a tool calls them: paths of another machine, addresses, uploaded names."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from knet.data.files.io import IMAGE_ENDINGS, list_images
from knet.data.readers.find_images import ImageFinder, plain_name

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file


class ExportImages(ImageFinder):
    """Finds images by whatever a tool calls them: paths of another machine count from their end."""

    def __init__(self, folder: Path, json: Path):
        super().__init__(folder, json)
        self._by_name: dict[str, list[str]] = {}
        self._by_upload: dict[str, list[str]] = {}
        for file in list_images(folder):
            name = _same(PurePosixPath(file).name)
            self._by_name.setdefault(name, []).append(file)
            self._by_upload.setdefault(_as_uploaded(name), []).append(file)

    def candidates(self, file_name: str) -> list[str]:
        """Those whose path ends most like the given one."""
        found = super().candidates(file_name)
        for parts in () if found else _meanings(file_name):
            name = _same(parts[-1])
            uploaded = self._by_upload.get(_UPLOADED.sub("", name, count=1), []) if _UPLOADED.match(name) else []
            files = self._by_name.get(name) or uploaded
            same = {file: _common_end(PurePosixPath(file).parts, parts) for file in files}
            found = sorted(file for file, count in same.items() if count == max(same.values()))
            if found:
                break
        return found


def path_in_address(text: str) -> str:
    """The path of an image in an address, such as /data/local-files/?d=a/b.jpg; "" for any other text."""
    try:
        address = urlsplit(text)
    except ValueError:
        return ""
    names = [*parse_qs(address.query).get("d", []), address.path]
    return next((unquote(name) for name in names if PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS), "")


def _meanings(file_name: str) -> Iterator[tuple[str, ...]]:
    """The parts of the path that a name may mean: as it is, without an address's signs, within an address."""
    for name in dict.fromkeys((file_name, unquote(file_name), path_in_address(file_name))):
        if parts := PurePosixPath(plain_name(name)).parts:
            yield parts


def _same(name: str) -> str:
    """A name as all machines write it: macOS takes ü apart, and Windows knows no capitals."""
    return unicodedata.normalize("NFC", name).casefold()


def _as_uploaded(name: str) -> str:
    """A name as an upload to Label Studio changes it."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if _same(left) != _same(right):
            break
        count += 1
    return count
