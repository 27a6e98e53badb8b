"""Portfolios: membership, identity, refusals, and the form in which solvers get the limit on risk."""

import copy
import pickle

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Portfolio

COVARIANCE = np.array([[4.0, 1, 0], [1, 2, -0.5], [0, -0.5, 1]])


def random_covariance(kind, n):
    rng = np.random.default_rng(n)
    if kind == "factors":
        loadings = rng.normal(size=(n, 2))
        return loadings @ loadings.T + 0.3 * np.eye(n)
    if kind == "zero":
        return np.zeros((n, n))
    rows = rng.normal(size=(n // 2 if kind == "singular" else 2 * n, n))
    return rows.T @ rows


def test_what_is_a_state():
    problem = Portfolio(COVARIANCE, 1.0)
    rows = {
        (0.0, 0.0, 0.0): True,
        (0.5, 0.0, 0.0): True,  # 4 / 4 is the limit
        (0.50001, 0.0, 0.0): False,
        (0.5 + 1e-7, 0.0, 0.0): True,  # a millionth is allowed
        (0.0, 0.0, 1.0): True,
        (0.0, 0.3, 0.7): True,
        (0.0, 0.3, 0.70001): False,
        (0.0, 0.3, 0.7 + 1e-7): True,
        (0.0, -0.001, 0.5): False,
        (0.0, -1e-7, 0.5): True,
        (0.0, 0.0, float("nan")): False,
        (0.0, 0.0, float("inf")): False,
    }
    assert problem.contains(torch.tensor(list(rows), dtype=torch.float64)).tolist() == list(rows.values())
    invested = Portfolio(COVARIANCE, 1.0, fully_invested=True)
    spent = [wanted and abs(sum(row) - 1) < 1e-6 for row, wanted in rows.items()]
    assert invested.contains(torch.tensor(list(rows), dtype=torch.float64)).tolist() == spent
    assert problem.contains(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float32)).item()
    assert problem.constant_sums == {}
    assert invested.constant_sums == {(0,): 1.0}


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("kind", ["factors", "dense", "singular", "zero"])
def test_exposures_give_the_variance(kind, n):
    covariance = random_covariance(kind, n)
    exposures = Portfolio(covariance, 0.7).exposures
    np.testing.assert_allclose(exposures.T @ exposures, covariance / 0.7, atol=1e-12 * (1 + np.abs(covariance).max()))
    dense = np.count_nonzero(np.linalg.qr(exposures, mode="r"))
    assert np.count_nonzero(exposures) <= max(dense, n * (n + 1) // 2)


def test_spellings_copies_and_distinct_problems():
    one = Portfolio(COVARIANCE, 1)
    for same in (
        Portfolio(COVARIANCE.tolist(), np.float64(1.0)),
        Portfolio(torch.tensor(COVARIANCE), 1.0, fully_invested=np.bool_(False)),
        Portfolio(COVARIANCE.T, 1.0),
        pickle.loads(pickle.dumps(one)),
        copy.deepcopy(one),
    ):
        assert same == one
        assert hash(same) == hash(one)
        assert repr(same) == repr(one)
    others = [Portfolio(2 * COVARIANCE, 1), Portfolio(COVARIANCE, 2), Portfolio(COVARIANCE, 1, fully_invested=True)]
    assert len({one, *others}) == 4
    with pytest.raises(ValueError, match="read-only"):
        one.covariance[0, 0] = 1


@pytest.mark.parametrize("fully_invested", [False, True])
@pytest.mark.parametrize("kind", ["factors", "dense", "singular"])
def test_it_keeps_the_laws_of_problems(kind, fully_invested):
    covariance = random_covariance(kind, 5)
    problem = Portfolio(covariance, 2.25 * covariance.mean() + 0.1, fully_invested=fully_invested)
    applied = {outcome.law for outcome in mapgrad.testing.check_problem(problem) if outcome.applies}
    assert {"problem_bounds", "problem_contains", "problem_identity", "problem_immutable", "problem_fields"} <= applied


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], 1.0), r"covariance must have shape \[assets, assets\]"),
        (([[1.0, 2.0]], 1.0), r"at least \[1, 1\], got \(1, 2\)"),
        (([[1.0, 0.5], [0.4, 1.0]], 1.0), "covariance must be symmetric, but entries differ by 0.1"),
        (([[1.0, 2.0], [2.0, 1.0]], 1.0), "positive semidefinite, but has the eigenvalue -1"),
        (([[-1.0]], 1.0), "positive semidefinite, but has the eigenvalue -1"),
        (([[np.inf]], 1.0), "covariance must be finite, got inf"),
        (([[np.nan]], 1.0), "covariance must hold numbers, got NaN"),
        (([[1.0]], 0), "risk must be a finite number > 0, the largest variance of the return, got 0"),
        (([[1.0]], np.inf), "risk must be a finite number > 0"),
        (([[1.0]], "1"), "risk must be a finite number > 0"),
        (([[1.0]], True), "risk must be a finite number > 0"),
        (([[1.0]], torch.ones(1, requires_grad=True)), "risk must be a finite number > 0"),
        ((torch.eye(2, requires_grad=True), 1.0), "gradients reach θ only"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(mapgrad.ProblemError, match=message):
        Portfolio(*arguments)


def test_it_has_neither_states_nor_a_program():
    problem = Portfolio(COVARIANCE, 1.0)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="can't be enumerated"):
        problem.states()
    with pytest.raises(mapgrad.UnsupportedProblemError, match="stands for no integer program"):
        mapgrad.get_solver("highs", problem)


@pytest.mark.parametrize("n", [1, 3, 6, 20])
def test_exposures_are_right_for_each_pair_of_assets_however_far_apart_their_deviations_are(n):
    rng = np.random.default_rng(n)
    rows, deviations = rng.normal(size=(n, n)), 10.0 ** rng.integers(-5, 5, n)
    covariance = rows.T @ rows * deviations * deviations[:, None]
    problem = mapgrad.Portfolio(covariance, 0.25)
    sizes = np.sqrt(np.diagonal(covariance))
    found = problem.exposures.T @ problem.exposures * problem.risk
    np.testing.assert_allclose(found / sizes / sizes[:, None], covariance / sizes / sizes[:, None], rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [5, 9])
def test_a_few_assets_of_far_larger_deviations_are_no_factors_that_hide_the_others(n):
    variances = 10.0 ** -np.arange(16, 16 + n)
    variances[0] = 1
    exposures = mapgrad.Portfolio(np.diag(variances), 0.25).exposures
    np.testing.assert_allclose((exposures**2).sum(axis=0) * 0.25, variances, rtol=1e-13)
