"""Integer programs and native constraint models by CP-SAT."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ortools.sat.python import cp_model

import mapgrad
from mapgrad_ortools._cp_problem import CpModelProblem
from mapgrad_ortools._integers import IntegerForm, IntegerObjective, Row, integer_form, objective_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NEVER: Final = 2**61  # beyond every row's reach
_SMALL: Final = 150  # variables, up to which presolving takes longer than it saves
_STATUSES: Final = {
    cp_model.OPTIMAL: mapgrad.Status.OPTIMAL,
    cp_model.FEASIBLE: mapgrad.Status.TIME_LIMIT,  # the clock or `CpSat.stop` ended the search half-way
    cp_model.UNKNOWN: mapgrad.Status.TIME_LIMIT,
    cp_model.INFEASIBLE: mapgrad.Status.INFEASIBLE,
    cp_model.MODEL_INVALID: mapgrad.Status.ERROR,
}


@dataclass(eq=False)
class _State:
    """A model, the bounds of the variables that θ prices, and whose bounds and sides it holds: None for the problem's.

    Attributes:
        rows: The program's rows in integers; none for a native problem.
    """

    model: cp_model.CpModel
    columns: NDArray[np.int64]
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    rows: list[Row]
    limits: mapgrad.Limits | None = None
    solver: cp_model.CpSolver = field(default_factory=cp_model.CpSolver)
    stopped: Event = field(default_factory=Event)


class CpSat(mapgrad.InstanceSolver[mapgrad.IntegerProgram | CpModelProblem, _State]):
    """CP-SAT on one thread, with a fixed seed and θ in integers.

    θ is scaled by the largest power of two that its 64-bit sums allow. What rounding to integers may have cost is part
    of the answer's bound, and an answer for which it is more than 1e-9 of max |θ| is FEASIBLE, not OPTIMAL: that takes
    θ of more than float32's precision and variables with thousands of values.

    The model is built once a worker and only its objective, the domains of forbidden variables and, where a row has its
    own, bounds and sides change; no row leaves anything behind.
    """

    traits = mapgrad.Traits(releases_gil=True, masks=True, limits=True)

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        """Tell whether another program can be written in integers, too."""
        assert isinstance(self.problem, mapgrad.IntegerProgram)
        bounds, others = (np.abs((program.lower, program.upper)) for program in (self.problem, other))
        if np.isfinite(others).all() and (others <= bounds).all() and objective_refusal(*others) is None:
            return True
        return not isinstance(integer_form(other), str)

    def init(self) -> _State:
        """Build the model."""
        if isinstance(self.problem, CpModelProblem):
            model, columns = self.problem.to_cp_model(), self.problem.columns
            state = _State(model, columns, *self.problem.integer_bounds, [])
        else:
            form = _form(self.problem)
            model, columns = _model_of(form), np.arange(len(form.lower))
            state = _State(model, columns, form.lower, form.upper, form.rows)
        parameters = state.solver.parameters
        parameters.num_workers = 1
        parameters.random_seed = 0
        parameters.linearization_level = 2  # at 1, covering programs of 160 sets took seconds and not milliseconds
        parameters.catch_sigint_signal = False  # its handler would swallow Ctrl-C, and leaves Python's uninstalled
        if len(model.proto.variables) <= _SMALL:
            parameters.cp_model_presolve = False
            parameters.symmetry_level = 0
            parameters.cp_model_probing_level = 0
        return state

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return values of all priced variables, [n]."""
        state.stopped.clear()
        if request.limits is not None or state.limits is not None:
            self._hold(state, request.limits)
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
        domains = [_replace_domain(proto.variables[column], (0, 0)) for column in barred.tolist()]
        code = cp_model.UNKNOWN if state.stopped.is_set() else state.solver.solve(state.model)
        for column, domain in zip(barred.tolist(), domains, strict=True):
            _replace_domain(proto.variables[column], domain)
        if code == cp_model.MODEL_INVALID:
            raise ValueError(f"CP-SAT refuses the model: {state.model.validate()}")
        if code not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return mapgrad.Solution(None, _STATUSES[code])
        response: Any = state.solver.response_proto
        z = np.array(response.solution, dtype=np.float64)[state.columns]
        proved = -response.inner_objective_lower_bound if len(priced) else 0
        return objective.solution(theta, z, _STATUSES[code], proved=proved)

    def _hold(self, state: _State, limits: mapgrad.Limits | None) -> None:
        """Bring bounds and sides to those of a row, or back to the program's."""
        program = self.problem
        assert isinstance(program, mapgrad.IntegerProgram)
        form = _form(program if limits is None else program.replace(**limits._asdict()), state.rows)
        proto = state.model.proto
        for variable, *ends in zip(proto.variables, form.lower.tolist(), form.upper.tolist(), strict=True):
            _replace_domain(variable, ends)
        for constraint, sides in zip(proto.constraints, form.sides, strict=True):
            _replace_domain(constraint.linear, _domain(sides))
        state.lower, state.upper, state.limits = form.lower, form.upper, limits

    def stop(self, state: _State) -> None:
        """End the search that runs, with the best solution found so far."""
        state.stopped.set()
        state.solver.stop_search()


def _replace_domain(holder: Any, domain: Sequence[int]) -> list[int]:
    """Give a variable or a row another domain, and return the old one."""
    old = list(holder.domain)
    if old != [*domain]:
        holder.domain.clear()
        holder.domain.extend(domain)
    return old


def _form(program: mapgrad.IntegerProgram, rows: list[Row] | None = None) -> IntegerForm:
    form = integer_form(program, rows)
    if isinstance(form, str):
        raise mapgrad.UnsupportedProblemError(f"CP-SAT can't solve {program!r}: {form}")
    return form


def _model_of(form: IntegerForm) -> cp_model.CpModel:
    model = cp_model.CpModel()
    for lower, upper in zip(form.lower.tolist(), form.upper.tolist(), strict=True):
        model.new_int_var(lower, upper, "")
    for row, sides in zip(form.rows, form.sides, strict=True):
        constraint = model.proto.constraints.add()
        if row.literal is not None:
            constraint.enforcement_literal.append(row.literal)
        constraint.linear.vars.extend(row.columns.tolist())
        constraint.linear.coeffs.extend(row.integers)
        constraint.linear.domain.extend(_domain(sides))
    return model


def _domain(sides: tuple[int, int]) -> tuple[int, int]:
    """Return what CP-SAT takes for the sides of a row: a number out of its reach where nothing lies between them."""
    return sides if sides[0] <= sides[1] else (_NEVER, _NEVER)
