"""Values and gradients against the formulas over all states, differentiated by autograd."""

import pytest
import torch

import mapgrad
import mapgrad.losses
from mapgrad.pool import StatePool


def best_states(states, values):
    return states[values.argmax(dim=-1)]


def spo_plus(states, values, theta, t, z_true):
    inner = (theta * z_true).flatten(t.ndim - states.ndim + 1).sum(-1)
    of_true = (t * z_true).flatten(t.ndim - states.ndim + 1).sum(-1)
    return values(states, 2 * theta - t).amax(-1) - 2 * inner + of_true


def perceptron(states, values, theta, t, z_true):
    return values(states, theta).amax(-1) - (theta * z_true).flatten(t.ndim - states.ndim + 1).sum(-1)


def hinge(states, values, theta, t, z_true):
    hamming = (states - z_true.unsqueeze(t.ndim - states.ndim + 1)).abs().flatten(-states.ndim + 1).sum(-1)
    best = (hamming + 1.5 * values(states, theta)).amax(-1)
    return best - 1.5 * (theta * z_true).flatten(t.ndim - states.ndim + 1).sum(-1)


def backward_difference(states, values, theta, t, z_true):
    return (values(states, theta - 2 * t).amax(-1) - values(states, theta).amax(-1)) / 2


def central_difference(states, values, theta, t, z_true):
    return (values(states, theta - 2 * t).amax(-1) - values(states, theta + 2 * t).amax(-1)) / 4


def of_true(z_true, theta, states):
    return (theta * z_true).flatten(theta.ndim - states.ndim + 1).sum(-1, keepdim=True)


def noise_contrastive(states, values, theta, t, z_true):
    return (values(states, theta) - of_true(z_true, theta, states)).mean(-1)


def contrastive_map(states, values, theta, t, z_true):
    return (values(states, theta) - of_true(z_true, theta, states)).amax(-1)


def pointwise(states, values, theta, t, z_true):
    return (values(states, theta) - values(states, t)).square().mean(-1)


def pairwise(states, values, theta, t, z_true):
    excess = (0.5 + values(states, theta) - of_true(z_true, theta, states)).clamp(min=0)
    excess = excess.masked_fill(values(states, t) == values(states, t).amax(-1, keepdim=True), 0.0)
    return excess.sum(-1) / (len(states) - 1)


def listwise(states, values, theta, t, z_true):
    p, q = ((values(states, each) / 0.7).softmax(-1) for each in (t, theta))
    return -(p * q.log()).sum(-1)


FORMULAS = {
    "SPO+": (spo_plus, mapgrad.losses.SPOPlus, {}, "true"),
    "Fenchel-Young": (perceptron, mapgrad.losses.FenchelYoung, {"smoothing": None}, "z_true"),
    "SSVM": (hinge, mapgrad.losses.StructuredSVM, {"weight": 1.5}, "z_true"),
    "PG": (central_difference, mapgrad.losses.DirectionalGradient, {"width": 2.0}, "true"),
    "PG one-sided": (backward_difference, mapgrad.losses.DirectionalGradient, {"width": 2.0, "central": False}, "true"),
    "NCE": (noise_contrastive, mapgrad.losses.NoiseContrastive, {}, "z_true"),
    "contrastive MAP": (contrastive_map, mapgrad.losses.MAPContrastive, {}, "z_true"),
    "pointwise": (pointwise, mapgrad.losses.PointwiseRanking, {}, "true"),
    "pairwise": (pairwise, mapgrad.losses.PairwiseRanking, {"margin": 0.5}, "true"),
    "listwise": (listwise, mapgrad.losses.ListwiseRanking, {"temperature": 0.7}, "true"),
}


def all_states(case):
    pool = StatePool(case.problem)
    pool.add(case.states)
    return pool


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient(case, draw, values, batch, name, minimize):
    formula, loss_class, options, target = FORMULAS[name]
    if issubclass(loss_class, mapgrad.losses.PooledLoss):
        options = {"pool": all_states(case), "solve_ratio": 0.5, **options}
    sign = -1 if minimize else 1
    pred = draw(*batch, *case.problem.shape).requires_grad_()
    true = draw(*batch, *case.problem.shape, seed=1)
    z_true = best_states(case.states, values(case.states, sign * true))
    rows = formula(case.states, values, sign * pred, sign * true, z_true)
    weights = draw(*batch, seed=2)
    (expected,) = torch.autograd.grad((rows * weights).sum(), pred)
    target = {"true": true, "z_true": z_true}[target]
    for reduction, reduced in {"sum": rows.sum(), "mean": rows.mean(), "none": rows}.items():
        loss = loss_class(case.solver, minimize=minimize, reduction=reduction, return_solution=True, **options)
        found, z = loss(pred, target)
        torch.testing.assert_close(found, reduced)
        assert case.problem.contains(z).all()
        assert z.shape == pred.shape
        assert not z.requires_grad
    (gradient,) = torch.autograd.grad((found * weights).sum(), pred)
    torch.testing.assert_close(gradient, expected)
    assert batch != (2, 3) or expected.abs().sum() > 0


