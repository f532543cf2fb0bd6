"""Writes synthetic street clips with the files and folders of real video data sets."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm import tqdm

from knet.data.categories import load_table, rows_for_json
from knet.data.files.masks import Rle, pack_mask
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.data.readers.cityscapes_vps import write_vps_png
from knet.data.readers.kitti_step import VOID, write_step_png
from knet.data.readers.vipseg import write_vipseg_png
from knet.data.readers.youtube_vis import TrackToWrite, VideoToWrite, write_youtube_vis
from knet.data.synthetic.layouts import save, whole_folder
from knet.data.synthetic.moving import MovingFrame, draw_clip
from knet.errors import ConfigError, shown

_MOST_FRAMES = 1000
# What the kinds of a scene are called, where it is not as in the scene; None is void.
_VIPSEG_NAMES = {
    "sidewalk": "path",
    "fence": "handrail_or_fence",
    "traffic light": "traffic_light",
    "traffic sign": "billboard_or_Bulletin_Board",
    "vegetation": "tree",
    "terrain": "grass",
    "rider": "person",
    "static": "trash_can",
}
_YOUTUBE_NAMES = {"rider": "person", "car": "sedan", "motorcycle": "motorbike"}


@dataclass(frozen=True, slots=True)
class SyntheticClips:
    """What was written: clips in each split, frames in a clip, and how many tracks of each kind."""

    root: Path
    clips: dict[str, int]
    frames: int
    tracks: dict[str, int]


def synthesize_clips(
    layout: str,
    output: str | Path,
    clips: int,
    frames: int,
    size: tuple[int, int],
    seed: int = 0,
    *,
    draw: Callable[[int, int, int, list[int]], Iterable[MovingFrame]] = draw_clip,
) -> SyntheticClips:
    """Writes street clips with exact tracks in the layout of a video data set.

    The output appears when all of it is written; an interrupted run leaves nothing.

    Args:
        layout: "step", "vipseg", "youtube-vis" or "cityscapes-vps".
        output: folder to make.
        clips: of the training split; validation gets a quarter of that (at least one).
        frames: of each clip, at most 1000; all of them have a ground truth.
        size: (height, width) in pixels, each 32 or more.
        seed: the same one gives the same files.
        draw: draws what the clips show, called as `draw_clip` is.

    Raises:
        ConfigError: an unknown layout, or a number out of its range.
        DataError: the output exists.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"There is no layout {shown(layout)} of clips; choose from {', '.join(_LAYOUTS)}.")
    if clips < 1 or not 1 <= frames <= _MOST_FRAMES or seed < 0:
        raise ConfigError(
            f"{clips} clips of {frames} frames with seed {seed} cannot be made; give at least 1 clip, 1 to "
            f"{_MOST_FRAMES} frames, and a seed from 0 on."
        )
    kind = _LAYOUTS[layout]
    counts = {kind.splits[0]: clips, kind.splits[1]: max(clips // 4, 1)}
    seen: Counter[str] = Counter()
    with whole_folder(output) as partial:
        bar = tqdm(total=frames * sum(counts.values()), desc="clips", unit="frame", disable=None)
        for number, (split, count) in enumerate(counts.items()):
            writer = kind(partial, split)
            for clip in range(count):
                visible: dict[int, str] = {}
                for frame, scene in enumerate(draw(frames, *size, [seed, number, clip])):
                    writer.add(clip, frame, scene)
                    visible |= _visible_tracks(scene)
                    bar.update()
                seen.update(visible.values())
            writer.finish()
        bar.close()
    tracks = dict(sorted(seen.items(), key=lambda item: (-item[1], item[0])))
    return SyntheticClips(Path(output), counts, frames, tracks)


class _Layout(ABC):
    """Writes the clips of a split."""

    splits: tuple[str, str] = ("train", "val")
    table: str
    names: Mapping[str, str] = MappingProxyType({})

    def __init__(self, root: Path, split: str):
        self.root, self.split = root, split
        self.categories = load_table(self.table).categories
        self._labels = {category.name: label for label, category in enumerate(self.categories)}

    def maps(self, scene: MovingFrame) -> tuple[np.ndarray, np.ndarray]:
        """(H,W) labels of the table, -1 = void, and (H,W) object numbers, 0 = not told apart, of things."""
        kinds = [self._labels.get(self.names.get(thing.kind, thing.kind), -1) for thing in scene.objects]
        labels = np.array([-1, *kinds], np.int32)
        things = np.array([False, *(label >= 0 and self.categories[label].thing for label in kinds)])
        numbers = np.where(things, scene.tracks, 0)
        return labels[scene.numbers], numbers[scene.numbers]

    @abstractmethod
    def add(self, clip: int, frame: int, scene: MovingFrame) -> None:
        """Writes a frame; they come in order."""

    def finish(self) -> None:  # noqa: B027 - KITTI-STEP has frames only
        """Writes what belongs to the split as a whole."""


class _Step(_Layout):
    table = "kitti_step"

    def add(self, clip: int, frame: int, scene: MovingFrame) -> None:
        name = f"{clip:04d}/{frame:06d}.png"
        labels, numbers = self.maps(scene)
        values = np.array([*(category.id for category in self.categories), VOID])  # the last is void's, label -1
        save(scene.image, self.root / "images" / self.split / name)
        write_step_png(self.root / "panoptic_maps" / self.split / name, values[labels], numbers)


class _VipSeg(_Layout):
    table = "vipseg"
    names = _VIPSEG_NAMES

    def __init__(self, root: Path, split: str):
        super().__init__(root, split)
        self._videos: dict[str, None] = {}

    def add(self, clip: int, frame: int, scene: MovingFrame) -> None:
        video = f"{clip}_{self.split}"
        self._videos[video] = None
        save(scene.image, self.root / "imgs" / video / f"{frame:08d}.jpg")
        write_vipseg_png(self.root / "panomasks" / video / f"{frame:08d}.png", *self.maps(scene), self.categories)

    def finish(self) -> None:
        (self.root / f"{self.split}.txt").write_text("".join(f"{video}\n" for video in self._videos), "utf-8")


class _CityscapesVps(_Layout):
    """Every frame is a labelled one; their numbers are five apart, as those of the real ones."""

    table = "cityscapes_vps"

    def __init__(self, root: Path, split: str):
        super().__init__(root, split)
        panoptic = root / f"panoptic_gt_{split}_city_vps.json", root / split / "panoptic_video"
        self._open = ExitStack()
        self._writer = self._open.enter_context(PanopticWriter(*panoptic))

    def add(self, clip: int, frame: int, scene: MovingFrame) -> None:
        stem = f"{clip:04d}_{frame:04d}_knetburg_{clip:06d}_{5 * frame:06d}"
        labels, numbers = self.maps(scene)
        save(scene.image, self.root / self.split / "img" / f"{stem}_newImg8bit.png")
        write_vps_png(
            self.root / self.split / "panoptic_inst" / f"{stem}_final_mask.png", labels, numbers, self.categories
        )
        ids = np.where(labels >= 0, 1 + labels + len(self.categories) * numbers, 0)
        rows = []
        for id_ in np.unique(ids[ids > 0]).tolist():
            number, label = divmod(id_ - 1, len(self.categories))
            category = self.categories[label]
            rows.append(SegmentRow(id_, category.id, category.thing and number == 0))
        image = {"id": stem, "file_name": f"{stem}_newImg8bit.png"}
        self._writer.add(image, f"{stem}_final_mask.png", ids, rows)

    def finish(self) -> None:
        self._writer.finish(rows_for_json(sorted(self.categories, key=lambda category: category.id)))
        self._open.close()


class _YoutubeVis(_Layout):
    splits = ("train", "valid")
    table = "youtube_vis"
    names = _YOUTUBE_NAMES

    def __init__(self, root: Path, split: str):
        super().__init__(root, split)
        self._size = (0, 0)
        self._files: dict[str, list[str]] = {}
        self._masks: dict[str, dict[tuple[int, int], dict[int, Rle]]] = {}

    def add(self, clip: int, frame: int, scene: MovingFrame) -> None:
        video = f"{clip:010x}"
        name = f"{video}/{5 * frame:05d}.jpg"  # every fifth frame, as the real ones
        save(scene.image, self.root / self.split / "JPEGImages" / name)
        self._files.setdefault(video, []).append(name)
        labels, numbers = self.maps(scene)
        self._size = labels.shape[0], labels.shape[1]
        masks = self._masks.setdefault(video, {})
        for number in np.unique(numbers[numbers > 0]).tolist():
            mask = numbers == number
            masks.setdefault((number, int(labels[mask][0])), {})[frame] = pack_mask(mask)

    def finish(self) -> None:
        videos = []
        for video, files in self._files.items():
            tracks = [
                TrackToWrite(self.categories[label].id, [masks.get(frame) for frame in range(len(files))])
                for (_, label), masks in sorted(self._masks[video].items())
            ]
            videos.append(VideoToWrite(files, self._size, tracks))
        write_youtube_vis(self.root / f"{self.split}.json", videos, self.categories)


def _visible_tracks(scene: MovingFrame) -> dict[int, str]:
    """Track -> kind of what is seen in a frame."""
    numbers = np.unique(scene.numbers).tolist()
    return {int(scene.tracks[n]): scene.objects[n - 1].kind for n in numbers if scene.tracks[n]}


_LAYOUTS: dict[str, type[_Layout]] = {
    "step": _Step,
    "vipseg": _VipSeg,
    "youtube-vis": _YoutubeVis,
    "cityscapes-vps": _CityscapesVps,
}
CLIP_LAYOUTS: Sequence[str] = tuple(_LAYOUTS)
