"""Bundles the weights of a training run, measures all that is said about them, and writes the tables.

    python benchmarks/bundled_model.py bundle runs/rtknet-lite-street
    python benchmarks/bundled_model.py measure data        # the folder that configs/rtknet-lite-street.yaml calls data
    python benchmarks/bundled_model.py speed               # on an idle machine, some minutes
    python benchmarks/bundled_model.py table

`bundle` puts the run's best weights into the package in half precision, and its log and config here. `measure`
evaluates the bundled file: on CamVid val, and on the development frames (those of Lund and TuSimple, never trained on),
whose labels are other networks' and only say how far both agree. `speed` times it against rtknet-slim-camvid, the
network that was bundled before; its weights do not matter for that and are random. `table` writes the figures into
README.md and benchmarks/README.md; a test checks that the tables are those of the figures, and the figures are those of
the bundled file.
"""

import contextlib
import hashlib
import io
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL, FORMER = "rtknet-lite-street", "rtknet-slim-camvid"
ASSET = ROOT / "src" / "knet" / "assets" / f"{MODEL}.safetensors"
FOLDER = ROOT / "benchmarks" / MODEL
MARKS = ("<!-- figures of the bundled model: begin -->", "<!-- figures of the bundled model: end -->")
DEVELOPMENT = ("lund_*", "tusimple_*")
SIZE = (416, 576)  # height and width of CamVid's images at the model's own size
FRAMES = 76


def bundle(run: Path) -> None:
    """The best weights of a run into the package."""
    from knet.inference.load import convert

    convert(run / "best.safetensors", ASSET, MODEL, half=True)
    FOLDER.mkdir(exist_ok=True)
    for name in ("config.yaml", "train.csv", "val.csv"):
        shutil.copyfile(run / name, FOLDER / name)


def measure(data: Path) -> None:
    """The bundled model on CamVid val and on the development frames."""
    import knet

    found = figures_of(knet.load(MODEL, device="cpu", precision="fp32"), data)
    before = read_figures()
    kept = {"speed": before["speed"]} if "speed" in before else {}
    write_figures({"weights_sha256": digest(), "megabytes": ASSET.stat().st_size / 1e6, **found, **kept})


def figures_of(segmenter: Any, data: Path) -> dict[str, Any]:
    """The figures of a segmenter on both sets."""
    from knet.config import data_config
    from knet.data.readers.open import open_data
    from knet.runs.evaluate import evaluate

    camvid = {"images": "camvid/images/val", "json": "camvid/val/panoptic.json", "masks": "camvid/val/panoptic"}
    pseudo = {"images": "images", "json": "panoptic.json", "masks": "panoptic"}
    pseudo = {key: f"street/pseudo/{name}" for key, name in pseudo.items()}
    found = {}
    for name, files in (("camvid_val", camvid), ("development", {**pseudo, "names": list(DEVELOPMENT)})):
        options = data_config(data__root=str(data), data__val=files)
        reader = open_data(options, options.val, segmenter.categories)
        found[name] = {"images": len(reader), **evaluate(segmenter, reader)}
    return found


def speed() -> None:
    """Times of an image at the model's own size on one thread, and of a tracked video on two, in turns."""
    import numpy as np
    import torch
    from original import take_turns
    from video_throughput import film

    import knet
    from knet.inference.bench import machine, photo

    rows: dict[str, Any] = {"machine": machine(torch.device("cpu")), "image": {}, "video": {}}
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(temporary)
        files = {MODEL: ASSET, FORMER: random_weights(FORMER, folder)}
        ways: dict[str, str] = {}
        for name, weights in files.items():
            ways[f"{name} torch-fp32"] = str(weights)
            for precision in ("fp32", "int8"):
                path = folder / f"{name}-{precision}.xml"
                knet.export(weights, "openvino", output=path, size=SIZE, precision=precision)
                ways[f"{name} openvino-{precision}"] = str(path)
        torch.set_num_threads(1)
        image = np.asarray(photo(SIZE))
        loaded: dict[str, Any] = {}
        for name, path in ways.items():
            for precision in ("auto",) if "int8" in name else ("fp32", "bf16") if "openvino" in name else ("fp32",):
                title = name.removesuffix("fp32") + precision if "openvino-fp32" in name else name
                loaded[title] = knet.load(path, device="cpu", precision=precision)
        rows["image"] = {
            name: times["wall"]
            for name, times in take_turns({k: (lambda s=s: s(image)) for k, s in loaded.items()}, 15, 3).items()
        }
        torch.set_num_threads(2)
        video = film(folder / "drive.mp4", FRAMES)
        rows["video"] = {"frames": FRAMES, "size": "1280x720"}
        for name in (MODEL, FORMER):
            path, precision = fastest(rows["image"], name, ways)
            exported = folder / f"{name}-video.xml"
            if path.endswith(".xml"):
                knet.export(files[name], "openvino", output=exported, precision="int8" if "int8" in path else "fp32")
                path = str(exported)
            rows["video"][name] = {"file": precision, "frames_per_second": frames_per_second(path, precision, video)}
    write_figures({**read_figures(), "speed": rows})


