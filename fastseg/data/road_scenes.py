"""`road_scenes`: street pictures with exact labels, made on the fly. Offline, licence-free, at any size and count.

Every scene is a function of (seed, split, index): a random street is laid out in metres, then painted far to near
through a pinhole camera. Ten classes, named and coloured as in Cityscapes; lane markings belong to the road, grass to
terrain, and the bonnet of the own car and street furniture are void. Colours of classes overlap, so that a network
has to look at shape, texture and place.
"""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import DATASETS, SegDataset
from fastseg.data.road_scenes_draw import (
    BUILDING, CLOTHES, LEAVES, NEAR, PAINTS, ROAD, SIDEWALK, TERRAIN, VEGETATION, VOID, WALLS, Camera, Canvas, Colour,
    Thing, building, bush, car, person, pick, pole, shade, sign, street_box, tree,
)  # fmt: skip
from fastseg.data.road_scenes_light import Weather, cast_shadows, draw_weather, expose, paint_sky
from fastseg.errors import ConfigError, suggest
from fastseg.types import DatasetInfo

ROAD_SCENES = DatasetInfo(
    name="road_scenes",
    class_names=(
        *("road", "sidewalk", "building", "pole", "traffic sign", "vegetation", "terrain", "sky", "person", "car"),
    ),
    palette=(
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (153, 153, 153), (220, 220, 0)),
        *((107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (0, 0, 142)),
    ),
)
DEFAULT_COUNTS = {"train": 400, "val": 60, "test": 60}
_SPLIT_KEYS = {"train": 0, "val": 1, "test": 2}
_FAR = 160.0  # metres: where the street ends and the skyline stands


class RoadScenes(SegDataset):
    """Procedural street scenes of one split; see `road_scenes`."""

    info = ROAD_SCENES

    def __init__(
        self, split: str, *, count: int | None = None, height: int = 256, width: int = 512, seed: int = 0
    ) -> None:
        if split not in DEFAULT_COUNTS:
            raise ConfigError(f"road_scenes has no split {split!r}; {suggest(split, DEFAULT_COUNTS)}")
        self.split = split
        self.count = DEFAULT_COUNTS[split] if count is None else count
        self.height, self.width, self.seed = height, width, seed
        for name, value, least in (
            ("count", self.count, 1),
            ("height", height, 1),
            ("width", width, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"road_scenes was given {name}={value}; {name} must be at least {least}")

    def __len__(self) -> int:
        return self.count

    def sample_name(self, index: int) -> str:
        return f"{self.split}_{index:06d}"

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) RGB and label uint8 (H,W) of scene `index`. Raises IndexError outside 0..count-1."""
        if not 0 <= index < self.count:
            raise IndexError(f"road_scenes {self.split} has scenes 0..{self.count - 1}, not {index}")
        key = np.random.SeedSequence(self.seed, spawn_key=(_SPLIT_KEYS[self.split], index))
        return render_scene(key, self.height, self.width)


@DATASETS.register
def road_scenes(
    split: str, *, count: int | None = None, height: int = 256, width: int = 512, seed: int = 0
) -> SegDataset:
    """Procedural street scenes, `height` x `width` pixels.

    `split` is train, val or test: disjoint streams of scenes, by default 400, 60 and 60 of them. A larger `count`
    extends a split without changing its first scenes. Raises ConfigError for another split or a size below 1.
    """
    return RoadScenes(split, count=count, height=height, width=width, seed=seed)


def render_scene(key: int | np.random.SeedSequence, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The scene of one key: image uint8 (H,W,3) RGB and label uint8 (H,W), classes 0..9 or 255.

    One key shows one street at every size of the same aspect; only the grain differs. Raises ConfigError for a size
    below 1.
    """
    if height < 1 or width < 1:
        raise ConfigError(f"a scene of {height} x {width} pixels was asked for; height and width must be at least 1")
    if not isinstance(key, np.random.SeedSequence):
        key = np.random.SeedSequence(key)
    # Children by hand: `key.spawn` would count up inside the caller's key, and the second call would differ.
    world, sight, grain = (
        np.random.Generator(np.random.Philox(np.random.SeedSequence(key.entropy, spawn_key=(*key.spawn_key, child))))
        for child in range(3)
    )
    weather = draw_weather(world)
    camera = _draw_camera(world, height, width)
    canvas = Canvas(height, width, camera, weather.horizon, weather.visibility)
    paint_sky(canvas.pixels, weather, camera.horizon, sight)
    street = Street(world)
    _paint_ground(canvas, street, world)
    sun = np.array(
        [street.shadow_side * world.uniform(0.2, 1.3), world.uniform(-0.5, 0.6)]
    )  # shadow per metre of height
    things = sorted(_furnish(street, weather, world), key=lambda thing: -thing.depth)
    _paint_shadows(canvas, things, sun, weather)
    _paint_skyline(canvas, world)
    for thing in things:
        thing.draw(canvas)
    canvas.flush()
    _paint_bonnet(canvas, world)
    image = expose(canvas.pixels, weather, sight, grain)
    return image, np.ascontiguousarray(canvas.pixels[..., 3])


