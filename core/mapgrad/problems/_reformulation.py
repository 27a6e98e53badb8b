"""Programs without semi-continuous variables, special ordered sets and indicator rows that mean the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems._features import stacked
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from mapgrad.problems._features import Indicator
    from mapgrad.problems._program_data import ProgramData


def reformulation(program: ProgramData, kept: Collection[str]) -> dict[str, Any]:
    """Return the attributes of an equivalent program that uses no features but some.

    Raises:
        UnsupportedProblemError: a variable lacks a bound that this needs.
    """
    return _Reformulation(program, kept).attributes()


class _Reformulation:
    """Rows and 0/1 variables under construction.

    Where a variable x has the bounds l and u, a 0/1 variable y with l y ≤ x ≤ u y is its switch: x is 0 if y is.
    """

    def __init__(self, program: ProgramData, kept: Collection[str]) -> None:
        self.program, self.kept = program, kept
        self.lower, self.upper = program.hull
        self.count = program.num_vars
        self.rows: list[tuple[list[int], list[float], float, float]] = []
        self.switches: dict[int, int] = {}
        self.is_semicontinuous = program.semicontinuous.copy()

    def attributes(self) -> dict[str, Any]:
        program = self.program
        own = [program.lower.copy(), program.upper.copy()]
        if "semicontinuous" not in self.kept:
            for column in np.flatnonzero(program.semicontinuous).tolist():
                self._add_semicontinuous(column)
            own = [self.lower, self.upper]
        if "sos" not in self.kept:
            for kind, columns, _ in program.sos:
                (self._add_first_kind if kind == 1 else self._add_second_kind)(columns)
        if "indicators" not in self.kept:
            matrix = stacked(program.indicators, program.num_vars)
            for number, indicator in enumerate(program.indicators):
                self._add_indicator(number, indicator, *matrix.row(number))
        added = self.count - program.num_vars
        objective = program.objective
        return {
            "matrix": self._rows().below(_widened(program.matrix, self.count)),
            "row_lower": np.concatenate((program.row_lower, [low for *_, low, _ in self.rows])),
            "row_upper": np.concatenate((program.row_upper, [high for *_, high in self.rows])),
            "lower": np.append(own[0], np.zeros(added)),
            "upper": np.append(own[1], np.ones(added)),
            "integrality": np.append(program.integrality, np.ones(added, dtype=np.bool_)),
            "fixed": np.append(program.fixed, np.zeros(added)),
            "semicontinuous": np.append(self.is_semicontinuous, np.zeros(added, dtype=np.bool_)),
            "sos": program.sos if "sos" in self.kept else (),
            "indicators": tuple(
                (variable, value, _widened(row, self.count), low, high)
                for variable, value, row, low, high in program.indicators
                if "indicators" in self.kept
            ),
            "objective": None if objective is None else np.append(objective, np.zeros(added)),
        }

    def _rows(self) -> SparseRows:
        lengths = [len(columns) for columns, *_ in self.rows]
        columns = [column for columns, *_ in self.rows for column in columns]
        values = [value for _, values, *_ in self.rows for value in values]
        return SparseRows(values, columns, np.append(0, np.cumsum(lengths, dtype=np.int64)), (len(lengths), self.count))

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _bounds(self, column: int, feature: str) -> tuple[float, float]:
        """Return a variable's bounds, which must be finite."""
        lower, upper = float(self.lower[column]), float(self.upper[column])
        for side, bound in (("lower", lower), ("upper", upper)):
            if np.isinf(bound):
                raise _unbounded(column, side, bound, feature)
        return lower, upper

    def _add_semicontinuous(self, column: int) -> None:
        lower, upper = float(self.program.lower[column]), float(self.program.upper[column])
        self.is_semicontinuous[column] = False
        whole = bool(self.program.integrality[column])
        if (lower > 0 and not (whole and lower == 1)) or (upper < 0 and not (whole and upper == -1)):
            self._bounds(column, "semicontinuous")
            switch = self.switches[column] = self._new()
            self._add_switched(column, [switch], lower, upper)

    def _add_switched(self, column: int, switches: list[int], lower: float, upper: float) -> None:
        """Add l y ≤ x ≤ u y, with y the sum of some 0/1 variables."""
        for bound, low, high in ((lower, 0.0, np.inf), (upper, -np.inf, 0.0)):
            if bound:  # else x's own bound says it
                self.rows.append(([column, *switches], [1.0, *[-bound] * len(switches)], low, high))

    def _switch(self, column: int) -> int:
        """Return a 0/1 variable without which a variable is 0: itself where it is one."""
        lower, upper = self._bounds(column, "sos")
        if self.program.integrality[column] and (lower, upper) == (0, 1):
            return column
        if column not in self.switches:
            self.switches[column] = self._new()
            self._add_switched(column, [self.switches[column]], lower, upper)
        return self.switches[column]

    def _add_first_kind(self, columns: tuple[int, ...]) -> None:
        if len(columns) > 1:
            switches = [self._switch(column) for column in columns]
            self.rows.append((switches, [1.0] * len(switches), -np.inf, 1.0))

    def _add_second_kind(self, columns: tuple[int, ...]) -> None:
        """Let a 0/1 variable for each two neighbours switch both, and choose one of them."""
        if len(columns) > 2:
            pairs = [self._new() for _ in columns[1:]]
            for number, column in enumerate(columns):
                self._add_switched(column, pairs[max(number - 1, 0) : number + 1], *self._bounds(column, "sos"))
            self.rows.append((pairs, [1.0] * len(pairs), -np.inf, 1.0))

    def _add_indicator(
        self, number: int, indicator: Indicator, columns: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        """Let the sides of a row give way, by as much as its variables' bounds allow, where it needn't hold."""
        variable, value, _, *sides = indicator
        constant = float(values[columns == variable].sum()) * value
        columns, values = columns[columns != variable], values[columns != variable]
        ends = np.sort([values * self.lower[columns], values * self.upper[columns]], axis=0)
        for side, terms, sign in zip(sides, ends, (-1, 1), strict=True):
            if np.isinf(side):
                continue
            limit, end = side - constant, float(terms.sum())
            if np.isinf(terms).any():
                place = int(np.isinf(terms).argmax())
                column, is_upper = int(columns[place]), (values[place] > 0) == (sign > 0)
                bound = (self.upper if is_upper else self.lower)[column]
                raise _unbounded(column, "upper" if is_upper else "lower", bound, f"indicators[{number}]")
            if sign * (end - limit) <= 0:
                continue
            # where x[variable] is value, the side is limit; elsewhere it is end
            step, right = (end - limit, end) if value else (limit - end, limit)
            low, high = (-np.inf, right) if sign > 0 else (right, np.inf)
            self.rows.append(([*columns.tolist(), variable], [*values.tolist(), step], low, high))


def _widened(matrix: SparseRows, width: int) -> SparseRows:
    return SparseRows(matrix.data, matrix.indices, matrix.indptr, (matrix.shape[0], width))


def _unbounded(column: int, side: str, bound: float, feature: str) -> UnsupportedProblemError:
    return UnsupportedProblemError(
        f"variable {column} has the {side} bound {bound}, but rows can stand for {feature} only where it is finite: "
        f"give the variable a finite {side} bound"
    )
