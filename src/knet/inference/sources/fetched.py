"""Images that are files on the net: fetched each time they are asked for, whole, into the user's cache folder."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from knet.data.files.pictures import IMAGE_SUFFIXES
from knet.errors import DownloadError
from knet.files import atomic_path, safe_name
from knet.inference.sources.videos import VIDEO_SUFFIXES
from knet.weights.fetch import home, local, request_for

_SECONDS = 30  # without a byte
_LARGEST = 2**30  # bytes


def local_file(source: Any) -> Any:
    """The file of an image at http(s)://... or of an image or video at hf:owner/repository/file; all else unchanged.

    Addresses of anything but an image are left to FFmpeg, which needs no file.

    Raises:
        DownloadError: it cannot be fetched.
    """
    if not isinstance(source, str):
        return source
    name = source
    if source.startswith(("http://", "https://")):
        try:
            name = PurePosixPath(unquote(urlsplit(source).path)).name
        except ValueError as error:
            raise DownloadError(f"'{source}' is no address ({error}); write it as https://host/file.") from error
    ending = PurePosixPath(name).suffix.lower()
    if source.startswith("hf:") and ending in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        return local(source)
    if name == source or ending not in IMAGE_SUFFIXES:
        return source
    data = _content(source)
    if data is None:
        return source
    target = home() / "images" / hashlib.sha256(source.encode()).hexdigest()[:8] / safe_name(name)
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
    return target


def _content(url: str) -> bytes | None:
    """What is behind an address; None for an endless row of pictures, as cameras send it."""
    try:
        with urllib.request.urlopen(request_for(url), timeout=_SECONDS) as answer:  # noqa: S310
            if answer.headers.get_content_maintype() == "multipart":
                return None
            data: bytes = answer.read(_LARGEST + 1)
            if len(data) < int(answer.headers.get("Content-Length") or 0) <= _LARGEST:
                raise http.client.HTTPException("the connection was cut")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"the server says {error.code}" if isinstance(error, urllib.error.HTTPError) else ""
        reason = reason or str(getattr(error, "reason", "") or error or type(error).__name__)
        raise DownloadError(f"'{url}' cannot be fetched ({reason}); is the address right?") from error
    if len(data) > _LARGEST:
        raise DownloadError(f"'{url}' has more than {_LARGEST:,} bytes; fetch it yourself, and pass its path.")
    return data
