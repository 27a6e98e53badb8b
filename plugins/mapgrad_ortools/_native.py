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
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_EXACT: Final = 2**53  # integers up to which every one is a float64
_UNBOUNDED: Final = 2**62  # what CP-SAT writes for a row's missing bound lies beyond


class _Row(NamedTuple):
    """least ≤ Σ coefficient · x[column] ≤ most; with a literal, only where that is true: −i − 1 is that x[i] is 0."""

    terms: list[tuple[int, float]]
    least: float
    most: float
    literal: int | None = None


def from_cp_model(model: cp_model.CpModel, variables: Any) -> mapgrad.Problem:
    """Return a CP-SAT model as a problem; `mapgrad_ortools.from_cp_model` documents it."""
    if not isinstance(model, cp_model.CpModel):
        raise TypeError(f"model must be an ortools.sat.python.cp_model.CpModel, got {type(model).__name__}")

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
    rows: list[_Row] = []
    for constraint in proto.constraints:
        found = _linear_rows(constraint)
        if found is None:
            return None
        rows += found
    numbers = [value for domain in domains for value in domain]
    numbers += [coefficient for row in rows for _, coefficient in row.terms]
    numbers += [side for row in rows for side in (row.least, row.most) if np.isfinite(side)]
    has_holes = any(len(domain) != 2 for domain in domains)
    if has_holes or len(proto.assumptions) or max(map(abs, numbers), default=0) > _EXACT:
        return None
    box = np.array(domains, dtype=np.float64).reshape(-1, 2)
    return _program(rows, box[:, 0], box[:, 1], np.ones(len(box), dtype=np.bool_), columns, shape, utilities)


def _linear_rows(constraint: Any) -> list[_Row] | None:
    """Return a constraint as rows, or None if it isn't linear, or holds only where several literals are true."""
    enforcing = list(constraint.enforcement_literal)
    if constraint.has_linear() and len(enforcing) < 2 and len(constraint.linear.domain) == 2:
        linear = constraint.linear
        least, most = linear.domain
        return [
            _Row(
                list(zip(linear.vars, linear.coeffs, strict=True)),
                -np.inf if least <= -_UNBOUNDED else least,
                np.inf if most >= _UNBOUNDED else most,
                *enforcing,
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


def _count(literals: Iterable[int], least: float, most: float) -> _Row:
    """Return a row that bounds how many literals are true; a negative one, -i - 1, is 1 - variable i."""
    listed = list(literals)
    negative = sum(literal < 0 for literal in listed)
    terms = [(literal, 1.0) if literal >= 0 else (-literal - 1, -1.0) for literal in listed]
    return _Row(terms, least - negative, most - negative)


def from_mathopt(model: mathopt.Model, variables: Any) -> mapgrad.IntegerProgram:
    """Return a MathOpt model as a problem; `mapgrad_ortools.from_mathopt` documents it."""
    if not isinstance(model, mathopt.Model):
        raise TypeError(f"model must be an ortools.math_opt.python.mathopt.Model, got {type(model).__name__}")
    proto = model.export_model(remove_names=True)
    extras = [
        name.replace("_", " ")
        for name in (
            "auxiliary_objectives",
            "quadratic_constraints",
            "second_order_cone_constraints",
            "sos1_constraints",
            "sos2_constraints",
        )
        if len(getattr(proto, name))
    ]
    if len(proto.objective.quadratic_coefficients.row_ids):
        extras.append("a quadratic objective")
    if extras:
        raise mapgrad.UnsupportedProblemError(
            f"the model has {', '.join(extras)}, which can't become part of an integer program: take a model of linear "
            "and indicator constraints and one linear objective"
        )
    column_of_id = {number: column for column, number in enumerate(proto.variables.ids)}

    def column_of(variable: object) -> int:
        if not isinstance(variable, mathopt.Variable):
            raise TypeError(f"θ prices variables only, neither expressions nor constants: got {variable!r}")
        try:
            model.check_compatible(variable)
            return column_of_id[variable.id]
        except (ValueError, KeyError) as error:
            raise mapgrad.ProblemError(f"{variable!r} is no variable of this model") from error

    columns, shape = mapgrad.columns_of(variables, column_of)
    rows, matrix, objective = proto.linear_constraints, proto.linear_constraint_matrix, proto.objective
    terms: dict[int, list[tuple[int, float]]] = {number: [] for number in rows.ids}
    for row, column, value in zip(matrix.row_ids, matrix.column_ids, matrix.coefficients, strict=True):
        terms[row].append((column_of_id[column], value))
    linear = map(_Row, terms.values(), rows.lower_bounds, rows.upper_bounds)
    utilities = np.zeros(len(column_of_id))
    priced = [column_of_id[number] for number in objective.linear_coefficients.ids]
    utilities[priced] = (1.0 if objective.maximize else -1.0) * np.array(objective.linear_coefficients.values)
    return _program(
        [*linear, *_indicator_rows(proto.indicator_constraints.values(), column_of_id)],
        np.array(proto.variables.lower_bounds),
        np.array(proto.variables.upper_bounds),
        np.array(proto.variables.integers, dtype=np.bool_),
        columns,
        shape,
        utilities,
    )


def _indicator_rows(constraints: Iterable[Any], column_of_id: Mapping[int, int]) -> Iterator[_Row]:
    for constraint in constraints:
        if constraint.HasField("indicator_id"):  # without, as once its variable is deleted, it says nothing
            column = column_of_id[constraint.indicator_id]
            columns = [column_of_id[number] for number in constraint.expression.ids]
            yield _Row(
                list(zip(columns, constraint.expression.values, strict=True)),
                constraint.lower_bound,
                constraint.upper_bound,
                -column - 1 if constraint.activate_on_zero else column,
            )


def _program(
    rows: Sequence[_Row],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    integrality: NDArray[np.bool_],
    columns: NDArray[np.int64],
    shape: tuple[int, ...],
    utilities: NDArray[np.float64],
) -> mapgrad.IntegerProgram:
    """Return the program of these rows and columns: θ prices `columns`, the other variables keep their utilities."""
    always = [row for row in rows if row.literal is None]
    return mapgrad.IntegerProgram.from_rows(
        _matrix(always, len(lower)),
        [row.least for row in always],
        [row.most for row in always],
        lower=lower,
        upper=upper,
        integrality=integrality,
        decision=columns,
        fixed=np.delete(utilities, columns),
        shape=shape,
        indicators=[
            (max(row.literal, -row.literal - 1), int(row.literal >= 0), _matrix([row], len(lower)), row.least, row.most)
            for row in rows
            if row.literal is not None
        ],
    )


def _matrix(rows: Sequence[_Row], size: int) -> mapgrad.SparseRows:
    entries = [(number, *term) for number, row in enumerate(rows) for term in row.terms]
    places, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    return mapgrad.SparseRows.from_entries(places, columns, values, (len(rows), size))
