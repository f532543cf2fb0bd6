"""What is killed: the commands, and the data, models and server that they need."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

OUT = "OUT"  # stands for the folder, or a file in it
_MODEL = "knet-r50-coco-panoptic"


@dataclass
class Task:
    """Something to kill: the command by what is in the output folder, and how its processes are started."""

    command: Callable[[Path], list[str]]
    processes: int = 1
    # "all" processes; "one", or a "worker" (a loader process), or one that "hangs": the others must end by themselves;
    # or "none", but the disk is full.
    victims: str = "all"
    once: bool = False  # a finished output is not written again
    growing: bool = False  # files have their final names while the task goes on
    environment: dict[str, str] = field(default_factory=dict)


def train(config: Path, out: Path) -> list[str]:
    """Starts a training, or goes on with it."""
    started = (out / "run" / "state.pt").exists()
    return ["train", "--resume", str(out / "run")] if started else ["train", str(config), f"output={out / 'run'}"]


def prepare_city(download: Path, out: Path) -> list[str]:
    """Prepares a copy of a download: what is made lies beside what there was."""
    if not (out / "gtFine").exists():
        shutil.copytree(download, out, dirs_exist_ok=True)
    return ["data", "prepare", "cityscapes", str(out)]


def filled(words: tuple[object, ...], into: str, out: Path) -> list[str]:
    """The words of a command, with the folder or a file in it for OUT."""
    return [str(out / into if word is OUT else word) for word in words]


def prepare(work: Path) -> None:
    """Makes what the tasks need: data, configs, models, images and a video."""
    import av
    import numpy as np
    from tiny_run import write_config

    from knet.cli.main import main
    from tiny_models import tiny_file

    sizes: dict[str, Any] = {"iterations": 5, "validate_every": 5, "save_every": 1, "short_edge": 32, "max_edge": 48}
    sizes["augment"] = {"short_edges": [32], "max_edge": 48, "crop": [32, 32]}
    for name, workers in (("alone", 0), ("helped", 2)):
        write_config(work / name, workers=workers, batch=2, **sizes)
    for kind in ("panoptic", "video"):
        tiny_file(kind, work)
    rng = np.random.default_rng(1)
    with av.open(str(work / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            picture = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    prepare_data(work)
    assert main(["data", "synth", "cityscapes", str(work / "city"), "--images", "4", "--size", "64x128"]) == 0


def prepare_data(work: Path) -> None:
    """Images with labels, and a JSON of objects in them."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (work / name).mkdir()
    for number in range(12):
        picture, label = rng.integers(0, 255, (40, 56, 3), np.uint8), rng.integers(0, 11, (5, 7), np.uint8)
        Image.fromarray(picture).save(work / "images" / f"{number}.png")
        Image.fromarray(np.kron(label, np.ones((8, 8), np.uint8))).save(work / "labels" / f"{number}.png")
    rows = [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 56} for n in range(12)]
    box = {"category_id": 1, "iscrowd": 0, "bbox": [4, 4, 26, 26], "area": 676}
    box["segmentation"] = [[4, 4, 30, 4, 30, 30, 4, 30]]
    objects = [{"id": n + 1, "image_id": n, **box} for n in range(12)]
    content = {"images": rows, "annotations": objects, "categories": [{"id": 1, "name": "box"}]}
    (work / "coco.json").write_text(json.dumps(content))
    shutil.copytree(work / "images", work / "export" / "images")
    (work / "export" / "annotations.json").write_text(json.dumps(content))


def tasks(work: Path, port: int) -> dict[str, Task]:
    """All of them, with what `prepare` made in the folder and the port of a server."""
    alone, helped = (partial(train, work / name / "config.yaml") for name in ("alone", "helped"))
    model, images, labels = work / "panoptic.safetensors", work / "images", work / "labels"

    def verb(*words: object, into: str = "", growing: bool = False) -> Task:
        command = partial(filled, words, into)
        return Task(command, growing=growing, once=words[0] == "data")

    forms = ("--formats", "overlay,panoptic,json,semantic")
    films = ("--formats", "video,tracks,mots,step", "--track")
    address = f"http://127.0.0.1:{port}/weights.bin"
    found = ("--images", images, "--output", OUT)
    return {
        "train": Task(alone, growing=True),
        "train-workers": Task(helped, growing=True),
        "train-two": Task(alone, 2, growing=True),
        "train-one-of-two": Task(alone, 2, "one", growing=True),
        "train-hang": Task(alone, 2, "hang", growing=True),
        "train-worker-dies": Task(helped, 1, "worker", growing=True),
        "predict": verb("predict", model, images, *forms, "--output", OUT),
        "film": verb("predict", work / "video.safetensors", work / "drive.mp4", *films, "--output", OUT, growing=True),
        "convert": verb("convert", model, OUT, "--model", _MODEL, "--half", into="half.safetensors"),
        "export": verb(
            "export", model, "--size", "64x96", "--images", images / "0.png", "--output", OUT, into="m.onnx"
        ),
        "export-openvino": verb(
            *("export", model, "--format", "openvino", "--size", "64x96", "--images", images / "0.png"),
            *("--output", OUT),
            into="m.xml",
        ),
        "label": verb("data", "label", model, *found[1:]),
        "import": verb("data", "import", work / "export", "--output", OUT, into="made"),
        "prepare": Task(partial(prepare_city, work / "city"), once=True),
        "from-labels": verb("data", "from-labels", *found, "--labels", labels, "--classes", "camvid"),
        "from-coco": verb("data", "from-coco", *found, "--instances", work / "coco.json"),
        "synth": verb("data", "synth", "cityscapes", OUT, "--images", "3", "--size", "64x128", into="made"),
        "download": Task(lambda out: ["download", address], environment={"KNET_HOME": "OUT", "KNET_OFFLINE": "0"}),
    }


CONTENT = bytes(range(256)) * 8192


class SlowServer(BaseHTTPRequestHandler):
    """Gives a file of 2 MB in pieces, also from the middle on."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """The file, in a third of a second."""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.headers.get("If-Range") == '"one"' else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        with suppress(OSError):  # the other side was killed
            for place in range(start, len(CONTENT), 65_536):
                self.wfile.write(CONTENT[place : place + 65_536])
                time.sleep(0.01)
