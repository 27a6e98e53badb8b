"""Rows that are split in two hold at the same points."""

import itertools

import numpy as np
import pytest

import mapgrad
from mapgrad.solvers._limits import Limits
from mapgrad.solvers._split_rows import SplitRows

INF = float("inf")
BOX = np.array([*itertools.product(range(-2, 4), repeat=3)], dtype=float)


def random_program(seed: int) -> mapgrad.IntegerProgram:
    """One row of each kind: decimals with a side or two, near or apart, reals, and small integers, which stay."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.integers(5, 11)
    large = np.rint(size + rng.integers(-9, 10, (2, 3))) * rng.choice([-1, 1], (2, 3)) / 100
    far = np.rint(size * rng.uniform(0.5, 1, (1, 3)))
    rows = np.concatenate((large, rng.normal(size=(1, 3)), rng.integers(1, 5, (1, 3)), far))
    inside = rows @ BOX[rng.integers(len(BOX))]
    inside[:2] = np.round(inside[:2], 2)
    lower = np.array([inside[0] - 0.02, -INF, inside[2] - 1e-7, -INF, inside[4] - size])
    upper = np.array([inside[0] + 0.01, inside[1], inside[2] + 1e-7, inside[3], inside[4]])
    return mapgrad.IntegerProgram.from_rows(rows, lower, upper, lower=-2, upper=3)


def has_point(program: mapgrad.IntegerProgram, x: np.ndarray) -> bool:
    """Tell whether integers in the further columns' bounds make x a point of a split program."""
    ranges = [np.arange(low, high + 1) for low, high in zip(program.lower[3:], program.upper[3:], strict=True)]
    rows = program.matrix.toarray()
    for row in range(len(rows) - len(ranges), len(rows)):  # such a row gives its column's value
        column = 3 + row - (len(rows) - len(ranges))
        value = rows[row, :3] @ x[:3] - program.row_lower[row]
        if value not in ranges[column - 3]:
            return False
        x = np.append(x, value)
    activity = rows @ x
    return bool(((program.row_lower <= activity) & (activity <= program.row_upper)).all())


@pytest.mark.parametrize("seed", range(20))
def test_a_split_program_has_the_points_of_the_program(seed):
    program = random_program(seed)
    split = SplitRows.of(program, 1e4)
    assert split is not None
    asked = split.program(program)
    assert asked.matrix.shape == (11, 8)
    assert 0 < program.contains_rows(BOX).sum() < len(BOX)
    assert [has_point(asked, x) for x in BOX] == program.contains_rows(BOX).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_so_it_has_with_other_bounds_and_sides(seed):
    program = random_program(seed)
    split = SplitRows.of(program, 1e4)
    assert split is not None
    other = program.replace(
        lower=[-2, 0, -1],
        upper=[1, 2, 3],
        row_lower=[-INF, program.row_upper[1] - 0.5, program.row_lower[2] - 1, -INF, program.row_lower[4] + 1],
        row_upper=[program.row_upper[0], INF, INF, INF, program.row_upper[4]],
    )
    asked = split.program(program)
    if split.fits(Limits.of(other)):
        asked = asked.replace(**split.limits(Limits.of(other))._asdict())
    else:
        split = SplitRows.of(other, 1e4)
        assert split is not None
        asked = split.program(other)
    holds = [has_point(asked, x) and bool(other.in_box(x[None])[0]) for x in BOX]
    assert holds == other.contains_rows(BOX).tolist()


def test_coefficients_are_small_beside_those_of_the_row():
    program = mapgrad.IntegerProgram(A_eq=[[1_000_003, 567_891, -345_678]], b_eq=[1])
    split = SplitRows.of(program, 1e5)
    assert split is not None
    assert np.abs(split.program(program).matrix.data).max() <= 1024


@pytest.mark.parametrize("seed", range(30))
def test_near_multiples_of_a_number_are_split_by_it(seed):
    rng = np.random.default_rng(seed)
    size = int(10 ** rng.uniform(5, 9))
    row = size * rng.integers(1, 4, 3) + rng.integers(-9, 10, 3)
    row[:2] = size + rng.integers(-9, 10, 2)
    row *= rng.choice([-1, 1], 3)
    inside = row @ BOX[rng.integers(len(BOX))]
    bounds = {"lower": -2, "upper": 3}
    program = mapgrad.IntegerProgram.from_rows([row * 0.01], [-INF], [inside * 0.01], **bounds)
    split = SplitRows.of(program, 1e4)
    assert split is not None
    assert np.abs(split.program(program).matrix.data).max() < 1e3
    unit = np.gcd.reduce(row)
    for side in (*(row @ BOX[rng.integers(len(BOX), size=5)].T), inside + size // 2 * unit, 8 * size * unit):
        for least, most in ((side, side), (side - 6 * unit, side), (-INF, side), (side, INF), (side, side + 3 * size)):
            other = program.replace(lower=[0, -1, -2], row_lower=[least * 0.01], row_upper=[most * 0.01])
            limits = Limits.of(other)
            assert split.fits(limits)
            asked = split.program(program).replace(**split.limits(limits)._asdict())
            holds = [has_point(asked, x) and bool(other.in_box(x[None])[0]) for x in BOX]
            assert holds == other.contains_rows(BOX).tolist()
    assert not split.fits(Limits.of(program.replace(upper=size)))


def test_other_rows_stay():
    program = mapgrad.IntegerProgram(A_ub=[[3, 5]], b_ub=[7], A_eq=[[1e-9, 2]], b_eq=[2], integrality=[0, 1])
    assert SplitRows.of(program, 1e4) is None
