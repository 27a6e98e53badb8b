"""Temperatures relative to each row's own scale: what noise is drawn, and what gradient comes of it."""

import copy

import pytest
import torch

import mapgrad
from mapgrad import exact, losses
from mapgrad.gradients import Exact, Relative
from mapgrad.gradients._scale import row_scale
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(6, 2)
TREE = mapgrad.SpanningTree(4, [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)])
KNAPSACK = mapgrad.Knapsack([[3.0, 2.0, 4.0, 1.0, 5.0]], [7.0])
PROBLEMS = [SUBSET, mapgrad.Assignment(3), TREE, KNAPSACK]
ESTIMATORS = {
    "IMLE": lambda temperature: mapgrad.IMLE(mapgrad.Gumbel(), samples=3, temperature=temperature),
    "unscaled step": lambda temperature: mapgrad.IMLE(
        mapgrad.Gaussian(), mapgrad.Step(2.0), samples=2, temperature=temperature, target_temperature=temperature
    ),
    "AdaptiveIMLE": lambda temperature: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), temperature=temperature),
    "Identity": lambda temperature: mapgrad.gradients.Identity("both", mapgrad.Gumbel(), temperature=temperature),
    "StraightThrough": lambda temperature: mapgrad.gradients.StraightThrough(mapgrad.Gumbel(), temperature=temperature),
    "Perturbed": lambda temperature: mapgrad.gradients.Perturbed(samples=5, temperature=temperature),
}


