"""What stands in a synthetic street: vehicles, people, two-wheelers, signs, trees, houses. Sizes are in metres.

Each function paints one thing that stands at (x, z) on the ground, and draws its look from `rng`.
"""

import math

import numpy as np

from knet.data.synthetic.canvas import Canvas, Color

_DARK = (28.0, 30.0, 34.0)
_GLASS = (52.0, 62.0, 74.0)
_PAINTS = ((30, 32, 36), (190, 192, 195), (225, 225, 222), (120, 22, 24), (30, 60, 120), (90, 94, 98), (40, 80, 60))
_SKINS = ((224, 178, 150), (190, 140, 110), (120, 82, 62), (236, 200, 176))
_SIZES = {"car": (1.8, 1.5, 4.3), "truck": (2.5, 3.3, 8.0), "bus": (2.55, 3.1, 11.5), "train": (2.6, 3.6, 24.0)}
_FACADES = ((150, 128, 108), (168, 156, 140), (128, 92, 78), (176, 168, 158), (140, 142, 146), (188, 172, 134))


def paint_vehicle(
    canvas: Canvas,
    kind: str,
    x: float,
    z: float,
    rng: np.random.Generator,
    *,
    across: bool = False,
    group: bool = False,
    own_paint: bool = False,
) -> None:
    """Paints a car, truck, bus or train: from behind with one side, or from the side if it drives `across`.

    With `own_paint` it may have any colour, else one of the usual few.
    """
    number = canvas.add(kind, group)
    width, height, length = (size * rng.uniform(0.92, 1.08) for size in _SIZES[kind])
    if across:
        width, length = length, width
    paint = np.array(_PAINTS[rng.integers(len(_PAINTS))], float)
    if kind == "bus":
        paint = np.array([(200, 40, 40), (230, 200, 60), (60, 110, 180)][rng.integers(3)], float)
    if own_paint:
        paint = rng.uniform(20, 230, 3)
    shadow = [(x - width / 2 - 0.15, 0.0, z), (x + width / 2 + 0.15, 0.0, z)]
    shadow += [(x + width / 2 + 0.1, 0.0, z + length), (x - width / 2 - 0.1, 0.0, z + length)]
    canvas.face(shadow, _DARK, None, texture=2.0, alpha=0.8)
    side = x - width / 2 if x > 0 else x + width / 2
    if kind == "car":
        _paint_car(canvas, number, (x, z, side), (width, height, length), paint)
        return
    floor = 0.35
    canvas.face(_side(side, floor, height, z, z + length), paint * 0.75, number)
    low, high = (0.55 * height, 0.85 * height) if kind != "truck" else (0.62 * height, 0.8 * height)
    far = z + length if kind != "truck" else z + 0.15 * length
    canvas.face(_side(side, low, high, z + 0.05 * length, far - 0.04 * length), _GLASS, number, texture=3.0)
    canvas.upright(x, z, floor, height, width, paint, number)
    canvas.upright(x, z, low, high, 0.8 * width, _GLASS if kind != "truck" else paint * 0.9, number, texture=3.0)
    _paint_wheels(canvas, number, (x, z, side), (width, 0.45, length), across)
    for edge in (-0.4, 0.4):
        canvas.upright(x + edge * width, z, floor + 0.25, floor + 0.5, 0.25, (190, 30, 24), number)


def _paint_car(
    canvas: Canvas, number: int, place: tuple[float, float, float], size: tuple[float, float, float], paint: np.ndarray
) -> None:
    x, z, side = place
    width, height, length = size
    belt = 0.58 * height
    out, half, roof = (1 if side > x else -1), 0.5 * width, 0.36 * width
    canvas.face(_side(side, 0.22, belt, z, z + length), paint * 0.72, number, shade=0.3)
    cabin = [(side, belt, z), (side, belt, z + 0.72 * length)]
    cabin += [(x + out * roof, height, z + 0.55 * length), (x + out * roof, height, z + 0.3)]
    canvas.face(cabin, _GLASS, number, texture=3.0)
    canvas.upright(x, z, 0.22, belt, width, paint, number, shade=0.3)
    rear = [(x - half, belt, z), (x + half, belt, z), (x + roof, height, z + 0.3), (x - roof, height, z + 0.3)]
    canvas.face(rear, paint * 0.9, number)
    half, roof, low, high = 0.4 * width, 0.32 * width, belt + 0.06, height - 0.1
    glass = [(x - half, low, z), (x + half, low, z), (x + roof, high, z + 0.25), (x - roof, high, z + 0.25)]
    canvas.face(glass, _GLASS, number, texture=3.0)
    _paint_wheels(canvas, number, place, (width, 0.32, length), width > length)
    for edge in (-0.42, 0.42):
        canvas.upright(x + edge * width, z, belt - 0.22, belt - 0.05, 0.2, (205, 32, 26), number)
    canvas.upright(x, z, 0.4, 0.52, 0.45, (225, 225, 215), number)


