"""FFmpeg reads the file that it is given and nothing that this names; and of its pictures those that move, upright."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image, features

from knet.errors import DataError, DownloadError
from knet.inference.sources.opening import picture_stream
from knet.inference.sources.paths import count_images, expand_sources
from knet.inference.sources.streams import open_stream
from knet.inference.sources.videos import read_video

PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


def film(path: Path, count: int = 3) -> Path:
    pictures = np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_all(source: Path | str) -> int:
    """The number of frames, by the way of the command line."""
    if source != "-":
        count_images(expand_sources([source]))
    return sum(1 for _ in open_stream(source))


@pytest.mark.parametrize(
    "named", ["../elsewhere.ts", "{}/elsewhere.ts", "file:{}/elsewhere.ts", "http://127.0.0.1:9/x.ts"]
)
def test_a_playlist_names_files_of_its_own_folder_alone(tmp_path: Path, named: str) -> None:
    film(tmp_path / "elsewhere.ts", 7)
    (tmp_path / "list").mkdir()
    film(tmp_path / "list" / "beside.ts")
    path = tmp_path / "list" / "list.m3u8"
    path.write_text(PLAYLIST.format("beside.ts"))
    assert read_all(path) == 3
    path.write_text(PLAYLIST.format(named.format(tmp_path)))
    with pytest.raises(DataError, match=r"list\.m3u8' is a list of other videos"):
        read_all(path)


@pytest.mark.parametrize("ending", ["mp4", "txt", "ffconcat"])
@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile beside.mp4\n", SDP], ids=["concat", "sdp"])
def test_scripts_and_descriptions_of_streams_are_not_followed(tmp_path: Path, text: str, ending: str) -> None:
    film(tmp_path / "beside.mp4")
    (tmp_path / f"script.{ending}").write_text(text)
    with pytest.raises(DataError, match=r"is a list of other videos|is the description of a stream|no image or video"):
        read_all(tmp_path / f"script.{ending}")


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile beside.mp4\n", SDP], ids=["concat", "sdp"])
def test_nor_where_they_come_by_standard_input(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "beside.mp4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script").write_text(text)
    with (tmp_path / "script").open() as script:
        monkeypatch.setattr("sys.stdin", script)
        with pytest.raises(DataError, match=r"Standard input cannot be opened .it is damaged, or stands"):
            read_all("-")


def test_a_name_with_a_percent_sign_is_no_pattern_of_names(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (30, 20)).save(tmp_path / f"img{number:03d}.png")
    path = film(tmp_path / "film.mp4").rename(tmp_path / "img%03d.png")
    with pytest.raises(DataError, match=r"img%03d\.png' is not a video that can be read .it is damaged, or stands for"):
        read_all(path)
    assert read_all(path.rename(tmp_path / "img%03d.mp4")) == 3


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("aac", rate=44100), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 48, "yuvj420p", Disposition.attached_pic.value
        for packet in cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")):
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(cover.encode())
        container.mux(sound.encode())
    with pytest.raises(DataError, match=r"song\.mp4' has no picture stream"):
        read_all(path)
    moving = SimpleNamespace(disposition=Disposition.default)
    both = [SimpleNamespace(disposition=Disposition.attached_pic | Disposition.default), moving]
    assert picture_stream(SimpleNamespace(streams=SimpleNamespace(video=both))) is moving


def with_matrix(path: Path, *matrix: int) -> Path:
    """A film whose head says how its pictures are turned, by a matrix of two rows and two columns."""
    data = bytearray(film(path).read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, 0, 0, 0), lambda image: image),
    ],
)
def test_videos_are_turned_and_mirrored_as_the_camera_noted(tmp_path: Path, matrix: object, turned: object) -> None:
    plain = next(read_video(film(tmp_path / "plain.mp4"))).image
    item = next(read_video(with_matrix(tmp_path / "turned.mp4", *matrix)))
    np.testing.assert_array_equal(item.image, turned(plain))
    assert (item.video.height, item.video.width) == item.image.shape[:2]


AVIF = pytest.mark.skipif(not features.check("avif"), reason="Pillow writes AVIF from 11.3 on, and 10.3 is allowed")


@pytest.mark.parametrize("ending", [pytest.param("avif", marks=AVIF), "webp"])
def test_an_animated_picture_is_one_picture(tmp_path: Path, ending: str) -> None:
    first, second = (Image.new("RGB", (32, 16), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    assert [file.video for file in expand_sources([tmp_path / f"a.{ending}"])] == [False]
    assert read_all(tmp_path / f"a.{ending}") == 1


@pytest.mark.parametrize("address", ["http://[::1", "https://[x]y/a.jpg"])
def test_an_address_that_is_none_is_one_sentence(address: str) -> None:
    with pytest.raises(DownloadError, match="is no address"):
        list(open_stream(address))


def test_links_to_a_playlist_lead_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    film(tmp_path / "list" / "beside.ts")
    (tmp_path / "list" / "list.m3u8").write_text(PLAYLIST.format("beside.ts"))
    (tmp_path / "link.m3u8").symlink_to(tmp_path / "list" / "list.m3u8")
    assert read_all(tmp_path / "link.m3u8") == 3
