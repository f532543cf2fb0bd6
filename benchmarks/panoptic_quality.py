"""Panoptic quality of many large maps: `panoptic_quality` against the panopticapi algorithm, plainly written.

    python benchmarks/panoptic_quality.py              # 500 images of 2048x1024, some minutes, 100 MB of disk
    python benchmarks/panoptic_quality.py --images 20  # to see that it runs

Makes seeded panoptic maps (about 60 segments, objects that hide each other, a crowd region, void) with predictions that
are shifted, missing, invented and mistaken, and judges the same files in one process each, one after the other. Prints
the times, their ratio and the peak memory after 50 images and after all; fails if the results are not identical.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 1024, 2048
STUFF, THINGS = range(1, 12), range(12, 20)
SHIFT = 256**3
FEW = 50  # images after which memory is measured first


def make(folder: Path, images: int) -> None:
    """Truth and predictions as COCO panoptic files: of all images, and of the first few."""
    categories = [{"id": i, "name": f"class {i}", "isthing": int(i in THINGS)} for i in [*STUFF, *THINGS]]
    found: dict[str, list[dict[str, Any]]] = {"truth": [], "predictions": []}
    for name in found:
        for part in ("all", "few"):
            (folder / f"{name}_{part}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        for rows in pool.map(make_image, [folder] * images, range(images), chunksize=5):
            for name, row in rows.items():
                found[name].append(row)
    for name, annotations in found.items():
        for part, some in (("all", annotations), ("few", annotations[:FEW])):
            document = {"annotations": some, "categories": categories}
            (folder / f"{name}_{part}.json").write_text(json.dumps(document))


def make_image(folder: Path, n: int) -> dict[str, dict[str, Any]]:
    """The n-th image; its annotations."""
    rng = np.random.default_rng(n)
    scene = [*bands(rng), *objects(rng, 50)]
    rows = {}
    for name, shapes in (("truth", scene), ("predictions", disturbed(rng, scene))):
        ids, segments = draw(rng, shapes, crowd=name == "truth")
        png = folder / f"{name}_all" / f"{n:06d}.png"
        rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(png)  # as the official tools write
        rows[name] = {"image_id": f"{n:06d}", "file_name": png.name, "segments_info": segments}
        if n < FEW:
            (folder / f"{name}_few" / png.name).hardlink_to(png)
    return rows


def bands(rng: np.random.Generator) -> list[tuple]:
    """Stuff: wavy bands from top to bottom, as (category, upper edge (W,))."""
    x = np.arange(WIDTH) / WIDTH * 2 * np.pi
    chosen = rng.permutation(list(STUFF))[:9]
    tops = np.sort(rng.uniform(0.05, 1, len(chosen))) * HEIGHT
    return [
        (int(c), top + 25 * np.sin(x * rng.integers(1, 9) + rng.uniform(0, 6)) + rng.normal(0, 1, WIDTH))
        for c, top in zip(chosen, tops, strict=True)
    ]


def objects(rng: np.random.Generator, count: int) -> list[tuple]:
    """Things: wavy ellipses as (category, centre y, x, radii y, x, phase)."""
    return [
        (
            int(rng.choice(THINGS)),
            *(rng.uniform(0, 1, 2) * (HEIGHT, WIDTH)),
            *rng.lognormal(3.7, 0.6, 2),
            rng.uniform(0, 6),
        )
        for _ in range(count)
    ]


def disturbed(rng: np.random.Generator, scene: list[tuple]) -> list[tuple]:
    """A prediction: everything shifted, some classes wrong, some objects missing, some invented."""
    shapes = []
    for shape in scene:
        if len(shape) == 2:
            shapes.append((shape[0], shape[1] + rng.normal(0, 6)))
        elif rng.random() > 0.15:
            category = int(rng.choice(THINGS)) if rng.random() < 0.1 else shape[0]
            shapes.append((category, *(np.array(shape[1:5]) + rng.normal(0, 5, 4)), shape[5]))
    return [*shapes, *objects(rng, 8)]


def draw(rng: np.random.Generator, shapes: list[tuple], crowd: bool) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(H,W) ids and `segments_info`; what the bands leave free above is void. The last thing may be a crowd."""
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    y, x = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    numbers = rng.choice(SHIFT - 1, len(shapes), replace=False) + 1  # as panopticapi's converters: colours
    for number, shape in zip(numbers, shapes, strict=True):
        if len(shape) == 2:
            np.copyto(ids, number, where=y >= shape[1])
        else:
            _, cy, cx, ry, rx, phase = shape
            ry, rx = max(ry, 3) * 1.2, max(rx, 3) * 1.2
            part = slice(max(int(cy - ry), 0), int(cy + ry) + 1), slice(max(int(cx - rx), 0), int(cx + rx) + 1)
            dy, dx = (y[part[0]] - cy) / ry, (x[part[1]] - cx) / rx
            inside = dy**2 + dx**2 < 0.7 + 0.2 * np.sin(9 * np.arctan2(dy, dx) + phase)
            np.copyto(ids[part], number, where=inside)
    present = dict(zip(*(a.tolist() for a in np.unique(ids, return_counts=True)), strict=True))
    rows = [
        {"id": int(number), "category_id": shape[0], "area": present[number], "iscrowd": 0}
        for number, shape in zip(numbers.tolist(), shapes, strict=True)
        if number in present
    ]
    if crowd:
        rows[-1]["iscrowd"] = int(len(shapes[-1]) > 2)
    return ids, rows


