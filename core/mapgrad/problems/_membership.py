"""Which points are states of a program, and what the variables that θ doesn't price add to them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import ProblemError, UndecidedError
from mapgrad.problems._features import keep_sets, stacked
from mapgrad.problems._optional import optional_module
from mapgrad.problems._row_facts import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems._program_data import ProgramData

_COMPLETION_NODES: Final = 100_000
_FEW: Final = 1_024
"""So many values of the other variables are all tried; of more, SciPy's milp finds the best ones."""

_UTILITY_BITS: Final = 12  # so much larger than 1 are utilities beside milp's absolute tolerances
_INFEASIBLE: Final = 2  # among the statuses of scipy.optimize.milp


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


def are_states(program: ProgramData, z: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which rows of z [N, *shape], all of them in the box, are states: bool [N].

    Raises:
        MissingDependencyError: scipy isn't installed, and is needed.
        UndecidedError: SciPy's milp gave up on the other variables.
    """
    x = _filled(program, z)
    activity = program.matrix.activities(x)
    least, most = program.row_facts.reach(x, program.row_lower, program.row_upper)
    held = (activity >= least) & (activity <= most)
    answers: NDArray[np.bool_] = np.logical_and.reduce(held | ~program.row_facts.are_settled, axis=1)
    if program.features:
        answers &= keep_sets(program.sos, x, TOLERANCE) & _keep_indicators(program, x)
    if len(program.others):
        values = _few_values(program)
        for number in np.flatnonzero(answers):
            if values is not None:
                answers[number] = _completing(program, x[number], values).any()
            else:
                answers[number] = _completes(program, least[number] - activity[number], most[number] - activity[number])
    return answers


def _keep_indicators(program: ProgramData, x: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not program.indicators:
        return np.ones(len(x), dtype=np.bool_)
    variables, values, _, lower, upper = zip(*program.indicators, strict=True)
    activity = stacked(program.indicators, program.num_vars).activities(x)
    least, most = program.indicator_facts.reach(x, np.array(lower), np.array(upper))
    held = (activity >= least) & (activity <= most)
    return np.logical_and.reduce(held | (x[:, variables] != np.array(values)), axis=1)


def completion_values(program: ProgramData, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return max ⟨fixed, y⟩ over the y that complete each state of z [N, *shape]: float64 [N].

    Raises:
        MissingDependencyError: scipy isn't installed.
        ProblemError: a state isn't one, or what the others may add to it has no limit.
    """
    x, values = _filled(program, z), _few_values(program)
    if values is None:
        return _worth_by_engine(program, x)
    completing = (_completing(program, row, values) for row in x)
    worth = np.array([(values[fits] @ program.fixed).max(initial=-np.inf) for fits in completing])
    if (worth == -np.inf).any():
        raise ProblemError(f"what a state of {program!r} is worth can't be told: no values of the others complete it")
    return worth


def _worth_by_engine(program: ProgramData, x: NDArray[np.float64]) -> NDArray[np.float64]:
    lower, upper = program.row_lower, program.row_upper
    least, most = program.row_facts.reach(x, lower, upper)
    is_exact, integer = program.row_facts.are_integer, program.integrality[program.others]
    worth, activities = np.empty(len(x)), program.matrix.activities(x)
    for number in range(len(x)):
        activity: NDArray[np.float64] = activities[number]
        low, high = least[number] - activity, most[number] - activity
        own = np.where(is_exact, low, lower - activity), np.where(is_exact, high, upper - activity)
        result = _complete(program, *own, program.fixed)
        if result.status == _INFEASIBLE:  # a state that needs what its rows may be missed by
            result = _complete(program, low, high, program.fixed)
        if result.status != 0:
            raise ProblemError(
                f"what a state of {program!r} is worth can't be told: SciPy's milp says {result.message!r}"
            )
        worth[number] = program.fixed @ np.where(integer, result.x.round(), result.x)
    return worth


def _few_values(program: ProgramData) -> NDArray[np.float64] | None:
    """Return all values of the variables that θ doesn't price, [N, others]; None where they aren't few integers."""
    lower, upper = np.ceil(program.lower[program.others]), np.floor(program.upper[program.others])
    if not program.integrality[program.others].all() or not np.prod(upper - lower + 1) <= _FEW:
        return None
    each = (range(int(first), int(last) + 1) for first, last in zip(lower, upper, strict=True))
    return np.array([*itertools.product(*each)], dtype=np.float64).reshape(-1, len(lower))


def _completing(program: ProgramData, x: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which values [N, others] complete x [n]: bool [N]."""
    whole = np.tile(x, (len(values), 1))
    whole[:, program.others] = values
    activity = program.matrix.activities(whole)
    least, most = program.row_facts.reach(whole, program.row_lower, program.row_upper)
    holds: NDArray[np.bool_] = np.logical_and.reduce((activity >= least) & (activity <= most), axis=1)
    return holds


def _filled(program: ProgramData, z: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.zeros((len(z), program.num_vars))
    x[:, program.decision] = z.reshape(len(z), len(program.decision))
    x[:, program.integrality] = x[:, program.integrality].round()
    return x


def _completes(program: ProgramData, row_lower: NDArray[np.float64], row_upper: NDArray[np.float64]) -> bool:
    """Tell whether the other variables can bring their part of each row within these bounds."""
    result = _complete(program, row_lower, row_upper, np.zeros(len(program.others)))
    if result.x is None and result.status != _INFEASIBLE:
        raise UndecidedError(f"whether z can be completed isn't known: SciPy's milp says {result.message!r}")
    return result.x is not None


def _complete(
    program: ProgramData,
    row_lower: NDArray[np.float64],
    row_upper: NDArray[np.float64],
    utilities: NDArray[np.float64],
) -> Any:
    """Return what SciPy says of the best values for the other variables, within these bounds on their rows."""
    optimize = optional_module(
        "scipy.optimize", "to complete z by values of the variables that θ doesn't price, a program", "scipy"
    )
    columns, exponents = program.row_facts.other_columns
    sides = np.ldexp(row_lower, exponents), np.ldexp(row_upper, exponents)
    utilities = np.ldexp(utilities, _UTILITY_BITS - math.frexp(float(np.abs(utilities).max()))[1])
    for presolve in (True, False):  # HiGHS's presolve may call feasible programs infeasible, or end in an error
        result = optimize.milp(
            -utilities,
            integrality=program.integrality[program.others],
            bounds=optimize.Bounds(program.lower[program.others], program.upper[program.others]),
            constraints=optimize.LinearConstraint(columns, *sides),
            options={"mip_rel_gap": 0.0, "node_limit": _COMPLETION_NODES, "presolve": presolve},
        )
        if result.x is not None:
            break
    return result
