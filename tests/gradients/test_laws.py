"""Laws of estimators that hold for all rows, with ties too: integer utilities, so that many states are optimal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad

SUBSET = mapgrad.KSubset(5, 2)
KNAPSACK = mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0, 3.0]], [8.0])
SOLVERS = {
    SUBSET: mapgrad.get_solver("topk", SUBSET),
    KNAPSACK: mapgrad.get_solver(lambda theta: mapgrad.exact.map_state(KNAPSACK, theta), KNAPSACK),
}
TARGETS = {
    "step": lambda lam: mapgrad.Step(lam),
    "step of a shrunk θ": lambda lam: mapgrad.Step(lam, alpha=0.5),
    "relative": lambda lam: mapgrad.RelativeStep(lam),
    "adaptive": lambda lam: mapgrad.AdaptiveStep(initial=lam),
    "combinatorial": lambda lam: mapgrad.Combinatorial(),
}

problems = st.sampled_from([*SOLVERS])
vectors = st.lists(st.integers(-3, 3), min_size=10, max_size=10).map(
    lambda row: torch.tensor(row, dtype=torch.float64).reshape(2, 5)
)
seeds = st.integers(0, 2**31)
laws = settings(max_examples=40, deadline=None)


def gradient_of(problem, estimator, theta, slope, seed, reduction="mean"):
    layer = mapgrad.MAPLayer(SOLVERS[problem], estimator, seed=seed, reduction=reduction)
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * slope).sum().backward()
    return leaf.grad


@pytest.mark.parametrize("name", TARGETS)
@laws
@given(
    problems,
    vectors,
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([None, mapgrad.Gumbel(), "auto"]),
    st.sampled_from([None, 0.0, 2.0]),
    st.sampled_from(["mean", "none"]),
    seeds,
)
def test_a_central_difference_is_zero_where_the_losses_gradient_is(
    name, problem, theta, lam, noise, temperature, reduction, seed
):
    estimator = mapgrad.IMLE(noise, TARGETS[name](lam), samples=3, symmetric=True, target_temperature=temperature)
    assert not gradient_of(problem, estimator, theta, 0.0, seed, reduction).any()


@laws
@given(problems, vectors, vectors, seeds)
def test_a_central_difference_turns_with_the_losses_gradient(problem, theta, slope, seed):
    plus, minus = (
        gradient_of(problem, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), symmetric=True), theta, each, seed)
        for each in (slope, -slope)
    )
    assert torch.equal(plus, -minus)


@laws
@given(vectors, vectors, st.integers(-1000, 1000), st.sampled_from([2, 3, 7]), seeds)
def test_a_reward_that_all_states_share_changes_no_score_gradient(theta, slope, reward, samples, seed):
    estimator = mapgrad.Perturbed(samples=samples)
    plain, shifted = (gradient_of(SUBSET, estimator, theta, each, seed) for each in (slope, slope + reward))
    torch.testing.assert_close(shifted, plain, rtol=1e-9, atol=1e-9)


@laws
@given(problems, vectors, vectors, st.integers(-1000, 1000), st.sampled_from([2, 3, 7]), seeds)
def test_a_constant_reward_changes_no_gradient_of_an_expectation(problem, theta, slope, reward, samples, seed):
    found = []
    for each in (0, reward):
        layer = mapgrad.MAPLayer(SOLVERS[problem], mapgrad.IMLE(mapgrad.Gaussian()), seed=seed)
        leaf = theta.clone().requires_grad_()
        law = layer.distribution(leaf)
        law.expectation(lambda z, each=each: (z * slope).sum(-1).square() + each, samples).sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)
