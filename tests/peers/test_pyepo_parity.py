"""Each operation of PyEPO 2.2.7 beside mapgrad's, with the same noise: equal to 1e-5 where both define the same.

Where they don't, `test_pyepo_differences.py` says which of the two agrees with the exact gradient. Needs PyEPO, which
the tests don't install: pip install pyepo==2.2.7 ortools clarabel.
"""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import losses

pyepo = pytest.importorskip("pyepo", reason="PyEPO isn't installed", exc_type=ImportError)

import pyepo.func as F  # noqa: E402 (after the skip)
from pyepo.metric import SPOError  # noqa: E402
from pyepo.model.ort.knapsack import knapsackModel  # noqa: E402
from pyepo.model.ort.shortestpath import shortestPathModel  # noqa: E402

ROWS, SAMPLES = 4, 5
KINDS = ("paths", "knapsack")


class Case:
    """One problem on both sides, with costs ĉ and c, a loss's gradient g, and noise in units of costs."""

    def __init__(self, kind):
        generator = torch.Generator().manual_seed(7)

        def rand(*shape):
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        self.minimize = kind == "paths"
        if self.minimize:
            self.model = shortestPathModel(grid=(3, 4))
            self.problem = mapgrad.data.ShortestPathTask(height=3, width=4).problem
            assert self.problem.edges.tolist() == [list(arc) for arc in self.model.arcs]
        else:
            weights, capacity = rand(2, 7).numpy() + 0.5, np.array([3.0, 2.5])
            self.model = knapsackModel(weights=weights, capacity=capacity)
            self.problem = mapgrad.Knapsack(weights, capacity)
        self.solver = mapgrad.get_solver("auto", self.problem)
        size = self.model.num_cost
        self.pred, self.true = rand(ROWS, size) + 0.2, rand(ROWS, size) + 0.2
        self.gradient = rand(ROWS, size) - 0.5
        self.z_true = self.best(self.true)
        self.noise = torch.randn(ROWS, SAMPLES, size, generator=generator, dtype=torch.float64)

    def best(self, costs):
        """Return the best states for costs."""
        return self.solver(-costs if self.minimize else costs)

    def injected(self, *, multiplicative=False):
        """Return the noise as a law of mapgrad's: added to −ĉ it has the other sign, as a factor of it the same."""
        sign = -1 if self.minimize and not multiplicative else 1
        return Injected(sign * self.noise.transpose(0, 1))

    def layer(self, estimator):
        """Return mapgrad's answer and gradient."""
        return self.answer(mapgrad.MAPLayer(self.solver, estimator, minimize=self.minimize))

    def answer(self, module):
        """Return what a module of either gives, and the gradient of ⟨g, z⟩."""
        pred = self.pred.clone().requires_grad_()
        z = module(pred)
        (gradient,) = torch.autograd.grad((z * self.gradient).sum(), pred)
        return z.detach(), gradient

    def loss(self, module, *true):
        """Return the value and gradient of a loss of either."""
        pred = self.pred.clone().requires_grad_()
        value = module(pred, *true)
        (gradient,) = torch.autograd.grad(value, pred)
        return value.detach(), gradient


class Injected:
    """Noise [S, B, n] that is given."""

    log_prob = mapgrad.Gaussian().log_prob
    log_mgf = mapgrad.Gaussian().log_mgf

    def __init__(self, noise):
        self.noise = noise

    def sample(self, shape, *, generator, dtype, device):
        assert tuple(shape) == tuple(self.noise.shape)
        return self.noise.to(dtype, copy=True)


class Distribution:
    """The same for PyEPO's I-MLE, [B, S, n]."""

    def __init__(self, noise):
        self.noise = noise

    def sample(self, size, *, device, dtype):
        assert tuple(size) == tuple(self.noise.shape)
        return self.noise.to(dtype)


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    return Case(request.param)


@pytest.fixture
def same_draws(case, monkeypatch):
    """Make PyEPO's Gaussian estimators draw the case's noise."""
    monkeypatch.setattr("pyepo.func.perturbed.torch.randn", lambda *shape, **how: case.noise.to(how["dtype"]))
    return {"n_samples": SAMPLES, "sigma": 0.3}


def check(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other.to(mine), rtol=1e-5, atol=1e-5)


