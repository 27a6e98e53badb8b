"""`TwoSided`: both sides of a step, each at a distance of its own, solved for many fresh noises."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import mapgrad
from mapgrad import exact
from mapgrad.gradients import _parts

SUBSET = mapgrad.KSubset(6, 2)
PROBLEMS = [SUBSET, mapgrad.Assignment(3), mapgrad.Knapsack([[3, 2, 4, 1]], [5])]
GRID = mapgrad.GridShortestPath(2, 3)


def layer_of(estimator, problem=SUBSET, solver="auto", **how):
    return mapgrad.MAPLayer(mapgrad.get_solver(solver, problem), estimator, **{"seed": 3, **how})


def gradient_of(layer, theta, slope, **how):
    leaf = theta.clone().requires_grad_()
    (layer(leaf, **how) * slope).sum().backward()
    return leaf.grad


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_it_is_the_formula():
    theta, slope = normal(3, 6), normal(3, 6, seed=1)
    found = gradient_of(layer_of(mapgrad.TwoSided(None, step=0.8, sides=(0.5, 2.0))), theta, slope)
    toward, divisor = mapgrad.RelativeStep(0.8)(theta[None], slope[None], mapgrad.Context(1, SUBSET))
    step = theta - toward[0]
    away, toward = (exact.map_state(SUBSET, rows) for rows in (theta + 0.5 * step, theta - 2.0 * step))
    torch.testing.assert_close(found, (away - toward) / (2.5 * divisor[0]))
    assert found.any()


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_half_steps_point_along_the_exact_gradient(problem):
    theta, slope, count = normal(*problem.shape), normal(*problem.shape, seed=1), 1500
    many = (count, *[1] * theta.ndim)
    rows = theta.repeat(many), slope.repeat(many)
    short = mapgrad.TwoSided(step=0.5, sides=(0.5, 0.5))
    found = gradient_of(layer_of(short, problem), *rows).mean(dim=0).flatten()
    truth = gradient_of(layer_of(mapgrad.Perturbed(samples=40), problem), *rows).mean(dim=0).flatten()
    assert torch.cosine_similarity(found, truth, dim=0) > 0.97
    assert 0.8 < found.norm() / truth.norm() < 1.1


@pytest.mark.parametrize("problem", [GRID, SUBSET], ids=repr)
def test_without_noise_it_steps_to_one_side(problem):
    theta, slope = -normal(4, *problem.shape).abs(), normal(4, *problem.shape, seed=1)
    layer = layer_of(mapgrad.TwoSided(None), problem)
    found = gradient_of(layer, theta, slope)
    assert layer.stats["solves"] + layer.stats["known"] == 8
    one_sided = mapgrad.IMLE(None, mapgrad.RelativeStep(1.0), symmetric=False)
    torch.testing.assert_close(found, gradient_of(layer_of(one_sided, problem), theta, slope))
    assert found.any()


def test_with_equal_sides_it_is_symmetric_imle():
    theta, slope = normal(4, 6), normal(4, 6, seed=1)
    found = gradient_of(layer_of(mapgrad.TwoSided(samples=3, step=0.5, sides=(1.0, 1.0))), theta, slope)
    imle = mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.RelativeStep(0.5), samples=3, symmetric=True)
    torch.testing.assert_close(found, gradient_of(layer_of(imle), theta, slope))


def test_with_one_side_and_one_draw_it_has_the_mean_of_imle():
    theta, slope, count = normal(6), normal(6, seed=1), 4000
    rows = theta.expand(count, 6), slope.expand(count, 6)
    one = gradient_of(layer_of(mapgrad.TwoSided(draws=1, step=1.0, sides=(0.0, 1.0))), *rows)
    imle = mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.RelativeStep(1.0), symmetric=False)
    other = gradient_of(layer_of(imle), *rows)
    error = (one.var(dim=0) / count + other.var(dim=0) / count).sqrt()
    assert ((one.mean(dim=0) - other.mean(dim=0)).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    ("draws", "noise", "expected"), [(None, "auto", 30), (1, "auto", 30), (9, "auto", 190), (9, None, 20)]
)
def test_solves_of_a_row(draws, noise, expected):
    layer = layer_of(mapgrad.TwoSided(noise, draws=draws))
    gradient_of(layer, normal(10, 6), normal(10, 6, seed=1))
    assert layer.stats["solves"] + layer.stats["equal"] + layer.stats["known"] == expected


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draws", [None, 2, 3])
def test_a_row_s_gradient_depends_on_that_row_alone(reduction, problem, dtype, draws, monkeypatch):
    theta, slope = normal(3, 2, *problem.shape, dtype=dtype), normal(3, 2, *problem.shape, seed=1, dtype=dtype)
    ids = torch.arange(6).reshape(3, 2)

    def layer():
        return layer_of(mapgrad.TwoSided(samples=2, draws=draws), problem, reduction=reduction)

    whole = gradient_of(layer(), theta, slope, rows=ids)
    assert whole.any()
    rows = [gradient_of(layer(), *(each[row : row + 1] for each in (theta, slope)), rows=ids[[row]]) for row in (0, 1)]
    torch.testing.assert_close(torch.cat(rows), whole[:2])
    monkeypatch.setattr(_parts, "_SMALL", 1)
    monkeypatch.setattr(_parts, "_PART_BYTES", 300)
    torch.testing.assert_close(gradient_of(layer(), theta, slope, rows=ids), whole)


@pytest.mark.parametrize("solver", ["highs", "topk"])
@pytest.mark.parametrize("draws", [None, 3])
def test_solvers_that_compare_rows_give_the_same(solver, draws):
    theta, slope = normal(4, 6), normal(4, 6, seed=1)
    found = gradient_of(layer_of(mapgrad.TwoSided(draws=draws, samples=3), solver=solver), theta, slope)
    torch.testing.assert_close(found, gradient_of(layer_of(mapgrad.TwoSided(draws=draws, samples=3)), theta, slope))


def test_a_function_is_asked_one_sample_at_a_time():
    sizes = []

    def solve(theta):
        sizes.append(len(theta))
        return exact.map_state(SUBSET, theta)

    layer = mapgrad.MAPLayer(solve, mapgrad.TwoSided(mapgrad.Gaussian(), draws=4))
    assert gradient_of(layer, normal(5, 6), normal(5, 6, seed=1)).any()
    assert sizes == [5] * 9


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
@pytest.mark.parametrize("draws", [None, 3])
def test_transforms_copies_and_checkpoints(draws):
    theta, slope = normal(4, 6), normal(6, seed=1)

    def layer():
        return layer_of(mapgrad.TwoSided(draws=draws))

    expected = gradient_of(layer(), theta, slope)
    one = layer()
    torch.testing.assert_close(torch.func.grad(lambda t: (one(t) * slope).sum())(theta), expected)
    two = layer()
    by_row = torch.func.vmap(torch.func.grad(lambda t, i: (two(t, rows=i) * slope).sum()), randomness="same")
    torch.testing.assert_close(by_row(theta[:, None], torch.arange(4)[:, None])[:, 0], expected)
    compiled = torch.compile(layer(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient_of(compiled, theta, slope), expected)
    torch.testing.assert_close(gradient_of(copy.deepcopy(layer()), theta, slope), expected)
    three = layer()
    repeated = gradient_of(lambda t: checkpoint(three, t, use_reentrant=False), theta, slope)
    torch.testing.assert_close(repeated, expected)


def test_forbidden_entries_a_bad_gradient_and_costs():
    theta, slope = normal(4, 6), normal(4, 6, seed=1)
    theta[:, 2] = -torch.inf
    found = gradient_of(layer_of(mapgrad.TwoSided()), theta, slope)
    assert found.isfinite().all()
    assert found.any()
    assert not found[:, 2].any()
    as_costs = gradient_of(layer_of(mapgrad.TwoSided(), minimize=True), -theta, slope)
    torch.testing.assert_close(as_costs, -found)
    slope[1, 3] = torch.nan
    spoilt = gradient_of(layer_of(mapgrad.TwoSided()), theta, slope)
    assert spoilt[1].isnan()[[0, 1, 3, 4, 5]].all()
    torch.testing.assert_close(spoilt[[0, 2, 3]], found[[0, 2, 3]])


def test_no_noise_where_it_would_be_clipped():
    layer = layer_of(mapgrad.TwoSided(), GRID, minimize=True)
    costs = normal(3, 2, 3).abs()
    assert torch.equal(layer(costs), exact.map_state(GRID, -costs))
    assert gradient_of(layer, costs, normal(3, 2, 3, seed=1)).isfinite().all()
    assert layer.stats["clipped"] == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"draws": 0}, "draws must be an int of at least 1"),
        ({"step": -1.0}, "step must be positive"),
        ({"sides": (0.5, 0.0)}, "sides must be positive"),
        ({"sides": (-1.0, 1.0)}, "sides must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        mapgrad.TwoSided(**arguments)
