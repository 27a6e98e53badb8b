"""Portfolios by Clarabel: optimal by weak duality and by SciPy, and what layers and losses learn by them."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import mapgrad
from mapgrad.data import OptDataset, PortfolioTask

KINDS = ("factors", "dense", "singular", "diagonal")


def covariance_of(kind, n, rng):
    if kind == "factors":
        loadings = rng.uniform(-2.5e-3, 2.5e-3, (n, 4))
        return loadings @ loadings.T + 1e-4 * np.eye(n)
    if kind == "diagonal":
        return np.diag(rng.choice([1e-4, 0.5, 1, 3], n))
    rows = rng.normal(size=((n + 1) // 2 if kind == "singular" else 2 * n, n))
    return rows.T @ rows / n


def returns_of(n, rng):
    """Rows of many kinds: generic, with ties, negative, constant, zero, one asset alone, of the published size."""
    theta = rng.normal(size=(12, n))
    theta[0] = theta[0].round()
    theta[1] = rng.integers(-1, 2, n)
    theta[2] = rng.normal(0.1, 0.05, n)
    theta[3] = rng.choice([0.1, 0.2, 0.3], n) * rng.choice([-1, 1], n)
    theta[4] *= 10 ** rng.uniform(-4, 0, n)
    theta[5] = -np.abs(theta[5])
    theta[6], theta[7] = 1, 0
    theta[8] = np.eye(1, n)[0]
    theta[9] *= 1e6
    theta[10] *= 1e-6
    return torch.tensor(theta)


def upper_bound(problem, theta, z):
    """Return what no portfolio exceeds, by weak duality from z alone: the least max_i (θ − λΣz)_i + λ zᵀΣz over λ ≥ 0.

    ⟨θ, y⟩ = ⟨θ − λΣz, y⟩ + λ yᵀΣz, where the first term is at most max_i, and the second λ √(risk zᵀΣz).
    """
    slope, limit = problem.covariance @ z, np.sqrt(problem.risk * (z @ problem.covariance @ z))

    def bound(price):
        most = (theta - price * slope).max()
        return (most if problem.fully_invested else max(most, 0)) + price * limit

    low, high = 0.0, 1.0
    while bound(2 * high) < bound(high):
        high *= 2
    high *= 2
    for _ in range(200):  # it is convex
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if bound(left) <= bound(right) else (left, high)
    return min(bound(low), bound(0.0))


@pytest.mark.parametrize("fully_invested", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 6, 25])
def test_answers_are_feasible_and_proved_optimal(n, kind, fully_invested):
    rng = np.random.default_rng(n)
    covariance = covariance_of(kind, n, rng)
    for share in (0.3, 2.25, 40):
        problem = mapgrad.Portfolio(covariance, share * covariance.mean(), fully_invested=fully_invested)
        solver = mapgrad.get_solver("auto", problem)
        assert solver.name == "clarabel.portfolio"
        theta = returns_of(n, rng)
        if fully_invested and share < 1:
            continue
        solutions = solver.solve(theta)
        assert (solutions.status == mapgrad.Status.OPTIMAL).all()
        assert problem.contains(solutions.z).all()
        assert (solutions.z >= 0).all()
        for row, z, objective, bound in zip(theta, solutions.z, solutions.objective, solutions.bound, strict=True):
            scale = float(row.abs().max()) or 1.0
            assert float(row @ z) == pytest.approx(float(objective), abs=1e-12 * scale)
            assert -1e-9 * scale <= bound - objective <= 2e-9 * scale
            proved = upper_bound(problem, row.numpy(), z.numpy())
            assert proved - float(row @ z) <= 1e-4 * scale  # z's error is the root of that of its value


def closed_form(problem, theta, z):
    """Return the best portfolio of the assets that z holds, with the limits that it meets: by its stationary point."""
    held = z > 1e-6
    if held.sum() == 1 and z.sum() > 1 - 1e-7:
        return held.astype(float)
    covariance = problem.covariance[np.ix_(held, held)] / problem.risk
    p, q = np.linalg.solve(covariance, np.stack([theta[held], np.ones(held.sum())], axis=1)).T
    if problem.fully_invested or z.sum() > 1 - 1e-7:  # (p − νq) / λ with the sum 1 and the variance 1
        a, b, c = theta[held] @ p, p.sum(), q.sum()
        spread = np.sqrt((a * c - b**2) / (c - 1))
        p = (p - (b - spread) / c * q) / spread
    else:
        p = p / np.sqrt(p @ covariance @ p)
    best = np.zeros(len(z))
    best[held] = p
    return best


@pytest.mark.parametrize("fully_invested", [False, True])
@pytest.mark.parametrize("kind", ["factors", "dense"])
@pytest.mark.parametrize("n", [2, 6, 25])
def test_answers_agree_with_the_closed_form(n, kind, fully_invested):
    rng = np.random.default_rng(n)
    covariance = covariance_of(kind, n, rng)
    problem = mapgrad.Portfolio(covariance, 1.5 * covariance.mean(), fully_invested=fully_invested)
    theta = rng.normal(size=(20, n)) + 0.5
    answers = mapgrad.get_solver("auto", problem)(torch.tensor(theta)).numpy()
    for row, z in zip(theta, answers, strict=True):
        best = closed_form(problem, row, z)
        assert problem.contains_rows(best)
        assert upper_bound(problem, row, best) - row @ best <= 1e-9 * np.abs(row).max()
        assert abs(row @ (best - z)) <= 1e-9 * np.abs(row).max()


@pytest.mark.parametrize("fully_invested", [False, True])
def test_slsqp_finds_no_better(fully_invested):
    rng = np.random.default_rng(0)
    for n in (2, 4, 8):
        covariance = covariance_of("dense", n, rng)
        problem = mapgrad.Portfolio(covariance, 1.5 * covariance.mean(), fully_invested=fully_invested)
        theta = rng.normal(size=n)
        found = minimize(
            lambda z: -theta @ z,  # noqa: B023 (called at once)
            np.full(n, 1 / n),
            bounds=[(0, 1)] * n,
            constraints=[
                {"type": "eq" if fully_invested else "ineq", "fun": lambda z: 1 - z.sum()},
                {"type": "ineq", "fun": lambda z: 1 - z @ covariance @ z / problem.risk},  # noqa: B023
            ],
            options={"ftol": 1e-12, "maxiter": 1000},
        )
        assert found.success
        value = mapgrad.get_solver("clarabel", problem).solve(torch.tensor(theta)).objective
        assert float(value) == pytest.approx(-found.fun, abs=1e-7)


@pytest.mark.parametrize(
    ("covariance", "risk"), [(np.ones((3, 3)), 1e-3), (np.ones((2, 2)), 1e-6), ([[9.5e10]], 3.0), ([[2.75]], 1e-6)]
)
def test_a_limit_that_allows_a_small_part_of_the_budget_is_met(covariance, risk):
    """Of assets that move as one, the best one alone is bought, for √(risk / variance)."""
    problem = mapgrad.Portfolio(covariance, risk)
    theta = torch.tensor(np.random.default_rng(0).uniform(0.1, 1, (20, *problem.shape)))
    solutions = mapgrad.get_solver("auto", problem).solve(theta)
    assert (solutions.status == mapgrad.Status.OPTIMAL).all()
    best = theta.amax(1) * np.sqrt(risk / problem.covariance[0, 0])
    torch.testing.assert_close(solutions.objective, best, rtol=0, atol=2e-9)


def test_returns_that_are_nowhere_positive_buy_nothing():
    problem = PortfolioTask(assets=6).problem
    z = mapgrad.get_solver("auto", problem)(torch.tensor([[-1.0, -2, -3, 0, -0.5, -1], [0.0] * 6]))
    assert not z.any()


def test_no_portfolio_is_within_the_limit():
    problem = mapgrad.Portfolio(np.eye(4), 0.2, fully_invested=True)  # equal shares have 1 / 4
    with pytest.raises(mapgrad.InfeasibleError):
        mapgrad.get_solver("auto", problem)(torch.tensor([0.1, 0.2, 0.3, 0.4]))


def test_returns_that_are_nearly_equal_are_proved_optimal_too():
    """An interior point's last digits are lost there: one try in ten isn't enough for the proof."""
    rng = np.random.default_rng(0)
    problem = mapgrad.Portfolio(np.eye(50), 0.2)
    theta = rng.normal(size=(200, 50)) + 1000
    solutions = mapgrad.get_solver("auto", problem).solve(torch.tensor(theta))
    assert (solutions.status == mapgrad.Status.OPTIMAL).all()
    assert problem.contains(solutions.z).all()
    for row, z in zip(theta, solutions.z.numpy(), strict=True):
        best = closed_form(problem, row, z)
        assert problem.contains_rows(best)
        assert abs(row @ (best - z)) <= 2e-9 * np.abs(row).max()


@pytest.mark.parametrize("beside", [-1e-3, -1e-5, -1e-7, -1e-9, 1e-9, 1e-7, 1e-3])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_limit_just_beside_the_least_variance(n, beside):
    """1 / Σ 1/σ² is the least variance of independent assets; answers to less than a millionth below it are states."""
    rng = np.random.default_rng(n)
    for _ in range(10):
        variances = 10 ** rng.uniform(-2, 2, n)
        problem = mapgrad.Portfolio(np.diag(variances), (1 + beside) / (1 / variances).sum(), fully_invested=True)
        solver = mapgrad.get_solver("auto", problem, on_error="nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows fail, which is said
            solutions = solver.solve(torch.tensor(rng.normal(size=(4, n))))
        is_optimal = solutions.status == mapgrad.Status.OPTIMAL
        assert (is_optimal | (solutions.status == mapgrad.Status.INFEASIBLE)).all()
        assert problem.contains(solutions.z[is_optimal]).all()
        if abs(beside) > 1e-6 or beside > 0:
            assert bool(is_optimal.all() if beside > 0 else not is_optimal.any())


@pytest.mark.parametrize("fully_invested", [False, True])
def test_forbidden_assets_aren_t_bought(fully_invested):
    rng = np.random.default_rng(3)
    covariance = covariance_of("dense", 6, rng)
    theta = torch.tensor(rng.normal(size=(5, 6)))
    forbidden = torch.tensor(rng.random((5, 6)) < 0.4)
    forbidden[:, 0] = False
    risk = 3 * covariance.max()
    solver = mapgrad.get_solver("auto", mapgrad.Portfolio(covariance, risk, fully_invested=fully_invested))
    z = solver(theta.masked_fill(forbidden, -torch.inf))
    assert not z[forbidden].any()
    for row, barred, answer in zip(theta, forbidden, z, strict=True):
        part = mapgrad.Portfolio(covariance[np.ix_(~barred, ~barred)], risk, fully_invested=fully_invested)
        alone = mapgrad.get_solver("auto", part)(row[~barred])
        torch.testing.assert_close(row @ answer, row[~barred] @ alone, rtol=0, atol=1e-8)
    nothing = torch.full((6,), -torch.inf, dtype=torch.float64)
    if fully_invested:
        with pytest.raises(mapgrad.InfeasibleError):
            solver(nothing)
    else:
        assert not solver(nothing).any()


def test_rows_don_t_depend_on_each_other_threads_or_dtype():
    task = PortfolioTask(assets=12)
    theta = task.draw(30)[1]
    solver = mapgrad.get_solver("auto", task.problem)
    z = solver(theta)
    assert z.dtype == torch.float32
    assert torch.equal(z, solver(theta.flip(0)).flip(0))
    assert torch.equal(z, torch.stack([solver(row) for row in theta]))
    assert torch.equal(z, mapgrad.get_solver("auto", task.problem, workers=3)(theta))
    torch.testing.assert_close(solver(theta.double()), z.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "law",
    ["plain_rows", "theta_unwritten", "empty_batch", "non_finite_refused", "wrong_shape_refused"],
)
def test_it_keeps_the_laws_of_solvers_that_need_no_enumeration(law):
    check = dict(mapgrad.testing.iter_checks("clarabel.portfolio", PortfolioTask(assets=5).problem))[law]
    assert check().applies


@pytest.mark.parametrize("fully_invested", [False, True])
def test_networks_learn_through_it(fully_invested):
    """Each way of training leaves less than half of the regret that an untrained network has."""
    task = PortfolioTask(assets=8, degree=2, noise=1, fully_invested=fully_invested)
    solver = mapgrad.get_solver("auto", task.problem)
    data = OptDataset(solver, *task.draw(60))
    best = (data.costs * data.states).sum(1)
    torch.testing.assert_close(data.values, best)
    layers = {
        "default": mapgrad.MAPLayer(solver, seed=0),
        "identity": mapgrad.MAPLayer(solver, mapgrad.Identity(), seed=0),
    }
    losses = {
        "spo+": lambda pred: mapgrad.losses.SPOPlus(solver)(pred, data.costs, data.states),
        "quadratic": lambda pred: mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Quadratic(), temperature=0.1)(
            pred, data.states
        ),
        **{name: lambda pred, layer=layer: -(layer(pred) * data.costs).sum(1).mean() for name, layer in layers.items()},
    }
    for name, loss in losses.items():
        torch.manual_seed(0)
        network = torch.nn.Linear(5, 8)
        before = mapgrad.losses.normalized_regret(solver, network(data.features), data.costs, data.states)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for _ in range(25):
            optimizer.zero_grad()
            loss(network(data.features)).backward()
            optimizer.step()
        after = mapgrad.losses.normalized_regret(solver, network(data.features), data.costs, data.states)
        assert 0 <= after < before / 2, name


def test_the_unambiguous_regret_of_unique_optima_is_the_regret():
    task = PortfolioTask(assets=8)
    true, pred = task.draw(20)[1].double(), task.draw(20, "test")[1].double()
    solver = mapgrad.get_solver("auto", task.problem)
    found = mapgrad.losses.regret(solver, pred, true, unambiguous=True)
    torch.testing.assert_close(found, mapgrad.losses.regret(solver, pred, true), rtol=0, atol=1e-4 * float(true.max()))
    constant = torch.ones(8, dtype=torch.float64)  # all of the budget, wherever it is
    worst = mapgrad.losses.regret(solver, constant, true[0], unambiguous=True)
    assert worst > mapgrad.losses.regret(solver, constant, true[0]) + 1e-3
