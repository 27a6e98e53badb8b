import math
from itertools import permutations

import pytest
import torch

import mapgrad
from mapgrad import (
    Gaussian,
    Gumbel,
    KSubset,
    Laplace,
    Logistic,
    MapgradError,
    NonFiniteError,
    ProblemError,
    ShapeError,
    SumOfGamma,
    exact,
)

LAWS = [Gumbel(), Gaussian(), Logistic(), Laplace(), SumOfGamma(5), SumOfGamma(50)]


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plackett_luce(theta, k):
    """Marginals of the k largest under Gumbel noise: the k first of a draw without replacement."""
    weights = theta.exp().tolist()
    marginals = torch.zeros_like(theta)
    for chosen in permutations(range(len(weights)), k):
        chance, left = 1.0, sum(weights)
        for i in chosen:
            chance, left = chance * weights[i] / left, left - weights[i]
        marginals[list(chosen)] += chance
    return marginals


def test_the_best_under_gumbel_noise_is_softmax():
    theta = 3 * random_theta(2, 3, 7)
    torch.testing.assert_close(
        exact.topk_marginals(theta, 1, Gumbel(), 0.5), (theta / 0.5).softmax(dim=-1), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("offset", [0.0, 1e8, 1e15])
@pytest.mark.parametrize("spread", [1.0, 1e4, 1e20, 1e200])
def test_neither_size_nor_spread_costs_digits(offset, spread):
    theta = (spread * random_theta(20, 6) + offset).requires_grad_()
    slope = random_theta(20, 6, seed=1)
    softmax, states = theta.softmax(dim=1), torch.eye(6, dtype=torch.float64).unsqueeze(1).expand(6, 20, 6)
    truth = torch.autograd.grad((softmax * slope).sum(), theta, retain_graph=True)[0]
    marginals = exact.topk_marginals(theta, 1, Gumbel())
    chances = exact.topk_probabilities(theta, states, 1, Gumbel()).T
    for found in (marginals, chances):
        torch.testing.assert_close(found, softmax, rtol=0, atol=1e-13)
        torch.testing.assert_close(torch.autograd.grad((found * slope).sum(), theta)[0], truth, rtol=0, atol=1e-12)


def test_utilities_that_overflow_over_the_temperature_are_refused():
    """They aren't the −inf that forbids."""
    for theta in ([-1e200, -2e200, 0], [-1e200, -2e200, -3e200], [1e200, 0, 0]):
        row = torch.tensor(theta, dtype=torch.float64)
        with pytest.raises(ValueError, match="at most 1e280, got inf"):
            exact.topk_marginals(row, 1, Gumbel(), 1e-200)
        for problem in (mapgrad.KSubset(3, 1), mapgrad.IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[2])):
            with pytest.raises(ValueError, match="at most 1e280, got inf"):
                exact.marginals(problem, row, 1e-200)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_k_best_under_gumbel_noise_are_draws_without_replacement(k):
    theta = random_theta(5)
    torch.testing.assert_close(exact.topk_marginals(theta, k, Gumbel()), plackett_luce(theta, k), rtol=1e-10, atol=0)


def test_two_under_gaussian_and_logistic_noise_by_hand():
    theta = torch.tensor([0.3, -0.5], dtype=torch.float64)
    first = 0.5 * math.erfc(-0.8 / 2)  # the difference of two standard normals has variance 2
    assert exact.topk_marginals(theta, 1, Gaussian()).tolist() == pytest.approx([first, 1 - first], rel=1e-10)
    odds = math.exp(0.8)
    first = odds * (odds - 1 - 0.8) / (odds - 1) ** 2  # integral of σ(x)' σ(x + 0.8)
    assert exact.topk_marginals(theta, 1, Logistic()).tolist() == pytest.approx([first, 1 - first], rel=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 1.0, 200.0])
def test_rows_sum_to_k_and_order_follows_theta(law, scale):
    theta = scale * random_theta(2, 6).sort(dim=1).values
    for k in (1, 4, 6):
        marginals = exact.topk_marginals(theta, k, law)
        torch.testing.assert_close(marginals.sum(dim=1), torch.full((2,), float(k)).double(), rtol=1e-7, atol=0)
        assert bool((marginals.diff(dim=1) > -1e-7).all())
        if scale == 0 or k == 6:
            torch.testing.assert_close(marginals, torch.full_like(marginals, k / 6), rtol=1e-7, atol=0)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_draws_agree(law):
    theta, draws = random_theta(8), 200_000
    noise = law.sample((draws, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = torch.zeros(draws, 8, dtype=torch.float64)
    chosen.scatter_(1, (theta + 0.7 * noise).topk(3, dim=1).indices, 1)
    truth = exact.topk_marginals(theta, 3, law, 0.7)
    assert float(((chosen.mean(dim=0) - truth) / (truth * (1 - truth) / draws).sqrt()).abs().max()) < 4


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_jacobian_is_symmetric_and_the_finite_difference(law):
    theta = random_theta(5)

    def marginals(t):
        return exact.topk_marginals(t, 2, law, 0.8)

    jacobian = torch.autograd.functional.jacobian(marginals, theta)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(jacobian.sum(dim=0), torch.zeros(5).double(), rtol=0, atol=1e-5)
    steps = 1e-4 * torch.eye(5, dtype=torch.float64)
    differences = (marginals(theta + steps) - marginals(theta - steps)).T / 2e-4
    torch.testing.assert_close(jacobian, differences, rtol=0, atol=1e-4)


def test_gumbel_and_gibbs_differ_on_subsets():
    gaps = [
        float((exact.topk_marginals(theta, 5, Gumbel()) - exact.marginals(KSubset(10, 5), theta)).abs().max())
        for theta in 2 * random_theta(20, 10)
    ]
    assert 0.05 < max(gaps) < 0.12


def test_results_have_the_shape_and_dtype_of_theta():
    theta = random_theta(2, 0, 4).float()
    assert exact.topk_marginals(theta, 2, Gumbel()).shape == (2, 0, 4)
    theta = random_theta(3, 4).bfloat16()
    assert torch.equal(
        exact.topk_marginals(theta, 2, Gumbel()), exact.topk_marginals(theta.double(), 2, Gumbel()).bfloat16()
    )
    assert exact.topk_marginals(torch.zeros(1), 1, Gumbel()).tolist() == pytest.approx([1])


def test_refusals_say_what_was_wrong():
    theta = torch.zeros(3)

    class Sampler:
        def sample(self, shape, *, generator, dtype, device):
            return torch.zeros(shape)

    with pytest.raises(TypeError, match="need the noise's icdf, cdf, log_prob, which"):
        exact.topk_marginals(theta, 1, Sampler())
    with pytest.raises(MapgradError, match="a finite sum can only be sampled"):
        exact.topk_marginals(theta, 1, SumOfGamma(1, terms=10))
    for k in (0, 4):
        with pytest.raises(ProblemError):
            exact.topk_marginals(theta, k, Gumbel())
    with pytest.raises(ShapeError, match="got a scalar"):
        exact.topk_marginals(torch.tensor(1.0), 1, Gumbel())
    with pytest.raises(NonFiniteError, match="row 0"):
        exact.topk_marginals(theta + math.inf, 1, Gumbel())
    with pytest.raises(ValueError, match="temperature must be positive"):
        exact.topk_marginals(theta, 1, Gumbel(), 0)
