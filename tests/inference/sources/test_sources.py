from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_results import filmed, photo, steady
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knet.data.files.io import read_image
from knet.errors import DataError
from knet.inference import sources
from knet.inference.sources.images import load_image
from knet.inference.sources.paths import expand_sources, natural_order, open_source
from knet.inference.sources.streams import open_stream


def saved(path: Path, image: np.ndarray | None = None, **options: Any) -> Path:
    Image.fromarray(photo(24, 32) if image is None else image).save(path, **options)
    return path


def test_every_way_to_give_an_image_gives_the_same(tmp_path: Path) -> None:
    image = photo(24, 32)
    path = saved(tmp_path / "a.png", image)
    ways = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path), image, image[..., ::1]]
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    ways += [tensor, tensor.float() / 255, tensor.double() / 255, (image / 255).astype(np.float32)]
    ways += [image.astype(np.uint16) * 257, np.dstack([image, np.zeros_like(image[..., :1])]), tensor.contiguous()]
    ways += [memoryview(path.read_bytes()), np.asfortranarray(image), (tensor.float() / 255).requires_grad_()]
    for way in ways:
        loaded = load_image(way)
        assert loaded.dtype == np.uint8 and loaded.flags["C_CONTIGUOUS"]
        assert np.array_equal(loaded, image), type(way)


def test_half_precision_tensors_can_be_read() -> None:
    tensor = torch.full((3, 2, 2), 0.5, dtype=torch.bfloat16)
    assert (load_image(tensor) == 128).all()


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = photo(24, 32)[..., 0]
    ways = [
        grey,
        grey[..., None],
        torch.from_numpy(grey),
        torch.from_numpy(grey)[None],
        saved(tmp_path / "g.png", grey),
    ]
    for way in ways:
        assert np.array_equal(load_image(way), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_divided_by_257(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 128, 129, 257], [65535, 257 * 77, 257 * 77 + 128, 65406]], np.uint16)
    expected = [[0, 0, 1, 1], [255, 77, 77, 254]]
    assert load_image(saved(tmp_path / f"w{suffix}", wide))[..., 1].tolist() == expected
    assert load_image(wide)[..., 1].tolist() == expected
    assert load_image(wide.astype(">u2"))[..., 1].tolist() == expected
    assert load_image(Image.fromarray(wide.astype(np.int32)))[..., 1].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_every_pillow_mode_can_be_read(mode: str) -> None:
    picture = Image.new("RGB", (5, 4), (255, 255, 255))
    picture = Image.fromarray(np.ones((4, 5), np.float32)) if mode == "F" else picture.convert(mode)
    loaded = load_image(picture)
    assert loaded.shape == (4, 5, 3) and loaded.dtype == np.uint8 and loaded.min() >= 254


def test_palette_with_transparency_and_cmyk_files(tmp_path: Path) -> None:
    picture = Image.fromarray(photo(24, 32)).quantize(16)
    picture.save(tmp_path / "p.png", transparency=bytes([0] * 16))
    assert np.array_equal(load_image(tmp_path / "p.png"), np.array(picture.convert("RGB")))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    red = load_image(tmp_path / "c.jpg")[4, 4]
    assert red[0] > 200 and red[1] < 60 and red[2] < 60


