"""Videos whose segments a JSON file lists, with masks in PNGs beside it: VIPSeg's form and Cityscapes-VPS's.

VIPSeg: `videos` and `annotations` of videos, each with `annotations` of frames; masks in `panomasksRGB/<video>/` and
`pan_pred/<video>/`. Cityscapes-VPS: COCO panoptic, a frame's video being its id up to the first underscore; masks in
`panoptic_video/` (also below `val/`) and `pan_pred/`. Ids of masks are R + 256 G + 65536 B and the same in all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from knet.errors import DataError
from knet.evaluation.panoptic_files import (
    Annotation,
    read_ahead,
    read_annotations,
    read_categories,
    read_json,
    read_mask,
)
from knet.evaluation.video_frames import FrameKey, VideoFrame, Videos, frame_key, pair_frames
from knet.structures import Category

_TRUTH_MASKS = ("panomasksRGB", "panoptic_video", *(f"{split}/panoptic_video" for split in ("val", "train", "test")))
_FOUND_MASKS = ("pan_pred",)


def open_json(truth: Path, predictions: Path, classes: Sequence[Category] | None) -> Videos:
    """Finds and pairs the frames of two JSON files; for the predictions the folder of their `pred.json` will do.

    Raises: DataError for what is missing or damaged, and for frames that only one side has.
    """
    told = predictions / "pred.json" if predictions.is_dir() else predictions
    content = read_json(truth)
    nested = "videos" in content
    table = list(classes) if classes is not None else read_categories(content, truth)
    true = _frames(content, truth, nested, _TRUTH_MASKS)
    pairs = pair_frames(true, _frames(read_json(told), told, nested, _FOUND_MASKS), str(told))
    names = list(true)

    def frames() -> Iterator[VideoFrame]:
        masks = read_ahead(read_mask, [path for one, other in pairs for path in (one[0], other[0])])
        for (sequence, frame), (one, other) in zip(names, pairs, strict=True):
            true_mask, found_mask = next(masks), next(masks)
            name = f"{sequence}/{frame}"
            yield VideoFrame(str(sequence), name, (true_mask, one[1]), (found_mask, other[1]))

    return Videos("vipseg" if nested else "cityscapes-vps", True, table, len(pairs), frames)


def _frames(content: Mapping[str, Any], path: Path, nested: bool, folders: Sequence[str]) -> dict[FrameKey, Annotation]:
    """{(video, frame): (its mask's path, its segments)}, videos one after the other."""
    rows: list[dict[str, Any]] = []
    try:
        for row in content["annotations"]:
            if nested:
                video = str(row["video_id"])
                rows += [
                    {
                        **frame,
                        "image_id": (video, frame_key(frame["image_id"])),
                        "file_name": f"{video}/{frame['file_name']}",
                    }
                    for frame in row["annotations"]
                ]
            else:
                rows.append({**row, "image_id": str(row["image_id"]).partition("_")[::2]})
    except (KeyError, TypeError) as error:
        needs = "video_id and annotations of frames" if nested else "an image_id"
        raise DataError(f"{path}: an annotation lacks {error}; each needs {needs}.") from error
    if not rows:
        raise DataError(f"{path} lists no frame; there is nothing to judge.")
    keys = [row["image_id"] for row in rows]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path} lists the frame {twice[0]}/{twice[1]} twice; ids of frames must be unique.")
    beside = next((path.parent / name for name in folders if (path.parent / name).is_dir()), None)
    found: dict[FrameKey, Annotation] = read_annotations({"annotations": rows}, path, beside)
    first = {sequence: place for place, (sequence, _) in reversed(list(enumerate(found)))}
    return dict(sorted(found.items(), key=lambda row: first[row[0][0]]))
