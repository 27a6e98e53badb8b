"""Rows divided by their own spread: answers, the gradient as its formula and as differences, and what is refused."""

import copy

import pytest
import torch

import mapgrad
from mapgrad import exact
from mapgrad.gradients import Exact
from mapgrad.gradients._normalized import normalized
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(6, 2)
KNAPSACK = mapgrad.Knapsack([[3.0, 2.0, 4.0, 1.0, 5.0]], [7.0])
GRID = mapgrad.GridShortestPath(3, 3)
PROBLEMS = [SUBSET, mapgrad.Assignment(3), KNAPSACK, GRID]
BY_NAME = {"ids": lambda problem: type(problem).__name__}


def values(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inside(problem, theta):
    return -theta.abs() if problem.domain is not mapgrad.Domain.REAL else theta


def layer_on(problem, estimator=None, **options):
    return mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, problem), estimator, normalize=True, **options)


@pytest.mark.parametrize("problem", PROBLEMS, **BY_NAME)
@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_the_layer_is_that_of_rows_divided_before(problem, minimize, batch):
    sign, ndim = (-1 if minimize else 1), len(problem.shape)
    theta = sign * inside(problem, values(*batch, *problem.shape) * 1000)
    slope = values(*problem.shape, seed=1)
    layer = layer_on(problem, seed=4, minimize=minimize)
    plain = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, problem), seed=4, minimize=minimize)
    leaf, other = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    dims = tuple(range(-ndim, 0))
    means = other
    for axes in problem.constant_sums:
        means = means - means.mean(dim=tuple(axis - ndim for axis in axes), keepdim=True)
    divided = other / means.square().mean(dim=dims, keepdim=True).sqrt()
    z, expected = layer(leaf), plain(divided)
    assert torch.equal(z, expected)
    (z * slope).sum().backward()
    (expected * slope).sum().backward()
    assert leaf.grad.any() or problem is GRID  # a path has no noise by default
    torch.testing.assert_close(leaf.grad, other.grad)
    along = (leaf.grad * theta).sum(dim=dims)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-9, rtol=0)
    assert torch.equal(layer.eval()(theta), plain.eval()(theta))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_the_gradient_of_exact_means_is_that_of_differences(scale):
    theta, weights = scale * values(6), values(6, seed=1)
    layer = layer_on(SUBSET, Exact(SUBSET))

    def loss(row):
        return (layer(row).square() * weights).sum()

    leaf = theta.clone().requires_grad_()
    loss(leaf).backward()
    for entry in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[entry] = 1e-5 * scale
        difference = (loss(theta + step) - loss(theta - step)) / (2e-5 * scale)
        torch.testing.assert_close(leaf.grad[entry], difference, rtol=1e-6, atol=1e-8 / scale)


def test_the_documented_formula():
    theta, g = 7 * values(6) + 3, values(6, seed=1)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.gradients.StraightThrough(), normalize=True)
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * g).sum().backward()
    c = theta - theta.mean()
    sigma = c.square().mean().sqrt()
    torch.testing.assert_close(leaf.grad, (g - (g @ theta) * c / (6 * sigma**2)) / sigma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", [-1e4, -torch.inf])
def test_masks_flat_rows_and_narrow_dtypes(dtype, mask):
    problem = mapgrad.KSubset(8, 2)
    theta = values(4, 8).to(dtype) / 8
    theta[:, :2] = mask
    theta[1] = 0.0
    theta[2] = 5.0
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", problem), mapgrad.IMLE(mapgrad.Gumbel(), samples=4), normalize=True, seed=0
    )
    leaf = theta.clone().requires_grad_()
    z = layer(leaf)
    assert z.dtype == leaf.dtype == dtype
    (z * torch.arange(8.0).to(dtype)).sum().backward()
    assert leaf.grad.isfinite().all()
    assert not z[[0, 3], :2].any()
    assert leaf.grad[[1, 2]].any(1).all()
    leaf = theta.float().requires_grad_()
    wide = normalized(leaf, layer.solver.at_work(), minimize=False)
    torch.testing.assert_close(wide[[0, 3], 2:].var(1, correction=0), torch.ones(2))
    assert torch.equal(wide[1:3], theta[1:3].float())


def test_a_near_tie_at_the_boundary_makes_no_row_explode():
    theta = torch.tensor([[3.0, 1.0001, 1.0, -2.0, -3.0, -4.0]])
    row = normalized(theta, mapgrad.get_solver("topk", SUBSET).at_work(), minimize=False)
    assert row.abs().max() < 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("problem", [SUBSET, mapgrad.Assignment(3)], **BY_NAME)
def test_transforms(problem):
    theta, slope = 100 * values(3, *problem.shape), values(*problem.shape, seed=1)
    layer = layer_on(problem, mapgrad.IMLE(None))

    def loss(rows):
        return (layer(rows) * slope).sum()

    leaf = theta.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad.any()
    torch.testing.assert_close(torch.func.grad(loss)(theta), leaf.grad)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(theta), leaf.grad)
    other = theta.clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(other).backward()
    torch.testing.assert_close(other.grad, leaf.grad)


def test_rows_with_problems_of_their_own_submit_copies_and_distributions():
    problems = [SUBSET, mapgrad.KSubset(6, 3), SUBSET]
    theta, slope = 50 * values(3, 6), values(6, seed=1)
    whole = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(None), normalize=True)
    leaf = theta.clone().requires_grad_()
    (whole(leaf, problems=problems) * slope).sum().backward()
    for row, problem in enumerate(problems):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), mapgrad.IMLE(None), normalize=True)
        for call in (layer, lambda t: layer.submit(t).result(), copy.deepcopy(layer)):  # noqa: B023 (called at once)
            one = theta[row].clone().requires_grad_()
            (call(one) * slope).sum().backward()
            torch.testing.assert_close(one.grad, leaf.grad[row])
    noisy = layer_on(SUBSET, mapgrad.IMLE(mapgrad.Gumbel()), seed=0)
    first = noisy.distribution(theta).sample((20,))
    noisy.keys = mapgrad.gradients.KeyStream(0)
    assert torch.equal(noisy.distribution(theta * 2.0**20).sample((20,)), first)


def test_a_row_that_is_not_finite_is_named():
    theta = values(3, 6)
    theta[1, 2] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="row 1"):
        layer_on(SUBSET)(theta)
    theta[1, 2] = torch.inf
    with pytest.raises(mapgrad.NonFiniteError, match="row 1"):
        layer_on(SUBSET)(theta)


def test_programs_with_utilities_of_their_own_are_refused():
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 1.0]], b_ub=[1.0], decision=[0], fixed=[0.5])
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"normalize=True divides θ by a scale.*`fixed`"):
        layer_on(program)
    layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, None), normalize=True)
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"normalize=True"):
        layer(torch.zeros(1, 1), problems=[program])
    assert "normalize=True" in repr(layer)


def test_training_from_any_scale():
    def regret(size):
        worth = values(20, 6)
        theta = torch.nn.Parameter(size * values(20, 6, seed=1))
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(mapgrad.Gumbel()), normalize=True)
        torch.manual_seed(0)
        optimizer = torch.optim.Adam([theta], lr=0.05 * size)
        for _ in range(150):
            optimizer.zero_grad()
            (-(layer(theta) * worth).sum()).backward()
            optimizer.step()
        best = exact.map_state(SUBSET, worth)
        return float(((best - exact.map_state(SUBSET, theta.detach())) * worth).sum() / (best * worth).sum())

    assert regret(1000.0) < 0.05
    assert regret(1e-4) < 0.05
