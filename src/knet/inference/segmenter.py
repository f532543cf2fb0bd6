"""A network together with everything that is needed to use it: image in, `Segmentation` out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from knet.data.coco_masks import mask_area, mask_box, pack_mask
from knet.data.resize_opencv import resize_as_opencv
from knet.errors import ConfigError, DataError
from knet.inference.segmentation import Segmentation
from knet.inference.settings import Options, Settings, Size, seen_size
from knet.inference.sources import load_image, open_source
from knet.inference.streams import open_stream
from knet.inference.tracking import ENLARGED, VideoState, View, embeds, identify, void_as_lowest
from knet.merge.image import instances, merge_sorted, panoptic_classes, resized_parts
from knet.merge.plain import best_class, merge_panoptic, number_masks
from knet.merge.semantic import best_classes, class_segments, look
from knet.models.zoo import Merge, Task
from knet.structures import Category, Output, Preprocessing, Segment

Rows = list[tuple[int, int, float]]  # id, label and score of each segment, numbered from 1
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Segmenter:
    """Segments images, one at a time: `segmenter("street.jpg")`. Made by `knet.load`.

    Attributes:
        net: the network, in evaluation mode.
        name: the model's name in the zoo.
        categories: its class table; a category's position is the network's label.
        task: what results are: "panoptic" (every pixel in one segment), "instance" (objects, which may overlap) or
            "semantic" (one segment a class); "clip" models are for `inference.clip.segment_clip`.
        merge, pairs: how the masks of a panoptic model share the pixels, see `knet.load` and `models.zoo.ZooEntry`.
        preprocessing, settings: the published ones unless `load` was told otherwise.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        categories: Sequence[Category],
        preprocessing: Preprocessing,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        task: Task = "panoptic",
        merge: Merge = "optimised",
        settings: Settings = Settings(),  # noqa: B008  # it cannot be changed
        pairs: int | None = None,
    ):
        self.device = torch.device(device)
        # Channels last is the faster layout for convolutions on a CPU and for half precision on a GPU.
        self.net = net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.name, self.categories, self.preprocessing = name, tuple(categories), preprocessing
        self.precision, self.task, self.merge, self.settings, self.pairs = precision, task, merge, settings, pairs
        self._things = torch.tensor([category.thing for category in categories])

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

        Args:
            source: see `inference.sources.open_source`.
            options: as for a single image.
        """
        for item in open_source(source):
            yield item.image, self.segment(item.image, item.name, **options)

    @torch.inference_mode()
    def segment(self, image: np.ndarray, name: str = "image", **options: Unpack[Options]) -> Segmentation:
        """One image as (H,W,3) uint8 RGB -> its `Segmentation`, under the given name."""
        settings = self.settings.changed(self.task, options)
        if self.task == "clip":
            raise for_clips(self.name)
        if self.task == "semantic":
            id_map, rows = self._classes(image, settings)
            return self._segmentation(id_map.cpu().numpy(), rows, name)
        outputs, view = self._look(image, settings)
        return self._result(outputs[-1], view, settings, name)[0]

    def track(
        self,
        source: Any,
        *,
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
                these; with each video or folder, identities start again. See `inference.streams.open_stream`.
            compatible: of Video K-Net, what its published figures contain: identities given to the wrong objects where
                a duplicate was dropped, void pixels called road, and boxes cut by a stretched semantic map.
            on_error: called with the error of a source that breaks off or cannot be read, after the frames before it.
                Without it the error is raised.
            on_note: called with a sentence about frames that a folder lacks. Default: a Python warning.
            options: as for a single image.

        Raises:
            DataError: a source that does not exist, cannot be read or breaks off.
            ConfigError: an option is out of range, or the model tells classes only, not objects.
        """
        state = VideoState()
        for frame in open_stream(source, on_error, on_note):
            state = VideoState() if frame.first else state
            item = frame.item
            result, state = self.segment_next(
                item.image, state, frame.time, item.name, compatible=compatible, **options
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
        compatible: bool = False,
        linked: bool = True,
        **options: Unpack[Options],
    ) -> tuple[Segmentation, VideoState]:
        """One frame of a video, with tracks, and what the next frame needs of it. See `track`.

        Args:
            state: what the frame before gave, `VideoState()` for the first. number: of the frame in its video.
            linked: False takes a model that was made for video as if it were none: the network sees nothing of the
                frame before, and objects are found again by overlap. To learn what its link and embeddings are worth.
        """
        settings = self.settings.changed(self.task, options)
        if self.task == "clip":
            raise for_clips(self.name)
        if self.task == "semantic":
            raise ConfigError(f"'{self.name}' tells classes, not objects, so there is nothing to track; take another.")
        outputs, view = self._look(image, settings, state.kernels if linked else None)
        result, kernel_of = self._result(outputs[-1], view, settings, name)
        result, state = identify(self.net, outputs, result, kernel_of, view, state, number, compatible, linked)
        return void_as_lowest(result) if compatible else result, state

    def _look(self, image: np.ndarray, settings: Settings, previous: Tensor | None = None) -> tuple[list[Output], View]:
        """What the network says of an image, after the frame before, and the sizes it says it in."""
        inputs, seen = self.prepare(image, settings.size)
        padded = (inputs.shape[2], inputs.shape[3])
        return self._outputs(inputs, previous), View(padded, seen, (image.shape[0], image.shape[1]))

    def _result(self, output: Output, view: View, settings: Settings, name: str) -> tuple[Segmentation, dict[int, int]]:
        """The result, and the kernel that each of its things comes from, by segment id."""
        merging = self._objects if self.task == "instance" else self._parts
        return merging(output, view, settings, name)

    def _parts(self, output: Output, view: View, settings: Settings, name: str) -> tuple[Segmentation, dict[int, int]]:
        """Things and stuff: every pixel to one mask."""
        mask_logits, class_logits = output.mask_logits[0], output.class_logits[0]  # type: ignore[index]
        stuff = getattr(self.net, "stuff", None)  # labels that have kernels of their own
        if stuff:
            scores, labels = panoptic_classes(class_logits, stuff, self.pairs)
        else:
            scores, labels = best_class(class_logits)
        if self.merge == "sorted":
            enlarged = ENLARGED if embeds(self.net) else 2
            probabilities = resized_parts(mask_logits, view.padded, view.seen, view.size, enlarged)
            merged = merge_sorted(probabilities, scores, labels, self._things, settings.score, settings.overlap)
        else:
            merged = merge_panoptic(mask_logits, scores, labels, view.seen, settings.score, settings.overlap)
        numbers, rows = number_masks(merged, self._things)
        # Algorithm 1 merges at the size the network saw; the nearest pixel takes it to the image's own.
        id_map = nearest(numbers.to(merged.owner.device)[merged.owner], view.size)
        kernel_of = dict(zip(numbers[:-1].tolist(), merged.kernels.tolist(), strict=True))
        return self._segmentation(id_map.cpu().numpy(), rows, name), kernel_of

    def _objects(
        self, output: Output, view: View, settings: Settings, name: str
    ) -> tuple[Segmentation, dict[int, int]]:
        """Objects with a mask each; those without a pixel are left out."""
        mask_logits, class_logits = output.mask_logits[0], output.class_logits[0]  # type: ignore[index]
        found = instances(mask_logits, class_logits, view.padded, view.seen, view.size, settings.score)
        id_map = np.zeros(view.size, np.int32)
        segments, masks, kernel_of = list[Segment](), {}, {}
        rows = zip(found.masks, found.labels.tolist(), found.scores.tolist(), found.kernels.tolist(), strict=True)
        for on_device, label, score, kernel in rows:
            mask = on_device.cpu().numpy()
            if not mask.any():
                continue
            number, rle = len(segments) + 1, pack_mask(mask)
            masks[number], kernel_of[number] = rle, kernel
            id_map[mask & (id_map == 0)] = number  # the best comes first and keeps its pixels
            left, top, width, height = map(int, mask_box(rle))
            box = (left, top, left + width, top + height)
            segments.append(self._segment(number, label, score, mask_area(rle), box))
        return Segmentation(id_map, segments, self.categories, name, masks=masks), kernel_of

    def _classes(self, image: np.ndarray, settings: Settings) -> tuple[Tensor, Rows]:
        """A segment a class, from all looks at the image. -> (H,W) int32, rows"""
        size = (image.shape[0], image.shape[1])
        step = settings.step(seen_size(size, settings.size, self.preprocessing))
        views = []
        for scale in settings.scales:
            inputs, seen = self.prepare(image, settings.size, scale)
            inputs = inputs[:, :, : seen[0], : seen[1]]  # padding would be looked at as if it were scenery
            masks = look(
                lambda part: self._outputs(part)[-1].mask_logits, inputs, size, settings.flip, settings.window, step
            )
            views += masks
        id_map, rows = class_segments(*best_classes(views))
        kept = [row for row in rows if row[2] >= settings.score]
        number_of = torch.zeros(len(rows) + 1, dtype=torch.int32, device=id_map.device)
        number_of[[row[0] for row in kept]] = torch.arange(1, len(kept) + 1, dtype=torch.int32, device=id_map.device)
        return number_of[id_map], [(number, *row[1:]) for number, row in enumerate(kept, start=1)]

    def _outputs(self, inputs: Tensor, previous: Tensor | None = None) -> list[Output]:
        """What the network says after each stage; `previous` are the kernels of the frame before."""
        with self.autocast():
            return self.net(inputs) if previous is None else self.net(inputs, previous)

    def autocast(self) -> torch.autocast:
        """The context in which the network computes with its precision."""
        return torch.autocast(self.device.type, _PRECISIONS[self.precision], enabled=self.precision != "fp32")

    def prepare(self, image: np.ndarray, size: Size, scale: float = 1.0) -> tuple[Tensor, tuple[int, int]]:
        """(H,W,3) uint8 -> (1,3,h,w) normalised and padded, and the size before padding."""
        p = self.preprocessing
        x = torch.tensor(image, device=self.device).permute(2, 0, 1)  # a copy: arrays of others may be read-only
        seen = seen_size((image.shape[0], image.shape[1]), size, p, scale)
        if seen != image.shape[:2]:
            bilinear = TF.InterpolationMode.BILINEAR
            x = TF.resize(x, list(seen), bilinear, antialias=True) if p.antialias else resize_as_opencv(x, seen)
        return normalize_and_pad([x], p).contiguous(memory_format=torch.channels_last), seen

    def _segmentation(self, id_map: np.ndarray, rows: Rows, name: str) -> Segmentation:
        areas = np.bincount(id_map.ravel(), minlength=len(rows) + 1)
        boxes = ndimage.find_objects(id_map, max_label=len(rows))
        segments = []
        for (number, label, score), place in zip(rows, boxes, strict=True):
            if place is None:  # lost when the map was shrunk to the image's size
                continue
            y, x = place
            box = (x.start, y.start, x.stop, y.stop)
            segments.append(self._segment(number, label, score, int(areas[number]), box))
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


def normalize_and_pad(
    images: Sequence[Tensor], preprocessing: Preprocessing, least: tuple[int, int] = (1, 1)
) -> Tensor:
    """A batch for a network. B tensors (3,H,W) uint8 or 0..255 -> (B,3,h,w) float32

    h and w are the largest of the batch and of `least`, rounded up to the divisor; zeros fill the right and the
    bottom, after the normalisation, so that padding is the mean colour.
    """
    mean = torch.tensor(preprocessing.mean, device=images[0].device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=images[0].device)[:, None, None]
    d = preprocessing.divisor
    sizes = [*((image.shape[1], image.shape[2]) for image in images), least]
    height, width = (-(-max(sides) // d) * d for sides in zip(*sizes, strict=True))
    batch = images[0].new_zeros(len(images), 3, height, width, dtype=torch.float32)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image.float() - mean) / std
    return batch


def nearest(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of whole numbers resized without mixing them. (H,W) integer -> (h,w), the same dtype"""
    if tuple(id_map.shape) == size:
        return id_map
    # float64 holds every int32 id exactly.
    return F.interpolate(id_map[None, None].double(), size, mode="nearest")[0, 0].to(id_map.dtype)
