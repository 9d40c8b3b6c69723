"""What stands in a procedural street: houses, trees, posts, signs, people, cars (see `road_scenes`)."""

from __future__ import annotations

import numpy as np

from fastseg.data.road_scenes_draw import (
    BUILDING,
    CAR,
    CLOTHES,
    METAL,
    NEAR,
    PAINTS,
    PERSON,
    POLE,
    ROOFS,
    SIDES,
    SKIN,
    TRAFFIC_SIGN,
    VEGETATION,
    VOID,
    WALLS,
    Camera,
    Canvas,
    Colour,
    Thing,
    blobs,
    circle,
    patches,
    pick,
    shade,
    square,
    upright,
)


def _bar(low_half: float, high_half: float, low: float, high: float) -> np.ndarray:
    """An upright bar (4,2) from height `low` to `high`, with its half widths there."""
    return np.array([(-low_half, low), (low_half, low), (high_half, high), (-high_half, high)])


def building(
    rng: np.random.Generator, side: int, x: float, near: float, far: float, height: float, *, sunlit: bool, lamps: float
) -> Thing:
    """A house along the street: street front at `x` from depth `near` to `far`, its end wall facing the camera.

    `side` is -1 left of the road, 1 right of it; `lamps` is the share of lit windows.
    """
    wall = pick(rng, WALLS)
    depth = 12.0
    street = np.array([(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)])
    end = np.array([(x, 0, near), (x + side * depth, 0, near), (x + side * depth, height, near), (x, height, near)])

    def windows(canvas: Canvas, face: np.ndarray, length: float, glass: Colour, light: float) -> None:
        floors = max(1, int(height / 3.1))
        columns = max(1, int(length / rng.uniform(2.2, 3.8)))
        column, floor = (grid.ravel() for grid in np.meshgrid(np.arange(columns), np.arange(floors)))
        half = rng.uniform(0.2, 0.4)
        low, high = rng.uniform(0.2, 0.34), rng.uniform(0.7, 0.86)
        left, right = (column + 0.5 - half) / columns, (column + 0.5 + half) / columns
        panes = patches(face, left, right, (floor + low) / floors, (floor + high) / floors)
        if half < 0.34:
            rim = 0.06 / columns
            frames = patches(
                face, left - rim, right + rim, (floor + low - 0.05) / floors, (floor + high + 0.05) / floors
            )
            canvas.fill(frames, shade(wall, light * rng.uniform(0.8, 1.25)), BUILDING)
        kind = rng.random(len(panes))
        canvas.fill(panes[kind >= 0.3], glass, BUILDING)
        canvas.fill(panes[(kind < 0.3) & (kind >= 0.3 * lamps)], shade(glass, rng.uniform(0.6, 1.7)), BUILDING)
        canvas.fill(panes[kind < 0.3 * lamps], (250, 208, 130), BUILDING)
        if rng.random() < 0.6:  # shop fronts, doors
            shops = max(1, columns // 2)
            start = np.arange(shops) / shops
            doors = patches(face, start + 0.12 / shops, start + 0.8 / shops, 0.0, 0.8 / floors)
            canvas.fill(doors, shade(pick(rng, PAINTS), 0.7), BUILDING)

    def draw(canvas: Canvas) -> None:
        glass = pick(rng, ((48, 56, 66), (72, 84, 96), (104, 122, 140), (40, 40, 42)))
        light = 1.12 if sunlit else 0.84
        canvas.fill(end, shade(wall, 1.9 - light), BUILDING)
        if NEAR < near < 45:
            windows(canvas, end, depth, shade(glass, 0.85), 1.9 - light)
        canvas.fill(street, shade(wall, light), BUILDING)
        if rng.random() < 0.5:  # another colour at street level
            base = patches(street, 0.0, 1.0, 0.0, 1.0 / max(1, int(height / 3.1)))
            canvas.fill(base, shade(pick(rng, WALLS), light), BUILDING)
        if near < 80:
            windows(canvas, street, far - near, glass, light)
        canvas.fill(patches(street, 0.0, 1.0, 0.95, 1.0), shade(wall, light * rng.uniform(0.7, 1.2)), BUILDING)
        if height < 12:  # a pitched roof, its ridge over the middle of the house
            ridge, eaves = (x + side * depth / 2, height + rng.uniform(1.5, 3.5)), (x - side * 0.4, height - 0.1)
            gable = np.array([(x, height, near), (x + side * depth, height, near), (*ridge, near)])
            slope = np.array([(*eaves, near), (*eaves, far), (*ridge, far), (*ridge, near)])
            canvas.fill(gable, wall, BUILDING)
            canvas.fill(slope, shade(pick(rng, ROOFS), light), BUILDING)

    footprint = np.array([(x, near), (x + side * depth, near), (x + side * depth, far), (x, far)])
    return Thing(far, footprint, height, draw)  # by its far end: whatever stands along the front comes later


def tree(rng: np.random.Generator, x: float, z: float, height: float, leaves: Colour) -> Thing:
    """A tree: round or conical crown on a trunk; both are vegetation."""
    radius = height * rng.uniform(0.22, 0.36)
    conical = rng.random() < 0.2

    def draw(canvas: Canvas) -> None:
        bark = shade(pick(rng, ((88, 72, 58), (104, 96, 86), (66, 54, 46))), 0.9)
        half = 0.018 * height + 0.03
        canvas.fill(upright(x, z, _bar(half, half * 0.7, 0, height * 0.6)), bark, VEGETATION)
        if conical:
            for step in range(5):
                wide, low = radius * (1 - 0.17 * step), height * (0.12 + 0.17 * step)
                tier = np.array([(-1, 0), (1, 0), (0.3, 0.24), (0, 0.3), (-0.3, 0.24)]) * (wide, height) + (0, low)
                canvas.fill(upright(x, z, tier), shade(leaves, 0.7 + 0.1 * step), VEGETATION)
            return
        middle = np.array([0.0, height - radius * 0.95])
        (crown,) = blobs(rng, middle[None], np.array([(radius, radius * 0.95)]), 0.07)
        canvas.fill(upright(x, z, crown), shade(leaves, 0.72), VEGETATION)
        count = 9 if z < 45 else 4
        angle, distance = rng.uniform(0, 2 * np.pi, count), 0.75 * radius * np.sqrt(rng.random(count))
        offsets = distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        radii = radius * rng.uniform(0.25, 0.5, count)[:, None] * (1.0, 0.8)
        puffs = upright(x, z, blobs(rng, middle + offsets, radii, 0.12))
        tones = 0.86 + 0.3 * offsets[:, 1] / radius + 0.1 * rng.standard_normal(count)  # lighter towards the top
        for puff, tone in zip(puffs, tones.tolist(), strict=True):
            canvas.fill(puff, shade(leaves, tone), VEGETATION)

    return Thing(z, square(x, z, radius * 0.8), height, draw)


def bush(rng: np.random.Generator, x: float, z: float, width: float, height: float, leaves: Colour) -> Thing:
    """A low shrub."""

    def draw(canvas: Canvas) -> None:
        sizes = np.array([1.0, 0.72, 0.42])
        outlines = blobs(rng, np.full((3, 2), (0, height * 0.45)), sizes[:, None] * (width / 2, height * 0.55), 0.1)
        outlines[..., 1] = np.maximum(outlines[..., 1], 0)
        for outline, tone in zip(upright(x, z, outlines), (0.7, 0.9, 1.1), strict=True):
            canvas.fill(outline, shade(leaves, tone), VEGETATION)

    return Thing(z, square(x, z, width / 2), height, draw)


def pole(rng: np.random.Generator, x: float, z: float, height: float, arm: float) -> Thing:
    """A lamp post with an arm of `arm` metres (signed: towards the road), or a plain post where that is 0."""
    half = rng.uniform(0.06, 0.13)
    colour = pick(rng, METAL)

    def draw(canvas: Canvas) -> None:
        canvas.fill(upright(x, z, _bar(half, half * 0.7, 0, height)), colour, POLE)
        lee = _bar(half * 0.4, half * 0.3, 0, height) + np.array([half * 0.5, 0])
        canvas.fill(upright(x, z, lee), shade(colour, 0.75), POLE)
        if arm:
            bar = np.array([(0, height - 0.5), (arm, height - 0.1), (arm, height + 0.06), (0, height - 0.3)])
            canvas.fill(upright(x, z, bar), colour, POLE)
            lamp = np.array([(0.75, -0.2), (1.3, -0.08), (1.3, 0.12), (0.75, 0.08)]) * (arm, 1) + (0, height)
            canvas.fill(upright(x, z, lamp), shade(colour, 1.25), POLE)

    return Thing(z, square(x, z, half), height, draw)


# Round, triangular, square, diamond, direction board: corners, first corner, width by height, rim, plates.
SIGNS = (
    (24, 0.0, 1.0, (176, 34, 36), ((226, 226, 222), (40, 80, 150))),
    (3, np.pi / 2, 1.1, (176, 34, 36), ((226, 226, 222), (222, 180, 40))),
    (4, np.pi / 4, 1.1, (214, 216, 220), ((34, 74, 150), (226, 226, 222))),
    (4, 0.0, 1.0, (226, 226, 222), ((222, 180, 40), (210, 110, 40))),
    (4, np.pi / 4, 1.9, (220, 222, 222), ((28, 96, 72), (40, 80, 150))),
)


def sign(rng: np.random.Generator, x: float, z: float) -> Thing:
    """A traffic sign on its post: one of `SIGNS`, now and then its grey back."""
    corners, turn, aspect, rim, plates = SIGNS[int(rng.integers(len(SIGNS)))]
    size = rng.uniform(0.38, 0.6)
    height = rng.uniform(2.3, 3.0)
    colour, plate = pick(rng, METAL), pick(rng, plates, 0.05)
    outline = circle(corners, turn) * (aspect * size, size)
    from_behind = rng.random() < 0.15
    symbol = pick(rng, ((24, 24, 26), (230, 230, 228)), 0.05)
    mark_size = ((0.7 * aspect, 0.24), (0.22, 0.5), (0.4, 0.4))[int(rng.integers(3))]

    def draw(canvas: Canvas) -> None:
        canvas.fill(upright(x, z, _bar(0.06, 0.06, 0, height)), colour, POLE)
        raised = np.array([0.0, height + size * 0.6])
        canvas.fill(upright(x, z, outline + raised), (134, 136, 138) if from_behind else rim, TRAFFIC_SIGN)
        if not from_behind:
            canvas.fill(upright(x, z, outline * 0.78 + raised), plate, TRAFFIC_SIGN)
            mark = circle(4, np.pi / 4) * size * mark_size
            canvas.fill(upright(x, z, mark + raised), symbol, TRAFFIC_SIGN)

    return Thing(z, square(x, z, 0.1), height + size, draw)


def person(rng: np.random.Generator, x: float, z: float) -> Thing:
    """A pedestrian in mid-step, 1.3 to 1.95 m tall."""
    tall = rng.uniform(1.3, 1.95)

    def draw(canvas: Canvas) -> None:
        skin = pick(rng, SKIN, 0.06)
        coat, trousers = pick(rng, CLOTHES), pick(rng, CLOTHES)
        stride, swing = rng.uniform(-0.16, 0.16, size=2)
        wide = rng.uniform(0.12, 0.16)
        hem = rng.uniform(0.3, 0.48)

        def part(outline: list[tuple[float, float]], colour: Colour) -> None:
            canvas.fill(upright(x, z, np.array(outline) * tall), colour, PERSON)

        for foot, hip, tone in ((stride, -0.04, 0.8), (-stride, 0.04, 1.0)):
            leg = [(hip - 0.05, 0.5), (hip + 0.055, 0.5), (foot + 0.035, 0.03), (foot - 0.035, 0.03)]
            part(leg, shade(trousers, tone))
            part([(foot - 0.04, 0.04), (foot + 0.06, 0.04), (foot + 0.06, 0.0), (foot - 0.04, 0.0)], (36, 32, 30))
        hand = wide + 0.03 + abs(swing) * 0.4
        part([(-wide, 0.8), (-wide + 0.06, 0.8), (-hand + 0.05, 0.44), (-hand, 0.44)], shade(coat, 0.78))
        part([(wide, 0.8), (wide - 0.06, 0.8), (hand - 0.05, 0.44), (hand, 0.44)], shade(coat, 0.78))
        part([(-wide, 0.8), (-0.06, 0.85), (0.06, 0.85), (wide, 0.8), (wide * 0.85, hem), (-wide * 0.85, hem)], coat)
        if rng.random() < 0.3:  # a rucksack or bag
            part([(wide * 0.3, 0.78), (wide * 1.25, 0.76), (wide * 1.25, 0.54), (wide * 0.3, 0.54)], pick(rng, CLOTHES))
        part([(-0.025, 0.84), (0.025, 0.84), (0.025, 0.9), (-0.025, 0.9)], shade(skin, 0.85))
        head = (circle(10) * (0.058, 0.075) + (0, 0.925)) * tall
        canvas.fill(upright(x, z, head), skin, PERSON)
        hair = pick(rng, ((38, 30, 26), (92, 66, 44), (150, 120, 80), (140, 138, 136)))
        canvas.fill(upright(x, z, head[head[:, 1] > 0.93 * tall]), hair, PERSON)

    return Thing(z, square(x, z, 0.2), tall, draw)


def car(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """A car or van centred at (x, z); yaw 0 shows its rear, pi its front, +-pi/2 its side."""
    van = rng.random() < 0.2
    length, width = (5.0, 1.95) if van else (rng.uniform(3.7, 4.7), rng.uniform(1.68, 1.85))
    belt, roof = (1.05, rng.uniform(1.9, 2.2)) if van else (rng.uniform(0.85, 0.95), rng.uniform(1.38, 1.6))
    # Cabin along the car: (lower rear, lower front, upper rear, upper front), as shares of the length.
    cabin_span = (-0.5, 0.36, -0.49, 0.24) if van else (rng.uniform(-0.49, -0.34), 0.24, rng.uniform(-0.38, -0.2), 0.06)
    paint = pick(rng, PAINTS)
    cosine, sine = float(np.cos(yaw)), float(np.sin(yaw))

    def place(local: np.ndarray) -> np.ndarray:
        """Corners (...,3) as right, ahead, up of the car -> world."""
        right, ahead, up = local[..., 0], local[..., 1], local[..., 2]
        return np.stack([x + right * cosine + ahead * sine, up, z - right * sine + ahead * cosine], axis=-1)

    def frustum(*levels: tuple[float, float, float, float]) -> np.ndarray:
        """World corners (8,3) between two levels, each (half width, rear, front, height)."""
        return place(
            np.array([(half * side, end, up) for half, *ends, up in levels for end in ends for side in (-1, 1)])
        )

    body = frustum((width / 2, -length / 2, length / 2, 0.24), (width / 2 * 0.97, -length / 2, length * 0.49, belt))
    cabin = frustum(
        (width / 2 * 0.94, cabin_span[0] * length, cabin_span[1] * length, belt),
        (width / 2 * 0.76, cabin_span[2] * length, cabin_span[3] * length, roof),
    )
    glass = shade(pick(rng, ((44, 52, 60), (66, 78, 90), (100, 116, 130))), 0.9)

    def faces(box: np.ndarray, camera: Camera) -> list[tuple[str, np.ndarray]]:
        """The faces (4,3) of a box that the camera sees, by name."""
        eye = np.array([-0.5 * camera.curvature * z * z, camera.height, 0.0])
        quads = box[list(SIDES.values())]
        centres = quads.mean(axis=1)
        seen = ((eye - centres) * (centres - box.mean(axis=0))).sum(axis=1) > 0
        return [(name, quad) for name, quad, shown in zip(SIDES, quads, seen.tolist(), strict=True) if shown]

    def draw(canvas: Canvas) -> None:
        tone = {"left": 0.86, "right": 0.86, "rear": 0.78, "front": 0.82, "top": 1.12}
        body_faces = faces(body, canvas.camera)
        for name, face in body_faces:  # tyres first: the body hides their upper halves
            if name in ("rear", "front"):
                end = face.copy()
                end[:, 1] = (0, 0, 0.4, 0.4)
                canvas.fill(patches(end, np.array([0.02, 0.86]), np.array([0.14, 0.98]), 0.0, 1.0), (26, 26, 28), CAR)
                canvas.fill(patches(end, 0.1, 0.9, 0.45, 1.0), (22, 22, 24), CAR)
        for name, face in body_faces:
            canvas.fill(face, shade(paint, tone[name]), CAR)
            if name in ("left", "right"):
                canvas.fill(patches(face, 0.02, 0.98, 0.0, 0.14), shade(paint, 0.45), CAR)
                across = width / 2 * (-1 if name == "left" else 1)
                hubs = np.array([(across, -0.31 * length, 0.35), (across, 0.31 * length, 0.35)])
                rim = np.column_stack([np.zeros(12), circle(12)])
                for radius, rubber in ((0.35, (26, 26, 28)), (0.2, (132, 134, 136))):
                    canvas.fill(place(hubs[:, None] + radius * rim), rubber, CAR)
            elif name != "top":
                lamp = (186, 30, 30) if name == "rear" else (238, 236, 214)
                canvas.fill(patches(face, 0.0, 1.0, 0.0, 0.28), shade(paint, 0.55), CAR)
                canvas.fill(patches(face, np.array([0.03, 0.77]), np.array([0.23, 0.97]), 0.6, 0.84), lamp, CAR)
                canvas.fill(patches(face, 0.36, 0.64, 0.34, 0.52), (214, 214, 206), CAR)
        for name, face in faces(cabin, canvas.camera):
            canvas.fill(face, shade(paint, tone[name] * 0.96), CAR)
            if name in ("left", "right"):
                if van:
                    canvas.fill(patches(face, 0.68, 0.94, 0.12, 0.84), glass, CAR)
                else:
                    canvas.fill(patches(face, np.array([0.06, 0.52]), np.array([0.48, 0.94]), 0.08, 0.86), glass, CAR)
            elif name != "top":
                canvas.fill(patches(face, 0.07, 0.93, 0.12, 0.9), shade(glass, 1.15), CAR)

    return Thing(z, body[[0, 1, 3, 2]][:, [0, 2]], roof, draw)


def street_box(rng: np.random.Generator, x: float, z: float) -> Thing:
    """A bin or cabinet: nothing that the classes name, so its label is void."""
    half, height = rng.uniform(0.2, 0.4), rng.uniform(0.8, 1.4)
    colour = pick(rng, (*METAL, *PAINTS))

    def draw(canvas: Canvas) -> None:
        canvas.fill(upright(x, z, _bar(half, half, 0, height)), colour, VOID)
        canvas.fill(upright(x, z, _bar(half * 1.1, half * 1.1, height * 0.86, height)), shade(colour, 0.7), VOID)

    return Thing(z, square(x, z, half), height, draw)
