"""Makes the pictures of docs/page.md: the page of `knet demo --serve` in the system's Chromium.

python benchmarks/page_pictures.py
"""

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import knet
from knet.apps.serve import serving

DOCS, DEMO = Path(__file__).parents[1] / "docs", Path(knet.__file__).parent / "assets" / "demo"


def shoot(page: Any, name: str, **options: Any) -> None:
    """Writes what a tab shows as JPEG."""
    image = Image.open(BytesIO(page.screenshot(**options))).convert("RGB")
    image.save(DOCS / f"{name}.jpg", quality=82, optimize=True)
    print(f"{name}.jpg: {image.width}x{image.height}, {(DOCS / f'{name}.jpg').stat().st_size / 1000:.0f} kB")


def opened(browser: Any, url: str, width: int, height: int) -> Any:
    """A tab with a bundled picture and its result."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(120_000)
    page.goto(url)
    page.get_by_role("button", name="Segment").wait_for()
    page.set_input_files("input[type=file]", DEMO / "city_1.jpg")
    page.locator("img.knet-picture").wait_for()
    page.wait_for_timeout(1500)
    return page


def main() -> None:
    """Makes them at the widths of a desk and of a phone."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright, serving() as url:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = opened(browser, url, 1280, 860)
        place = page.locator("img.knet-picture").bounding_box()
        for shift in (0, 2):  # the map of segments is fetched at the first touch
            page.mouse.move(place["x"] + 0.42 * place["width"] + shift, place["y"] + 0.6 * place["height"])
            page.wait_for_timeout(500)
        shoot(page, "page-desk")
        shoot(opened(browser, url, 390, 844), "page-phone", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
