"""Programs by HiGHS: optima to the last digit, how a row ends, models that keep nothing of a row, the user's HiGHS."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import highspy
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
from mapgrad_highs._program import HiGHS


def knapsack(seed: int, items: int = 12, rows: int = 3) -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(seed).integers(1, 20, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


def points(program: mapgrad.IntegerProgram) -> NDArray[np.float64]:
    ranges = [np.arange(low, high + 1) for low, high in zip(program.lower, program.upper, strict=True)]
    box = np.array(list(product(*ranges)))
    activity = box @ program.matrix.toarray().T
    return box[((activity >= program.row_lower) & (activity <= program.row_upper)).all(axis=1)]


def status(program: mapgrad.IntegerProgram, theta: list[float]) -> mapgrad.Status:
    solver = HiGHS(program)
    solution = solver.solve(solver.init(), np.array(theta))
    assert solution.z is None
    return solution.status


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_are_solved_as_by_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.integers(-1, 3, 6)
    rows, equal = rng.integers(-5, 6, (3, 6)), rng.integers(0, 3, (seed % 2, 6))
    program = mapgrad.IntegerProgram(
        A_ub=rows, b_ub=rows @ inside + 1, A_eq=equal, b_eq=equal @ inside, lower=-2, upper=rng.integers(2, 4, 6)
    )
    theta = torch.as_tensor(rng.standard_normal((8, 6)))
    solutions = mapgrad.get_solver(HiGHS, program).solve(theta)
    assert program.contains(solutions.z).all()
    best = (np.asarray(theta) @ points(program).T).max(axis=1)
    np.testing.assert_allclose(solutions.objective, best, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gap", [1e-6, 1e-7, 1e-8, 2e-9])
def test_the_second_best_is_never_taken_for_the_best(gap: float) -> None:
    for seed in range(4):
        program, rng = knapsack(seed), np.random.default_rng(seed)
        theta = rng.integers(4, 8, (6, 12)) / 8 + gap * rng.integers(-9, 10, (6, 12))
        solutions = mapgrad.get_solver(HiGHS, program).solve(torch.as_tensor(theta))
        np.testing.assert_allclose(solutions.objective, (theta @ points(program).T).max(axis=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6, 1e14])
def test_rows_are_kept_to_the_last_digit_whatever_their_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        weights, wanted = rng.random((2, 12)), rng.integers(0, 2, 12)
        program = mapgrad.IntegerProgram(A_ub=scale * weights, b_ub=scale * (weights @ wanted - [1e-7, 2e-8]))
        theta = 2.0 * wanted - 1
        z = mapgrad.get_solver(HiGHS, program)(torch.as_tensor(theta))
        assert program.contains(z)
        assert float(z @ torch.as_tensor(theta)) == (points(program) @ theta).max() < wanted.sum()


@pytest.mark.parametrize("exponent", [-40, 0, 40])
def test_tiny_and_huge_utilities_get_the_same_answers(exponent: int) -> None:
    program = knapsack(0)
    theta = torch.as_tensor(np.random.default_rng(1).standard_normal((10, 12)))
    solver = mapgrad.get_solver(HiGHS, program)
    assert torch.equal(solver(theta * 2.0**exponent), solver(theta))


def test_linear_programs_end_at_a_vertex() -> None:
    square = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[1.5], integrality=0)
    solver = mapgrad.get_solver(HiGHS, square)
    for theta in ([1.0, 1.0], [0.0, 0.0], [1.0, 0.5], [-1.0, 0.0]):
        assert solver(torch.tensor(theta)).tolist() in [[0, 0], [0, 1], [1, 0], [1, 0.5], [0.5, 1]]


def test_continuous_variables_keep_their_fractions_and_integers_have_none() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2, 1, 0], [0, 1, 3]], b_ub=[3.25, 7.5], upper=5, integrality=[1, 0, 1])
    solutions = mapgrad.get_solver(HiGHS, program).solve(torch.tensor([1.0, 0.9, 1.0], dtype=torch.float64))
    assert solutions.z.tolist() == [1, 1.25, 2]
    assert solutions.objective == pytest.approx(4.125)


INFEASIBLE = [
    mapgrad.IntegerProgram(A_ub=[[-1, -1]], b_ub=[-3]),
    mapgrad.IntegerProgram(A_ub=[[-1, -1]], b_ub=[-3], integrality=0),
    mapgrad.IntegerProgram(A_eq=[[2, 2]], b_eq=[3]),
    mapgrad.IntegerProgram(A_eq=[[2, -2]], b_eq=[1], upper=np.inf),  # to HiGHS, unbounded or infeasible
    mapgrad.IntegerProgram(A_ub=[[0, 0]], b_ub=[-1]),
]
UNBOUNDED = [
    mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[1], upper=np.inf),
    mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[1], upper=np.inf, integrality=0),
    mapgrad.IntegerProgram(lower=[0, 0], upper=np.inf),
    mapgrad.IntegerProgram(lower=[-np.inf, 0], upper=[np.inf, 1], integrality=[0, 1]),
]


@pytest.mark.parametrize("program", INFEASIBLE)
def test_an_empty_set_is_infeasible(program: mapgrad.IntegerProgram) -> None:
    assert status(program, [0.75, 0.5]) is mapgrad.Status.INFEASIBLE
    with pytest.raises(mapgrad.InfeasibleError) as caught:
        mapgrad.get_solver("highs", program)(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert caught.value.rows == (0, 1)


@pytest.mark.parametrize("program", UNBOUNDED)
def test_growth_without_limit_is_unbounded_and_other_rows_are_answered(program: mapgrad.IntegerProgram) -> None:
    assert status(program, [0.75, 0.5]) is mapgrad.Status.UNBOUNDED
    with pytest.raises(mapgrad.UnboundedError) as caught:
        mapgrad.get_solver("highs", program)(torch.tensor([[0.0, -1.0], [1.0, 0.5]]))
    assert caught.value.rows == (1,)
    assert caught.value.solutions is not None
    assert caught.value.solutions.status.tolist() == [mapgrad.Status.OPTIMAL, mapgrad.Status.UNBOUNDED]


def test_an_incumbent_is_never_called_optimal() -> None:
    weights = np.random.default_rng(3).integers(50, 100, (30, 100))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)
    theta = torch.tensor(weights[:3] + weights.mean(axis=0))
    with pytest.raises(mapgrad.SolveTimeoutError) as caught:
        mapgrad.get_solver("highs", program, time_limit=1e-9)(theta)
    assert caught.value.rows == (0, 1, 2)
    solutions = mapgrad.get_solver("highs", program, time_limit=0.2, on_error="incumbent").solve(theta)
    assert solutions.status.tolist() == [mapgrad.Status.TIME_LIMIT] * 3
    assert program.contains(solutions.z).all()
    assert (solutions.bound > solutions.objective).all()
    assert solutions.seconds < 2


def test_a_start_is_not_taken_for_the_optimum() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[0.5, 1.25, 0, 2.5, 0.75, 0]], b_ub=[3.25], A_eq=[[1, 0, 1, 0, 1, 1]], b_eq=[2]
    )
    theta = np.array([-0.72, -0.37, -0.68, -0.3, -0.04, 0.11])
    solver = HiGHS(program)
    solver.reuse = True
    solution = solver.solve(solver.init(), theta, np.array([0.0, 1, 0, 0, 1, 1]))
    assert solution.status is mapgrad.Status.OPTIMAL
    assert solution.z is not None
    assert solution.z.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_linear_program_out_of_time_is_not_optimal() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[1, 1], [-1, -1]], b_ub=[1.5, -0.5], integrality=0)
    solver = HiGHS(program)
    solver.time_limit = 1e-9
    assert solver.solve(solver.init(), np.array([0.75, 0.5])) == mapgrad.Solution(None, mapgrad.Status.TIME_LIMIT)


def test_five_hundred_rows_of_one_model_are_answered_as_by_fresh_ones() -> None:
    solver = HiGHS(knapsack(5, items=8, rows=2))
    kept = solver.init()
    for theta in np.random.default_rng(0).uniform(-0.5, 1, (500, 8)):
        fresh = solver.init()
        z = solver.solve(kept, theta).z
        assert z is not None
        np.testing.assert_array_equal(z, solver.solve(fresh, theta).z)
        solver.close(fresh)


@pytest.mark.parametrize("integrality", [0, 1])
def test_reuse_changes_no_objective(integrality: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, (3, 30))
    program = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 3, integrality=integrality)
    solver, reusing = HiGHS(program), HiGHS(program)
    reusing.reuse = True
    state, model = solver.init(), reusing.init()
    theta, start = rng.random(30), None
    for _ in range(10):
        theta = np.clip(theta + 0.05 * rng.standard_normal(30), -1, 1)
        found = reusing.solve(model, theta, start)
        assert found.z is not None
        expected = solver.solve(state, theta).z
        assert found.status is mapgrad.Status.OPTIMAL
        assert theta @ found.z == pytest.approx(theta @ expected, abs=1e-9)
        start = np.where(rng.random(30) < 0.5, found.z, np.nan)


def test_any_problem_is_solved_by_its_program() -> None:
    problem = mapgrad.Assignment(4, 5)
    theta = torch.as_tensor(np.random.default_rng(0).standard_normal((5, 4, 5)))
    assert torch.equal(mapgrad.get_solver("highs", problem)(theta), mapgrad.get_solver("networkx", problem)(theta))


def test_threads_answer_as_one_does() -> None:
    program = knapsack(7)
    theta = torch.as_tensor(np.random.default_rng(0).random((40, 12)))
    with mapgrad.get_solver("highs", program, workers=3) as solver:
        assert torch.equal(solver(theta), mapgrad.get_solver("highs", program)(theta))


def own_highs(threads: int) -> highspy.HighsStatus:
    highs = highspy.Highs()
    highs.silent()
    highs.setOptionValue("threads", threads)
    highs.addVar(0, 1)
    return highs.run()


def test_the_users_own_highs_may_use_other_numbers_of_threads() -> None:
    solver = mapgrad.get_solver("highs", knapsack(0))
    theta = torch.linspace(0.5, 1, 12)

    def take_turns(_: int) -> list[highspy.HighsStatus]:
        statuses = []
        for threads in (2, 3, 1):
            statuses.append(own_highs(threads))
            assert solver(theta).sum() > 0
        return statuses

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(take_turns, range(4))) == [[highspy.HighsStatus.kOk] * 3] * 4


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    mapgrad.get_solver("highs", knapsack(0))(torch.rand(2, 12))
    with pytest.raises(mapgrad.InfeasibleError):
        mapgrad.get_solver("highs", INFEASIBLE[0])(torch.zeros(2))
    assert capfd.readouterr() == ("", "")


def test_options_are_refused() -> None:
    with pytest.raises(TypeError, match="HiGHS has no option 'threads'"):
        mapgrad.get_solver("highs", knapsack(0), threads=2)
