"""What precision costs: panoptic quality of the bundled model on CamVid val in fp32, bf16 and as exported files.

    python benchmarks/precision.py data/camvid
    python benchmarks/precision.py data/camvid --precision bf16 --exported slim-f32.xml slim-int8.xml
    python benchmarks/precision.py data/camvid --quick    # 8 images, to see that it runs

The data are those of configs/rtknet-lite-street.yaml. PQ counts, not the difference of logits: what users get are
segments. The share of equal pixels is that of the class (the same segments may have other numbers).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import knet
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.evaluation.panoptic import PanopticQuality
from knet.inference.results.encoding import semantic_ids
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter

MODEL = "rtknet-lite-street"


def main() -> None:
    """Every precision on the same images, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--precision", nargs="+", default=["bf16"], help="of torch, besides fp32")
    parser.add_argument("--exported", nargs="+", default=[], metavar="FILE", help="files of `knet export`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    args = parser.parse_args()
    runs = [("torch fp32", knet.load(MODEL, device=args.device, precision="fp32"))]
    runs += [(f"torch {kind}", knet.load(MODEL, device=args.device, precision=kind)) for kind in args.precision]
    for file in args.exported:  # OpenVINO computes the same file in other precisions, too
        others = args.precision if file.endswith(".xml") else []
        runs += [(f"{Path(file).name} {name}", knet.load(file, precision=name)) for name in ("auto", *others)]
    data = CocoPanoptic(
        args.data / "images" / "val",
        args.data / "val" / "panoptic.json",
        args.data / "val" / "panoptic",
        runs[0][1].categories,
    )
    count = min(8, len(data)) if args.quick else len(data)
    rows, reference = [], list[np.ndarray]()
    print(f"{count} images of CamVid val, {MODEL}")
    print(f"{'':<24} {'PQ':>6} {'SQ':>6} {'RQ':>6} {'difference':>11}  equal pixels")
    for name, segmenter in runs:
        quality, equal = PanopticQuality(segmenter.categories), list[float]()
        for index, (sample, found) in enumerate(results(segmenter, data, count)):
            quality.add(sample.id_map, sample.segments, found.id_map, found.segments, name=sample.name)
            classes = semantic_ids(found)
            if segmenter is runs[0][1]:
                reference.append(classes)
            equal.append(float((classes == reference[index]).mean()))
        figures = {key: 100 * value for key, value in quality.result()["all"].items() if key in ("pq", "sq", "rq")}
        rows.append({"run": name, **figures, "equal": float(np.mean(equal))})
        difference = figures["pq"] - rows[0]["pq"]
        print(
            f"{name:<24} {figures['pq']:>6.2f} {figures['sq']:>6.2f} {figures['rq']:>6.2f} {difference:>+11.2f}  "
            f"{100 * rows[-1]['equal']:.3f} %",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def results(segmenter: Segmenter, data: CocoPanoptic, count: int) -> Iterator[tuple[Any, Segmentation]]:
    """Image by image, the truth and what the model says."""
    for index in range(count):
        sample = data.read(index)
        yield sample, segmenter.segment(sample.image, sample.name)


if __name__ == "__main__":
    main()
