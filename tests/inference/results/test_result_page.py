from __future__ import annotations

import errno
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from fake_results import TABLE, photo, street
from PIL import Image

from knet.errors import OutputError
from knet.inference.results.page import Row, write_index


class Reader(HTMLParser):
    """Collects links and text, and checks that every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader


def test_the_page_shows_pairs_segments_and_legend(tmp_path: Path) -> None:
    (tmp_path / "in put").mkdir()
    out = tmp_path / "out"
    name = "strange #1 & <b>ü?.png"
    source = tmp_path / "in put" / name
    Image.fromarray(photo()).save(source)
    result = street(tracks={3: 41})
    (overlay,) = result.save(out, ["overlay"], photo(), name="strange #1")
    rows = [Row(name, source, overlay, result.segments, (60, 80)), Row("bad.jpg", error="'bad.jpg' is <cut> off.")]
    path = write_index(out, "Results & <more>", rows, TABLE)
    assert path == out / "index.html"
    page = read(path)
    text = " ".join(" ".join(page.text).split())
    for part in (
        "Results & <more>",
        name,
        "2 images, 1 failed",
        "'bad.jpg' is <cut> off.",
        "4 segments",
        "41",
        "80 \N{MULTIPLICATION SIGN} 60",
    ):
        assert part in text
    assert text.split().count("road") == 2 and text.split().count("car") == 3  # legend and table
    assert "b" not in page.tags and "script" not in page.tags
    targets = {(out / unquote(link)).resolve() for link in page.links}
    assert targets == {source.resolve(), overlay.resolve()}
    assert not any(link.startswith(("/", "http", "file")) for link in page.links)
    assert "background:#804080" in path.read_text()


def test_a_page_of_nothing(tmp_path: Path) -> None:
    page = read(write_index(tmp_path, "Nothing", []))
    assert "0 images" in page.text and not page.links
    page = read(write_index(tmp_path, "One", [Row("a")]))
    assert "1 image" in page.text


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    odd = tmp_path / "caf\udce9.png"
    page = read(write_index(tmp_path, "odd", [Row(odd.name, image=odd)]))
    assert page.links[0] == "caf%E9.png"


def test_a_page_appears_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(tmp_path, "first", [])
    before = (tmp_path / "index.html").read_text()

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"index.html.*No space left"):
        write_index(tmp_path, "second", [])
    monkeypatch.undo()
    assert (tmp_path / "index.html").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(OutputError, match="Cannot write"):
        write_index(tmp_path / "index.html" / "below", "third", [])
