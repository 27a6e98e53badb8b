"""What CP-SAT's own models are asked: their text, their domains, their solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ortools.sat.python import cp_model

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_SOLUTION_STEPS: Final = 100  # a solution found takes as long as some hundred steps elsewhere
_DETERMINISTIC_TIME: Final = 10.0  # about as many seconds, but the same work on every machine


def constraints_text(model: cp_model.CpModel) -> str:
    """Return a model's variables and constraints as text, without names, hints, strategies and objective.

    Raises:
        ProblemError: CP-SAT refuses the model.
    """
    bare = model.clone()
    bare.clear_objective()
    bare.clear_hints()
    bare.remove_all_names()
    bare.proto.search_strategy.clear()
    bare.proto.clear_symmetry()
    if len(bare.proto.assumptions):
        bare.proto.constraints.add().bool_and.literals.extend(list(bare.proto.assumptions))
        bare.clear_assumptions()
    _validate(bare)
    return str(bare.proto)


def parsed(text: str) -> cp_model.CpModel:
    """Return the model that a text describes, without an objective: with one, not all solutions are enumerated.

    Raises:
        ProblemError: it describes none, or CP-SAT refuses the model.
    """
    model = cp_model.CpModel()
    if not model.proto.parse_text_format(text):
        raise mapgrad.ProblemError("model must be a CpModelProto in the text format of protocol buffers")
    _validate(model)
    model.clear_objective()
    return model


def _validate(model: cp_model.CpModel) -> None:
    complaint = model.validate()
    if complaint:
        raise mapgrad.ProblemError(f"CP-SAT refuses the model: {complaint}")


def domains(model: cp_model.CpModel) -> NDArray[np.int64]:
    """Return the smallest and the largest value of each variable, int64 [num_vars, 2]."""
    ends = [(variable.domain[0], variable.domain[len(variable.domain) - 1]) for variable in model.proto.variables]
    return np.array(ends, dtype=np.int64).reshape(-1, 2)


def solutions(
    model: cp_model.CpModel, columns: NDArray[np.int64], budget: Any, name: str
) -> Iterable[NDArray[np.float64]]:
    """Return the distinct values of some variables in all solutions.

    Raises:
        ProblemError: there are too many, or it takes too long to find them.
    """
    collector = _Collector(columns, budget)
    solver = _solver()
    solver.parameters.enumerate_all_solutions = True
    status = solver.solve(model, collector)
    if collector.error is not None:
        raise collector.error
    if status not in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
        raise mapgrad.ProblemError(f"{name} takes too long to enumerate: make it smaller")
    return collector.found.values()


class _Collector(cp_model.CpSolverSolutionCallback):
    def __init__(self, columns: NDArray[np.int64], budget: Any) -> None:
        super().__init__()
        self._columns = columns
        self._budget = budget
        self.found: dict[bytes, NDArray[np.float64]] = {}
        self.error: mapgrad.ProblemError | None = None

    def on_solution_callback(self) -> None:
        response: Any = self.response_proto
        values = np.array(response.solution, dtype=np.float64)[self._columns]
        self.found[values.tobytes()] = values
        try:
            self._budget.spend(_SOLUTION_STEPS)
        except mapgrad.ProblemError as error:  # it can't pass through CP-SAT
            self.error = error
            self.stop_search()


def completable(
    model: cp_model.CpModel, columns: NDArray[np.int64], rows: NDArray[np.int64], name: str
) -> NDArray[np.bool_]:
    """Tell which values of some variables, [N, d], the others can complete to a solution: bool [N].

    Raises:
        UndecidedError: it takes too long to know.
    """
    pins = []
    for column in columns.tolist():
        pin = model.proto.constraints.add().linear
        pin.vars.append(column)
        pin.coeffs.append(1)
        pin.domain.extend((0, 0))
        pins.append(pin)
    solver = _solver()
    answers = np.zeros(len(rows), dtype=np.bool_)
    for number, row in enumerate(rows.tolist()):
        for pin, value in zip(pins, row, strict=True):
            pin.domain[0] = pin.domain[1] = value
        status = solver.solve(model)
        if status == cp_model.UNKNOWN:
            raise mapgrad.UndecidedError(f"whether z is a state of {name} isn't known: CP-SAT takes too long to tell")
        answers[number] = status != cp_model.INFEASIBLE
    return answers


def _solver() -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = _DETERMINISTIC_TIME
    solver.parameters.catch_sigint_signal = False
    return solver
