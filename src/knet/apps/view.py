"""The results of a visit as HTML: pictures to hover over, players, links to the files, tables of segments."""

import json
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from knet.apps.visits import Found, Visit
from knet.inference.results.colors import Color, segment_colors
from knet.structures import Segment

_LISTED = 300  # segments in a table
_WORDS = {
    "_overlay.jpg": "overlay (JPEG)",
    "_panoptic.png": "panoptic map (PNG)",
    "panoptic.json": "panoptic map (JSON)",
    "_segments.json": "segments (JSON)",
    "_overlay.mp4": "video (MP4)",
    "tracks.jsonl": "tracks (JSON lines)",
}


def status(sentence: str) -> str:
    """How far the work is."""
    return f'<p class="knet-status" role="status">{escape(sentence)} …</p>'


def alert(sentence: str) -> str:
    """What went wrong."""
    return f'<p class="knet-alert" role="alert">{escape(sentence)}</p>'


def results(visit: Visit, classes: Sequence[str]) -> str:
    """What the models found in the file of a visit, with these classes alone; beside each other where there are two."""
    figures = "".join(_figure(visit, number, found, classes) for number, found in enumerate(visit.found))
    hint = "" if visit.video else " Point at the picture, or tap it, to read class, score and id."
    note = f'<p class="knet-note" role="status">{escape(visit.path.name)}.{hint}</p>'
    return f'{note}<div class="knet-pair">{figures}</div>'


def _figure(visit: Visit, number: int, found: Found, classes: Sequence[str]) -> str:
    def address(name: str) -> str:
        return f"results/{visit.token}/{number}/{quote(name)}?v={visit.version}"

    segments = sorted(found.segments(classes), key=lambda s: -s.area)
    colors = segment_colors(segments, found.categories)
    shown = [name for name in found.classes() if name in classes]
    picture = next((name for name in found.files if name.endswith(("_overlay.jpg", "_overlay.mp4"))), "")
    title = escape(f"{visit.path.stem}, by {found.model}: {', '.join(shown) or 'nothing'}", quote=True)
    if visit.video:
        body = f'<video src="{address(picture)}" aria-label="{title}" controls muted loop playsinline></video>'
    else:
        ids = next((name for name in found.files if name.endswith("_panoptic.png")), "")
        rows = {
            s.id: f"{s.name}{'' if s.track is None else f' {s.track}'} · score {s.score:.2f} · id {s.id}"
            for s in segments
        }
        body = (
            f'<img class="knet-picture" src="{address(picture)}" alt="{title}" data-ids="{address(ids)}" '
            f'data-segments="{escape(json.dumps(rows), quote=True)}">'
        )
    links = " ".join(f'<a href="{address(name)}" download="{escape(name)}">{_word(name)}</a>' for name in found.files)
    count = len(found.frames)
    table = f"<p>{count} frames.</p>" if visit.video else _table(found.model, segments, colors)
    return (
        f'<figure class="knet-result"><figcaption><h2>{escape(found.model)}</h2></figcaption>{body}'
        f'<p class="knet-links">Download: {links}</p>{table}</figure>'
    )


def _word(name: str) -> str:
    return next((word for end, word in _WORDS.items() if name.endswith(end)), escape(name))


def _table(model: str, segments: Sequence[Segment], colors: dict[int, Color]) -> str:
    if not segments:
        return "<p>No segment is as certain as that, or of these classes.</p>"
    lines = "".join(
        f'<tr><td><i style="background:rgb{colors[s.id]}"></i>{escape(s.name)}</td><td>{s.score:.2f}</td>'
        f"<td>{s.id}</td><td>{s.area:,}</td></tr>"
        for s in segments[:_LISTED]
    )
    more = f"<p>and {len(segments) - _LISTED} more</p>" if len(segments) > _LISTED else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("class", "score", "id", "pixels"))
    label = f"{escape(model, quote=True)}: segments"
    return (
        f"<details><summary>{len(segments)} segment{'' if len(segments) == 1 else 's'}</summary>"
        f'<div class="knet-scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>{more}</details>"
    )
