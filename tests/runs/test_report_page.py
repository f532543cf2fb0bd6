"""Reports: what they say is what `knet eval` prints, names cannot do harm, and the file has limits."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knet.cli.main import main
from knet.evaluation import panoptic_quality
from knet.evaluation.details import ROWS, Details
from knet.evaluation.report import rows
from knet.runs.report.charts import line_chart
from knet.runs.report.page import Page, render, write_report
from knet.runs.report.pictures import LARGEST, jpeg, paint_maps
from knet.structures import Category

EVIL = ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}", "javascript:alert(1)//&amp;"]
BOTH = ("panoptic.json", "panoptic")


class Seen(HTMLParser):
    """What a browser would find in a page: tags with their attributes, and the rows of its tables by caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self.cell: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("caption", "th", "td"):
            self.cell = []
        if tag == "table":
            self.rows: list[list[str]] = []
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        (self.text if self.cell is None else self.cell).append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self.tables["".join(self.cell or [])] = self.rows
        elif tag in ("th", "td"):
            self.rows[-1].append("".join(self.cell or []))
        if tag in ("caption", "th", "td"):
            self.cell = None


def files(folder: Path, names: list[str]) -> list[str]:
    """Truth and predictions of three images on disk, in COCO panoptic form; the options of `knet eval`."""
    rng = np.random.default_rng(0)
    table = [{"id": n, "name": name, "isthing": n % 2, "color": [n, 90, 200]} for n, name in enumerate(names, 1)]
    for side in ("truth", "found"):
        content: dict[str, Any] = {"annotations": [], "categories": table}
        (folder / side / BOTH[1]).mkdir(parents=True)
        for number in range(3):
            ids = np.ones((40, 60), np.uint8)
            ids[number * 5 : number * 5 + 12, 10:30] = 2
            ids[25:, rng.integers(0, 20) :] = 3
            Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(folder / side / BOTH[1] / f"{number}.png")
            segments = [{"id": i, "category_id": 1 + (i + number) % len(names)} for i in (1, 2, 3)]
            if side == "found":
                segments[0]["category_id"], segments[1]["score"] = 1, 0.75
            row = {"image_id": f"{number}{EVIL[0]}", "file_name": f"{number}.png", "segments_info": segments}
            content["annotations"].append(row)
        (folder / side / BOTH[0]).write_text(json.dumps(content))
    sides = [str(folder / side / BOTH[0]) for side in ("truth", "found")]
    return ["eval", "--metric", "pq", "--truth", sides[0], "--predictions", sides[1]]


def test_a_report_says_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "reports" / "report.html"
    assert main([*files(tmp_path, ["road", "car", "sky"]), "--report", str(report)]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip("-")]
    tables = Seen(report.read_text()).tables
    assert tables["Panoptic quality by class"] == [row[:7] for row in printed[:4]]
    summary = [[name, *figures[:3], figures[-1]] for name, *figures in printed[4:]]
    assert tables["Panoptic quality: summary, fractions in percent"][1:] == summary
    counts = np.array([row[4:7] for row in printed[1:4]], int)
    sizes = np.array([row[-3:] for row in tables["Panoptic quality by object size"][1:]], int)
    assert (sizes.sum(0) == counts.sum(0)).all()
    images = np.array([row[2:] for row in tables["Panoptic quality by image"][1:]], int)
    assert (images.sum(0) == counts.sum(0)).all()
    confusion = tables["Panoptic quality: confusion between classes"][1:]
    assert [int(row[-1]) for row in confusion[:3]] == (counts[:, 0] + counts[:, 2]).tolist()
    scores = np.array([row[1:3] for row in tables["Panoptic quality: scores and shares of right ones"][1:]], int)
    assert scores.sum(0)[0] == 3  # those that state one
    assert sum(tag == "img" for tag, _ in Seen(report.read_text()).tags) == 3


