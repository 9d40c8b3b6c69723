"""The plan of a procedural street, and everything placed along it (see `road_scenes`)."""

from __future__ import annotations

import numpy as np

from fastseg.data.road_scenes_draw import LEAVES, NEAR, Colour, Thing, pick, shade
from fastseg.data.road_scenes_light import Weather
from fastseg.data.road_scenes_things import building, bush, car, person, pole, sign, street_box, tree

FAR = 160.0  # metres: where the street ends and the skyline stands


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


def furnish(street: Street, weather: Weather, rng: np.random.Generator) -> list[Thing]:
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
            span = max(z, NEAR), z + length
            if span[1] > NEAR + 1:
                things.append(building(rng, side, x + set_back, *span, height, sunlit=lit, lamps=weather.lamps))
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
        for spot in np.arange(rng.uniform(4, 9), 60, rng.uniform(3, 9)).tolist():
            if not street.crosses(spot - 1, spot + 1):
                at = street.front(side) - side * street.garden[side] * rng.uniform(0.2, 0.6)
                things.append(bush(rng, at, spot, rng.uniform(0.8, 2.4), rng.uniform(0.6, 1.5), pick(rng, LEAVES)))
    return things


def _pavement(street: Street, side: int, leaves: Colour, rng: np.random.Generator) -> list[Thing]:
    """Trees, lamp posts, signs, boxes and pedestrians between the road and the houses."""
    inner, outer = street.walk_edges(side)
    kerb = street.kerb[side] + side * 0.45
    things: list[Thing] = []
    if rng.random() < 0.55:
        spacing = rng.uniform(7, 16)
        for z in np.arange(rng.uniform(5, 5 + spacing), 80, spacing) + 0.4 * rng.normal():
            if not street.crosses(z, z) and rng.random() < 0.85:
                tone = shade(leaves, rng.uniform(0.85, 1.15))
                things.append(tree(rng, kerb + side * 0.3, z, rng.uniform(4, 9), tone))
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
        group = int(rng.choice((1, 2, 3), p=(0.65, 0.27, 0.08)))
        things += [person(rng, at + 0.62 * i, z + 0.3 * rng.normal()) for i in range(group)]
    return things


def _traffic(street: Street, rng: np.random.Generator) -> list[Thing]:
    """Cars in their lanes, parked along the kerb and on the side street, and people crossing."""
    things: list[Thing] = []
    for index in range(street.lanes):
        oncoming = index < street.lanes // 2
        x = street.first_lane + (index + 0.5) * street.lane_width
        z = rng.uniform(7, 40)
        while z < 80:
            if not street.crosses(z - 3, z + 3):
                things.append(car(rng, x + 0.2 * rng.normal(), z, np.pi * oncoming + 0.02 * rng.normal()))
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