def values(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def passed(problem, estimator, theta, slope, *, minimize=False, reduction="mean", rows=None):
    """A layer's states and the gradient of ⟨slope, z⟩ + ‖z‖² for θ."""
    solver = mapgrad.get_solver(BruteForce, problem)
    layer = mapgrad.MAPLayer(solver, estimator, minimize=minimize, reduction=reduction, seed=3)
    leaf = theta.clone().requires_grad_()
    z = layer(leaf, rows=rows)
    (slope * z + z.square()).sum().backward()
    return z.detach(), leaf.grad


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
@pytest.mark.parametrize(("reduction", "minimize"), [("mean", True), ("none", False)])
def test_each_row_is_as_with_the_number_that_its_scale_gives(name, problem, reduction, minimize):
    theta = values(4, *problem.shape) * torch.tensor([300.0, 0.01, 1.0, 5.0]).reshape(-1, *[1] * len(problem.shape))
    slope = values(*problem.shape, seed=1)
    z, gradient = passed(problem, ESTIMATORS[name](Relative(0.5)), theta, slope, minimize=minimize, reduction=reduction)
    scale = row_scale(-theta if minimize else theta, len(problem.shape), problem).flatten()
    for row, size in enumerate(scale):
        estimator = ESTIMATORS[name](0.5 * float(size))
        part = slice(row, row + 1)
        alone, slopes = passed(
            problem, estimator, theta[part], slope, minimize=minimize, reduction=reduction, rows=[row]
        )
        assert torch.equal(z.select(-1 - len(problem.shape), row), alone.select(-1 - len(problem.shape), 0))
        torch.testing.assert_close(gradient[row], slopes[0], rtol=1e-6, atol=1e-9 / float(size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_states_are_the_same_whatever_the_scale_and_what_the_problem_cannot_see(batch, dtype):
    theta = values(*batch, 6, dtype=dtype)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(temperature=Relative(1.0)), seed=0)

    def draw(rows):
        layer.keys = mapgrad.gradients.KeyStream(0)
        return layer.distribution(rows).sample((40,))

    first = draw(theta)
    assert first.shape == (40, *batch, 6)
    assert first.std(0).sum() > 0
    for factor in (2.0**-10, 2.0**12):
        assert torch.equal(draw(theta * factor), first)
    assert (draw(theta + 64.0) != first).float().mean() < 0.01
    masked = torch.cat([theta, theta.new_full((*batch, 1), -1e9)], dim=-1)
    scale = row_scale(masked, 1, mapgrad.KSubset(7, 2))
    ratio = row_scale(theta, 1, SUBSET) / scale  # where the typical distance lies, changes a little
    assert ((ratio > 0.25) & (ratio < 4)).all()
    forbidden = torch.cat([theta, theta.new_full((*batch, 1), -torch.inf)], dim=-1)
    ratio = row_scale(forbidden, 1, mapgrad.KSubset(7, 2)) / scale
    assert ((ratio > 0.25) & (ratio < 4)).all()


def test_rows_without_a_scale_are_drawn_evenly_and_have_a_finite_gradient():
    theta = torch.zeros(2, 6)
    theta[1] = 7.0
    estimator = mapgrad.IMLE(mapgrad.Gumbel(), samples=2000, temperature=Relative(0.3))
    z, gradient = passed(SUBSET, estimator, theta, values(6, seed=1, dtype=torch.float32))
    torch.testing.assert_close(z, torch.full((2, 6), 1 / 3), atol=0.06, rtol=0)
    assert gradient.isfinite().all()
    assert gradient.any(1).all()


def test_a_row_depends_on_itself_alone():
    theta, slope = values(5, 6) * 10, values(6, seed=1)
    estimator = mapgrad.IMLE(mapgrad.Gumbel(), samples=2, temperature=Relative(0.5))
    z, gradient = passed(SUBSET, estimator, theta, slope, rows=range(5))
    others = theta * torch.tensor([1e6, 1.0, 1e-6, 1.0, 0.0])[:, None]
    again, slopes = passed(SUBSET, estimator, others, slope, rows=range(5))
    assert torch.equal(z[[1, 3]], again[[1, 3]])
    assert torch.equal(gradient[[1, 3]], slopes[[1, 3]])


def test_a_row_whose_gradient_is_not_finite_loses_no_other():
    theta, slope = values(4, 6), values(4, 6, seed=1)
    for make in ESTIMATORS.values():
        _, expected = passed(SUBSET, make(Relative(0.5)), theta, slope)
        spoilt = slope.clone()
        spoilt[1, 2] = torch.nan
        _, gradient = passed(SUBSET, make(Relative(0.5)), theta, spoilt)
        assert gradient[1].isnan().all()
        torch.testing.assert_close(gradient[[0, 2, 3]], expected[[0, 2, 3]])


def test_parts_of_a_batch_have_their_own_scales(monkeypatch):
    theta, slope = values(40, 6) * torch.logspace(-3, 3, 40)[:, None], values(6, seed=1)
    whole = passed(SUBSET, ESTIMATORS["IMLE"](Relative(0.5)), theta, slope)
    monkeypatch.setattr("mapgrad.gradients._parts._SMALL", 0)
    monkeypatch.setattr("mapgrad.gradients._parts._PART_BYTES", 1000)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS["IMLE"](Relative(0.5)), seed=3)
    leaf = theta.clone().requires_grad_()
    z = layer(leaf)
    (slope * z + z.square()).sum().backward()
    assert torch.equal(z, whole[0])
    torch.testing.assert_close(leaf.grad, whole[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("name", ["IMLE", "Perturbed"])
def test_transforms(name):
    theta, slope = values(3, 6, dtype=torch.float32) * 50, values(6, seed=1, dtype=torch.float32)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS[name](Relative(0.5)), seed=1)

    def loss(rows):
        return (layer(rows) * slope).sum()

    def fresh():
        layer.keys = mapgrad.gradients.KeyStream(1)

    fresh()
    expected = torch.func.grad(loss)(theta)
    assert expected.abs().sum() > 0
    fresh()
    mapped = torch.func.vmap(torch.func.grad(loss), randomness="different")(theta)
    assert mapped.isfinite().all()
    fresh()
    leaf = theta.clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(leaf).backward()
    torch.testing.assert_close(leaf.grad, expected)


def test_the_score_gradient_is_that_of_the_mean_at_temperatures_held():
    problem, theta, slope = mapgrad.KSubset(4, 1), 20 * values(4), values(4, seed=1)
    tau = 0.7 * float(row_scale(theta, 1, problem))
    leaf = theta.clone().requires_grad_()
    estimator = mapgrad.gradients.Perturbed(mapgrad.Gumbel(), samples=200_000, temperature=Relative(0.7))
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), estimator, seed=0)
    (layer(leaf) * slope).sum().backward()
    truth = theta.clone().requires_grad_()  # with Gumbel noise and one-hot states, the Gibbs law
    (exact.marginals(problem, truth, tau) * slope).sum().backward()
    torch.testing.assert_close(leaf.grad, truth.grad, atol=0.02 * float(truth.grad.norm()), rtol=0)


def test_exact_means_and_gradients():
    problem = SUBSET
    theta = values(3, 6) * torch.tensor([100.0, 0.01, 1.0])[:, None]
    weights = values(3, 6, seed=1)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), Exact(problem, temperature=Relative(0.8)))
    leaf, truth = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    (layer(leaf).square() * weights).sum().backward()
    tau = 0.8 * row_scale(theta, 1, problem)
    means = exact.marginals(problem, truth / tau)
    (means.square() * weights).sum().backward()
    torch.testing.assert_close(layer(theta), means.detach())
    torch.testing.assert_close(leaf.grad, truth.grad)
    assert torch.equal(layer.eval()(theta), exact.map_state(problem, theta))