@pytest.mark.parametrize("place", ["classes", "curves"])
def test_names_do_no_harm(tmp_path: Path, place: str) -> None:
    report = tmp_path / "report.html"
    if place == "classes":
        assert main([*files(tmp_path, EVIL), "--report", str(report)]) == 0
    else:
        chart = line_chart(EVIL[0], np.arange(3.0), {EVIL[1]: np.arange(3.0)})
        assert chart is not None
        result = {"panoptic": panoptic_quality([], [], categories=[Category(1, EVIL[0], True, (1, 2, 3))])}
        about = [(EVIL[0], EVIL[1])]
        pictures = {EVIL[1]: jpeg(np.zeros((9, 9, 3), np.uint8))}
        write_report(
            report, Page(EVIL[0], result, about=about, charts=[chart], pictures=pictures, published={EVIL[0]: 1})
        )
    seen = Seen(report.read_text())
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for _, attrs in seen.tags if attrs.get("src"))
    assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
    assert all(attrs["href"].startswith("#") for _, attrs in seen.tags if attrs.get("href"))
    cells = {cell for table in seen.tables.values() for row in table for cell in row}
    assert EVIL[0] in cells  # as it is
    assert "49" not in "".join(seen.text)
    policy = next(attrs["content"] for tag, attrs in seen.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None and "default-src 'none'" in policy and "unsafe-inline'; script" in policy


@settings(max_examples=60)
@given(name=st.text(st.characters(), max_size=200))
def test_any_name_can_be_written(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also halves of pairs, which names of files have where they are no UTF-8, and what turns the text around."""
    details = Details()
    details.open([Category(1, name, True, (1, 2, 3))])
    details.add_pixels(name, np.array([[3, 1]]), lambda: b"jpeg")
    result = {"panoptic": panoptic_quality([], [], categories=details.categories)}
    path = tmp_path_factory.getbasetemp() / "any.html"
    write_report(path, Page(name, result, {"panoptic": details}))
    seen = Seen(path.read_text(encoding="utf-8"))
    cells = [cell for table in seen.tables.values() for row in table for cell in row]
    assert all(letter.isprintable() for cell in cells for letter in cell)
    assert all(len(cell) <= 90 for cell in cells)
    assert [tag for tag, _ in seen.tags].count("img") == 1


def test_a_report_has_limits(tmp_path: Path) -> None:
    """Of any number of images, with a thousand classes and the longest names."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    picture = jpeg(noise)
    assert len(picture) <= LARGEST
    table = [Category(n, f"{n:04d}{'<&>' * 200}", True, (1, 2, 3)) for n in range(1203)]
    details = Details()
    details.open(table)
    counts = np.zeros((1203, 1204), np.int64)
    for number in range(ROWS + 30):
        counts[number % 1203, (number * 7) % 1203] += 1
        details._add(details_row(number), lambda: picture)
    details.kind, details.confusion[:-1] = "pixels", counts
    result = {"panoptic": panoptic_quality([], [], categories=table)}
    write_report(tmp_path / "report.html", Page("report", result, {"panoptic": details}))
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 6_000_000
    assert f"{ROWS + 30} images; the {ROWS} with the lowest figures are listed" in page
    assert "The most frequent classes are shown, the other 1179 are summed up" in page


def details_row(number: int) -> Any:
    from knet.evaluation.details import ImageRow

    return ImageRow(f"{number}{'&' * 300}", number / 5000, (number, 2))


def test_confusion_of_many_classes_loses_nothing() -> None:
    from knet.runs.report.confusion import CLASSES, grouped, picture_of, table_of

    details = Details()
    details.open([Category(n, f"class {n} $x^2$", True, (1, 2, 3)) for n in range(60)])
    details.kind = "segments"
    details.confusion[:] = np.random.default_rng(0).integers(0, 9, details.confusion.shape)
    names, counts, others = grouped(details)
    assert counts.sum() == details.confusion.sum() and others == 60 - CLASSES == 36
    assert names[-1] == "36 other classes" and np.trace(counts) >= np.trace(details.confusion)
    assert sum(row[1] for row in table_of(details).rows) == details.confusion.sum()
    assert picture_of(details).shape[2] == 3


def test_curves_of_any_numbers() -> None:
    x = np.arange(1.0, 1001.0)
    for values in (x * 0, x, -x, 1 / x, np.where(x < 1000, np.nan, 3.0), x * 1e-12, x * 1e12):
        chart = line_chart("a", x, {"a": values}, faint={"a": values})
        assert chart is not None
        numbers = [float(n) for line in chart.lines for n in re.split("[ ,]", line.points)]
        assert np.isfinite(numbers).all() and min(numbers) >= -1 and max(numbers) <= 641
        assert len(numbers) <= 800 and 2 <= len(chart.y_ticks) <= 30
    assert line_chart("a", x, {"a": x * np.nan}) is None


def semantic(folder: Path) -> list[str]:
    for side in ("truth", "found"):
        (folder / side).mkdir()
        for number in range(2):
            labels = np.full((30, 40), 7, np.uint8)
            labels[:15, : 10 + 10 * number * (side == "found")] = 11
            Image.fromarray(labels).save(folder / side / f"{number}.png")
    return ["--metric", "miou", "--truth", f"{folder}/truth", "--predictions", f"{folder}/found", "--classes", "camvid"]


def objects(folder: Path) -> list[str]:
    square = [[5, 5, 25, 5, 25, 25, 5, 25]]
    row = {"image_id": 3, "category_id": 2, "segmentation": square}
    content = {"images": [{"id": 3, "height": 40, "width": 40}], "categories": [{"id": 2, "name": "car"}]}
    (folder / "truth.json").write_text(json.dumps({**content, "annotations": [{**row, "id": 1}]}))
    (folder / "found.json").write_text(json.dumps([{**row, "score": 0.9}]))
    return ["--metric", "ap", "--truth", f"{folder}/truth.json", "--predictions", f"{folder}/found.json"]


def clips(folder: Path) -> list[str]:
    for side in ("truth", "found"):
        for clip in ("0001", "0002"):
            (folder / side / clip).mkdir(parents=True)
            for number in range(2):
                frame = np.zeros((20, 30, 3), np.uint8)
                frame[5:10, 5:15] = (13, 0, 1 + (side == "found") * number)
                Image.fromarray(frame).save(folder / side / clip / f"{number:06d}.png")
    return ["--metric", "stq", "--truth", f"{folder}/truth", "--predictions", f"{folder}/found"]


@pytest.mark.parametrize(
    ("make", "captions", "pictures"),
    [
        (semantic, ["Classes of pixels by class", "Classes of pixels by image"], 2),
        (objects, ["Average precision by class", "Average precision: confusion between classes"], 1),
        (clips, ["Segmentation and tracking quality by sequence", "Segmentation and tracking quality by class"], 0),
    ],
)
def test_reports_of_other_metrics(
    make: Any, captions: list[str], pictures: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    assert main(["eval", *make(tmp_path), "--report", str(report), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out).values()
    seen = Seen(report.read_text())
    assert set(captions) <= seen.tables.keys()
    cells = " ".join(cell for row in seen.tables[captions[0]] for cell in row)
    level = "sequence" if make is clips else "class"
    names = [row["name"] for row in rows({**result, "classes": result["classes"]}) if row["level"] == level]
    assert names and all(str(name) in cells for name in names)
    assert [tag for tag, _ in seen.tags].count("img") == pictures


def test_a_report_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").mkdir()
    words = files(tmp_path, ["road", "car"])
    assert main([*words, "--report", str(tmp_path / "report.html")]) == 1
    assert re.search(r"knet: Cannot write '.*report\.html'", capsys.readouterr().err)
    assert main([*words, "--report", str(tmp_path / "report.pdf")]) == 2
    assert "must end in .html" in capsys.readouterr().err
    assert not (tmp_path / "report.pdf").exists()


def test_a_report_of_a_model_has_the_published_figures() -> None:
    result = {"panoptic": panoptic_quality([], [], categories=[Category(1, "a", True, (1, 2, 3))])}
    result["panoptic"]["all"]["pq"] = 0.4333
    published = {"val PQ (1x)": 44.3, "test-dev PQ (3x)": 55.2, "val mIoU": 3.0}
    table = Seen(render(Page("report", result, published=published))).tables[
        "Published figures and those found here, in percent"
    ]
    assert table[1:] == [
        ["val PQ (1x)", "44.3", "43.3", "-1.0"],
        ["test-dev PQ (3x)", "55.2", "-", "-"],
        ["val mIoU", "3", "-", "-"],
    ]


CHROMIUM = Path("/usr/bin/chromium")


def full(path: Path) -> Path:
    """A report with everything that one can have."""
    rng = np.random.default_rng(0)
    table = [Category(n, name, n > 1, (40 * n, 90, 200)) for n, name in enumerate(["road", "a" * 70, "car", "bus"])]
    details = Details(paint_maps)
    ids = rng.integers(0, 4, (40, 6, 9)).repeat(12, 1).repeat(12, 2)
    noisy = np.where(rng.random(ids.shape) < 0.3, (ids + 1) % 4, ids)

    def side(values: np.ndarray, **more: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        return values + 1, [{"id": int(i) + 1, "category_id": int(i), **more} for i in np.unique(values)]

    images = [side(one) for one in ids], [side(one, score=float(rng.random())) for one in noisy]
    result = panoptic_quality(*images, categories=table, details=details)
    x = np.arange(1.0, 200.0)
    charts = [line_chart("Loss", x, {"loss": 1 / x}, faint={"loss": 1 / x}), line_chart("PQ", x, {"PQ": x}, dots=True)]
    write_report(
        path,
        Page(
            "Everything",
            {"panoptic": result},
            {"panoptic": details},
            {"val PQ": 40.0},
            [("model", "b" * 90)],
            [chart for chart in charts if chart],
            {"val_0": details.pictures[details.worst[0].name]},
        ),
    )
    return path


def test_people_can_use_the_page(tmp_path: Path) -> None:
    """At the width of a phone and of a desktop: nothing is cut off, tables sort, and axe finds no fault."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    if not CHROMIUM.exists():
        # A browser is no Python package, so pip cannot bring it.
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    page_file = full(tmp_path / "report.html")
    with playwright.sync_playwright() as engine:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=options)
        for width, scheme in ((390, "light"), (1280, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            asked, said = list[str](), list[str]()
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()] and not said
            found = axe.Axe().run(page).response["violations"]
            assert not [
                (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
            ]
            names = "[aria-label='Panoptic quality by class'] tbody th"
            page.click("[aria-label='Panoptic quality by class'] thead th:nth-child(1) button")
            assert page.locator(names).all_inner_texts() == sorted(page.locator(names).all_inner_texts())
            page.click("[aria-label='Panoptic quality by class'] thead th:nth-child(2) button")
            cells = page.locator("[aria-label='Panoptic quality by class'] tbody td:nth-child(2)").all_inner_texts()
            assert [float(text) for text in cells] == sorted(float(text) for text in cells)
        plain = browser.new_context(java_script_enabled=False).new_page()  # works without it, but for sorting
        plain.goto(page_file.as_uri())
        assert plain.locator("button").count() == 0 and plain.locator("img").first.is_visible()
        browser.close()
