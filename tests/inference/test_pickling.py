"""A segmenter goes to other processes: it can be pickled, and started ones (not forked ones) use it."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import hand_made

import knet
from knet.inference.results.segmentation import Segmentation
from tiny_models import ARGUMENTS, tiny_file

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def same(one: Segmentation, other: Segmentation) -> bool:
    return one.segments == other.segments and bool((one.id_map == other.id_map).all())


@pytest.mark.parametrize("task", [task for task in ARGUMENTS if task != "clip"])
def test_a_segmenter_pickles_with_its_results(task: str, tmp_path: Path) -> None:
    segmenter = knet.load(tiny_file(task, tmp_path), device="cpu", score=0.1)
    result = segmenter(IMAGE)
    again = pickle.loads(pickle.dumps(segmenter))
    assert same(again(IMAGE), result) and again.score == 0.1 and again.categories == segmenter.categories
    assert same(pickle.loads(pickle.dumps(result)), result)


def test_in_half_precision_too(tmp_path: Path) -> None:
    segmenter = knet.load(tiny_file("panoptic", tmp_path), device="cpu", precision="bf16")
    assert same(pickle.loads(pickle.dumps(segmenter))(IMAGE), segmenter(IMAGE))


def test_an_exported_file_is_opened_again(tmp_path: Path) -> None:
    segmenter = knet.load(hand_made(tmp_path / "model.onnx"))
    assert same(pickle.loads(pickle.dumps(segmenter))(IMAGE), segmenter(IMAGE))


def test_a_spawned_process_uses_it_after_this_one_did(tiny_weights: Path) -> None:
    segmenter = knet.load(tiny_weights, device="cpu")
    result = segmenter(IMAGE)
    threads = (torch.get_num_threads(),)  # on which the last bits depend
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, threads) as pool:
        (there,) = pool.map(segmenter, [IMAGE])
    assert same(there, result)
