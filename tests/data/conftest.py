from __future__ import annotations

from pathlib import Path

import pytest
from tiny_panoptic import TinyPanoptic, make_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> TinyPanoptic:
    return make_tiny(tmp_path)
