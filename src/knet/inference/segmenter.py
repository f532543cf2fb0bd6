"""A network together with everything that is needed to use it: image in, `Segmentation` out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from knet.calls import named_options
from knet.data.categories import load_categories
from knet.errors import ConfigError, DataError, KNetError, PredictionError, counted, enough_memory, require, shown
from knet.inference.engines.engine import Engine
from knet.inference.finite import require_finite, require_finite_numbers
from knet.inference.identities import Tracking, VideoState, choose_tracker, identify, tracked_ids, void_as_lowest
from knet.inference.pipeline import Here, read_ahead
from knet.inference.results.chosen import class_ids, cropped, only, placed
from knet.inference.results.segmentation import Segmentation
from knet.inference.segments import (
    PanopticRules,
    Prediction,
    Segments,
    instance_segments,
    panoptic_segments,
    semantic_segments,
)
from knet.inference.settings import Options, Settings
from knet.inference.sources.fetched import local_file
from knet.inference.sources.images import Source, Sources, load_image
from knet.inference.sources.paths import open_source
from knet.inference.sources.span import Span
from knet.inference.sources.streams import Frame, comes_from_caller, open_stream
from knet.inference.step import FrameTracker
from knet.merge.semantic import ViewLogits, look
from knet.models.network import Network
from knet.models.zoo import Tracker, entry
from knet.preprocess import ImageSizes, Size, fitting_size, network_size, prepare, unpadded
from knet.track.settings import TrackerSettings
from knet.weights.card import Card


class Segmenter:
    """Segments images, one at a time: `segmenter("street.jpg")`. Made by `knet.load`.

    Attributes:
        engine: what runs the network: torch, or an exported model.
        card: what travels with its weights, of which most of the following are.
        name: the model's name in the zoo.
        categories: its class table; a category's position is the network's label.
        task: what results are: "panoptic" (every pixel in one segment), "instance" (objects, which may overlap) or
            "semantic" (one segment a class); "clip" models are for `inference.clip.segment_clip`.
        merge, rules: how the masks of a panoptic model share the pixels, see `knet.load` and `PanopticRules`.
        own_tracker: the tracker of a model with embeddings, see there; other models are tracked by overlap.
        preprocessing, settings: the published ones unless `load` was told otherwise.
        compatible: whether it computes what the original code computes, see `knet.load`.
        mark: called after each step of an image with its name, "prepare", "network", "merge" or "result"; does nothing
            but where time is measured.
    """

    def __init__(self, engine: Engine, card: Card, settings: Settings, compatible: bool = False):
        row, self.compatible = entry(card.model), compatible
        as_published = card.categories == load_categories(row.categories)  # else it was trained on other data
        self.engine, self.card, self.settings = engine, card, settings
        self.name, self.categories, self.preprocessing = card.model, card.categories, card.preprocessing
        self.task, self.merge, self.own_tracker = card.task, card.merge, row.tracker
        regions, stretches_padding = (row.regions, row.stretches_padding) if as_published else (0, False)
        if compatible:  # the original knows no regions, and cuts no padding off the masks
            regions, stretches_padding = 0, True
        self.rules = PanopticRules(card.merge, row.thing_candidates, regions, stretches_padding)
        self.mark: Callable[[str], object] = _unmarked
        self._things = torch.tensor([category.thing for category in self.categories])

    def __repr__(self) -> str:
        classes = counted(len(self.categories), "class")
        return f"Segmenter({self.name!r}, {self.task}, {classes}, {self.device}, {self.precision})"

    @property
    def net(self) -> Network | None:
        """The network as a torch module, in evaluation mode; None for an exported model."""
        return self.engine.net

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.engine.device

    @property
    def precision(self) -> str:
        """What the network computes in."""
        return self.engine.precision

    @property
    def size(self) -> Size:
        """What the network sees, unless a call says otherwise."""
        return self.settings.size

    @property
    def score(self) -> float:
        """The threshold of certainty, unless a call says otherwise."""
        return self.settings.score

    @property
    def overlap(self) -> float:
        """The threshold of the share of its pixels that a mask must win, unless a call says otherwise."""
        return self.settings.overlap

    @overload
    def __call__(self, source: Sources, **options: Unpack[Options]) -> list[Segmentation]: ...
    @overload
    def __call__(self, source: Source, **options: Unpack[Options]) -> Segmentation: ...
    def __call__(self, source: Source | Sources, **options: Unpack[Options]) -> Segmentation | list[Segmentation]:
        """Segments an image, or each of a list of images.

        Args:
            source: a path, the address of an image (https://...), the bytes of an image file, a PIL image, a (H,W,3)
                uint8 RGB array, a (3,H,W) tensor (uint8, or float 0..1), or a list of these.
            options: size, score, overlap, only, region, and of semantic models scales, flip, window, stride; see
                `Options`.

        Returns:
            A `Segmentation`, or a list of them for a list. It keeps the image, to be drawn upon.

        Raises:
            DataError: the image is missing, damaged or of a kind that cannot be read.
            ConfigError: an option is out of range, or not for models of this task.
            PredictionError: the network's output is not finite, or there is too little memory.
        """
        if isinstance(source, list | tuple):
            images: list[Source] = list(source)
            return [self._of_one(image, **options) for image in images]
        return self._of_one(source, **options)

    def _of_one(self, source: Source, **options: Unpack[Options]) -> Segmentation:
        file: Source = local_file(source)
        name = Path(file).stem if isinstance(file, str | PathLike) else None
        image = load_image(file)
        return replace(self.segment(image, name, **options), image=image)

    def stream(self, source: Any, **options: Unpack[Options]) -> Iterator[tuple[np.ndarray, Segmentation]]:
        """Image and result, one after the other, of a folder, a glob, a video file or a list (see `open_source`).

        Memory is constant, and the next images are read while the network looks at one. Options are as for one image.
        """
        with closing(read_ahead(lambda _: open_source(source))) as items:
            for item in items:
                yield item.image, self.segment(item.image, item.name, **options)

    @named_options
    @torch.inference_mode()
    def segment(self, image: np.ndarray, name: str | None = None, **options: Unpack[Options]) -> Segmentation:
        """One image as (H,W,3) uint8 RGB -> its `Segmentation`, under the given name."""
        if name is None:
            return replace(self.segment(image, "image", **options), numbers={})
        settings = self._settings(options)
        part = cropped(image, settings.region)
        with _told_of(image, name):
            if self.task == "semantic":
                segments = semantic_segments(self.views(part, settings, name), settings.score)
            else:
                segments = self._objects(self._look(part, name, settings), settings)
            return self._chosen(self._result(segments, name), image, settings)

    def track(
        self,
        source: Any,
        *,
        tracker: Tracker | TrackerSettings | None = None,
        classes: Sequence[str] | None = None,
        on_error: Callable[[KNetError], None] | None = None,
        every: int = 1,
        start: float | None = None,
        end: float | None = None,
        **options: Unpack[Options],
    ) -> Iterator[tuple[np.ndarray, Segmentation]]:
        """Frame and result, one after the other, of a video; an object keeps its `Segment.track` over the frames.

        A model that was made for video finds objects again by what it learned. Any other does so by overlap with where
        they are expected, which is the weaker way. Memory does not grow with the number of frames. Frames that a folder
        lacks are told by a warning of the logger `knet`.

        Args:
            source: a video file, a folder of frames, a pattern, a webcam's number, an address such as rtsp://..., or a
                list of these; with each video or folder, identities start again. Or any iterable of frames, or of pairs
                of a frame and its time in seconds, such as a generator. See `inference.sources.streams.open_stream`.
            tracker: "embeddings" or "overlap", or settings: `knet.track.EmbeddingSettings(memory=30)`,
                `knet.track.OverlapSettings(...)`. The default is the model's own tracker.
            classes: names of the things to follow, such as ["car", "person"]; others stay in the results without a
                track. The default is all things.
            on_error: called with the error of a source that breaks off or cannot be read, after the frames before it,
                and of a frame of which the network says nothing that can be used; tracks go on with the next. Without
                it the error is raised.
            every, start, end: takes every so many frames, from and up to a time in seconds, see
                `inference.sources.span.Span`.
            options: as for a single image.

        Raises:
            DataError: a source that does not exist, cannot be read or breaks off.
            ConfigError: an option is out of range, the model has no such tracker or class, or it tells classes only,
                not objects.
            PredictionError: as for a single image.
        """
        require(Callable | None, "a function", on_error=on_error)  # type: ignore[arg-type]
        follow, span = self.tracker(tracker=tracker, classes=classes, **options), Span(every, start, end)

        def frames_of(here: Here) -> Generator[Frame, None, None]:
            return open_stream(source, here(on_error), span=span)

        # What the caller makes is made in the caller's thread, and not before it is asked for.
        given = comes_from_caller(source)
        with closing(frames_of(lambda callback: callback) if given else read_ahead(frames_of)) as frames:
            for frame in frames:
                if frame.first:
                    follow.reset()
                try:
                    result = follow.next(frame.item.image, frame.time, frame.item.name)
                except PredictionError as error:
                    if on_error is None:
                        raise
                    on_error(error)
                    continue
                yield frame.item.image, result

    def tracker(
        self,
        *,
        tracker: Tracker | TrackerSettings | None = None,
        classes: Sequence[str] | None = None,
        **options: Unpack[Options],
    ) -> FrameTracker:
        """What follows objects through a video, one frame a call: `follow = segmenter.tracker()`, `follow(frame)`.

        For loops of your own, around OpenCV's VideoCapture or in a node of ROS. Arguments are as for `track`.

        Raises:
            ConfigError: as `track` does, before the first frame.
        """
        self._tracking(tracker, classes, options)
        return FrameTracker(partial(self.segment_next, tracker=tracker, classes=classes, **options))

    @named_options
    @torch.inference_mode()
    def segment_next(
        self,
        image: np.ndarray,
        state: VideoState,
        number: int,
        name: str = "image",
        *,
        tracker: Tracker | TrackerSettings | None = None,
        classes: Sequence[str] | None = None,
        linked: bool = True,
        **options: Unpack[Options],
    ) -> tuple[Segmentation, VideoState]:
        """One frame of a video, with tracks, and what the next frame needs of it. See `track`.

        Args:
            state: what the frame before gave, `VideoState()` for the first.
            number: of the frame in its video.
            linked: False uses a model that was trained on video as if it were an image model: the network sees nothing
                of the frame before, and objects are tracked by overlap, without embeddings.
        """
        settings, tracking = self._tracking(tracker, classes, options, linked)
        part = cropped(image, settings.region)
        with _told_of(image, name):
            prediction = self._look(part, name, settings, state.kernels if linked else None)
            segments = self._objects(prediction, settings)
            result = self._result(segments, name)
            result, state = identify(self.engine, prediction, result, segments.kernel_of, state, number, tracking)
        if self.compatible and self.engine.embeds and self.own_tracker == "embeddings":  # Video K-Net
            result = void_as_lowest(result)
        return self._chosen(result, image, settings), state

    def _tracking(
        self,
        tracker: Tracker | TrackerSettings | None,
        classes: Sequence[str] | None,
        options: Options,
        linked: bool = True,
    ) -> tuple[Settings, Tracking]:
        """The settings of a call for a frame. ConfigError for what this model cannot do."""
        settings = self._settings(options)
        if self.task == "semantic":
            raise ConfigError(f"'{self.name}' tells classes, not objects, so there is nothing to track; take another.")
        own = choose_tracker(tracker, self.own_tracker, self.engine.embeds and linked, self.name)
        return settings, Tracking(own, tracked_ids(classes, self.categories), self.compatible, linked)

    def prepare(self, image: np.ndarray, size: Size, scale: float = 1.0) -> tuple[Tensor, ImageSizes]:
        """(H,W,3) uint8 -> (1,3,h,w) normalised and padded, and its sizes. See `knet.preprocess.prepare`.

        By default an exported file of a fixed size sees images as large as they fit into it.
        """
        if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
            raise DataError(
                f"An image here is an array of (height, width, 3) numbers of uint8, RGB, and not {shown(image)}; call "
                "the model itself, which reads images of other kinds."
            )
        if size == "model" and self.card.graph is not None and self.card.graph.size is not None:
            size = fitting_size((image.shape[0], image.shape[1]), self.card.graph.size, self.preprocessing)
        rounded = not (self.compatible and self.task == "clip")  # clips are resized as floats by the original
        return prepare(image, size, self.preprocessing, self.device, scale, self.compatible, rounded)

    def _settings(self, options: Options) -> Settings:
        """The settings of a call for a single image."""
        settings = self.settings.changed(self.task, options)
        class_ids(settings.only, self.categories)
        if self.task == "clip":
            raise ConfigError(
                f"The model '{self.name}' looks at all frames of a clip at once, not at single images; give it to "
                "`knet predict`, call knet.inference.clip.segment_clip from Python, or choose a model of another task."
            )
        return settings

    def _look(self, image: np.ndarray, name: str, settings: Settings, previous: Tensor | None = None) -> Prediction:
        """What the network says of an image, after the frame before."""
        inputs, sizes = self.prepare(image, settings.size)
        self.mark("prepare")
        outputs = self.engine(inputs, previous, sizes.resized)
        require_finite(name, self.engine, outputs)
        self.mark("network")
        return Prediction(outputs, sizes)

    def views(self, image: np.ndarray, settings: Settings, name: str = "image") -> list[ViewLogits]:
        """What a semantic network says of all views of an image."""
        original = (image.shape[0], image.shape[1])
        step = settings.step(network_size(original, settings.size, self.preprocessing, compatible=self.compatible))
        views = []
        for scale in settings.scales:
            inputs, sizes = self.prepare(image, settings.size, scale)
            self.mark("prepare")
            inputs = unpadded(inputs, sizes)  # padding would be looked at as if it were scenery
            views += look(
                lambda part: self.engine(part)[-1].mask_logits, inputs, original, settings.flip, settings.window, step
            )
            require_finite_numbers(name, self.engine, *(view.logits for view in views[-1 - settings.flip :]))
            self.mark("network")
        return views

    def _objects(self, prediction: Prediction, settings: Settings) -> Segments:
        """The segments of a model that tells objects apart."""
        if self.task == "instance":
            return instance_segments(prediction, settings.score, empty=self.compatible)
        return panoptic_segments(self.engine, prediction, self._things, self.rules, settings)

    def _chosen(self, result: Segmentation, image: np.ndarray, settings: Settings) -> Segmentation:
        """What of a result was asked for, at its place in the image."""
        if settings.region is not None:
            result = placed(result, settings.region, image.shape[:2])
        return result if settings.only is None else only(result, class_ids(settings.only, self.categories))

    def _result(self, segments: Segments, name: str) -> Segmentation:
        self.mark("merge")
        result = segments.segmentation(self.categories, name)
        self.mark("result")
        return result


@contextmanager
def _told_of(image: np.ndarray, name: str) -> Iterator[None]:
    """Has what torch says of an image that is too large or too small raised as one sentence."""
    what = f"the image '{name}' of {'x'.join(map(str, image.shape[:2]))} pixels"
    try:
        with enough_memory(what, "take a smaller size (--size)"):
            yield
    except ValueError as error:  # group norms refuse to divide by the deviation of a single number
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(f"The network sees too little of {what}; take a larger size (--size).") from error


def _unmarked(step: str) -> None:
    """Does nothing. It has a name so that a segmenter can be pickled."""
