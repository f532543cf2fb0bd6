"""Videos whose segments a JSON file lists, with masks in PNGs beside it: VIPSeg's form and Cityscapes-VPS's.

VIPSeg: `videos` and `annotations` of videos, each with `annotations` of frames; masks in `panomasksRGB/<video>/` and
`pan_pred/<video>/`. Cityscapes-VPS: COCO panoptic, a frame's video being its id up to the first underscore; masks in
`panoptic_video/` (also below `val/`) and `pan_pred/`. Ids of masks are R + 256 G + 65536 B and the same in all frames.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knet.data.categories import categories_from_rows
from knet.data.files.io import name_some
from knet.errors import DataError
from knet.evaluation.panoptic_files import read_annotations, read_document
from knet.evaluation.video_frames import FoundFrame, FoundFrames, frame_key
from knet.structures import Category

_TRUTH_MASKS = ("panomasksRGB", "panoptic_video", *(f"{split}/panoptic_video" for split in ("val", "train", "test")))


def find_listed(
    truth: Path, predictions: Path, classes: Sequence[Category] | None
) -> tuple[str, Sequence[Category], FoundFrames, FoundFrames]:
    """The form of two JSON files, "vipseg" or "cityscapes-vps", their class table, and the frames of either."""
    content = read_document(truth)
    nested = "videos" in content
    if classes is None:
        classes, _ = categories_from_rows(content.get("categories"), str(truth), DataError)
    found = _frames(read_document(predictions), predictions, nested, ["pan_pred"], classes)
    true = _frames(content, truth, nested, _TRUTH_MASKS, classes)
    return "vipseg" if nested else "cityscapes-vps", classes, true, found


def _frames(
    content: Mapping[str, Any], path: Path, nested: bool, folders: Sequence[str], categories: Sequence[Category]
) -> FoundFrames:
    rows: list[dict[str, Any]] = []
    try:
        for row in content["annotations"]:
            if nested:
                video = str(row["video_id"])
                for frame in row["annotations"]:
                    place = {"image_id": (video, frame_key(frame["image_id"]))}
                    rows.append({**frame, **place, "file_name": f"{video}/{frame['file_name']}"})
            else:
                rows.append({**row, "image_id": str(row["image_id"]).partition("_")[::2]})
    except (KeyError, TypeError) as error:
        needs = "video_id and annotations of frames" if nested else "an image_id"
        raise DataError(f"{path}: an annotation lacks {error}; each needs {needs}.") from error
    if not rows:
        raise DataError(f"{path} lists no frame; there is nothing to evaluate.")
    twice = [key for key, count in Counter(row["image_id"] for row in rows).items() if count > 1]
    if twice:
        names = name_some("/".join(map(str, key)) for key in twice)
        raise DataError(f"{path} lists the frame {names} twice; ids of frames must be unique.")
    beside = next((path.parent / name for name in folders if (path.parent / name).is_dir()), None)
    annotations = read_annotations({**content, "annotations": rows}, path, beside, categories)
    first = {sequence: place for place, (sequence, _) in reversed(list(enumerate(annotations)))}
    return {
        key: FoundFrame(key[0], key[1], (mask,), segments)
        for key, (mask, segments) in sorted(annotations.items(), key=lambda row: first[row[0][0]])
    }
