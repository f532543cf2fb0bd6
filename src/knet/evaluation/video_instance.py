"""YouTube-VIS's average precision (AP) and recall (AR) of objects in videos: COCO's, of tracks in place of masks.

Yang et al., "Video Instance Segmentation", ICCV 2019. The numbers are those of YTVOSeval (youtubevos/cocoapi):

* The IoU of two tracks is the sum of their intersections over the sum of their unions, over all frames of the video. So
  a video is judged as one image in which its frames lie side by side.
* Small tracks have less than 128^2 pixels, large ones more than 256^2, in the mean of the frames in which they are.
* A crowd track need not be found, and any number of predictions may find it; their IoU is that of any other track.

Everything else is as `instance` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from tqdm import tqdm

from knet.data.files.masks import Rle, mask_area, mask_box, read_mask, runs
from knet.errors import DataError
from knet.evaluation.instance import Rows, is_number, is_whole, open_rows, read_names, summarize

_LARGEST = 1e10
_RANGES = ((0, _LARGEST), (0, 128**2), (128**2, 256**2), (256**2, _LARGEST))
_PIXELS = 1 << 32  # of a video, which the library counts in 32 bits


def ytvis_ap(
    truth: Mapping[str, Any] | str | PathLike[str],
    predictions: Sequence[Mapping[str, Any]] | str | PathLike[str],
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """AP of tracks in YouTube-VIS's result form against its annotations; either is a path or what the JSON holds.

    `truth` has `videos` (id, height, width, length), `annotations` (video_id, category_id, segmentations: one for each
    frame, RLE or null; where known areas and iscrowd) and `categories`; a prediction is {video_id, category_id, score,
    segmentations}.

    Gives fractions 0..1: `{"protocol", "all": {"ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100",
    "ars", "arm", "arl"}, "classes": {category id: {"name", the same, "objects", "predictions"}}}`, the objects without
    crowds. None where there is nothing to find; such classes are left out of the means.

    Raises: DataError for files that cannot be read, unknown videos and categories, masks of another size or form, a
    number of frames that is not the video's, scores that are missing or no numbers.
    """
    told, content = open_rows(truth, "truth")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(k), list) for k in ("videos", "annotations")):
        raise DataError(f"{told} must hold lists `videos` and `annotations`; give a file in YouTube-VIS's form.")
    names = read_names(content.get("categories"), told)
    sizes = _videos(content["videos"], told)
    true = _tracks(content["annotations"], told, sizes, names, False, progress)
    told, results = open_rows(predictions, "predictions")
    if not isinstance(results, list | tuple):
        raise DataError(f"{told} must hold a list of tracks; give results in YouTube-VIS's form.")
    found = _tracks(results, told, sizes, names, True, progress)
    shapes = [(number, height, width * frames) for number, height, width, frames in sizes.values()]
    numbers = summarize(_spread_crowds(true, found), found, shapes, sorted(names), "segm", _RANGES)
    objects = Counter(row["category_id"] for row in true if not row["iscrowd"])
    tracks = Counter(row["category_id"] for row in found)
    per_class = {
        category: {"name": name, **numbers[category], "objects": objects[category], "predictions": tracks[category]}
        for category, name in names.items()
    }
    return {"protocol": "youtube-vis", "all": numbers[None], "classes": per_class}


def _spread_crowds(true: Rows, found: Rows) -> Rows:
    """Crowds as ordinary tracks that are never asked for, once for each prediction that might find them."""
    candidates = Counter((row["image_id"], row["category_id"]) for row in found)
    rows: Rows = []
    for row in true:
        copies = candidates[row["image_id"], row["category_id"]] if row["iscrowd"] else 1
        area = {"area": 2 * _LARGEST, "iscrowd": 0} if row["iscrowd"] else {}
        rows += [{**row, **area, "id": len(rows) + n} for n in range(1, copies + 1)]
    return rows


def _videos(rows: Sequence[Any], told: str) -> dict[Any, tuple[int, int, int, int]]:
    """{video id: (number, height, width, frames)}, numbered in the order that ties are broken."""
    sizes: dict[Any, tuple[int, int, int]] = {}
    for row in rows:
        keys: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
        names = keys.get("file_names")
        frames = keys.get("length", len(names) if isinstance(names, list) else None)
        id_, size = keys.get("id"), (keys.get("height"), keys.get("width"), frames)
        if not (is_whole(id_) or isinstance(id_, str)) or not all(is_whole(n) and n > 0 for n in size):
            raise DataError(f"{told}: a video needs id, height, width and length, not {row!r:.80}.")
        if id_ in sizes:
            raise DataError(f"{told} lists the video {id_!r} twice; ids must be unique.")
        height, width, frames = (int(n) for n in size if n is not None)
        if height * width * frames >= _PIXELS:
            raise DataError(f"{told}: the video {id_!r} has 2^32 pixels or more; split it.")
        sizes[id_] = height, width, frames
    if not sizes:
        raise DataError(f"{told} lists no videos; there is nothing to judge.")
    ordered = sorted(sizes, key=lambda id_: (isinstance(id_, str), id_))
    return {id_: (number, *sizes[id_]) for number, id_ in enumerate(ordered, 1)}


def _tracks(
    rows: Sequence[Any],
    told: str,
    sizes: Mapping[Any, tuple[int, int, int, int]],
    names: Mapping[int, str],
    scored: bool,
    progress: bool,
) -> Rows:
    """Annotations, or with `scored` predictions, as objects of images in which the frames lie side by side."""
    read: Rows = []
    for number, row in enumerate(tqdm(rows, "tracks", unit="track", disable=None if progress else True), 1):
        where = f"{told}: track {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is {row!r:.60}; it must hold video_id, category_id and more.")
        video, category = row.get("video_id"), row.get("category_id")
        if not (is_whole(video) or isinstance(video, str)) or video not in sizes:
            raise DataError(f"{where} is of the video {video!r}, which the truth does not list.")
        if not is_whole(category) or category not in names:
            raise DataError(f"{where} has the category {category!r}, which the truth does not list.")
        id_, height, width, frames = sizes[video]
        masks = row.get("segmentations")
        if not isinstance(masks, list | tuple) or len(masks) != frames:
            has = f"{len(masks)} segmentations" if isinstance(masks, list | tuple) else "no list of segmentations"
            raise DataError(f"{where} has {has}, its video {frames} frames; give one for each, null where it is not.")
        packed = [
            None if mask is None else read_mask(mask, (height, width), f"{where}, frame {n}")
            for n, mask in enumerate(masks)
        ]
        mask = _side_by_side(packed, height, width)
        areas = [mask_area(one) for one in packed if one is not None]
        if not scored and row.get("areas") is not None:
            areas = row["areas"]
            if not isinstance(areas, list) or not all(area is None or is_number(area) for area in areas):
                raise DataError(f"{where} has the areas {areas!r:.60}; give a number of pixels or null for each frame.")
        seen = [area for area in areas if area]
        one = {
            "id": number,
            "image_id": id_,
            "category_id": int(category),
            "segmentation": mask,
            "bbox": mask_box(mask),
        }
        one |= {"area": sum(seen) / len(seen) if seen else 0.0, "iscrowd": 0}
        if scored:
            if not is_number(row.get("score")):
                raise DataError(f"{where} has the score {row.get('score')!r}; every prediction needs a number.")
            one["score"] = float(row["score"])
        else:
            one["iscrowd"] = int(bool(row.get("iscrowd", 0)))
        read.append(one)
    return read


def _side_by_side(frames: Sequence[Rle | None], height: int, width: int) -> Rle:
    """One mask (height, frames * width); RLE runs down the columns, so runs of frames follow each other."""
    counts = [0]  # background first
    for frame in frames:
        own = [height * width] if frame is None else runs.toUncompressedRLE([frame])[0]["counts"]
        if len(counts) % 2 == 0 and own[0] == 0:  # object up to the edge on both sides
            counts[-1] += own[1]
            counts += own[2:]
        elif len(counts) % 2 == 0:
            counts += own
        else:
            counts[-1] += own[0]
            counts += own[1:]
    return runs.frUncompressedRLE([{"size": [height, width * len(frames)], "counts": counts}])[0]
