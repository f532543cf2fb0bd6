"""What holds of every result, whatever the model and the image: each pixel one id, each id one class, areas add up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import knet
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from tiny_models import ARGUMENTS, tiny_file

TASKS = [task for task in ARGUMENTS if task != "clip"]


@pytest.fixture(scope="module", params=TASKS)
def segmenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder: Path = tmp_path_factory.mktemp("laws")
    return knet.load(tiny_file(request.param, folder), device="cpu", size=64)


def check(result: Segmentation, segmenter: Segmenter) -> None:
    classes = {category.id: category for category in segmenter.categories}
    ids = [segment.id for segment in result.segments]
    assert len(set(ids)) == len(ids) and min(ids, default=1) > 0
    assert set(np.unique(result.id_map).tolist()) - {0} <= set(ids)
    for segment in result.segments:
        assert segment.name == classes[segment.category].name and segment.thing == classes[segment.category].thing
        assert 0 <= segment.score <= 1
        assert segment.area == int(result.mask(segment).sum())
    if result.masks is None:  # masks that share the pixels
        assert sum(segment.area for segment in result.segments) == int((result.id_map > 0).sum())
        assert set(ids) == set(np.unique(result.id_map).tolist()) - {0}
    stuff = [segment.category for segment in result.segments if not segment.thing]
    assert len(set(stuff)) == len(stuff)


@given(height=st.integers(1, 70), width=st.integers(1, 70), blocks=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws_of_results(segmenter: Segmenter, height: int, width: int, blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (blocks, blocks, 3)), np.ones((70 // blocks + 1,) * 2 + (1,)))
    image = np.ascontiguousarray(image[:height, :width].astype(np.uint8))
    result = segmenter(image)
    assert result.id_map.shape == (height, width)
    check(result, segmenter)
    if segmenter.task != "semantic":
        for _, tracked in segmenter.track([image, image[:, ::-1].copy()]):
            check(tracked, segmenter)
            tracks = [segment.track for segment in tracked.segments if segment.track is not None]
            assert len(set(tracks)) == len(tracks)
