"""Files from the net, by a server on this machine that can be slow, wrong, cut off or redirected."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import knet
from knet.cli.main import main
from knet.errors import CheckpointError, ConfigError, DownloadError
from knet.models.zoo import ZOO
from knet.weights import fetch as module
from knet.weights.fetch import fetch, home, local, released_file
from knet.weights.released import RELEASED, Released

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Counts requests; `cut` bytes are sent of the first answers, as many as `cuts` says.

    What it is asked to go on with begins `shift` bytes later.
    """

    requests, ranges, cuts, cut, tag, shift = 0, (), 0, 300_000, '"one"', 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        if self.path == "/moved/weights.pth":
            self.send_response(302)
            self.send_header("Location", "/weights.pth")
            self.end_headers()
            return
        if self.path == "/page/weights.pth":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"\n<!doctype html><title>Sign in</title>")
            return
        if self.path != "/weights.pth":
            self.send_error(404)
            return
        start = 0
        if "Range" in self.headers and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            server.ranges = (*server.ranges, start)
        start += server.shift if start else 0
        rest = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(rest[: server.cut])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(rest)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("KNET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KNET_OFFLINE", raising=False)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    served = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def address(server: Server, path: str = "weights.pth") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{path}"


def kept() -> list[str]:
    return sorted(path.name for path in (home() / "weights").glob("*"))


@pytest.mark.parametrize("path", ["weights.pth", "moved/weights.pth"])
def test_a_file_is_fetched_once(server: Server, path: str) -> None:
    first = fetch(address(server, path), SHA[:8])
    asked = server.requests
    assert first.read_bytes() == CONTENT and fetch(address(server, path)) == first
    assert server.requests == asked


def test_a_cut_connection_goes_on_where_it_ended(server: Server) -> None:
    server.cuts = 2
    assert fetch(address(server), SHA).read_bytes() == CONTENT
    assert len(server.ranges) == 2 and 0 < server.ranges[0] < server.ranges[1]


def test_what_an_earlier_process_left_is_continued(server: Server) -> None:
    server.cuts, server.cut = 10**6, 0
    with pytest.raises(DownloadError, match="goes on from there"):
        fetch(address(server), SHA)
    server.cuts, server.cut = 1, 500_000
    monkey = module._TRIES
    module._TRIES = 0
    try:
        with pytest.raises(DownloadError, match=r"0\.\d MB are here"):
            fetch(address(server), SHA)
    finally:
        module._TRIES = monkey
    assert all(name.startswith(".") for name in kept())
    assert fetch(address(server), SHA).read_bytes() == CONTENT
    assert len(server.ranges) == 1 and server.ranges[0] > 100_000


def test_a_part_of_another_version_is_fetched_anew(server: Server) -> None:
    server.cuts = 1
    module_tries, module._TRIES = module._TRIES, 0
    try:
        with pytest.raises(DownloadError):
            fetch(address(server))
    finally:
        module._TRIES = module_tries
    server.tag = '"two"'
    assert fetch(address(server)).read_bytes() == CONTENT
    assert server.ranges == ()


@pytest.mark.parametrize("end", ["tag", "part"])
def test_a_planted_link_leads_nowhere(server: Server, end: str, tmp_path: Path) -> None:
    """Neither is written through it, nor is what it leads to sent to the server."""
    secret, target = tmp_path / "secret", fetch(address(server))
    secret.write_text("mine")
    target.unlink()
    target.with_name(f".{target.name}.{end}").symlink_to(secret)
    if end == "tag":
        target.with_name(f".{target.name}.part").write_bytes(CONTENT[:10])
    assert fetch(address(server)).read_bytes() == CONTENT
    assert secret.read_text() == "mine" and server.ranges == ()


def test_what_a_link_leads_to_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    secret, target = tmp_path / "secret", fetch(address(server))
    secret.write_text("mine")
    target.unlink()
    target.with_name(f".{target.name}.part").symlink_to(secret)
    target.with_name(f".{target.name}.tag").write_text(server.tag)
    assert fetch(address(server)).read_bytes() == CONTENT
    assert secret.read_text() == "mine" and server.ranges == ()


