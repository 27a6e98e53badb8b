"""Who solves: the contract for plugin authors, the hook, the registry and its look-ups."""

from mapgrad.solvers._contract import (
    BatchSolver,
    InstanceSolver,
    MAPSolver,
    Solution,
    Solutions,
    SolverSpec,
    Status,
    Traits,
)
from mapgrad.solvers._hookspecs import hookimpl
from mapgrad.solvers._listing import SolverInfo, list_solvers
from mapgrad.solvers._lowering import Lowering, lower
from mapgrad.solvers._registry import register, unregister
from mapgrad.solvers._resolve import Recipe, SolverLike, resolve

__all__ = [
    "BatchSolver",
    "InstanceSolver",
    "Lowering",
    "MAPSolver",
    "Recipe",
    "Solution",
    "Solutions",
    "SolverInfo",
    "SolverLike",
    "SolverSpec",
    "Status",
    "Traits",
    "hookimpl",
    "list_solvers",
    "lower",
    "register",
    "resolve",
    "unregister",
]
