"""A network together with everything that is needed to use it: image in, `Segmentation` out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from knet.data.categories import load_categories
from knet.data.files.masks import mask_area, mask_box, pack_mask
from knet.errors import ConfigError, DataError
from knet.inference.engines.engine import Engine
from knet.inference.engines.exported import GraphEngine, MergedOutput
from knet.inference.identities import ENLARGED, VideoState, View, choose_tracker, identify, tracked_ids, void_as_lowest
from knet.inference.pipeline import read_ahead
from knet.inference.results.pixels import extents
from knet.inference.results.segmentation import Segmentation
from knet.inference.settings import Options, Settings
from knet.inference.sources.images import load_image
from knet.inference.sources.paths import open_source
from knet.inference.sources.streams import open_stream
from knet.merge.panoptic import MergedMasks, best_class, merge_panoptic, number_masks
from knet.merge.pixels.backend import backend
from knet.merge.regions import as_regions
from knet.merge.semantic import best_classes, class_segments, look
from knet.merge.sorted import enlarge, instances, merge_sorted, panoptic_classes, to_image
from knet.models.zoo import Tracker, entry
from knet.preprocess import Size, normalize_and_pad, resize_as_opencv, seen_size, uploaded
from knet.structures import Output, Segment
from knet.track.settings import TrackerSettings
from knet.weights.card import Card

Rows = list[tuple[int, int, float]]  # id, label and score of each segment, numbered from 1


class Segmenter:
    """Segments images, one at a time: `segmenter("street.jpg")`. Made by `knet.load`.

    Attributes:
        engine: what runs the network: torch, or an exported model.
        card: what travels with its weights, of which most of the following are.
        name: the model's name in the zoo.
        categories: its class table; a category's position is the network's label.
        task: what results are: "panoptic" (every pixel in one segment), "instance" (objects, which may overlap) or
            "semantic" (one segment a class); "clip" models are for `inference.clip.segment_clip`.
        merge, pairs, regions: how the masks of a panoptic model share the pixels, see `knet.load` and
            `models.zoo.ZooEntry`.
        tracker: the tracker of a model with embeddings, see there; other models are tracked by overlap.
        preprocessing, settings: the published ones unless `load` was told otherwise.
        mark: called after each step of an image with its name, "prepare", "network", "merge" or "result"; does nothing
            but where time is measured.
    """

    def __init__(self, engine: Engine, card: Card, settings: Settings):
        row = entry(card.model)
        as_published = card.categories == load_categories(row.categories)  # else it was trained on other data
        self.engine, self.card, self.settings = engine, card, settings
        self.name, self.categories, self.preprocessing = card.model, card.categories, card.preprocessing
        self.task, self.merge, self.pairs, self.tracker = card.task, card.merge, row.pairs, row.tracker
        self.regions = row.regions if as_published else 0
        self.stretches_padding = row.stretches_padding and as_published
        self.mark: Callable[[str], object] = lambda step: None
        self._things = torch.tensor([category.thing for category in self.categories])

    @property
    def net(self) -> nn.Module | None:
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

    def __call__(self, source: Any, **options: Unpack[Options]) -> Any:
        """Segments an image, or each of a list of images.

        Args:
            source: a path, the bytes of an image file, a PIL image, a (H,W,3) uint8 RGB array, a (3,H,W) tensor (uint8,
                or float 0..1), or a list of these.
            options: size, score, overlap, and of semantic models scales, flip, window, stride: see `Options`.

        Returns:
            A `Segmentation`, or a list of them for a list. It keeps the image, to be drawn upon.

        Raises:
            DataError: the image is missing, damaged or of a kind that cannot be read.
            ConfigError: an option is out of range, or not for models of this task.
        """
        if isinstance(source, list | tuple):
            return [self(item, **options) for item in source]
        name = Path(source).stem if isinstance(source, str | Path) else "image"
        image = load_image(source)
        return replace(self.segment(image, name, **options), image=image)

    def stream(self, source: Any, **options: Unpack[Options]) -> Iterator[tuple[np.ndarray, Segmentation]]:
        """Image and result, one after the other, of a folder, a glob, a video file or a list; constant memory.

        The next images are read while the network looks at one.

        Args:
            source: see `inference.sources.paths.open_source`.
            options: as for a single image.
        """
        with closing(read_ahead(lambda _: open_source(source))) as items:
            for item in items:
                yield item.image, self.segment(item.image, item.name, **options)

    @torch.inference_mode()
    def segment(self, image: np.ndarray, name: str = "image", **options: Unpack[Options]) -> Segmentation:
        """One image as (H,W,3) uint8 RGB -> its `Segmentation`, under the given name."""
        settings = self.settings.changed(self.task, options)
        if self.task == "clip":
            raise for_clips(self.name)
        if self.task == "semantic":
            id_map, rows = self._classes(image, settings)
            result = self._segmentation(id_map.cpu().numpy(), rows, name)
            self.mark("result")
            return result
        outputs, view = self._look(image, settings)
        return self._result(outputs[-1], view, settings, name)[0]

    def track(
        self,
        source: Any,
        *,
        tracker: Tracker | TrackerSettings | None = None,
        classes: Sequence[str] | None = None,
        compatible: bool = False,
        on_error: Callable[[DataError], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[tuple[np.ndarray, Segmentation]]:
        """Frame and result, one after the other, of a video; an object keeps its `Segment.track` over the frames.

        A model that was made for video finds objects again by what it learned. Any other does so by overlap with where
        they are expected, which is the weaker way. Memory does not grow with the number of frames.

        Args:
            source: a video file, a folder of frames, a pattern, a webcam's number, an rtsp:// address, or a list of
                these; with each video or folder, identities start again. See `inference.sources.streams.open_stream`.
            tracker: "embeddings" or "overlap", or settings: `knet.track.EmbeddingSettings(memory=30)`,
                `knet.track.OverlapSettings(...)`. The default is the model's own tracker.
            classes: names of the things to follow, such as ["car", "person"]; others stay in the results without a
                track. The default is all things.
            compatible: of Video K-Net, what its published figures contain: identities given to the wrong objects where
                a duplicate was dropped, void pixels called road, and boxes cut by a stretched semantic map.
            on_error: called with the error of a source that breaks off or cannot be read, after the frames before it.
                Without it the error is raised.
            on_note: called with a sentence about frames that a folder lacks. Default: a Python warning.
            options: as for a single image.

        Raises:
            DataError: a source that does not exist, cannot be read or breaks off.
            ConfigError: an option is out of range, the model has no such tracker or class, or it tells classes only,
                not objects.
        """
        state = VideoState()
        with closing(read_ahead(lambda here: open_stream(source, here(on_error), here(on_note)))) as frames:
            for frame in frames:
                state = VideoState() if frame.first else state
                item = frame.item
                result, state = self.segment_next(
                    item.image,
                    state,
                    frame.time,
                    item.name,
                    tracker=tracker,
                    classes=classes,
                    compatible=compatible,
                    **options,
                )
                yield item.image, result

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
        compatible: bool = False,
        linked: bool = True,
        **options: Unpack[Options],
    ) -> tuple[Segmentation, VideoState]:
        """One frame of a video, with tracks, and what the next frame needs of it. See `track`.

        Args:
            state: what the frame before gave, `VideoState()` for the first. number: of the frame in its video.
            linked: False uses a model that was trained on video as if it were an image model: the network sees nothing
                of the frame before, and objects are tracked by overlap, without embeddings. It shows what those are
                worth; the tracker "overlap" keeps both.
        """
        settings = self.settings.changed(self.task, options)
        if self.task == "clip":
            raise for_clips(self.name)
        if self.task == "semantic":
            raise ConfigError(f"'{self.name}' tells classes, not objects, so there is nothing to track; take another.")
        chosen = choose_tracker(tracker, self.tracker, self.engine.embeds and linked, self.name)
        followed = tracked_ids(classes, self.categories)
        outputs, view = self._look(image, settings, state.kernels if linked else None)
        result, kernel_of = self._result(outputs[-1], view, settings, name)
        result, state = identify(
            self.engine, outputs, result, kernel_of, view, state, number, chosen, followed, compatible, linked
        )
        return void_as_lowest(result) if compatible else result, state

    def _look(self, image: np.ndarray, settings: Settings, previous: Tensor | None = None) -> tuple[list[Output], View]:
        """What the network says of an image, after the frame before, and the sizes it says it in."""
        inputs, seen = self.prepare(image, settings.size)
        self.mark("prepare")
        padded = (inputs.shape[2], inputs.shape[3])
        outputs: list[Output]
        if isinstance(self.engine, GraphEngine) and self.engine.merges:
            outputs = [*self.engine.merged(inputs, seen, previous)]
        else:
            outputs = self.engine(inputs, previous)
        self.mark("network")
        return outputs, View(padded, seen, (image.shape[0], image.shape[1]))

    def _result(self, output: Output, view: View, settings: Settings, name: str) -> tuple[Segmentation, dict[int, int]]:
        """The result, and the kernel that each of its things comes from, by segment id."""
        merging = self._objects if self.task == "instance" else self._parts
        result = merging(output, view, settings, name)
        self.mark("result")
        return result

    def _parts(self, output: Output, view: View, settings: Settings, name: str) -> tuple[Segmentation, dict[int, int]]:
        """Things and stuff: every pixel to one mask."""
        if isinstance(output, MergedOutput):
            return self._numbered(output.masks(settings.score, settings.overlap), view, name)
        mask_logits, class_logits = output.mask_logits[0], output.class_logits[0]  # type: ignore[index]
        stuff = list(self.engine.stuff)  # labels that have kernels of their own
        if stuff:
            scores, labels = panoptic_classes(class_logits, stuff, self.pairs)
        else:
            scores, labels = best_class(class_logits)
        if self.merge == "sorted":
            probabilities = enlarge(mask_logits, ENLARGED if self.engine.embeds else 2)
            to_pixels = to_image(probabilities, view.padded, view.seen, view.size)
            thresholds = settings.score, settings.overlap
            merged = merge_sorted(probabilities, scores, labels, self._things, *thresholds, to_pixels)
        else:
            padded = None if self.stretches_padding else view.padded
            merged = merge_panoptic(mask_logits, scores, labels, view.seen, settings.score, settings.overlap, padded)
        return self._numbered(merged, view, name)

    def _numbered(self, merged: MergedMasks, view: View, name: str) -> tuple[Segmentation, dict[int, int]]:
        """A result from the owners of its pixels."""
        if self.regions:
            merged = as_regions(merged, self._things, self.regions)
        numbers, rows = number_masks(merged, self._things)
        # Algorithm 1 merges at the size the network saw; the nearest pixel takes it to the image's own.
        device = merged.owner.device
        id_map = nearest(backend(device).relabel(merged.owner, numbers.to(device)), view.size)
        kernel_of = dict(zip(numbers[:-1].tolist(), merged.kernels.tolist(), strict=True))
        return self._segmentation(id_map.cpu().numpy(), rows, name), kernel_of

    def _objects(
        self, output: Output, view: View, settings: Settings, name: str
    ) -> tuple[Segmentation, dict[int, int]]:
        """Objects with a mask each; those without a pixel are left out."""
        mask_logits, class_logits = output.mask_logits[0], output.class_logits[0]  # type: ignore[index]
        found = instances(mask_logits, class_logits, view.padded, view.seen, view.size, pack_mask, settings.score)
        self.mark("merge")
        segments, masks, kernel_of = list[Segment](), {}, {}
        number_of = np.zeros(len(found.masks) + 1, np.int32)
        rows = zip(found.masks, found.labels.tolist(), found.scores.tolist(), found.kernels.tolist(), strict=True)
        for place, (rle, label, score, kernel) in enumerate(rows, start=1):
            if rle is None:
                continue
            number_of[place] = number = len(segments) + 1
            masks[number], kernel_of[number] = rle, kernel
            left, top, width, height = map(int, mask_box(rle))
            box = (left, top, left + width, top + height)
            segments.append(self._segment(number, label, score, mask_area(rle), box))
        return Segmentation(number_of[found.best], segments, self.categories, name, masks=masks), kernel_of

    def _classes(self, image: np.ndarray, settings: Settings) -> tuple[Tensor, Rows]:
        """A segment a class, from all looks at the image. -> (H,W) int32, rows"""
        size = (image.shape[0], image.shape[1])
        step = settings.step(seen_size(size, settings.size, self.preprocessing))
        views = []
        for scale in settings.scales:
            inputs, seen = self.prepare(image, settings.size, scale)
            self.mark("prepare")
            inputs = inputs[:, :, : seen[0], : seen[1]]  # padding would be looked at as if it were scenery
            masks = look(
                lambda part: self.engine(part)[-1].mask_logits, inputs, size, settings.flip, settings.window, step
            )
            self.mark("network")
            views += masks
        id_map, rows = class_segments(*best_classes(views))
        kept = [row for row in rows if row[2] >= settings.score]
        number_of = torch.zeros(len(rows) + 1, dtype=torch.int32, device=id_map.device)
        number_of[[row[0] for row in kept]] = torch.arange(1, len(kept) + 1, dtype=torch.int32, device=id_map.device)
        return number_of[id_map], [(number, *row[1:]) for number, row in enumerate(kept, start=1)]

    def prepare(self, image: np.ndarray, size: Size, scale: float = 1.0) -> tuple[Tensor, tuple[int, int]]:
        """(H,W,3) uint8 -> (1,3,h,w) normalised and padded, and the size before padding."""
        p = self.preprocessing
        x = uploaded(image, self.device).permute(2, 0, 1)
        seen = seen_size((image.shape[0], image.shape[1]), size, p, scale)
        if seen != image.shape[:2]:
            bilinear = TF.InterpolationMode.BILINEAR
            x = TF.resize(x, list(seen), bilinear, antialias=True) if p.antialias else resize_as_opencv(x, seen)
        return normalize_and_pad([x], p, memory_format=torch.channels_last), seen

    def _segmentation(self, id_map: np.ndarray, rows: Rows, name: str) -> Segmentation:
        self.mark("merge")
        areas, boxes = (found.tolist() for found in extents(id_map, len(rows)))
        segments = [
            self._segment(number, label, score, areas[number], tuple(boxes[number]))
            for number, label, score in rows
            if areas[number]  # else it was lost when the map was shrunk to the image's size
        ]
        return Segmentation(id_map, segments, self.categories, name)

    def _segment(self, number: int, label: int, score: float, area: int, box: tuple[int, int, int, int]) -> Segment:
        category = self.categories[label]
        return Segment(number, category.id, category.name, category.thing, score, area, box)


def for_clips(model: str) -> ConfigError:
    """The error where single images are given to a model for clips."""
    return ConfigError(
        f"The model '{model}' looks at all frames of a clip at once, not at single images; give it to "
        "`knet predict`, call knet.inference.clip.segment_clip from Python, or choose a model of another task."
    )


def nearest(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of whole numbers resized without mixing them. (H,W) integer -> (h,w), the same dtype"""
    if tuple(id_map.shape) == size:
        return id_map
    # float64 holds every int32 id exactly.
    return F.interpolate(id_map[None, None].double(), size, mode="nearest")[0, 0].to(id_map.dtype)
