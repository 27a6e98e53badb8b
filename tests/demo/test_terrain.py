import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapgrad.demo import _terrain as terrain

SPLITS = {"train": terrain.TRAIN, "validation": terrain.VALIDATION, "test": terrain.TEST}


@pytest.fixture(scope="module")
def land():
    return terrain.load_terrain()


def plane(north=0.0, east=0.0, shape=(60, 70), spacing=(90.0, 70.0)):
    """Return land that rises by `north` metres a metre to the north, and `east` to the east."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return terrain.Terrain(-north * y * spacing[0] + east * x * spacing[1], spacing)


def crops_of(split, land, seed=0):
    if split == "train":
        return terrain.random_crops(land.rows(SPLITS[split]), 40, np.random.default_rng(seed))
    return terrain.regular_crops(land.rows(SPLITS[split]), 16, np.random.default_rng(seed))


def test_the_elevation_model_is_the_one_that_matplotlib_ships(land):
    assert land.elevation.shape == (344, 403)
    assert (land.elevation.min(), land.elevation.max()) == (236, 1076)
    assert land.spacing == pytest.approx((92.66, 74.4), rel=1e-3)


def test_the_splits_share_no_row_and_lie_on_the_map(land):
    rows = [set(range(len(land.elevation))[part]) for part in SPLITS.values()]
    assert sum(map(len, rows)) == len(set.union(*rows)) == len(land.elevation)


@pytest.mark.parametrize("split", SPLITS)
def test_no_crop_depends_on_a_pixel_of_another_split(land, split):
    elsewhere = np.random.default_rng(1).normal(size=land.elevation.shape) * 500
    elsewhere[SPLITS[split]] = land.elevation[SPLITS[split]]
    crops, same = crops_of(split, land), crops_of(split, terrain.Terrain(elsewhere, land.spacing))
    assert torch.equal(crops.images, same.images)
    assert torch.equal(crops.minutes, same.minutes)


@pytest.mark.parametrize("split", SPLITS)
def test_crops_are_finite_and_every_cell_takes_at_least_five_minutes(land, split):
    crops = crops_of(split, land)
    assert crops.images.shape[1:] == (1, terrain.CROP_PIXELS, terrain.CROP_PIXELS)
    assert crops.minutes.shape[1:] == (terrain.CELLS, terrain.CELLS)
    assert len(crops.images) == len(crops.minutes) > 20
    assert crops.images.isfinite().all()
    assert crops.minutes.isfinite().all()
    assert crops.minutes.min() >= 5


@pytest.mark.parametrize("split", SPLITS)
def test_crops_are_a_function_of_the_seed(land, split):
    one, again, other = crops_of(split, land), crops_of(split, land), crops_of(split, land, seed=1)
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.minutes, again.minutes)
    assert not torch.equal(one.images, other.images)
    assert torch.equal(one.minutes, other.minutes) == (split != "train")


def test_regular_crops_are_those_of_the_corners(land):
    band = land.rows(terrain.TEST)
    corners = terrain.regular_corners(band, 16)
    crops = terrain.regular_crops(band, 16, np.random.default_rng(0))
    assert len(corners) == len(crops.images) == 3 * 23
    row, column = corners[-1]
    window = slice(row, row + terrain.CROP_PIXELS), slice(column, column + terrain.CROP_PIXELS)
    noise = np.asarray(crops.images[-1, 0]) - band.hillshade[window]
    assert noise.std() == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize(
    ("climb", "slope", "minutes"), [(0, 0, 5), (100, 0, 10), (200, 0, 20), (0, 10, 10), (0, 30, 20), (100, 10, 20)]
)
def test_minutes_by_hand(climb, slope, minutes):
    elevation, slopes = np.full((2, 2), 300.0), np.zeros((2, 2))
    elevation[1, 1] += climb
    slopes[1, 1] = slope
    assert terrain.crossing_minutes(elevation, slopes) == pytest.approx(np.array([[5, 5], [5, minutes]]))


@settings(deadline=None, max_examples=30)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_slope_and_shade_of_a_plane(north, east):
    land = plane(north, east)
    assert land.slope == pytest.approx(np.degrees(np.arctan(np.hypot(north, east))))
    normal = np.array([-east, -north, 1]) / np.sqrt(1 + north**2 + east**2)
    sun = np.array([-0.5, 0.5, np.sqrt(0.5)])
    assert land.hillshade == pytest.approx(max(normal @ sun, 0))


def test_the_sun_shines_from_the_north_west():
    to_the_sun, away = plane(north=-0.3, east=0.3), plane(north=0.3, east=-0.3)
    assert to_the_sun.hillshade.mean() > plane().hillshade.mean() > away.hillshade.mean()


def test_orientations_keep_slopes_but_not_shades(land):
    band = land.rows(slice(0, 60))
    lands = band.orientations()
    assert len({each.elevation.tobytes() for each in lands}) == 8
    for each in lands:
        assert sorted(each.elevation.shape) == sorted(band.elevation.shape)
        assert np.sort(each.slope, axis=None) == pytest.approx(np.sort(band.slope, axis=None))
    assert not np.allclose(lands[1].hillshade, band.hillshade[:, ::-1], atol=0.1)
