"""Terrain to learn on: real elevations, what it costs to cross them, and pictures of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

CELLS: Final = 12
"""A crop has this many cells a side: what the route planner sees."""
CELL_PIXELS: Final = 4
"""A cell has this many pixels a side."""
CROP_PIXELS: Final = CELLS * CELL_PIXELS

TRAIN: Final = slice(0, 208)
VALIDATION: Final = slice(208, 264)
TEST: Final = slice(264, 344)
"""Rows of the elevation model, north to south. No split sees a pixel of another one."""

_METRES_PER_DEGREE: Final = 111_195.0
_MINUTES: Final = 5.0
_DOUBLING_CLIMB: Final = 100.0
_DOUBLING_SLOPE: Final = 10.0
_SUN_AZIMUTH: Final = 315.0
_SUN_ALTITUDE: Final = 45.0
_SENSOR_NOISE: Final = 0.03


@dataclass(frozen=True, eq=False)
class Terrain:
    """A piece of land.

    Attributes:
        elevation: [height, width] float64, metres; rows run from north to south, columns from west to east.
        spacing: Metres between the centres of neighbouring pixels, north to south and west to east.
    """

    elevation: NDArray[np.float64]
    spacing: tuple[float, float]

    @cached_property
    def _gradient(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        north_south, west_east = self.spacing
        southward = np.asarray(np.gradient(self.elevation, north_south, axis=0))
        return -southward, np.asarray(np.gradient(self.elevation, west_east, axis=1))

    @cached_property
    def slope(self) -> NDArray[np.float64]:
        """[height, width] float64: steepness, degrees."""
        return np.degrees(np.arctan(np.hypot(*self._gradient)))

    @cached_property
    def hillshade(self) -> NDArray[np.float64]:
        """[height, width] float64 in [0, 1]: brightness under a sun in the north-west, 45° high."""
        northward, eastward = self._gradient
        azimuth, altitude = np.radians(_SUN_AZIMUTH), np.radians(_SUN_ALTITUDE)
        towards_sun = northward * np.cos(azimuth) + eastward * np.sin(azimuth)
        lambert = (np.sin(altitude) - np.cos(altitude) * towards_sun) / np.sqrt(1 + northward**2 + eastward**2)
        return lambert.clip(0, 1)

    def rows(self, rows: slice) -> Terrain:
        """Return a band of this land."""
        return Terrain(self.elevation[rows], self.spacing)

    def orientations(self) -> list[Terrain]:
        """Return this land turned and mirrored in all eight ways; the sun stays where it is."""
        north_south, west_east = self.spacing
        turned = Terrain(self.elevation.T, (west_east, north_south))
        return [
            Terrain(land.elevation[::vertical, ::horizontal], land.spacing)
            for land in (self, turned)
            for vertical in (1, -1)
            for horizontal in (1, -1)
        ]


@dataclass(frozen=True, eq=False)
class Crops:
    """Square pieces of land of `CROP_PIXELS` pixels a side.

    Attributes:
        images: [N, 1, CROP_PIXELS, CROP_PIXELS] float32: hill-shade and the sensor's noise.
        minutes: [N, CELLS, CELLS] float32, > 0: time to cross each cell. No network sees it, but the one that is
            trained by regression.
    """

    images: Tensor
    minutes: Tensor


def load_terrain() -> Terrain:
    """Load the elevation model of the Jacksboro fault (Tennessee) that matplotlib ships: 344 × 403 pixels of 3″."""
    from matplotlib import cbook

    model = cast("Any", cbook).get_sample_data("jacksboro_fault_dem.npz")
    with model:
        latitude = np.radians((model["ymin"] + model["ymax"]) / 2)
        spacing = (_METRES_PER_DEGREE * float(model["dy"]), _METRES_PER_DEGREE * float(model["dx"] * np.cos(latitude)))
        return Terrain(model["elevation"].astype(np.float64), spacing)


def random_crops(terrain: Terrain, count: int, generator: np.random.Generator) -> Crops:
    """Cut crops at random places; they may overlap each other. The land is turned and mirrored at random."""
    lands = terrain.orientations()
    pieces: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for _ in range(count):
        land = lands[generator.integers(len(lands))]
        row, column = generator.integers(np.array(land.elevation.shape) - CROP_PIXELS + 1).tolist()
        pieces.append(_cut(land, row, column))
    return _crops(pieces, generator)


def regular_crops(terrain: Terrain, stride: int, generator: np.random.Generator) -> Crops:
    """Cut the crops at `regular_corners`: the same ones whatever the generator, but for the sensor's noise."""
    return _crops([_cut(terrain, row, column) for row, column in regular_corners(terrain, stride)], generator)


def regular_corners(terrain: Terrain, stride: int) -> list[tuple[int, int]]:
    """Return the north-western corners of crops every `stride` pixels."""
    height, width = terrain.elevation.shape
    return [
        (row, column)
        for row in range(0, height - CROP_PIXELS + 1, stride)
        for column in range(0, width - CROP_PIXELS + 1, stride)
    ]


def crossing_minutes(elevation: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the time to cross each cell of a crop, in minutes.

    Five minutes on flat ground in the valley; snow doubles it for every 100 m above the crop's lowest cell, and every
    10° of slope adds once more that time: 5 · 2^(climb / 100 m) · (1 + slope / 10°).

    Args:
        elevation: Mean of each cell, metres.
        slope: Mean of each cell, degrees.
    """
    climb = elevation - elevation.min()
    return _MINUTES * 2 ** (climb / _DOUBLING_CLIMB) * (1 + slope / _DOUBLING_SLOPE)


def _cut(terrain: Terrain, row: int, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    window = (slice(row, row + CROP_PIXELS), slice(column, column + CROP_PIXELS))
    minutes = crossing_minutes(_cell_means(terrain.elevation[window]), _cell_means(terrain.slope[window]))
    return terrain.hillshade[window], minutes


def _cell_means(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return pixels.reshape(CELLS, CELL_PIXELS, CELLS, CELL_PIXELS).mean(axis=(1, 3))


def _crops(pieces: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]], generator: np.random.Generator) -> Crops:
    shades, minutes = (np.stack(parts) for parts in zip(*pieces, strict=True))
    images = shades + _SENSOR_NOISE * generator.standard_normal(shades.shape)
    return Crops(torch.as_tensor(images[:, None]).float(), torch.as_tensor(minutes).float())
