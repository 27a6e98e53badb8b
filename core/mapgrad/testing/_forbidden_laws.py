"""The law on entries that θ = −inf forbids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.errors import RowsError, UnsupportedProblemError
from mapgrad.solutions import Solutions, Status
from mapgrad.testing._case import endings, law
from mapgrad.testing._sample_rows import generic_rows, masked_rows

if TYPE_CHECKING:
    from mapgrad.testing._case import Case


@law
def check_forbidden_entries(case: Case) -> None:
    """Where θ_i = −inf, S(θ)_i = 0, and S(θ) is the best of the states with that; a row without one is INFEASIBLE.

    Entries may be forbidden whose lower bound is 0. Rows in which none is are answered as before, among the others and
    after them. A heuristic may fail to find such a state.
    """
    if case.problem.box[0].all():
        case.not_applicable("no entry of the problem has the lower bound 0, so that none may be forbidden")
    theta = masked_rows(case.problem, case.rows)
    forbidden = theta.isneginf()
    best = case.enumeration.values(case.problem.domain.clip(theta)).amax(1)
    free, before = generic_rows(case.problem, 2, seed=12), None
    if not case.enumeration.fixed.any():
        before = case.solver(free)
    try:
        solutions = case.solver.solve(theta)
    except RowsError as error:
        if error.solutions is None:
            raise
        solutions = error.solutions
    refusals = [str(cause) for cause in solutions.causes.values() if isinstance(cause, UnsupportedProblemError)]
    if refusals:
        case.not_applicable(f"the solver can't take masks of this problem: {refusals[0]}")
    z, status, has_state = solutions.z, solutions.status, best > -torch.inf
    answered = (status == Status.OPTIMAL) | (status == Status.FEASIBLE)
    held = ((z != 0) & forbidden).flatten(1).any(1) & answered
    case.require_rows(~held, theta, z, "the answer holds an entry that θ = −inf forbids")
    message = "each state holds a forbidden entry, but the status is {}"
    fine = status == Status.INFEASIBLE if case.solver.traits.exact else ~answered
    case.require_rows(has_state | fine, theta, z, message, endings(solutions))
    message = "some state holds no forbidden entry, but the status is {}"
    fine = status == Status.OPTIMAL if case.solver.traits.exact else status != Status.INFEASIBLE
    case.require_rows(~has_state | fine, theta, z, message, endings(solutions))
    good = answered.nonzero().squeeze(1)
    found = Solutions(z[good], status[good], solutions.objective[good], solutions.bound[good])
    case.require_optimal(theta[good], found)
    if before is not None:
        message = "after rows with forbidden entries, rows without any are answered otherwise"
        case.require_same(free, case.solver(free), before, message)
