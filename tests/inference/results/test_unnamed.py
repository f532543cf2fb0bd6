"""Results of images without a name: whoever saves them, into one folder, none replaces another."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from knet.inference.results.segmentation import Segmentation
from knet.structures import Category

TABLE = (Category(0, "road", False, (128, 64, 128)),)


def save_some(folder: Path, count: int = 3) -> list[str]:
    found = []
    for _ in range(count):
        result = Segmentation(np.zeros((8, 12), np.int32), [], TABLE, name="image", numbers={})
        paths = result.save(folder, ["panoptic", "json"])
        assert [path.name for path in result.save(folder, ["panoptic", "json"])] == [path.name for path in paths]
        found += [path.name for path in paths]
    return found


def test_processes_and_threads_that_share_a_folder(tmp_path: Path) -> None:
    before = save_some(tmp_path)  # a process that has ended would leave the same
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as processes, ThreadPoolExecutor(3) as threads:
        jobs = [pool.submit(save_some, tmp_path) for pool in (processes, threads) for _ in range(3)]
        names = before + [name for job in jobs for name in job.result()]
    assert len(names) == len(set(names)) == 7 * 3 * 3
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert {"image_segments.json", "image_2_segments.json", "image_21_panoptic.png"} <= set(names)
