"""Small problems of every class: the corners that solvers trip over, each with few enough states to enumerate."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import (
    Arborescence,
    Assignment,
    AsymmetricTravelingSalesman,
    GridShortestPath,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    Ranking,
    ShortestPath,
    SpanningTree,
    TravelingSalesman,
)
from mapgrad.problems._features import FEATURES
from mapgrad.solvers import SolverSpec, lower, resolve

if TYPE_CHECKING:
    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverLike


def example_problems(solver: str | SolverSpec) -> list[Problem]:
    """Return small problems of mapgrad's own classes that a solver takes, itself or as integer programs.

    A solver of other classes brings problems of its own: none of these will do.

    Args:
        solver: A solver's or a plugin's name, or what a plugin says of a solver.

    Raises:
        UnknownSolverError: No plugin offers this name.
        PluginError: The solver's plugin is broken or blocked.
        MissingDependencyError: The solver needs a package that isn't installed.
    """
    return [problem for problem in _examples() if _takes(solver, problem)]


def other_problems(solver: SolverLike, problem: Problem) -> list[Problem]:
    """Return two problems that a solver may meet beside this one: copies of it, unless the solver has a name."""
    examples = example_problems(solver) if isinstance(solver, str) else []
    return ([each for each in examples if each != problem] + [problem] * 2)[:2]


def empty_programs(program: IntegerProgram) -> list[IntegerProgram]:
    """Return programs without a solution: two rows more that contradict each other, and one that asks for a fraction.

    Args:
        program: A program with every variable priced, one of them integer.
    """
    column = int(program.integrality.argmax())
    level = np.nan_to_num(program.lower[column], neginf=0.0)
    row = np.zeros((1, program.num_vars))
    row[0, column] = 1.0
    return [
        _with_rows(program, [row, row], [-np.inf, level + 1], [level, np.inf]),
        _with_rows(program, [2 * row], [2 * level + 1], [2 * level + 1]),
    ]


def _with_rows(program: IntegerProgram, rows: list[Any], lower: list[float], upper: list[float]) -> IntegerProgram:
    names = ("lower", "upper", "integrality", *FEATURES)
    return IntegerProgram.from_rows(
        np.vstack((program.matrix.toarray(), *rows)),
        np.append(program.row_lower, lower),
        np.append(program.row_upper, upper),
        **{name: getattr(program, name) for name in names},
    )


def _takes(solver: str | SolverSpec, problem: Problem) -> bool:
    if isinstance(solver, str):
        try:
            resolve(solver, problem)
        except UnsupportedProblemError:
            return False
        return True
    if not isinstance(problem, solver.accepts) and IntegerProgram not in solver.accepts:
        return False
    try:
        native = lower(problem, solver.accepts, solver.native).native
    except UnsupportedProblemError:
        return False
    return solver.supports is None or solver.supports(native) is None


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
        Matching(5, [*square, (0, 1), (3, 4)], cardinality="maximum"),
        SpanningTree(4, [*square, (0, 1), (2, 1), (3, 3)]),
        SpanningTree(1, [(0, 0)]),
        Arborescence(4, [*square, (1, 0), (0, 1), (3, 2), (1, 1)], 1),
        Arborescence(1, [(0, 0)], 0),
        Knapsack([[4, 3, 2, 2, 5]], [7]),
        Knapsack([[3, 1, 2, 2], [0.5, 2, 0, 1.5]], [5, 3]),
        TravelingSalesman(3),
        TravelingSalesman(5),
        AsymmetricTravelingSalesman(2),
        AsymmetricTravelingSalesman(4),
        *_programs(),
    )


def _programs() -> tuple[IntegerProgram, ...]:
    return (
        # x + 2y + 3z ≤ 7, x + y ≥ 1, general integers, some below zero
        IntegerProgram(A_ub=[[1, 2, 3], [-1, -1, 0]], b_ub=[7, -1], lower=[-2, -1, 0], upper=[3, 4, 2]),
        # an equation and fractional coefficients, as a matrix of variables
        IntegerProgram(
            A_ub=[[0.5, 1.25, 0, 2.5, 0.75, 0]], b_ub=[3.25], A_eq=[[1, 0, 1, 0, 1, 1]], b_eq=[2], shape=(2, 3)
        ),
        # an equation that few points meet, and a variable that is free within wide bounds
        IntegerProgram(A_eq=[[6, 10, -15]], b_eq=[1], lower=[-5, 0, -9], upper=[10, 6, 7]),
        # bounds alone, with a variable that has one value only
        IntegerProgram(lower=[-1.5, 0, 2, -3], upper=[1, 1.5, 2, -2]),
        # θ prices the customers' choice between two plants, in an order of its own; to open a plant costs
        IntegerProgram(
            A_ub=[[1, 0, 0, 1, 0, 0, -3, 0], [0, 1, 0, 0, 1, 1, 0, -3]],
            b_ub=[0, 0],
            A_eq=[[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0, 0]],
            b_eq=[1, 1, 1],
            decision=[1, 0, 4, 3, 5, 2],
            fixed=[-0.5, -0.75],
            shape=(3, 2),
        ),
        # θ prices what is packed; a continuous variable, at 1.5 a unit, lifts the capacity of 4, and another one, at
        # 0.25, is how far the weights to the left and to the right are apart
        IntegerProgram(
            A_ub=[[3, 2, 2, 1, -1, 0], [3, -2, -2, 1, 0, -1], [-3, 2, 2, -1, 0, -1]],
            b_ub=[4, 0, 0],
            upper=[1, 1, 1, 1, 2.5, np.inf],
            integrality=[1, 1, 1, 1, 0, 0],
            decision=[0, 1, 2, 3],
            fixed=[-1.5, -0.25],
        ),
        # general integers that θ doesn't price, at no cost: each x is even, and their sum a multiple of 3
        IntegerProgram(
            A_eq=[[1, 0, -2, 0, 0], [0, 1, 0, -2, 0], [1, 1, 0, 0, -3]],
            b_eq=[0, 0, 0],
            lower=[-4, -4, -9, -9, -9],
            upper=[6, 6, 9, 9, 9],
            decision=[1, 0],
        ),
        # rows of two sides; a is 0, 2 or 3; of b, c and d only neighbours aren't 0, of a and c only one; e says whether
        # c - b is at least 1 or a + b at most 2
        IntegerProgram.from_rows(
            [[1, 1, -1, 0, 0], [0, 1, 2, 1, 1]],
            [-1, 1],
            [4, np.inf],
            lower=[2, -1, 0, 0, 0],
            upper=[3, 2, 2, 2, 1],
            semicontinuous=[1, 0, 0, 0, 0],
            sos=[(2, [1, 2, 3], [1, 2, 3]), (1, [0, 2], [1, 2])],
            indicators=[(4, 1, [0, -1, 1, 0, 0], 1, np.inf), (4, 0, [1, 1, 0, 0, 0], -np.inf, 2)],
        ),
        # θ prices the units of two orders; a machine that runs does so for 1.5 to 4 hours, at 0.5 each, and may be idle
        IntegerProgram.from_rows(
            [[1, 2, -1]],
            [-2.5],
            [0],
            lower=[0, 0, 1.5],
            upper=[2, 2, 4],
            integrality=[1, 1, 0],
            decision=[0, 1],
            fixed=[-0.5],
            semicontinuous=[0, 0, 1],
        ),
    )
