"""Perturbed optimizers: unbiased for the loss of the mean, additive and multiplicative."""

import math

import pytest
import torch
from scipy.integrate import quad

import mapgrad
from mapgrad import exact

LAWS = [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(2)]
SUBSET = mapgrad.KSubset(4, 2)
THETA = torch.tensor([0.8, -0.3, 0.1, 0.5], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)


def estimates(estimator, theta, slope, count, problem=SUBSET, reduction="mean", seed=0):
    """Return gradients [count, n] of ⟨slope, z̄⟩."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), estimator, reduction=reduction, seed=seed)
    leaf = theta.expand(count, -1).clone().requires_grad_()
    z = layer(leaf)
    (z * (slope if reduction == "mean" else slope / estimator.samples)).sum().backward()
    return leaf.grad


def require_mean(found, expected, bound=4.5):
    error = found.mean(dim=0) - expected
    spread = found.std(dim=0) / math.sqrt(len(found))
    assert (error.abs() < bound * spread + 1e-12).all(), (found.mean(dim=0), expected, error / spread)


def exact_gradient(law, temperature):
    """∇ ⟨slope, E MAP(θ + σε)⟩ by central differences of the quadrature."""
    step = 1e-4
    rows = THETA + step * torch.cat([torch.eye(4), -torch.eye(4)]).double()
    values = exact.topk_marginals(rows, 2, law, temperature) @ SLOPE
    return (values[:4] - values[4:]) / (2 * step)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize(("samples", "baseline"), [(1, "auto"), (4, "loo"), (4, None)])
def test_it_is_unbiased_for_the_loss_of_the_mean(law, samples, baseline):
    estimator = mapgrad.Perturbed(law, samples=samples, temperature=0.7, baseline=baseline)
    require_mean(estimates(estimator, THETA, SLOPE, 20_000), exact_gradient(law, 0.7))


def test_all_samples_as_output_give_the_same_mean():
    estimator = mapgrad.Perturbed(samples=4)
    one, each = (estimates(estimator, THETA, SLOPE, 2000, reduction=name) for name in ("mean", "none"))
    torch.testing.assert_close(one, each)


def test_a_constant_reward_changes_nothing_with_the_baseline():
    shifted = SLOPE + 100.0  # as 1ᵀz is constant
    estimator = mapgrad.Perturbed(samples=3)
    torch.testing.assert_close(estimates(estimator, THETA, SLOPE, 50), estimates(estimator, THETA, shifted, 50))
    plain = mapgrad.Perturbed(samples=3, baseline=None)
    assert estimates(plain, THETA, shifted, 50).std() > 10 * estimates(plain, THETA, SLOPE, 50).std()


@pytest.mark.parametrize(
    ("law", "temperature"), [(mapgrad.Gaussian(), 0.5), (mapgrad.Gumbel(), 0.3), (mapgrad.Laplace(), 0.4)], ids=repr
)
def test_multiplicative_noise_is_unbiased_too(law, temperature):
    problem, theta = mapgrad.KSubset(2, 1), torch.tensor([1.2, 0.9], dtype=torch.float64)

    def first_wins(a, b):
        gap = math.log(a / b) / temperature  # ε₂ − ε₁ < gap

        def integrand(u):
            x = law.icdf(torch.tensor([u], dtype=torch.float64))
            return float(law.cdf(x + gap))

        return quad(integrand, 1e-12, 1 - 1e-12, epsabs=1e-10, limit=200)[0]

    step = 1e-4
    a, b = theta.tolist()
    chance = [
        (first_wins(a + step, b) - first_wins(a - step, b)) / (2 * step),
        (first_wins(a, b + step) - first_wins(a, b - step)) / (2 * step),
    ]
    estimator = mapgrad.Perturbed(law, samples=3, temperature=temperature, multiplicative=True)
    found = estimates(estimator, theta, torch.tensor([1.0, 0.0], dtype=torch.float64), 40_000, problem)
    require_mean(found, torch.tensor(chance, dtype=torch.float64))


@pytest.mark.parametrize("law", [*LAWS, mapgrad.Centred(mapgrad.Gumbel()), mapgrad.SumOfGamma(3, terms=5)], ids=repr)
def test_the_log_mgf_is_that_of_the_law(law):
    t = 0.3
    generator = torch.Generator().manual_seed(0)
    noise = law.sample((400_000,), generator=generator, dtype=torch.float64)
    values = (t * noise).exp()
    error = float(values.mean()) - math.exp(law.log_mgf(t))
    assert abs(error) < 5 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize("law", [mapgrad.Gumbel(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(2)])
def test_laws_without_a_finite_mean_of_their_exponential_are_refused(law):
    with pytest.raises(ValueError, match="has no finite mean"):
        mapgrad.Perturbed(law, temperature=1.0, multiplicative=True)


def test_multiplicative_noise_keeps_signs_and_the_mean_of_theta():
    seen = []
    estimator = mapgrad.Perturbed(samples=1, temperature=0.5, multiplicative=True)

    def solve(rows):
        seen.append(rows.clone())
        return (rows > 0).to(rows)

    layer = mapgrad.MAPLayer(solve, estimator, seed=0)
    theta = torch.tensor([1.0, -2.0, 0.0, 3.0], dtype=torch.float64).expand(100_000, 4)
    layer(theta)
    assert torch.equal(seen[0].sign(), theta.sign())
    torch.testing.assert_close(seen[0].mean(dim=0), theta[0], rtol=0.02, atol=0)


def test_no_gradient_where_theta_is_zero_under_multiplicative_noise():
    estimator = mapgrad.Perturbed(samples=5, temperature=0.5, multiplicative=True)
    theta = torch.tensor([0.0, 0.5, 0.4, 1.0], dtype=torch.float64)
    found = estimates(estimator, theta, SLOPE, 20)
    assert not found[:, 0].any()
    assert found[:, 1:].any()


def test_paths_take_multiplicative_noise_without_clipping():
    problem = mapgrad.GridShortestPath(3, 3)
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("auto", problem),
        mapgrad.Perturbed(samples=8, temperature=0.5, multiplicative=True),
        minimize=True,
        seed=1,
    )
    costs = torch.rand(5, 3, 3, dtype=torch.float64).add(0.1).requires_grad_()
    layer(costs).square().sum().backward()
    assert layer.stats["clipped"] == 0
    assert costs.grad.isfinite().all()
    assert costs.grad.any()


class Unsaid:
    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


@pytest.mark.parametrize("noise", [None, "auto", Unsaid(), mapgrad.SumOfGamma(5, terms=10)])
@pytest.mark.parametrize("estimator", [mapgrad.Perturbed, mapgrad.Line])
def test_a_law_without_a_density_is_refused(estimator, noise):
    with pytest.raises(TypeError, match=r"law with log_prob, such as mapgrad\.Gaussian\(\)"):
        estimator(noise)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        mapgrad.Perturbed(temperature=0.0)
    with pytest.raises(ValueError, match="baseline must be 'auto', 'loo' or None, got 'mean'"):
        mapgrad.Perturbed(baseline="mean")
    with pytest.raises(ValueError, match="of which samples=1 has none: take samples=2 or more, or baseline=None"):
        mapgrad.Perturbed(samples=1, baseline="loo")


def test_the_baseline_by_default_is_what_the_samples_allow():
    for samples, baseline in ((1, None), (2, "loo")):
        estimator = mapgrad.Perturbed(samples=samples)
        assert estimator.baseline == baseline
        same = mapgrad.Perturbed(samples=samples, baseline=baseline)
        assert torch.equal(estimates(estimator, THETA, SLOPE, 5), estimates(same, THETA, SLOPE, 5))


def multiplicative_layer():
    solver = mapgrad.get_solver("topk", SUBSET)
    return mapgrad.MAPLayer(solver, mapgrad.Perturbed(samples=4, temperature=0.5, multiplicative=True), seed=0)


def test_multiplicative_noise_never_finds_what_an_entry_of_the_wrong_sign_is_worth():
    layer = multiplicative_layer()
    theta = torch.tensor([1.0, 1.2, -0.01, 0.9]).expand(2000, 4)
    assert not layer(theta)[:, 2].any()
    assert layer(theta.abs() + 1)[:, 2].any()


class OnlyLogProb:
    """A user's law, which says its density and no more."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def log_prob(self, x):
        return -x.square() / 2


def test_a_users_law_with_log_prob_serves():
    found = estimates(mapgrad.Perturbed(OnlyLogProb(), samples=4, temperature=0.7), THETA, SLOPE, 20_000)
    require_mean(found, exact_gradient(mapgrad.Gaussian(), 0.7))
    with pytest.raises(TypeError, match="needs a law with log_mgf"):
        mapgrad.Perturbed(OnlyLogProb(), multiplicative=True)