class Street:
    """The plan of one street, in metres: which strips run where, and what lines them."""

    def __init__(self, rng: np.random.Generator) -> None:
        lanes = int(rng.integers(2, 5))
        self.lane_width = rng.uniform(2.9, 3.6)
        self.lanes = lanes
        half = 0.5 * lanes * self.lane_width
        own_lane = lanes // 2 + int(rng.integers((lanes + 1) // 2))  # traffic keeps to the right
        centre = half - (own_lane + 0.5) * self.lane_width + 0.35 * rng.normal()
        self.first_lane = centre - half
        self.parking = {side: 2.1 * (rng.random() < 0.5) for side in (-1, 1)}
        self.kerb = {side: centre + side * (half + self.parking[side]) for side in (-1, 1)}
        self.verge = {side: rng.uniform(0.8, 2.5) * (rng.random() < 0.35) for side in (-1, 1)}  # grass along the kerb
        self.walk = {side: rng.uniform(1.8, 4.2) for side in (-1, 1)}
        self.garden = {side: rng.uniform(1.0, 6.0) * (rng.random() < 0.45) for side in (-1, 1)}
        self.density = {side: float(rng.choice((1.0, 0.75, 0.45, 0.1), p=(0.4, 0.25, 0.2, 0.15))) for side in (-1, 1)}
        self.crossing = (rng.uniform(11, 40), rng.uniform(6, 9)) if rng.random() < 0.45 else None  # depth, width
        self.shadow_side = int(rng.choice((-1, 1)))

    def walk_edges(self, side: int) -> tuple[float, float]:
        """Lateral position of the pavement's edges, the one at the road first."""
        inner = self.kerb[side] + side * self.verge[side]
        return inner, inner + side * self.walk[side]

    def front(self, side: int) -> float:
        """Lateral position of the house fronts."""
        return self.walk_edges(side)[1] + side * self.garden[side]

    def crosses(self, near: float, far: float) -> bool:
        """Whether the side street opens anywhere between two depths."""
        return self.crossing is not None and far > self.crossing[0] - 1.5 and near < sum(self.crossing) + 1.5


def _draw_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    focal = max(rng.uniform(0.95, 1.25) * height, 0.45 * width)
    horizon = 0.5 * height + rng.uniform(-0.1, 0.04) * min(focal, 1.1 * height)
    bend = rng.normal() * 0.006 * (rng.random() < 0.7)
    return Camera(focal, width * rng.uniform(0.4, 0.6), horizon, rng.uniform(1.25, 2.1), 0.018 * rng.normal(), bend)


def _strip(left: float, right: float) -> np.ndarray:
    """A band (n,3) of ground along the whole street between two lateral positions."""
    z = np.geomspace(NEAR, _FAR, 26)
    left_edge, right_edge = (np.column_stack([np.full(26, x), np.zeros(26), z]) for x in (left, right))
    return np.concatenate([left_edge, right_edge[::-1]])


def _slabs(left: object, right: object, near: object, far: object) -> np.ndarray:
    """Rectangles (m,4,3) on the ground between lateral positions and depths, each a scalar or (m,)."""
    x_left, x_right, z_near, z_far = np.broadcast_arrays(*(np.atleast_1d(v) for v in (left, right, near, far)))
    x = np.stack([x_left, x_right, x_right, x_left], axis=-1)
    z = np.stack([z_near, z_near, z_far, z_far], axis=-1)
    return np.stack([x, np.zeros(x.shape), z], axis=-1)


