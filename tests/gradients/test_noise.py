import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode

from mapgrad.gradients import Gaussian, Gumbel, Laplace, Logistic, Noise, SumOfGamma, _noise

TEXTBOOK = [
    (Gumbel(), stats.gumbel_r),
    (Gaussian(), stats.norm),
    (Logistic(), stats.logistic),
    (Laplace(), stats.laplace),
]
LAWS = [*(law for law, _ in TEXTBOOK), SumOfGamma(1), SumOfGamma(2.5), SumOfGamma(10), SumOfGamma(50)]
NOISES = [*LAWS, SumOfGamma(5, terms=10)]
DRAWS = 50_000


def draw(noise, shape=(DRAWS,), seed=0, **how):
    return noise.sample(shape, generator=torch.Generator().manual_seed(seed), **how)


def quantile_grid():
    return torch.sigmoid(torch.linspace(-34.5, 34.5, 139, dtype=torch.float64))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_draws_have_the_stated_mean_and_variance(noise):
    x = draw(noise, dtype=torch.float64)
    squares = (x - noise.mean).square()
    assert abs(float(x.mean()) - noise.mean) < 4 * float(x.std()) / DRAWS**0.5
    assert abs(float(squares.mean()) - noise.variance) < 4 * float(squares.std()) / DRAWS**0.5


