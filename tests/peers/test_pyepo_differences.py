"""Where PyEPO 2.2.7 and mapgrad define an operation differently: which of the two agrees with the exact gradient.

The exact ones come from all states: expectations over noise by quadrature, or from many draws of the argmax over them.
"""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import losses
from mapgrad.exact import enumerate_states, topk_marginals

pytest.importorskip("pyepo", reason="PyEPO isn't installed", exc_type=ImportError)

import pyepo.func as F
from pyepo.data.dataset import optDataset
from pyepo.model.ort.knapsack import knapsackModel
from pyepo.model.ort.shortestpath import shortestPathModel

SAMPLES = 10


class _Drawn:
    """Gumbel noise for PyEPO's I-MLE, which takes any object like this."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def sample(self, size, *, device, dtype):
        return mapgrad.Gumbel().sample(size, generator=self.generator, dtype=dtype, device=device)


class _States(optDataset):
    """States for a loss's pool to begin with."""

    def __init__(self, states):
        self.sols = states


def _theta(rows, size, seed=3):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def paths():
    model = shortestPathModel(grid=(3, 3))
    problem = mapgrad.data.ShortestPathTask(height=3, width=3).problem
    return model, mapgrad.get_solver("auto", problem), enumerate_states(problem).double()


@pytest.fixture(scope="module")
def subsets():
    """2 of 6 items, which PyEPO has as a knapsack whose values are far above 0."""
    return knapsackModel(weights=np.ones((1, 6)), capacity=[2.0]), mapgrad.get_solver("topk", mapgrad.KSubset(6, 2))


def _gradient(module, theta, g):
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad((module(theta) * g).sum(), theta)[0]


def _cosine(a, b):
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def _exact(theta, g):
    return _gradient(lambda x: topk_marginals(x, 2, mapgrad.Gumbel()), theta, g)


@pytest.mark.parametrize("seed", range(5))
def test_default_imle_points_along_the_exact_gradient(subsets, seed):
    """PyEPO's default is one side and λ = 10; two sides are its option."""
    model, solver = subsets
    theta, g = _theta(1, 6, seed + 3), _theta(1, 6, seed + 53)
    exact = _exact(theta, g)
    ours = _gradient(mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), samples=10_000), seed=0), theta, g)
    theirs, both_sides = (
        _gradient(F.IMLE(model, n_samples=1000, distribution=_Drawn(), two_sides=sides), theta + 100, g)
        for sides in (False, True)
    )
    assert _cosine(ours, exact) > 0.93
    assert _cosine(theirs, exact) < 0.88
    assert _cosine(ours, exact) > _cosine(theirs, exact) + 0.1
    assert 0.86 < _cosine(both_sides, exact) < 0.99
    assert 0.8 < float(ours.norm() / exact.norm()) < 1.45


def test_default_imle_does_not_depend_on_the_losss_scale(subsets):
    model, solver = subsets
    theta, g = _theta(64, 6), _theta(64, 6, seed=4) / 512  # a mean over a batch of 512
    ours = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), samples=SAMPLES), seed=0)
    theirs = F.IMLE(model, n_samples=SAMPLES, distribution=_Drawn())
    alive = [
        float((_gradient(*each, g) != 0).any(dim=1).double().mean()) for each in ((ours, theta), (theirs, theta + 100))
    ]
    assert alive[0] > 0.9
    assert alive[1] < 0.5
    assert bool((_exact(theta, g) != 0).any(dim=1).all())


def test_projection_leaves_out_what_no_state_can_follow(subsets):
    model, solver = subsets
    theta, g = _theta(16, 6), _theta(16, 6, seed=4) + 10.0
    exact = _exact(theta, g)
    torch.testing.assert_close(exact, _exact(theta, g - 10.0))
    ours = _gradient(mapgrad.MAPLayer(solver, mapgrad.Identity()), theta, g)
    assert _cosine(ours, exact) > 0.7
    assert _cosine(_gradient(F.NID(model), theta + 100, g), exact) < 0.2


def test_adaptive_step_aims_at_a_number_of_entries(paths):
    """AIMLE wants one entry a sample to move; PyEPO compares a share, at most 1, with it, so that α only grows."""
    model, solver, states = paths
    target = mapgrad.AdaptiveStep(norm="batch")
    ours = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), target, samples=SAMPLES), minimize=True, seed=0)
    theirs = F.AIMLE(model, n_samples=SAMPLES, distribution=_Drawn())
    costs, g = _theta(8, 12).abs() + 0.1, _theta(8, 12, seed=4)
    for _ in range(20):
        _gradient(ours, costs, g)
        _gradient(theirs, costs, g)
    assert theirs.alpha == pytest.approx(1.02)
    assert target.stats["beta"] == pytest.approx(0.98)
    assert float((states[0] - states[1]).abs().sum()) > 1  # any other state differs in more entries than one


