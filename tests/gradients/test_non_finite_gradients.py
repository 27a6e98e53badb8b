"""Rows whose ∂L/∂z isn't finite get a NaN gradient and no solve; the others keep theirs, as in any torch layer."""

import math
import warnings

import numpy as np
import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(7, 2)
BAD_ROWS = [1, 2]


def random_rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def top2(theta):
    return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)


top2.problem = SUBSET


class Instance(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        return z


ESTIMATORS = {
    "imle": lambda **options: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), **options),
    "symmetric": lambda **options: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), symmetric=True, **options),
    "two temperatures": lambda **options: mapgrad.IMLE(
        mapgrad.Gumbel(), mapgrad.Step(2.0, alpha=0.5), target_temperature=0.5, **options
    ),
    "default": mapgrad.IMLE,
    "combinatorial": lambda **options: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Combinatorial(), **options),
    "adaptive": lambda **options: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), **options),
    "straight-through": lambda **options: mapgrad.StraightThrough(mapgrad.Gumbel(), **options),
}
SOLVERS = {"topk": "topk", "instance": Instance, "function": top2}


def layer_of(solver, estimator, **options):
    given = solver if solver is top2 else mapgrad.get_solver(solver, SUBSET)
    return mapgrad.MAPLayer(given, estimator, seed=0, **options)


def gradient_of(layer, theta, upstream, transform=lambda layer: layer):
    leaf = theta.clone().requires_grad_()
    transform(layer)(leaf).backward(upstream)
    return leaf.grad


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_the_rows_themselves_are_nan(estimator, solver, reduction, value):
    theta = random_rows(4, 7)
    upstream = random_rows(3, 4, 7, seed=1) if reduction == "none" else random_rows(4, 7, seed=1)
    expected = gradient_of(layer_of(solver, estimator(samples=3), reduction=reduction), theta, upstream)
    assert expected.isfinite().all()
    if reduction == "none":
        upstream[1, 1, 3], upstream[2, 2] = value, -value  # one entry of one sample is enough
    else:
        upstream[1, 3], upstream[2] = value, -value
    found = gradient_of(layer_of(solver, estimator(samples=3), reduction=reduction), theta, upstream)
    assert found[BAD_ROWS].isnan().all()
    torch.testing.assert_close(found[[0, 3]], expected[[0, 3]], atol=0, rtol=0)


def test_g1_and_n8():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET))
    theta = random_rows(4, 7)
    assert gradient_of(layer, theta, torch.full((4, 7), torch.inf)).isnan().all()
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * float("nan")).sum().backward()
    assert leaf.grad.isnan().all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_nothing_is_solved_for_them(symmetric):
    seen = []

    class Recorder(Instance):
        def solve(self, state, theta, request):
            seen.append(theta.copy())
            return super().solve(state, theta, request)

    layer = mapgrad.MAPLayer(
        mapgrad.get_solver(Recorder, SUBSET), mapgrad.IMLE(None, mapgrad.Step(2.0), symmetric=symmetric)
    )
    theta = random_rows(4, 7).requires_grad_()
    z = layer(theta)
    assert len(seen) == 4
    upstream = random_rows(4, 7, seed=1)
    upstream[BAD_ROWS] = torch.nan
    z.backward(upstream)
    assert len(seen) == 4 + 2 * (1 + symmetric)
    assert np.isfinite(seen).all()
    z = layer(theta)
    before = len(seen)
    z.backward(torch.full((4, 7), torch.nan))
    assert len(seen) == before


@pytest.mark.parametrize(("samples", "symmetric"), [(1, False), (3, False), (2, True)])
def test_a_function_gets_whole_batches_with_the_forward_rows_in_their_places(samples, symmetric):
    seen = []

    def choose(theta):
        seen.append(theta.clone())
        return top2(theta)

    target = mapgrad.Step(2.0, alpha=0.5)
    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), target, samples=samples, symmetric=symmetric))
    theta = random_rows(4, 7).requires_grad_()
    z = layer(theta)
    upstream = random_rows(4, 7, seed=1)
    upstream[BAD_ROWS] = torch.inf
    z.backward(upstream)
    forward, backward = seen[:samples], seen[samples:]
    assert len(backward) == samples * (1 + symmetric)
    for number, rows in enumerate(backward):
        assert rows.shape == (4, 7)
        torch.testing.assert_close(rows[BAD_ROWS], forward[number % samples][BAD_ROWS], atol=0, rtol=0)
        assert not (rows[[0, 3]] == forward[number % samples][[0, 3]]).all(1).any()
    assert theta.grad[BAD_ROWS].isnan().all()
    assert theta.grad[[0, 3]].isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_neither_the_counts_nor_the_adaptive_step_know_them(solver):
    def train(theta, upstream):
        layer = layer_of(solver, mapgrad.AdaptiveIMLE(None, step=0.25))
        gradient_of(layer, theta, upstream)
        stats = layer.stats
        return stats["improvable"], stats["dead"], layer.estimator.target.nonzeros.item(), stats["beta"]

    theta, upstream = random_rows(4, 7), random_rows(4, 7, seed=1)
    expected = train(theta[[0, 3]], upstream[[0, 3]])
    upstream[BAD_ROWS] = torch.nan
    assert train(theta, upstream) == expected
    untouched = train(theta, upstream * torch.nan)
    assert untouched == (0, 0, 1.0, 1.0)


