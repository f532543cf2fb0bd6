"""Lists of masks for Cityscapes' AP in which names are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.errors import DataError
from knet.evaluation import cityscapes_instance_ap


@pytest.mark.parametrize("name", ["a\0b.png", "circle/m.png", "m" * 300 + ".png", "../m.png", "/m.png", ""])
def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir(), found.mkdir()
    Image.fromarray(np.full((8, 12), 26001, np.uint16)).save(truth / "a_000000_000001_gtFine_instanceIds.png")
    (found / "circle").symlink_to("circle")
    (found / "a_000000_000001_pred.txt").write_text(f"{name} 26 0.9\n")
    with pytest.raises(DataError) as error:
        cityscapes_instance_ap(truth, found)
    assert len(str(error.value).splitlines()) == 1
