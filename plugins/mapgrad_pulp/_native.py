"""PuLP's models as problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pulp

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWS_UNMENTIONED: Final = hasattr(pulp, "lpSum_vars")
"""Whether a model knows the variables that neither its constraints nor its objective mention, as of PuLP 4."""


def from_model(lp_problem: pulp.LpProblem, variables: object) -> mapgrad.IntegerProgram:
    """Return the program of a model whose variables θ prices: see `mapgrad_pulp.from_model`."""
    if not isinstance(lp_problem, pulp.LpProblem):
        raise TypeError(f"the model must be a pulp.LpProblem, got {type(lp_problem).__name__}")
    known = list(lp_problem.variables())
    names = {variable.name for variable in known}
    columns = {variable: column for column, variable in enumerate(known)}
    sets = _sets(lp_problem, known)
    for variable in (member for _, members in sets for member in members):
        if columns.setdefault(variable, len(known)) == len(known):
            known.append(variable)
            names.add(variable.name)

    def column_of(variable: object) -> int:
        if not isinstance(variable, pulp.LpVariable):
            hint = ", as expressions such as 1 - x hold" if isinstance(variable, int | float) else ""
            raise TypeError(f"θ prices variables only, neither expressions nor names: got {variable!r}{hint}")
        column = columns.get(variable)
        if column is None and not _KNOWS_UNMENTIONED and variable.name not in names:
            column = columns[variable] = len(columns)
            known.append(variable)
            names.add(variable.name)
        if column is None or not _is_same(known[column], variable):
            raise mapgrad.ProblemError(
                f"variable {variable.name} isn't in model {lp_problem.name!r}: give variables of this model"
            )
        return column

    decision, shape = mapgrad.columns_of(variables, column_of)
    utilities = np.zeros(len(columns))
    sign = 1.0 if lp_problem.sense == pulp.LpMaximize else -1.0
    for variable, coefficient in lp_problem.objective.items() if lp_problem.objective is not None else ():
        utilities[columns[variable]] = sign * coefficient
    return mapgrad.IntegerProgram.from_rows(
        *_constraints(lp_problem, columns),
        lower=[_bound(variable.lowBound, -np.inf) for variable in columns],
        upper=[_bound(variable.upBound, np.inf) for variable in columns],
        integrality=[variable.cat != pulp.LpContinuous for variable in columns],
        decision=decision,
        fixed=np.delete(utilities, decision),
        shape=shape,
        sos=[(kind, [columns[each] for each in members], list(members.values())) for kind, members in sets if members],
    )


def _sets(lp_problem: pulp.LpProblem, known: list[pulp.LpVariable]) -> list[tuple[int, dict[pulp.LpVariable, float]]]:
    """Return the special ordered sets of a model: types, and members with their weights."""
    model: Any = lp_problem  # PuLP 3 and 4 differ here
    if hasattr(model, "toRustModel"):
        sets = model.toRustModel().sos_export()
        return [(kind, {known[number]: weight for number, weight in members}) for kind, _, members in sets]
    return [(kind, members) for kind, sets in ((1, model.sos1), (2, model.sos2)) for members in sets.values()]


def _is_same(known: pulp.LpVariable, given: pulp.LpVariable) -> bool:
    """Tell whether a variable that equals one of the model's is of the same model.

    PuLP 3 finds only the object itself. To PuLP 4, variables of the same number are equal, be it in different models;
    but it refuses to add those.
    """
    if known is given:
        return True
    try:
        pulp.lpSum_vars([known, given])  # pyright: ignore[reportAttributeAccessIssue] (PuLP 3 doesn't get here)
    except pulp.PulpError:
        return False
    return True


def _constraints(
    lp_problem: pulp.LpProblem, columns: Mapping[pulp.LpVariable, int]
) -> tuple[mapgrad.SparseRows, list[float], list[float]]:
    """Return the rows of a model with their lower and their upper sides."""
    constraints = list(lp_problem.constraints())
    entries = [
        (number, columns[variable], coefficient)
        for number, constraint in enumerate(constraints)
        for variable, coefficient in constraint.items()
    ]
    row, column, value = np.array(entries, dtype=np.float64).reshape(-1, 3).T
    shape = len(constraints), len(columns)
    sides = [(each.sense, -each.constant + 0.0) for each in constraints]
    return (
        mapgrad.SparseRows.from_entries(row.astype(int), column.astype(int), value, shape),
        [-np.inf if sense == pulp.LpConstraintLE else side for sense, side in sides],
        [np.inf if sense == pulp.LpConstraintGE else side for sense, side in sides],
    )


def _bound(value: float | None, none: float) -> float:
    return none if value is None else value
