"""Makes docs/report.jpg: the bundled model at a third of its size, judged by what it says at its full size.

    python docs/report_picture.py [CHROMIUM]

It needs `pip install playwright` and Chromium. The truth is no truth, but the page is a real one.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PHOTOS = HERE.parent / "src" / "knet" / "assets" / "demo"
KNET = [sys.executable, "-m", "knet.cli.main"]
MODEL = "rtknet-lite-street"


def main(chromium: str = "/usr/bin/chromium") -> None:
    """Writes the picture."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        photos.mkdir()
        for path in PHOTOS.glob("*.jpg"):
            (photos / path.name).symlink_to(path)
        full = folder / "full"
        predict = [*KNET, "predict", MODEL, str(photos), "--output", str(full), "--formats", "panoptic"]
        subprocess.run(predict, check=True)  # noqa: S603
        data = [f"data.val.images={photos}", f"data.val.json={full}/panoptic.json", f"data.val.masks={full}"]
        report = folder / "report.html"
        subprocess.run([*KNET, "eval", MODEL, *data, "--size", "140", "--report", str(report)], check=True)  # noqa: S603
        shot = folder / "report.png"
        with sync_playwright() as engine:
            options = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = engine.chromium.launch(executable_path=chromium, args=options)
            page = browser.new_page(viewport={"width": 1180, "height": 1120})
            page.goto(report.as_uri())
            page.screenshot(path=shot)
            browser.close()
        Image.open(shot).convert("RGB").save(HERE / "report.jpg", quality=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
