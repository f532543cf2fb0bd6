"""From any kind of image to a result of its size."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import knet
from knet.errors import ConfigError, DataError
from knet.inference.load import describe_official, segmenter_for
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.segments import nearest
from knet.models.network import Network
from knet.preprocess import normalize_and_pad
from knet.structures import Output, Preprocessing
from tiny_models import tiny_file


@pytest.fixture(scope="module")
def segmenter(tiny_weights: Path) -> Segmenter:
    return knet.load(tiny_weights, device="cpu")


def check(result: Segmentation, size: tuple[int, int]) -> None:
    assert result.id_map.shape == size
    assert result.id_map.dtype == np.int32
    ids = {segment.id for segment in result.segments}
    assert set(np.unique(result.id_map)) - {0} == ids
    assert len(ids) == len(result.segments)
    for segment in result.segments:
        where = np.argwhere(result.id_map == segment.id)
        assert segment.area == len(where)
        (top, left), (bottom, right) = where.min(0), where.max(0) + 1
        assert segment.box == (left, top, right, bottom)
        assert 0 <= segment.score <= 1
    stuff = [segment.category for segment in result.segments if not segment.thing]
    assert len(stuff) == len(set(stuff))


def test_every_kind_of_input_gives_the_same_result(segmenter: Segmenter, street: Path) -> None:
    picture = Image.open(street)
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = segmenter(street)
    assert expected.name == "street"
    check(expected, (64, 96))
    for source in (str(street), street.read_bytes(), picture, array, tensor, tensor.float() / 255):
        assert (segmenter(source).id_map == expected.id_map).all()
    assert len(segmenter([street, array])) == 2
    buffer = BytesIO()
    picture.convert("L").save(buffer, "PNG")
    check(segmenter(buffer.getvalue()), (64, 96))


def test_its_repr_is_a_line(segmenter: Segmenter) -> None:
    assert repr(segmenter) == f"Segmenter('rtknet-slim-camvid', panoptic, 11 classes, cpu, {segmenter.precision})"


@pytest.mark.parametrize(("device", "said"), [(None, "device cannot be None"), ("gpu", "torch knows no such device")])
def test_devices_that_there_are_not(device: Any, said: str, tiny_weights: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        knet.load(tiny_weights, device=device)


def test_threads_may_share_a_segmenter(segmenter: Segmenter) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (40, 56 + seed, 3), np.uint8) for seed in range(12)]
    expected = [segmenter(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for found, alone in zip(pool.map(segmenter, images), expected, strict=True):
            assert found.segments == alone.segments and (found.id_map == alone.id_map).all()


@given(height=st.integers(1, 90), width=st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_results_have_the_size_of_the_image(segmenter: Segmenter, height: int, width: int) -> None:
    image = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for size in ("model", "image", 32, (16, 40)):
        check(segmenter(image, size=size), (height, width))


def test_one_pixel_and_a_thin_line(segmenter: Segmenter) -> None:
    check(segmenter(np.zeros((1, 1, 3), np.uint8)), (1, 1))
    check(segmenter(np.zeros((1, 3000, 3), np.uint8)), (1, 3000))


def test_a_very_large_image(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save(path, compress_level=1)
    check(segmenter(path), (4000, 6000))


def test_alpha_grey_and_16_bit_images(segmenter: Segmenter, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "alpha.png")
    Image.fromarray(array[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(array[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("alpha", "grey", "deep"):
        check(segmenter(tmp_path / f"{name}.png"), (40, 50))
    assert (segmenter(tmp_path / "grey.png").id_map == segmenter(tmp_path / "deep.png").id_map).all()


def test_bad_files_are_named(segmenter: Segmenter, street: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(street.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("nowhere.jpg", "empty.jpg", "cut.jpg", "text.jpg"):
        with pytest.raises(DataError, match=name) as error:
            segmenter(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"score": -0.1}, r"score threshold -0\.1"),
        ({"overlap": 2}, "overlap threshold 2"),
        ({"size": 0}, "size 0"),
        ({"size": "huge"}, "size 'huge'"),
        ({"size": (50, 20)}, r"size \(50, 20\)"),
    ],
)
def test_options_out_of_range(segmenter: Segmenter, street: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        segmenter(street, **options)


class Halves(Network):
    """Says of any image that its left part is Sky (0.9) and all but a column of its right part Building (0.6)."""

    def forward(self, images: torch.Tensor) -> list[Output]:
        masks = torch.full((1, 2, images.shape[2] // 8, images.shape[3] // 8), -10.0)
        masks[0, 0, :, :7], masks[0, 1, :, 5:] = 10.0, 10.0
        classes = torch.full((1, 2, 11), -10.0)
        classes[0, 0, 0], classes[0, 1, 1] = torch.tensor([0.9, 0.6]).logit()
        return [Output(torch.zeros(1, 2, 4), masks, classes, torch.zeros(1, 4, 8, 12))]


@pytest.mark.parametrize("merge", ["optimised", "sorted"])
def test_thresholds_drop_segments(street: Path, merge: Any) -> None:
    card = describe_official("rtknet-slim-camvid").model_copy(update={"merge": merge, "overlap": 0.01})
    segmenter = segmenter_for(Halves(), card, size=64)

    def names(**options: float) -> list[str]:
        return [segment.name for segment in segmenter(street, **options).segments]

    assert names() == ["Sky", "Building"]
    assert names(overlap=0.75) == ["Sky"]  # it takes two of Building's seven columns
    assert names(score=0.7) == (["Sky"] if merge == "optimised" else ["Sky", "Building"])  # K-Net keeps stuff
    assert names(score=1.0) == (["Sky"] if merge == "optimised" else ["Sky", "Building"])  # the best mask always stays
    assert names(overlap=0.0) == ([] if merge == "optimised" else ["Sky", "Building"])  # official: everything void


def test_streaming_a_folder(segmenter: Segmenter, street: Path) -> None:
    Image.open(street).save(street.with_name("alley.png"))
    names = [result.name for image, result in segmenter.stream(street.parent, size=32) if image.shape == (64, 96, 3)]
    assert names == ["alley", "street"]


def test_batches_are_padded_with_the_mean_colour() -> None:
    p = Preprocessing(0, 0)
    images = [torch.full((3, 20, 40), 255, dtype=torch.uint8), torch.zeros(3, 33, 10, dtype=torch.uint8)]
    batch = normalize_and_pad(images, p)
    assert batch.shape == (2, 3, 64, 64)
    assert batch[0, :, 20:].abs().max() == 0
    assert torch.allclose(batch[0, :, 0, 0], (255 - torch.tensor(p.mean)) / torch.tensor(p.std))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_nearest_takes_the_pixel_that_each_falls_on(h: int, w: int, height: int, width: int) -> None:
    ids = torch.arange(h * w, dtype=torch.int32).reshape(h, w) + 2**30
    resized = nearest(ids, (height, width))
    rows = torch.tensor([y * h // height for y in range(height)])
    columns = torch.tensor([x * w // width for x in range(width)])
    assert resized.dtype == torch.int32
    assert torch.equal(resized, ids[rows][:, columns])


def test_images_without_a_name_do_not_replace_each_other(segmenter: Segmenter, street: Path, tmp_path: Path) -> None:
    array = np.array(Image.open(street))
    results = [segmenter(array), *segmenter([array, street.read_bytes()]), segmenter(Image.fromarray(array))]
    files = [result.save(tmp_path, ["json", "semantic"]) for result in results]
    assert [path.name for path, _ in files] == [f"image{n}_segments.json" for n in ("", "_2", "_3", "_4")]
    assert results[1].save(tmp_path, ["json", "semantic"]) == files[1]  # its own are replaced
    assert segmenter(array).save(tmp_path / "other", ["json"]) == [tmp_path / "other" / "image_segments.json"]
    assert segmenter(array).save(tmp_path, ["json"], name="image") == [tmp_path / "image_segments.json"]
    for _ in range(2):  # a file's name is its own
        assert segmenter(street).save(tmp_path, ["json"]) == [tmp_path / "street_segments.json"]


def test_a_network_that_sees_a_single_number_says_so(tmp_path: Path) -> None:
    segmenter = knet.load(tiny_file("instance", tmp_path), device="cpu")
    with pytest.raises(ConfigError, match=r"sees too little of the image 'image' of 9x9 pixels; take a larger size"):
        segmenter(np.zeros((9, 9, 3), np.uint8), size=7)
