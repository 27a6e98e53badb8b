"""What the box of a program's variables tells of its rows and utilities."""

from itertools import product

import numpy as np
import pytest

import mapgrad
from mapgrad.solvers._boxes import break_a_row, is_distant, on_grid, tightened
from mapgrad.solvers._limits import Limits
from mapgrad.solvers._points import Rows

INF = float("inf")


def points(program):
    """All integer points of a program whose numbers are integers of float64."""
    ranges = (range(int(low), int(high) + 1) for low, high in zip(program.lower, program.upper, strict=True))
    box = np.array([*product(*ranges)], dtype=float)
    activity = box @ program.matrix.toarray().T
    return box[((program.row_lower <= activity) & (activity <= program.row_upper)).all(axis=1)]


@pytest.mark.parametrize("seed", range(40))
def test_tightened_rows_have_the_same_points(seed):
    rng = np.random.default_rng(seed)
    lower = -rng.integers(0, 3, 5)
    upper = lower + rng.integers(0, 4, 5)
    rows = rng.integers(-9, 10, (4, 5)) * np.where(rng.random((4, 5)) < 0.4, 1e9, 1)
    low, high = rng.integers(-20, 1, 4), rng.integers(0, 20, 4)
    sided = rng.integers(0, 3, 4)
    program = mapgrad.IntegerProgram.from_rows(
        rows, np.where(sided == 0, -INF, low), np.where(sided == 1, INF, high), lower=lower, upper=upper
    )
    assert is_distant(program)
    tight = tightened(program, Limits.of(program))
    assert (np.abs(tight.matrix.data) <= np.abs(program.matrix.data)).all()
    assert np.array_equal(points(tight), points(program))


@pytest.mark.parametrize(
    ("row", "sides", "upper", "tight"),
    [
        ([-1e12, 1], (-INF, 0), [1, 16], [-16, 1]),
        ([1e12, -1], (0, INF), [3, 16], [16, -1]),
        ([0, 1, 1e-9], (-INF, 0), 1, [2e-9, 1e-9]),
        ([1e-9, 1, 1e-9], (1e-9, 1e-9), 1, [1e-9, 2e-9, 1e-9]),
    ],
)
def test_coefficients_are_as_small_as_the_row_allows(row, sides, upper, tight):
    program = mapgrad.IntegerProgram.from_rows([row], *sides, upper=upper)
    assert tightened(program, Limits.of(program)).matrix.data.tolist() == tight


@pytest.mark.parametrize(
    ("row", "lower", "upper", "integrality"),
    [
        ([-1e12, 1], 0, [1, INF], 1),  # the first step frees the row of what has no end
        ([-1e12, 1], 0, [1, 16], [0, 1]),  # there is no first step
        ([1e12, -1, -1e12], 0, 1, 1),
    ],
)
def test_coefficients_that_matter_stay(row, lower, upper, integrality):
    program = mapgrad.IntegerProgram(A_ub=[row], b_ub=[0], lower=lower, upper=upper, integrality=integrality)
    assert tightened(program, Limits.of(program)).matrix.data.tolist() == row


def test_rounded_utilities_lose_no_optimum():
    rng = np.random.default_rng(0)
    for width in (1, 3, 1000):
        program = mapgrad.IntegerProgram(A_ub=[[1] * 6], b_ub=[9], upper=width)
        theta = rng.uniform(-1, 1, 6) * 10.0 ** rng.uniform(-18, 0, 6)
        theta /= 2 * np.abs(theta).max()
        rounded = on_grid(theta, Limits.of(program), 39)
        assert np.abs(rounded - theta).sum() * width <= 1e-9 / 2 * np.abs(theta).max()
        assert (np.abs(rounded[rounded != 0]) >= 2.0**-39 / width).all()
        assert np.array_equal(on_grid(rounded, Limits.of(program), 39), rounded)


def test_utilities_stay_where_a_variable_has_no_bound():
    program = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[1], upper=[1, INF])
    theta = np.array([0.5, 1e-15])
    assert on_grid(theta, Limits.of(program), 39) is theta


@pytest.mark.parametrize(
    ("row", "sides", "is_broken"),
    [
        ([0, 0], (-INF, -1e-12), True),
        ([0, 0], (1e-15, INF), True),
        ([0, 0], (-1e-12, 1e-12), False),
        ([3, 5], (-INF, -1e-12), True),
        ([3, -5], (3 + 1e-6, INF), True),
        ([3, -5], (3 + 1e-10, INF), False),
        ([3, -5], (-INF, -5), False),
    ],
)
def test_a_row_that_no_point_of_the_bounds_meets_is_seen(row, sides, is_broken):
    program = mapgrad.IntegerProgram.from_rows([[1, 1], row], *zip((-INF, 9), sides, strict=True))
    assert break_a_row(Rows(program), program.matrix, Limits.of(program)) is is_broken
