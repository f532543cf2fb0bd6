"""PQ refuses inputs that contradict themselves, in sentences that say where; it finds files in the usual places."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.errors import DataError
from knet.evaluation import PanopticQuality, panoptic_files, panoptic_quality
from knet.structures import Category, SegmentInfo

TABLE = [Category(i, f"class {i}", i in (3, 5), (0, 0, i)) for i in (1, 3, 5, 8)]


OFFICIAL_ERRORS = {
    "no_prediction_for_image": "no prediction for image_id 5",
    "unknown_category": "segment 1 has the unknown category 999",
    "png_segment_not_in_json": "mask has ids 2 that its segments do not list",
    "json_segment_not_in_png": "segments 77 that have no pixel",
    "wrong_size": r"\(20, 40\) pixels .* the truth \(30, 40\)",
}


@pytest.mark.parametrize("case", OFFICIAL_ERRORS)
def test_refuses_what_the_official_evaluator_refuses(goldens: Path, case: str) -> None:
    folder = goldens / "metrics" / "panoptic_errors" / case
    with pytest.raises(DataError, match=OFFICIAL_ERRORS[case]):
        panoptic_quality(folder / "gt.json", folder / "pred.json")


def test_the_sound_case_and_the_one_without_things(goldens: Path) -> None:
    folder = goldens / "metrics" / "panoptic_errors"
    expected = json.loads((folder / "expected.json").read_text())["cases"]
    assert set(expected) == {"ok", "no_things_at_all", *OFFICIAL_ERRORS}
    sound = panoptic_quality(folder / "ok/gt.json", folder / "ok/pred.json", progress=True)
    assert sound["all"] == expected["ok"]["All"]
    stuff_only = panoptic_quality(folder / "no_things_at_all/gt.json", folder / "no_things_at_all/pred.json")
    assert stuff_only["things"] == {"pq": None, "sq": None, "rq": None, "n": 0}
    assert stuff_only["all"] == stuff_only["stuff"]
    assert stuff_only["all"]["n"] > 0
    json.dumps(stuff_only, allow_nan=False)


ROWS = [{"id": 1, "category_id": 1}]
ONES = np.ones((2, 3), np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONES * 0.5, ROWS, ONES, ROWS), r"\(truth\).*integer array, not \(2, 3\) float64"),
        ((ONES, ROWS, ONES[0], ROWS), r"\(prediction\).*integer array, not \(3,\)"),
        ((ONES, ROWS, -ONES, ROWS), r"ids run from -1 to -1; 0 \(void\)"),
        ((ONES * 2**24, ROWS, ONES, ROWS), "16777216; 0"),
        ((ONES, ROWS, ONES.T, ROWS), "size of the original image"),
        ((ONES, [{"id": 0, "category_id": 1}], ONES, ROWS), r"\(truth\): a segment has id 0"),
        ((ONES, [{"id": 1, "category_id": 2}], ONES, ROWS), r"\(truth\).*unknown category 2.*1, 3, 5, 8"),
        ((ONES, [{"id": 1}], ONES, ROWS), "not a segment with an id and a category_id"),
        ((ONES, [{"id": 1, "category_id": []}], ONES, ROWS), "not a segment"),
        ((ONES, [7], ONES, ROWS), "not a segment"),
        ((ONES, [SegmentInfo(1, 4)], ONES, ROWS), "not a segment"),
        ((ONES, [SegmentInfo(1, -1)], ONES, ROWS), "not a segment"),
        ((ONES, ROWS * 2, ONES, ROWS), "segments 1 are listed twice"),
        ((ONES, [{"id": -4, "category_id": 1}], ONES, ROWS), "segment ids run from -4"),
        ((ONES, [*ROWS, {"id": -4, "category_id": 1}], ONES, ROWS), "segment ids run from -4 to 1"),
        ((ONES, [*ROWS, {"id": 2**24, "category_id": 1}], ONES, ROWS), "segment ids run from 1 to 16777216"),
        ((ONES, [{"id": 2**24, "category_id": 1}], ONES, ROWS), "0 to 16777215 are allowed"),
        ((ONES, ROWS, ONES, []), "has ids 1 that"),
        ((ONES, ROWS, ONES, [*ROWS, {"id": 2, "category_id": 1}]), "segments 2 that have no pixel"),
    ],
)
def test_refuses_maps_and_segments_that_contradict(arguments: tuple, message: str) -> None:
    quality = PanopticQuality(TABLE)
    with pytest.raises(DataError, match=message):
        quality.add(*arguments, name="street.png")
    assert not quality.counts.any()


@pytest.mark.parametrize("area", [0, -5, 1])
def test_an_area_that_is_stated_far_too_small_gives_no_figure_beyond_one(area: int) -> None:
    quality = PanopticQuality(TABLE)
    quality.add(ONES, [{**ROWS[0], "area": area}], ONES, ROWS)
    row = quality.result()["classes"][1]
    assert (row["tp"], row["fp"], row["fn"]) == ((1, 0, 0) if area > 0 else (0, 1, 1))
    assert np.isfinite(quality.counts).all()


def test_errors_name_the_image() -> None:
    with pytest.raises(DataError, match=r"street\.png"):
        PanopticQuality(TABLE).add(ONES, ROWS, ONES, [], name="street.png")


def test_refuses_wrong_tables_and_unequal_inputs() -> None:
    with pytest.raises(DataError, match="at least one category"):
        PanopticQuality([])
    with pytest.raises(DataError, match="no category id occurs twice"):
        PanopticQuality(TABLE[:1] * 2)
    with pytest.raises(DataError, match="different class tables"):
        PanopticQuality(TABLE).merge(PanopticQuality(TABLE[1:]))
    with pytest.raises(DataError, match="give `categories`"):
        panoptic_quality([(ONES, ROWS)], [(ONES, ROWS)])
    with pytest.raises(DataError, match="1 truth images, 0 predictions"):
        panoptic_quality([(ONES, ROWS)], [], categories=TABLE)
    with pytest.raises(DataError, match="both be JSON files"):
        panoptic_quality("gt.json", [], categories=TABLE)


def written(folder: Path, truth: object, predictions: object) -> tuple[Path, Path]:
    paths = folder / "gt.json", folder / "pred.json"
    for path, content in zip(paths, (truth, predictions), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def one_image(**changes: object) -> dict:
    annotation = {"image_id": 5, "file_name": "im.png", "segments_info": ROWS}
    return {"annotations": [annotation], "categories": [{"id": 1, "name": "road", "isthing": 0}], **changes}


def mask(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


RED = np.full((2, 3, 3), (1, 0, 0), np.uint8)


@pytest.mark.parametrize("place", ["gt", ".", "named"])
def test_masks_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    truth, predictions = written(tmp_path, one_image(), one_image())
    mask(tmp_path / place / "im.png", RED)
    mask(tmp_path / "pred" / "im.png", np.dstack([RED, RED[..., :1]]))  # an alpha channel does no harm
    named = tmp_path / "named" if place == "named" else None
    assert panoptic_quality(truth, predictions, truth_masks=named)["all"]["pq"] == 1


def test_extra_predictions_are_ignored(tmp_path: Path) -> None:
    extra = one_image()
    extra["annotations"] = [*extra["annotations"], {"image_id": 6, "file_name": "absent.png", "segments_info": []}]
    mask(tmp_path / "im.png", RED)
    assert panoptic_quality(*written(tmp_path, one_image(), extra))["all"]["n"] == 1


@pytest.mark.parametrize(
    ("truth", "predictions", "message"),
    [
        ("{", one_image(), r"gt\.json cannot be read"),
        (one_image(), "[]", r"pred\.json has no list of `annotations`"),
        (one_image(annotations=3), one_image(), r"gt\.json has no list"),
        (one_image(categories=None), one_image(), r"gt\.json: 'categories' must be a list"),
        (one_image(categories=[{"id": 1}]), one_image(), r"gt\.json: row 1 of 'categories' has the name None"),
        (one_image(), one_image(annotations=[{"image_id": 5}]), "needs image_id, file_name and segments_info"),
        (one_image(), one_image(annotations=[7]), "needs image_id, file_name"),
        (
            one_image(),
            one_image(annotations=[{"image_id": [], "file_name": "", "segments_info": []}]),
            "not {'image_id",
        ),
        (one_image(), one_image(annotations=[{"image_id": 5, "file_name": 1, "segments_info": []}]), "needs image_id"),
    ],
)
def test_refuses_broken_json(tmp_path: Path, truth: object, predictions: object, message: str) -> None:
    mask(tmp_path / "im.png", RED)
    with pytest.raises(DataError, match=message):
        panoptic_quality(*written(tmp_path, truth, predictions))


def test_refuses_missing_and_broken_files(tmp_path: Path) -> None:
    truth, predictions = written(tmp_path, one_image(), one_image())
    with pytest.raises(DataError, match=r"absent\.json does not exist"):
        panoptic_quality(tmp_path / "absent.json", predictions)
    with pytest.raises(DataError, match=r"gt.im\.png does not exist"):
        panoptic_quality(truth, predictions)
    mask(tmp_path / "im.png", RED[..., 0])
    with pytest.raises(DataError, match=r"im\.png is a grey picture; it must be an RGB PNG, in which id = R"):
        panoptic_quality(truth, predictions)
    (tmp_path / "im.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"im\.png cannot be read"):
        panoptic_quality(truth, predictions)


def write_images(folder: Path, count: int, mode: str = "RGB") -> Path:
    """`count` images of one segment with a large id, as COCO panoptic files; the JSON's path."""
    (folder / "masks").mkdir(parents=True)
    rows = []
    for n in range(count):
        rgb = np.zeros((6, 9, 3), np.uint8)
        rgb[1:, 2:] = (n, 255, 254)
        Image.fromarray(rgb).convert(mode).save(folder / "masks" / f"{n}.png")
        segment = {"id": n + 256 * 255 + 65536 * 254, "category_id": 3}
        rows.append({"image_id": n, "file_name": f"{n}.png", "segments_info": [segment]})
    table = [{"id": c.id, "name": c.name, "isthing": int(c.thing)} for c in TABLE]
    (folder / "masks.json").write_text(json.dumps({"annotations": rows, "categories": table}))
    return folder / "masks.json"


