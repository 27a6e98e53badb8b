"""Plugin ``pulp``: integer and linear programs by CBC and HiGHS through PuLP, and PuLP's models as problems."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import mapgrad

if TYPE_CHECKING:
    import pulp

__all__ = ["from_model", "mapgrad_solvers"]


def from_model(lp_problem: pulp.LpProblem, variables: object) -> mapgrad.IntegerProgram:
    """Return the set of a PuLP model, of which θ prices some variables.

    θ takes the place of what the model's objective says of these variables, and is a utility whatever the model's
    sense. What the objective says of the others stays, as utilities: negated where the model minimises. A constant of
    the objective plays no part.

    Args:
        lp_problem: A model of PuLP 3.3 or 4; not changed, and free to change afterwards.
        variables: Distinct variables of the model, in lists, tuples, arrays or dictionaries, nested in any regular
            shape: that is θ's. A dictionary counts as the list of its values, in its order. What neither a constraint
            nor the objective mentions is free within its bounds; PuLP 3 can't tell such a variable from another
            model's.

    Returns:
        A program for every solver that takes one. Its columns are the model's variables in the order of
        ``lp_problem.variables()``, then those that PuLP 3 leaves out there: of special ordered sets, and of
        `variables`. Its rows are the model's constraints, in their order.

    Raises:
        ProblemError: a variable isn't in the model or is given twice, the shape is irregular or empty, or a set
            of type 2 has equal weights.
        TypeError: the model is no `pulp.LpProblem`, or something among the variables is no `pulp.LpVariable`.
    """
    from mapgrad_pulp import _native  # PuLP takes a third of a second to import

    return _native.from_model(lp_problem, variables)


_SCRIPT: Final = """\
import cbcbox
import subprocess
subprocess.run([cbcbox.cbc_bin_path(), path, "-solve"])"""


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, accepts=(mapgrad.IntegerProgram,), install="pip install 'mapgrad[pulp]'")
    return [
        spec(
            name="cbc",
            factory="mapgrad_pulp._cbc:Cbc",
            requires=("pulp", "cbcbox"),
            cost=_cbc_cost,
            script=_SCRIPT,
        ),
        spec(name="highs", factory="mapgrad_pulp._highs:HiGHS", requires=("pulp", "highspy"), cost=_highs_cost),
    ]


# Seconds a row: medians of processor time on one core of an AMD EPYC server, for programs that branch little. What
# PuLP does for each row costs more than what small programs take to solve.


def _cbc_cost(program: mapgrad.IntegerProgram) -> float:
    return 2e-2 + 5e-5 * program.num_vars + 5e-6 * len(program.matrix.data)


def _highs_cost(program: mapgrad.IntegerProgram) -> float:
    search = 5e-5 * program.num_vars if program.integrality.any() else 0
    return 2e-3 + search + 3e-6 * (program.num_vars + len(program.matrix.data))
