"""A static web page of results: input and overlay side by side, with the segments of each image.

It is HTML and CSS in one file, without scripts and without anything from the network, so it opens from a disk as well.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from knet.files import atomic_path
from knet.inference.results.colors import Color, listed_colors, segment_colors
from knet.inference.results.files import make_folder
from knet.structures import Category, Segment

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --paper: #f6f7f9; --card: #fff; --line: #dde1e7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa5b4; --paper: #12151a; --card: #1b2027; --line: #303843; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 2rem clamp(1rem, 3vw, 3rem); background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }
h2 span, .count { color: var(--soft); font-weight: 400; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; margin: 1rem 0 1.5rem; padding: 0; list-style: none; }
i + i { margin-left: -.45em; }
i { display: inline-block; width: .95em; height: .95em; margin-right: .45em; border-radius: 3px; vertical-align: -.1em;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
article { margin: 0 0 1.5rem; padding: 1.1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .9rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figure img, video { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { margin-top: .3rem; color: var(--soft); font-size: .85rem; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--soft); }
.scroll { overflow-x: auto; }
table { margin-top: .6rem; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1.4rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
.error { margin: 0; color: #c0392b; }
@media (prefers-color-scheme: dark) { .error { color: #ff8a7a; } }
"""


_Classes = dict[int, tuple[str, list[Color]]]  # category id -> name, and the colours that it has in the pictures
_STRIPES = 6  # colours of one class that the legend shows


@dataclass(frozen=True, slots=True)
class Row:
    """One image on the page, with its size (height, width), or the `error` that it failed with.

    Files are linked, not copied, relative to the page where that is possible.
    """

    name: str
    image: Path | None = None
    overlay: Path | None = None
    segments: Sequence[Segment] = ()
    size: tuple[int, int] | None = None
    error: str | None = None


def write_index(
    folder: str | Path,
    title: str,
    rows: Sequence[Row],
    categories: Sequence[Category] = (),
    note: str = "",
    videos: Sequence[Path] = (),
) -> Path:
    """Writes `index.html` with all images, a legend of the classes that occur, a note and videos; returns its path."""
    folder = make_folder(Path(folder))
    colors = _colors(rows, categories)
    failed = sum(row.error is not None for row in rows)
    count = f"{len(rows)} image{'' if len(rows) == 1 else 's'}" + (f", {failed} failed" if failed else "")
    body = [_video(video, folder) for video in videos] + [_article(row, colors, categories, folder) for row in rows]
    return _write_page(folder, title, ". ".join(filter(None, (count, escape(note)))), colors, body)


def write_grid(
    folder: str | Path, title: str, note: str, rows: Sequence[Row], categories: Sequence[Category] = ()
) -> Path:
    """Writes `index.html` as a grid of overlays, each with name, size and classes, below a note; returns its path."""
    folder = make_folder(Path(folder))
    colors = _colors(rows, categories)
    cells = [_cell(row, colors, folder) for row in rows]
    return _write_page(folder, title, escape(note), colors, ['<div class="grid">\n', *cells, "</div>\n"])


def _write_page(folder: Path, title: str, note: str, colors: _Classes, body: Sequence[str]) -> Path:
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n"
        f'<h1>{escape(title)}</h1>\n<div class="count">{note}</div>\n{_legend(colors)}</header>\n<main>\n',
        *body,
        "</main>\n</body>\n</html>\n",
    ]
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text("".join(parts), encoding="utf-8", errors="replace")
    return path


def _colors(rows: Sequence[Row], categories: Sequence[Category]) -> _Classes:
    """The classes on the page, in the order of the class table, each with the colours that it has there."""
    found: dict[int, tuple[str, dict[Color, None]]] = {}
    for row in rows:
        for category, name, colors in listed_colors(row.segments, categories):
            found.setdefault(category, (name, {}))[1].update(dict.fromkeys(colors))
    order = {category.id: n for n, category in enumerate(categories)}
    ids = sorted(found, key=lambda i: (order.get(i, len(order)), i))
    return {i: (found[i][0], list(found[i][1])) for i in ids}


