"""Programs of which the optimum is known, by complementary slackness or in exact arithmetic, and what draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Status
from mapgrad.testing._exact_program import exact_optimum

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

TOLERANCE: Final = 1e-9
"""By how much of its largest term a row may be missed, and of the largest |θ| an optimum."""

_ROUNDING: Final = 1e-13
"""What a solution of linear equations in float64 may lose, relative to its largest number."""

_LARGE: Final = 1e5
"""Where a tolerance of 1e-9, which is what engines have, gets near the last digits."""

_LAST_DIGITS: Final = 1e-15

_FEW: Final = 60
"""Linear programs that branching may take before another program is drawn."""


@dataclass(frozen=True)
class KnownProgram:
    """A program, a row of utilities, and what is true of them.

    Attributes:
        program: The set, every variable priced.
        theta: [num_vars] utilities.
        status: OPTIMAL, INFEASIBLE or UNBOUNDED.
        value: max ⟨θ, x⟩; NaN without an optimum.
        terms: Σ |θ_j x_j| at an optimal point where some variable is continuous, else 0: what its digits can't hold.
        gain: How much more than the optimum is within reach of points that miss rows by `TOLERANCE`.
    """

    program: IntegerProgram
    theta: NDArray[np.float64]
    status: Status
    value: float = np.nan
    terms: float = 0.0
    gain: float = 0.0


def solved_exactly(program: IntegerProgram, theta: NDArray[np.float64], limit: int = _FEW) -> KnownProgram | None:
    """Return what exact arithmetic says; None where that takes long, or hangs on a row's tolerance or last digits."""
    exact = exact_optimum(program, theta, limit=limit)
    if exact is None:
        return None
    x = np.array([float(each) for each in exact.x]) if exact.x else np.zeros(program.num_vars)
    relaxed = exact_optimum(program, theta, room=row_rooms(program, x).tolist(), limit=2 * limit + 10)
    if relaxed is None or relaxed.status is not exact.status:
        return None
    if exact.status is not Status.OPTIMAL:
        return KnownProgram(program, theta, exact.status)
    terms = _terms(program, theta, x)
    gain = float(relaxed.value - exact.value)
    known = KnownProgram(program, theta, Status.OPTIMAL, float(exact.value), terms, gain)
    return None if gain > _unstable(known) or hangs_on_last_digits(known, x, limit) else known


def hangs_on_last_digits(known: KnownProgram, x: NDArray[np.float64], limit: int = _FEW) -> bool:
    """Tell whether the optimum is lost once rows of large numbers are tightened by some units in the last place.

    Engines can't tell such a program from one without a feasible point. Elsewhere their tolerances are wider.
    """
    program = known.program
    largest, coefficients = _largest_terms(program, x)
    digits = np.where(largest > _LARGE * coefficients, _LAST_DIGITS * largest, 0.0)
    digits[np.isfinite(program.row_lower)] = 0.0
    if not digits.any():
        return False
    tightened = exact_optimum(program, known.theta, room=(-digits).tolist(), limit=2 * limit + 10)
    if tightened is None or tightened.status is not Status.OPTIMAL:
        return True
    return known.value - float(tightened.value) > _unstable(known)


def _unstable(known: KnownProgram) -> float:
    return 1e3 * TOLERANCE * max(known.terms, float(np.abs(known.theta).max()))


