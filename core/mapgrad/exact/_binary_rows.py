"""Programs of 0/1 variables with rows in integers: what diagrams are compiled from."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import Domain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram, Problem

_DIGITS: Final = 9
"""Decimals up to which coefficients are taken as decimal numbers, which merge better than the floats next to them."""

_TOLERANCE: Final = 1e-9
"""By which a row of integer variables may be missed, times its largest number: that of `IntegerProgram.contains`."""

_LARGEST: Final = 2**60
"""Below which the activities of a row lie, in integers."""


class BinaryRow(NamedTuple):
    """lower ≤ Σ coefficients · x ≤ upper.

    Attributes:
        columns: [k] int64, ascending.
        coefficients: [k] int64, not 0.
        lower: At least −1 − Σ |coefficients|.
        upper: At most 1 + Σ |coefficients|.
    """

    columns: NDArray[np.int64]
    coefficients: NDArray[np.int64]
    lower: int
    upper: int


class BinaryRows(NamedTuple):
    """A program of 0/1 variables: first those that θ prices, in θ's order, then the others.

    Attributes:
        problem: What was given.
        program: The program that stands for it.
        rows: Its rows, those that can be violated.
        may_be: [2, n] bool, whether each variable may be 0, and whether it may be 1.
        num_priced: How many variables θ prices.
        utilities: Of the others, float64 [n − num_priced].
    """

    problem: Problem
    program: IntegerProgram
    rows: list[BinaryRow]
    may_be: NDArray[np.bool_]
    num_priced: int
    utilities: NDArray[np.float64]


def program_of(problem: Problem) -> IntegerProgram:
    """Return a program with the states of a problem, and without features.

    Raises:
        UnsupportedProblemError: there is none.
    """
    if problem.domain is not Domain.REAL:
        raise UnsupportedProblemError(
            f"a diagram of {problem!r} would hold more than its states, as the integer program that stands for it is "
            f"right for {problem.domain.value} only: make a diagram of a program with these states alone"
        )
    return problem.to_ilp().reformulated()


def binary_rows(problem: Problem) -> BinaryRows:
    """Return a problem as rows in integers over 0/1 variables.

    Raises:
        UnsupportedProblemError: it isn't of 0/1 variables, or a row's coefficients differ by too much.
    """
    program = program_of(problem)
    is_binary = program.integrality & (program.lower >= 0) & (program.upper <= 1)
    if not is_binary.all():
        column = int(is_binary.argmin())
        kind = "an integer" if program.integrality[column] else "a continuous"
        raise UnsupportedProblemError(
            f"diagrams are of 0/1 variables, but variable {column} of {program!r} is {kind} one between "
            f"{program.lower[column]:g} and {program.upper[column]:g}"
        )
    place = np.empty(program.num_vars, dtype=np.int64)
    order = np.concatenate((program.decision, program.others))
    place[order] = np.arange(program.num_vars)
    rows: list[BinaryRow] = []
    for number, (low, high) in enumerate(zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)):
        columns, values = program.matrix.row(number)
        by_place = np.argsort(place[columns])
        row = _in_integers(number, place[columns][by_place], values[by_place], low, high)
        if row is not None:
            rows.append(row)
    may_be = np.stack((program.lower[order] == 0, program.upper[order] == 1))
    return BinaryRows(problem, program, rows, may_be, len(program.decision), program.fixed)


def _in_integers(
    number: int, columns: NDArray[np.int64], values: NDArray[np.float64], low: float, high: float
) -> BinaryRow | None:
    """Return a row times a number that makes its coefficients integers; None if it always holds."""
    scale, integers = _scaled(values)
    total = sum(map(abs, integers))
    if total >= _LARGEST:
        raise UnsupportedProblemError(
            f"diagrams count activities of rows in 64-bit integers, but the coefficients of row {number}, such as "
            f"{float(values[0])!r}, need more: round them to fewer digits, or scale the row down"
        )
    largest, is_whole = float(np.abs(values).max(initial=0)), not (values % 1).any()
    bounds = -total - 1, total + 1
    lower, upper = bounds
    if low > -math.inf:
        lower = min(max(math.ceil((Fraction(low) - _room(low, largest, is_whole)) * scale), bounds[0]), bounds[1])
    if high < math.inf:
        upper = min(max(math.floor((Fraction(high) + _room(high, largest, is_whole)) * scale), bounds[0]), bounds[1])
    coefficients = np.array(integers, dtype=np.int64)
    if lower <= coefficients[coefficients < 0].sum() and upper >= coefficients[coefficients > 0].sum():
        return None
    return BinaryRow(columns, coefficients, lower, upper)


def _scaled(values: NDArray[np.float64]) -> tuple[int, list[int]]:
    """Return a factor, and the integers that it makes of numbers: as decimals if they have few digits."""
    for digits in range(_DIGITS + 1):
        scale = 10**digits
        with np.errstate(over="ignore"):
            rounded = np.rint(values * scale)
        if np.array_equal(rounded / scale, values):
            return scale, [int(value) for value in rounded.tolist()]
    ratios = [value.as_integer_ratio() for value in values.tolist()]
    scale = max(denominator for _, denominator in ratios)
    return scale, [numerator * (scale // denominator) for numerator, denominator in ratios]


def _room(side: float, largest: float, is_whole: bool) -> Fraction:
    """Return by how much a row may miss a side; less than one where a miss is a whole number."""
    room = Fraction(_TOLERANCE * max(largest, abs(side)))
    return min(room, Fraction(1, 2)) if is_whole and side % 1 == 0 else room
