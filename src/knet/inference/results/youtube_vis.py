"""The objects of whole clips in the format that YouTube-VIS's server takes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from knet.data.class_order import OtherClassesError
from knet.data.readers.youtube_vis import YoutubeVis
from knet.errors import ConfigError, DataError
from knet.inference.results.encoding import rle_text
from knet.inference.results.files import JsonRows, Writer
from knet.inference.results.submissions import OF_CLIPS
from knet.inference.sources.streams import Frame
from knet.merge.clip import ClipObject
from knet.structures import Category


def youtube_vis_results(
    video_id: int, objects: Sequence[ClipObject], categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """The objects of a video as rows of YouTube-VIS's results list, ready for JSON, without those that have no pixel.

    Rows are {video_id, score, category_id, segmentations: RLE or None for each frame}.
    """
    return [
        {
            "video_id": video_id,
            "score": float(found.score),
            "category_id": categories[found.label].id,
            "segmentations": [None if mask is None else rle_text(mask) for mask in found.masks],
        }
        for found in objects
        if any(mask is not None for mask in found.masks)
    ]


class _Video(NamedTuple):
    """A video's id and its number of frames, and the classes with the ids that its JSON has for them."""

    id: int
    frames: int
    classes: Sequence[Category]


class YoutubeVisWriter(Writer):
    """Writes `youtube-vis/results.json` below a folder, video by video, for a zip to YouTube-VIS's server.

    `close` finishes it, see `Writer`; after an error it holds the videos that were done. `images` are those of all
    videos to come, in folders `<split>/JPEGImages/<video>`; `<split>.json`, beside `<split>`, has the videos' ids.

    Raises:
        ConfigError: the class table is not that of the JSON.
        DataError: there is no such JSON, or it does not list a video, or images of one are missing.
    """

    def __init__(self, folder: str | Path, categories: Sequence[Category], images: Iterable[Path]):
        self._videos = _read_videos(images, categories)
        super().__init__(Path(folder) / OF_CLIPS, categories)
        # It is there even if no video comes.
        self._rows = self._file("results", lambda: JsonRows(self.folder / "results.json"))

    def write(self, frames: Sequence[Frame], objects: Sequence[ClipObject]) -> None:
        """Adds a video's objects; DataError if frames could not be read, as masks would then stand for other frames."""
        folder = _video_of(frames[0].item.path or Path())
        id_, count, classes = self._videos[folder]
        if len(frames) != count:
            raise DataError(
                f"The video '{folder.name}' has {len(frames)} frames that can be read of {count}; the submission lacks "
                "it, since the server takes whole videos only."
            )
        self._rows.add(youtube_vis_results(id_, objects, classes))


def _video_of(image: Path) -> Path:
    return image.absolute().parent


def _read_videos(images: Iterable[Path], categories: Sequence[Category]) -> dict[Path, _Video]:
    """The folder of each video -> what the JSON of its split says of it."""
    videos: dict[Path, _Video] = {}
    splits: dict[Path, dict[str, _Video]] = {}
    for folder, count in Counter(map(_video_of, images)).items():
        split = folder.parent.parent
        json_file = split.parent / f"{split.name}.json"
        if json_file not in splits:
            if not json_file.is_file():
                raise DataError(
                    f"A submission to YouTube-VIS needs the ids of the videos, but there is no '{json_file}'; give the "
                    "folders of frames as they are in the download, such as 'valid/JPEGImages/*', beside valid.json."
                )
            try:
                reader = YoutubeVis(None, json_file, categories)
            except OtherClassesError as fault:
                what = f"The model has other classes than '{json_file}'; take one for YouTube-VIS"
                raise ConfigError(f"{what}. {fault}") from fault
            ids = [reader.category_ids.get(label, row.id) for label, row in enumerate(categories)]
            own = [replace(row, id=id_) for row, id_ in zip(categories, ids, strict=True)]
            splits[json_file] = {
                clip.name: _Video(reader.video_ids[clip.name], len(clip.frames), own) for clip in reader.clips
            }
        if folder.name not in splits[json_file]:
            raise DataError(f"'{json_file}' lists no video '{folder.name}'; give the folders of the videos it lists.")
        videos[folder] = splits[json_file][folder.name]
        if videos[folder].frames != count:
            raise DataError(
                f"The video '{folder.name}' has {videos[folder].frames} frames in '{json_file}', but {count} images "
                "are given; give the whole folder."
            )
    return videos