def _paint_wheels(
    canvas: Canvas, number: int, place: tuple[float, float, float], size: tuple[float, float, float], across: bool
) -> None:
    x, z, side = place
    width, radius, length = size
    if across:
        for edge in (-0.33, 0.33):
            canvas.disc(x + edge * width, radius, z, radius, _DARK, number)
        return
    for edge in (-0.4, 0.4):
        canvas.upright(x + edge * width, z, 0.0, 0.35, 0.22, _DARK, number)
    for at in (0.18, 0.8):
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        wheel = [(side, radius + radius * math.sin(a), z + at * length + radius * math.cos(a)) for a in angles]
        canvas.face(wheel, _DARK, number)


def paint_person(
    canvas: Canvas,
    x: float,
    z: float,
    rng: np.random.Generator,
    *,
    kind: str = "person",
    lift: float = 0.0,
    group: bool = False,
) -> None:
    """Paints somebody on foot, or a rider whose feet are `lift` above the ground."""
    number = canvas.add(kind, group)
    height = rng.uniform(1.5, 1.9)
    trousers, shirt = rng.uniform(20, 110, 3), rng.uniform(30, 220, 3)
    stance = rng.uniform(0.05, 0.22)
    hip, shoulder = lift + 0.48 * height, lift + 0.82 * height
    for way in (-1, 1):
        foot = x + way * stance
        leg = [
            (foot - 0.08, lift, z),
            (foot + 0.08, lift, z),
            (x + way * 0.08 + 0.09, hip, z),
            (x + way * 0.08 - 0.09, hip, z),
        ]
        canvas.face(leg, trousers, number)
        hand, top = x + way * (0.28 + stance / 2), x + way * 0.2
        arm = [(hand - 0.05, hip, z), (hand + 0.05, hip, z), (top + 0.06, shoulder, z), (top - 0.06, shoulder, z)]
        canvas.face(arm, shirt * 0.85, number)
    torso = [(x - 0.18, hip, z), (x + 0.18, hip, z), (x + 0.24, shoulder, z), (x - 0.24, shoulder, z)]
    canvas.face(torso, shirt, number, shade=0.3)
    canvas.disc(x, lift + 0.91 * height, z, 0.12, np.array(_SKINS[rng.integers(len(_SKINS))], float), number)
    hair = (200.0, 40.0, 40.0) if kind == "rider" else (50.0, 38.0, 30.0)
    canvas.disc(x, lift + 0.955 * height, z, 0.1, hair, number)


def paint_two_wheeler(
    canvas: Canvas,
    kind: str,
    x: float,
    z: float,
    rng: np.random.Generator,
    *,
    ridden: bool = False,
    group: bool = False,
) -> None:
    """Paints a bicycle or motorcycle from the side, with somebody on it if `ridden`."""
    number = canvas.add(kind, group)
    paint = rng.uniform(20, 200, 3)
    radius, reach = (0.34, 0.55) if kind == "bicycle" else (0.32, 0.7)
    for way in (-1, 1):
        canvas.disc(x + way * reach, radius, z, radius, _DARK, number)
        canvas.disc(x + way * reach, radius, z, radius * 0.72, (120, 122, 126), number, alpha=0.7)
    bar, seat = (x + 0.42, 1.0, z), (x - 0.25, 0.92, z)
    crank = (x - 0.02, 0.3, z)
    if kind == "bicycle":
        canvas.face([(x + reach, radius, z), bar, (x + 0.36, 0.95, z)], paint, number)
        canvas.face([seat, (x + 0.4, 0.9, z), (x + 0.4, 0.8, z), crank, (x - reach, radius, z)], paint, number)
    else:
        body = [(x - 0.75, 0.7, z), (x - 0.1, 0.82, z), (x + 0.45, 1.0, z), (x + 0.6, 0.45, z), (x - 0.4, 0.3, z)]
        canvas.face(body, paint, number, shade=0.4)
    canvas.upright(x - 0.25, z, 0.9, 1.0, 0.3, _DARK, number)
    canvas.upright(x + 0.44, z, 0.98, 1.08, 0.12, _DARK, number)
    if ridden:
        paint_person(canvas, x - 0.1, z - 0.05, rng, kind="rider", lift=0.35, group=group)


def paint_pole(canvas: Canvas, x: float, z: float, height: float, rng: np.random.Generator, number: int) -> None:
    """Paints a post of metal."""
    grey = rng.uniform(85, 135)
    canvas.upright(x, z, 0.0, height, rng.uniform(0.12, 0.2), (grey, grey, grey + 4), number, texture=3.0)


def paint_street_light(canvas: Canvas, x: float, z: float, rng: np.random.Generator, number: int) -> None:
    """Paints a tall post with an arm over the street."""
    height, reach = rng.uniform(6, 8), -math.copysign(1.6, x)
    paint_pole(canvas, x, z, height, rng, number)
    canvas.upright(x + reach / 2, z, height - 0.12, height, abs(reach), (110, 112, 114), number)


