"""YouTube-VIS's average precision (AP) and recall (AR) of objects in videos: COCO's, of tracks in place of masks.

Yang et al., "Video Instance Segmentation", ICCV 2019. The numbers are those of YTVOSeval (youtubevos/cocoapi):

* The IoU of two tracks is the sum of their intersections over the sum of their unions, over all frames of the video. So
  a video is treated as one image in which its frames lie side by side.
* Small tracks have less than 128^2 pixels, large ones more than 256^2, in the mean of the frames in which they are.
* A crowd track need not be found, and any number of predictions may find it; their IoU is that of any other track.

Everything else is as `instance` says.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from knet.calls import named_options
from knet.data.files.masks import Rle, mask_area, mask_box, read_mask, runs
from knet.errors import DataError
from knet.evaluation.detections import Format, Rows, Size, average_precision, is_number

_YOUTUBE_VIS = Format("YouTube-VIS", "video", ("height", "width", "length"), "track")
_LARGEST = 1e10
_RANGES = ((0, _LARGEST), (0, 128**2), (128**2, 256**2), (256**2, _LARGEST))


@named_options
def ytvis_ap(
    truth: Mapping[str, Any] | str | PathLike[str],
    predictions: Sequence[Mapping[str, Any]] | str | PathLike[str],
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """AP of tracks in YouTube-VIS's results format against its annotations.

    Args:
        truth: a path, or what the JSON file holds: `videos` (id, height, width, length), `annotations` (video_id,
            category_id, segmentations: one for each frame, RLE or null; where known areas and iscrowd) and
            `categories`.
        predictions: a path, or rows {video_id, category_id, score, segmentations}.
        progress: whether a progress bar is shown.

    Returns:
        `{"protocol", "all", "classes"}`, all but the first as `mask_ap` returns them.

    Raises:
        DataError: a file cannot be read, a video or a category is unknown, masks or a score are invalid, or a frame has
            no entry.
    """
    true, found, sizes, names = _YOUTUBE_VIS.read(truth, predictions, _read_track, None, progress)
    images = [one._replace(size=(one.size[0], one.size[1] * one.size[2])) for one in sizes]
    matched = _repeat_crowds(true, found)
    figures = average_precision(true, found, images, names, ranges=_RANGES, matched=matched)
    return {"protocol": "youtube-vis", **figures}


def track_faults(truth: Mapping[str, Any] | str | PathLike[str]) -> dict[int | str, str]:
    """What `ytvis_ap` would say of the annotations of a YouTube-VIS file, by the ids of their videos."""
    return _YOUTUBE_VIS.faults(truth, _read_track)


def _repeat_crowds(true: Rows, found: Rows) -> Rows:
    """Crowds as ordinary tracks that need not be found, once for each prediction that might match them."""
    candidates = Counter((row["image_id"], row["category_id"]) for row in found)
    rows: Rows = []
    for row in true:
        copies = candidates[row["image_id"], row["category_id"]] if row["iscrowd"] else 1
        area = {"area": 2 * _LARGEST, "iscrowd": 0} if row["iscrowd"] else {}
        rows += [{**row, **area, "id": len(rows) + n} for n in range(1, copies + 1)]
    return rows


def _read_track(row: Mapping[str, Any], size: Size, place: str, scored: bool) -> dict[str, Any]:
    """A track as an object of one image, in which the frames lie side by side."""
    height, width, frames = size
    masks = row.get("segmentations")
    if not isinstance(masks, list | tuple) or len(masks) != frames:
        has = f"{len(masks)} segmentations" if isinstance(masks, list | tuple) else "no list of segmentations"
        raise DataError(f"{place} has {has}, its video {frames} frames; give one for each, null where it is not.")
    packed = [
        None if mask is None else read_mask(mask, (height, width), f"{place}, frame {n}")
        for n, mask in enumerate(masks)
    ]
    areas = [mask_area(mask) for mask in packed if mask is not None]
    if not scored and row.get("areas") is not None:
        areas = row["areas"]
        if not isinstance(areas, list) or not all(area is None or is_number(area) for area in areas):
            raise DataError(f"{place} has the areas {areas!r:.60}; give a number of pixels or null for each frame.")
    present = [area for area in areas if area]
    joined = join_frames(packed, height, width)
    area = sum(present) / len(present) if present else 0.0
    return {"segmentation": joined, "bbox": mask_box(joined), "area": area}


def join_frames(frames: Sequence[Rle | None], height: int, width: int) -> Rle:
    """The masks of frames side by side: packed RLE of (height, width) each, None = empty -> (height, frames * width)

    Runs go down the columns, so the runs of one frame follow those of the frame before.
    """
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
