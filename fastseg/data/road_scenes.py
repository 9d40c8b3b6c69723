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
    BUILDING,
    LEAVES,
    NEAR,
    PAINTS,
    ROAD,
    SIDEWALK,
    TERRAIN,
    VEGETATION,
    VOID,
    WALLS,
    Camera,
    Canvas,
    Colour,
    Numbers,
    Thing,
    circle,
    pick,
    shade,
    upright,
)
from fastseg.data.road_scenes_light import Weather, cast_shadows, draw_weather, expose, paint_sky
from fastseg.data.road_scenes_street import FAR, Street, furnish
from fastseg.errors import ConfigError, DataError, suggest
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


class RoadScenes(SegDataset):
    """Procedural street scenes of one split; see `road_scenes`."""

    info = ROAD_SCENES

    def __init__(
        self, split: str, *, count: int | None = None, height: int = 256, width: int = 512, seed: int = 0
    ) -> None:
        if split not in DEFAULT_COUNTS:
            raise DataError(f"road_scenes has no split {split!r}; {suggest(split, DEFAULT_COUNTS)}")
        self.split = split
        self.count = DEFAULT_COUNTS[split] if count is None else count
        self.height, self.width, self.seed = height, width, seed
        limits = (("count", self.count, 1), ("height", height, 1), ("width", width, 1), ("seed", seed, 0))
        for name, value, least in limits:
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"road_scenes was given {name}={value!r}; {name} must be an integer of at least {least}"
                )

    def __len__(self) -> int:
        return self.count

    def sample_name(self, index: int) -> str:
        return f"{self.split}_{index:06d}"

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) RGB and label uint8 (H,W) of scene `index`. Raises IndexError outside 0..count-1."""
        if not 0 <= index < self.count:
            raise IndexError(f"road_scenes {self.split} has scenes 0..{self.count - 1}, not {index}")
        key = np.random.SeedSequence(self.seed, spawn_key=(_SPLIT_KEYS[self.split], int(index)))
        return render_scene(key, self.height, self.width)


@DATASETS.register
def road_scenes(
    split: str, *, count: int | None = None, height: int = 256, width: int = 512, seed: int = 0
) -> SegDataset:
    """Procedural street scenes, `height` x `width` pixels.

    `split` is train, val or test: disjoint streams of scenes, by default 400, 60 and 60 of them. A larger `count`
    extends a split without changing its first scenes.
    Raises DataError for another split, ConfigError for a count or size below 1.
    """
    return RoadScenes(split, count=count, height=height, width=width, seed=seed)


def render_scene(key: int | np.random.SeedSequence, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The scene of one key: image uint8 (H,W,3) RGB and label uint8 (H,W), classes 0..9 or 255.

    One key shows one street at every size of the same shape; only grain and rounding differ.
    Raises ConfigError for a size below 1.
    """
    if height < 1 or width < 1:
        raise ConfigError(f"a scene of {height} x {width} pixels was asked for; height and width must be at least 1")
    if not isinstance(key, np.random.SeedSequence):
        key = np.random.SeedSequence(key)
    # Children by hand: `key.spawn` would count up inside the caller's key, and the second call would differ.
    # `world` draws metres, `sight` the light, `grain` pixels: the first two never depend on the size.
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
    sun = np.array([street.shadow_side * world.uniform(0.2, 1.3), world.uniform(-0.5, 0.6)])
    things = sorted(furnish(street, weather, world), key=lambda thing: -thing.depth)
    _paint_shadows(canvas, things, sun, weather)
    _paint_skyline(canvas, world)
    for thing in things:
        thing.draw(canvas)
    canvas.flush()
    _paint_bonnet(canvas, world)
    image = expose(canvas.pixels, weather, camera.horizon, sight, grain)
    return image, np.ascontiguousarray(canvas.pixels[..., 3])


def _draw_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    focal = max(rng.uniform(0.95, 1.25) * height, 0.45 * width)
    horizon = 0.5 * height + rng.uniform(-0.1, 0.04) * min(focal, 1.1 * height)
    bend = rng.normal() * 0.006 * (rng.random() < 0.7)
    return Camera(focal, width * rng.uniform(0.4, 0.6), horizon, rng.uniform(1.25, 2.1), 0.018 * rng.normal(), bend)


def _strip(left: float, right: float) -> np.ndarray:
    """A band (n,3) of ground along the whole street between two lateral positions."""
    z = np.geomspace(NEAR, FAR, 26)
    left_edge, right_edge = (np.column_stack([np.full(26, x), np.zeros(26), z]) for x in (left, right))
    return np.concatenate([left_edge, right_edge[::-1]])


def _slabs(left: Numbers, right: Numbers, near: Numbers, far: Numbers) -> np.ndarray:
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
    along_horizon = np.array([np.cos(camera.roll), np.sin(camera.roll)])
    downwards = np.array([-along_horizon[1], along_horizon[0]])
    half_plane = np.array([-along_horizon, along_horizon, along_horizon + downwards, downwards - along_horizon])
    reach = 4 * sum(canvas.pixels.shape[:2])
    canvas.fill_pixels(np.array([camera.centre, camera.horizon]) + reach * half_plane, grass, TERRAIN)

    for side in (-1, 1):
        inner, outer = street.walk_edges(side)
        paved_garden = street.garden[side] > 0 and rng.random() < 0.3
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
    for _ in range(int(rng.integers(0, 3))):  # manholes
        x, z = first + rng.uniform(0.5, street.lanes * lane - 0.5), rng.uniform(4, 16)
        lid = np.insert(0.34 * circle(14) + (x, z), 1, 0.0, axis=1)
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
            block = np.array([(0, 0), (width, 0), (width, top), (0, top)])
            canvas.fill(upright(x, FAR, block), pick(rng, WALLS), BUILDING)
        else:
            share = np.linspace(0, 1, 9)
            tops = rng.uniform(4, 12) * (0.55 + 0.45 * np.sin(np.pi * share)) + 0.7 * rng.normal(size=9)
            crowns = np.column_stack([share * (width + 4) - 2, tops])
            grove = np.concatenate([crowns, np.array([(width + 2, 0), (-2, 0)])])
            canvas.fill(upright(x, FAR, grove), pick(rng, LEAVES), VEGETATION)
        x += width


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
        outline = np.concatenate([edge + np.array([0.0, drop]), bottom])
        canvas.fill_pixels(outline, shade(colour, brightness), VOID)