def fastest(times: dict[str, float], model: str, ways: dict[str, str]) -> tuple[str, str]:
    """File and precision of a model's fastest way."""
    best = min((name for name in times if name.startswith(model)), key=lambda name: times[name])
    precision = best.rsplit("-", 1)[1]
    return ways.get(best, ways[f"{model} openvino-fp32"]), precision


def frames_per_second(model: str, precision: str, video: Path) -> float:
    """Frames a second of `knet predict --track` from a file to an annotated file: the best of three runs."""
    from knet.cli.main import main as command

    options = ["--track", "--formats", "video", "--output", str(video.parent / "results")]
    options += [] if precision == "int8" else ["--precision", precision]
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            assert command(["predict", model, str(video), *options]) == 0
        taken.append(time.perf_counter() - start)
    return FRAMES / min(taken)


def random_weights(model: str, folder: Path) -> Path:
    """A file of random weights of a model."""
    import torch

    from knet.data.categories import load_categories
    from knet.inference.load import describe_official
    from knet.models.zoo import create, entry
    from knet.weights.load import save_weights

    torch.manual_seed(0)
    path = folder / f"{model}.safetensors"
    assert load_categories(entry(model).categories)
    save_weights(path, create(model).state_dict(), describe_official(model))
    return path


def digest() -> str:
    """SHA-256 of the bundled weights."""
    return hashlib.sha256(ASSET.read_bytes()).hexdigest()


def read_figures() -> dict[str, Any]:
    """The figures that were measured."""
    path = FOLDER / "figures.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_figures(figures: dict[str, Any]) -> None:
    """Puts figures into the file that `table` reads."""
    (FOLDER / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def render(figures: dict[str, Any]) -> str:
    """The figures on CamVid val as the README's table, in percent."""
    camvid = figures["camvid_val"]
    lines = ["| class | kind | PQ | SQ | RQ | IoU |", "| --- | --- | --- | --- | --- | --- |"]
    ious = {int(key): row["iou"] for key, row in camvid["semantic"]["classes"].items()}
    for key, row in camvid["panoptic"]["classes"].items():
        kind = "thing" if row["thing"] else "stuff"
        cells = [row["name"], kind, *(percent(row[k]) for k in ("pq", "sq", "rq")), percent(ious[int(key)])]
        lines.append("| " + " | ".join(cells) + " |")
    for name in ("things", "stuff", "all"):
        row = camvid["panoptic"][name]
        iou = percent(camvid["semantic"]["miou"]) if name == "all" else ""
        cells = [f"**{name}**", f"{row['n']} classes", *(percent(row[k]) for k in ("pq", "sq", "rq")), iou]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render_goals(figures: dict[str, Any]) -> str:
    """The figures beside their goals, for benchmarks/README.md."""
    panoptic, semantic = figures["camvid_val"]["panoptic"], figures["camvid_val"]["semantic"]
    rows = [
        ("CamVid val (101 images), mIoU of 11 classes", percent(semantic["miou"]), "70"),
        ("the same, PQ", percent(panoptic["all"]["pq"]), "60"),
        ("the same, PQ of things", percent(panoptic["things"]["pq"]), "42"),
        (
            f"development frames ({figures['development']['images']}), pixels as other networks labelled them",
            percent(figures["development"]["semantic"]["pixel_accuracy"]),
            "90",
        ),
        ("size of the file, MB", f"{figures['megabytes']:.1f}", "at most 20"),
    ]
    if "speed" in figures:
        image, video = figures["speed"]["image"], figures["speed"]["video"]
        best = {name: min((t, way) for way, t in image.items() if way.startswith(name)) for name in (MODEL, FORMER)}
        ratio = best[MODEL][0] / best[FORMER][0]
        plain = image[f"{MODEL} torch-fp32"] / image[f"{FORMER} torch-fp32"]
        told = ", ".join(f"{way.split()[-1]} {time_:.1f} ms" for time_, way in best.values())
        rows += [
            (f"image to map, 1 thread, fastest file, over that of {FORMER} ({told})", f"{ratio:.2f}", "at most 0.6"),
            ("the same in torch, fp32", f"{plain:.2f}", "at most 1.2"),
        ]
        rates = [video[name]["frames_per_second"] for name in (MODEL, FORMER)]
        told = f"{rates[0]:.1f} frames a second, {FORMER} {rates[1]:.1f}"
        rows.append((f"1280x720 video, tracked, file to file, 2 threads ({told})", f"{rates[0] / rates[1]:.2f}", "2"))
    lines = ["| what | measured | goal |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(value: float | None) -> str:
    """One decimal, a dash where there is nothing."""
    return "-" if value is None else f"{100 * value:.1f}"


def table() -> None:
    """The figures into both files."""
    figures = read_figures()
    for path, text in ((ROOT / "README.md", render(figures)), (ROOT / "benchmarks/README.md", render_goals(figures))):
        pattern = re.escape(MARKS[0]) + r".*?" + re.escape(MARKS[1])
        marked = f"{MARKS[0]}\n{text}\n{MARKS[1]}"
        path.write_text(re.sub(pattern, lambda _, marked=marked: marked, path.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["help"]
    jobs = {"bundle": bundle, "measure": measure, "speed": speed, "table": table}
    if verb not in jobs or len(rest) != (verb in ("bundle", "measure")):
        sys.exit(__doc__)
    jobs[verb](*map(Path, rest))