@pytest.mark.parametrize("is_best", [False, True])
def test_multiplicative_fenchel_young_has_the_exact_gradient_in_the_mean(paths, is_best):
    """Ours is mean_s e_s ∘ (z_s − z*), PyEPO's mean_s e_s ∘ z_s − z*: the same in the mean, as e is 1 there."""
    model, solver, states = paths
    costs, sigma, rows = _theta(1, 12).abs() + 0.1, 0.5, 200
    others = _theta(1, 12, seed=9).abs() + 0.1
    z_true = solver(-(costs if is_best else others))
    how = {"samples": SAMPLES, "temperature": sigma, "multiplicative": True, "minimize": True, "seed": 0}
    ours = losses.FenchelYoung(solver, reduction="none", **how)
    theirs = F.PFYMul(model, n_samples=SAMPLES, sigma=sigma, reduction="none")
    noise = torch.randn(100_000, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factors = (sigma * noise - sigma**2 / 2).exp()
    exact = z_true[0] - (factors * states[(factors * costs @ states.T).argmin(dim=1)]).mean(dim=0)
    for loss in (ours, theirs):
        pred = costs.expand(rows, -1).clone().requires_grad_()
        values = loss(pred, z_true.expand(rows, -1))  # equal rows, each with noise of its own
        (gradient,) = torch.autograd.grad(values.sum(), pred)
        error = (gradient.std(dim=0).square() / rows + factors.var(dim=0) / len(factors)).sqrt()
        assert ((gradient.mean(dim=0) - exact).abs() <= 5 * error).all()
        assert bool((values < 0).any()) == (is_best and loss is theirs)


def test_fenchel_young_is_zero_where_all_samples_agree(paths):
    model, solver, states = paths
    costs = 100 * (_theta(4, 12).abs() + 0.1)
    z_true = solver(-costs)
    ours = losses.FenchelYoung(solver, mapgrad.Gaussian(), samples=SAMPLES, minimize=True, reduction="none", seed=0)
    theirs = F.PFY(model, n_samples=SAMPLES, reduction="none")
    agree = (ours(costs, z_true) == 0) & (theirs(costs, z_true) != 0)
    assert bool(agree.any())
    assert len(states) == 6


def test_frank_wolfe_gradients_are_those_of_each_ones_weight(paths):
    """PyEPO's weight is a number, ours follows θ's scale: both derivatives are exact, of different functions."""
    model, solver, _ = paths
    costs, g, step = _theta(1, 12).abs() + 0.1, _theta(1, 12, seed=4), 1e-5
    layer = mapgrad.MAPLayer(solver, mapgrad.FrankWolfe(1.0), minimize=True)
    for module, error in ((layer, 1e-6), (F.RFWO(model, lambd=0.8), 1e-3)):
        gradient = _gradient(module, costs, g)[0]
        for place in range(12):
            shift = torch.zeros_like(costs)
            shift[0, place] = step
            slope = ((module(costs + shift) - module(costs - shift)) * g).sum() / (2 * step)
            assert float(gradient[place]) == pytest.approx(float(slope), abs=error)
    along = (_gradient(layer, costs, g) * costs).sum()
    assert float(along) == pytest.approx(0, abs=1e-9)


def test_listwise_cross_entropy_of_unlikely_states(paths):
    """PyEPO gives each state a chance of at least 1e-8, which counts where its logarithm is large."""
    model, solver, states = paths
    true = 1e4 * (_theta(3, 12).abs() + 0.1)
    pred = true.roll(1, dims=1)
    p, log_q = (-true @ states.T).softmax(dim=1), (-pred @ states.T).log_softmax(dim=1)
    exact = -(p * log_q).sum(dim=1)
    ours = losses.ListwiseRanking(solver, minimize=True, reduction="none")
    ours.pool.add(states)
    theirs = F.lsLTR(model, dataset=_States(states), reduction="none")
    torch.testing.assert_close(ours(pred, true), exact, rtol=1e-9, atol=1e-9)
    assert float((theirs(pred, true) - exact).abs().max()) > 1e-5


def test_zero_gradient_stays_zero_with_a_pool(paths):
    """PyEPO throws a coin for the forward pass and one for the backward pass: a pooled state less an exact one."""
    model, solver, states = paths
    costs = _theta(8, 12).abs() + 0.1
    zero = torch.zeros_like(costs)
    theirs = [F.DBB(model, solve_ratio=0.5, dataset=_States(states[:1])) for _ in range(30)]
    assert any(bool(_gradient(each, costs, zero).any()) for each in theirs)
    pooled = mapgrad.Pooled(solver.problem, mapgrad.Gumbel())
    layer = mapgrad.MAPLayer(solver, pooled, minimize=True, seed=0)
    assert not any(bool(_gradient(layer, costs, zero).any()) for _ in range(20))
