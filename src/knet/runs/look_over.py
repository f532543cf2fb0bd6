"""Looks a validation set over before training: what cannot be read is left out of every validation, and named."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from knet.config import RunConfig
from knet.data.files.io import read_json
from knet.data.readers.clips import Clip, ClipReader
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.reader import Reader
from knet.data.readers.youtube_vis import YoutubeVis
from knet.distributed import gather_objects, rank, world
from knet.errors import DataError
from knet.evaluation.instance import object_faults
from knet.evaluation.video_instance import track_faults


def look_over(dataset: Reader, config: RunConfig, what: str = "validation") -> dict[int, str]:
    """The images of a validation set that cannot be judged: number -> what is wrong. All processes get all of them.

    Or of a training set that cannot be learned from; `what` it is stands in the error.

    Raises:
        DataError: there are more than `skip_images`, or nothing is left without them.
    """
    faults = _listed_faults(dataset)
    mine = range(rank(), len(dataset), world())
    for index in tqdm(mine, desc="looking over", unit="image", disable=rank() > 0 or None, leave=False):
        if index not in faults:
            try:
                dataset.read(index)
            except DataError as fault:
                faults[index] = str(fault)
    faults = {index: fault for share in gather_objects(faults) for index, fault in share.items()}
    left = whole_clips(dataset.clips, faults) if isinstance(dataset, ClipReader) else len(dataset) - len(faults)
    if faults and (len(faults) > config.skip_images or not left):
        raise DataError(
            f"{len(faults)} of {len(dataset)} {what} images cannot be used, and skip_images={config.skip_images} "
            f"may be left out; the first one: {faults[min(faults)]} `knet data check` finds all of them."
        )
    return dict(sorted(faults.items()))


def _listed_faults(dataset: Reader) -> dict[int, str]:
    """What the metrics of objects would refuse in the JSON, which they read whole; of a video all frames."""
    if isinstance(dataset, CocoInstances):
        of_images = object_faults(dataset.truth)
        return {n: of_images[id_] for n in range(len(dataset)) if (id_ := dataset.image_id(n)) in of_images}
    if isinstance(dataset, YoutubeVis):
        of_videos = track_faults(dataset.truth)
        ids = {clip: dataset.video_ids[clip.name] for clip in dataset.clips}
        return {n: of_videos[id_] for clip, id_ in ids.items() if id_ in of_videos for n in clip.frames}
    return {}


def whole_clips(clips: Iterable[Clip], left_out: Iterable[int]) -> list[Clip]:
    """The clips none of whose frames is left out."""
    return [clip for clip in clips if not set(clip.frames) & set(left_out)]


def without(json: Path | dict[str, Any], whole: str, ids: Iterable[Any]) -> dict[str, Any]:
    """A JSON of objects, or its content, without the images or videos of some ids; `whole` is "image" or "video"."""
    content, gone = read_json(json) if isinstance(json, Path) else json, set(ids)
    rows = [row for row in content[f"{whole}s"] if row["id"] not in gone]
    objects = [row for row in content["annotations"] if row.get(f"{whole}_id") not in gone]
    return {**content, f"{whole}s": rows, "annotations": objects}