def test_alpha_is_dropped_not_blended() -> None:
    image = np.full((2, 2, 4), 0, np.uint8)
    image[..., 0] = 200
    assert load_image(image)[0, 0].tolist() == load_image(Image.fromarray(image))[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0)), (2, (0, -1))]
)
def test_photos_are_turned_upright(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(saved(tmp_path / "o.jpg", image, exif=exif, quality=95))
    assert loaded.shape == ((60, 40, 3) if orientation in (6, 8) else (40, 60, 3))
    assert loaded[corner].min() > 240 and (loaded > 128).mean() < 0.2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_photo_with_damaged_exif_is_still_a_photo(tmp_path: Path) -> None:
    path = saved(tmp_path / "e.jpg", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff broken")
    assert load_image(path).shape == (24, 32, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".png", ".bmp", ".tif", ".webp", ".ppm", ".jp2", ".avif", ".gif"])
def test_formats_can_be_read(tmp_path: Path, suffix: str) -> None:
    known = {".jfif": "JPEG"}
    try:
        path = saved(tmp_path / f"x{suffix}", format=known.get(suffix))
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow cannot write {suffix}")
    assert np.abs(load_image(path).astype(int) - photo(24, 32)).mean() < 12


def test_one_pixel_and_thin_images() -> None:
    for shape in [(1, 1), (1, 500), (500, 1)]:
        assert load_image(np.zeros((*shape, 3), np.uint8)).shape == (*shape, 3)
        buffer = BytesIO()
        Image.new("RGB", shape[::-1]).save(buffer, "PNG")
        assert load_image(buffer.getvalue()).shape == (*shape, 3)


def test_photos_beyond_pillows_limit_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as for a photo of more than 179 million pixels
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert load_image(path).shape == (24, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    threads = [threading.Thread(target=load_image, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_giants_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    header = BytesIO()
    Image.new("1", (8, 8)).save(header, "BMP")
    giant = bytearray(header.getvalue())
    giant[18:26] = (30_000).to_bytes(4, "little") + (20_000).to_bytes(4, "little")
    (tmp_path / "giant.bmp").write_bytes(giant)
    with pytest.raises(DataError, match=r"giant.bmp.*30000 x 20000 = 600 million.*400 million"):
        load_image(tmp_path / "giant.bmp")


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    saved(tmp_path / "street.jpg")
    with pytest.raises(DataError, match=r"no '.*stret.jpg'; did you mean '.*street.jpg'"):
        load_image(tmp_path / "stret.jpg")
    with pytest.raises(DataError, match="look in the folder"):
        load_image(tmp_path / "zzzzzzzzzzz")
    with pytest.raises(DataError, match="nor its folder"):
        load_image(tmp_path / "no" / "street.jpg")
    with pytest.raises(DataError, match="looks like a web address; pass it as text"):
        load_image(Path("https://example.org/street.jpg"))
    with pytest.raises(DataError):
        load_image("name\0with zero")
    with pytest.raises(DataError):
        load_image("n" * 5000)


KINDS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n": r"a pointer of Git LFS, .*git lfs pull",
    b"<!DOCTYPE html><title>Sign in</title>": r"a web page, .*download the file that it leads to",
    b"PK\x03\x04": r"a zip file, .*unpack it",
    b"\x00\x00\x00\x18ftypheic\x00\x00": r"a HEIC photo, .*convert it",
    b"II*\x00\x08\x00\x00\x00\x00\x00": r"a TIFF with channels or a depth that are not read here, .*8 or 16 bits",
}


@pytest.mark.parametrize("start", KINDS)
def test_what_lies_under_the_name_of_an_image_is_named(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(start)
    for read in (load_image, read_image):
        with pytest.raises(DataError, match=KINDS[start]):
            read(path)
    with pytest.raises(DataError, match=KINDS[start]):
        load_image(start)


def test_an_image_with_values_that_are_no_numbers_says_so(tmp_path: Path) -> None:
    values = np.full((4, 5), 0.5, np.float32)
    values[1, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(
        DataError, match=r"depth.tif' has values from nan to nan; some are no numbers \(NaN\): replace these"
    ):
        load_image(tmp_path / "depth.tif")


def test_an_empty_source_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for opened in (expand_sources, open_source, open_stream):
        with pytest.raises(DataError, match="A source is an empty text"):
            list(opened([""]))
    assert len(expand_sources(["."])) == 1


def test_addresses_of_files_and_of_stores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is the address of a file; give its path alone, '/data/a.png'"):
        expand_sources(["FILE:///data/a.png"])
    with pytest.raises(DataError, match="looks like a web address"):
        expand_sources(["s3://bucket/a.png"])


def test_what_is_no_image_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image, however it is called")
    for name, problem in {"empty.jpg": "empty", "text.jpg": "not an image", ".": "is a folder"}.items():
        with pytest.raises(DataError, match=problem):
            load_image(tmp_path / name)
    with pytest.raises(DataError, match="no regular file"):
        load_image("/dev/null")
    with pytest.raises(DataError, match=r"bytes is empty"):
        load_image(b"")
    with pytest.raises(DataError, match=r"given as 7 bytes is not an image"):
        load_image(b"nothing")
    with pytest.raises(DataError, match="from a int"):
        load_image(3)
    with pytest.raises(DataError, match="from a NoneType"):
        load_image(None)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_files_cut_off_anywhere_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    whole = saved(tmp_path / f"whole{suffix}", noise).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for share in (0.02, 0.3, 0.7, 0.95):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=f"cut{suffix}"):
            load_image(cut)


@pytest.mark.filterwarnings("ignore::UserWarning")
@steady
@given(st.integers(0, 10_000))
def test_damaged_files_give_an_image_or_the_sentence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffer = BytesIO()
    Image.fromarray(photo(24, 32)).save(buffer, ["PNG", "JPEG", "TIFF", "GIF", "WEBP"][seed % 5])
    data = bytearray(buffer.getvalue())
    for place in rng.integers(0, len(data), 6):
        data[place] = rng.integers(0, 256)
    try:
        assert load_image(bytes(data)).shape[2] == 3
    except DataError as error:
        assert "bytes" in str(error)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((3, 24, 32), np.uint8), r"array of shape \(3, 24, 32\).*\(H,W,3\)"),
        (np.zeros((2, 24, 32, 3), np.uint8), "as a list"),
        (torch.zeros(1, 3, 24, 32), "a list for a batch"),
        (torch.zeros(24, 32, 3), r"tensor of shape \(24, 32, 3\).*\(3,H,W\)"),
        (np.zeros((0, 32, 3), np.uint8), "no pixels"),
        (np.zeros((24, 32, 3), np.int64), "holds int64"),
        (np.zeros((24, 32, 3), bool), "holds bool"),
        (np.full((24, 32, 3), 200.0), "divide by 255"),
        (torch.randn(3, 24, 32), "undo any normalisation"),
        (np.full((24, 32, 3), np.nan), "from nan"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "holds int32"),
        (Image.fromarray(np.full((2, 2), 7.0, np.float32)), "values from 7 to 7"),
    ],
)
def test_arrays_of_a_wrong_kind_are_refused(source: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load_image(source)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "secret.png")

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"secret.png.*Permission denied"):
        load_image(path)


