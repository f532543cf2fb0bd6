"""Ten labelled images of one's own: starting from the bundled model against starting from random weights.

    python benchmarks/ten_images.py data            # the folder that configs/rtknet-lite-street.yaml calls data
    python benchmarks/ten_images.py data --quick    # a few iterations, to see that it runs
    python benchmarks/ten_images.py data --iterations 60 --rate 1e-4 --rate 2.5e-5    # the bundled model at two rates

The ten images are frames of Lund and TuSimple that the bundled model has never seen, the rest of these are judged. Both
runs have the same network, images, iterations and random numbers; each has the learning rate that suits its start (or,
with --rate, those that are given, without the run from random weights), and learned batch norms stay as they are. The
first row is the bundled model before it saw any of the ten. Labels are those of other networks, so the figures say how
well ten images teach what was labelled, not how good the model is.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import knet

OPTIONS = {
    "augment": {"short_edges": [320, 352, 384, 416, 448], "max_edge": 1024, "crop": [288, 416], "pad": [288, 416]},
    "losses": {"pixels": 512},
    "batch": 4,
    "workers": 1,
    "precision": "fp32",
    "validate_every": 1000,
    "log_every": 10,
    "device": "cpu",
}


def main() -> None:
    """Trains both ways and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--output", type=Path, default=Path("runs/ten-images"))
    parser.add_argument("--rate", type=float, action="append", help="learning rate for a batch of 4; may be repeated")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    iterations = 2 if args.quick else args.iterations
    train, rest = split(args.data)
    files = {
        key: f"street/pseudo/{name}"
        for key, name in {"images": "images", "json": "panoptic.json", "masks": "panoptic"}.items()
    }
    data = {
        "root": str(args.data),
        "categories": "camvid",
        "train": {**files, "names": train, "ignore_void": True},
        "val": {**files, "names": rest},
    }
    print(f"{len(train)} images to learn from, {len(rest)} to judge, {iterations} iterations")
    print("| start | PQ | PQ of things | mIoU |\n| --- | --- | --- | --- |")
    print(
        row_of(
            "the bundled model as it is",
            knet.evaluate("rtknet-lite-street", data__root=args.data, data__val=data["val"]),
        )
    )
    runs = [("rtknet-lite-street", rate, 0) for rate in args.rate or ()]
    for start, rate, frozen in runs or (("rtknet-lite-street", 1e-4, 0), (None, 6e-4, None)):
        folder = args.output / f"{start or 'random'}-{rate:g}"
        options = {**OPTIONS, "data": data, "weights": start, "iterations": iterations, "output": str(folder)}
        options |= {"optimizer": {"learning_rate": rate, "warmup": 20}, "freeze_norms": frozen}
        knet.train(knet.config.RunConfig.model_validate({"model": "rtknet-lite-street", **options}))
        result = knet.evaluate(folder / "last.safetensors", data__root=args.data, data__val=data["val"])
        print(row_of(f"after {iterations} iterations from {start or 'random weights'}, {rate:g}", result), flush=True)


def row_of(name: str, result: dict[str, Any]) -> str:
    """A row of the table, in percent."""
    panoptic = result["panoptic"]
    figures = (panoptic["all"]["pq"], panoptic["things"]["pq"], result["semantic"]["miou"])
    return f"| {name} | {' | '.join(f'{100 * (figure or 0):.1f}' for figure in figures)} |"


def split(data: Path) -> tuple[list[str], list[str]]:
    """The names of ten development frames, and of the others."""
    rows = json.loads((data / "street/pseudo/panoptic.json").read_text())["images"]
    names = sorted(row["id"] for row in rows if row["id"].startswith(("lund_", "tusimple_")))
    train = names[::2] + names[1:2]
    return train, [name for name in names if name not in train]


if __name__ == "__main__":
    main()
