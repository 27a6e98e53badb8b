"""Optima of small integer programs in exact arithmetic: the truth that no engine's tolerances touch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mapgrad.solutions import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram

_NODES: Final = 2_000
_SHORT: Final = 2**32


class ExactAnswer(NamedTuple):
    """What is true of max ⟨θ, x⟩ over a program.

    Attributes:
        status: OPTIMAL, INFEASIBLE or UNBOUNDED.
        x: An optimal point; empty without one.
        value: ⟨θ, x⟩.
        nodes: Linear programs that branching took; 0 where it took none.
    """

    status: Status
    x: list[Fraction]
    value: Fraction
    nodes: int


def exact_optimum(
    program: IntegerProgram, theta: NDArray[np.float64], *, room: Sequence[float] = (), limit: int = _NODES
) -> ExactAnswer | None:
    """Return max ⟨θ, x⟩ by a simplex method in whole numbers and branching, its numbers read as decimals.

    Args:
        program: The set, every variable priced.
        theta: [num_vars].
        room: What each row may be missed by; nothing without.
        limit: How many linear programs branching may take.

    Returns:
        The answer; None where the limit came first.
    """
    variables = _Variables(program)
    tableau = variables.tableau(program, theta, room).feasible()
    if tableau is None:
        return ExactAnswer(Status.INFEASIBLE, [], Fraction(0), 0)
    best = tableau.optimal()
    if best is not None:
        return _branch(variables, best, theta, limit)
    unpriced = replace(tableau, cost=[0] * len(tableau.cost))  # rational rows: the integer points have the same rays
    answer = _branch(variables, unpriced, np.zeros(len(theta)), limit)
    if answer is None or answer.status is Status.INFEASIBLE:
        return answer
    return ExactAnswer(Status.UNBOUNDED, [], Fraction(0), answer.nodes)


def dense_rows(program: IntegerProgram) -> NDArray[np.float64]:
    """Return the coefficients of all rows, [m, num_vars]."""
    matrix = np.zeros(program.matrix.shape)
    matrix[program.matrix.row_of_entry, program.matrix.indices] = program.matrix.data
    return matrix


def rational(number: float) -> Fraction:
    """Return the number itself where that is short in binary, and the shortest decimal that reads as it elsewhere."""
    numerator, denominator = number.as_integer_ratio()
    return Fraction(numerator, denominator) if abs(numerator) < _SHORT else Fraction(repr(number))


@dataclass(frozen=True)
class _Tableau:
    """A linear program of variables ≥ 0, those in `basic` written as sums of those in `other`.

    Attributes:
        rows: One for each basic variable: `divisor` times its coefficients and, last, its constant.
        cost: `divisor` times the objective's, up to a positive factor.
        divisor: Positive; all entries are minors of the first tableau, so that pivots divide without rest.
    """

    rows: list[list[int]]
    cost: list[int]
    divisor: int
    basic: list[int]
    other: list[int]

    def feasible(self) -> _Tableau | None:
        """Return a tableau whose constants are ≥ 0, of no regard for the objective; None where there is none."""
        cost, width = self.cost, len(self.other)
        found = replace(self, rows=[*self.rows, cost], basic=[*self.basic, -1], cost=[0] * (width + 1)).repaired()
        if found is None:
            return None
        return replace(found, rows=found.rows[:-1], basic=found.basic[:-1], cost=found.rows[-1])

    def repaired(self) -> _Tableau | None:
        """Return an optimal tableau, of one whose costs are all ≤ 0, by the dual simplex method."""
        tableau = self
        while True:
            negative = [(name, row) for row, name in enumerate(tableau.basic) if name >= 0 > tableau.rows[row][-1]]
            if not negative:
                return tableau
            row = min(negative)[1]
            entries = tableau.rows[row][:-1]
            ratios = [
                (Fraction(-tableau.cost[column], entry), tableau.other[column], column)
                for column, entry in enumerate(entries)
                if entry > 0
            ]
            if not ratios:
                return None
            tableau = tableau.pivot(row, min(ratios)[2])

    def optimal(self) -> _Tableau | None:
        """Return an optimal tableau, of a feasible one, by the simplex method; None where there is no optimum."""
        tableau = self
        while True:
            rising = [(name, column) for column, name in enumerate(tableau.other) if tableau.cost[column] > 0]
            if not rising:
                return tableau
            column = min(rising)[1]
            ratios = [
                (Fraction(entries[-1], -entries[column]), tableau.basic[row], row)
                for row, entries in enumerate(tableau.rows)
                if entries[column] < 0
            ]
            if not ratios:
                return None
            tableau = tableau.pivot(min(ratios)[2], column)

    def pivot(self, row: int, column: int) -> _Tableau:
        """Let a basic variable and another one change places."""
        pivot_row, divisor = self.rows[row], self.divisor
        pivot = pivot_row[column]
        size, sign = abs(pivot), 1 if pivot > 0 else -1

        def moved(entries: list[int]) -> list[int]:
            factor = entries[column] * sign
            pairs = zip(entries, pivot_row, strict=True)
            changed = [(entry * size - factor * other) // divisor for entry, other in pairs]
            changed[column] = factor
            return changed

        rows = [moved(entries) for entries in self.rows]
        rows[row] = [-sign * entry for entry in pivot_row]
        rows[row][column] = sign * divisor
        basic, other = self.basic.copy(), self.other.copy()
        basic[row], other[column] = other[column], basic[row]
        return _Tableau(rows, moved(self.cost), size, basic, other)

    def with_row(self, terms: dict[int, int], constant: int) -> _Tableau:
        """Add the row that a sum of variables and a constant is ≥ 0."""
        entries = [0] * len(self.other) + [constant * self.divisor]
        for name, factor in terms.items():
            if name in self.other:
                entries[self.other.index(name)] += factor * self.divisor
            else:
                row = self.rows[self.basic.index(name)]
                entries = [entry + factor * more for entry, more in zip(entries, row, strict=True)]
        name = 1 + max(*self.basic, *self.other)
        return replace(self, rows=[*self.rows, entries], basic=[*self.basic, name])

    def values(self, count: int) -> list[Fraction]:
        """Return the values of the first variables."""
        values = [Fraction(0)] * count
        for name, row in zip(self.basic, self.rows, strict=True):
            if name < count:
                values[name] = Fraction(row[-1], self.divisor)
        return values


class _Variables:
    """A program's variables as constants and sums of variables ≥ 0."""

    def __init__(self, program: IntegerProgram) -> None:
        self.constants: list[Fraction] = []
        self.terms: list[dict[int, int]] = []
        self.rooms: list[tuple[int, Fraction]] = []
        self.integer = [bool(each) for each in program.integrality]
        self.count = 0
        for low, high in zip(program.lower.tolist(), program.upper.tolist(), strict=True):
            if low == -math.inf and high == math.inf:
                self.constants.append(Fraction(0))
                self.terms.append({self.count: 1, self.count + 1: -1})
                self.count += 2
                continue
            self.constants.append(rational(high if low == -math.inf else low))
            self.terms.append({self.count: -1 if low == -math.inf else 1})
            if -math.inf < low and high < math.inf:
                self.rooms.append((self.count, rational(high) - rational(low)))
            self.count += 1

    def tableau(self, program: IntegerProgram, theta: NDArray[np.float64], room: Sequence[float]) -> _Tableau:
        """Return the program's linear relaxation."""
        matrix = dense_rows(program)
        rows: list[list[int]] = []
        sides = zip(program.row_lower.tolist(), program.row_upper.tolist(), room or [0.0] * len(matrix), strict=True)
        for entries, (low, high, more) in zip(matrix.tolist(), sides, strict=True):
            coefficients, constant = self._substituted(entries)
            if high < math.inf:
                rows.append(_whole([*(-each for each in coefficients), rational(high) + Fraction(more) - constant]))
            if low > -math.inf:
                rows.append(_whole([*coefficients, constant - rational(low) + Fraction(more)]))
        for name, most in self.rooms:
            rows.append(_whole([*(Fraction(-(name == other)) for other in range(self.count)), most]))
        cost = _whole([*self._substituted(theta.tolist())[0], Fraction(0)])
        return _Tableau(rows, cost, 1, list(range(self.count, self.count + len(rows))), list(range(self.count)))

    def _substituted(self, entries: list[float]) -> tuple[list[Fraction], Fraction]:
        coefficients, constant = [Fraction(0)] * self.count, Fraction(0)
        for entry, base, terms in zip(entries, self.constants, self.terms, strict=True):
            if entry:
                factor = rational(entry)
                constant += factor * base
                for name, sign in terms.items():
                    coefficients[name] = factor * sign
        return coefficients, constant

    def values(self, tableau: _Tableau) -> list[Fraction]:
        """Return the program's variables."""
        parts = tableau.values(self.count)
        return [
            base + sum(sign * parts[name] for name, sign in terms.items())
            for base, terms in zip(self.constants, self.terms, strict=True)
        ]


