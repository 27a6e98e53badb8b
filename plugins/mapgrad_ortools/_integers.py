"""Exact integers for CP-SAT: bounds, rows and objectives of an integer program, without a float's rounding."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# CP-SAT refuses sums that may exceed 2⁶² in absolute value, and was seen to be right up to 2⁶¹.
_SUM_BITS: Final = 60
_TOLERANCE: Final = 1e-9  # of max |θ|, within which an answer is optimal
_OBJECTIVE_BITS: Final = 30  # 2⁻³⁰ is just below it
_TIGHTENING_ROUNDS: Final = 20
_ROOM: Final = 1e-9  # relative; by so much bounds that rows imply are wider than they must be
_COEFFICIENT_DIGITS: Final = 1e-12  # relative; rounding errors in how a coefficient came about


class Row(NamedTuple):
    """The left side of a row: Σ integer · variable is `scale` times what the program has.

    Attributes:
        name: What messages call it.
        columns: Its variables.
        integers: Their coefficients.
        scale: A positive number.
        literal: As CP-SAT has it: the row holds only where it is true; None for one that always holds.
    """

    name: str
    columns: NDArray[np.int64]
    integers: list[int]
    scale: Fraction
    literal: int | None


class IntegerForm(NamedTuple):
    """The same set as a program's, in integers.

    Attributes:
        lower: Finite lower bounds, int64 [num_vars].
        upper: Finite upper bounds, int64 [num_vars].
        rows: Left sides, those of indicators last.
        sides: The least and the most that each may be; the least is larger where none will do.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    rows: list[Row]
    sides: list[tuple[int, int]]


