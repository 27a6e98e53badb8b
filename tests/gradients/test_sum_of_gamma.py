import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import special, stats

from mapgrad import MapgradError
from mapgrad.gradients import Gumbel, SumOfGamma, _sum_of_gamma
from mapgrad.gradients._sum_of_gamma import _log_gamma

PROBABILITIES = [1e-15, 1e-6, 0.01, 0.3, 0.7, 0.99, 1 - 1e-6, 1 - 1e-15]
QUANTILES = {
    # of these doubles, by Newton's method on the inverse Laplace transform in 40 digits (mpmath)
    0.3: [
        -8.195959800603475,
        -5.49371369070448,
        -2.540086150300727,
        0.5665579463344268,
        2.943420343328597,
        8.4540581355316,
        19.659496290538954,
        42.20458442512297,
    ],
    2.5: [
        -1.7664859700949742,
        -1.3820963133231199,
        -0.898571480724297,
        -0.24571374428290807,
        0.4411135802980394,
        3.0688310149644993,
        11.518965808256267,
        31.656282495766586,
    ],
    10: [
        -0.5776150323657829,
        -0.4783797336339415,
        -0.3485589184986649,
        -0.15431361509764338,
        0.09492316461377355,
        1.697858648071168,
        9.463208734640636,
        29.22192316822621,
    ],
    50: [
        -0.1475339911773446,
        -0.12745510073759453,
        -0.10074945101043943,
        -0.05861187016533544,
        0.003320299752309984,
        0.7566539616781364,
        7.796528454013523,
        27.362190184739994,
    ],
}


def logits(largest, count):
    return torch.linspace(-largest, largest, count, dtype=torch.float64)


@pytest.mark.parametrize("kappa", [1, 2, 5, 10, 20])
def test_kappa_copies_sum_to_a_gumbel_variable(kappa):
    draws = SumOfGamma(kappa).sample(
        (40_000, kappa), generator=torch.Generator().manual_seed(kappa), dtype=torch.float64
    )
    assert stats.kstest(np.asarray(draws.sum(dim=1)), stats.gumbel_r.cdf).pvalue > 0.01


def test_two_halves_convolve_to_the_gumbel_density():
    half = SumOfGamma(2)
    y = torch.linspace(-3, 40, 43_001, dtype=torch.float64)
    for x in (-2.0, 0.0, 1.0, 8.0, 20.0):
        convolution = torch.trapezoid((half.log_prob(y) + half.log_prob(x - y)).exp(), y)
        assert float(convolution) == pytest.approx(stats.gumbel_r.pdf(x), rel=1e-8)