def test_a_norm_over_the_batch_leaves_them_out():
    def gradient(theta, upstream):
        return gradient_of(layer_of("topk", mapgrad.AdaptiveIMLE(None, norm="batch")), theta, upstream)

    theta, upstream = random_rows(4, 7), random_rows(4, 7, seed=1)
    expected = gradient(theta[[0, 3]], upstream[[0, 3]])
    upstream[BAD_ROWS, 2] = torch.inf
    found = gradient(theta, upstream)
    torch.testing.assert_close(found[[0, 3]], expected)
    assert found[BAD_ROWS].isnan().all()


def test_in_a_batch_that_is_cut_into_parts():
    theta, upstream = random_rows(9000, 7), random_rows(9000, 7, seed=1)
    expected = gradient_of(layer_of("topk", mapgrad.Blackbox(2.0)), theta, upstream)
    bad = [0, 5000, 8999]
    upstream[bad, 1] = torch.nan
    found = gradient_of(layer_of("topk", mapgrad.Blackbox(2.0)), theta, upstream)
    assert found[bad].isnan().all()
    expected[bad] = found[bad] = 0.0
    assert torch.equal(found, expected)


def test_rows_with_problems_of_their_own():
    problems = [mapgrad.KSubset(7, k) for k in (1, 2, 1, 2)]
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", None), mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0)), seed=0
    )
    theta, upstream = random_rows(4, 7), random_rows(4, 7, seed=1)
    upstream[BAD_ROWS] = torch.inf
    leaf = theta.clone().requires_grad_()
    layer(leaf, problems=problems).backward(upstream)
    assert leaf.grad[BAD_ROWS].isnan().all()
    assert leaf.grad[[0, 3]].isfinite().all()


@pytest.mark.parametrize("name", ["imle", "symmetric", "adaptive", "straight-through"])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_in_traced_calls(name, solver):
    theta, finite = random_rows(3, 4, 7), random_rows(3, 4, 7, seed=1)
    upstream = finite.clone()
    upstream[1, BAD_ROWS, 2] = torch.inf

    def layer():
        return layer_of(solver, ESTIMATORS[name](samples=2))

    def pulled(upstream):
        made = layer()
        return torch.func.vjp(made, theta.clone())[1](upstream)[0]

    def mapped(upstream):
        return gradient_of(layer(), theta, upstream, lambda layer: torch.vmap(layer, randomness="different"))

    for call in (pulled, mapped):
        expected = call(finite)
        assert expected.isfinite().all()
        expected[1, BAD_ROWS] = torch.nan
        torch.testing.assert_close(call(upstream), expected, equal_nan=True)
    torch.testing.assert_close(pulled(upstream), gradient_of(layer(), theta, upstream), equal_nan=True)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30])
@pytest.mark.parametrize("name", ["imle", "symmetric", "combinatorial", "straight-through"])
def test_g2_no_finite_size_of_a_gradient_is_a_problem(name, scale):
    theta, upstream = random_rows(4, 7), random_rows(4, 7, seed=1) * scale
    found = gradient_of(layer_of("topk", ESTIMATORS[name](samples=2)), theta, upstream)
    assert found.isfinite().all()
    if scale == 1e30:
        assert (found != 0).any(1).all()


def test_a_sum_that_overflows_isnt_taken_for_a_row_that_does():
    theta = random_rows(4, 7)
    found = gradient_of(layer_of("topk", mapgrad.StraightThrough()), theta, torch.full((4, 7), 3e38))
    assert torch.equal(found, torch.full((4, 7), 3e38))


def test_a_backward_pass_whose_graph_is_kept():
    theta, upstream = random_rows(4, 7).requires_grad_(), random_rows(4, 7, seed=1)
    upstream[1, 0] = torch.nan
    (found,) = torch.autograd.grad(layer_of("topk", ESTIMATORS["imle"]())(theta), theta, upstream, create_graph=True)
    assert found[1].isnan().all()
    assert found[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_gradient_scaler_trains_on(solver):
    """The scale begins so high that the first steps overflow float16, as always in mixed precision."""
    torch.manual_seed(0)
    x = random_rows(32, 5)
    truth = top2(x @ random_rows(5, 7, seed=1))
    head = torch.nn.Linear(5, 7)
    layer = layer_of(solver, mapgrad.IMLE(None, mapgrad.Step(20.0)))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    losses, scales = [], []
    for _ in range(60):
        z = layer(head(x).half())
        loss = (z + truth - 2 * z * truth).sum(1).mean()
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step of a dead row says nothing here
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    assert scales[0] < 2.0**24  # it did overflow
    assert scales[-1] > 1.0
    assert all(torch.isfinite(parameter).all() for parameter in head.parameters())
    assert losses[-1] < 0.5 * losses[0]
