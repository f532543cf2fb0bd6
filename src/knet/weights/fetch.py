"""Files from the net, fetched once into the user's cache folder: whole and verified, or not at all."""

import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from tqdm import tqdm

from knet.errors import ConfigError, DownloadError
from knet.files import atomic_path, from_home, is_dir, is_file, open_own, safe_name
from knet.weights.released import RELEASED, Released

_logger = logging.getLogger("knet")
_BLOCK = 2**20  # bytes
_SECONDS = 30  # without a byte
_TRIES = 5  # in a row that bring nothing new
_TAG = re.compile(r"[!-~][ -~]{0,999}")  # what may be sent back to a server
_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:/(.+))?")
HUB_FILE = "model.safetensors"  # what `hf:owner/repo` means without a file


def home() -> Path:
    """The folder of what was fetched: KNET_HOME, or `knet` in the user's folder of caches; ConfigError for neither."""
    if given := os.environ.get("KNET_HOME"):
        return from_home(given)  # where no shell has read it, as in the environment of a service
    caches = from_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if caches.parts[:1] == ("~",):
        raise ConfigError("This user has no folder of one's own to keep what is fetched; name one with KNET_HOME.")
    return caches / "knet"


def is_address(place: str | Path) -> bool:
    """Whether it is the address of a file on the net: http(s)://... or hf:..."""
    return str(place).startswith(("http://", "https://", "hf:"))


def in_folder(place: str | Path) -> str | Path:
    """The weights in a folder that `knet push` wrote, or the best ones of a run; every other place unchanged."""
    files = (Path(place) / name for name in (HUB_FILE, "best.safetensors", "last.safetensors"))
    return place if is_address(place) else next(filter(is_file, files), place)


def config_of_run(model: str | Path) -> Path | None:
    """The config of the run that a file of weights, or a folder of weights, is of; None if it is of none."""
    folder = Path(model) if is_dir(model) else Path(model).parent
    named = is_dir(model) or Path(model).suffix.lower() == ".safetensors"
    return folder / "config.yaml" if named and is_file(folder / "config.yaml") else None


def local(place: str | Path) -> Path:
    """A file of weights on this machine, fetched first if `place` is https://... or hf:owner/repo[/file].

    Raises:
        DownloadError: it cannot be fetched.
        ConfigError: an address that says neither where nor what.
    """
    text = str(place)
    if text.startswith(("http://", "https://")):
        return fetch(text)
    if text.startswith("hf:"):
        return _from_hub(text)
    return Path(in_folder(place))


def released_file(model: str) -> Path:
    """The published weights of a model, fetched if they are not here yet.

    Raises:
        ConfigError: its authors published none, or where no program can fetch them.
        DownloadError: they cannot be fetched.
    """
    released = RELEASED.get(model)
    if released is None:
        raise ConfigError(
            f"There are no published weights of the model '{model}'; give a file of your own with weights= (--weights "
            "on the command line), or train one."
        )
    page = released.page.removeprefix("https://")  # of addresses, errors show the host alone
    by_hand = f"get the file by hand from {page}, then: knet predict {model} --weights FILE IMAGE"
    if not released.url:
        raise ConfigError(f"No program can fetch the weights of '{model}'; {by_hand}.")
    target = _place(model, released)
    if not target.is_file():
        _logger.info(f"weights of {model}: {released.page}, licence {released.licence}")
    if "drive.google" in released.url:
        return _from_drive(released.url, target, by_hand)
    return fetch(released.url, released.sha256, target)


def released_here(model: str) -> bool:
    """Whether the published weights of a model were fetched before."""
    released = RELEASED.get(model)
    return released is not None and bool(released.url) and _place(model, released).is_file()


def _place(model: str, released: Released) -> Path:
    """Where published weights are kept."""
    return home() / "weights" / (f"{model}.pth" if "drive.google" in released.url else Path(released.url).name)


