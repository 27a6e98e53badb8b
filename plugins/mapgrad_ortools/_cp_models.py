"""What CP-SAT's own models are asked: their text, their domains, their solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ortools.sat.python import cp_model

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What enumeration spends, so that it ends within a second or so on an idle machine: a solution takes CP-SAT and the
# callback some 20 µs, a value read 0.5 µs, and a value of a large domain is the dearer the more were found before it.
_SOLUTION_STEPS: Final = 200
_VALUE_STEPS: Final = 5
_FOUND_PER_STEP: Final = 8
_TABLE_STEPS: Final = 5  # times the square of a table's rows: CP-SAT takes that long before it searches

# About as many seconds, but the same work on every machine.
_MEMBERSHIP_TIME: Final = 10.0
_ENUMERATION_TIME: Final = 2.5


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


def solutions(model: cp_model.CpModel, columns: NDArray[np.int64], budget: Any, name: str) -> NDArray[np.float64]:
    """Return the distinct values of some variables in all solutions: [N, d].

    Raises:
        ProblemError: there are too many, or it takes too long to find them.
    """
    for constraint in model.proto.constraints:
        if constraint.has_table() and not constraint.table.negated:
            width = len(constraint.table.exprs) + len(constraint.table.vars)
            budget.spend(_TABLE_STEPS * (len(constraint.table.values) // max(1, width)) ** 2)
    largest = max(int(upper) - int(lower) for lower, upper in domains(model)) + 1
    collector = _Collector(columns, budget, largest)
    solver = _solver(_ENUMERATION_TIME)
    solver.parameters.enumerate_all_solutions = True
    solver.parameters.linearization_level = 0  # no objective, so no bounds: tables take half the time
    solver.parameters.cp_model_probing_level = 0
    status = solver.solve(model, collector)
    if collector.error is not None:
        raise collector.error
    if status not in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
        raise mapgrad.ProblemError(f"{name} takes too long to enumerate: make it smaller")
    return np.array(list(collector.found), dtype=np.float64).reshape(-1, len(columns))


class _Collector(cp_model.CpSolverSolutionCallback):
    """Collects the values of some variables.

    Args:
        columns: Their indices.
        budget: What the search may spend.
        largest: The number of values in the largest domain of all variables.
    """

    def __init__(self, columns: NDArray[np.int64], budget: Any, largest: int) -> None:
        super().__init__()
        self._columns = columns.tolist()
        self._budget = budget
        self._steps = _SOLUTION_STEPS + _VALUE_STEPS * len(columns)
        self._largest = largest
        self._count = 0
        self.found: dict[tuple[int, ...], None] = {}
        self.error: mapgrad.ProblemError | None = None

    def on_solution_callback(self) -> None:
        value_of = self.SolutionIntegerValue  # of a variable's index, as `value` is of a variable
        self.found[tuple([value_of(column) for column in self._columns])] = None
        self._count += 1
        try:
            self._budget.spend(self._steps + min(self._count, self._largest) // _FOUND_PER_STEP)
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
    solver = _solver(_MEMBERSHIP_TIME)
    answers = np.zeros(len(rows), dtype=np.bool_)
    for number, row in enumerate(rows.tolist()):
        for pin, value in zip(pins, row, strict=True):
            pin.domain[0] = pin.domain[1] = value
        status = solver.solve(model)
        if status == cp_model.UNKNOWN:
            raise mapgrad.UndecidedError(f"whether z is a state of {name} isn't known: CP-SAT takes too long to tell")
        answers[number] = status != cp_model.INFEASIBLE
    return answers


def _solver(deterministic_time: float) -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = deterministic_time
    solver.parameters.catch_sigint_signal = False
    return solver
