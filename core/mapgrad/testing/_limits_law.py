"""The law on bounds and sides that differ by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mapgrad.errors import RowsError, UnsupportedProblemError
from mapgrad.solutions import Status
from mapgrad.testing._case import endings, law
from mapgrad.testing._sample_rows import generic_rows, masked_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import IntegerProgram
    from mapgrad.solutions import Solutions
    from mapgrad.testing._case import Case

_TOLERANCE: Final = 1e-9


@law
def check_limits_by_row(case: Case) -> None:
    """With ``problems=[…]`` that differ in bounds and sides, S(θ)[b] is the answer of a solver of the b-th alone.

    The problems are the program that the solver gets, stated by rows and bounds, and tighter and looser ones made by
    ``replace``. All come in a batch, with forbidden entries in some rows, in two orders; then the program comes alone.
    """
    if not case.plugin.traits.limits:
        case.not_applicable("the solver's traits don't say limits: it gets a native model for each problem")
    if not case.repeatable:
        case.not_applicable("a heuristic that isn't deterministic doesn't promise equal answers")
    program = case.program.reformulated()
    problems: list[IntegerProgram] = []
    rows: list[Tensor] = []
    alone: list[Solutions] = []
    for problem in dict.fromkeys(_siblings(program)):
        with case.on(problem) as own:
            try:
                solver = own.solver
            except UnsupportedProblemError:  # the first, which the solver takes, isn't among these
                continue
            theta = _rows(problem, seed=len(rows))[:: 2 if case.is_slow else 1]
            alone += [_answers(solver, row[None]) for row in theta]
        problems += [problem] * len(theta)
        rows += theta.unbind()
    with case.on(program) as shared:
        for step in (-1, 1):
            theta = torch.stack(rows[::step])
            _require_equal(shared, theta, _answers(shared.solver, theta, problems[::step]), alone[::step])
        count = problems.count(program)
        theta = torch.stack(rows[:count])
        _require_equal(shared, theta, _answers(shared.solver, theta), alone[:count])


def _siblings(program: IntegerProgram) -> Iterator[IntegerProgram]:
    """Yield a program, and others of the same coefficients; some may have no state or no optimum."""
    lower, upper = program.lower, program.upper
    least, most = program.row_lower, program.row_upper
    chosen = np.random.default_rng(0).random(program.num_vars) < 0.5
    yield program
    yield program.replace(row_upper=np.maximum(most - 1, least))
    yield program.replace(row_lower=least - 1, row_upper=most + 1)
    yield program.replace(upper=np.where(chosen, np.maximum(upper - 1, lower), upper))
    yield program.replace(row_lower=np.minimum(least + 1, most), upper=upper + 1)
    yield program.replace(row_lower=-np.inf)
    yield program.replace(row_upper=np.where(np.isfinite(least), np.inf, most))
    yield program.replace(row_lower=np.where(np.isfinite(most), most - 2, least))
    yield program.replace(lower=lower - 1, upper=np.where(chosen & np.isfinite(lower), lower, upper))


def _rows(program: IntegerProgram, seed: int) -> Tensor:
    """Draw rows that push against bounds, that push a row of the program to either side, and one with masks."""
    rows = generic_rows(program, 4, seed=seed)
    if len(program.row_upper):
        row = torch.as_tensor(program.matrix.toarray()[seed % len(program.row_upper)])
        rows[2:] = torch.stack((row, -row)) + 0.01 * rows[2:]
    return torch.cat((rows, masked_rows(program, 3, seed=seed)[2:]))


def _answers(solver: Solver, theta: Tensor, problems: list[IntegerProgram] | None = None) -> Solutions:
    try:
        return solver.solve(theta, problems=problems)
    except RowsError as error:
        if error.solutions is None:
            raise
        return error.solutions


def _require_equal(case: Case, theta: Tensor, found: Solutions, alone: list[Solutions]) -> None:
    z, status, objective = (torch.cat([getattr(each, name) for each in alone]) for name in ("z", "status", "objective"))
    ended = [ending for each in alone for ending in endings(each)]
    message = "beside rows of other bounds and sides, the status is {}, alone {}"
    case.require_rows(found.status == status, theta, found.z, message, endings(found), ended)
    answered = (status == Status.OPTIMAL) | (status == Status.FEASIBLE)
    scale = theta.masked_fill(theta.isneginf(), 0).abs().flatten(1).amax(1)
    message = "beside rows of other bounds and sides, the answer is worth {}, alone {}"
    fine = ~answered | ((found.objective - objective).abs() <= _TOLERANCE * (1 + z.abs().flatten(1).amax(1)) * scale)
    case.require_rows(fine, theta, found.z, message, found.objective, objective)
