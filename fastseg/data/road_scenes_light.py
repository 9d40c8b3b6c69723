"""Weather, sky, surface texture and the camera's sensor for procedural street scenes (see `road_scenes`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastseg.data.road_scenes_draw import (
    BUILDING,
    CAR,
    PERSON,
    POLE,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    TRAFFIC_SIGN,
    VEGETATION,
    Colour,
)


@dataclass(frozen=True)
class Weather:
    """How the street is lit. Colours are 0..255; `sun` is the strength of shadows and `lamps` the share of lit windows,
    both 0..1; `visibility` is the depth in metres at which haze has taken 63 % of a colour."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    cloudiness: float
    sun: float
    exposure: float
    cast: Colour
    visibility: float
    lamps: float = 0.0


WEATHERS = (
    Weather((74, 124, 190), (186, 208, 226), (240, 242, 244), 0.35, 0.55, 1.06, (1.03, 1.0, 0.95), 320),  # clear day
    Weather((112, 150, 196), (206, 216, 224), (228, 230, 234), 0.7, 0.4, 1.0, (1.0, 1.0, 1.0), 240),  # broken clouds
    Weather((164, 170, 178), (206, 208, 208), (140, 146, 154), 0.8, 0.08, 0.9, (0.97, 1.0, 1.03), 130),  # overcast
    Weather((104, 118, 168), (248, 198, 146), (240, 186, 160), 0.5, 0.42, 0.9, (1.09, 0.98, 0.88), 190, 0.4),  # low sun
    Weather((54, 70, 112), (154, 142, 160), (104, 100, 130), 0.6, 0.05, 0.68, (0.94, 0.98, 1.12), 170, 0.9),  # dusk
    Weather((198, 202, 204), (220, 220, 216), (228, 228, 226), 0.3, 0.14, 1.02, (1.02, 1.0, 0.97), 70),  # morning haze
)

# Contrast of fine grain, coarse patches and streaks along the ground, per class.
_TEXTURES = {
    ROAD: (0.05, 0.03, 0.05), SIDEWALK: (0.05, 0.04, 0.05), BUILDING: (0.035, 0.018, 0.0), POLE: (0.03, 0.03, 0.0),
    TRAFFIC_SIGN: (0.02, 0.03, 0.0), VEGETATION: (0.16, 0.2, 0.0), TERRAIN: (0.12, 0.09, 0.06), SKY: (0.0, 0.0, 0.0),
    PERSON: (0.04, 0.06, 0.0), CAR: (0.015, 0.04, 0.0),
}  # fmt: skip
GRAIN, PATCH, STREAK = np.zeros((3, 256), np.float32)
for _class, _contrast in _TEXTURES.items():
    GRAIN[_class], PATCH[_class], STREAK[_class] = _contrast


def draw_weather(rng: np.random.Generator) -> Weather:
    """One of `WEATHERS`, varied."""
    weather = WEATHERS[int(rng.choice(len(WEATHERS), p=(0.26, 0.22, 0.2, 0.12, 0.09, 0.11)))]
    cast = np.array(weather.cast) * (1 + 0.04 * rng.normal(size=3))
    return replace(
        weather,
        cloudiness=float(np.clip(weather.cloudiness + 0.2 * rng.normal(), 0, 1)),
        exposure=weather.exposure * float(rng.uniform(0.86, 1.14)),
        visibility=weather.visibility * float(rng.uniform(0.8, 1.3)),
        cast=(float(cast[0]), float(cast[1]), float(cast[2])),
    )


def noise_field(rng: np.random.Generator, rows: int, columns: int, height: int, width: int) -> np.ndarray:
    """Smooth noise float32 (H,W), about standard normal: `rows` x `columns` random values, enlarged or shrunk."""
    import cv2

    values = rng.standard_normal((rows, columns), dtype=np.float32)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