class IntegerObjective(NamedTuple):
    """⟨θ, x⟩ = unit · ⟨coefficients, x⟩ + ⟨rest, x⟩, where the last term is at most `slack` and often zero."""

    coefficients: NDArray[np.int64]
    unit: Fraction
    slack: float

    @classmethod
    def of(
        cls,
        theta: NDArray[np.float64],
        lower: NDArray[np.int64],
        upper: NDArray[np.int64],
        *,
        bits: int = _SUM_BITS,
    ) -> IntegerObjective:
        """Scale θ [n] by the largest power of two at which no sum exceeds 2^bits within the bounds, but for rounding.

        Every θ that is a multiple of that unit is held exactly, as float32 nearly always is.
        """
        reach = np.maximum(np.abs(lower), np.abs(upper)).astype(np.float64)
        weights = np.where(reach > 0, theta, 0.0)
        shift = bits - math.frexp(float(np.abs(weights) @ reach))[1]
        scaled = np.ldexp(weights, shift)
        rounded = np.rint(scaled)
        rest = np.ldexp(scaled - rounded, -shift)
        slack = float(np.maximum(rest * lower, rest * upper).sum())
        coefficients = rounded.astype(np.int64)
        divisor = int(np.gcd.reduce(coefficients)) or 1
        return cls(coefficients // divisor, divisor * Fraction(2) ** -shift, slack)

    def solution(
        self, theta: NDArray[np.float64], z: NDArray[np.float64], status: mapgrad.Status, *, proved: int | None
    ) -> mapgrad.Solution:
        """Return an answer with what is proved of it.

        Args:
            theta: [n], what this objective was made of.
            z: [n], the values found.
            status: How the solver says that it ended.
            proved: Upper bound on ⟨coefficients, x⟩; None without one.
        """
        reached = float(theta @ z)
        if proved is None:
            return mapgrad.Solution(z, status, reached)
        bound = max(float(self.unit * proved) + self.slack, reached)
        if status is mapgrad.Status.OPTIMAL and bound - reached > _TOLERANCE * np.abs(theta).max(initial=0):
            status = mapgrad.Status.FEASIBLE
        return mapgrad.Solution(z, status, reached, bound)


def objective_refusal(lower: NDArray[Any], upper: NDArray[Any]) -> str | None:
    """Say why θ of variables with these bounds can't be held in integers of 64 bits, or return None."""
    reach = np.maximum(np.abs(lower.astype(np.float64)), np.abs(upper.astype(np.float64)))
    if reach.sum() <= 2.0 ** (_SUM_BITS - _OBJECTIVE_BITS):
        return None
    return f"bounds up to ±{reach.max():g} leave no room for θ to 1e-9 in CP-SAT's objective of 64-bit integers"


def integer_form(program: mapgrad.IntegerProgram, rows: list[Row] | None = None) -> IntegerForm | str:
    """Write a program in integers, or say why it can't be done.

    Variables without bounds get those that the rows imply. A coefficient is read as the first convergent of its
    continued fraction that agrees to 12 digits: 0.1 and 0.3 - 0.2 are 1/10. Nothing else is rounded, so that whether a
    row without a unit is met differs from what `IntegerProgram.contains` says only within the latter's tolerance.

    Args:
        program: The program.
        rows: The rows of the form of a program of the same coefficients, which are taken over.
    """
    if not program.integrality.all():
        column = int((~program.integrality).argmax())
        return f"variable {column} is continuous, and CP-SAT takes integer variables only"
    foreign = program.features - {"indicators"}
    if foreign:
        return f"it uses {' and '.join(sorted(foreign))}: take program.reformulated(('indicators',))"
    lower, upper = implied_bounds(program)
    unbounded = ~(np.isfinite(lower) & np.isfinite(upper))
    if unbounded.any():
        return (
            f"variable {int(unbounded.argmax())} lacks a finite bound that it has itself or that the rows imply, and "
            "CP-SAT needs finite ones: bound it"
        )
    reason = objective_refusal(lower, upper)
    if reason is not None:
        return reason
    reach = np.maximum(np.abs(lower), np.abs(upper))
    form = IntegerForm(lower.astype(np.int64), upper.astype(np.int64), rows or list(_rows(program)), [])
    sides = [*_ends(program.row_facts, program.row_lower, program.row_upper)]
    if program.indicators:
        *_, least, most = zip(*program.indicators, strict=True)
        sides += _ends(program.indicator_facts, np.array(least), np.array(most))
    for row, (least, most) in zip(form.rows, sides, strict=True):
        terms = zip(row.integers, reach[row.columns].tolist(), strict=True)
        total = sum(abs(integer) * int(bound) for integer, bound in terms)
        if max(total, *map(abs, row.integers), 0) > 2**_SUM_BITS:
            return (
                f"{row.name} in integers takes more than 64 bits, and CP-SAT rounds nothing: give its coefficients "
                "fewer digits"
            )
        form.sides.append((_first(row, least, total), -_first(row, -most, total)))
    return form


def _ends(
    facts: mapgrad.RowFacts, lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> Iterator[tuple[float, float]]:
    least, most = facts.anywhere(lower, upper)
    return zip(least.tolist(), most.tolist(), strict=True)


def _rows(program: mapgrad.IntegerProgram) -> Iterator[Row]:
    for number, unit in enumerate(program.row_facts.units.tolist()):
        yield _row(f"row {number}", *program.matrix.row(number), unit, None)
    units = program.indicator_facts.units.tolist()
    for number, ((variable, value, row, *_), unit) in enumerate(zip(program.indicators, units, strict=True)):
        yield _row(f"indicator {number}", *row.row(0), unit, variable if value else -variable - 1)


def _row(
    name: str, columns: NDArray[np.int64], coefficients: NDArray[np.float64], unit: float, literal: int | None
) -> Row:
    scale, integers = _common_scale(coefficients.tolist(), unit)
    return Row(name, columns, integers, scale, literal)


def _first(row: Row, least: float, total: int) -> int:
    """Return the first integer from which a row holds; one just beyond ±total where it lies further away."""
    if math.isinf(least):
        return -total - 1
    return max(-total - 1, min(math.ceil(Fraction(least) * row.scale), total + 1))


def _common_scale(values: list[float], unit: float) -> tuple[Fraction, list[int]]:
    """Return the least number whose products with all values are integers, and these products."""
    if unit > 0:
        return 1 / Fraction(unit), [round(value / unit) for value in values]
    fractions = [_simplest_fraction(value) for value in values]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    return Fraction(scale), [int(scale * fraction) for fraction in fractions]


def _simplest_fraction(value: float) -> Fraction:
    numerator, denominator = value.as_integer_ratio()
    before, found = (0, 1), (1, 0)
    while True:
        whole, rest = divmod(numerator, denominator)
        before, found = found, (whole * found[0] + before[0], whole * found[1] + before[1])
        if abs(found[0] / found[1] - value) <= _COEFFICIENT_DIGITS * abs(value):
            return Fraction(*found)
        numerator, denominator = denominator, rest


def implied_bounds(program: mapgrad.IntegerProgram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bounds of the integer variables of a program, tightened by what each row leaves of each variable.

    They cut off no state: rows of indicators, which needn't hold, play no part. Where the rows contradict each other, a
    lower bound meets its upper bound and no more.
    """
    matrix = program.matrix
    lower, upper = program.lower.copy(), program.upper.copy()
    row, column = matrix.row_of_entry, matrix.indices
    least, most = program.row_facts.anywhere(program.row_lower, program.row_upper)
    sides = ((matrix.data, most[row]), (-matrix.data, -least[row]))
    for _ in range(_TIGHTENING_ROUNDS):
        before = lower.copy(), upper.copy()
        for coefficient, limit in sides:
            least = np.where(coefficient > 0, lower[column], upper[column]) * coefficient
            finite = np.isfinite(least)
            known = np.where(finite, least, 0.0)
            others_unknown = np.bincount(row, ~finite, minlength=matrix.shape[0])[row] - ~finite
            rest = np.bincount(row, known, minlength=matrix.shape[0])[row] - known
            size = np.bincount(row, np.abs(known), minlength=matrix.shape[0])[row] + np.abs(coefficient)
            tells = (others_unknown == 0) & np.isfinite(limit)
            end = (limit - rest + _ROOM * (np.abs(limit) + size))[tells] / coefficient[tells]
            rising = coefficient[tells] > 0
            np.minimum.at(upper, column[tells][rising], np.floor(end[rising]))
            np.maximum.at(lower, column[tells][~rising], np.ceil(end[~rising]))
        lower = np.minimum(lower, before[1])
        upper = np.maximum(upper, lower)
        if np.array_equal(lower, before[0]) and np.array_equal(upper, before[1]):
            break
    return lower, upper