def test_kappa_one_is_the_gumbel_law():
    ours, truth = SumOfGamma(1), Gumbel()
    x = truth.icdf(torch.sigmoid(logits(36, 20_001))).requires_grad_()
    torch.testing.assert_close(ours.log_prob(x).exp(), truth.log_prob(x).exp(), rtol=0, atol=1e-12)
    (ours_score,) = torch.autograd.grad(ours.log_prob(x).sum(), x)
    (true_score,) = torch.autograd.grad(truth.log_prob(x).sum(), x)
    torch.testing.assert_close(ours_score, true_score, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kappa", QUANTILES)
def test_quantiles_are_exact_to_1e_minus_9_of_the_scale(kappa):
    law = SumOfGamma(kappa)
    u = torch.tensor(PROBABILITIES, dtype=torch.float64)
    errors = law.icdf(u) - torch.tensor(QUANTILES[kappa], dtype=torch.float64)
    assert float(errors.abs().max()) < 1e-9 * law.variance**0.5


def test_quantiles_are_exact_in_every_cell():
    u = np.random.default_rng(0).uniform(size=200_000)
    u = np.concatenate([u, 10 ** -np.random.default_rng(1).uniform(0, 15.9, 200_000)])
    u = np.concatenate([u, 1 - u])
    left = np.log(-np.log(u, where=u > 0, out=np.ones_like(u)))
    truth = -np.where(u < 0.5, left, np.log(-np.log1p(-(1 - u))))
    ours = u.copy()
    SumOfGamma(1).icdf_(ours)
    assert np.abs(ours - truth).max() < 1e-10
    assert np.array_equal(ours, SumOfGamma(1).icdf(torch.as_tensor(u)))


def test_the_tails_are_right_to_probabilities_of_1e_minus_15():
    ours, truth = SumOfGamma(1), Gumbel()
    u = torch.tensor([1e-15, 1e-12, 1e-6, 1 - 1e-6, 1 - 1e-12, 1 - 1e-15], dtype=torch.float64)
    torch.testing.assert_close(ours.icdf(u), truth.icdf(u), rtol=1e-7, atol=0)
    # P(ε > x) tends to e^(−x) x^(1/κ) / (x Γ(1/κ)) as x grows, by the nearest singularity of Γ(1 − s)^(1/κ)
    x = torch.tensor([30.0], dtype=torch.float64)
    leading = -x + (1 / 5 - 1) * x.log() - math.lgamma(1 / 5)
    assert float((SumOfGamma(5).log_prob(x) - leading).abs()) < 0.05


@pytest.mark.parametrize("kappa", [1e-4, 0.03, 0.5, 3.7, 300, 1000])
def test_mean_variance_and_mass_hold_for_every_kappa(kappa):
    law = SumOfGamma(kappa)
    logit = logits(36, 200_001)
    x = law.icdf(torch.sigmoid(logit))
    weights = torch.sigmoid(logit) * torch.sigmoid(-logit)
    mean = torch.trapezoid(x * weights, logit)
    variance = torch.trapezoid((x - law.mean).square() * weights, logit)
    assert float(mean) == pytest.approx(np.euler_gamma / kappa, abs=1e-6 * law.variance**0.5)
    assert float(variance) == pytest.approx(np.pi**2 / (6 * kappa), rel=1e-6)
    assert float(torch.trapezoid(law.log_prob(x).exp(), x)) == pytest.approx(1, abs=1e-6)


def test_beyond_the_table_the_law_goes_on():
    law = SumOfGamma(5)
    x = torch.tensor([-30.0, -3.0, 60.0, 500.0], dtype=torch.float64, requires_grad=True)
    log_density = law.log_prob(x)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    assert bool((log_density < -40).all())
    assert score.tolist() == pytest.approx([score[0].item()] * 2 + [-1.0] * 2, abs=0.05)
    assert float(score[0]) > 100
    assert law.cdf(x).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-17)
    assert bool(law.icdf(torch.tensor([0.0, 1e-300, 1.0], dtype=torch.float64)).isfinite().all())


def test_a_table_born_in_inference_mode_serves_autograd_later():
    law = SumOfGamma(17.25)
    with torch.inference_mode():
        law.sample((2,))
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    law.log_prob(x).backward()
    assert x.grad is not None
    assert float(x.grad) < 0


@pytest.mark.parametrize(
    ("kappa", "terms", "mean", "variance"), [(5, 10, 0.12528, 0.30995), (5, 100, 0.11644, 0.32700)]
)
def test_finite_sums_have_the_published_moments(kappa, terms, mean, variance):
    assert (SumOfGamma(kappa, terms).mean, SumOfGamma(kappa, terms).variance) == pytest.approx(
        (mean, variance), abs=1e-5
    )


