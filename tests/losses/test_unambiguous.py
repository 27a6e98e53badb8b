"""The unambiguous regret is that of the worst among the optimal states, by enumeration."""

import pytest
import torch

import mapgrad
from mapgrad.losses import Regret, normalized_regret, regret
from mapgrad.testing import BruteForce, example_problems

PROBLEMS = [
    problem
    for problem in example_problems(mapgrad.SolverSpec(name="any", factory=BruteForce, accepts=(mapgrad.Problem,)))
    if not (isinstance(problem, mapgrad.IntegerProgram) and problem.fixed.any())
]

ROWS = {
    "normal": lambda draw: draw,
    "rounded": lambda draw: draw.round(),
    "signs": lambda draw: draw.sign() * (draw.abs() > 0.6),
    "tenths": lambda draw: 0.1 * (1 + draw.abs().round()),
    "constant": lambda draw: torch.ones_like(draw),
    "zero": lambda draw: torch.zeros_like(draw),
    "near ties": lambda draw: draw.round() + 1e-4 * draw,
}


def worst(problem, theta, true, tolerance=1e-9):
    """Return the largest regret among all states that are optimal for θ, row by row."""
    states = problem.states().flatten(1)
    value, worth = (rows.flatten(1).double() @ states.T for rows in (theta, true))
    is_optimal = value >= value.amax(1, keepdim=True) - tolerance * theta.flatten(1).abs().amax(1, keepdim=True)
    return worth.amax(1) - worth.masked_fill(~is_optimal, torch.inf).amin(1)


def rows_of(problem, kind, draw, count=20):
    theta, true = ROWS[kind](draw(count, *problem.shape)), draw(count, *problem.shape, seed=1)
    if problem.domain is mapgrad.Domain.NONPOSITIVE:
        theta, true = -theta.abs() - 0.1 * (theta == 0), -true.abs()
    return theta, true


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_it_is_the_worst_of_all_optimal_states(problem, kind, draw):
    theta, true = rows_of(problem, kind, draw)
    solver = mapgrad.get_solver("auto", problem)
    found = regret(solver, theta, true, unambiguous=True)
    torch.testing.assert_close(found, worst(problem, theta, true), rtol=0, atol=1e-9)
    assert (found >= regret(solver, theta, true) - 1e-12).all()
    torch.testing.assert_close(regret(solver, -theta, -true, minimize=True, unambiguous=True), found)


@pytest.mark.parametrize("problem", [mapgrad.KSubset(6, 2), mapgrad.Assignment(3)], ids=str)
def test_engines_of_programs_agree(problem, draw):
    theta, true = rows_of(problem, "rounded", draw)
    for name in ("highs", "scipy.milp"):
        found = regret(mapgrad.get_solver(name, problem), theta, true, unambiguous=True)
        torch.testing.assert_close(found, worst(problem, theta, true), rtol=0, atol=1e-9)


def test_ties_are_of_the_predictions_precision():
    """0.1 + 0.2 isn't 0.3 in either dtype, by an amount that only float32 may miss."""
    solver = mapgrad.get_solver("auto", mapgrad.Knapsack([1, 1, 2], 2))
    theta, true = torch.tensor([0.1, 0.2, 0.3 + 1e-7]), torch.tensor([1.0, 1.0, 5.0])
    assert regret(solver, theta, true, unambiguous=True) == 3
    assert regret(solver, theta.double(), true.double(), unambiguous=True) == 0


def test_batches_metrics_and_problems_by_row(draw):
    problems = [mapgrad.KSubset(4, k) for k in (1, 2, 3)]
    theta, true = draw(3, 4).round(), draw(3, 4, seed=1)
    expected = torch.cat([worst(each, theta[[row]], true[[row]]) for row, each in enumerate(problems)])
    any_solver = mapgrad.get_solver("auto", None)
    found = regret(any_solver, theta, true, problems=problems, unambiguous=True)
    torch.testing.assert_close(found, expected)
    solver, theta, true = mapgrad.get_solver("auto", problems[1]), draw(2, 3, 4).round(), draw(2, 3, 4, seed=1)
    expected = worst(problems[1], theta.flatten(0, 1), true.flatten(0, 1)).reshape(2, 3)
    torch.testing.assert_close(regret(solver, theta, true, unambiguous=True), expected)
    mean, normalized = Regret(solver, normalize=False, unambiguous=True), Regret(solver, unambiguous=True)
    for metric in (mean, normalized):
        for part in range(2):
            metric.update(theta[part], true[part])
    torch.testing.assert_close(mean.compute(), expected.mean())
    torch.testing.assert_close(normalized.compute(), normalized_regret(solver, theta, true, unambiguous=True))
    assert regret(solver, theta[0, 0], true[0, 0], unambiguous=True).shape == ()
    assert regret(solver, theta[:0], true[:0], unambiguous=True).shape == (0, 3)


def test_forbidden_entries_stay_forbidden(draw):
    problem = mapgrad.KSubset(5, 2)
    theta, true = torch.zeros(5), torch.tensor([5.0, 4.0, 3.0, -9.0, 1.0])
    theta[3] = -torch.inf
    solver = mapgrad.get_solver("auto", problem)
    assert regret(solver, theta, true, unambiguous=True) == 9 - 4
    true[0] = -torch.inf
    with pytest.raises(mapgrad.NonFiniteError, match="true has NaN or infinite entries") as caught:
        regret(solver, theta, true, torch.tensor([0.0, 1, 1, 0, 0]), unambiguous=True)
    assert caught.value.rows == (0,)


def test_the_longest_of_free_paths_is_refused():
    solver = mapgrad.get_solver("auto", mapgrad.GridShortestPath(3, 3))
    costs, true = torch.ones(3, 3, 3), torch.ones(3, 3, 3)
    costs[1, 1, 1] = 0
    with pytest.raises(
        mapgrad.DomainError, match="the longest path through entries whose predicted cost is 0"
    ) as caught:
        regret(solver, costs, true, minimize=True, unambiguous=True)
    assert caught.value.rows == (1,)
    true[1, 1, 1] = 0  # then it costs nothing in truth either
    assert regret(solver, costs, true, minimize=True, unambiguous=True)[1] == 0


def test_a_heuristic_is_refused(draw):
    class First(mapgrad.InstanceSolver):
        traits = mapgrad.Traits(exact=False)

        def solve(self, state, theta, request):
            return torch.eye(4, dtype=torch.float64)[0].numpy()

    solver = mapgrad.get_solver(First, mapgrad.KSubset(4, 1))
    with pytest.raises(ValueError, match="doesn't promise to find one: take an exact solver"):
        regret(solver, draw(2, 4), draw(2, 4), unambiguous=True)
