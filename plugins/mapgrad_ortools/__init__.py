"""Plugin ``ortools``: integer programs by OR-Tools' MIP engines and CP-SAT, and models of its own as problems.

Importing this module imports nothing of OR-Tools.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mapgrad
from mapgrad_ortools._cp_problem import CpModelProblem

if TYPE_CHECKING:
    from ortools.math_opt.python import mathopt
    from ortools.sat.python import cp_model

__all__ = ["CpModelProblem", "from_cp_model", "from_mathopt", "mapgrad_solvers"]

_KNAPSACK_SIZE: Final = 2.0**31  # items times capacity, beyond which too few bits are left for θ
_CHARACTERS_PER_ENTRY: Final = 30  # of a row, in the text of a model

_SCRIPT: Final = """\
from ortools.linear_solver.python import model_builder
model, engine = model_builder.Model(), model_builder.Solver("{}")
model.import_from_mps_file(path)
print(engine.solve(model), engine.objective_value)"""


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, requires=("ortools",), install="pip install 'mapgrad[ortools]'")
    return [
        spec(
            name="mip",
            factory="mapgrad_ortools._mip:Mip",
            accepts=(mapgrad.IntegerProgram,),
            cost=_mip_cost,
            settings=({"engine": "scip"}, {"engine": "cbc"}),
            script=_SCRIPT.format("scip"),
        ),
        spec(
            name="cp_sat",
            factory="mapgrad_ortools._cp_sat:CpSat",
            accepts=(mapgrad.IntegerProgram, CpModelProblem),
            supports=_cp_sat_refusal,
            cost=_cp_sat_cost,
            native=("indicators",),
            script=_SCRIPT.format("sat"),
        ),
        spec(
            name="knapsack",
            factory="mapgrad_ortools._knapsack:KnapsackSearch",
            accepts=(mapgrad.Knapsack,),
            supports=_knapsack_refusal,
            cost=_knapsack_cost,
        ),
    ]


def from_cp_model(model: cp_model.CpModel, variables: Any) -> mapgrad.Problem:
    """Return a CP-SAT model as a problem whose variables θ prices.

    z holds the values of `variables`. What the model's own objective says of the other variables stays: minimised or
    maximised, as the model has it. What it says of the priced ones gives way to θ, which is always maximised. The model
    isn't written to, and later changes to it don't reach the problem.

    Beside a variable x, θ may price its negation ``~x`` and terms such as ``2 * x + 3``: z then holds the term's value,
    and the objective's part of x gives way. A program gets a variable and an equation for each such term.

    Args:
        model: Any CP-SAT model: all-different, circuits, intervals and whatever else CP-SAT knows.
        variables: The variables and terms that θ prices, distinct: lists, tuples or numpy arrays of objects, nested
            evenly, whose shape is θ's; a pandas series; or a dictionary, whose values count in its own order, so that
            one of d variables makes θ's shape (d,).

    Returns:
        An `IntegerProgram`, which every MIP solver takes, if all constraints are linear: linear ones with constant
        bounds, also where one literal enforces them, clauses, implications, at most and exactly one. Its columns are
        the model's variables by ``index``, then those of terms. Otherwise a `CpModelProblem`, which only
        ``"ortools.cp_sat"`` takes, and whose solutions have no ``variables``.

    Raises:
        ProblemError: CP-SAT refuses the model, its objective has a domain, or `variables` isn't as described.
        TypeError: model is no CpModel, or something among `variables` is neither a variable nor such a term.
    """
    from mapgrad_ortools import _native

    return _native.from_cp_model(model, variables)


def from_mathopt(model: mathopt.Model, variables: Any) -> mapgrad.IntegerProgram:
    """Return a MathOpt model as an integer program whose variables θ prices.

    z holds the values of `variables`. What the model's own objective says of the other variables stays: minimised or
    maximised, as the model has it. What it says of the priced ones gives way to θ, which is always maximised. The model
    isn't written to, and later changes to it don't reach the problem.

    Args:
        model: A model of linear and indicator constraints, and a linear objective or none.
        variables: The variables that θ prices, as for `from_cp_model`.

    Returns:
        A program whose columns are the model's variables in the order of ``model.variables()``.

    Raises:
        UnsupportedProblemError: the model has other constraints, or an objective that isn't linear.
        ProblemError: `variables` isn't as described, bounds contradict each other, or an indicator isn't a variable of
            0 and 1.
        TypeError: model is no MathOpt model, or something among `variables` is no variable.
    """
    from mapgrad_ortools import _native

    return _native.from_mathopt(model, variables)


def _cp_sat_refusal(problem: mapgrad.IntegerProgram | CpModelProblem) -> str | None:
    from mapgrad_ortools import _integers

    if isinstance(problem, CpModelProblem):
        return _integers.objective_refusal(*problem.integer_bounds)
    form = _integers.integer_form(problem)
    return form if isinstance(form, str) else None


def _knapsack_refusal(problem: mapgrad.Knapsack) -> str | None:
    from mapgrad_ortools import _integers

    form = _integers.integer_form(problem.to_ilp())
    if isinstance(form, str):
        return form
    largest = max(most for _, most in form.sides)
    limit = _KNAPSACK_SIZE / len(form.lower)
    return None if largest < limit else f"its capacities in integers reach {largest:g}, more than {limit:g}"


# Seconds a row, fitted to medians on one core of an AMD EPYC server, on knapsacks, covers, packings, assignments with
# and without capacities, and paths, of 10 to 1,200 variables: the time of a branch-and-bound search can be foretold to
# an order of magnitude at best. CP-SAT is slow where rows are long.


def _mip_cost(program: mapgrad.IntegerProgram) -> float:
    size = len(program.matrix.data)
    return 4e-3 + 3e-5 * size if program.integrality.any() else 5e-5 + 3e-8 * size**1.6


def _cp_sat_cost(problem: mapgrad.IntegerProgram | CpModelProblem) -> float:
    if isinstance(problem, CpModelProblem):
        size = len(problem.model) / _CHARACTERS_PER_ENTRY
    else:
        size = len(problem.matrix.data)
        if problem.integrality.all() and (problem.lower == 0).all() and (problem.upper == 1).all():
            return 1e-3 + 1.2e-5 * size * (1 + size / (100 * max(len(problem.row_upper), 1)))
    return 5e-4 + 1.5e-5 * size**1.3


def _knapsack_cost(problem: mapgrad.Knapsack) -> float:
    constraints, items = problem.weights.shape
    if constraints == 1:
        return 2e-5 + 3e-6 * items
    return 2.5e-5 * constraints * 2.0 ** min((items - 16) / 4.5, 60)
