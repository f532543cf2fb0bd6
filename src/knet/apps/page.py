"""What the page of `knet demo --serve` looks like, and what its controls do."""

import logging
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from knet.apps.limits import Limits
from knet.apps.shelf import Shelf
from knet.apps.view import alert, results, status
from knet.apps.visits import Visits, segment, told, write
from knet.errors import KNetError
from knet.inference.results.style import Drawing
from knet.inference.settings import Options

_logger = logging.getLogger("knet")
_NONE = "no other model"
_EXAMPLES = {"City": "city_1.jpg", "Suburb": "suburb_1.jpg", "Highway": "highway_2.jpg", "Video": "drive.mp4"}
_SHOWN = ["names", "scores", "contours", "legend"]
_EVERY = 0.5  # seconds between two sentences on how far the work is


def asset(name: str) -> str:
    """The text of a file of the page."""
    return (resources.files("knet") / "assets" / "page" / name).read_text("utf-8")


def build(shelf: Shelf, visits: Visits, limits: Limits, examples: Path) -> Any:
    """The page as gradio's Blocks. `examples` is the folder of the bundled pictures."""
    gone: Any = {"delete_cache": (60, 3600), "analytics_enabled": False}
    with gr.Blocks(title="knet: what every pixel is, and which object it belongs to", **gone) as page:
        gr.Markdown("# knet\nWhat every pixel of a picture is, and which object it belongs to.")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                file = gr.File(
                    label="Image or short video", file_types=["image", "video"], height=150, elem_id="knet-file"
                )
                gr.Markdown(f"{limits.sentence()} Or one that is here:")
                with gr.Row(elem_classes="knet-examples"):
                    buttons = {name: gr.Button(name, size="sm", min_width=60) for name in _EXAMPLES}
                model = gr.Dropdown(shelf.names, value=shelf.names[0], label="Model")
                other = gr.Dropdown([_NONE, *shelf.names], value=_NONE, label="Compare with")
                with gr.Accordion("Thresholds", open=False):
                    own = gr.Checkbox(True, label="those of the models")
                    first = shelf[shelf.names[0]]
                    score = gr.Slider(0, 1, first.score, step=0.01, label="Score", interactive=True)
                    overlap = gr.Slider(0, 1, first.overlap, step=0.01, label="Overlap", interactive=True)
                with gr.Row():
                    go = gr.Button("Segment", variant="primary", min_width=120)
                    stop = gr.Button("Stop", min_width=80)
            with gr.Column(scale=3, min_width=320):
                view = gr.HTML("<p>Drop a picture, or take one of the examples.</p>", js_on_load=asset("page.js"))
                classes = gr.CheckboxGroup([], label="Classes", visible=False)
                with gr.Row(visible=False) as looks:
                    alpha = gr.Slider(0, 1, 0.5, step=0.05, label="Colours", info="0 shows the picture alone")
                    shown = gr.CheckboxGroup(_SHOWN, value=["names", "contours"], label="Show")
        for slider in (score, overlap):
            slider.input(lambda: False, None, own, queue=False, api_visibility="private")
        work = Work(shelf, visits, limits)
        given = [file, model, other, own, score, overlap, alpha, shown]
        made = [view, classes, looks]
        common: Any = {"show_progress": "hidden", "api_visibility": "private"}
        running: Any = [
            go.click(work.segment, given, made, **common),
            file.upload(work.segment, given, made, **common),
        ]
        for name, button in buttons.items():
            path = str(examples / _EXAMPLES[name])
            chosen = button.click(lambda path=path: path, None, file, **common)
            running.append(chosen.then(work.segment, given, made, **common))
        drawn = [classes, alpha, shown]
        for change in (classes.input, alpha.release, shown.input):
            running.append(change(work.redraw, drawn, view, trigger_mode="always_last", **common))
        stop.click(lambda: "<p>Stopped.</p>", None, view, cancels=running, **common)
        file.clear(work.clear, None, made, **common)
        page.unload(work.leave)
    page.queue(max_size=limits.waiting, default_concurrency_limit=1)
    return page


