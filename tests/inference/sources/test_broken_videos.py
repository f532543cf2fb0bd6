"""Videos that are cut off, or coded in a way that nothing here decodes: one sentence, after the frames before."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from knet.errors import DataError
from knet.inference.sources.paths import count_images, expand_sources
from knet.inference.sources.streams import open_stream
from knet.inference.sources.videos import read_video
from knet.inference.sources.whole import lacks_its_end


def pictures(count: int = 8) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8))


def gif(path: Path) -> Path:
    first, *others = map(Image.fromarray, pictures())
    first.save(path, save_all=True, append_images=others, duration=100)
    return path


def film(path: Path, codec: str = "libx264", **options: str) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25 if codec.startswith("mpeg") else 5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_all(path: Path) -> int:
    """The number of frames, by the way of the command line."""
    count_images(expand_sources([path]))
    return sum(1 for _ in open_stream(path))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_gif_that_is_cut_anywhere_does_not_pass_for_whole(tmp_path: Path, share: float) -> None:
    whole = gif(tmp_path / "whole.gif").read_bytes()
    assert read_all(tmp_path / "whole.gif") == 8
    path = tmp_path / "cut.gif"
    path.write_bytes(whole[: int(len(whole) * share)])
    frames = read_video(path)
    with pytest.raises(DataError, match=r"cut\.gif' (breaks off after \d frames|holds no frame)"):
        for _ in frames:
            pass
    path.write_bytes(whole[:-1])  # between two blocks
    with pytest.raises(DataError, match="breaks off after 8 frames"):
        read_all(path)
    path.write_bytes(whole + b"what a server added")
    assert read_all(path) == 8


@pytest.mark.parametrize("ending", ["ts", "m2ts"])  # packets of 188 bytes, and of 192
def test_a_transport_stream_that_is_cut_inside_a_packet_does_not_pass_for_whole(tmp_path: Path, ending: str) -> None:
    options = {"mpegts_m2ts_mode": "1"} if ending == "m2ts" else {}
    whole = film(tmp_path / f"whole.{ending}", **options).read_bytes()
    assert read_all(tmp_path / f"whole.{ending}") == 8
    path = tmp_path / f"cut.{ending}"
    for share in (0.3, 0.5, 0.8):
        path.write_bytes(whole[: int(len(whole) * share) // 188 * 188 + 7])
        with pytest.raises(DataError, match="breaks off after"):
            read_all(path)


@pytest.mark.parametrize(("ending", "size", "pictures"), [("ts", 188, 0x100), ("m2ts", 192, 0x1011)])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_transport_stream_that_is_cut_between_packets_passes_for_whole_between_pictures_alone(
    tmp_path: Path, codec: str, ending: str, size: int, pictures: int
) -> None:
    options = {"mpegts_m2ts_mode": "1"} if ending == "m2ts" else {}
    whole = film(tmp_path / f"whole.{ending}", codec, **options).read_bytes()
    path, cut = tmp_path / f"cut.{ending}", 0
    for end in range(len(whole) - 24 * size, len(whole) + 1, size):
        path.write_bytes(whole[:end])
        _, high, low, filled_up = whole[end - 188 : end - 184]
        if (high & 0x1F) << 8 | low == pictures and not filled_up & 0x20:
            cut += 1
            with pytest.raises(DataError, match="breaks off after"):
                read_all(path)
        elif end == len(whole):
            assert read_all(path) == 8
    assert cut >= 2


@pytest.mark.parametrize(
    ("ending", "codec"), [("mpg", "mpeg1video"), ("mpeg", "mpeg2video"), ("y4m", "rawvideo"), ("mjpeg", "mjpeg")]
)
def test_a_row_of_pictures_that_is_cut_in_one_does_not_pass_for_whole(tmp_path: Path, ending: str, codec: str) -> None:
    whole = film(tmp_path / f"whole.{ending}", codec).read_bytes()
    assert read_all(tmp_path / f"whole.{ending}") == 8
    path = tmp_path / f"cut.{ending}"
    for share in (0.45, 0.65, 0.95, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match="breaks off after"):
            read_all(path)


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mkv", "libx264", {"live": "1"}),  # as recorders write it, who do not know its size yet
        ("webm", "libvpx", {"live": "1", "cluster_time_limit": "300"}),
        ("ogv", "libvpx", {}),
        ("h264", "libx264", {}),
        ("m2v", "mpeg2video", {}),
        ("mxf", "mpeg2video", {}),
    ],
)
def test_a_stream_that_states_no_length_does_not_pass_for_whole_where_it_is_cut(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str]
) -> None:
    whole = film(tmp_path / f"whole.{ending}", codec, **options).read_bytes()
    assert read_all(tmp_path / f"whole.{ending}") == 8
    path = tmp_path / f"cut.{ending}"
    for share in (0.4, 0.55, 0.7, 0.85, 0.999 if ending != "mxf" else 0.9):  # behind MXF's frames is their index
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"breaks off after|holds no frame"):
            read_all(path)


def test_parts_that_are_longer_than_what_is_there_of_them(tmp_path: Path) -> None:
    wholes = {
        "obu": b"\x12\0" + b"\x0a\x02ab" + b"\x36\0\x81\x01" + bytes(129),  # a head with one byte more, a size of two
        "dv": bytes.fromhex("1f070000") + bytes(239_996),
        "pal.dv": bytes.fromhex("1f070080") + bytes(143_996),
        "mxf": bytes.fromhex("060e2b34") + bytes(12) + b"\x82\x01\x00" + bytes(256),
        "mkv": bytes.fromhex("1a45dfa380 18538067 01ffffffffffffff 1f43b675 ff a3 82") + b"ab",
        "ogv": b"OggS\0\4" + bytes(20) + b"\2\3\4" + bytes(7),
    }
    for ending, whole in wholes.items():
        path = tmp_path / f"video.{ending}"
        path.write_bytes(whole)
        assert not lacks_its_end(path), ending
        for lost in (1, 2, len(whole) % 7 + 1):
            path.write_bytes(whole[:-lost])
            assert lacks_its_end(path), (ending, lost)


@pytest.mark.parametrize(("ending", "tag"), [("mp4", b"avc1"), ("mkv", b"V_MPEG4/ISO/AVC"), ("avi", b"H264")])
@pytest.mark.parametrize("shown", ["as it is", "video.unknown"])
def test_a_video_of_an_unknown_decoder_is_one_sentence(tmp_path: Path, ending: str, tag: bytes, shown: str) -> None:
    data = film(tmp_path / f"known.{ending}").read_bytes()
    assert tag in data
    path = tmp_path / (f"video.{ending}" if shown == "as it is" else shown)
    path.write_bytes(data.replace(tag, tag[:-1] + b"Q"))
    with pytest.raises(DataError, match=r"video\.\w+' is coded in a way that is not known here; convert it"):
        read_all(path)


def test_a_video_that_is_cut_anywhere_in_its_index_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    data = film(tmp_path / "whole.mp4", movflags="faststart").read_bytes()
    for length in range(30, data.index(b"mdat"), 11):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut\.mp4"):
            read_all(path)


def test_a_stream_that_begins_in_the_midst_is_passed_over(tmp_path: Path) -> None:
    """An FLV file whose head says nothing of the sound that comes with its last pictures."""
    path, noise = tmp_path / "a.flv", np.random.default_rng(0)
    with av.open(path, "w") as container:
        picture: Any = container.add_stream("flv1", rate=25)
        sound: Any = container.add_stream("pcm_s16le", rate=11025)
        picture.width, picture.height, picture.pix_fmt, picture.bit_rate, sound.layout = (
            64,
            64,
            "yuv420p",
            40_000_000,
            "mono",
        )
        for number in range(400):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(picture.encode(frame))
            if number == 395:
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
                samples.sample_rate, samples.pts = 11025, number * 11025 // 25
                samples.time_base = Fraction(1, 11025)
                container.mux(sound.encode(samples))
        container.mux(picture.encode(None) + sound.encode(None))
    content = bytearray(path.read_bytes())
    assert content[4] == 5  # sound and pictures
    content[4] = 1
    path.write_bytes(content)
    with av.open(path) as container:
        assert len(container.streams) == 1
    assert read_all(path) == 400
