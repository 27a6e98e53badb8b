"""What perturb-and-MAP samples, against exact laws; the toy of the I-MLE paper."""

import numpy as np
import pytest
import torch

import mapgrad

DRAWS = 40_000


def frequencies(theta, k, noise, temperature=1.0, **options):
    estimator = mapgrad.IMLE(noise, samples=DRAWS, temperature=temperature)
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", mapgrad.KSubset(theta.shape[-1], k)), estimator, seed=0, **options
    )
    return layer(theta)


def within_error(estimate, exact, sigmas=4.5):
    exact = exact.double()
    assert ((estimate.double() - exact).abs() <= sigmas * (exact * (1 - exact) / DRAWS).sqrt() + 1e-12).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_one_hot_states_with_gumbel_noise_follow_the_softmax(temperature):
    theta = torch.tensor([[0.0, 0.5, 1.5, -1.0], [2.0, 0.0, 0.0, 0.0]])
    within_error(frequencies(theta, 1, mapgrad.Gumbel(), temperature), (theta / temperature).softmax(-1))


def test_costs_follow_the_softmax_of_minus_costs():
    costs = torch.tensor([0.0, 0.5, 1.5])
    estimate = frequencies(costs, 1, mapgrad.Gumbel(), minimize=True)
    within_error(estimate, (-costs).softmax(-1))
    assert (estimate - torch.tensor([0.580, 0.340, 0.080])).abs().max() > 0.02  # what argmin(c + ε) would give


@pytest.mark.parametrize(
    "noise",
    [mapgrad.SumOfGamma(3), mapgrad.Gumbel(), mapgrad.Gaussian(), mapgrad.Logistic(), mapgrad.Laplace()],
    ids=lambda noise: type(noise).__name__,
)
def test_top_k_marginals_equal_the_quadrature(noise):
    theta = torch.tensor([[0.3, -1.0, 2.0, 0.0, 0.7, -0.2], [0.0, 0.0, 0.0, 1.0, -3.0, 0.5]])
    exact = mapgrad.exact.topk_marginals(theta, 3, noise)
    within_error(frequencies(theta, 3, noise), exact)


def test_a_finite_sum_of_gammas_comes_close_to_its_limit():
    theta = torch.tensor([0.3, -1.0, 2.0, 0.0, 0.7, -0.2])
    exact = mapgrad.exact.topk_marginals(theta, 3, mapgrad.SumOfGamma(3))
    estimate = frequencies(theta, 3, mapgrad.SumOfGamma(3, terms=30))
    assert (estimate - exact).abs().max() < 0.01


# The toy problem of the paper's figure 3: choose 5 of 10, L = E‖z − b‖², momentum SGD for 50 steps.
TOY = mapgrad.KSubset(10, 5)
_random = np.random.RandomState(0)
THETA = torch.from_numpy(_random.randn(10))
TARGET = torch.from_numpy(np.abs(_random.randn(10)))


def toy_loss(z):
    return ((z - TARGET) ** 2).sum(-1)


def final_gaps(estimator, rate, runs):
    """Return the gap of each run; runs are rows of one batch, with noise of their own."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", TOY), estimator, reduction="none", seed=0)
    theta = THETA.repeat(runs, 1).requires_grad_()
    optimizer = torch.optim.SGD([theta], lr=rate, momentum=0.9)
    for _ in range(50):
        optimizer.zero_grad()
        toy_loss(layer(theta)).sum().backward()
        optimizer.step()
    least = toy_loss(TOY.states()).min()
    return mapgrad.exact.expectation(TOY, theta.detach(), toy_loss) - least


def published(noise):
    return mapgrad.IMLE(noise, mapgrad.Step(2.0), scaled=False, symmetric=False)


@pytest.mark.parametrize(
    ("estimator", "rate", "mean", "spread"),
    [
        (published(mapgrad.SumOfGamma(5, terms=10)), 0.75, 0.187, 0.22),
        (published(mapgrad.Gumbel()), 0.75, 0.283, 0.33),
        (mapgrad.StraightThrough(mapgrad.Gumbel()), 0.019, 0.755, 0.11),
        (published(None), 0.75, 0.0, 0.001),
    ],
    ids=["sum-of-gamma", "gumbel", "straight-through", "no-noise"],
)
def test_toy_reaches_the_published_gap(estimator, rate, mean, spread):
    runs = 1 if estimator.noise is None else 40
    gaps = final_gaps(estimator, rate, runs)
    assert gaps.shape == (runs,)
    assert abs(float(gaps.mean()) - mean) < 4 * spread / runs**0.5
