"""From models that people already have to problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

import mapgrad
from mapgrad_ortools._cp_models import constraints_text
from mapgrad_ortools._cp_problem import CpModelProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_EXACT: Final = 2**53  # integers up to which every one is a float64
_UNBOUNDED: Final = 2**62  # what CP-SAT writes for a row's missing bound lies beyond


class _Rows(NamedTuple):
    """Rows lower ≤ Σ values · x[columns] ≤ upper, entry by entry."""

    rows: Sequence[int]
    columns: Sequence[int]
    values: Sequence[float]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def from_cp_model(model: cp_model.CpModel, variables: Any) -> mapgrad.Problem:
    """Return a CP-SAT model as a problem; `mapgrad_ortools.from_cp_model` documents it."""
    if not isinstance(model, cp_model.CpModel):
        raise TypeError(f"model must be an ortools.sat.python.cp_model.CpModel, got {model!r}")

    terms = _Terms(model)
    columns, shape = mapgrad.columns_of(variables, terms.column_of)
    extended = terms.model
    text = constraints_text(extended)
    utilities = _utilities(extended)
    utilities[terms.priced] = 0.0
    program = _linear_program(extended, columns, shape, utilities)
    if program is not None:
        return program
    others = np.flatnonzero(utilities)
    return CpModelProblem(text, columns, shape, others, utilities[others])


class _Terms:
    """What θ prices of a model: its variables, and terms a · x + b, for which a copy of the model gets variables.

    Attributes:
        model: The model, or its copy.
        priced: Indices of the variables that are priced, be it within a term.
    """

    def __init__(self, model: cp_model.CpModel) -> None:
        self._original = model
        self._columns: dict[tuple[int, int, int], int] = {}
        self.model = model
        self.priced: list[int] = []

    def column_of(self, term: object) -> int:
        """Return the index of the variable that stands for a term, in `model`."""
        variable, coefficient, offset = _affine(term)
        if variable.model_proto is not self._original.proto:
            raise mapgrad.ProblemError(f"{term!r} is a variable of another model")
        self.priced.append(variable.index)
        if (coefficient, offset) == (1, 0):
            return variable.index
        key = variable.index, coefficient, offset
        if key in self._columns:
            raise mapgrad.ProblemError(f"variables must be distinct, but {term!r} is there 2 times")
        if self.model is self._original:
            self.model = self._original.clone()
        domain = self._original.proto.variables[variable.index].domain
        ends = [coefficient * domain[0] + offset, coefficient * domain[len(domain) - 1] + offset]
        if max(map(abs, ends)) > _UNBOUNDED:
            raise mapgrad.ProblemError(f"{term!r} reaches {max(ends, key=abs)}, beyond CP-SAT's 64-bit integers")
        value = self.model.new_int_var(min(ends), max(ends), "")
        equation = self.model.proto.constraints.add().linear
        equation.vars.extend((value.index, variable.index))
        equation.coeffs.extend((1, -coefficient))
        equation.domain.extend((offset, offset))
        self._columns[key] = value.index
        return value.index


def _affine(term: object) -> tuple[cp_model.IntVar, int, int]:
    """Return x, a and b of a term a · x + b.

    Raises:
        TypeError: it isn't one.
    """
    if isinstance(term, cp_model.IntVar):
        return term, 1, 0
    if isinstance(term, cp_model.LinearExpr) and term.is_integer():
        flat = cp_model.FlatIntExpr(term)
        if len(flat.vars) == 1:
            return flat.vars[0], flat.coeffs[0], flat.offset
    raise TypeError(
        f"θ prices variables, their negations and terms such as 2 * x + 3, of one variable and integers: got {term!r}"
    )


def _utilities(model: cp_model.CpModel) -> NDArray[np.float64]:
    """Return what a model's own objective says of its variables, as utilities [num_vars]."""
    proto = model.proto
    utilities = np.zeros(len(proto.variables))
    if proto.has_floating_point_objective():
        objective, sign = proto.floating_point_objective, 1.0 if proto.floating_point_objective.maximize else -1.0
    elif proto.has_objective():
        objective, sign = proto.objective, -abs(proto.objective.scaling_factor or 1.0)
        if len(objective.domain):
            raise mapgrad.ProblemError("the objective has a domain, which is a constraint: add it to the model as one")
    else:
        return utilities  # to read an objective that isn't there would add an empty one to the model
    np.add.at(utilities, np.array(objective.vars, dtype=np.int64), sign * np.array(objective.coeffs, dtype=np.float64))
    return utilities


def _linear_program(
    model: cp_model.CpModel, columns: NDArray[np.int64], shape: tuple[int, ...], utilities: NDArray[np.float64]
) -> mapgrad.IntegerProgram | None:
    """Return a model as an integer program, or None if it isn't one."""
    proto = model.proto
    domains = [list(variable.domain) for variable in proto.variables]
    entries: list[tuple[int, int, int]] = []
    limits: list[tuple[float, float]] = []
    for constraint in proto.constraints:
        rows = _linear_rows(constraint)
        if rows is None:
            return None
        for terms, least, most in rows:
            entries.extend((len(limits), column, coefficient) for column, coefficient in terms)
            limits.append((least, most))
    values = [value for domain in domains for value in domain] + [value for _, _, value in entries]
    finite = [bound for row in limits for bound in row if np.isfinite(bound)]
    has_holes = any(len(domain) != 2 for domain in domains)
    if has_holes or len(proto.assumptions) or max(map(abs, [*values, *finite]), default=0) > _EXACT:
        return None
    lower, upper = np.array(limits, dtype=np.float64).reshape(-1, 2).T
    rows, places, coefficients = zip(*entries, strict=True) if entries else ((), (), ())
    box = np.array(domains, dtype=np.float64).reshape(-1, 2)
    return _program(
        _Rows(rows, places, coefficients, lower, upper),
        box[:, 0],
        box[:, 1],
        np.ones(len(box), dtype=np.bool_),
        columns,
        shape,
        utilities,
    )


