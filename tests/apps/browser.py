"""The system's Chromium for tests of pages. Where something is missing they are skipped, and say what."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright, without a window."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install 'knet[dev]')")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        # A browser is no Python package, so pip cannot bring it.
        pytest.skip("there is no Chromium on this system (apt install chromium)")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # for root
        yield browser
        browser.close()


def faults(page: Any) -> list[str]:
    """What axe calls a serious or critical fault of accessibility."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [f"{fault['id']}: {node['html'][:200]}" for fault in grave for node in fault["nodes"]]
