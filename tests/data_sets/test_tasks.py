"""The published generators: their formulas, their laws, and rows that stay the same."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.data import KnapsackTask, PolynomialTask, PortfolioTask, ShortestPathTask, TravelingSalesmanTask

TASKS = [
    ShortestPathTask(height=3, width=4),
    KnapsackTask(items=7, dimensions=2, capacity=12),
    TravelingSalesmanTask(nodes=6),
    PolynomialTask(problem=mapgrad.Assignment(3)),
]


def named(task):
    return type(task).__name__


def without_noise(task, **changes):
    return dataclasses.replace(task, noise=0.0, **changes)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_rows_fit_the_problem_and_are_float32(task):
    x, costs = task.draw(5)
    assert x.shape == (5, 5)
    assert costs.shape == (5, *task.problem.shape)
    assert x.dtype == costs.dtype == torch.float32
    sign = -1 if task.minimize else 1
    assert mapgrad.get_solver("auto", task.problem)(sign * costs).shape == costs.shape
    assert [each.shape[0] for each in task.draw(0)] == [0, 0]


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_equal_tasks_draw_equal_rows_and_a_longer_draw_begins_with_a_shorter_one(task):
    x, costs = task.draw(40)
    for other in (dataclasses.replace(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task))):
        assert other == task
        assert hash(other) == hash(task)
        few_x, few_costs = other.draw(7)
        assert torch.equal(few_x, x[:7])
        assert torch.equal(few_costs, costs[:7])


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_another_seed_is_another_task(task):
    other = dataclasses.replace(task, seed=1)
    assert not torch.equal(other.draw(4)[0], task.draw(4)[0])
    assert not np.array_equal(other._matrix, task._matrix)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_parts_are_apart_but_share_one_law(task):
    names = ("train", "validation", "test")
    drawn = [without_noise(task, degree=1).draw(200, part) for part in names]
    parts = {part: (x, costs.flatten(1)) for part, (x, costs) in zip(names, drawn, strict=True)}
    rows = torch.cat([x for x, _ in parts.values()])
    assert len(rows.unique(dim=0)) == 600
    rounding = 1.0 if isinstance(task, KnapsackTask) else 2e-4
    for x, costs in parts.values():  # at degree 1 and without noise, costs are an affine function of x
        x1 = torch.cat([x, torch.ones(200, 1)], dim=1)
        fitted = torch.linalg.lstsq(x1, costs).solution
        others = torch.cat([costs for _, costs in parts.values()])
        all_x1 = torch.cat([rows, torch.ones(600, 1)], dim=1)
        assert (all_x1 @ fitted - others).abs().max() < rounding


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 (the global one is meant)
    before = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    ShortestPathTask(height=2).draw(10)
    assert torch.equal(torch.rand(3), before[0])
    assert np.array_equal(np.random.rand(3), before[1])  # noqa: NPY002


def by_loops(task, count):
    """Return the costs by the formula as it is printed, one at a time, and without noise."""
    x = task.draw(count)[0].double().numpy()
    matrix, p, degree = task._matrix.reshape(-1, task.features), task.features, task.degree
    costs = np.empty((count, len(matrix)))
    for row in range(count):
        for j in range(costs.shape[1]):
            power = (sum(matrix[j, k] * x[row, k] for k in range(p)) / p**0.5 + 3) ** degree
            if isinstance(task, TravelingSalesmanTask):
                costs[row, j] = task._lengths[j] + power / 3 ** (degree - 1)
            else:
                costs[row, j] = (power + 1) / 3.5**degree
    return costs.reshape(count, *task.problem.shape)


@pytest.mark.parametrize("degree", [1, 2, 5])
@pytest.mark.parametrize("task", TASKS, ids=named)
def test_costs_follow_the_published_formula(task, degree):
    task = without_noise(task, degree=degree, features=3)
    expected, costs = by_loops(task, 20), task.draw(20)[1].double().numpy()
    if isinstance(task, KnapsackTask):
        assert (costs == np.round(costs)).all()
        assert (costs > 5 * expected - 1e-4).all()
        assert (costs < 5 * expected + 1 + 1e-4).all()
    else:
        np.testing.assert_allclose(
            costs, expected, rtol=1e-5, atol=1e-4 if isinstance(task, TravelingSalesmanTask) else 0
        )


def test_noise_is_uniform_and_multiplies():
    task = ShortestPathTask(noise=0.5)
    noise = (task.draw(500)[1] / without_noise(task).draw(500)[1]).double()
    assert 0.5 - 1e-6 <= noise.min() < 0.501
    assert 1.499 < noise.max() <= 1.5 + 1e-6
    assert abs(noise.mean() - 1) < 4 * 12**-0.5 / noise.numel() ** 0.5
    assert abs(noise.var() - 1 / 12) < 0.002


def test_noise_of_tours_leaves_the_lengths_alone():
    task = TravelingSalesmanTask(nodes=5, noise=0.25)
    noisy, plain = (each.draw(300)[1].double().numpy() - task._lengths for each in (task, without_noise(task)))
    large = plain > 1
    assert (noisy / plain)[large].min() >= 0.7499
    assert (noisy / plain)[large].max() <= 1.2501


def test_matrices_and_constants_follow_their_laws():
    entries = ShortestPathTask(features=200)._matrix
    assert set(np.unique(entries)) == {0, 1}
    assert abs(entries.mean() - 0.5) < 0.02
    entries = TravelingSalesmanTask(features=200)._matrix
    assert abs((entries == 0).mean() - 0.5) < 0.01
    assert abs(entries).max() <= 2
    assert abs(entries[entries != 0].std() - 4 / 12**0.5) < 0.01
    weights = KnapsackTask(items=5000).problem.weights
    np.testing.assert_allclose(weights * 100, np.round(weights * 100))
    assert (weights.min(), weights.max()) == (3, 7.99)
    assert abs(weights.mean() - 5.495) < 0.05


PORTFOLIOS = PortfolioTask(assets=4, factors=2, seed=3)


def test_portfolios_are_a_task_like_the_others():
    x, returns = PORTFOLIOS.draw(40)
    assert x.shape == (40, 5)
    assert returns.shape == (40, 4)
    assert x.dtype == returns.dtype == torch.float32
    assert not PORTFOLIOS.minimize
    for other in (dataclasses.replace(PORTFOLIOS), copy.deepcopy(PORTFOLIOS), pickle.loads(pickle.dumps(PORTFOLIOS))):
        assert other == PORTFOLIOS
        assert all(map(torch.equal, other.draw(7), (x[:7], returns[:7])))
    for other in (dataclasses.replace(PORTFOLIOS, seed=1).draw(40), PORTFOLIOS.draw(40, "test")):
        assert not torch.equal(other[1], returns)
    z = mapgrad.get_solver("auto", PORTFOLIOS.problem)(returns)
    assert PORTFOLIOS.problem.contains(z).all()
    np.testing.assert_allclose(PORTFOLIOS.draw(1)[1][0], [0.10434, 0.107412, 0.072391, 0.115416], atol=1e-6)


@pytest.mark.parametrize("degree", [1, 4])
def test_returns_follow_the_published_formula(degree):
    task = dataclasses.replace(PORTFOLIOS, degree=degree, noise=1e-9)
    x, returns = task.draw(20)
    for row in range(20):
        for j in range(4):
            signal = 0.05 * float(task._matrix[j] @ x[row].double().numpy()) / 5**0.5
            assert float(returns[row, j]) == pytest.approx((signal + 0.1 ** (1 / degree)) ** degree, rel=1e-5)


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_the_covariance_of_returns_is_the_one_that_is_limited(noise):
    task = dataclasses.replace(PORTFOLIOS, noise=noise)
    quiet = dataclasses.replace(PORTFOLIOS, noise=1e-9)
    residuals = (task.draw(60_000)[1] - quiet.draw(60_000)[1]).double().numpy()
    problem = task.problem
    np.testing.assert_allclose(np.cov(residuals.T), problem.covariance, atol=4e-6 * noise**2)
    assert abs(residuals.mean()) < 2e-4
    assert problem.risk == pytest.approx(2.25 * np.full(4, 0.25) @ problem.covariance @ np.full(4, 0.25))
    np.testing.assert_allclose(problem.covariance, noise**2 * PORTFOLIOS.problem.covariance)
    loadings = PortfolioTask(assets=1000, noise=noise)._loadings
    assert np.abs(loadings).max() <= 0.0025 * noise
    assert loadings.std() == pytest.approx(0.0025 * noise / 3**0.5, rel=0.03)
    assert dataclasses.replace(task, fully_invested=True).problem.fully_invested


def test_lengths_are_those_of_the_problems_edges():
    task = TravelingSalesmanTask(nodes=7)
    between = np.zeros((7, 7))
    between[tuple(task.problem.edges.T)] = task._lengths
    between += between.T
    for a in range(7):
        assert (between <= between[:, [a]] + between[[a], :] + 1e-12).all()
    assert (task._lengths > 0).all()


@pytest.mark.parametrize(("height", "width"), [(1, 2), (3, 1), (2, 2), (3, 4)])
def test_the_grid_has_all_its_edges(height, width):
    problem = ShortestPathTask(height=height, width=width).problem
    steps = [(tail // width, tail % width, head // width, head % width) for tail, head in problem.edges.tolist()]
    assert all((r2 - r1, c2 - c1) in {(0, 1), (1, 0)} for r1, c1, r2, c2 in steps)
    assert len(set(steps)) == height * (width - 1) + (height - 1) * width
    states = problem.states()
    assert (states.sum(dim=1) == height + width - 2).all()
    assert problem.domain is mapgrad.Domain.REAL


def test_rows_stay_what_they_are():
    """The figures of published results must not change from one version to the next."""
    x, costs = ShortestPathTask().draw(1)
    np.testing.assert_allclose(x[0, :3], GOLDEN["x"], rtol=1e-5)
    np.testing.assert_allclose(costs[0, :3], GOLDEN["path"], rtol=1e-5)
    assert KnapsackTask().draw(1, "test")[1][0, :8].tolist() == GOLDEN["knapsack"]
    np.testing.assert_allclose(TravelingSalesmanTask().draw(1, "validation")[1][0, :3], GOLDEN["tour"], atol=2e-4)


GOLDEN = {
    "x": [0.633198, 0.423822, 0.188218],
    "path": [0.288078, 0.256775, 0.737833],
    "knapsack": [1, 1, 5, 2, 1, 3, 6, 2],
    "tour": [10.7919, 3.4136, 5.6909],
}


@pytest.mark.parametrize("task", TASKS, ids=named)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": 0}, ValueError, "features must be an int of at least 1, got 0"),
        ({"features": 2.0}, TypeError, "features must be an int of at least 1, got 2.0"),
        ({"degree": 0}, ValueError, "degree must be an int of at least 1"),
        ({"degree": 1.5}, TypeError, "degree must be an int of at least"),
        ({"seed": -1}, ValueError, "seed must be an int of at least 0"),
        ({"seed": None}, TypeError, "seed must be an int of at least 0, got None"),
        ({"noise": -0.1}, ValueError, "noise must be a finite number ≥ 0, got -0.1"),
        ({"noise": float("nan")}, ValueError, "noise must be a finite number"),
    ],
)
def test_wrong_arguments_are_named(task, changes, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(task, **changes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ShortestPathTask(height=0), ValueError, "height must be an int of at least 1"),
        (lambda: ShortestPathTask(height=1, width=1), ValueError, "2 nodes or more"),
        (lambda: KnapsackTask(items=0), ValueError, "items must be an int of at least 1"),
        (lambda: KnapsackTask(dimensions=True), TypeError, "dimensions must be an int of at least"),
        (lambda: KnapsackTask(capacity=0), ValueError, "capacity must be a finite number > 0"),
        (lambda: PortfolioTask(assets=0), ValueError, "assets must be an int of at least 1"),
        (lambda: PortfolioTask(factors=1.5), TypeError, "factors must be an int of at least"),
        (lambda: PortfolioTask(gamma=0), ValueError, "gamma must be a finite number > 0, got 0"),
        (lambda: PortfolioTask(gamma=0.9, fully_invested=True), ValueError, "gamma must be a finite number ≥ 1"),
        (lambda: PortfolioTask(noise=0), ValueError, "noise must be > 0, or the returns have no variance"),
        (lambda: TravelingSalesmanTask(nodes=2), ValueError, "nodes must be an int of at least 3"),
        (lambda: PolynomialTask(problem="assignment"), TypeError, "problem must be a mapgrad.Problem"),
        (lambda: ShortestPathTask().draw(-1), ValueError, "count must be an int of at least 0, got -1"),
        (lambda: ShortestPathTask().draw(2.5), TypeError, "count must be an int of at least"),
        (lambda: ShortestPathTask(noise=1e39).draw(1), ValueError, "overflow float32"),
        (lambda: ShortestPathTask().draw(1, "val"), ValueError, "'train', 'validation', 'test', got 'val'"),
    ],
)
def test_wrong_sizes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("value", [-1, 1, None])
def test_the_sense_of_any_problem_is_a_bool(value):
    with pytest.raises(TypeError, match=f"minimize must be True or False, got {value!r}"):
        PolynomialTask(problem=mapgrad.Assignment(3), minimize=value)
