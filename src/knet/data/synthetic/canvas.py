"""Paints a picture and its ground truth together: polygons of a 3D street seen through a camera."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[float, float, float] | np.ndarray
HAZE_AFTER = 180.0  # metres at which an object has lost 63 % of its own colour
NEAREST = 1.5  # metres; what is nearer lies behind the ego vehicle's windscreen


@dataclass(frozen=True, slots=True)
class Camera:
    """A level pinhole camera `eye` metres above a flat street: X to the right, Y up from the ground, Z ahead.

    It stands `ahead` metres in front of where the world's Z is 0.
    """

    focal: float
    center: float
    horizon: float
    eye: float
    ahead: float = 0.0

    def project(self, points: Sequence[tuple[float, float, float]]) -> np.ndarray:
        """Projects points: (N,3) metres -> (N,2) pixels x, y. Points nearer than 1.5 m are moved to that distance."""
        x, y, z = np.asarray(points, float).T
        z = np.maximum(z - self.ahead, NEAREST)
        return np.stack([self.center + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z], 1)


@dataclass(frozen=True, slots=True)
class PaintedObject:
    """What a number of the ground truth means: a class by its Cityscapes name, and whether it stands in a group."""

    kind: str
    group: bool


class Canvas:
    """`image` (H,W,3) float32 RGB and `numbers` (H,W) int32: 0 = nothing painted, n = `objects[n - 1]`.

    Paint from far to near: what comes later covers what was there, in the picture and in the truth.
    """

    def __init__(self, height: int, width: int, camera: Camera, rng: np.random.Generator):
        self.camera = camera
        self.image = np.zeros((height, width, 3), np.float32)
        self.numbers = np.zeros((height, width), np.int32)
        self.objects: list[PaintedObject] = []
        self.haze = np.array([205.0, 212.0, 220.0], np.float32)
        self._noise = _noise(height, width, rng)
        self._stuff: dict[str, int] = {}

    def add(self, kind: str, group: bool = False) -> int:
        """The number of a new object."""
        self.objects.append(PaintedObject(kind, group))
        return len(self.objects)

    def stuff(self, kind: str) -> int:
        """The one number of a class that is not counted."""
        if kind not in self._stuff:
            self._stuff[kind] = self.add(kind)
        return self._stuff[kind]

    def fill(
        self,
        points: np.ndarray,
        color: Color,
        number: int | None,
        *,
        distance: float = 0.0,
        texture: float = 6.0,
        shade: float = 0.15,
        alpha: float = 1.0,
    ) -> None:
        """Paints a polygon.

        Args:
            points: (N,2) pixel positions x, y.
            color: RGB 0..255.
            number: of the object; None leaves the ground truth as it is (a shadow).
            distance: in metres, for haze.
            texture, shade: strength of the noise, and how much brighter the top is than the bottom.
            alpha: 1 hides what is behind in the picture; the ground truth changes in any case.
        """
        height, width = self.numbers.shape
        left, top = (max(math.floor(v), 0) for v in points.min(0))
        right, bottom = (min(math.ceil(v) + 1, edge) for v, edge in zip(points.max(0), (width, height), strict=True))
        if left >= right or top >= bottom:
            return
        drawn = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(drawn).polygon([(float(x) - left, float(y) - top) for x, y in points], fill=1)
        mask = np.asarray(drawn, bool)
        region = self.image[top:bottom, left:right]
        share = 1.0 - math.exp(-distance / HAZE_AFTER)
        base = np.asarray(color, np.float32) * (1.0 - share) + self.haze * share
        gain = np.linspace(1.0 + shade / 2, 1.0 - shade / 2, bottom - top, dtype=np.float32)[:, None, None]
        paint = base * gain + (texture * self._noise[top:bottom, left:right])[..., None]
        region[mask] = paint[mask] if alpha == 1.0 else alpha * paint[mask] + (1.0 - alpha) * region[mask]
        if number is not None:
            self.numbers[top:bottom, left:right][mask] = number

    def face(
        self, points: Sequence[tuple[float, float, float]], color: Color, number: int | None, **look: float
    ) -> None:
        """Paints a flat polygon given in metres; `look` as in `fill`. Nothing is painted if all of it is too near."""
        distances = [point[2] - self.camera.ahead for point in points]
        if max(distances) > NEAREST:
            look.setdefault("distance", min(distances))
            self.fill(self.camera.project(points), color, number, **look)

    def upright(
        self, x: float, z: float, low: float, high: float, width: float, color: Color, number: int, **look: float
    ) -> None:
        """Paints an upright rectangle that faces the camera: centre x, distance z, from `low` to `high`, in metres."""
        left, right = x - width / 2, x + width / 2
        self.face([(left, low, z), (right, low, z), (right, high, z), (left, high, z)], color, number, **look)

    def disc(self, x: float, y: float, z: float, radius: float, color: Color, number: int, **look: float) -> None:
        """Paints a disc that faces the camera, in metres."""
        angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        ring = [(x + radius * math.cos(a), y + radius * math.sin(a), z) for a in angles]
        self.face(ring, color, number, **look)

    def develop(self, rng: np.random.Generator, light: np.random.Generator | None = None) -> np.ndarray:
        """The picture as a camera takes it, with light, vignette, a little blur and sensor noise. -> (H,W,3) uint8

        The light is drawn from `light` if that is given, else from `rng`.
        """
        height, width = self.numbers.shape
        light = rng if light is None else light
        gain = light.uniform(0.85, 1.2) * light.uniform(0.94, 1.06, 3)
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        vignette = (1.0 - 0.18 * (x * x + y * y)).astype(np.float32)
        lit = self.image * gain.astype(np.float32) * vignette[..., None]
        picture = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
        noisy = np.asarray(picture, np.float32) + 3.0 * rng.standard_normal((height, width, 1), dtype=np.float32)
        return np.clip(noisy, 0, 255).astype(np.uint8)


def _noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(H,W) float32 of about unit strength: blotches of several sizes."""
    total = np.zeros((height, width), np.float32)
    for cell in (48, 12, 3):
        grid = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR))
    return 0.5 * total + 0.6 * rng.standard_normal((height, width), dtype=np.float32)
