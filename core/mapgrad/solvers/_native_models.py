"""Models of other packages, told by their classes' names alone: what a user does with one."""

from __future__ import annotations

from typing import Final, NamedTuple


class _Kind(NamedTuple):
    """A class of models.

    Attributes:
        module: How the name of its module begins.
        name: Its own name.
        means: What makes a problem of such a model.
    """

    module: str
    name: str
    means: str


_BY_FILE: Final = '{} and mapgrad.IntegerProgram.from_mps("model.mps")'

_KINDS: Final = (
    _Kind("pulp", "LpProblem", "mapgrad_pulp.from_model(model, variables)"),
    _Kind("ortools.sat", "CpModel", "mapgrad_ortools.from_cp_model(model, variables)"),
    _Kind("ortools.math_opt", "Model", "mapgrad_ortools.from_mathopt(model, variables)"),
    _Kind("highspy", "Highs", _BY_FILE.format('model.writeModel("model.mps")')),
    _Kind("gurobipy", "Model", _BY_FILE.format('model.write("model.mps")')),
    _Kind("pyscipopt", "Model", _BY_FILE.format('model.writeProblem("model.mps")')),
    _Kind("pyomo", "BlockData", _BY_FILE.format('model.write("model.mps")')),
)


def advice_on(value: object) -> str:
    """Return how a problem is made of a model of another package, as the end of a message; empty for anything else."""
    for each in type(value).__mro__:
        for kind in _KINDS:
            if each.__name__ == kind.name and f"{each.__module__}.".startswith(f"{kind.module}."):
                return f", which is a model of {kind.module.partition('.')[0]}: make a problem of it with {kind.means}"
    return ""
