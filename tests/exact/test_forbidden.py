"""θ = −inf leaves the law of the states that don't hold the entry."""

import pytest
import torch

import mapgrad
from mapgrad import KSubset, exact

INF = torch.inf
KEPT = [0, 2, 3, 5, 6]
BARRED = [1, 4]


def rows(count=3):
    theta, weights = torch.randn(2, count, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta[:, BARRED] = -INF
    return theta, weights


def both(function, size):
    """Values and gradients for masked rows, and for those without the masked entries."""
    theta, weights = rows()
    found = []
    for entries, n in ((range(7), 7), (KEPT, 5)):
        leaf = theta[:, list(entries)].clone().requires_grad_()
        values = function(KSubset(n, size), leaf)
        own = weights[:, list(entries)] if values.shape[-1] == n else weights[:, 0]
        found.append((values.detach(), torch.autograd.grad((values * own).sum(), leaf)[0]))
    return found


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), mapgrad.Gaussian(), mapgrad.Laplace(), mapgrad.SumOfGamma(3.0)])
def test_top_k_marginals(noise, size):
    def marginals(problem, theta):
        return exact.topk_marginals(theta, problem.k, noise, 0.7)

    (whole, gradient), (part, expected) = both(marginals, size)
    torch.testing.assert_close(whole[:, KEPT], part, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient[:, KEPT], expected, rtol=0, atol=1e-13)
    assert not whole[:, BARRED].any()
    assert not gradient[:, BARRED].any()


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("function", [exact.marginals, exact.log_partition])
def test_subsets(function, size):
    (whole, gradient), (part, expected) = both(lambda problem, theta: function(problem, theta, 0.7), size)
    if function is exact.marginals:
        assert not whole[:, BARRED].any()
        whole = whole[:, KEPT]
    torch.testing.assert_close(whole, part, rtol=0, atol=1e-13)
    torch.testing.assert_close(gradient[:, KEPT], expected, rtol=0, atol=1e-13)
    assert not gradient[:, BARRED].any()


PROBLEMS = [
    mapgrad.Assignment(3),
    mapgrad.GridShortestPath(3, 3),
    mapgrad.Knapsack([3, 4, 5, 6], 9),
    mapgrad.IntegerProgram(A_ub=[[1, 1, 1, 1]], b_ub=[3], upper=[2, 1, 3, 1], decision=[2, 0], fixed=[0.5, -0.25]),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_laws_by_enumeration(problem):
    theta = torch.randn(5, *problem.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta.flatten(1)[:4, 1] = -INF  # the last row has no mask
    states = exact.enumerate_states(problem)
    weights = torch.randn(len(states), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    left = states.flatten(1)[:, 1] == 0
    others = torch.as_tensor(problem.completion_values(states.numpy()))
    scores = (theta.nan_to_num(neginf=0.0).flatten(1) @ states.flatten(1).T + others) / 0.7
    scores[:4, ~left] = -INF
    chances = scores.softmax(1)
    torch.testing.assert_close(exact.probabilities(problem, theta, 0.7), chances)
    assert not exact.probabilities(problem, theta, 0.7)[:4, ~left].any()
    torch.testing.assert_close(exact.log_partition(problem, theta, 0.7), scores.logsumexp(1))
    torch.testing.assert_close(exact.marginals(problem, theta, 0.7).flatten(1), chances @ states.flatten(1))
    assert torch.equal(exact.map_state(problem, theta), states[scores.argmax(1)])
    leaf = theta.clone().requires_grad_()
    mean = exact.expectation(problem, leaf, lambda z: weights, 0.7)
    torch.testing.assert_close(mean, chances @ weights)
    (found,) = torch.autograd.grad(mean.sum(), leaf)
    torch.testing.assert_close(exact.gradient(problem, theta, lambda z: weights, 0.7), found)
    assert not found.flatten(1)[:4, 1].any()
    assert found.flatten(1)[4, 1] != 0


ORACLES = {
    "map_state": lambda theta: exact.map_state(KSubset(7, 3), theta),
    "marginals": lambda theta: exact.marginals(KSubset(7, 3), theta),
    "log_partition": lambda theta: exact.log_partition(KSubset(7, 3), theta),
    "probabilities": lambda theta: exact.probabilities(KSubset(7, 3), theta),
    "expectation": lambda theta: exact.expectation(KSubset(7, 3), theta, lambda z: z[:, 0]),
    "topk_marginals": lambda theta: exact.topk_marginals(theta, 3, mapgrad.Gumbel()),
}


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
def test_a_row_without_a_state_is_named(oracle):
    theta, _ = rows(4)
    theta[1, 2:] = theta[3] = -INF
    with pytest.raises(
        mapgrad.InfeasibleError, match=r"no state without entries that θ = −inf forbids in rows 1, 3"
    ) as no:
        oracle(theta.reshape(2, 2, 7))
    assert no.value.rows == (1, 3)


def test_another_lower_bound_is_refused():
    problem = mapgrad.IntegerProgram(lower=[1, 0, -1], upper=[2, 1, 1])
    theta = torch.zeros(3, 3)
    theta[0, 1] = theta[1, 0] = theta[2, 2] = -INF
    with pytest.raises(mapgrad.NonFiniteError, match="rows 1, 2") as refused:
        exact.marginals(problem, theta)
    assert refused.value.rows == (1, 2)
    with pytest.raises(mapgrad.NonFiniteError, match="row 0"):
        exact.topk_marginals(torch.tensor([[INF, 1.0]]), 1, mapgrad.Gumbel())