def _paint_ground(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Terrain everywhere below the horizon, then pavements, the road and its markings."""
    camera = canvas.camera
    asphalt = pick(rng, ((98, 98, 100), (116, 114, 110), (80, 82, 88), (132, 130, 126), (104, 98, 96)))
    paving = pick(
        rng, ((138, 136, 132), (116, 116, 116), (158, 150, 138), (148, 110, 96), (102, 104, 108), (96, 94, 90))
    )
    grass = pick(rng, ((88, 110, 58), (112, 120, 66), (134, 124, 78), (104, 90, 66), (72, 96, 52)))
    ahead, down = (
        np.array([np.cos(camera.roll), np.sin(camera.roll)]),
        np.array([-np.sin(camera.roll), np.cos(camera.roll)]),
    )
    reach = 4 * sum(canvas.pixels.shape[:2])
    corners = [
        np.array([camera.centre, camera.horizon]) + reach * (a * ahead + b * down)
        for a, b in ((-1, 0), (1, 0), (1, 1), (-1, 1))
    ]
    canvas.fill_pixels(np.array(corners), grass, TERRAIN)

    for side in (-1, 1):
        inner, outer = street.walk_edges(side)
        paved_garden = street.garden[side] > 0 and rng.random() < 0.3
        if street.verge[side] == 0:
            canvas.fill(_strip(street.kerb[side], outer), paving, SIDEWALK)
        else:
            canvas.fill(_strip(inner, outer), paving, SIDEWALK)
        if paved_garden:
            canvas.fill(_strip(outer, street.front(side)), shade(paving, 0.9), SIDEWALK)
        joints = 1.5 * np.arange(1, 24)
        canvas.fill(_slabs(inner, outer, joints, joints + 0.04), shade(paving, 0.84), SIDEWALK)
        middle = (inner + outer) / 2
        canvas.fill(_strip(middle - 0.02, middle + 0.02), shade(paving, 0.86), SIDEWALK)
        stone = shade(paving, rng.uniform(0.75, 1.3))
        canvas.fill(_strip(street.kerb[side], street.kerb[side] + side * 0.22), stone, SIDEWALK)
    if street.crossing:
        near, width = street.crossing
        for inner, outer in ((-90.0, street.kerb[-1]), (street.kerb[1], 90.0)):
            canvas.fill(_slabs(inner, outer, near, near + width), asphalt, ROAD)
    canvas.fill(_strip(street.kerb[-1], street.kerb[1]), asphalt, ROAD)
    _paint_markings(canvas, street, asphalt, rng)
    canvas.flush(haze=False)  # a strip spans all depths; its haze comes by row
    canvas.fade_ground()


def _paint_markings(canvas: Canvas, street: Street, asphalt: Colour, rng: np.random.Generator) -> None:
    """Repairs, tyre tracks, manholes, lane lines and zebra stripes; all are road."""
    lane, first = street.lane_width, street.first_lane
    for _ in range(int(rng.integers(1, 5))):  # repaired patches
        x, z = first + rng.uniform(0, street.lanes * lane - 1.5), rng.uniform(3, 35)
        patch = _slabs(x, x + rng.uniform(0.6, 2.2), z, z + rng.uniform(1.0, 9.0))
        canvas.fill(patch, shade(asphalt, rng.uniform(0.76, 1.18)), ROAD)
    for index in range(street.lanes):
        for track in (0.28, 0.72):
            x = first + (index + track) * lane
            canvas.fill(_strip(x - 0.2, x + 0.2), shade(asphalt, 0.95), ROAD)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for _ in range(int(rng.integers(0, 3))):  # manholes
        x, z = first + rng.uniform(0.5, street.lanes * lane - 0.5), rng.uniform(4, 16)
        lid = np.column_stack([x + 0.34 * np.cos(angle), np.zeros(14), z + 0.34 * np.sin(angle)])
        canvas.fill(lid, shade(asphalt, 0.6), ROAD)
    white = shade(pick(rng, ((222, 222, 216), (206, 204, 196), (216, 180, 80)), 0.04), rng.uniform(0.75, 1.0))
    dashes = np.arange(2.0, 90.0, rng.uniform(6, 10)) + rng.uniform(0, 4)
    for index in range(1, street.lanes):
        x = first + index * lane
        if index == street.lanes // 2 and rng.random() < 0.5:
            canvas.fill(_strip(x - 0.07, x + 0.07), white, ROAD)
        else:
            canvas.fill(_slabs(x - 0.07, x + 0.07, dashes, dashes + 3.0), white, ROAD)
    for edge in (first, first + street.lanes * lane):
        if rng.random() < 0.5:
            canvas.fill(_strip(edge - 0.06, edge + 0.06), white, ROAD)
    zebra = rng.uniform(5, 18) if rng.random() < 0.3 else None
    if street.crossing and rng.random() < 0.6:
        zebra = street.crossing[0] - 4.5
    if zebra is not None:
        stripes = np.arange(street.kerb[-1] + 0.4, street.kerb[1] - 0.5, 1.0)
        canvas.fill(_slabs(stripes, stripes + 0.5, zebra, zebra + 3.2), shade(white, 0.96), ROAD)


def _paint_shadows(canvas: Canvas, things: list[Thing], sun: np.ndarray, weather: Weather) -> None:
    """Contact shadows under everything, and shadows thrown along `sun`, in metres (x, z) per metre of height."""
    import cv2

    outlines = []
    for thing in things:
        thrown = thing.footprint + sun * thing.height if weather.sun > 0.2 else thing.footprint * 1.02
        hull = cv2.convexHull(np.concatenate([thing.footprint, thrown]).astype(np.float32))[:, 0]
        if hull[:, 1].max() > NEAR:
            ground = np.column_stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1].clip(NEAR)])
            outlines.append(canvas.camera.project(ground))
    cast_shadows(canvas.pixels, outlines, 0.18 + 0.6 * weather.sun)


def _paint_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Far houses and trees that close the view."""
    x = -260.0
    town = rng.uniform(0.1, 0.7)
    while x < 260:
        width = rng.uniform(8, 26)
        if rng.random() < town:
            top = rng.uniform(8, 26) * (1 + 1.5 * (rng.random() < 0.15))
            box = np.array([(x, 0, _FAR), (x + width, 0, _FAR), (x + width, top, _FAR), (x, top, _FAR)])
            canvas.fill(box, pick(rng, WALLS), BUILDING)
        else:
            hills = np.linspace(0, 1, 9)
            top = rng.uniform(4, 12) * (0.55 + 0.45 * np.sin(np.pi * hills)) + 0.7 * rng.normal(size=9)
            crown = np.column_stack([x - 2 + hills * (width + 4), top, np.full(9, _FAR)])
            base = np.array([(x + width + 2, 0, _FAR), (x - 2, 0, _FAR)])
            canvas.fill(np.concatenate([crown, base]), pick(rng, LEAVES), VEGETATION)
        x += width


def _furnish(street: Street, weather: Weather, rng: np.random.Generator) -> list[Thing]:
    """Everything that stands in the street."""
    things: list[Thing] = []
    leaves = pick(rng, LEAVES)  # one species dominates a street
    for side in (-1, 1):
        things += _houses_and_gardens(street, weather, side, leaves, rng)
        things += _pavement(street, side, leaves, rng)
    things += _traffic(street, rng)
    return things


def _houses_and_gardens(
    street: Street, weather: Weather, side: int, leaves: Colour, rng: np.random.Generator
) -> list[Thing]:
    things: list[Thing] = []
    x, z = street.front(side), rng.uniform(-6, 2)
    storeys = rng.uniform(1.5, 5.5)
    while z < 125:
        length = rng.uniform(9, 22)
        if street.crossing and street.crosses(z, z + length):  # end before the side street, or go on behind it
            length = street.crossing[0] - 1.5 - z
            if length < 5:
                z = sum(street.crossing) + 1.5
                continue
        if rng.random() < street.density[side]:
            height = 3.1 * max(1.4, storeys + rng.normal() * 0.8) + 0.8
            set_back = side * rng.uniform(0, 1.5) * (street.density[side] < 1)
            lit = side == street.shadow_side  # its fronts look towards the sun
            if z + length > NEAR + 1:
                things.append(
                    building(rng, side, x + set_back, max(z, NEAR), z + length, height, sunlit=lit, lamps=weather.lamps)
                )
        else:
            for _ in range(int(rng.integers(2, 5))):
                spot = max(z + rng.uniform(0, length), 4.0)
                away = x + side * rng.uniform(1.5, 16)
                if rng.random() < 0.7:
                    things.append(tree(rng, away, spot, rng.uniform(4, 12), shade(leaves, rng.uniform(0.8, 1.2))))
                else:
                    things.append(bush(rng, away, spot, rng.uniform(1.5, 5), rng.uniform(0.8, 2.2), pick(rng, LEAVES)))
        z += length
    if street.garden[side] > 1.8:
        for z in np.arange(rng.uniform(4, 9), 60, rng.uniform(3, 9)):
            if not street.crosses(z - 1, z + 1):
                at = street.front(side) - side * street.garden[side] * rng.uniform(0.2, 0.6)
                things.append(bush(rng, at, z, rng.uniform(0.8, 2.4), rng.uniform(0.6, 1.5), pick(rng, LEAVES)))
    return things


def _pavement(street: Street, side: int, leaves: Colour, rng: np.random.Generator) -> list[Thing]:
    """Trees, lamp posts, signs, boxes and pedestrians between the road and the houses."""
    inner, outer = street.walk_edges(side)
    kerb = street.kerb[side] + side * 0.45
    things: list[Thing] = []
    if rng.random() < 0.55:
        spacing = rng.uniform(7, 16)
        for z in np.arange(rng.uniform(5, 5 + spacing), 80, spacing):
            if not street.crosses(z, z) and rng.random() < 0.85:
                jittered = z + rng.normal() * 0.4
                things.append(
                    tree(rng, kerb + side * 0.3, jittered, rng.uniform(4, 9), shade(leaves, rng.uniform(0.85, 1.15)))
                )
    spacing, tall = rng.uniform(16, 30), rng.uniform(5, 9)
    arm = -side * rng.uniform(1.0, 2.2) * (rng.random() < 0.75)
    things += [pole(rng, kerb, z, tall, arm) for z in np.arange(rng.uniform(5, 16), 95, spacing)]
    near = max(6.0, 1.25 * abs(kerb))  # closer ones would stand beside the picture
    for z in rng.uniform(near, near + 26, size=int(rng.integers(0, 4))):
        things.append(sign(rng, kerb + side * rng.uniform(-0.1, 0.4), z))
    if rng.random() < 0.35:
        things.append(street_box(rng, outer - side * 0.5, rng.uniform(near, 25)))
    for z in near + rng.exponential(12, size=int(rng.poisson(2.6))):
        at = inner + side * rng.uniform(0.3, street.walk[side] - 0.3)
        things += [
            person(rng, at + 0.62 * i, z + 0.3 * rng.normal())
            for i in range(int(rng.choice((1, 2, 3), p=(0.65, 0.27, 0.08))))
        ]
    return things


def _traffic(street: Street, rng: np.random.Generator) -> list[Thing]:
    """Cars in their lanes, parked along the kerb and on the side street, and people crossing."""
    things: list[Thing] = []
    for index in range(street.lanes):
        oncoming = index < street.lanes // 2
        x = street.first_lane + (index + 0.5) * street.lane_width
        z = rng.uniform(7, 40)
        while z < 90:
            if not street.crosses(z - 3, z + 3):
                things.append(car(rng, x + 0.2 * rng.normal(), z, (np.pi if oncoming else 0.0) + 0.02 * rng.normal()))
            z += 6.5 + rng.exponential(22)
    for side in (-1, 1):
        if street.parking[side] and rng.random() < 0.85:
            at = street.kerb[side] - side * 1.05
            for z in np.arange(rng.uniform(4.5, 9), 55, rng.uniform(5.6, 7.5)):
                if rng.random() < 0.7 and not street.crosses(z - 4, z + 4):
                    things.append(car(rng, at + 0.08 * rng.normal(), z, np.pi * (side < 0) + 0.04 * rng.normal()))
    if street.crossing and rng.random() < 0.6:
        near, width = street.crossing
        turn = int(rng.choice((-1, 1)))
        things.append(car(rng, rng.uniform(-14, 14), near + width * (0.5 - 0.24 * turn), turn * np.pi / 2))
    if rng.random() < 0.4:
        z = street.crossing[0] - 3 if street.crossing else rng.uniform(7, 25)
        for x in rng.uniform(street.kerb[-1], street.kerb[1], size=int(rng.integers(1, 4))):
            things.append(person(rng, x, z + rng.uniform(-1, 1)))
    return things


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The bonnet of the own car along the lower border, void, in three scenes of four."""
    present, rise, colour = rng.random() < 0.75, rng.uniform(0.03, 0.1), pick(rng, PAINTS)
    if not present:
        return
    height, width = canvas.pixels.shape[:2]
    across = np.linspace(-0.05, 1.05, 40)
    top = height * (1 - rise * (1 - (2 * across - 1).clip(-1, 1) ** 4))
    edge = np.column_stack([across * width, top])
    bottom = np.array([(1.1 * width, 1.1 * height), (-0.1 * width, 1.1 * height)])
    for drop, brightness in ((0.0, 0.7), (0.35 * rise * height, 0.52)):
        outline = np.concatenate([edge + (0, drop), bottom])
        canvas.fill_pixels(outline, shade(colour, brightness), VOID)
