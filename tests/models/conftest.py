"""Networks are compared with the originals' numbers on two threads, also where two test processes share the cores."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _two_threads() -> Iterator[None]:
    """Sums in another order can move a pixel over the hard edge of a mask, which later stages magnify."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
