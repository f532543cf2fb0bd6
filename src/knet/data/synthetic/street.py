"""Draws a street scene from random numbers, with its ground truth, so that whole runs need no download.

Scenes do not replace photographs, but have what a panoptic network must cope with: stuff and things, perspective,
objects that hide each other, groups that nobody tells apart, void, light and noise. Their classes can be learned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from knet.data.synthetic import objects
from knet.data.synthetic.canvas import Camera, Canvas, Color, PaintedObject
from knet.errors import ConfigError

_END = 110.0  # metres; nothing stands farther away
_SMALLEST = 32
Job = tuple[float, Callable[[], None]]  # distance, what to paint there


@dataclass(frozen=True, slots=True)
class StreetScene:
    """`image` (H,W,3) uint8 RGB; `numbers` (H,W) int32 from 1 on, where `objects[n - 1]` says what n is."""

    image: np.ndarray
    numbers: np.ndarray
    objects: list[PaintedObject]


@dataclass(frozen=True, slots=True)
class StreetPlan:
    """Where the street runs, in metres to the right of the camera. Sides: -1 left, 1 right."""

    middle: float
    half: float
    walk: float
    verge: float

    def curb(self, side: int) -> float:
        """Where the road ends on a side."""
        return self.middle + side * self.half

    def fronts(self, side: int) -> float:
        """Where the houses of a side begin."""
        return self.middle + side * (self.half + self.walk + self.verge)


def draw_street(height: int, width: int, rng: np.random.Generator) -> StreetScene:
    """Draws a street as a car's camera sees it. Equal sizes and generators give equal scenes.

    Kinds are the names of Cityscapes' classes, and "ego vehicle", "out of roi" and "static", which are void there.
    """
    canvas = Canvas(height, width, draw_camera(height, width, rng), rng)
    plan = draw_plan(rng)
    paint_background(canvas, plan, rng)
    jobs = [*paint_sides(canvas, plan, rng), *paint_furniture(canvas, plan, rng), *_traffic(canvas, plan, rng)]
    jobs += [*_people(canvas, plan, rng), *paint_groups(canvas, plan, rng)]
    for _, paint in sorted(jobs, key=lambda job: -job[0]):
        paint()
    paint_own_car(canvas, rng)
    return StreetScene(canvas.develop(rng), canvas.numbers, canvas.objects)


def draw_camera(height: int, width: int, rng: np.random.Generator) -> Camera:
    """Draws the camera of a car, for pictures of a size, of which each edge needs 32 pixels."""
    if min(height, width) < _SMALLEST:
        raise ConfigError(f"A street scene of {height}x{width} pixels is too small; each edge needs {_SMALLEST}.")
    return Camera(
        focal=rng.uniform(0.85, 1.1) * max(height, width),
        center=width * rng.uniform(0.46, 0.54),
        horizon=height * rng.uniform(0.38, 0.46),
        eye=rng.uniform(1.3, 1.7),
    )


def draw_plan(rng: np.random.Generator) -> StreetPlan:
    """Draws a street that the camera looks along."""
    half = rng.uniform(3.4, 6.5)
    return StreetPlan(rng.uniform(-0.5, 0.1) * half, half, rng.uniform(2.0, 4.0), rng.uniform(0.0, 3.0))


def paint_background(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> None:
    """Sky, hills, ground, road and sidewalks."""
    height, width = canvas.numbers.shape
    horizon = canvas.camera.horizon
    sky = np.array([[120, 165, 215], [190, 198, 205], [215, 205, 195]][rng.integers(3)]) + rng.uniform(-15, 15, 3)
    whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    canvas.fill(whole, sky, canvas.stuff("sky"), texture=5.0, shade=-0.35)
    steps = np.linspace(0, width, max(width // 24, 4))
    hills = np.stack([steps, horizon - height * rng.uniform(0.01, 0.07, len(steps))], 1)
    hills = np.concatenate([hills, [[width, horizon + 2], [0, horizon + 2]]])
    canvas.fill(hills, (84, 104, 72), canvas.stuff("vegetation"), distance=90.0, texture=9.0)
    ground = np.array([[0, horizon], [width, horizon], [width, height], [0, height]])
    canvas.fill(ground, (104, 122, 66), canvas.stuff("terrain"), texture=12.0, shade=-0.2)
    grey = rng.uniform(70, 105)
    for side in (-1, 1):
        outer = plan.curb(side) + side * plan.walk
        tone = (grey + 55, grey + 50, grey + 46)
        _paint_lane(canvas, plan.curb(side), outer, 0.0, 200.0, tone, canvas.stuff("sidewalk"), 8.0)
    road = canvas.stuff("road")
    _paint_lane(canvas, plan.curb(-1), plan.curb(1), 0.0, 200.0, (grey, grey, grey + 3), road, 6.0)
    for start in np.arange(rng.uniform(0, 6), 90, 9.0):
        _paint_lane(canvas, plan.middle - 0.08, plan.middle + 0.08, start, start + 3.5, (212, 212, 206), road, 3.0)
    for side in (-1, 1):
        edge = plan.curb(side) - side * 0.25
        _paint_lane(canvas, edge - 0.06, edge + 0.06, 0.0, 120.0, (196, 196, 190), road, 3.0)


def _paint_lane(
    canvas: Canvas, left: float, right: float, near: float, far: float, color: Color, number: int, texture: float
) -> None:
    near = max(near, 1.5)
    strip = [(left, 0.0, near), (right, 0.0, near), (right, 0.0, far), (left, 0.0, far)]
    canvas.face(strip, color, number, distance=0.0, texture=texture, shade=-0.15)


def paint_sides(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> list[Job]:
    """Houses, trees, walls and fences on both sides. What lies along the street is painted with its far end."""
    jobs: list[Job] = []
    for side in (-1, 1):
        x, near = plan.fronts(side), rng.uniform(1.5, 8.0)
        while near < _END:
            far = near + rng.uniform(7.0, 24.0)
            kind = rng.choice(["building", "garden", "open"], p=[0.6, 0.28, 0.12])
            if kind == "building":
                jobs.append((far, later(objects.paint_house, canvas, x, near, far, rng, canvas.stuff("building"))))
            elif kind == "garden":
                for z in rng.uniform(near, far, 3):
                    at = x + side * rng.uniform(2.0, 5.0)
                    jobs.append((far, later(objects.paint_tree, canvas, at, z, rng, canvas.stuff("vegetation"))))
                barrier = ("wall", "fence")[rng.integers(2)]
                paint = later(objects.paint_barrier, canvas, barrier, x, near, far, rng, canvas.stuff(barrier))
                jobs.append((far - 0.01, paint))
            near = far + rng.choice([0.0, rng.uniform(2.0, 7.0)])
    return jobs


def paint_furniture(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> list[Job]:
    """Lights, signals, signs, trees and bins along both curbs."""
    jobs: list[Job] = []
    for side in (-1, 1):
        for z in np.arange(rng.uniform(5, 14), 70, rng.uniform(9, 16)):
            x = plan.curb(side) + side * rng.uniform(0.3, 0.8)
            kind = rng.choice(["light", "signal", "sign", "tree", "bin"], p=[0.2, 0.22, 0.28, 0.22, 0.08])
            if kind == "light":
                paint = later(objects.paint_street_light, canvas, x, z, rng, canvas.add("pole"))
            elif kind == "signal":
                pole = canvas.add("pole")
                paint = later(objects.paint_traffic_light, canvas, x, z, rng, pole, canvas.add("traffic light"))
            elif kind == "sign":
                pole = canvas.add("pole")
                paint = later(objects.paint_traffic_sign, canvas, x, z, rng, pole, canvas.add("traffic sign"))
            elif kind == "tree":
                paint = later(objects.paint_tree, canvas, x + side, z, rng, canvas.stuff("vegetation"))
            else:
                paint = later(canvas.upright, x, z, 0.0, 1.0, 0.6, (70, 82, 60), canvas.add("static"))
            jobs.append((float(z), paint))
    return jobs


def _traffic(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> list[Job]:
    jobs: list[Job] = []
    for side in (-1, 1):
        z = rng.uniform(4.0, 14.0)
        while z < 60 and rng.random() < 0.85:  # parked at the curb
            x = plan.curb(side) - side * 1.1
            jobs.append((z, later(objects.paint_vehicle, canvas, "car", x, z, rng)))
            z += rng.uniform(5.2, 14.0)
        z = rng.uniform(9.0, 30.0)
        while z < 90:  # driving
            kind = str(rng.choice(["car", "truck", "bus", "train"], p=[0.68, 0.14, 0.12, 0.06]))
            x = plan.middle + side * plan.half * rng.uniform(0.3, 0.42)
            jobs.append((z, later(objects.paint_vehicle, canvas, kind, x, z, rng)))
            z += rng.uniform(14.0, 45.0)
    if rng.random() < 0.3:
        z, x = rng.uniform(16, 40), plan.middle + rng.uniform(-1, 1) * plan.half
        jobs.append((z, later(objects.paint_vehicle, canvas, "car", x, z, rng, across=True)))
    for _ in range(rng.integers(1, 4)):
        z, x = rng.uniform(6, 32), plan.middle + rng.uniform(-0.8, 0.8) * plan.half
        kind = ("bicycle", "bicycle", "motorcycle")[rng.integers(3)]
        jobs.append((z, later(objects.paint_two_wheeler, canvas, kind, x, z, rng, ridden=True)))
    return jobs


def _people(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> list[Job]:
    jobs: list[Job] = []
    for _ in range(rng.integers(2, 9)):
        side = (-1, 1)[rng.integers(2)]
        z, x = rng.uniform(5, 40), plan.curb(side) + side * rng.uniform(0.3, 1.0) * plan.walk
        if rng.random() < 0.12:
            x = plan.middle + rng.uniform(-1, 1) * plan.half
        jobs.append((z, later(objects.paint_person, canvas, x, z, rng)))
    for _ in range(rng.integers(0, 4)):
        side = (-1, 1)[rng.integers(2)]
        z, x = rng.uniform(5, 30), plan.curb(side) + side * rng.uniform(0.4, 1.6)
        kind = ("bicycle", "motorcycle")[int(rng.random() < 0.3)]
        jobs.append((z, later(objects.paint_two_wheeler, canvas, kind, x, z, rng)))
    return jobs


def paint_groups(canvas: Canvas, plan: StreetPlan, rng: np.random.Generator) -> list[Job]:
    """With a chance of 0.6 a group: people, parked bicycles or cars, close together and some way off."""
    jobs: list[Job] = []
    if rng.random() > 0.6:
        return jobs
    kind = ("person", "bicycle", "car")[rng.integers(3)]
    side, z = (-1, 1)[rng.integers(2)], rng.uniform(14, 34)
    x = plan.curb(side) + side * 0.5 * plan.walk
    for step in range(rng.integers(4, 8)):
        if kind == "person":
            paint = later(objects.paint_person, canvas, x + 0.35 * step * side, z, rng, group=True)
        elif kind == "bicycle":
            paint = later(objects.paint_two_wheeler, canvas, kind, x + 0.3 * step * side, z, rng, group=True)
        else:
            paint = later(objects.paint_vehicle, canvas, kind, x + 2.0 * step * side, z + 30, rng, group=True)
        jobs.append((z + (30 if kind == "car" else 0) - 0.1 * step, paint))
    return jobs


def paint_own_car(canvas: Canvas, rng: np.random.Generator) -> None:
    """The bonnet of the car that carries the camera, and the border that undistorting an image leaves."""
    height, width = canvas.numbers.shape
    angles = np.linspace(np.pi, 2 * np.pi, 40)
    top = height * rng.uniform(0.05, 0.11)
    bonnet = np.stack([width * (0.5 + 0.62 * np.cos(angles)), height + 1 + top * np.sin(angles)], 1)
    canvas.fill(bonnet, rng.uniform(20, 70, 3), canvas.stuff("ego vehicle"), texture=2.0, shade=0.6)
    border = max(width // 200, 1)
    for left in (0, width - border):
        edge = np.array([[left, 0], [left + border - 1, 0], [left + border - 1, height], [left, height]], float)
        canvas.fill(edge, (4, 4, 4), canvas.stuff("out of roi"), texture=0.0)


def later(paint: Callable[..., None], *arguments: object, **options: object) -> Callable[[], None]:
    """A call to be made when its turn comes; jobs are painted in a fixed order, so `rng` stays reproducible."""
    return lambda: paint(*arguments, **options)
