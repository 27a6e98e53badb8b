"""Which points are states of a program, and what the variables that θ doesn't price add to them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError, UndecidedError
from mapgrad.problems._features import keep_sets, stacked
from mapgrad.problems._optional import optional_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems._program_data import ProgramData
    from mapgrad.problems._sparse import SparseRows

TOLERANCE: Final = 1e-6
"""By how much a coordinate may miss a bound or a whole number, and a row with real terms a side, beside their size."""
_INTEGER_ROW_TOLERANCE: Final = 1e-9  # such a row is evaluated at integers: only its own coefficients are rounded
_COMPLETION_NODES: Final = 100_000
_INFEASIBLE: Final = 2  # among the statuses of scipy.optimize.milp


class RowFacts:
    """What can be said of rows whatever their sides are: programs that differ in sides and bounds share it.

    Args:
        matrix: [m, n].
        integrality: [n] bool.
        others: The columns that θ doesn't price.
    """

    def __init__(self, matrix: SparseRows, integrality: NDArray[np.bool_], others: NDArray[np.int64]) -> None:
        self._matrix, self._integrality, self._others = matrix, integrality, others

    @cached_property
    def _are_integer(self) -> NDArray[np.bool_]:
        return ~self._matrix.touches(~self._integrality)

    @cached_property
    def _are_whole(self) -> NDArray[np.bool_]:
        """Which rows have integers only, as variables and as coefficients."""
        fraction = np.flatnonzero(self._matrix.data % 1)
        whole = self._are_integer.copy()
        whole[self._matrix.row_of_entry[fraction]] = False
        return whole

    @cached_property
    def are_settled(self) -> NDArray[np.bool_]:
        """Which rows speak of priced variables only: bool [m]."""
        other = np.zeros(self._matrix.shape[1], dtype=np.bool_)
        other[self._others] = True
        return ~self._matrix.touches(other)

    @cached_property
    def other_columns(self) -> Any:
        """The columns that θ doesn't price, as a scipy.sparse array."""
        return self._matrix.to_scipy()[:, self._others]

    def room(self, terms: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much rows may miss sides [m], [N, m], given the largest of each row's terms, [N, m].

        At most half of one where a miss is a whole number: no tolerance may hide that.
        """
        tolerance = np.where(self._are_integer, _INTEGER_ROW_TOLERANCE, TOLERANCE)
        most = np.where(self._are_whole & (sides == sides.round()), 0.5, np.inf)
        return np.minimum(tolerance * np.maximum(terms, np.where(np.isfinite(sides), np.abs(sides), 0)), most)


def in_box(program: ProgramData, z: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows of z [N, *shape] are integer where they must be, and within the bounds: bool [N]."""
    flat, integer = z.reshape(len(z), len(program.decision)), program.integrality[program.decision]
    lower, upper = program.lower[program.decision], program.upper[program.decision]
    with np.errstate(invalid="ignore"):  # inf - inf, where z is refused anyway
        whole = ~integer | (np.abs(flat - flat.round()) <= TOLERANCE)
        room = TOLERANCE * np.maximum(1, np.abs(flat))
        is_zero = program.semicontinuous[program.decision] & (np.abs(flat) <= TOLERANCE)
        inside = np.isfinite(flat) & whole & (is_zero | ((flat >= lower - room) & (flat <= upper + room)))
    return np.logical_and.reduce(inside, axis=1)


def are_states(program: ProgramData, facts: RowFacts, z: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows of z [N, *shape], all of them in the box, are states: bool [N].

    Raises:
        MissingDependencyError: scipy isn't installed, and is needed.
        UndecidedError: SciPy's milp gave up on the other variables.
    """
    x = _filled(program, z)
    x[:, program.integrality] = x[:, program.integrality].round()
    activity, least, most = _activities(program.matrix, program.row_lower, program.row_upper, facts, x)
    held = (activity >= least) & (activity <= most)
    answers: NDArray[np.bool_] = np.logical_and.reduce(held | ~facts.are_settled, axis=1)
    if program.features:
        answers &= keep_sets(program.sos, x, TOLERANCE) & _keep_indicators(program, x)
    if len(program.others):
        for number in np.flatnonzero(answers):
            sides = least[number] - activity[number], most[number] - activity[number]
            answers[number] = _completes(program, facts, *sides)
    return answers


def _activities(
    matrix: SparseRows,
    row_lower: NDArray[np.float64],
    row_upper: NDArray[np.float64],
    facts: RowFacts,
    x: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return what rows come to, and what they may come to at least and at most: three arrays [N, m]."""
    terms = matrix.magnitudes(x)
    return matrix.activities(x), row_lower - facts.room(terms, row_lower), row_upper + facts.room(terms, row_upper)


def _keep_indicators(program: ProgramData, x: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not program.indicators:
        return np.ones(len(x), dtype=np.bool_)
    variables, values, _, lower, upper = zip(*program.indicators, strict=True)
    matrix = stacked(program.indicators, program.num_vars)
    facts = RowFacts(matrix, program.integrality, program.others)
    activity, least, most = _activities(matrix, np.array(lower), np.array(upper), facts, x)
    held = (activity >= least) & (activity <= most)
    return np.logical_and.reduce(held | (x[:, variables] != np.array(values)), axis=1)


def completion_values(program: ProgramData, facts: RowFacts, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return max ⟨fixed, y⟩ over the y that complete each state of z [N, *shape]: float64 [N].

    Raises:
        MissingDependencyError: scipy isn't installed.
        ProblemError: a state isn't one, or what the others may add to it has no limit.
    """
    integer = program.integrality[program.others]
    values = np.empty(len(z))
    for number, activity in enumerate(program.matrix.activities(_filled(program, z))):
        sides = program.row_lower - activity, program.row_upper - activity
        result = _complete(program, facts, *sides, program.fixed)
        if result.status != 0:
            raise ProblemError(
                f"what a state of {program!r} is worth can't be told: SciPy's milp says {result.message!r}"
            )
        values[number] = program.fixed @ np.where(integer, result.x.round(), result.x)
    return values


def _filled(program: ProgramData, z: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.zeros((len(z), program.num_vars))
    x[:, program.decision] = z.reshape(len(z), len(program.decision))
    return x


def _completes(
    program: ProgramData, facts: RowFacts, row_lower: NDArray[np.float64], row_upper: NDArray[np.float64]
) -> bool:
    """Tell whether the other variables can bring their part of each row within these bounds."""
    result = _complete(program, facts, row_lower, row_upper, np.zeros(len(program.others)))
    if result.x is None and result.status != _INFEASIBLE:
        raise UndecidedError(f"whether z can be completed isn't known: SciPy's milp says {result.message!r}")
    return result.x is not None


def _complete(
    program: ProgramData,
    facts: RowFacts,
    row_lower: NDArray[np.float64],
    row_upper: NDArray[np.float64],
    utilities: NDArray[np.float64],
) -> Any:
    """Return what SciPy says of the best values for the other variables, within these bounds on their rows."""
    optimize = optional_module(
        "scipy.optimize", "to complete z by values of the variables that θ doesn't price, a program", "scipy"
    )
    for presolve in (True, False):  # HiGHS's presolve may call feasible programs infeasible, or end in an error
        result = optimize.milp(
            -utilities,
            integrality=program.integrality[program.others],
            bounds=optimize.Bounds(program.lower[program.others], program.upper[program.others]),
            constraints=optimize.LinearConstraint(facts.other_columns, row_lower, row_upper),
            options={"mip_rel_gap": 0.0, "node_limit": _COMPLETION_NODES, "presolve": presolve},
        )
        if result.x is not None:
            break
    return result
