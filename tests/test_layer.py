"""`MAPLayer`: modes, reductions, defaults, functions as solvers, bad arguments."""

import numpy as np
import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(3, 4)


class Greedy(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        return np.zeros(6)


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def top2(theta):
    return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_shapes_in_training_and_eval(batch, reduction):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=4), reduction=reduction)
    theta = random_theta(*batch, 6).requires_grad_()
    z = layer(theta)
    assert z.shape == ((4,) if reduction == "none" else ()) + theta.shape
    z.sum().backward()
    assert theta.grad.shape == theta.shape
    assert torch.equal(layer.eval()(theta), mapgrad.get_solver("topk", SUBSET)(theta))


def test_eval_mode_is_map_with_a_gradient():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=4)).eval()
    theta = random_theta(5, 6).requires_grad_()
    z = layer(theta)
    assert torch.equal(z, layer(theta))
    (z * torch.arange(6.0)).sum().backward()
    assert theta.grad.abs().sum() > 0


def test_training_is_the_mean_of_perturbed_states():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=5), seed=1)
    every = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=5), reduction="none", seed=1)
    theta = random_theta(7, 6)
    z, states = layer(theta), every(theta)
    torch.testing.assert_close(z, states.mean(0))
    assert SUBSET.contains(states).all()
    assert not torch.equal(z, z.round())


def test_costs_are_minimised():
    costs = random_theta(4, 3, 4).abs()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("networkx.shortest_path", GRID), minimize=True)
    value = (layer(costs) * costs).flatten(1).sum(1)
    best = (GRID.states().float().flatten(1) @ costs.flatten(1).T).amin(0)
    torch.testing.assert_close(value, best)


def test_default_noise_depends_on_the_problem():
    estimator = mapgrad.IMLE()
    assert estimator.noise_for(SUBSET) == mapgrad.SumOfGamma(2)
    assert estimator.noise_for(mapgrad.SpanningTree(3, [(0, 1), (1, 2), (0, 2)])) == mapgrad.SumOfGamma(2)
    assert estimator.noise_for(GRID) is None
    assert estimator.noise_for(None) is None
    knapsack = mapgrad.Knapsack([2, 3, 4], 5)
    assert estimator.noise_for(knapsack) == mapgrad.Centred(mapgrad.SumOfGamma(knapsack.kappa))
    assert mapgrad.IMLE(mapgrad.Gumbel()).noise_for(GRID) == mapgrad.Gumbel()
    assert mapgrad.IMLE(temperature=0.0).noise_for(SUBSET) is None
    assert mapgrad.IMLE(temperature=0.0, target_temperature=1.0).noise_for(SUBSET) == mapgrad.SumOfGamma(2)


def test_no_solve_is_spent_on_rows_whose_gradient_is_zero():
    solver = mapgrad.get_solver("networkx.shortest_path", GRID)
    layer = mapgrad.MAPLayer(solver, minimize=True)
    costs = random_theta(5, 3, 4).abs().requires_grad_()
    z = layer(costs)
    (z[:2] * random_theta(2, 3, 4, seed=1)).sum().backward()
    assert solver.stats["solves"] == 5 + 2
    assert solver.stats["known"] == 3
    assert costs.grad[2:].abs().sum() == 0


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_zero_gradient_for_every_row_is_passed_on(symmetric, workers):
    with mapgrad.get_solver("networkx.shortest_path", GRID, workers=workers) as solver:
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(symmetric=symmetric), minimize=True)
        costs = random_theta(5, 3, 4).abs().requires_grad_()
        z = layer(costs)
        (z - z.detach()).square().sum().backward()
        assert torch.equal(costs.grad, torch.zeros_like(costs))
        assert solver.stats["solves"] == 5


def test_a_function_gets_whole_batches_in_order_once_a_sample():
    seen = []

    def choose(theta):
        assert not torch.is_grad_enabled()
        seen.append(theta.clone())
        return top2(theta).long()

    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), samples=3, symmetric=False), seed=0)
    theta = random_theta(4, 6).requires_grad_()
    z = layer(theta)
    assert [tuple(rows.shape) for rows in seen] == [(4, 6)] * 3
    assert len(torch.stack(seen).unique(dim=0)) == 3
    assert z.dtype == torch.float32
    z.pow(2).sum().backward()
    assert len(seen) == 6
    assert theta.grad.abs().sum() > 0


def test_a_function_sees_equal_rows_too():
    calls = []

    def by_row(theta):
        calls.append(len(theta))
        return torch.eye(6)[: len(theta)]

    z = mapgrad.MAPLayer(by_row)(torch.zeros(5, 6))
    assert calls == [5]
    assert torch.equal(z, torch.eye(6)[:5])


def test_a_function_of_one_row_gets_a_batch_of_one():
    z = mapgrad.MAPLayer(lambda theta: top2(theta) if theta.ndim == 2 else None)(random_theta(6))
    assert z.shape == (6,)


