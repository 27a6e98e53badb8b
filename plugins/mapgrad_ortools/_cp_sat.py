"""Integer programs and native constraint models by CP-SAT."""

from __future__ import annotations

import math
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from ortools.sat.python import cp_model

import mapgrad
from mapgrad_ortools._cp_problem import CpModelProblem
from mapgrad_ortools._integers import IntegerForm, IntegerObjective, integer_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SMALL: Final = 150  # variables, up to which presolving takes longer than it saves
_STATUSES: Final = {
    cp_model.OPTIMAL: mapgrad.Status.OPTIMAL,
    cp_model.FEASIBLE: mapgrad.Status.TIME_LIMIT,  # the clock or `CpSat.stop` ended the search half-way
    cp_model.UNKNOWN: mapgrad.Status.TIME_LIMIT,
    cp_model.INFEASIBLE: mapgrad.Status.INFEASIBLE,
    cp_model.MODEL_INVALID: mapgrad.Status.ERROR,
}


class _State(NamedTuple):
    model: cp_model.CpModel
    solver: cp_model.CpSolver
    columns: NDArray[np.int64]
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    stopped: Event


class CpSat(mapgrad.InstanceSolver[mapgrad.IntegerProgram | CpModelProblem, _State]):
    """CP-SAT on one thread, with a fixed seed and θ in integers.

    θ is scaled by the largest power of two that its 64-bit sums allow. What rounding to integers may have cost is part
    of the answer's bound, and an answer for which it is more than 1e-9 of max |θ| is FEASIBLE, not OPTIMAL: that takes
    θ of more than float32's precision and variables with thousands of values.

    The model is built once a worker and only its objective and the domains of forbidden variables change; no row leaves
    anything behind.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True)

    def init(self) -> _State:
        """Build the model."""
        if isinstance(self.problem, CpModelProblem):
            model, columns = self.problem.to_cp_model(), self.problem.columns
            lower, upper = self.problem.integer_bounds
        else:
            form = integer_form(self.problem)
            if isinstance(form, str):
                raise mapgrad.UnsupportedProblemError(f"CP-SAT can't solve {self.problem!r}: {form}")
            model, columns = _model_of(form), np.arange(len(form.lower))
            lower, upper = form.lower, form.upper
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers = 1
        parameters.random_seed = 0
        parameters.linearization_level = 2  # at 1, covering programs of 160 sets took seconds and not milliseconds
        parameters.catch_sigint_signal = False  # its handler would swallow Ctrl-C, and leaves Python's uninstalled
        if len(model.proto.variables) <= _SMALL:
            parameters.cp_model_presolve = False
            parameters.symmetry_level = 0
            parameters.cp_model_probing_level = 0
        return _State(model, solver, columns, lower, upper, Event())

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return values of all priced variables, [n]."""
        state.stopped.clear()
        objective = IntegerObjective.of(theta, state.lower, state.upper)
        priced = np.flatnonzero(objective.coefficients)
        proto = state.model.proto
        state.model.clear_objective()
        if len(priced):
            proto.objective.vars.extend(state.columns[priced].tolist())
            proto.objective.coeffs.extend((-objective.coefficients[priced]).tolist())
        if request.reuse and request.start is not None:
            known = np.flatnonzero(np.isfinite(request.start))
            state.model.clear_hints()
            proto.solution_hint.vars.extend(state.columns[known].tolist())
            proto.solution_hint.values.extend(np.rint(request.start[known]).astype(np.int64).tolist())
        state.solver.parameters.max_time_in_seconds = math.inf if request.seconds is None else max(request.seconds, 0)
        barred = np.zeros(0, dtype=np.int64) if request.forbidden is None else state.columns[request.forbidden]
        domains = [_replace_domain(proto, column, (0, 0)) for column in barred.tolist()]
        code = cp_model.UNKNOWN if state.stopped.is_set() else state.solver.solve(state.model)
        for column, domain in zip(barred.tolist(), domains, strict=True):
            _replace_domain(proto, column, domain)
        if code == cp_model.MODEL_INVALID:
            raise ValueError(f"CP-SAT refuses the model: {state.model.validate()}")
        if code not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return mapgrad.Solution(None, _STATUSES[code])
        response: Any = state.solver.response_proto
        z = np.array(response.solution, dtype=np.float64)[state.columns]
        proved = -response.inner_objective_lower_bound if len(priced) else 0
        return objective.solution(theta, z, _STATUSES[code], proved=proved)

    def stop(self, state: _State) -> None:
        """End the search that runs, with the best solution found so far."""
        state.stopped.set()
        state.solver.stop_search()


def _replace_domain(proto: Any, column: int, domain: Sequence[int]) -> list[int]:
    """Give a variable another domain, and return the old one."""
    held = proto.variables[column].domain
    old = list(held)
    held.clear()
    held.extend(domain)
    return old


def _model_of(form: IntegerForm) -> cp_model.CpModel:
    model = cp_model.CpModel()
    for lower, upper in zip(form.lower.tolist(), form.upper.tolist(), strict=True):
        model.new_int_var(lower, upper, "")
    for row in form.rows:
        constraint = model.proto.constraints.add()
        if row.literal is not None:
            constraint.enforcement_literal.append(row.literal)
        if row.least > row.most:
            constraint.bool_or.literals.clear()  # never true
            continue
        linear = constraint.linear
        linear.vars.extend(row.columns)
        linear.coeffs.extend(row.coefficients)
        linear.domain.extend((row.least, row.most))
    return model