def row_rooms(program: IntegerProgram, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much x [num_vars] may miss each row: nothing near one where all of the row is integer.

    That is `TOLERANCE` of the row's largest term, and `_ROUNDING` of what it would be with the largest of x.
    """
    matrix = program.matrix
    sides = np.where(np.isfinite(program.row_upper), program.row_upper, program.row_lower)
    largest, coefficients = _largest_terms(program, x)
    rooms = np.maximum(TOLERANCE * largest, _ROUNDING * coefficients * np.abs(x).max())
    whole = sides % 1 == 0
    whole[matrix.row_of_entry[(matrix.data % 1 != 0) | ~program.integrality[matrix.indices]]] = False
    return np.where(whole, np.minimum(rooms, 0.5), rooms)


def _largest_terms(program: IntegerProgram, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest term of each row at x, its side included, and its largest coefficient."""
    matrix = program.matrix
    sides = np.where(np.isfinite(program.row_upper), program.row_upper, program.row_lower)
    largest = np.where(np.isfinite(sides), np.abs(sides), 0.0)
    np.maximum.at(largest, matrix.row_of_entry, np.abs(matrix.data * x[matrix.indices]))
    return largest, matrix.largest


def _terms(program: IntegerProgram, theta: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    return 0.0 if program.integrality.all() else float(np.abs(theta * x).sum())


def program_of(matrix: Any, upper_sides: Any, equal: Flags, **variables: Any) -> IntegerProgram:
    """Return the program of rows of which some are equalities."""
    matrix, sides = np.asarray(matrix, dtype=np.float64), np.asarray(upper_sides, dtype=np.float64)
    return IntegerProgram(A_ub=matrix[~equal], b_ub=sides[~equal], A_eq=matrix[equal], b_eq=sides[equal], **variables)


def draw_int(rng: Generator, low: int, high: int) -> int:
    """Return an integer from low to high, both included."""
    return int(rng.integers(low, high + 1))


def draw_ints(rng: Generator, low: int, high: int, shape: int | tuple[int, ...]) -> Integers:
    """Return integers from low to high, both included."""
    return rng.integers(low, high + 1, shape, dtype=np.int64)


def draw_flags(rng: Generator, percent: int, shape: int | tuple[int, ...]) -> Flags:
    """Return flags of which so many of a hundred are set."""
    return draw_ints(rng, 0, 99, shape) < percent


def draw_coefficients(rng: Generator, shape: tuple[int, int], size: int) -> Integers:
    return np.where(draw_flags(rng, 20, shape), 0, draw_ints(rng, -size, size, shape))


def draw_scaled(rng: Generator, integers: Integers, exactly: bool) -> NDArray[np.float64]:
    """Return utilities from 1e-9 to 1e9 in size, by a power of two where their ratios matter to the last digit."""
    if exactly:
        return np.ldexp(integers.astype(np.float64), draw_int(rng, -30, 30) if draw_flags(rng, 50, ()) else 0)
    power = draw_int(rng, -9, 5) if draw_flags(rng, 50, ()) else 0
    return np.array([float(f"{each}e{power}") for each in integers.tolist()])


def by_slackness(
    rng: Generator,
    matrix: Integers,
    x: Integers,
    lower: NDArray[Any],
    upper: NDArray[Any],
    integrality: Flags,
    *,
    unit: int = 1,
    grain: int = 1,
    equal: int = 20,
    tight: int = 60,
) -> KnownProgram:
    """Return a program of which x is an optimum, by complementary slackness.

    Args:
        rng: What draws the right sides, the multipliers and the reduced costs.
        matrix: [m, n] coefficients, in parts of `unit`.
        x: [n] the point, in parts of `grain`; integer where `integrality` says so.
        lower: Bounds, ≤ x / grain; may be -inf.
        upper: Bounds, ≥ x / grain; may be inf.
        integrality: [n].
        unit: 1, or 100 for coefficients of two decimals.
        grain: The same for x.
        equal: How many rows of a hundred are equalities.
        tight: How many of the others hold as equalities.
    """
    count, width = matrix.shape
    is_equal, is_tight = draw_flags(rng, equal, count), draw_flags(rng, tight, count)
    beyond = np.where(is_equal | is_tight, 0, draw_ints(rng, 1, 50 * unit * grain, count))
    sides = (matrix @ x + beyond) / (unit * grain)
    y = np.where(is_equal, draw_ints(rng, -20, 20, count), np.where(is_tight, draw_ints(rng, 0, 20, count), 0))
    y = np.where(draw_flags(rng, 20, count), 0, y)
    push = unit * np.where(draw_flags(rng, 40, width), 0, draw_ints(rng, 0, 20, width))
    at_lower, at_upper = x == grain * lower, x == grain * upper
    push = np.where(at_lower & at_upper, push * (2 * draw_ints(rng, 0, 1, width) - 1), push * (at_upper * 1 - at_lower))
    integers = matrix.T @ y + push
    exactly = not (np.isfinite(lower) & np.isfinite(upper)).all()
    theta = draw_scaled(rng, integers, exactly)
    program = program_of(matrix / unit, sides, is_equal, lower=lower, upper=upper, integrality=integrality)
    point = x / grain
    dual = np.concatenate((np.abs(y[~is_equal]), np.abs(y[is_equal])))
    factor = np.abs(theta).max() / max(1, np.abs(integers).max()) * unit
    gain = 0.0 if integrality.all() else float(dual @ row_rooms(program, point)) * factor
    return KnownProgram(program, theta, Status.OPTIMAL, float(theta @ point), _terms(program, theta, point), gain)
