"""Films a street: the same kind of scene as in `street`, frame by frame, with the track of every object.

Objects move at constant speed, and so does the camera, which may also turn and shake a little. Every clip has what
makes tracking hard: people who look alike and cross each other, rows of similar cars, and objects that move by more
than their own width from frame to frame, hide others, come and go.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from knet.data.synthetic import objects
from knet.data.synthetic.canvas import Camera, Canvas, PaintedObject
from knet.data.synthetic.street import (
    Job,
    StreetPlan,
    draw_camera,
    draw_plan,
    later,
    paint_background,
    paint_furniture,
    paint_groups,
    paint_own_car,
    paint_sides,
)

_VEHICLES = frozenset({"car", "truck", "bus", "train"})


@dataclass(frozen=True, slots=True)
class MovingFrame:
    """A frame of a clip: `image`, `numbers` and `objects` as in `StreetScene`.

    `tracks[n]` is the track of the object that has the number n in this frame; 0 for what is not tracked: stuff,
    groups, and n = 0.
    """

    image: np.ndarray
    numbers: np.ndarray
    objects: list[PaintedObject]
    tracks: np.ndarray


@dataclass(frozen=True, slots=True)
class Mover:
    """An object of a clip, standing or moving.

    Attributes:
        kind: a class by its Cityscapes name.
        look: seed of its size and colours.
        track: its number in the clip; its rider's is one more.
        x, z, vx, vz: where it is at frame 0, in metres, and how it moves, in metres a frame.
        first, last: frames in which it is there.
        ridden, across: whether a two-wheeler has a rider, and a vehicle is seen from its side.
        own_paint: whether a vehicle may have any colour, not just one of the usual few.
    """

    kind: str
    look: int
    track: int
    x: float
    z: float
    vx: float = 0.0
    vz: float = 0.0
    first: int = 0
    last: int = 10**6
    ridden: bool = False
    across: bool = False
    own_paint: bool = False

    def place(self, frame: int) -> tuple[float, float]:
        """Where it is at a frame: (x, z)."""
        return self.x + self.vx * frame, self.z + self.vz * frame


class Cast:
    """Draws who is in a clip: `movers`, in the order in which they are drawn from `rng`."""

    def __init__(self, plan: StreetPlan, rng: np.random.Generator):
        self.plan, self.rng = plan, rng
        self.movers: list[Mover] = []

    def draw(self) -> list[Mover]:
        """All movers of a clip."""
        plan, rng = self.plan, self.rng
        self._add_vehicles()
        self._add_crossings()
        for _ in range(rng.integers(1, 5)):  # along the sidewalks
            side = self._side()
            x = plan.curb(side) + side * rng.uniform(0.3, 1.0) * plan.walk
            self.add("person", x, rng.uniform(6, 30), vz=rng.uniform(-0.15, 0.15))
        for _ in range(rng.integers(1, 3)):  # out of a house, into a house
            side = self._side()
            begin = int(rng.integers(1, 12))
            stay = {"first": begin} if rng.random() < 0.5 else {"last": begin + 3}
            x = plan.curb(side) + side * rng.uniform(0.5, 1.0) * plan.walk
            self.add("person", x, rng.uniform(7, 20), vz=rng.uniform(-0.1, 0.1), **stay)
        return self.movers

    def add(self, kind: str, x: float, z: float, look: int | None = None, **motion: float | bool) -> None:
        """One more; without a `look` it gets one of its own."""
        look = self._new_look() if look is None else look
        self.movers.append(Mover(kind, look, 2 * len(self.movers) + 1, float(x), float(z), **motion))  # type: ignore[arg-type]

    def alike(self, chance: float) -> bool:
        """Whether a row of cars, or two people who meet, are to look alike."""
        return bool(self.rng.random() < chance)

    def _new_look(self) -> int:
        return int(self.rng.integers(2**31))

    def _side(self) -> int:
        return (-1, 1)[self.rng.integers(2)]

    def _add_vehicles(self) -> None:
        """Parked cars, in half of the rows all alike, and traffic along the street."""
        plan, rng = self.plan, self.rng
        for side in (-1, 1):
            z = rng.uniform(4.0, 14.0)
            row = self._new_look() if self.alike(0.5) else None
            while z < 55 and rng.random() < 0.8:
                self.add("car", plan.curb(side) - side * 1.1, z, row)
                z += rng.uniform(5.2, 14.0)
            z = rng.uniform(8.0, 28.0)
            while z < 80:
                kind = str(rng.choice(["car", "truck", "bus", "train"], p=[0.72, 0.12, 0.1, 0.06]))
                speed = side * rng.uniform(0.2, 1.0)  # those on the right drive away, those on the left come nearer
                self.add(kind, plan.middle + side * plan.half * rng.uniform(0.3, 0.42), z, vz=speed)
                z += rng.uniform(16.0, 40.0)

    def _add_crossings(self) -> None:
        """Across the street: pairs that meet, walkers, and the fast: runners, two-wheelers, a car."""
        plan, rng = self.plan, self.rng
        for _ in range(rng.integers(1, 3)):
            look, z, meet = self._new_look(), rng.uniform(7, 16), rng.integers(3, 16)
            middle, speed = plan.middle + rng.uniform(-0.5, 0.5) * plan.half, rng.uniform(0.08, 0.35)
            alike = self.alike(0.6)
            for way, depth in ((-1, 0.0), (1, rng.uniform(0.3, 1.0))):
                self.add("person", middle - way * speed * meet, z + depth, look if alike else None, vx=way * speed)
        for kind, chance, (slow, fast), (near, far) in (
            ("person", 0.7, (0.5, 1.1), (7, 16)),
            ("person", 0.8, (0.06, 0.2), (6, 20)),
            ("bicycle", 0.7, (0.3, 1.6), (8, 20)),
            ("motorcycle", 0.4, (0.6, 2.2), (9, 24)),
            ("car", 0.5, (0.5, 3.5), (14, 30)),
        ):
            if rng.random() < chance:
                way, speed = self._side(), rng.uniform(slow, fast)
                start = plan.middle - way * speed * rng.integers(2, 14)  # in the middle of the street at that frame
                across, ridden = kind == "car", kind in ("bicycle", "motorcycle")
                self.add(kind, start, rng.uniform(near, far), vx=way * speed, across=across, ridden=ridden)


@dataclass(frozen=True, slots=True)
class Street:
    """What a clip films: who is in the street, and how the camera moves.

    `camera` is that of frame 0. Per frame it moves `ahead` by so many metres, and turns and shakes by so many pixels.
    """

    camera: Camera
    plan: StreetPlan
    ahead: float
    turn: float
    shake: float
    movers: list[Mover]


def draw_clip(frames: int, height: int, width: int, seed: list[int]) -> Iterator[MovingFrame]:
    """Draws the frames of a clip. Equal sizes and seeds give equal clips; more frames only make it longer."""
    yield from film(plan_street(height, width, np.random.default_rng(seed)), frames, (height, width), seed)


def plan_street(height: int, width: int, rng: np.random.Generator, cast: type[Cast] = Cast) -> Street:
    """A street to film in pictures of a size; another `cast` draws other people and vehicles."""
    camera = draw_camera(height, width, rng)
    plan = draw_plan(rng)
    ahead = float(rng.choice([0.0, rng.uniform(0.1, 0.5)]))
    turn = width * float(rng.choice([0.0, rng.uniform(-0.03, 0.03)]))
    shake = width * rng.uniform(0.0, 0.006)
    return Street(camera, plan, ahead, turn, shake, cast(plan, rng).draw())


def film(street: Street, frames: int, size: tuple[int, int], seed: list[int]) -> Iterator[MovingFrame]:
    """The frames of a street, in pictures of (height, width); the seed decides on light, noise and all that stands."""
    camera = street.camera
    for frame in range(frames):
        luck = np.random.default_rng([*seed, frame])
        # A turn goes back and forth, else long clips would end up looking at the houses.
        swing = abs((frame + 6) % 24 - 12) - 6
        seen = replace(
            camera,
            center=camera.center + street.turn * swing + street.shake * luck.standard_normal(),
            horizon=camera.horizon + street.shake * luck.standard_normal(),
            ahead=street.ahead * frame,
        )
        yield _paint(frame, size, seen, street, luck, seed)


def _paint(
    frame: int, size: tuple[int, int], camera: Camera, street: Street, luck: np.random.Generator, seed: list[int]
) -> MovingFrame:
    """Paints a frame. What stands still is drawn with a fresh generator, so that it looks the same in every frame."""
    canvas = Canvas(*size, camera, luck)
    world = np.random.default_rng([*seed, 0, 1])
    paint_background(canvas, street.plan, world)
    jobs: list[Job] = [*paint_sides(canvas, street.plan, world), *paint_furniture(canvas, street.plan, world)]
    jobs += paint_groups(canvas, street.plan, world)
    tracks: dict[int, int] = {}
    for mover in street.movers:
        if mover.first <= frame <= mover.last:
            jobs.append((mover.place(frame)[1], later(_paint_mover, canvas, mover, frame, tracks)))
    for _, paint in sorted(jobs, key=lambda job: -job[0]):
        paint()
    paint_own_car(canvas, np.random.default_rng([*seed, 0, 2]))
    image = canvas.develop(luck, np.random.default_rng([*seed, 0, 3]))
    track_of = np.zeros(len(canvas.objects) + 1, np.int32)
    track_of[list(tracks)] = list(tracks.values())
    return MovingFrame(image, canvas.numbers, canvas.objects, track_of)


def _paint_mover(canvas: Canvas, mover: Mover, frame: int, tracks: dict[int, int]) -> None:
    """Paints the object and notes the tracks of its numbers."""
    x, z = mover.place(frame)
    look = np.random.default_rng(mover.look)
    before = len(canvas.objects)
    if mover.kind in _VEHICLES:
        objects.paint_vehicle(canvas, mover.kind, x, z, look, across=mover.across, own_paint=mover.own_paint)
    elif mover.kind == "person":
        objects.paint_person(canvas, x, z, look)
    else:
        objects.paint_two_wheeler(canvas, mover.kind, x, z, look, ridden=mover.ridden)
    for extra, number in enumerate(range(before + 1, len(canvas.objects) + 1)):
        tracks[number] = mover.track + extra
