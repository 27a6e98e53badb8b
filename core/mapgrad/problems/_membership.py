"""Which points are states of a program, and what the variables that θ doesn't price add to them."""

from __future__ import annotations

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
    x[:, program.integrality] = x[:, program.integrality].round()
    activity = program.matrix.activities(x)
    least, most = program.row_facts.reach(x, program.row_lower, program.row_upper)
    held = (activity >= least) & (activity <= most)
    answers: NDArray[np.bool_] = np.logical_and.reduce(held | ~program.row_facts.are_settled, axis=1)
    if program.features:
        answers &= keep_sets(program.sos, x, TOLERANCE) & _keep_indicators(program, x)
    if len(program.others):
        for number in np.flatnonzero(answers):
            sides = least[number] - activity[number], most[number] - activity[number]
            answers[number] = _completes(program, *sides)
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
    integer = program.integrality[program.others]
    values = np.empty(len(z))
    x = _filled(program, z)
    least, most = program.row_facts.reach(x, program.row_lower, program.row_upper)
    for number, activity in enumerate(program.matrix.activities(x)):
        sides = program.row_lower - activity, program.row_upper - activity
        result = _complete(program, *sides, program.fixed)
        if result.status == _INFEASIBLE:  # a state that needs what its rows may be missed by
            result = _complete(program, least[number] - activity, most[number] - activity, program.fixed)
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