def _linear_rows(constraint: Any) -> list[tuple[list[tuple[int, int]], float, float]] | None:
    """Return a constraint as rows (terms, least, most) with terms (column, coefficient), or None if it isn't linear."""
    enforcing = list(constraint.enforcement_literal)
    if constraint.has_linear() and not enforcing and len(constraint.linear.domain) == 2:
        linear = constraint.linear
        least, most = linear.domain
        return [
            (
                list(zip(linear.vars, linear.coeffs, strict=True)),
                -np.inf if least <= -_UNBOUNDED else least,
                np.inf if most >= _UNBOUNDED else most,
            )
        ]
    if constraint.has_bool_or():
        return [_count([*constraint.bool_or.literals, *(-literal - 1 for literal in enforcing)], 1, np.inf)]
    if constraint.has_bool_and():
        negated = [-literal - 1 for literal in enforcing]
        return [_count([literal, *negated], 1, np.inf) for literal in constraint.bool_and.literals]
    if constraint.has_at_most_one() and not enforcing:
        return [_count(constraint.at_most_one.literals, -np.inf, 1)]
    if constraint.has_exactly_one() and not enforcing:
        return [_count(constraint.exactly_one.literals, 1, 1)]
    return None


def _count(literals: Iterable[int], least: float, most: float) -> tuple[list[tuple[int, int]], float, float]:
    """Return a row that bounds how many literals are true; a negative one, -i - 1, is 1 - variable i."""
    listed = list(literals)
    negative = sum(literal < 0 for literal in listed)
    terms = [(literal, 1) if literal >= 0 else (-literal - 1, -1) for literal in listed]
    return terms, least - negative, most - negative


def from_mathopt(model: mathopt.Model, variables: Any) -> mapgrad.IntegerProgram:
    """Return a MathOpt model as a problem; `mapgrad_ortools.from_mathopt` documents it."""
    if not isinstance(model, mathopt.Model):
        raise TypeError(f"model must be an ortools.math_opt.python.mathopt.Model, got {model!r}")
    proto = model.export_model(remove_names=True)
    extras = [
        name.replace("_", " ")
        for name in (
            "auxiliary_objectives",
            "quadratic_constraints",
            "second_order_cone_constraints",
            "sos1_constraints",
            "sos2_constraints",
            "indicator_constraints",
        )
        if len(getattr(proto, name))
    ]
    if len(proto.objective.quadratic_coefficients.row_ids):
        extras.append("a quadratic objective")
    if extras:
        raise mapgrad.UnsupportedProblemError(
            f"the model has {', '.join(extras)}, which no integer program holds: take a model of linear constraints "
            "and one linear objective"
        )
    column_of_id = {number: column for column, number in enumerate(proto.variables.ids)}
    row_of_id = {number: row for row, number in enumerate(proto.linear_constraints.ids)}

    def column_of(variable: object) -> int:
        if not isinstance(variable, mathopt.Variable):
            raise TypeError(f"θ prices variables only, neither expressions nor constants: got {variable!r}")
        try:
            model.check_compatible(variable)
            return column_of_id[variable.id]
        except (ValueError, KeyError) as error:
            raise mapgrad.ProblemError(f"{variable!r} is no variable of this model") from error

    columns, shape = mapgrad.columns_of(variables, column_of)
    matrix, objective = proto.linear_constraint_matrix, proto.objective.linear_coefficients
    utilities = np.zeros(len(column_of_id))
    sign = 1.0 if proto.objective.maximize else -1.0
    utilities[[column_of_id[number] for number in objective.ids]] = sign * np.array(objective.values)
    return _program(
        _Rows(
            [row_of_id[number] for number in matrix.row_ids],
            [column_of_id[number] for number in matrix.column_ids],
            list(matrix.coefficients),
            np.array(proto.linear_constraints.lower_bounds, dtype=np.float64),
            np.array(proto.linear_constraints.upper_bounds, dtype=np.float64),
        ),
        np.array(proto.variables.lower_bounds),
        np.array(proto.variables.upper_bounds),
        np.array(proto.variables.integers, dtype=np.bool_),
        columns,
        shape,
        utilities,
    )


def _program(
    rows: _Rows,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    integrality: NDArray[np.bool_],
    columns: NDArray[np.int64],
    shape: tuple[int, ...],
    utilities: NDArray[np.float64],
) -> mapgrad.IntegerProgram:
    """Return the program of these rows and columns: θ prices `columns`, the other variables keep their utilities."""
    matrix = mapgrad.SparseRows.from_entries(rows.rows, rows.columns, rows.values, (len(rows.lower), len(lower)))
    equal = rows.lower == rows.upper
    below, above = ~equal & (rows.upper < np.inf), ~equal & (rows.lower > -np.inf)
    return mapgrad.IntegerProgram(
        A_ub=matrix.select(above).negative().below(matrix.select(below)),
        b_ub=np.concatenate((rows.upper[below], -rows.lower[above])),
        A_eq=matrix.select(equal),
        b_eq=rows.upper[equal],
        lower=lower,
        upper=upper,
        integrality=integrality,
        decision=columns,
        fixed=np.delete(utilities, columns),
        shape=shape,
    )