def plain(folder: Path, part: str) -> dict[int, tuple[float, int, int, int]]:
    """panopticapi's algorithm, pixel by pixel as it does it: {category: (sum of IoU, tp, fp, fn)}."""
    truth, predictions = (json.loads((folder / f"{n}_{part}.json").read_text()) for n in ("truth", "predictions"))
    by_image = {row["image_id"]: row for row in predictions["annotations"]}
    totals: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    for row in truth["annotations"]:
        other = by_image[row["image_id"]]
        true = colours_to_ids(np.array(Image.open(folder / f"truth_{part}" / row["file_name"]), dtype=np.uint32))
        found = colours_to_ids(
            np.array(Image.open(folder / f"predictions_{part}" / other["file_name"]), dtype=np.uint32)
        )
        count_image(true, found, row["segments_info"], other["segments_info"], totals)
    return {category: (t[0], int(t[1]), int(t[2]), int(t[3])) for category, t in totals.items()}


def colours_to_ids(colours: np.ndarray) -> np.ndarray:
    """(H,W,3) uint32 -> (H,W) uint32"""
    return colours[:, :, 0] + 256 * colours[:, :, 1] + 256 * 256 * colours[:, :, 2]


def count_image(true: np.ndarray, found: np.ndarray, truth: list, predictions: list, totals: dict) -> None:
    """Adds one image."""
    of_truth, of_found = {s["id"]: s for s in truth}, {s["id"]: s for s in predictions}
    areas = dict(zip(*(a.tolist() for a in np.unique(found, return_counts=True)), strict=True))
    assert set(areas) - {0} == set(of_found)
    pairs, counts = np.unique(true.astype(np.uint64) * SHIFT + found.astype(np.uint64), return_counts=True)
    shared = {divmod(int(pair), SHIFT): int(count) for pair, count in zip(pairs, counts, strict=True)}
    true_done, found_done = set(), set()
    for (t, f), overlap in shared.items():
        if t not in of_truth or f not in of_found or of_truth[t]["iscrowd"]:
            continue
        category = of_truth[t]["category_id"]
        if category != of_found[f]["category_id"]:
            continue
        iou = overlap / (areas[f] + of_truth[t]["area"] - overlap - shared.get((0, f), 0))
        if iou > 0.5:
            totals[category][0] += iou
            totals[category][1] += 1
            true_done.add(t)
            found_done.add(f)
    crowds = {s["category_id"]: i for i, s in of_truth.items() if s["iscrowd"]}
    for i, segment in of_truth.items():
        if i not in true_done and not segment["iscrowd"]:
            totals[segment["category_id"]][3] += 1
    for i, segment in of_found.items():
        if i not in found_done:
            forgiven = shared.get((0, i), 0) + shared.get((crowds.get(segment["category_id"]), i), 0)
            totals[segment["category_id"]][2] += not forgiven / areas[i] > 0.5


def ours(folder: Path, part: str) -> dict[int, tuple[float, int, int, int]]:
    """The same by this package."""
    from knet.evaluation import panoptic_quality

    result = panoptic_quality(folder / f"truth_{part}.json", folder / f"predictions_{part}.json")
    rows = result["classes"]
    return {i: (r["iou"], r["tp"], r["fp"], r["fn"]) for i, r in rows.items() if r["pq"] is not None}


def judge(folder: Path, way: str, part: str) -> dict[str, Any]:
    """Seconds, peak memory in MB and result of one way in a process of its own."""
    command = [sys.executable, __file__, "--judge", str(folder), way, part]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def judge_here(folder: Path, way: str, part: str) -> None:
    """What the process of `judge` does."""
    if way == "ours":
        import knet.evaluation  # noqa: F401  (importing is not what is measured)
    start, cpu = time.perf_counter(), time.process_time()
    result = {"ours": ours, "plain": plain}[way](folder, part)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "result": sorted(result.items())}))


def compare(folder: Path, images: int) -> None:
    """Makes, judges, prints."""
    make(folder, images)
    few, all_, other = (judge(folder, *what) for what in (("ours", "few"), ("ours", "all"), ("plain", "all")))
    assert [(c, *row[1:]) for c, row in all_["result"]] == [(c, *row[1:]) for c, row in other["result"]]
    sums = np.array([[row[0] for _, row in run["result"]] for run in (all_, other)])
    assert np.allclose(sums[0], sums[1], rtol=1e-12, atol=0), "sums of IoU differ by more than their order explains"
    counts = np.array([row[1:] for _, row in all_["result"]]).sum(axis=0)
    print(
        f"{images} images of {WIDTH}x{HEIGHT}, same files, one process each; tp {counts[0]}, fp {counts[1]}, ", end=""
    )
    print(f"fn {counts[2]}: identical")
    for name, run in (("panopticapi's algorithm", other), ("knet", all_)):
        print(f"{name:24}{run['seconds']:8.2f} s  {1000 * run['seconds'] / images:7.1f} ms an image, ", end="")
        print(f"{1000 * run['cpu'] / images:.1f} ms of processor time")
    print(f"{'ratio':24}{other['seconds'] / all_['seconds']:8.2f}   of processor time ", end="")
    print(f"{other['cpu'] / all_['cpu']:.2f}; {os.cpu_count()} cores")
    print(f"{'peak memory of knet':24}{few['peak']:8.0f} MB after {min(FEW, images)} images, ", end="")
    print(f"{all_['peak']:.0f} MB after {images}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--judge", nargs=3, metavar=("FOLDER", "WAY", "PART"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        judge_here(Path(args.judge[0]), *args.judge[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args.images)


if __name__ == "__main__":
    main()