def paint_traffic_light(canvas: Canvas, x: float, z: float, rng: np.random.Generator, pole: int, number: int) -> None:
    """Paints a post with a box of three lamps, one of them lit."""
    top = rng.uniform(3.0, 4.6)
    paint_pole(canvas, x, z, top, rng, pole)
    canvas.upright(x, z - 0.1, top - 0.1, top + 0.95, 0.4, (34, 36, 32), number, texture=2.0)
    lit = rng.integers(3)
    for lamp, color in enumerate(((40, 220, 110), (250, 190, 40), (245, 50, 40))):
        shown = np.array(color, float) * (1.0 if lamp == lit else 0.25)
        canvas.disc(x, top + 0.08 + 0.31 * lamp, z - 0.1, 0.12, shown, number, texture=1.0)


def paint_traffic_sign(canvas: Canvas, x: float, z: float, rng: np.random.Generator, pole: int, number: int) -> None:
    """Paints a post with a round, a triangular or a blue rectangular sign."""
    top = rng.uniform(2.2, 3.0)
    paint_pole(canvas, x, z, top, rng, pole)
    y, near, shape = top, z - 0.08, rng.integers(3)
    if shape == 0:
        canvas.disc(x, y, near, 0.36, (205, 28, 32), number, texture=2.0)
        canvas.disc(x, y, near, 0.26, (240, 240, 236), number, texture=2.0)
    elif shape == 1:
        for size, color in ((0.42, (205, 28, 32)), (0.28, (240, 240, 236))):
            corners = [(x - size, y - 0.6 * size, near), (x + size, y - 0.6 * size, near), (x, y + size, near)]
            canvas.face(corners, color, number, texture=2.0)
    else:
        canvas.upright(x, near, y - 0.3, y + 0.4, 0.7, (34, 84, 180), number, texture=2.0)
        canvas.upright(x, near, y - 0.05, y + 0.1, 0.4, (240, 240, 236), number, texture=2.0)


def paint_tree(canvas: Canvas, x: float, z: float, rng: np.random.Generator, number: int) -> None:
    """Paints a trunk and a crown of leaves in clumps; a bush if it is low."""
    height = rng.uniform(3.5, 8.0) if rng.random() < 0.75 else rng.uniform(1.0, 2.0)
    crown = 0.32 * height
    canvas.upright(x, z, 0.0, 0.55 * height, 0.05 * height, (82, 66, 52), number)
    green = np.array([60, 92, 40]) + rng.uniform(-14, 22, 3)
    for _ in range(9):
        angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7) * crown
        at = x + out * math.cos(angle), 0.68 * height + out * math.sin(angle)
        corners = np.linspace(0, 2 * np.pi, 11, endpoint=False)
        spread = rng.uniform(0.4, 0.75, 11) * crown
        leaves = [(at[0] + r * math.cos(a), at[1] + r * math.sin(a), z) for a, r in zip(corners, spread, strict=True)]
        canvas.face(leaves, green * rng.uniform(0.75, 1.2), number, texture=13.0, shade=0.35)


def paint_house(canvas: Canvas, x: float, near: float, far: float, rng: np.random.Generator, number: int) -> None:
    """Paints a house along the street: its front from `near` to `far` in the plane of x, and its end wall."""
    height = rng.uniform(6.0, 16.0)
    paint = np.array(_FACADES[rng.integers(len(_FACADES))], float) * rng.uniform(0.8, 1.15)
    canvas.upright(x + math.copysign(6.0, x), near, 0.0, height, 12.0, paint * 0.8, number)
    canvas.face(_side(x, 0.0, height, near, far), paint, number, texture=8.0, shade=0.2, distance=near)
    columns = max(int((far - near) / 3.2), 1)
    glass = np.array(_GLASS) * rng.uniform(0.8, 1.6)
    for floor in range(int(height / 3.2)):
        for column in range(columns):
            start = near + (column + 0.28) * (far - near) / columns
            window = _side(x, 3.2 * floor + 0.9, 3.2 * floor + 2.5, start, start + 0.45 * (far - near) / columns)
            canvas.face(window, glass, number, texture=4.0)


def paint_barrier(
    canvas: Canvas, kind: str, x: float, near: float, far: float, rng: np.random.Generator, number: int
) -> None:
    """Paints a wall, or a fence one can look through, along the street."""
    height = rng.uniform(0.9, 2.2)
    color: Color = (138, 130, 122) if kind == "wall" else (96, 100, 96)
    canvas.face(_side(x, 0.0, height, near, far), color, number, texture=9.0, alpha=1.0 if kind == "wall" else 0.55)
    if kind == "fence":
        for at in np.arange(near, far, 1.5):
            canvas.face(_side(x, 0.0, height, at, at + 0.15), (70, 72, 70), number)


def _side(x: float, low: float, high: float, near: float, far: float) -> list[tuple[float, float, float]]:
    """An upright rectangle along the street, in the plane of x."""
    return [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]