def test_masks_with_an_alpha_channel(tmp_path: Path) -> None:
    truth, predictions = write_images(tmp_path / "t", 3), write_images(tmp_path / "p", 3, "RGBA")
    assert panoptic_quality(truth, predictions)["classes"][3]["tp"] == 3


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_masks_are_read_in_order_and_not_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    truth, predictions = write_images(tmp_path / "t", count), write_images(tmp_path / "p", count)
    read: list[Path] = []
    real = panoptic_files.read_ids
    monkeypatch.setattr(panoptic_files, "read_ids", lambda path: (read.append(path), real(path))[1])
    places = [
        panoptic_files.read_annotations({**json.loads(p.read_text()), "categories": None}, p, None, ())
        for p in (truth, predictions)
    ]
    for done, (name, (true, rows), (predicted, _)) in enumerate(panoptic_files.read_pairs(*places)):
        assert name == f"image {done}" and len(read) <= 2 * (done + 3)
        assert true.max() == predicted.max() == rows[0]["id"]
    assert len(read) == 2 * count


def test_a_damaged_mask_in_the_middle_ends_the_run(tmp_path: Path) -> None:
    truth, predictions = write_images(tmp_path / "t", 5), write_images(tmp_path / "p", 5)
    whole = (tmp_path / "p" / "masks" / "3.png").read_bytes()
    (tmp_path / "p" / "masks" / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"3\.png cannot be read"):
        panoptic_quality(truth, predictions)


def test_a_mask_written_blue_first_is_named(tmp_path: Path) -> None:
    """Ids of the truth that are not listed are allowed, so without this the figures would be wrong."""
    truth, predictions = written(tmp_path, one_image(), one_image())
    mask(tmp_path / "im.png", RED)
    assert panoptic_quality(truth, predictions)["all"]["pq"] == 1
    mask(tmp_path / "im.png", RED[..., ::-1])
    with pytest.raises(DataError, match=r"im\.png has ids .* its channels are in the order blue, green, red"):
        panoptic_quality(truth, predictions)


def test_numbers_of_other_kinds_are_taken_where_harmless(tmp_path: Path) -> None:
    mask(tmp_path / "im.png", RED)
    row: dict[str, object] = {"id": 1.0, "category_id": "1", "iscrowd": "0"}
    odd = one_image(annotations=[{"image_id": "5", "file_name": ".\\im.png", "segments_info": [row]}])
    assert panoptic_quality(*written(tmp_path, odd, odd))["all"]["pq"] == 1
    row["id"] = 1.5
    with pytest.raises(DataError, match="not a segment with an id"):
        panoptic_quality(*written(tmp_path, odd, odd))