def test_margins(case, draw, values):
    pred, margin = draw(4, *case.problem.shape).requires_grad_(), draw(4, *case.problem.shape, seed=1)
    z_true = best_states(case.states, values(case.states, draw(4, *case.problem.shape, seed=2)))
    rows = values(case.states, margin + pred).amax(-1) - ((margin + pred) * z_true).flatten(1).sum(-1)
    found = mapgrad.losses.StructuredSVM(case.solver, reduction="none")(pred, z_true, margin)
    torch.testing.assert_close(found, rows)
    expected, gradient = (torch.autograd.grad(each.sum(), pred)[0] for each in (rows, found))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("noise", [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.SumOfGamma(2.0, terms=3)], ids=str)
def test_perturbed_losses_with_injected_noise(case, draw, values, batch, noise, multiplicative):
    fixed = draw(3, *batch, *case.problem.shape, seed=3)

    class Injected:
        log_mgf = staticmethod(noise.log_mgf)

        def sample(self, shape, *, generator, dtype, device):
            return fixed.reshape(shape).to(dtype)

    pred = draw(*batch, *case.problem.shape).requires_grad_()
    z_true = best_states(case.states, values(case.states, draw(*batch, *case.problem.shape, seed=1)))
    tau = 0.7
    rows = pred * (tau * fixed - noise.log_mgf(tau)).exp() if multiplicative else pred + tau * fixed
    terms = values(case.states, rows).amax(-1) - (rows * z_true).flatten(1 + len(batch)).sum(-1)
    loss = mapgrad.losses.FenchelYoung(
        case.solver, Injected(), samples=3, temperature=tau, multiplicative=multiplicative, reduction="none"
    )
    found = loss(pred, z_true)
    torch.testing.assert_close(found, terms.mean(0))
    expected, gradient = (torch.autograd.grad(each.sum(), pred)[0] for each in (terms.mean(0), found))
    torch.testing.assert_close(gradient, expected)
    z = best_states(case.states, values(case.states, rows.detach()))
    factors = (tau * fixed - noise.log_mgf(tau)).exp() if multiplicative else 1
    torch.testing.assert_close(gradient, (factors * (z - z_true)).mean(0))


@pytest.mark.parametrize("law", [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Laplace(), mapgrad.Logistic()], ids=str)
def test_multiplicative_noise_has_mean_one(law):
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(1, 1))
    loss = mapgrad.losses.FenchelYoung(solver, law, multiplicative=True, temperature=0.3)
    noise = law.sample((400_000, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors = loss.perturbed(torch.ones(1, dtype=torch.float64), 0.3 * noise)
    assert abs(factors.mean() - 1) < 4 * factors.std() / len(noise) ** 0.5


def test_the_gradient_is_a_finite_difference_of_the_value(case, draw):
    pred, true = draw(*case.problem.shape), draw(*case.problem.shape, seed=1)
    z_true = case.solver(true)
    losses = [
        (mapgrad.losses.SPOPlus(case.solver), true),
        (mapgrad.losses.DirectionalGradient(case.solver), true),
        (mapgrad.losses.StructuredSVM(case.solver), z_true),
        (mapgrad.losses.FenchelYoung(case.solver, None), z_true),
        (mapgrad.losses.NoiseContrastive(case.solver, all_states(case)), z_true),
        (mapgrad.losses.MAPContrastive(case.solver, all_states(case)), z_true),
        (mapgrad.losses.PointwiseRanking(case.solver, all_states(case)), true),
        (mapgrad.losses.PairwiseRanking(case.solver, all_states(case), margin=0.3), true),
        (mapgrad.losses.ListwiseRanking(case.solver, all_states(case)), true),
        (mapgrad.losses.LAVA(case.solver, all_states(case)), z_true),
        (mapgrad.losses.CaVE(case.solver), z_true),
    ]
    for loss, target in losses:
        torch.autograd.gradcheck(loss, (pred.clone().requires_grad_(), target))


def test_hamming_margin_of_states_with_fixed_entries():
    problem = mapgrad.IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[2], upper=[1, 1, 0])
    theta, z_true = torch.tensor([0.25, -0.5, 3.0]), torch.tensor([1.0, 0.0, 0.0])
    states = mapgrad.exact.enumerate_states(problem).to(theta)
    wanted = ((states - z_true).abs().sum(dim=1) + states @ theta).max() - z_true @ theta
    loss = mapgrad.losses.StructuredSVM(mapgrad.get_solver("search", problem))(theta, z_true)
    torch.testing.assert_close(loss, wanted)
