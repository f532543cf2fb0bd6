"""Models of all three tasks, from an image to a result: the originals' results, options, and mistakes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import knet
from knet.data.files.masks import mask_area, read_mask
from knet.errors import CheckpointError, ConfigError
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.submissions import SubmissionWriter
from knet.inference.segmenter import Segmenter
from knet.inference.settings import SCALES, Settings
from knet.preprocess import network_size
from knet.structures import Preprocessing
from knet.weights.load import read_checkpoint
from tiny_models import tiny_file

PANOPTIC = {
    "eval_det_pan_r50_128x192": "knet-r50-coco-panoptic",
    "eval_det_pan_r101dcn_128x160": "knet-r101dcn-coco-panoptic",
    "eval_det_pan_swinl_128x160": "knet-swinl-coco-panoptic",
}
SEMANTIC = {
    "eval_seg_fcn_r50_96x128": "knet-fcn-r50-ade20k",
    "eval_seg_pspnet_r50_96x128": "knet-pspnet-r50-ade20k",
    "eval_seg_deeplabv3_r50_96x128": "knet-deeplabv3-r50-ade20k",
    "eval_seg_upernet_r50_96x128": "knet-upernet-r50-ade20k",
    "eval_seg_upernet_swint_96x160": "knet-upernet-swint-ade20k",
    "eval_seg_upernet_swinl_96x128": "knet-upernet-swinl-ade20k",
}
VOID = 133


def of(rows: dict[str, str]) -> list[Any]:
    large = ("r101", "swinl")
    return [
        pytest.param(*row, marks=[pytest.mark.large] if any(word in row[0] for word in large) else [])
        for row in rows.items()
    ]


def loaded(golden: str, model: str, goldens: Any, official_checkpoint: Any, **options: Any) -> tuple[Any, Segmenter]:
    path = goldens.file("knet", f"{golden}.npz")
    data = np.load(path)
    weights = official_checkpoint(str(data["manifest"]), int(data["seed"]), "knet")
    return data, knet.load(model, weights, device="cpu", size="image", **options)


@pytest.mark.parametrize(("golden", "model"), of(PANOPTIC))
def test_panoptic_results_are_the_originals(golden: str, model: str, goldens: Any, official_checkpoint: Any) -> None:
    data, segmenter = loaded(golden, model, goldens, official_checkpoint)
    assert (segmenter.task, segmenter.merge, segmenter.score, segmenter.overlap) == ("panoptic", "sorted", 0.3, 0.6)
    thresholds = [(0.3, 0.6), *data["panoptic_thresholds"].tolist()]
    for (score, overlap), expected in zip(thresholds, [data["panoptic_config"], *data["panoptic"]], strict=True):
        found = segmenter(data["image"], score=score, overlap=overlap)
        theirs = {value for value in np.unique(expected).tolist() if value != VOID}
        assert len(found.segments) == len(theirs)
        equal = (found.id_map == 0) & (expected == VOID)
        for segment in found.segments:  # each is one of theirs, of the same class
            mask = found.id_map == segment.id
            (values, counts) = np.unique(expected[mask], return_counts=True)
            value = values[counts.argmax()]
            assert segmenter.categories[value % 1000].id == segment.category
            theirs.discard(int(value))
            equal |= mask & (expected == value)
        assert not theirs
        assert equal.mean() >= 0.999


def test_instances_are_the_originals(goldens: Any, official_checkpoint: Any) -> None:
    data, segmenter = loaded("eval_det_ins_r50_128x192", "knet-r50-coco-instance", goldens, official_checkpoint)
    found = segmenter(data["image"])
    expected = np.unpackbits(data["ins_masks_packed"], axis=-1)[..., :192].astype(bool)
    there = expected.any((1, 2))  # an object without a pixel is none
    np.testing.assert_allclose([s.score for s in found.segments], data["ins_scores"][there], rtol=0, atol=1e-4)
    ids = [segmenter.categories[label].id for label in data["ins_labels"][there]]
    assert [s.category for s in found.segments] == ids
    assert np.mean([found.mask(s) for s in found.segments] == expected[there]) >= 0.999
    assert len(segmenter(data["image"], score=0.5).segments) == int((data["ins_scores"][there] >= 0.5).sum())
    check_overlapping(found)


def check_overlapping(found: Segmentation) -> None:
    """Scores fall, areas and boxes are those of the masks, and the best object has each pixel of the id map."""
    assert found.masks is not None
    assert found.masks.keys() == {s.id for s in found.segments}
    assert [s.score for s in found.segments] == sorted((s.score for s in found.segments), reverse=True)
    expected = np.zeros_like(found.id_map)
    for segment in reversed(found.segments):
        mask = found.mask(segment)
        expected[mask] = segment.id
        assert segment.area == mask.sum() > 0
        ys, xs = np.nonzero(mask)
        assert segment.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert (found.id_map == expected).all()


@pytest.mark.parametrize(("golden", "model"), of(SEMANTIC))
def test_classes_are_the_originals(golden: str, model: str, goldens: Any, official_checkpoint: Any) -> None:
    data, segmenter = loaded(golden, model, goldens, official_checkpoint)
    found = segmenter(data["image"])
    assert (found.semantic_map() - 1 == data["argmax"]).mean() >= 0.999
    assert len(found.segments) == len(np.unique(found.id_map)) == len({s.category for s in found.segments})


@pytest.mark.large  # twelve looks with a big network
@pytest.mark.parametrize(("golden", "model"), [row for row in SEMANTIC.items() if "fcn" in row[0] or "swint" in row[0]])
def test_several_looks_are_the_originals(golden: str, model: str, goldens: Any, official_checkpoint: Any) -> None:
    data, segmenter = loaded(golden, model, goldens, official_checkpoint)
    looks = segmenter(data["image"], scales=SCALES, flip=True)
    assert (looks.semantic_map() - 1 == data["tta_argmax"]).mean() >= 0.999


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    return {task: tiny_file(task, folder) for task in ("panoptic", "instance", "semantic")}


@pytest.fixture
def photo() -> np.ndarray:
    return np.array(Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60)))


@pytest.mark.parametrize("size", [(60, 90), (1, 1), (1, 300), (7, 5)])
def test_every_task_answers_at_the_size_of_any_image(tiny: dict[str, Path], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for path in tiny.values():
        found = knet.load(path, device="cpu")(image)
        assert found.id_map.shape == size
        assert (found.masks is None) != ("instance" in path.name)
        for segment in found.segments:
            assert found.mask(segment).sum() == segment.area == mask_area(found.rle(segment))


def test_windows_scales_and_mirrors(tiny: dict[str, Path], photo: np.ndarray) -> None:
    segmenter = knet.load(tiny["semantic"], device="cpu")
    whole = segmenter(photo)
    resized = network_size((60, 90), "model", segmenter.preprocessing)
    assert (segmenter(photo, window=resized).id_map == whole.id_map).all()
    assert (segmenter(photo, window=(resized[0], 200)).id_map == whole.id_map).all()  # cut where the image ends
    assert (segmenter(photo, window=32, stride=16).id_map != whole.id_map).any()
    tall = segmenter(photo, window=(5000, 32), stride=(3000, 16))  # a stride beyond the image as well
    assert (tall.id_map == segmenter(photo, window=(resized[0], 32), stride=(resized[0], 16)).id_map).all()
    assert (tall.id_map != whole.id_map).any()
    assert (segmenter(photo, window=48).id_map == segmenter(photo, window=(48, 48), stride=(32, 32)).id_map).all()
    mirrored = segmenter(np.ascontiguousarray(photo[:, ::-1]), flip=True, scales=(1.0, 0.5))
    assert (mirrored.id_map[:, ::-1] == segmenter(photo, flip=True, scales=(1.0, 0.5)).id_map).mean() > 0.999
    always = knet.load(tiny["semantic"], device="cpu", window=32, stride=16)
    assert (always(photo).id_map == segmenter(photo, window=32, stride=16).id_map).all()


def test_classes_that_are_too_uncertain_are_left_out(tiny: dict[str, Path], photo: np.ndarray) -> None:
    segmenter = knet.load(tiny["semantic"], device="cpu")
    everything = segmenter(photo)
    assert len(everything.segments) > 1
    limit = sorted(s.score for s in everything.segments)[1]
    fewer = segmenter(photo, score=limit)
    assert [(s.category, s.area) for s in fewer.segments] == [
        (s.category, s.area) for s in everything.segments if s.score >= limit
    ]
    assert (fewer.id_map == 0).sum() == sum(s.area for s in everything.segments if s.score < limit)


def test_both_ways_of_merging(tiny: dict[str, Path], tiny_weights: Path, photo: np.ndarray, tmp_path: Path) -> None:
    for path, own, other in ((tiny["panoptic"], "sorted", "optimised"), (tiny_weights, "optimised", "sorted")):
        results = {}
        for merge in (None, own, other):
            segmenter = knet.load(path, device="cpu", merge=merge)
            assert segmenter.merge == (merge or own)
            results[merge] = segmenter(photo, overlap=0.01)
            assert {s.id for s in results[merge].segments} == set(np.unique(results[merge].id_map)) - {0}
        assert (results[None].id_map == results[own].id_map).all()
    written = tiny_file("panoptic", tmp_path, merge="optimised")  # a file of weights may say it
    assert knet.load(written, device="cpu").merge == "optimised"


def test_files_that_say_no_task_are_used_as_their_model(tiny: dict[str, Path], tmp_path: Path) -> None:
    lacking = ("task", "merge", "format", "graph")
    for task, path in tiny.items():
        whole = read_checkpoint(path)
        assert whole.card is not None
        card = {name: value for name, value in json.loads(whole.card.text()).items() if name not in lacking}
        save_file(whole.state, tmp_path / "old.safetensors", {"knet": json.dumps(card)})
        segmenter = knet.load(tmp_path / "old.safetensors", device="cpu")
        assert (segmenter.task, segmenter.merge) == (task, "sorted" if task == "panoptic" else "optimised")
    assert knet.load("rtknet-lite-street", device="cpu").merge == "optimised"


def test_overlapping_objects_in_files(tiny: dict[str, Path], photo: np.ndarray, tmp_path: Path) -> None:
    segmenter = knet.load(tiny["instance"], device="cpu")
    found = segmenter.segment(photo, "000000000042")
    check_overlapping(found)
    assert sum(s.area for s in found.segments) > (found.id_map > 0).sum()  # they do overlap
    row = json.loads(json.dumps(found.to_dict()))["segments"][-1]
    assert mask_area(read_mask(row["segmentation"], (60, 90), "row")) == row["area"]
    with SubmissionWriter(tmp_path, "coco-instance", segmenter.categories) as writer:
        writer.write(found)
    rows = json.loads((tmp_path / "coco-instance" / "detections.json").read_text())
    assert [row["category_id"] for row in rows] == [s.category for s in found.segments]
    masks = [read_mask(row["segmentation"], (60, 90), "row") for row in rows]
    assert [mask_area(mask) for mask in masks] == [s.area for s in found.segments]
    files = found.save(tmp_path / "out", formats=["overlay", "panoptic", "semantic", "json"], image=photo)
    assert len(files) == 5


def test_pictures_show_objects_that_are_certain_enough(tiny: dict[str, Path], photo: np.ndarray) -> None:
    found = knet.load(tiny["instance"], device="cpu")(photo)
    found.segments = [replace(s, score=0.7 / s.id) for s in found.segments]
    sure = [s for s in found.segments if s.score >= 0.3]
    assert [s.id for s in sure] == [1, 2]
    found.id_map[:20], found.id_map[20:40], found.id_map[40:] = 1, 2, 3
    picture = found.overlay(names=False)
    found.segments = sure
    assert (found.overlay(names=False) == picture).all()
    assert (picture[42:] == photo[42:]).all()  # the third is not drawn
    assert (picture[:38] != photo[:38]).any(axis=-1).all()


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("panoptic", {"flip": True}, r"panoptic segmentation; the option flip \(--tta\) is for semantic models"),
        ("panoptic", {"window": 32}, r"option window \(--window\) is for semantic models"),
        ("instance", {"scales": (0.5,)}, r"option scales \(--tta\) is for semantic models"),
        ("instance", {"overlap": 0.5}, "option overlap is for panoptic models"),
        ("semantic", {"overlap": 0.5}, "option overlap is for panoptic models"),
        ("semantic", {"window": (400, 500)}, r"window of 400x500 pixels is larger than the image.*64x96"),
        ("semantic", {"window": 0}, "window 0 is not a positive number"),
        ("semantic", {"window": (32, 32, 32)}, "is not a positive number of pixels or a pair"),
        ("semantic", {"window": 32, "stride": 40}, "cannot move by"),
        ("semantic", {"stride": 40}, "give window"),
        ("semantic", {"scales": ()}, "must be numbers above 0"),
        ("semantic", {"scales": (1.0, 0.0)}, "must be numbers above 0"),
        ("semantic", {"score": 1.5}, r"score threshold 1\.5"),
        ("semantic", {"size": 0}, "size 0"),
    ],
)
def test_options_that_do_not_fit(tiny: dict[str, Path], task: str, options: dict[str, Any], sentence: str) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(ConfigError, match=sentence) as error:
        knet.load(tiny[task], device="cpu")(image, **options)
    assert "\n" not in str(error.value)


def test_merges_that_do_not_fit(tiny: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no merge 'best'; it is one of: optimised, sorted"):
        knet.load(tiny["panoptic"], device="cpu", merge="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is for semantic segmentation; the option merge is for panoptic models"):
        knet.load(tiny["semantic"], device="cpu", merge="sorted")


def test_weights_of_another_task_say_which_models_they_fit(
    tiny: dict[str, Path], goldens: Any, official_checkpoint: Any
) -> None:
    golden = np.load(goldens / "knet" / "eval_det_ins_r50_128x192.npz")
    path = official_checkpoint(str(golden["manifest"]), int(golden["seed"]), "knet")
    with pytest.raises(CheckpointError, match=r"They fit: knet-r50-coco-instance\."):
        knet.load("knet-r50-coco-panoptic", weights=path, device="cpu")
    with pytest.raises(CheckpointError, match="made for 'knet-r50-coco-instance', not for 'knet-r50-coco-panoptic'"):
        knet.load("knet-r50-coco-panoptic", weights=tiny["instance"], device="cpu")


def test_scaled_sizes_are_those_of_the_scaled_edges() -> None:
    p = Preprocessing(512, 2048)
    assert network_size((600, 800), "model", p, 0.75) == (384, 512)
    assert network_size((100, 1000), "model", p, 0.5) == (102, 1024)  # the long edge's limit is scaled as well
    assert network_size((97, 64), "image", p, 0.5) == (49, 32)
    assert network_size((600, 800), 100, p, 0.5) == (50, 67)
    assert Settings().changed("semantic", {"score": None}) == Settings()
