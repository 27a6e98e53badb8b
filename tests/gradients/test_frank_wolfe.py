"""The estimator `FrankWolfe`: the regularised optimum against a quadratic program, and its exact derivative."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize

import mapgrad
from mapgrad import exact
from mapgrad.gradients import FrankWolfe

TREE = mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)])
CASES = {
    "k-subset": ("topk", mapgrad.KSubset(5, 2)),
    "assignment": ("scipy.assignment", mapgrad.Assignment(3, 3)),
    "knapsack": ("highs", mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0]], [8.0])),
    "tree": ("networkx.spanning_tree", TREE),
    "ranking": ("auto", mapgrad.Ranking(4)),
    "path": ("networkx.shortest_path", mapgrad.GridShortestPath(2, 3)),
}


@pytest.fixture(params=CASES)
def case(request):
    """solver, problem."""
    name, problem = CASES[request.param]
    with mapgrad.get_solver(name, problem) as solver:
        yield solver, problem


def draw(problem, *batch, seed=0, dtype=torch.float64):
    theta = torch.randn(*batch, *problem.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return theta if problem.domain is mapgrad.Domain.REAL else -theta.abs()


def scale_of(problem, theta):
    rest = theta
    if problem.domain is mapgrad.Domain.REAL:
        for axes in problem.constant_sums:
            rest = rest - rest.mean(dim=axes, keepdim=True)
    return float(rest.square().mean().sqrt())


def optimum(problem, theta, weight):
    """argmax ⟨θ, μ⟩ − (w/2) ‖μ‖² over the weights of all states, by SLSQP."""
    states = exact.enumerate_states(problem).flatten(1).double().numpy()
    row, count = theta.flatten().numpy(), len(states)
    found = scipy_minimize(
        lambda p: weight / 2 * np.square(p @ states).sum() - row @ (p @ states),
        np.full(count, 1 / count),
        jac=lambda p: states @ (weight * (p @ states) - row),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(count)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return torch.from_numpy(found.x @ states).view(problem.shape)


@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_the_mean_is_the_optimum(case, weight):
    solver, problem = case
    layer = mapgrad.MAPLayer(solver, FrankWolfe(weight))
    rows = draw(problem, 4)
    means = layer(rows)
    for row, mean in zip(rows, means, strict=True):
        expected = optimum(problem, row, weight * scale_of(problem, row))
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5)
    assert layer.stats["gap"] < 1e-10
    assert layer.stats["unfinished"] == 0


@pytest.mark.parametrize("weight", [0.3, 2.0])
def test_the_gradient_is_that_of_finite_differences(case, weight):
    solver, problem = case
    layer = mapgrad.MAPLayer(solver, FrankWolfe(weight))
    rows, slope = draw(problem, 3, seed=1).requires_grad_(), draw(problem, 3, seed=2)
    (layer(rows) * slope).sum().backward()
    steps = 1e-6 * torch.eye(rows[0].numel()).double().view(-1, 1, *problem.shape)
    with torch.no_grad():
        ahead, behind = (layer(rows + side).flatten(2) for side in (steps, -steps))
    expected = ((ahead - behind) * slope.flatten(1)).sum(dim=2) / 2e-6
    torch.testing.assert_close(rows.grad.flatten(1), expected.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_batches_dtypes_and_costs(minimize, batch, dtype):
    problem = mapgrad.Assignment(3)
    solver = mapgrad.get_solver("scipy.assignment", problem)
    theta, slope = draw(problem, 2, *batch).to(dtype)
    whole, leaf = theta.double().clone().requires_grad_(), theta.clone().requires_grad_()
    expected = mapgrad.MAPLayer(solver, FrankWolfe())(whole)
    layer = mapgrad.MAPLayer(solver, FrankWolfe(), minimize=minimize, reduction="none" if minimize else "mean")
    mean = layer(-leaf if minimize else leaf)
    assert mean.dtype is dtype
    assert mean.shape == ((1, *leaf.shape) if minimize else leaf.shape)
    close = {"rtol": 0.02, "atol": 0.02} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(mean.double().view_as(expected), expected, **close)
    (mean * slope).sum().backward()
    (expected * slope.double()).sum().backward()
    torch.testing.assert_close(leaf.grad.double(), whole.grad, **close)


@pytest.mark.parametrize("name", ["k-subset", "assignment", "tree", "ranking"])
def test_ties_hide_no_direction_of_a_face(name):
    solver_name, problem = CASES[name]
    theta, slope = torch.zeros(problem.shape).double().requires_grad_(), draw(problem)
    (mapgrad.MAPLayer(mapgrad.get_solver(solver_name, problem), FrankWolfe(0.5))(theta) * slope).sum().backward()
    states = exact.enumerate_states(problem).flatten(1).double()
    span = torch.linalg.svd(states - states.mean(dim=0), full_matrices=False)
    basis = span.Vh[span.S > 1e-9]
    inside = name != "tree"  # whose smallest mean isn't inside of conv(C)
    expected = (basis.T @ (basis @ slope.flatten())).view(problem.shape) / 0.5
    if inside:
        torch.testing.assert_close(theta.grad, expected)
    else:
        assert theta.grad.flatten() @ expected.flatten() > 0


def test_scale_shift_and_range_of_theta():
    problem = mapgrad.KSubset(6, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe())
    theta = draw(problem, 5)
    mean = layer(theta)
    for factor, shift in ((1e-3, 0.0), (1.0, 1e4), (1e200, 0.0), (1e-200, 0.0)):
        leaf = (factor * theta + shift).requires_grad_()
        other = layer(leaf)
        torch.testing.assert_close(other, mean, rtol=0, atol=1e-9)
        other.square().sum().backward()
        assert leaf.grad.isfinite().all()
        assert float((leaf.grad * leaf.detach()).sum().abs()) < 1e-6


def test_a_regret_has_a_gradient_and_vertices_are_counted():
    problem = mapgrad.KSubset(6, 2)
    theta, costs = draw(problem, 200), draw(problem, 200, seed=1)
    shares = []
    for weight in (1.0, 1e-3):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe(weight))
        leaf = theta.clone().requires_grad_()
        (layer(leaf) * costs).sum().backward()
        shares.append(float(leaf.grad.any(dim=1).double().mean()))
        assert layer.stats["vertices"] == pytest.approx(1 - shares[-1])
        assert layer.stats["solves_a_row"] >= 2
    assert shares[0] > 0.8
    assert shares[1] < 0.05


def test_rows_that_are_done_leave():
    asked = []
    problem = mapgrad.KSubset(6, 2)
    solver = mapgrad.get_solver("highs", problem)
    layer = mapgrad.MAPLayer(solver, FrankWolfe())
    layer(draw(problem, 30))
    needed = layer.stats["solves_a_row"] * 30
    assert solver.stats["solves"] < needed + 20  # one row more a call, at most

    def solve(rows):
        asked.append(len(rows))
        return torch.zeros_like(rows).scatter_(-1, rows.topk(2).indices, 1)

    torch.testing.assert_close(
        mapgrad.MAPLayer(solve, FrankWolfe())(draw(problem, 30)).sum(dim=1), 2 * torch.ones(30).double()
    )
    assert set(asked) == {30}


def test_a_cap_on_solves_warns_once_and_is_counted():
    problem = mapgrad.KSubset(30, 10)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe(5.0, max_solves=4))
    theta = draw(problem, 3).requires_grad_()
    with pytest.warns(UserWarning, match="3 of 3 rows were left with a gap of up to .* after max_solves=4"):
        mean = layer(theta)
    mean.square().sum().backward()
    layer(theta)
    assert layer.stats["unfinished"] == 6
    assert layer.stats["gap"] > 1e-3
    torch.testing.assert_close(mean.sum(dim=1), torch.full((3,), 10.0).double())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
def test_forbidden_entries_and_transforms():
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe())
    theta = draw(problem, 4)
    slope = torch.func.grad(lambda t: layer(t)[:, 0].sum())(theta)
    by_row = torch.func.vmap(torch.func.grad(lambda t: layer(t)[0]))(theta)
    torch.testing.assert_close(slope, by_row)
    compiled, leaf = torch.compile(layer, fullgraph=True, backend="aot_eager"), theta.clone().requires_grad_()
    compiled(leaf)[:, 0].sum().backward()
    torch.testing.assert_close(compiled(theta), layer(theta))
    torch.testing.assert_close(leaf.grad, slope)
    theta[:, 3] = -torch.inf
    leaf = theta.clone().requires_grad_()
    mean = layer(leaf)
    mean[:, 0].sum().backward()
    assert not mean[:, 3].any()
    assert not leaf.grad[:, 3].any()
    others = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(4, 2)), FrankWolfe())
    torch.testing.assert_close(mean[:, [0, 1, 2, 4]], others(theta[:, [0, 1, 2, 4]]))


def test_eval_mode_gives_the_best_state_with_the_same_gradient():
    problem = mapgrad.Assignment(3)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", problem), FrankWolfe())
    theta, slope = draw(problem, 2, 4).float()
    gradients = []
    for training in (True, False):
        leaf = theta.clone().requires_grad_()
        z = layer.train(training)(leaf)
        (z * slope).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(z, exact.map_state(problem, theta))
    torch.testing.assert_close(*gradients)
    assert layer.distribution(theta).sample((3,)).shape == (3, 4, 3, 3)
    with pytest.raises(ValueError, match="3 samples were asked for: ask in eval mode"):
        layer.train().distribution(theta).sample((3,))


def test_copies_pickles_and_states():
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe(0.7))
    theta = draw(problem, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(theta), layer(theta))
    assert not [*layer.estimator.parameters(), *layer.estimator.buffers()]
    layer.load_state_dict(layer.state_dict())


def test_problems_of_rows():
    problems = [mapgrad.KSubset(5, 2), mapgrad.KSubset(5, 3)]
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), FrankWolfe())
    theta = draw(problems[0], 2)
    means = layer(theta, problems=problems)
    for row, mean, problem in zip(theta, means, problems, strict=True):
        alone = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe())
        torch.testing.assert_close(mean, alone(row))


def test_theta_outside_of_a_domain_is_clipped_and_counted():
    problem = mapgrad.GridShortestPath(2, 3)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("networkx.shortest_path", problem), FrankWolfe())
    theta = draw(problem, 3)
    theta[1, 0, 1] = 0.7
    mean = layer(theta)
    assert layer.stats["clipped"] == 1
    expected = optimum(problem, theta[1].clamp(max=0), scale_of(problem, theta[1]))
    torch.testing.assert_close(mean[1], expected, rtol=0, atol=1e-5)


def test_rows_that_are_not_finite_are_named_and_gradients_of_others_kept():
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), FrankWolfe())
    theta = draw(problem, 3)
    bad = theta.clone()
    bad[1, 2] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="row 1"):
        layer(bad)
    slopes = draw(problem, 3, seed=1)
    found = []
    for row in (None, 1):
        leaf, slope = theta.clone().requires_grad_(), slopes.clone()
        if row is not None:
            slope[row] = torch.nan
        (layer(leaf) * slope).sum().backward()
        found.append(leaf.grad)
    assert found[1][1].isnan().all()
    torch.testing.assert_close(found[1][[0, 2]], found[0][[0, 2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"weight": 0.0}, "weight"), ({"tolerance": -1.0}, "tolerance"), ({"max_solves": 1}, "max_solves")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FrankWolfe(**arguments)
