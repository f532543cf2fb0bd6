"""The font of names and legends, in a size that suits the picture."""

from functools import lru_cache

from PIL import ImageFont

_LINE = 58  # pixels of a picture's width for each of the font: 12 of them where a page shows it 700 wide


@lru_cache(maxsize=8)
def font_for(height: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, in a size that can be read in an image of height x width pixels, also when it is shrunk."""
    return ImageFont.load_default(size=min(max(11, round(min(width / _LINE, height / 18))), 96))


def line_height(height: int, width: int) -> int:
    """The height of a line of text in an image of the given height and width."""
    return round(font_for(height, width).getbbox("Ag")[3] * 1.35) + 2