def _swatch(*colors: Color) -> str:
    return "".join(f'<i style="background:#{red:02x}{green:02x}{blue:02x}"></i>' for red, green, blue in colors)


def _legend(colors: _Classes) -> str:
    if not colors:
        return ""
    entries = "".join(f"<li>{_swatch(*used[:_STRIPES])}{escape(name)}</li>\n" for name, used in colors.values())
    return f'<ul class="legend" aria-label="classes">\n{entries}</ul>\n'


def _article(row: Row, colors: _Classes, categories: Sequence[Category], folder: Path) -> str:
    size = f" <span>{row.size[1]} &times; {row.size[0]}</span>" if row.size else ""
    head = f"<article>\n<h2>{escape(row.name)}{size}</h2>\n"
    if row.error is not None:
        return f'{head}<p class="error">{escape(row.error)}</p>\n</article>\n'
    pair = _figure(row.image, "input", row, folder) + _figure(row.overlay, "result", row, folder)
    return f'{head}<div class="pair">\n{pair}</div>\n{_table(row, categories)}</article>\n'


def _video(video: Path, folder: Path) -> str:
    link, name = escape(_link(video, folder)), escape(video.name)
    player = f'<video src="{link}" aria-label="{name}" controls muted loop playsinline preload="metadata"></video>'
    file = f'<a href="{link}" download>{name}</a>'
    return f'<article>\n<h2>{name}</h2>\n{player}\n<p class="count">{file}</p>\n</article>\n'


def _figure(picture: Path | None, caption: str, row: Row, folder: Path) -> str:
    if picture is None:
        return ""
    link = escape(_link(picture, folder))
    # Width and height keep the page from jumping while images that come into view are loaded.
    size = f' width="{row.size[1]}" height="{row.size[0]}"' if row.size else ""
    image = f'<img src="{link}" alt="{escape(row.name)}: {caption}" loading="lazy"{size}>'
    return f'<figure><a href="{link}">{image}</a><figcaption>{caption}</figcaption></figure>\n'


def _cell(row: Row, colors: _Classes, folder: Path) -> str:
    """A picture of the grid, with its name, size and classes, by area, below it."""
    picture = "" if row.overlay is None else escape(_link(row.overlay, folder))
    size = f" <span>{row.size[1]} &times; {row.size[0]}</span>" if row.size else ""
    segments = sorted(row.segments, key=lambda s: -s.area)
    counts = Counter(s.category for s in segments)
    classes = ", ".join(
        f"{_swatch(colors[i][1][0])}{escape(colors[i][0])}" + (f" &times; {n}" if n > 1 else "")
        for i, n in counts.items()
    )
    return (
        f'<figure><a href="{picture}"><img src="{picture}" alt="{escape(row.name)}"></a>\n'
        f"<figcaption><b>{escape(row.name)}</b>{size}<br>{classes or 'no segment'}</figcaption></figure>\n"
    )


def _link(target: Path, folder: Path) -> str:
    """The address of a file as seen from the page."""
    try:
        relative = os.path.relpath(target.absolute(), folder.absolute())
    except ValueError:  # Windows: another drive
        return target.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _table(row: Row, categories: Sequence[Category]) -> str:
    if not row.segments:
        return ""
    pixels = row.size[0] * row.size[1] if row.size else 0
    tracked = any(segment.track is not None for segment in row.segments)
    heads = ["class", "kind", "score", "area", *(["share"] if pixels else []), *(["track"] if tracked else [])]
    colors = segment_colors(row.segments, categories)
    lines = []
    for s in sorted(row.segments, key=lambda s: -s.area):
        cells = [_swatch(colors[s.id]) + escape(s.name), "thing" if s.thing else "stuff", f"{s.score:.2f}"]
        cells += [f"{s.area:,}", *([f"{100 * s.area / pixels:.1f} %"] if pixels else [])]
        cells += [*(["" if s.track is None else str(s.track)] if tracked else [])]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n")
    count = f"{len(row.segments)} segment{'' if len(row.segments) == 1 else 's'}"
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>"
    # What scrolls can be reached by the keyboard.
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(row.name)}: segments">'
    return f"<details><summary>{count}</summary>{scroll}<table>\n{body}</table></div></details>\n"