def paint_sky(pixels: np.ndarray, weather: Weather, horizon: float, rng: np.random.Generator) -> None:
    """Fill all of `pixels` (H,W,4) with the sky: a gradient down to the row `horizon`, and clouds."""
    import cv2

    height, width = pixels.shape[:2]
    rows, columns = min(height, 128), min(width, 256)  # skies are soft: painted small, then enlarged
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows * height / max(horizon, 1.0)
    down = down.clip(0, 1)[:, None, None] ** 0.8
    zenith, low, cloud = (np.array(c, np.float32) for c in (weather.zenith, weather.horizon, weather.cloud))
    field = np.full((rows, columns), 1.6 * (weather.cloudiness - 0.5), np.float32)
    for cells, weight in ((5, 1.0), (11, 0.55), (24, 0.3), (50, 0.16)):
        field += weight * noise_field(rng, cells, cells * 2, rows, columns)
    cover = (0.9 * field).clip(0, 1)[..., None] * (0.9 - 0.67 * down**3)
    sky = zenith + (low - zenith) * down
    sky = (sky + (cloud - sky) * cover).clip(0, 255)
    pixels[..., :3] = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels[..., 3] = SKY


def cast_shadows(pixels: np.ndarray, outlines: list[np.ndarray], strength: float) -> None:
    """Darken `pixels` (H,W,4) inside the pixel polygons `outlines`, with soft edges; labels stay."""
    import cv2

    height, width = pixels.shape[:2]
    mask: np.ndarray = np.zeros((height, width), np.uint8)
    for outline in outlines:
        cv2.fillConvexPoly(mask, np.rint(outline.clip(-30_000, 30_000)).astype(np.int32), 255)
    mask = cv2.blur(mask, (1 + 2 * (height // 160), 1 + 2 * (height // 160)))
    gain = 255 - (mask * strength).astype(np.uint8)
    for channel in range(3):  # shadows keep some of the sky's blue
        tinted = gain if channel < 2 else cv2.addWeighted(gain, 0.88, gain, 0.0, 255 * 0.12)
        pixels[..., channel] = cv2.multiply(np.ascontiguousarray(pixels[..., channel]), tinted, scale=1 / 255)


def expose(
    pixels: np.ndarray, weather: Weather, horizon: float, rng: np.random.Generator, grain: np.random.Generator
) -> np.ndarray:
    """The painted street (H,W,4) as a camera sees it, uint8 (H,W,3): texture, light, blur, sensor noise.

    `rng` draws what belongs to the scene, `grain` whatever needs one value per pixel.
    """
    import cv2

    height, width = pixels.shape[:2]
    label = pixels[..., 3]
    columns = int(np.clip(round(110 * width / height), 1, 400))  # texture cells are square, and bounded in number
    coarse = noise_field(rng, 110, columns, height, width)
    streaks = noise_field(rng, 90, max(1, columns // 9), height, width)
    light = noise_field(rng, 3, 5, height, width)
    fine = np.frombuffer(grain.bytes(height * width), np.uint8).reshape(height, width).astype(np.float32)
    fine = (fine - 127.5) * (1 / 73.6)  # uniform with unit variance

    gain = cv2.LUT(label, GRAIN) * fine
    gain += cv2.LUT(label, PATCH) * coarse
    gain += cv2.LUT(label, STREAK) * streaks
    # What lies at the horizon is mostly far away: its texture is too fine to see, and lost in the haze.
    rows = np.abs(np.arange(height, dtype=np.float32) + 0.5 - horizon)
    gain *= (0.25 + rows * (6 / height)).clip(0, 1)[:, None]
    gain += 1 + 0.03 * light
    across = np.linspace(-1, 1, width, dtype=np.float32) if width > 1 else np.zeros(1, np.float32)
    along = np.linspace(-1, 1, height, dtype=np.float32)[:, None] if height > 1 else np.zeros((1, 1), np.float32)
    gain *= weather.exposure * (1 - rng.uniform(0.0, 0.14) * (across**2 + along**2))

    image = cv2.merge([gain * float(c) for c in weather.cast])
    image *= pixels[..., :3]
    contrast, black = rng.uniform(0.86, 1.12), rng.uniform(-8, 12)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.45, 0.85)))
    level = rng.uniform(1.0, 4.5)
    noise = np.frombuffer(grain.bytes(height * width * 3), np.uint8).reshape(height, width, 3).astype(np.float32)
    noise *= level / 73.6
    offset = np.float32(90 * (1 - contrast) + black - 127.5 * level / 73.6 + 0.5)
    image = image * np.float32(contrast) + noise + offset
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