def test_many_terms_approach_the_limit():
    draws = SumOfGamma(5, terms=1000).sample((5_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stats.kstest(np.asarray(SumOfGamma(5).cdf(draws)), "uniform").pvalue > 0.01


def test_one_term_is_a_gamma_variable():
    draws = SumOfGamma(3, terms=1).sample((20_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stats.kstest(np.asarray(draws), stats.gamma(1 / 3).cdf).pvalue > 0.01


@pytest.mark.parametrize("kappa", [50, 20_000])
def test_tiny_gamma_shapes_keep_the_moments(kappa):
    noise = SumOfGamma(kappa, terms=10)
    draws = noise.sample((200_000,), generator=torch.Generator().manual_seed(0))
    squares = (draws - noise.mean).square()
    assert abs(float(draws.mean()) - noise.mean) < 4 * (noise.variance / 200_000) ** 0.5
    assert abs(float(squares.mean()) - noise.variance) < 4 * float(squares.std()) / 200_000**0.5
    assert float(draws.min()) >= np.float32(-math.log(10) / kappa)


@pytest.mark.parametrize("name", ["icdf", "cdf", "log_prob"])
def test_finite_sums_have_no_density(name):
    assert SumOfGamma(5).invertible
    assert not SumOfGamma(5, terms=10).invertible
    with pytest.raises(MapgradError, match=rf"SumOfGamma\(kappa=5, terms=10\) has no {name}: .* SumOfGamma\(5\)"):
        getattr(SumOfGamma(5, terms=10), name)(torch.full((2,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("kappa", [0, -1.0, math.inf, math.nan, "5", None])
@pytest.mark.parametrize("terms", [None, 10])
def test_kappa_must_be_positive(kappa, terms):
    with pytest.raises(ValueError, match="kappa must be a positive finite number, got"):
        SumOfGamma(kappa, terms)


@pytest.mark.parametrize("kappa", [1e-5, 1e5])
def test_kappa_beyond_the_table_points_to_terms(kappa):
    with pytest.raises(ValueError, match=r"from 0\.0001 to 10000, got .*: set terms, such as terms=10"):
        SumOfGamma(kappa)
    assert SumOfGamma(kappa, terms=10).variance == pytest.approx(sum(i**-2 for i in range(1, 11)) / kappa)


@pytest.mark.parametrize("terms", [0, -3, 2.5, "10"])
def test_terms_must_be_a_positive_integer(terms):
    with pytest.raises((TypeError, ValueError), match="terms must be an int of at least 1 or None, got"):
        SumOfGamma(5, terms)


def test_log_gamma_is_continuous_and_right():
    imaginary = np.linspace(-3000, 3000, 60_001)
    for real in (0.5, 0.6, 1.02, 5.0, 201.0):
        z = real + 1j * imaginary
        truth = special.loggamma(z)
        assert float(np.max(np.abs(_log_gamma(z) - truth) / np.maximum(1, np.abs(truth)))) < 2e-14


def test_a_table_is_built_once_by_many_threads_and_kept(monkeypatch):
    monkeypatch.setattr(_sum_of_gamma, "_tables", {})
    built, build = [], _sum_of_gamma._build
    monkeypatch.setattr(_sum_of_gamma, "_build", lambda kappa: built.append(kappa) or build(kappa))
    laws = [SumOfGamma(3 + index % 2 / 64) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        first, second, *others = pool.map(lambda law: law.icdf(torch.full((2,), 0.25, dtype=torch.float64)), laws)
    assert sorted(built) == [3, 3 + 1 / 64]
    assert all(torch.equal(other, (first, second)[index % 2]) for index, other in enumerate(others))


def test_few_tables_are_kept(monkeypatch):
    monkeypatch.setattr(_sum_of_gamma, "_tables", {})
    monkeypatch.setattr(_sum_of_gamma, "_TABLES_KEPT", 2)
    for kappa in (2, 3, 2, 4):
        SumOfGamma(kappa).sample((2,))
    assert [kappa for kappa, _ in _sum_of_gamma._tables] == [3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_a_table_is_built_builds_its_own():
    with _sum_of_gamma._building, ThreadPoolExecutor(1) as pool:
        code = pool.submit(draw_in_a_child).result(timeout=60)
    assert code == 0


def draw_in_a_child():
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if SumOfGamma(6.125).sample((2,)).isfinite().all() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