@pytest.mark.parametrize("tag", [b"\xff\xfe\0", b'"a"\r\nHost: evil', '"\u20ac"'.encode(), b" \n", b"x" * 10**7])
def test_a_tag_that_is_none_is_not_sent(server: Server, tag: bytes) -> None:
    target = fetch(address(server))
    target.unlink()
    target.with_name(f".{target.name}.part").write_bytes(b"other")
    target.with_name(f".{target.name}.tag").write_bytes(tag)
    assert fetch(address(server)).read_bytes() == CONTENT and server.ranges == ()


def test_a_server_that_goes_on_elsewhere_is_asked_for_all(server: Server) -> None:
    server.cuts, server.shift = 1, 5
    assert fetch(address(server)).read_bytes() == CONTENT and len(server.ranges) == 1


def test_folders_of_what_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KNET_HOME", "~/models")  # as in a file of a service, which no shell reads
    assert home() == tmp_path / "models"
    monkeypatch.setenv("KNET_HOME", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home() == tmp_path / ".cache" / "knet"
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(ConfigError, match="KNET_HOME"):
        home()


def test_another_file_than_was_meant_is_not_kept(server: Server) -> None:
    with pytest.raises(DownloadError, match=f"SHA-256 begins with {SHA[:8]}, not 01234567"):
        fetch(address(server), "01234567")
    assert [name for name in kept() if not name.endswith(".lock")] == []


def test_a_web_page_is_not_kept_as_weights(server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}/page/weights.pth"
    for _ in range(2):
        with pytest.raises(DownloadError, match="gave a web page and no weights"):
            local(address)
    assert server.requests == 2 and not [path for path in home().rglob("*.pth") if path.is_file()]
    with pytest.raises(ConfigError, match="names no server"):
        local("https://")


def test_no_such_file_is_one_sentence_without_secrets(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    where = address(server, "nothing.pth?token=secret").replace("//", "//user:secret@")
    with pytest.raises(DownloadError, match="the server says 404") as caught:
        fetch(where)
    assert "secret" not in str(caught.value)
    street = Path(knet.__file__).parent / "assets" / "demo" / "city_1.jpg"
    assert main(["predict", address(server, "nothing.safetensors"), str(street)]) == 1
    assert "404" in capsys.readouterr().err


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNET_HOME", str(tmp_path))
    monkeypatch.delenv("KNET_OFFLINE", raising=False)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"0\.0 MB are here"):
        fetch("http://127.0.0.1:9/weights.pth")
    monkeypatch.setenv("KNET_OFFLINE", "1")
    with pytest.raises(DownloadError, match="forbids the net"):
        fetch("http://127.0.0.1:9/weights.pth")


def _fetch_in_process(url: str, queue: Any) -> None:
    queue.put(hashlib.sha256(fetch(url, SHA).read_bytes()).hexdigest())


def test_two_processes_at_once_fetch_it_once(server: Server) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_fetch_in_process, args=(address(server), queue)) for _ in range(2)]
    for process in both:
        process.start()
    assert [queue.get(timeout=600) for _ in both] == [SHA, SHA]
    for process in both:
        process.join()
    assert server.requests == 1


def test_a_model_by_name_fetches_its_published_weights(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "knet-r50-coco-instance"
    monkeypatch.setitem(RELEASED, name, Released("https://page", "Apache-2.0", address(server), SHA[:8]))
    assert main(["download", name]) == 0
    assert "weights of knet-r50-coco-instance: https://page, licence Apache-2.0" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"weights\.pth"):  # these bytes are no checkpoint
        knet.load(name)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("video-knet-r50-vipseg", "No program can fetch .* by hand from github.com/lxtGH/Video-K-Net"),
        ("rtknet-slim-cityscapes", "There are no published weights"),
    ],
)
def test_weights_that_no_program_can_fetch(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        knet.load(name)


def test_google_drive_without_gdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gdown", None)
    with pytest.raises(ConfigError, match="pip install gdown"):
        released_file("rtknet-cityscapes")


def test_addresses_of_the_hub_are_understood() -> None:
    with pytest.raises(ConfigError, match="hf:owner/repository"):
        local("hf:alone")


def test_every_official_model_has_its_place() -> None:
    assert set(RELEASED) == {name for name, row in ZOO.items() if row.official}
    assert all(len(each.sha256) == 8 for each in RELEASED.values() if "openmmlab" in each.url)