def test_optimal_states_are_equal(case):
    for costs, z in zip(case.true, case.z_true, strict=True):
        case.model.setObj(costs.numpy())
        check([z], [torch.as_tensor(case.model.solve()[0])])


def test_blackbox(case):
    check(case.layer(mapgrad.Blackbox(2.0)), case.answer(F.DBB(case.model, lambd=2.0)))


def test_negative_identity_is_straight_through(case):
    check(case.layer(mapgrad.StraightThrough()), case.answer(F.NID(case.model)))


@pytest.mark.parametrize("baseline", ["loo", None])
def test_perturbed(case, same_draws, baseline):
    ours = mapgrad.Perturbed(case.injected(), samples=SAMPLES, temperature=0.3, baseline=baseline)
    theirs = F.DPO(case.model, variance_reduction=baseline is not None, **same_draws)
    check(case.layer(ours), case.answer(theirs))


@pytest.mark.parametrize("baseline", ["loo", None])
def test_multiplicative_perturbed(case, same_draws, baseline):
    noise = case.injected(multiplicative=True)
    ours = mapgrad.Perturbed(noise, samples=SAMPLES, temperature=0.3, baseline=baseline, multiplicative=True)
    theirs = F.DPOMul(case.model, variance_reduction=baseline is not None, **same_draws)
    check(case.layer(ours), case.answer(theirs))


@pytest.mark.parametrize("symmetric", [False, True])
def test_imle(case, symmetric):
    ours = mapgrad.IMLE(case.injected(), mapgrad.Step(2.0), samples=SAMPLES, temperature=0.3, symmetric=symmetric)
    drawn = Distribution(case.noise)
    theirs = F.IMLE(case.model, n_samples=SAMPLES, sigma=0.3, lambd=2.0, two_sides=symmetric, distribution=drawn)
    check(case.layer(ours), case.answer(theirs))


@pytest.mark.parametrize("symmetric", [False, True])
def test_adaptive_imle_in_its_first_step(case, symmetric):
    target = mapgrad.AdaptiveStep(norm="batch")
    ours = mapgrad.IMLE(case.injected(), target, samples=SAMPLES, temperature=0.3, symmetric=symmetric)
    drawn = Distribution(case.noise)
    theirs = F.AIMLE(case.model, n_samples=SAMPLES, sigma=0.3, two_sides=symmetric, distribution=drawn)
    check(case.layer(ours), case.answer(theirs))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_spo_plus(case, reduction):
    how = {"reduction": reduction}
    values = (case.true * case.z_true).sum(dim=1, keepdim=True)
    theirs = case.loss(F.SPOPlus(case.model, **how), case.true, case.z_true, values)
    check(case.loss(losses.SPOPlus(case.solver, minimize=case.minimize, **how), case.true, case.z_true), theirs)


@pytest.mark.parametrize("central", [False, True])
def test_directional_gradient(case, central):
    ours = losses.DirectionalGradient(case.solver, width=0.7, central=central, minimize=case.minimize)
    check(case.loss(ours, case.true), case.loss(F.PG(case.model, sigma=0.7, two_sides=central), case.true))


def test_fenchel_young_has_an_equal_gradient(case, same_draws):
    ours = losses.FenchelYoung(case.solver, case.injected(), samples=SAMPLES, temperature=0.3, minimize=case.minimize)
    theirs = F.PFY(case.model, **same_draws)
    check(case.loss(ours, case.z_true)[1:], case.loss(theirs, case.z_true)[1:])


POOLED = {
    "NCE": losses.NoiseContrastive,
    "CMAP": losses.MAPContrastive,
    "lsLTR": losses.ListwiseRanking,
    "prLTR": losses.PairwiseRanking,
    "ptLTR": losses.PointwiseRanking,
}


@pytest.mark.parametrize("name", POOLED)
def test_losses_over_a_pool(case, name):
    others = case.best(torch.rand(30, case.pred.shape[1], generator=torch.Generator().manual_seed(1)).double() + 0.2)
    states = torch.cat([case.z_true, others])
    theirs = getattr(F, name)(case.model, dataset=_DataSet(case, states))
    ours = POOLED[name](case.solver, minimize=case.minimize)
    ours.pool.add(states)
    true = (case.z_true,) if name in ("NCE", "CMAP") else (case.true,)
    check(case.loss(ours, *true), case.loss(theirs, *true))
    assert len(ours.pool) == len(theirs.solpool)


