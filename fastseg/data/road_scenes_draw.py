"""Camera, canvas and shapes for procedural street scenes (see `road_scenes`).

World axes in metres: x to the right, y up from the ground, z ahead of the camera. The camera stands at x = 0, z = 0;
a bend of the road shifts everything sideways by `curvature * z^2 / 2`. Every random draw is about the world, never
about pixels, so one key gives one scene at every image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from fastseg.types import IGNORE_INDEX

ROAD, SIDEWALK, BUILDING, POLE, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR = range(10)
VOID = IGNORE_INDEX

NEAR = 1.0  # metres; the ground this close is below every picture's lower border
SUBPIXEL_BITS = 4  # polygon corners are placed to 1/16 pixel

# Colours of different classes overlap on purpose: grey roads, walls and pavements; green cars, walls and trees;
# walls as blue as the sky. Colour alone must not name a class.
WALLS = (
    *((128, 128, 126), (96, 98, 102), (165, 163, 158), (188, 172, 140), (150, 88, 68), (116, 74, 60), (214, 208, 196)),
    *(
        (122, 142, 166),
        (156, 178, 202),
        (104, 124, 94),
        (138, 154, 112),
        (206, 178, 112),
        (196, 148, 132),
        (70, 72, 76),
    ),
)
ROOFS = ((122, 70, 54), (86, 62, 54), (78, 80, 86), (110, 108, 104), (74, 86, 74))
LEAVES = ((62, 92, 44), (44, 72, 38), (84, 104, 50), (102, 112, 62), (58, 84, 62), (150, 120, 54), (140, 84, 46))
PAINTS = (
    *((222, 222, 220), (30, 31, 34), (92, 94, 98), (164, 166, 168), (150, 34, 34), (38, 66, 126), (52, 92, 62)),
    *((98, 110, 72), (186, 160, 58), (120, 150, 180), (112, 74, 54)),
)
CLOTHES = (
    *((40, 42, 52), (96, 98, 102), (188, 186, 180), (142, 44, 46), (52, 78, 132), (66, 96, 60), (186, 152, 74)),
    *((124, 92, 70), (86, 60, 104), (200, 110, 60), (140, 166, 190)),
)
SKIN = ((224, 182, 154), (196, 148, 116), (144, 100, 74), (92, 64, 50))
METAL = ((92, 94, 96), (136, 138, 138), (58, 60, 62), (66, 82, 68), (112, 88, 66))

# Corner i of a box has u = bit 0, v = bit 1, w = bit 2 of i; faces list lower edge first: (b1, b2, top2, top1).
SIDES = {"left": (0, 2, 6, 4), "right": (1, 3, 7, 5), "rear": (0, 1, 5, 4), "front": (2, 3, 7, 6), "top": (4, 5, 7, 6)}

Colour = tuple[float, float, float]
Numbers = float | np.ndarray


@dataclass(frozen=True)
class Camera:
    """Pinhole camera: `focal`, `centre` and `horizon` in pixels, `height` in metres, `roll` in radians."""

    focal: float
    centre: float
    horizon: float
    height: float
    roll: float
    curvature: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (...,3) in metres -> pixel positions (...,2)."""
        z = np.maximum(points[..., 2], NEAR)
        right = self.focal * (points[..., 0] / z + 0.5 * self.curvature * z)
        down = self.focal * (self.height - points[..., 1]) / z
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        pixels = [self.centre + cosine * right - sine * down, self.horizon + sine * right + cosine * down]
        return np.stack(pixels, axis=-1)


