"""The rows on which solvers are told apart."""

import pytest
import torch

import mapgrad
from mapgrad.testing._reference import Enumeration
from mapgrad.testing._sample_rows import close_rows, generic_rows, tied_rows, wide_rows

PROBLEMS = [
    mapgrad.KSubset(5, 2),
    mapgrad.Ranking(4),
    mapgrad.GridShortestPath(3, 3),
    mapgrad.Assignment(2, 3),
    # x + y ≤ s with s at a price
    mapgrad.IntegerProgram(A_ub=[[1, 1, -1]], b_ub=[0], upper=[3, 2, 5], decision=[0, 1], fixed=[-0.5]),
]


def gaps(problem, theta):
    """Best minus second best value of each row, in units of max |θ|."""
    best, second = Enumeration(problem).values(theta).topk(2).values.unbind(1)
    return (best - second) / theta.flatten(1).abs().amax(1)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_generic_rows_have_one_optimum_within_the_domain(problem):
    theta = generic_rows(problem)
    assert problem.domain.contains(theta).all()
    assert gaps(problem, theta).min() > 1e-4
    assert torch.equal(theta, generic_rows(problem))


def test_wide_rows_leave_the_domain():
    theta = wide_rows(mapgrad.GridShortestPath(3, 3))
    assert 0.4 < (theta > 0).double().mean() < 0.6


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_close_rows_have_a_close_second(problem):
    theta = close_rows(Enumeration(problem))
    assert problem.domain.contains(theta).all()
    found = gaps(problem, theta)
    for gap in (1e-3, 1e-5, 1e-8):
        assert ((found > 0.3 * gap) & (found < 1.01 * gap)).sum() >= 4


@pytest.mark.parametrize("problem", [mapgrad.KSubset(4, 4), mapgrad.GridShortestPath(1, 3)], ids=repr)
def test_a_single_state_has_no_close_second(problem):
    assert torch.equal(close_rows(Enumeration(problem)), generic_rows(problem, 48, seed=1))


def test_tied_rows_repeat_their_values():
    theta = tied_rows(mapgrad.Assignment(2, 3)).flatten(1)
    assert [row[0].item() for row in theta[:3]] == [0, 1, -1]
    assert max(len(row.unique()) for row in theta) <= 3
