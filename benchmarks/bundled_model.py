"""Bundles the weights of a training run, measures them on CamVid val, and writes the README's table.

    python benchmarks/bundled_model.py bundle runs/rtknet-slim-camvid
    python benchmarks/bundled_model.py measure data/camvid
    python benchmarks/bundled_model.py table

`bundle` puts the run's best weights into the package in half precision, and its log and config here. `measure`
evaluates the bundled file (data made as configs/rtknet-slim-camvid.yaml says) into rtknet-slim-camvid/figures.json.
`table` writes the figures into README.md; a test checks that the table is that of the figures, and the figures are
those of the bundled file.
"""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = "rtknet-slim-camvid"
ASSET = ROOT / "src" / "knet" / "assets" / f"{MODEL}.safetensors"
FOLDER = ROOT / "benchmarks" / MODEL
MARKS = ("<!-- figures of the bundled model: begin -->", "<!-- figures of the bundled model: end -->")


def bundle(run: Path) -> None:
    """The best weights of a run into the package."""
    from knet.inference.load import convert

    convert(run / "best.safetensors", ASSET, MODEL, half=True)
    FOLDER.mkdir(exist_ok=True)
    for name in ("config.yaml", "train.csv", "val.csv"):
        shutil.copyfile(run / name, FOLDER / name)


def measure(data: Path) -> None:
    """The bundled model on CamVid val."""
    import knet
    from knet.data.readers.coco_panoptic import CocoPanoptic
    from knet.runs.evaluate import evaluate

    segmenter = knet.load(MODEL, device="cpu", precision="fp32")
    validation = CocoPanoptic(
        data / "images" / "val", data / "val" / "panoptic.json", data / "val" / "panoptic", segmenter.categories
    )
    result = {"weights_sha256": digest(), "images": len(validation), **evaluate(segmenter, validation)}
    (FOLDER / "figures.json").write_text(json.dumps(result, indent=1) + "\n")


def digest() -> str:
    """SHA-256 of the bundled weights."""
    return hashlib.sha256(ASSET.read_bytes()).hexdigest()


def render(figures: dict[str, Any]) -> str:
    """The figures as the README's table, in percent."""
    lines = ["| class | kind | PQ | SQ | RQ | IoU |", "| --- | --- | --- | --- | --- | --- |"]
    ious = {int(key): row["iou"] for key, row in figures["semantic"]["classes"].items()}
    for key, row in figures["panoptic"]["classes"].items():
        kind = "thing" if row["thing"] else "stuff"
        cells = [row["name"], kind, *(percent(row[k]) for k in ("pq", "sq", "rq")), percent(ious[int(key)])]
        lines.append("| " + " | ".join(cells) + " |")
    for name in ("things", "stuff", "all"):
        row = figures["panoptic"][name]
        iou = percent(figures["semantic"]["miou"]) if name == "all" else ""
        cells = [f"**{name}**", f"{row['n']} classes", *(percent(row[k]) for k in ("pq", "sq", "rq")), iou]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """One decimal, a dash where there is nothing."""
    return "-" if value is None else f"{100 * value:.1f}"


def table() -> None:
    """The figures into the README."""
    readme = ROOT / "README.md"
    figures = json.loads((FOLDER / "figures.json").read_text())
    pattern = re.escape(MARKS[0]) + r".*?" + re.escape(MARKS[1])
    text = f"{MARKS[0]}\n{render(figures)}\n{MARKS[1]}"
    readme.write_text(re.sub(pattern, lambda _: text, readme.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["help"]
    jobs = {"bundle": bundle, "measure": measure, "table": table}
    if verb not in jobs or len(rest) != (verb != "table"):
        sys.exit(__doc__)
    jobs[verb](*map(Path, rest))