@pytest.mark.parametrize(("law", "truth"), TEXTBOOK, ids=lambda value: getattr(value, "name", None) or repr(value))
def test_the_law_is_the_textbook_one(law, truth):
    assert (law.mean, law.variance) == pytest.approx((truth.mean(), truth.var()), rel=1e-14, abs=1e-14)
    assert stats.kstest(np.asarray(draw(law, dtype=torch.float64)), truth.cdf).pvalue > 0.01
    x = torch.linspace(-6, 30, 401, dtype=torch.float64)
    np.testing.assert_allclose(law.log_prob(x), truth.logpdf(x), rtol=1e-13)
    np.testing.assert_allclose(law.cdf(x), truth.cdf(x), rtol=1e-13)
    u = quantile_grid()
    np.testing.assert_allclose(law.icdf(u), truth.ppf(u), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_draws_follow_the_distribution_function(law):
    uniforms = law.cdf(draw(law, seed=1, dtype=torch.float64))
    assert stats.kstest(np.asarray(uniforms), "uniform").pvalue > 0.01


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_icdf_inverts_cdf_out_to_both_tails(law):
    u = quantile_grid()
    x = law.icdf(u)
    assert bool((x.diff() > 0).all())
    torch.testing.assert_close(law.cdf(x), u, rtol=1e-6, atol=1e-15)
    bulk = x[(u > 1e-6) & (u < 1 - 1e-6)]
    torch.testing.assert_close(law.icdf(law.cdf(bulk)), bulk, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_density_integrates_to_one_and_to_the_mean_and_variance(law):
    x = law.icdf(torch.sigmoid(torch.linspace(-36, 36, 200_001, dtype=torch.float64)))
    density = law.log_prob(x).exp()
    moments = [torch.trapezoid(density * f, x) for f in (torch.ones_like(x), x, (x - law.mean).square())]
    assert list(map(float, moments)) == pytest.approx([1, law.mean, law.variance], abs=1e-7)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_score_and_density_agree_with_finite_differences(law):
    u = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
    x = law.icdf(u).requires_grad_()
    step = 1e-5 * float((x[-1] - x[0]).detach())
    for function in (law.log_prob, law.cdf):
        (slope,) = torch.autograd.grad(function(x).sum(), x)
        with torch.no_grad():
            difference = (function(x + step) - function(x - step)) / (2 * step)
        away_from_kinks = x.abs() > 2 * step
        torch.testing.assert_close(slope[away_from_kinks], difference[away_from_kinks], rtol=2e-5, atol=2e-5)
    (density,) = torch.autograd.grad(law.cdf(x).sum(), x)
    torch.testing.assert_close(density, law.log_prob(x).exp().detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_the_expected_score_is_zero_and_stein_holds(law):
    logit = torch.linspace(-36, 36, 200_000, dtype=torch.float64)
    x = law.icdf(torch.sigmoid(logit)).requires_grad_()
    (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    weights = torch.sigmoid(logit) * torch.sigmoid(-logit)
    assert float(torch.trapezoid(score * weights, logit)) == pytest.approx(0, abs=1e-6)
    assert float(torch.trapezoid(-score * x.detach() * weights, logit)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_draws_are_cast_last(noise, dtype):
    x = draw(noise, (3, 0, 2), dtype=dtype)
    assert (x.shape, x.dtype, x.device.type) == ((3, 0, 2), dtype, "cpu")
    assert torch.equal(draw(noise, (40, 5), dtype=dtype), draw(noise, (40, 5), dtype=torch.float64).to(dtype))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_draws_depend_on_the_generator_alone(noise):
    generator = torch.Generator().manual_seed(3)
    first, second = (noise.sample((2, 7), generator=generator) for _ in range(2))
    assert torch.equal(first, draw(noise, (2, 7), seed=3))
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    draw(noise, (5,))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_without_a_generator_torch_s_default_one_serves(noise):
    torch.manual_seed(5)
    first = noise.sample((2, 7))
    torch.manual_seed(5)
    assert torch.equal(noise.sample((2, 7)), first)
    assert first.dtype == torch.get_default_dtype()
    assert torch.equal(first, draw(noise, (2, 7), seed=5))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_a_noise_is_a_value(noise):
    for twin in (copy.copy(noise), copy.deepcopy(noise), pickle.loads(pickle.dumps(noise)), eval(repr(noise))):
        assert twin == noise
        assert hash(twin) == hash(noise)
        assert torch.equal(draw(twin, (3,)), draw(noise, (3,)))
    assert isinstance(noise, Noise)
    assert [other for other in NOISES if other == noise] == [noise]
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise.kappa = 3


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_integer_dtypes_are_refused(noise):
    with pytest.raises(ValueError, match=r"expected a floating dtype, got torch\.int64"):
        noise.sample((2,), dtype=torch.int64)


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-53])
def test_the_ends_of_the_uniform_generator_give_finite_draws(law, extreme, monkeypatch):
    monkeypatch.setattr(
        torch, "rand", lambda *shape, generator, dtype, device: torch.full(*shape, extreme, dtype=dtype)
    )
    assert bool(law.sample((2,)).isfinite().all())


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_float32_arguments_give_float32_results(law):
    x = torch.linspace(-0.3, 3, 50)
    for function in (law.cdf, law.log_prob):
        assert function(x).dtype == torch.float32
        torch.testing.assert_close(function(x), function(x.double()).float(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_quantiles_in_place_are_those_of_icdf(law):
    u = quantile_grid().numpy().copy()
    law.icdf_(u)
    np.testing.assert_allclose(u, law.icdf(quantile_grid()), rtol=1e-14, atol=1e-15)


def test_a_law_that_changes_icdf_alone_is_drawn_by_it():
    class Wide(Gumbel):
        def icdf(self, u):
            return 3 * super().icdf(u)

    class Named(Wide):
        pass

    for law in (Wide(), Named()):
        torch.testing.assert_close(draw(law, dtype=torch.float64), 3 * draw(Gumbel(), dtype=torch.float64))


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_large_draws_are_made_in_parts_of_the_same_numbers(noise, monkeypatch):
    whole = draw(noise, (70, 300))
    monkeypatch.setattr(_noise, "_PART", 997)
    torch.testing.assert_close(draw(noise, (70, 300)), whole)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_draws_can_be_vmapped_and_traced(noise):
    def shifted(x):
        return x + noise.sample((3,))

    assert torch.vmap(shifted, randomness="different")(torch.zeros(2, 3)).unique().numel() == 6
    assert torch.vmap(shifted, randomness="same")(torch.zeros(2, 3)).unique().numel() == 3
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert noise.sample((3, 20_000)).shape == (3, 20_000)


def test_any_object_with_sample_is_a_noise():
    class Uniform:
        def sample(self, shape, *, generator, dtype, device):
            return torch.rand(shape, generator=generator, dtype=dtype, device=device)

    assert isinstance(Uniform(), Noise)
    assert not isinstance(torch.rand, Noise)
