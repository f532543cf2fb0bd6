"""Where pictures come from: addresses and devices, what may be shown of them, and servers that send them."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
from fake_video import drive, filmed
from PIL import Image

from knet.errors import DataError, DownloadError, KNetError, without_secrets
from knet.inference.sources import cameras, fetched
from knet.inference.sources.cameras import camera
from knet.inference.sources.content import shows_video
from knet.inference.sources.paths import open_source
from knet.inference.sources.streams import open_stream


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        (
            "rtsp://me:secret@10.0.0.7:554/live/one?token=secret",
            "rtsp://10.0.0.7:554/live/one/...",
            "10.0.0.7_live_one",
        ),
        ("rtsp://me:se@cr/et'secret@10.0.0.7/live", "rtsp://10.0.0.7/live", "10.0.0.7_live"),
        ("http://cam/user=me_password=secret_channel=1", "http://cam/...", "cam"),
        ("http://cam/secret/video.mjpg", "http://cam/video.mjpg/...", "cam_video.mjpg"),
        ("rtmp://cam/live/one-secret", "rtmp://cam/live/...", "cam_live"),
        ("srt://cam:9000?passphrase=secret", "srt://cam:9000/...", "cam"),
        ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234", "239.0.0.1"),
        ("https://[2001:db8::1]:8443/stream1", "https://[2001:db8::1]:8443/stream1", "[2001_db8_1]_stream1"),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str, name: str) -> None:
    assert without_secrets(f"No '{address}' there.") == f"No '{shown}' there."
    device = camera(address)
    assert device is not None and device.name == name and "secret" not in str(device)
    assert "secret" not in str(KNetError(f"{address} and {address}"))


def test_what_is_no_address_stays_as_it_is() -> None:
    text = "at 12:/30 C:/x and file:///home/me@here/x.mp4, docs/x.md; 'a: b/c'"
    assert without_secrets(text) == text


@pytest.mark.parametrize("source", ["/dev/video7", Path("/dev/video7"), 7, "7"])
def test_a_webcam_by_its_number_or_device(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras.sys, "platform", "linux")
    calls: list[Any] = []

    def refuse(address: str, **options: Any) -> Any:
        calls.append((address, options))
        raise av.error.FileNotFoundError(2, "No such file or directory", address)

    monkeypatch.setattr(cameras.av, "open", refuse)
    with pytest.raises(DataError, match=r"The camera 'camera_7' cannot be opened \(No such file"):
        next(open_stream(source))
    assert calls == [("/dev/video7", {"format": "v4l2"})]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server of a folder, with a camera at /camera that sends six JPEGs and then hangs up."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/camera", "/camera/live.jpg"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for image in drive(6):
                picture = BytesIO()
                Image.fromarray(image).save(picture, "JPEG")
                data = picture.getvalue()
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                self.wfile.write(data + b"\r\n")
            return None

        def log_message(self, *_: Any) -> None:
            pass

    here = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=here.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{here.server_port}"
    here.shutdown()
    here.server_close()


def test_a_camera_that_sends_jpegs_by_http(server: str) -> None:
    told: list[DataError] = []
    frames = list(open_stream(f"http://me:secret@{server}/camera?pwd=secret", told.append))
    assert len(frames) == 6 and frames[0].item.image.shape == (48, 96, 3)
    assert frames[5].item.name == "127.0.0.1_camera_000005"
    assert "after 6 frames" in str(told[0]) and "secret" not in str(told)


def test_a_video_and_a_playlist_by_http(server: str, tmp_path: Path) -> None:
    filmed(tmp_path / "v.mp4", drive(5))
    with av.open(str(tmp_path / "list.m3u8"), "w", format="hls", options={"hls_time": "1"}) as to:
        stream = to.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        for image in drive(5):
            to.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        to.mux(stream.encode(None))
    for name in ("v.mp4", "list.m3u8"):
        told: list[DataError] = []
        frames = list(open_stream(f"HTTP://{server}/{name}", told.append))
        assert len(frames) == 5 and not told, told
    assert len(list(open_stream(tmp_path / "list.m3u8"))) == 5
    with pytest.raises(DataError, match=r"cannot be opened \(Server returned 404 Not Found\)"):
        next(open_stream(f"http://{server}/nothing"))


def test_an_image_by_http_is_fetched_each_time(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNET_HOME", str(tmp_path / "home"))
    for color in ((200, 0, 0), (0, 0, 200)):  # what a camera shows changes
        Image.new("RGB", (64, 48), color).save(tmp_path / "my street.png")
        for address in (f"http://{server}/my%20street.png", f"http://me:secret@{server}/my%20street.png?token=secret"):
            (frame,) = open_stream(address)
            (item,) = open_source([address])
            for found in (frame.item, item):
                assert found.name == "my street" and found.video is None and tuple(found.image[0, 0]) == color
                assert "secret" not in str(found.path)
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.jpg' is a web page, no image"):
        next(open_stream(f"http://{server}/page.jpg"))
    for gone in (f"http://{server}/none.jpg", "http://127.0.0.1:9/none.jpg"):
        with pytest.raises(DownloadError, match="cannot be fetched"):
            next(open_stream(gone))


def test_jpegs_without_an_end_are_a_camera_whatever_their_address_ends_in(server: str) -> None:
    assert len(list(open_stream(f"http://{server}/camera/live.jpg", lambda _: None))) == 6


def test_an_address_on_the_hub_is_a_file_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    asked: list[str] = []
    monkeypatch.setattr(fetched, "local", lambda place: [asked.append(place), tmp_path / "a.png"][1])
    (frame,) = open_stream("hf:owner/repository/a.png")
    assert frame.item.image.shape == (48, 64, 3) and asked == ["hf:owner/repository/a.png"]


def test_a_named_pipe(tmp_path: Path) -> None:
    video = filmed(tmp_path / "drive.mkv", drive(5))
    os.mkfifo(tmp_path / "front.pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "front.pipe").write_bytes(video.read_bytes()))
    writer.start()
    frames = list(open_stream(tmp_path / "front.pipe"))
    writer.join()
    assert [frame.item.name for frame in frames] == [f"front_{n:06d}" for n in range(5)]
    assert [frame.time for frame in frames] == list(range(5))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "flv", "ts", "mpg", "wmv"])
def test_videos_are_known_by_their_first_bytes(tmp_path: Path, suffix: str) -> None:
    with av.open(str(tmp_path / f"v.{suffix}"), "w") as to:
        codec = {"flv": "flv", "mpg": "mpeg2video", "wmv": "msmpeg4"}.get(suffix, "mpeg4")
        stream = to.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        for image in drive(3):
            to.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        to.mux(stream.encode(None))
    assert shows_video(tmp_path / f"v.{suffix}") is True


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_images_are_known_by_their_first_bytes(tmp_path: Path, form: str) -> None:
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / "x", form)
    except (KeyError, OSError, ValueError):
        # The file is made here; which formats Pillow can write depends on how it was built, and is not what is tested.
        pytest.skip(f"this Pillow cannot write {form}")
    assert shows_video(tmp_path / "x") is False