def _whole(numbers: list[Fraction]) -> list[int]:
    factor = math.lcm(*(number.denominator for number in numbers))
    return [number.numerator * (factor // number.denominator) for number in numbers]


def _branch(variables: _Variables, root: _Tableau, theta: NDArray[np.float64], limit: int) -> ExactAnswer | None:
    """Return the best integer point below an optimal tableau, the most promising part first."""
    costs = [rational(each) for each in theta.tolist()]
    waiting = [(Fraction(0), 0, root)]
    nodes = 0
    while waiting:
        _, _, tableau = heappop(waiting)
        x = variables.values(tableau)
        fractions = [
            (abs(x[place] % 1 - Fraction(1, 2)), place)
            for place, integer in enumerate(variables.integer)
            if integer and x[place].denominator > 1
        ]
        if not fractions:
            return ExactAnswer(Status.OPTIMAL, x, _product(costs, x), nodes)
        _, place = min(fractions)
        floor, base, terms = math.floor(x[place]), int(variables.constants[place]), variables.terms[place]
        for sign, constant in ((-1, floor - base), (1, base - floor - 1)):
            nodes += 1
            if nodes > limit:
                return None
            part = tableau.with_row({name: sign * each for name, each in terms.items()}, constant).repaired()
            if part is not None:
                heappush(waiting, (-_product(costs, variables.values(part)), -nodes, part))
    return ExactAnswer(Status.INFEASIBLE, [], Fraction(0), nodes)


def _product(costs: list[Fraction], x: list[Fraction]) -> Fraction:
    return sum((cost * each for cost, each in zip(costs, x, strict=True)), Fraction(0))