def test_a_function_with_a_problem_is_a_map_solver():
    def choose(theta):
        return top2(theta)

    choose.problem = SUBSET
    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(samples=2))
    assert layer.problem == SUBSET
    assert layer(random_theta(4, 3, 6)).shape == (4, 3, 6)
    with pytest.raises(mapgrad.ShapeError, match=r"\(4, 5\)"):
        layer(random_theta(4, 5))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda theta: theta[:, :2], ValueError, r"shape \(4, 2\) where \(4, 6\) was expected"),
        (lambda theta: theta.numpy(), TypeError, r"answered with ndarray where a tensor"),
    ],
)
def test_a_function_that_answers_nonsense(answer, error, message):
    with pytest.raises(mapgrad.SolverCrashError, match=message) as caught:
        mapgrad.MAPLayer(answer)(random_theta(4, 6))
    assert caught.value.rows == (0, 1, 2, 3)
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("solver", [top2, mapgrad.get_solver("topk", SUBSET)])
def test_non_finite_theta_is_refused(solver):
    theta = random_theta(4, 6)
    theta[2, 3] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match=r"row 2 \(1 of 4\)"):
        mapgrad.MAPLayer(solver, mapgrad.IMLE(noise=None))(theta)


def test_noise_of_a_wrong_shape_is_refused():
    class Flat:
        def sample(self, shape, *, generator, dtype, device):
            return torch.zeros(shape[1:], dtype=dtype, device=device)

    with pytest.raises(mapgrad.ShapeError, match=r"drew noise of shape \(4, 6\) where \(2, 4, 6\) was asked for"):
        mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(Flat(), samples=2))(random_theta(4, 6))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mapgrad.MAPLayer("topk"), TypeError, r"mapgrad.get_solver\(name, problem\)"),
        (lambda: mapgrad.MAPLayer(Greedy), TypeError, r"mapgrad.get_solver\(Greedy, problem\)"),
        (lambda: mapgrad.MAPLayer(Greedy(SUBSET)), TypeError, r"mapgrad.get_solver\(name, problem\)"),
        (lambda: mapgrad.MAPLayer(top2, mapgrad.Step(1.0)), TypeError, r"estimator must be an Estimator"),
        (lambda: mapgrad.MAPLayer(top2, mapgrad.IMLE), TypeError, r"estimator must be an Estimator"),
        (lambda: mapgrad.MAPLayer(top2, reduction="sum"), ValueError, r"reduction must be .* got 'sum'"),
        (lambda: mapgrad.MAPLayer(top2, seed=1.5), TypeError, r"seed must be an int or None, got 1.5"),
        (lambda: mapgrad.MAPLayer(top2)(np.zeros((2, 6))), TypeError, r"torch.Tensor, got ndarray"),
        (lambda: mapgrad.MAPLayer(top2)(torch.zeros(2, 6).long()), mapgrad.ShapeError, r"floating-point"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_repr_names_all_choices():
    text = repr(mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(samples=3), minimize=True))
    for part in ("topk", "KSubset(n=6, k=2)", "minimize=True", "samples=3", "AdaptiveStep", "decay=0.9"):
        assert part in text


def test_statistics():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(samples=2))
    theta = random_theta(4, 6).requires_grad_()
    layer(theta).pow(2).sum().backward()
    assert layer.stats["rows"] == 8 + 2 * 8
    assert layer.stats["improvable"] == 8
    assert 0 <= layer.stats["dead"] <= 8
    assert layer.stats["beta"] != 1.0


@pytest.mark.parametrize(
    ("problem", "solver", "name"),
    [
        *((mapgrad.KSubset(8, 3), "topk", name) for name in ("imle", "adaptive", "blackbox", "straight-through")),
        (mapgrad.GridShortestPath(4, 4), "networkx.shortest_path", "imle"),
        (mapgrad.GridShortestPath(4, 4), "networkx.shortest_path", "straight-through"),
        (mapgrad.Assignment(4), "networkx.assignment", "imle"),
        (mapgrad.Assignment(4), "networkx.assignment", "blackbox"),
        (mapgrad.SpanningTree(5, [(i, j) for i in range(5) for j in range(i)]), "networkx.spanning_tree", "imle"),
        (mapgrad.SpanningTree(5, [(i, j) for i in range(5) for j in range(i)]), "networkx.spanning_tree", "adaptive"),
        (mapgrad.Matching(6, [(i, j) for i in range(6) for j in range(i)], perfect=True), "networkx.matching", "imle"),
    ],
)
def test_a_network_learns_through_every_problem(problem, solver, name):
    estimator = {
        "imle": mapgrad.IMLE(noise=None),
        "adaptive": mapgrad.AdaptiveIMLE(noise=None, initial=0.5),
        "blackbox": mapgrad.Blackbox(20.0),
        "straight-through": mapgrad.StraightThrough(),
    }[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    size = torch.Size(problem.shape).numel()
    hidden = torch.randn(3, size, generator=generator)
    solve = mapgrad.get_solver(solver, problem)

    def costs(weights):
        return torch.nn.functional.softplus(x @ weights).reshape(-1, *problem.shape)

    truth = solve(-costs(hidden))
    weights = torch.zeros(3, size, requires_grad=True)
    layer = mapgrad.MAPLayer(solve, estimator, minimize=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    losses = []
    for _ in range(40):
        z = layer(costs(weights))
        loss = (z + truth - 2 * z * truth).flatten(1).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.97 if name == "straight-through" else 0.6) * losses[0]
