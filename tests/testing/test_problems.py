"""The small problems that the kit brings."""

import pytest

import mapgrad
from mapgrad import testing

CLASSES = {
    mapgrad.Arborescence,
    mapgrad.Assignment,
    mapgrad.AsymmetricTravelingSalesman,
    mapgrad.GridShortestPath,
    mapgrad.IntegerProgram,
    mapgrad.KSubset,
    mapgrad.Knapsack,
    mapgrad.Matching,
    mapgrad.Ranking,
    mapgrad.ShortestPath,
    mapgrad.SpanningTree,
    mapgrad.TravelingSalesman,
}


def spec(*accepts, supports=None):
    return mapgrad.SolverSpec(name="any", factory=testing.BruteForce, accepts=accepts, supports=supports)


def test_every_class_has_small_examples():
    problems = testing.example_problems(spec(mapgrad.Problem))
    assert {type(problem) for problem in problems} == CLASSES
    assert len(set(problems)) == len(problems)
    assert max(len(problem.states()) for problem in problems) <= 100


def test_examples_are_those_that_the_solver_takes():
    assert {type(problem) for problem in testing.example_problems("topk")} == {mapgrad.KSubset, mapgrad.Ranking}
    square = spec(mapgrad.Assignment, supports=lambda problem: None if problem.rows == problem.cols else "not square")
    assert testing.example_problems(square) == [mapgrad.Assignment(3), mapgrad.Assignment(1)]


def test_an_unknown_name_is_refused():
    with pytest.raises(mapgrad.UnknownSolverError, match="no_such_solver"):
        testing.example_problems("no_such_solver")