class Work:
    """What happens when controls are used. Mistakes become a sentence on the page."""

    def __init__(self, shelf: Shelf, visits: Visits, limits: Limits):
        self.shelf, self.visits, self.limits = shelf, visits, limits

    def segment(
        self,
        given: str | None,
        model: str,
        other: str,
        own: bool,
        score: float,
        overlap: float,
        alpha: float,
        shown: Sequence[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Looks at a file, and shows what was found in it."""
        skip = gr.skip()

        def look() -> Iterator[Any]:
            yield status("Looking at the file")
            visit = self.visits.begin(visitor(request), given)
            options: Options = {} if own else {"score": score, "overlap": overlap}
            models = [model] if other == _NONE else [model, other]
            yield from now_and_then(segment(visit, self.shelf, models, options, self.limits))
            classes = list(dict.fromkeys(name for found in visit.found for name in found.classes()))
            yield from now_and_then(write(visit, classes, drawing(alpha, shown), self.limits))
            group = gr.CheckboxGroup(classes, value=classes, visible=bool(classes))
            yield results(visit, classes), group, gr.Row(visible=True)

        for made in self._one_at_a_time(look()):
            yield (made, skip, skip) if isinstance(made, str) else made

    def redraw(self, classes: Sequence[str], alpha: float, shown: Sequence[str], request: gr.Request) -> Iterator[str]:
        """Draws what was found anew, with other classes or another look."""

        def draw() -> Iterator[str]:
            visit = self.visits.of(visitor(request))
            yield from now_and_then(write(visit, classes, drawing(alpha, shown), self.limits))
            yield results(visit, classes)

        yield from self._one_at_a_time(draw())

    def clear(self, request: gr.Request) -> tuple[Any, ...]:
        """Forgets a file, and what was found in it."""
        self.leave(request)
        gone = gr.CheckboxGroup([], visible=False), gr.Row(visible=False)
        return "<p>The file and its results are deleted.</p>", *gone

    def leave(self, request: gr.Request) -> None:
        """Forgets a visitor who closed the page."""
        self.visits.forget(visitor(request))

    def _one_at_a_time(self, work: Iterator[Any]) -> Iterator[Any]:
        """What the work gives, when nobody else is at work; what goes wrong in it as a sentence."""
        with self.visits.busy:
            try:
                yield from work
            except KNetError as error:
                yield alert(told(error, self.visits.folder))
            except Exception as error:  # what visitors bring must not end the page
                _logger.warning(f"The page failed: {type(error).__name__}: {error}")
                yield alert("Something went wrong; the terminal where the page runs says what.")


def visitor(request: gr.Request) -> str:
    """By what a visitor is known, as long as the page is open."""
    return str(request.session_hash)


def drawing(alpha: float, shown: Sequence[str]) -> Drawing:
    """The options of `Segmentation.overlay` that the controls say."""
    return {
        "alpha": alpha,
        "names": "names" in shown,
        "scores": "scores" in shown,
        "legend": "legend" in shown,
        "contours": None if "contours" in shown else False,
    }


def now_and_then(sentences: Iterator[str]) -> Iterator[str]:
    """The first of the sentences on how far the work is, and of the others one from time to time."""
    last = -_EVERY
    for sentence in sentences:
        if time.perf_counter() - last >= _EVERY:
            last = time.perf_counter()
            yield status(sentence)


def theme() -> Any:
    """Colours with enough contrast, and the system's own fonts."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
    return theme.set(
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8",
        button_primary_text_color="#ffffff",
        block_label_text_color="#374151",
        block_title_text_color="#1f2937",
        block_info_text_color="#4b5563",
        body_text_color_subdued="#4b5563",
        input_placeholder_color="#6b7280",
    )
