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
    facts = program.row_facts
    ends = zip(*facts.anywhere(program.row_lower, program.row_upper), strict=True)
    rows: list[BinaryRow] = []
    for number, (unit, (least, most)) in enumerate(zip(facts.units, ends, strict=True)):
        columns, values = program.matrix.row(number)
        by_place = np.argsort(place[columns])
        row = _in_integers(number, place[columns][by_place], values[by_place], float(unit), float(least), float(most))
        if row is not None:
            rows.append(row)
    may_be = np.stack((program.lower[order] == 0, program.upper[order] == 1))
    return BinaryRows(problem, program, rows, may_be, len(program.decision), program.fixed)


def _in_integers(
    number: int, columns: NDArray[np.int64], values: NDArray[np.float64], unit: float, least: float, most: float
) -> BinaryRow | None:
    """Return a row as one of integers; None if it always holds.

    Args:
        number: The row's.
        columns: [k].
        values: [k], its coefficients.
        unit: Of which these are multiples; 0 if none is known.
        least: What it may come to.
        most: As above.
    """
    if unit > 0:
        scale, integers = 1 / Fraction(unit), [int(multiple) for multiple in np.rint(values / unit).tolist()]
    else:
        scale, integers = _scaled(values)
    total = sum(map(abs, integers))
    if total >= _LARGEST:
        raise UnsupportedProblemError(
            f"diagrams count activities of rows in 64-bit integers, but the coefficients of row {number}, such as "
            f"{float(values[0])!r}, need more: round them to fewer digits, or scale the row down"
        )
    lower, upper = -total - 1, total + 1
    if least > -math.inf:
        lower = max(lower, min(math.ceil(Fraction(least) * scale), upper))
    if most < math.inf:
        upper = min(upper, max(math.floor(Fraction(most) * scale), -total - 1))
    coefficients = np.array(integers, dtype=np.int64)
    if lower <= coefficients[coefficients < 0].sum() and upper >= coefficients[coefficients > 0].sum():
        return None
    return BinaryRow(columns, coefficients, lower, upper)


def _scaled(values: NDArray[np.float64]) -> tuple[Fraction, list[int]]:
    """Return a factor, and the integers that it makes of numbers: as decimals if they have few digits."""
    for digits in range(_DIGITS + 1):
        scale = 10**digits
        with np.errstate(over="ignore"):
            rounded = np.rint(values * scale)
        if np.array_equal(rounded / scale, values):
            return Fraction(scale), [int(value) for value in rounded.tolist()]
    fractions = [Fraction(value) for value in values.tolist()]
    scale = max(fraction.denominator for fraction in fractions)
    return Fraction(scale), [int(fraction * scale) for fraction in fractions]