def test_a_folder_stands_for_its_images_in_natural_order(tmp_path: Path) -> None:
    for name in ("b_10.png", "b_2.PNG", "a.jpg", ".hidden.png"):
        saved(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "below").mkdir()
    saved(tmp_path / "below" / "deep.png")
    assert [f.path.name for f in expand_sources([tmp_path])] == ["a.jpg", "b_2.PNG", "b_10.png"]
    found = expand_sources([str(tmp_path / "**" / "*.png")])
    assert [f.path.name for f in found] == ["b_10.png", "deep.png"]
    assert [f.path.name for f in expand_sources([tmp_path / "b*"])] == ["b_2.PNG", "b_10.png", "deep.png"]


def test_images_videos_and_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "a.png")
    (tmp_path / "v.MP4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    found = expand_sources(["a.png", str(tmp_path / "a.png"), "*", "v.MP4"])
    assert [(str(f.path), f.video) for f in found] == [("a.png", False), ("v.MP4", True)]


def test_names_with_pattern_characters_are_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a[1].png")
    assert [f.path for f in expand_sources([path])] == [path]


def test_sources_that_stand_for_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    (tmp_path / "a.xyz").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v.mp4").write_bytes(b"x")
    problems = {
        "b.png": "did you mean",
        "a.xyz": r"unknown ending.*\.jpg.*\.mp4",
        "empty": "holds no image",
        "videos": r"name its videos: '.*videos/\*'",
        "*.bmp": "matches no image",
        "empty/*": "matches no image",
    }
    for name, problem in problems.items():
        with pytest.raises(DataError, match=problem):
            expand_sources([tmp_path / "a.png", tmp_path / name])


@steady
@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    names = sorted((Path(f"frame_{n}.png") for n in numbers), key=natural_order)
    assert [int(p.stem[6:]) for p in names] == sorted(numbers)


def test_natural_order_takes_any_names() -> None:
    names = ["1a", "a1", "a", "", "²", "٣", "B2", "b2", "a01", "a1", "9/8", "a/1"]
    assert len(sorted((Path(n) for n in names), key=natural_order)) == len(names)


def test_open_source_takes_everything_at_once(tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    video = filmed(tmp_path / "v.mp4", count=2)
    items = list(open_source([tmp_path / "a.png", photo(24, 32), video, torch.zeros(3, 4, 5), [photo(24, 32)][0]]))
    names = ["a", "image_000001", "v_000000", "v_000001", "image_000003", "image_000004"]
    assert [item.name for item in items] == names
    assert [item.video is not None for item in items] == [False, False, True, True, False, False]
    assert [item.path for item in items][:3] == [tmp_path / "a.png", None, video]
    assert [item.name for item in open_source(str(tmp_path))] == ["a"]
    assert next(open_source(photo(24, 32))).image.shape == (24, 32, 3)


def test_a_wrong_path_is_refused_at_once_but_broken_images_when_their_turn_comes(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_source(tmp_path / "none.png")
    for name in ("a.png", "b.png", "c.png"):
        saved(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"broken")
    items = open_source(tmp_path)
    assert next(items).name == "a"
    with pytest.raises(DataError, match=r"b.png"):
        next(items)
    errors: list[DataError] = []
    assert [item.name for item in open_source(tmp_path, on_error=errors.append)] == ["a", "c"]
    assert len(errors) == 1 and "b.png" in str(errors[0])


def test_sources_do_not_need_torch() -> None:
    assert "torch" not in vars(sources)
