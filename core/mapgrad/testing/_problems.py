"""Small problems of every class: the corners that solvers trip over, each with few enough states to enumerate."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import (
    Assignment,
    GridShortestPath,
    KSubset,
    Matching,
    Ranking,
    ShortestPath,
    SpanningTree,
)
from mapgrad.solvers import SolverSpec, resolve

if TYPE_CHECKING:
    from mapgrad.problems import Problem


def example_problems(solver: str | SolverSpec) -> list[Problem]:
    """Return small problems of mapgrad's own classes that a solver takes.

    A solver of other classes brings problems of its own: none of these will do.

    Args:
        solver: A solver's or a plugin's name, or what a plugin says of a solver.

    Raises:
        UnknownSolverError: No plugin offers this name.
        PluginError: The solver's plugin is broken or blocked.
        MissingDependencyError: The solver needs a package that isn't installed.
    """
    return [problem for problem in _examples() if _takes(solver, problem)]


def _takes(solver: str | SolverSpec, problem: Problem) -> bool:
    if isinstance(solver, SolverSpec):
        supports = solver.supports
        return isinstance(problem, solver.accepts) and (supports is None or supports(problem) is None)
    try:
        resolve(solver, problem)
    except UnsupportedProblemError:
        return False
    return True


@cache
def _examples() -> tuple[Problem, ...]:
    acyclic = [(0, 1), (1, 3), (0, 2), (2, 3), (1, 2), (0, 3)]
    square = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
    return (
        KSubset(6, 1),
        KSubset(6, 3),
        KSubset(4, 4),
        KSubset(1, 1),
        Ranking(4),
        Ranking(1),
        GridShortestPath(3, 3),
        GridShortestPath(3, 4, start=(1, 2), goal=(2, 0), neighbors=4),
        GridShortestPath(1, 4, start=(0, 3), goal=(0, 1)),
        GridShortestPath(2, 3, start=(1, 1), goal=(1, 1)),
        ShortestPath(5, [*acyclic, (0, 1), (2, 4)], 0, 3),
        ShortestPath(4, [*acyclic, (0, 1), (3, 1), (2, 0), (2, 2)], 0, 3),
        ShortestPath(4, [*acyclic, (3, 2), (1, 1)], 3, 0, directed=False),
        ShortestPath(3, [(0, 1), (1, 2)], 1, 1),
        Assignment(3),
        Assignment(2, 4),
        Assignment(4, 2),
        Assignment(1),
        Matching(5, [*square, (0, 1), (3, 4)]),
        Matching(4, [*square, (1, 0)], perfect=True),
        SpanningTree(4, [*square, (0, 1), (2, 1), (3, 3)]),
        SpanningTree(1, [(0, 0)]),
    )