class _DataSet(pyepo.data.dataset.optDataset):
    """States that a loss's pool begins with."""

    def __init__(self, case, states):
        self.sols, self.costs = states, case.true


@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_frank_wolfe(case, weight):
    theta = -case.pred if case.minimize else case.pred
    shift = theta.mean(dim=1, keepdim=True) if case.problem.constant_sums else 0.0
    width = weight * (theta - shift).square().mean(dim=1).sqrt()
    layer = mapgrad.MAPLayer(case.solver, mapgrad.FrankWolfe(weight), minimize=case.minimize)
    ours, gradient = case.answer(layer)
    for row in range(ROWS):
        theirs = F.RFWO(case.model, lambd=float(width[row]), tol=1e-12)
        pred = case.pred[row : row + 1].clone().requires_grad_()
        mu = theirs(pred)
        (slope,) = torch.autograd.grad((mu * case.gradient[row]).sum(), pred)
        unit = theta[row] / theta[row].norm()
        check([ours[row], gradient[row]], [mu[0].detach(), slope[0] - unit * (unit @ slope[0])])


def test_regularised_fenchel_young(case):
    ours = losses.FenchelYoung(case.solver, losses.Quadratic(), temperature=0.5, minimize=case.minimize)
    check(case.loss(ours, case.z_true), case.loss(F.RFY(case.model, lambd=0.5, tol=1e-12), case.z_true))


def test_cave_with_the_exact_projection(case):
    pytest.importorskip("clarabel")
    program = case.problem.to_ilp()
    rows, unit = program.matrix.toarray(), np.eye(program.num_vars)
    normals = []
    for z in case.z_true.numpy():
        ends = rows @ z
        binding = [rows[np.isclose(ends, program.row_upper)], -rows[np.isclose(ends, program.row_lower)]]
        normals.append(torch.as_tensor(np.vstack([*binding, unit[z == 1], -unit[z == 0]])))
    padded = torch.nn.utils.rnn.pad_sequence(normals, batch_first=True)
    theirs = F.CaVE(case.model, max_iter=200)
    check(case.loss(losses.CaVE(case.solver, minimize=case.minimize), case.z_true), case.loss(theirs, padded))


def test_regret(case):
    ours = losses.normalized_regret(case.solver, case.pred, case.true, minimize=case.minimize)
    check([ours], [torch.as_tensor(SPOError(case.pred.numpy(), case.true.numpy(), case.model))])


@pytest.mark.parametrize("degree", [1, 4])
def test_generators_have_the_same_formulas(degree):
    """From the features and the noise that PyEPO draws, which begin with its B."""
    rows, features, how = 20, 5, {"deg": degree, "noise_width": 0.5, "seed": 3}
    for is_path in (True, False):
        stream = np.random.RandomState(3)
        if is_path:
            x, costs = pyepo.data.shortestpath.genData(rows, features, (3, 4), **how)
            task = mapgrad.data.ShortestPathTask(height=3, width=4, degree=degree)
        else:
            _, x, costs = pyepo.data.knapsack.genData(rows, features, 8, dim=2, **how)
            task = mapgrad.data.KnapsackTask(items=8, degree=degree)
            stream.choice(range(300, 800), size=(2, 8))
        matrix = stream.binomial(1, 0.5, (costs.shape[1], features))
        assert np.array_equal(stream.normal(0, 1, (rows, features)), x)
        noise = stream.uniform(0.5, 1.5, costs.shape)
        np.testing.assert_allclose(task._costs(x @ matrix.T / features**0.5 + 3, noise), costs, rtol=1e-5)


def test_sum_of_gamma_is_the_same_law():
    ours, theirs = mapgrad.SumOfGamma(5, terms=10), F.utils.sumGammaDistribution(kappa=5, n_iterations=10, seed=3)
    drawn = theirs.sample((200_000,), device="cpu", dtype=torch.float64)
    assert float(drawn.mean()) == pytest.approx(ours.mean, abs=5 * ours.std / len(drawn) ** 0.5)
    assert float(drawn.var()) == pytest.approx(ours.variance, rel=0.03)