def fetch(url: str, sha256: str = "", target: Path | None = None) -> Path:
    """The file behind an address, from the cache if it was fetched before.

    What an interrupted download left is continued, if the server can and the file is still the same. Processes that
    want the same file wait for the first one.

    Args:
        url: http or https.
        sha256: hexadecimal digits of its SHA-256, or the first of them; "" to take what comes.
        target: where it goes; by default a name made of the address, in the cache folder.

    Raises:
        ConfigError: the address names no server.
        DownloadError: no such file, no network, a broken transfer, or not the file that was meant.
    """
    if not urlsplit(url).hostname:
        raise ConfigError(f"'{url}' names no server; give a whole address, such as https://example.org/weights.pth.")
    name = safe_name(unquote(Path(urlsplit(url).path).name))
    target = target or home() / "weights" / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
    if target.is_file():
        return target
    if os.environ.get("KNET_OFFLINE", "0") not in ("", "0"):
        raise DownloadError(
            f"'{target.name}' is not in {target.parent}, and KNET_OFFLINE or --offline forbids the net."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_file():  # another process was first
                part = _Part(target, url)
                part.complete()
                part.verify(sha256)
                part.path.replace(target)
    except OSError as error:
        raise DownloadError(
            f"Cannot keep '{target.name}' in {target.parent}: {error.strerror or error}; free space, or name another "
            "folder with KNET_HOME."
        ) from error
    return target


def request_for(url: str) -> urllib.request.Request:
    """The request for a file, with the password that an address may hold where servers look for it."""
    place = urlsplit(url)
    secret, _, host = place.netloc.rpartition("@")
    request = urllib.request.Request(place._replace(netloc=host).geturl(), headers={"User-Agent": "knet"})  # noqa: S310
    if secret:
        request.add_header("Authorization", f"Basic {b64encode(unquote(secret).encode()).decode()}")
    return request


class _Part:
    """A file that is being fetched, which lies beside its target, with the server's tag of the version it is of."""

    def __init__(self, target: Path, url: str):
        self.path, self.tag = (target.with_name(f".{target.name}.{end}") for end in ("part", "tag"))
        self.url = url

    def complete(self) -> None:
        """Fetches what is missing, over several connections if they break."""
        tries = 0
        while True:
            before = self._size()
            try:
                if self._continue():
                    return
                fault = "the connection was cut"
            except urllib.error.HTTPError as error:
                fault = f"the server says {error.code} {error.reason}"
                if error.code == 416:  # nothing is left to send, or what is here is of another file
                    self.path.unlink(missing_ok=True)
                elif error.code < 500:
                    raise DownloadError(f"{self._shown()} cannot be fetched: {fault}.") from error
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                fault = str(getattr(error, "reason", "") or error or type(error).__name__)
            tries = tries + 1 if self._size() <= before else 0
            if tries >= _TRIES:
                raise DownloadError(
                    f"{self._shown()} cannot be fetched ({fault}), {self._size() / 1e6:.1f} MB are here; the same "
                    "command goes on from there once the network is back."
                )
            time.sleep(min(2**tries / 4, 4))

    def _continue(self) -> bool:
        """One connection; whether the file is complete."""
        asked, tag = self._size(), self._known_tag()
        request = request_for(self.url)
        if asked and tag:
            request.add_header("Range", f"bytes={asked}-")
            request.add_header("If-Range", tag)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            known = asked if answer.status == 206 else 0
            if known and not answer.headers.get("Content-Range", "").startswith(f"bytes {asked}-"):
                self.tag.unlink(missing_ok=True)  # the next request is for all of it
                raise http.client.HTTPException("the server gives another part than it was asked for")
            if not known:  # before the new tag, which would say of the old bytes that they are of the new file
                self.path.unlink(missing_ok=True)
            with atomic_path(self.tag) as written:
                written.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", "utf-8")
            length = answer.headers.get("Content-Length")
            total = known + int(length) if length and length.isdigit() and len(length) < 20 else None
            part = open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(part, "ab") as file, self._bar(known, total) as bar:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
        return total is None or self._size() >= total

    def _known_tag(self) -> str:
        """The server's tag of what is here; "" if there is none, or what lies in its place is not ours to send."""
        with suppress(OSError), FileIO(open_own(self.tag, os.O_RDONLY)) as file:
            tag = file.read(2000).decode("latin-1")
            return tag if _TAG.fullmatch(tag) else ""
        return ""

    def verify(self, sha256: str) -> None:
        """DownloadError, and nothing is kept, if the file's SHA-256 does not begin with these digits ("": any file)."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            if not sha256 and file.read(64).lstrip().startswith(b"<"):  # as of a page that asks who you are
                self.tag.unlink(missing_ok=True)
                self.path.unlink()
                raise DownloadError(f"{self._shown()} gave a web page and no weights; is it the file's own address?")
            file.seek(0)
            while block := file.read(_BLOCK):
                digest.update(block)
        self.tag.unlink(missing_ok=True)
        if not digest.hexdigest().startswith(sha256.lower()):
            self.path.unlink()
            raise DownloadError(
                f"What {self._shown()} gave is not the file that was meant: its SHA-256 begins with "
                f"{digest.hexdigest()[:8]}, not {sha256[:8]}; nothing was kept, try again later."
            )

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() and not self.path.is_symlink() else 0

    def _shown(self) -> str:
        return f"'{re.sub('//[^/@]*@', '//', self.url).partition('?')[0]}'"

    def _bar(self, known: int, total: int | None) -> Any:
        name = Path(self.url).name[:40]
        return tqdm(initial=known, total=total, unit="B", unit_scale=True, desc=name, disable=None)


def _from_drive(url: str, target: Path, by_hand: str) -> Path:
    if target.is_file():
        return target
    try:
        import gdown
    except ImportError as error:
        raise ConfigError(
            f"These weights are on Google Drive: pip install gdown lets knet fetch them; or {by_hand}."
        ) from error
    if os.environ.get("KNET_OFFLINE", "0") not in ("", "0"):
        raise DownloadError(
            f"'{target.name}' is not in {target.parent}, and KNET_OFFLINE or --offline forbids the net."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.is_file():
            try:
                found = gdown.download(url, str(part), fuzzy=True)
            except Exception as error:  # it has no common class of errors
                raise DownloadError(
                    f"Google Drive did not give the file ({str(error).strip()[:200]}); {by_hand}."
                ) from error
            if found is None:
                raise DownloadError(f"Google Drive did not give the file; {by_hand}.")
            part.replace(target)
    return target


def hub_repository(place: str | Path) -> str | None:
    """owner/repository of hf:owner/repository, None for a path. ConfigError for other addresses."""
    match = _HUB.fullmatch(str(place))
    if match is not None and match[2] is None:
        return match[1]
    if is_address(place):
        raise ConfigError(f"'{str(place)[:200]}' is not of the form hf:owner/repository; give that, or a folder.")
    return None


def _from_hub(text: str) -> Path:
    match = _HUB.fullmatch(text)
    if match is None:
        raise ConfigError(f"'{text[:200]}' is not of the form hf:owner/repository or hf:owner/repository/file.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(f"'{text}' needs the package huggingface_hub; pip install huggingface_hub.") from error
    offline = os.environ.get("KNET_OFFLINE", "0") not in ("", "0")
    try:
        return Path(hf_hub_download(match[1], match[2] or HUB_FILE, local_files_only=offline))
    except Exception as error:  # of several packages
        if offline:
            raise DownloadError(
                f"'{text}' is not on this machine, and KNET_OFFLINE or --offline forbids the net."
            ) from error
        raise DownloadError(f"'{text}' cannot be fetched: {str(error).strip().splitlines()[0][:300]}") from error