class Canvas:
    """The picture in the making: uint8 (H,W,4), red, green, blue and class.

    The class is painted as a fourth colour by the same call as the other three, so image and label cannot disagree.
    """

    def __init__(self, height: int, width: int, camera: Camera, haze: Colour, visibility: float) -> None:
        self.pixels = np.zeros((height, width, 4), np.uint8)
        self.camera = camera
        self._haze = np.array(haze)
        self._visibility = visibility
        self._waiting: list[tuple[np.ndarray, Colour, int]] = []

    def fill(self, points: np.ndarray, colour: Colour, class_index: int) -> None:
        """Ask for polygons with world corners (n,3) or (m,n,3); `flush` paints them, in the order asked for."""
        if points.size:
            self._waiting.append((points, colour, class_index))

    def flush(self, *, haze: bool = True) -> None:
        """Paint what was asked for, each call's polygons faded by the haze of their mean depth unless `haze` is off.

        All corners are projected at once: one by one, that would be most of the time a scene takes.
        """
        import cv2

        if not self._waiting:
            return
        corners = [points.reshape(-1, 3) for points, _, _ in self._waiting]
        ends = np.cumsum([len(c) for c in corners])
        starts = np.concatenate([[0], ends[:-1]])
        world = np.concatenate(corners)
        pixels = self.camera.project(world)
        colours = np.array([colour for _, colour, _ in self._waiting])
        if haze:
            depth = np.add.reduceat(world[:, 2], starts) / (ends - starts)
            clear = np.exp(-depth / self._visibility)[:, None]
            colours = colours * clear + self._haze * (1 - clear)
        low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
        size = np.array(self.pixels.shape[1::-1])
        # Outside the picture, or details of less than half a pixel, which would come out a whole pixel large.
        skipped = (low > size).any(axis=1) | (high < -1).any(axis=1) | (high - low < 0.5).all(axis=1)
        fixed = np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
        tones = colours.clip(0, 255).tolist()
        for index in np.flatnonzero(~skipped).tolist():
            points, _, class_index = self._waiting[index]
            polygons = fixed[starts[index] : ends[index]].reshape(-1, points.shape[-2], 2)
            cv2.fillPoly(self.pixels, list(polygons), (*tones[index], class_index), shift=SUBPIXEL_BITS)
        self._waiting.clear()

    def fill_pixels(self, corners: np.ndarray, colour: Colour, class_index: int) -> None:
        """Paint one polygon with corners (n,2) in pixels, at once."""
        import cv2

        fixed = np.rint(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)
        red, green, blue = (min(max(c, 0.0), 255.0) for c in colour)
        cv2.fillPoly(self.pixels, [fixed], (red, green, blue, class_index), shift=SUBPIXEL_BITS)

    def fade_ground(self) -> None:
        """Haze over everything painted below the horizon, taken as flat ground."""
        first = int(np.clip(np.ceil(self.camera.horizon), 0, len(self.pixels)))
        below = np.arange(first, len(self.pixels), dtype=np.float32) - self.camera.horizon + 0.5
        depth = self.camera.focal * self.camera.height / np.maximum(below, 0.5)
        clear = np.exp(-depth / self._visibility).astype(np.float32)[:, None, None]
        rows = self.pixels[first:, :, :3]
        rows[:] = rows * clear + self._haze.astype(np.float32) * (1 - clear)


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground: `footprint` (n,2) holds x and z of its base, `draw` paints it.

    Things are painted by falling `depth`. `draw` may use the scene's generator.
    """

    depth: float
    footprint: np.ndarray
    height: float
    draw: Callable[[Canvas], None]


def pick(rng: np.random.Generator, colours: tuple[tuple[int, int, int], ...], spread: float = 0.12) -> Colour:
    """One of `colours`, brightness and tint varied by about `spread`."""
    red, green, blue = colours[int(rng.integers(len(colours)))]
    gain = 1 + spread * rng.normal()
    tint = 1 + 0.4 * spread * rng.normal(size=3)
    return float(red * gain * tint[0]), float(green * gain * tint[1]), float(blue * gain * tint[2])


def shade(colour: Colour, factor: float) -> Colour:
    """`colour`, `factor` times as bright."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def patches(quad: np.ndarray, left: Numbers, right: Numbers, low: Numbers, high: Numbers) -> np.ndarray:
    """Rectangles (m,4,3) on a quad (4,3): fractions along its lower edge and up its side, scalars or (m,)."""
    count = max(np.size(v) for v in (left, right, low, high))
    s, t = np.empty((2, count, 4, 1))
    s[:, 0, 0] = s[:, 3, 0] = left
    s[:, 1, 0] = s[:, 2, 0] = right
    t[:, 0, 0] = t[:, 1, 0] = low
    t[:, 2, 0] = t[:, 3, 0] = high
    first, second, third, fourth = quad
    return first + s * (second - first) + t * (fourth - first) + s * t * (first - second + third - fourth)


def upright(x: float, z: float, outline: np.ndarray) -> np.ndarray:
    """Flat shapes (...,2) of sideways and upward metres, stood up at (x, z) facing the camera: (...,3)."""
    points = np.empty((*outline.shape[:-1], 3))
    points[..., 0], points[..., 1], points[..., 2] = outline[..., 0] + x, outline[..., 1], z
    return points


@cache
def circle(corners: int, turn: float = 0.0) -> np.ndarray:
    """A regular polygon (n,2) of radius 1, its first corner at `turn` radians."""
    angle = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def blobs(rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray, rough: float) -> np.ndarray:
    """Roundish outlines (m,32,2) about `centres` (m,2) with `radii` (m,2), each radius varied by about `rough`."""
    radius = 1 + rough * rng.standard_normal((len(centres), 32, 1)).clip(-2, 2)
    return centres[:, None] + radii[:, None] * radius * circle(32)


def square(x: float, z: float, half: float) -> np.ndarray:
    """Footprint (4,2) of a thin thing."""
    return np.array([(x - half, z - half), (x + half, z - half), (x + half, z + half), (x - half, z + half)])