@pytest.mark.parametrize("minimize", [False, True])
def test_fenchel_young_losses_hold_the_temperature(minimize):
    theta = values(3, 6) * torch.tensor([100.0, 0.01, 1.0])[:, None]
    sign = -1 if minimize else 1
    z_true = exact.map_state(SUBSET, sign * values(3, 6, seed=1))
    solver = mapgrad.get_solver("topk", SUBSET)
    loss = losses.FenchelYoung(
        solver, samples=3, temperature=Relative(0.5), minimize=minimize, reduction="none", return_solution=True, seed=2
    )
    leaf = theta.clone().requires_grad_()
    result, z = loss(leaf, z_true)
    assert (result >= 0).all()
    result.sum().backward()
    torch.testing.assert_close(leaf.grad, sign * (z - z_true))
    for row, size in enumerate(row_scale(sign * theta, 1, SUBSET).flatten()):
        part = slice(row, row + 1)
        one = losses.FenchelYoung(
            solver, samples=3, temperature=0.5 * float(size), minimize=minimize, reduction="none", seed=2
        )
        torch.testing.assert_close(one(theta[part], z_true[part], rows=[row]), result[part].detach())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_compiled_fenchel_young_loss():
    theta, z_true = 30 * values(3, 6, dtype=torch.float32), exact.map_state(SUBSET, values(3, 6, seed=1)).float()
    loss = losses.FenchelYoung(mapgrad.get_solver("topk", SUBSET), samples=3, temperature=Relative(0.5), seed=2)
    expected = loss(theta, z_true)
    loss.keys = mapgrad.gradients.KeyStream(2)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(theta, z_true), expected)


def test_a_function_has_the_scale_of_the_whole_row():
    theta = 100 * values(3, 6)
    estimator = mapgrad.IMLE(mapgrad.Gumbel(), temperature=Relative(0.5))
    layer = mapgrad.MAPLayer(lambda rows: torch.zeros_like(rows).scatter(-1, rows.topk(2).indices, 1), estimator)
    leaf = theta.clone().requires_grad_()
    layer(leaf).square().mul(values(6, seed=1)).sum().backward()
    assert leaf.grad.isfinite().all()


def test_utilities_of_any_size_are_trained():
    """Noise of one size is nothing beside utilities in the hundreds; relative noise trains them as any others."""

    def regret(size, temperature):
        layer = mapgrad.MAPLayer(
            mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(mapgrad.Gumbel(), temperature=temperature), seed=0
        )
        worth = values(30, 6, dtype=torch.float32)
        theta = torch.nn.Parameter(size * values(30, 6, seed=1, dtype=torch.float32))
        optimizer = torch.optim.Adam([theta], lr=0.05 * size)
        for _ in range(200):
            optimizer.zero_grad()
            (-(layer(theta) * worth).sum()).backward()
            optimizer.step()
        best = exact.map_state(SUBSET, worth)
        return float(((best - exact.map_state(SUBSET, theta.detach())) * worth).sum() / (best * worth).sum())

    assert regret(100.0, Relative(1.0)) < 0.02
    assert regret(0.01, Relative(1.0)) < 0.02
    with pytest.warns(UserWarning, match="zero gradient"):
        assert regret(100.0, 1.0) > 0.3


def test_refusals():
    for factor in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="factor must be"):
            Relative(factor)
    with pytest.raises(TypeError, match=r"both be numbers or both relative, got Relative\(factor=0.5\) and 1.0"):
        mapgrad.IMLE(temperature=Relative(0.5), target_temperature=1.0)
    with pytest.raises(TypeError, match="must be a number"):
        mapgrad.gradients.Perturbed(temperature=Relative(0.5), multiplicative=True)
    with pytest.raises(TypeError, match="must be a number"):
        losses.FenchelYoung(mapgrad.get_solver("topk", SUBSET), temperature=Relative(0.5), multiplicative=True)
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 1.0]], b_ub=[1.0], decision=[0], fixed=[0.5])
    with pytest.raises(mapgrad.UnsupportedProblemError, match="fixed"):
        Exact(program, temperature=Relative(0.5))
    assert mapgrad.IMLE(temperature=Relative(0.5), target_temperature=Relative(0.7)).largest_temperature.factor == 0.7

    class Own(mapgrad.gradients.Estimator):
        def forward(self, theta, sampler, solve):
            answers = solve(sampler.perturb(theta, Relative(0.5)))
            return mapgrad.gradients.Forward(answers.z, answers.status)

        def gradient(self, forward, gradient):
            return gradient[0]

    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Own(mapgrad.Gumbel(), samples=1, temperature=1.0))
    with pytest.raises(TypeError, match="needs an estimator whose own temperature is relative"):
        layer(torch.zeros(6))


def test_copies_and_text():
    estimator = copy.deepcopy(mapgrad.IMLE(temperature=Relative(0.5)))
    assert estimator.temperature == Relative(0.5)
    assert "temperature=Relative(factor=0.5)" in repr(estimator)
