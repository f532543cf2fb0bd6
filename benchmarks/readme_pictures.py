"""Makes the README's pictures with the bundled model: `python benchmarks/readme_pictures.py`."""

from importlib import resources
from pathlib import Path

from PIL import Image

import knet

DOCS = Path(__file__).parents[1] / "docs"
GAP = 6  # pixels
FRAMES, PART = (0, 12, 25, 37), (560, 240, 1280, 642)


def sheet(pictures: list[Image.Image], width: int) -> Image.Image:
    """Pictures of one size in rows of two, each that wide."""
    height = pictures[0].height * width // pictures[0].width
    rows = -(-len(pictures) // 2)
    page = Image.new("RGB", (2 * width + GAP, rows * height + (rows - 1) * GAP), "white")
    for number, picture in enumerate(pictures):
        place = (number % 2 * (width + GAP), number // 2 * (height + GAP))
        page.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    return page


def main() -> None:
    """Writes docs/street.jpg and docs/tracks.jpg."""
    segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32")
    with resources.as_file(resources.files("knet") / "assets" / "demo") as examples:
        street = Image.open(examples / "city_2.jpg").convert("RGB")
        overlay = Image.fromarray(segmenter(street).overlay(street))
        sheet([street, overlay], 700).save(DOCS / "street.jpg", quality=88)
        frames = [
            Image.fromarray(segmentation.overlay(frame)).crop(PART)
            for number, (frame, segmentation) in enumerate(segmenter.track(examples / "drive.mp4"))
            if number in FRAMES
        ]
    sheet(frames, 497).save(DOCS / "tracks.jpg", quality=88)


if __name__ == "__main__":
    main()
