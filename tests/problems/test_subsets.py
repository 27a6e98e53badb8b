from __future__ import annotations

import math

import pytest
import torch

from mapgrad.errors import ProblemError
from mapgrad.problems import STATES_LIMIT, Assignment, Domain, KSubset, Ranking


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 1), (7, 3), (10, 5), (12, 12)])
def test_k_subsets_number_n_choose_k(n: int, k: int) -> None:
    problem = KSubset(n, k)
    states = problem.states()
    assert states.shape == (math.comb(n, k), n)
    assert (states.sum(1) == k).all()
    assert problem.kappa == k
    assert problem.domain is Domain.REAL


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_rankings_number_n_factorial(n: int) -> None:
    problem = Ranking(n)
    states = problem.states()
    assert states.shape == (math.factorial(n), n)
    assert torch.equal(states.sort(1).values, torch.arange(n).double().expand_as(states))
    assert problem.kappa == n
    assert problem.domain is Domain.REAL


def test_a_ranking_gives_the_largest_rank_to_the_largest_theta() -> None:
    states, theta = Ranking(4).states(), torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    assert states[(states @ theta).argmax()].tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 3), (5, 5), (2, 5), (5, 2), (1, 4), (4, 1)])
def test_assignments_number_the_injections_of_the_smaller_side(rows: int, cols: int) -> None:
    problem = Assignment(rows, cols)
    states = problem.states()
    few, many = sorted((rows, cols))
    assert states.shape == (math.perm(many, few), rows, cols)
    assert (states.sum((1, 2)) == few).all()
    assert (states.sum(1) <= 1).all()
    assert (states.sum(2) <= 1).all()
    assert problem.kappa == few
    assert problem.domain is Domain.REAL


@pytest.mark.parametrize("problem", [KSubset(20, 10), Ranking(9), Assignment(9), KSubset(200_000, 2)], ids=repr)
def test_large_sets_are_refused(problem: KSubset | Ranking | Assignment) -> None:
    limit = 167 if problem.shape == (200_000,) else STATES_LIMIT
    with pytest.raises(ProblemError, match=rf"has more than {limit:,} states: too many to enumerate; make it smaller"):
        problem.states()


def test_large_batches_are_decided() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(5_000, 60, generator=generator)
    ranks = scores.argsort(1).argsort(1)
    assert Ranking(60).contains(ranks).all()
    assert KSubset(60, 7).contains(ranks < 7).all()
    assert not KSubset(60, 7).contains(ranks < 8).any()
    assert not Ranking(60).contains(ranks.clamp(max=58)).any()
