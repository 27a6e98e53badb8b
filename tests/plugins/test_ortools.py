"""OR-Tools' solvers of integer programs against enumeration: optima, statuses, limits, models that are kept."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
import mapgrad_ortools
from mapgrad import Request, Status
from mapgrad_ortools._cp_sat import CpSat
from mapgrad_ortools._mip import Mip

ENGINES = [("ortools.mip", {"engine": "cbc"}), ("ortools.mip", {"engine": "scip"}), ("ortools.cp_sat", {})]
SPECS = {spec.name: spec for spec in mapgrad_ortools.mapgrad_solvers()}


def random_program(seed: int) -> mapgrad.IntegerProgram:
    """General integers, decimals and equations, feasible but for one seed in eight."""
    rng = np.random.default_rng(seed)
    size, rows = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    lower = -rng.integers(0, 2, size)
    upper = lower + rng.integers(0, 4, size)
    point = rng.integers(lower, upper + 1)
    unit = (1.0, 0.1, 0.25)[seed % 3]
    matrix = unit * rng.integers(-5, 8, (rows, size))
    slack = unit * rng.integers(0, 4, rows) if seed % 8 else np.full(rows, -100.0)
    equation = rng.integers(-1, 3, (seed % 2, size))
    return mapgrad.IntegerProgram(
        A_ub=matrix, b_ub=matrix @ point + slack, A_eq=equation, b_eq=equation @ point, lower=lower, upper=upper
    )


def random_rows(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    ties = rng.integers(-2, 3, size)
    rows = [
        *rng.standard_normal((3, size)),
        ties.astype(float),
        np.zeros(size),
        -rng.random(size),
        ties / 3 + 1e-8 * rng.integers(-2, 3, size),
        rng.choice([0.1, 0.2, 0.3, -0.1], size),
        rng.standard_normal(size) * 10.0 ** rng.integers(-12, 1, size),
    ]
    return np.array(rows)


def knapsack(items: int, rows: int, seed: int = 0) -> mapgrad.Knapsack:
    weights = np.random.default_rng(seed).integers(1, 100, (rows, items))
    return mapgrad.Knapsack(weights, weights.sum(axis=1) // 2)


def market_split(items: int) -> mapgrad.IntegerProgram:
    """Equations with a solution that no solver finds soon."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 100, (5, items))
    return mapgrad.IntegerProgram(A_eq=weights, b_eq=weights @ rng.integers(0, 2, items))


@pytest.mark.parametrize(("name", "options"), ENGINES)
@pytest.mark.parametrize("seed", range(1, 10))
def test_a_random_program_is_solved_as_by_enumeration(name: str, options: dict[str, str], seed: int) -> None:
    program = random_program(seed)
    rows = torch.as_tensor(random_rows(np.random.default_rng(seed), program.num_vars))
    scales = torch.tensor([1.0, 1e-9, 1e9], dtype=torch.float64)[:, None, None]
    theta = (scales * rows).reshape(-1, program.num_vars)
    solver = mapgrad.get_solver(name, program, **options)
    if seed % 8 == 0:
        with pytest.raises(mapgrad.InfeasibleError):
            solver(theta)
        return
    solutions = solver.solve(theta)
    best = (theta @ program.states().T).amax(dim=1)
    margin = 1e-9 * theta.abs().amax(dim=1)
    assert program.contains(solutions.z).all()
    assert (best - (theta * solutions.z).sum(dim=1) <= margin).all()
    assert ((solutions.bound - best).abs() <= margin).all()


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_the_best_is_told_from_a_close_second(name: str, options: dict[str, str]) -> None:
    problem = knapsack(10, 2)
    states = problem.states()
    rng = np.random.default_rng(1)
    theta = torch.as_tensor(rng.standard_normal((30, 10)))
    first, second = (theta @ states.T).topk(2, dim=1).indices.unbind(dim=1)
    apart = states[first] - states[second]
    excess = (theta * apart).sum(dim=1) - torch.tensor([1e-7, 1e-8, 3e-9], dtype=torch.float64).repeat(10)
    theta -= (excess / apart.square().sum(dim=1))[:, None] * apart
    z = mapgrad.get_solver(name, problem, **options)(theta)
    best = (theta @ states.T).amax(dim=1)
    assert (best - (theta * z).sum(dim=1) <= 1e-9 * theta.abs().amax(dim=1)).all()


def test_a_linear_program_is_solved_by_all_engines_alike() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[1, 2, 1], [3, 1, -1]], b_ub=[4, 5.5], A_eq=[[0, 1, -1]], b_eq=[-0.5], upper=np.inf, integrality=0
    )
    theta = torch.tensor([[1.0, 1.0, -0.5], [0.1, 1.0, -0.3], [-1.0, -1.0, -1.0]], dtype=torch.float64)
    expected = torch.tensor([[2, 0.5, 1], [0, 7 / 6, 5 / 3], [0, 0, 0.5]], dtype=torch.float64)
    for options in ({}, {"engine": "glop"}, {"engine": "scip"}, {"engine": "cbc"}):
        z = mapgrad.get_solver("ortools.mip", program, **options)(theta)
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-7)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="variable 0 is continuous"):
        mapgrad.get_solver("ortools.cp_sat", program)


def test_continuous_variables_fit_the_rounded_integers() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[1, -1e4, 0], [0, 0.3, 1]], b_ub=[0, 1], upper=[1e4, 1, 5], integrality=[0, 1, 0]
    )
    z = mapgrad.get_solver("ortools.mip", program)(torch.tensor([[0.9, -0.5, 0.7], [1e-5, -0.9, 0.7]]).double())
    assert z.numpy() == pytest.approx(np.array([[1e4, 1, 0.7], [0, 0, 1]]), rel=0, abs=1e-15)


def test_mixed_programs_go_to_scip_as_cbc_calls_an_inferior_answer_optimal() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[-0.03, 0, -0.65, -1.83, 1.68, 0.48, -2.07, -1.06, -0.62, 0]],
        b_ub=[4.22],
        A_eq=[[0, 2, -2, -2, 0, 2, 0, -1, -1, 1]],
        b_eq=[-3],
        lower=[-1, -2, 0, 0, -1, -1, -2, -1, -2, -1],
        upper=[np.inf, 0, 0, 0, -1, -1, -1, 1, -1, -1],
        integrality=[1, 0, 0, 1, 0, 1, 0, 1, 1, 0],
    )
    theta = torch.tensor([0.0, 0, 0.5, 0.5, -0.5, 0.5, -0.5, 0, -0.5, 0])
    assert mapgrad.get_solver("ortools.mip", program).solve(theta).objective == 2


def test_a_solution_by_tolerance_alone_is_not_taken() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2999997, -6]], b_ub=[2999990], lower=[0, 1], upper=[2, 1])
    theta = torch.tensor([0.9, 0.0])
    for engine in ("cbc", "scip"):
        assert mapgrad.get_solver("ortools.mip", program, engine=engine)(theta).tolist() == [0, 1]
    assert mapgrad.get_solver("ortools.cp_sat", program)(theta).tolist() == [0, 1]


@pytest.mark.parametrize("engine", ["cbc", "scip", "glop"])
def test_infeasible_and_unbounded_are_told_apart(engine: str) -> None:
    shared = {"upper": np.inf, "integrality": engine != "glop"}
    ray = mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[1], **shared)
    empty = mapgrad.IntegerProgram(A_ub=[[1, -1], [-1, 1]], b_ub=[1, -2], **shared)
    for program, theta, expected in [
        (ray, [0.5, 0.5], Status.UNBOUNDED),
        (ray, [-0.5, -0.5], Status.OPTIMAL),
        (ray, [0.0, 0.0], Status.OPTIMAL),
        (empty, [0.5, 0.5], Status.INFEASIBLE),
        (empty, [-0.5, -0.5], Status.INFEASIBLE),
    ]:
        solver = Mip(program, engine=engine)
        answer = solver.solve(solver.init(), np.array(theta), Request())
        assert answer.status is expected
        assert (answer.z is None) == (expected is not Status.OPTIMAL)
    with pytest.raises(mapgrad.UnboundedError, match="row 1: UNBOUNDED"):
        mapgrad.get_solver("ortools.mip", ray, engine=engine)(torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_without_constraints_bounds_decide(name: str, options: dict[str, str]) -> None:
    program = mapgrad.IntegerProgram(lower=[-2, 0, 1], upper=[3, 4, 1])
    solver = mapgrad.get_solver(name, program, **options)
    assert solver(torch.tensor([[1.0, -1.0, 5.0], [-1.0, 1.0, -5.0]])).tolist() == [[3, 0, 1], [-2, 4, 1]]


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_a_time_limit_stops_a_search_and_nothing_unproved_is_optimal(name: str, options: dict[str, str]) -> None:
    problem = knapsack(300, 20)
    theta = torch.rand(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    with pytest.raises(mapgrad.SolveTimeoutError) as caught:
        mapgrad.get_solver(name, problem, time_limit=0.1, **options)(theta)
    assert time.perf_counter() - started < 5
    solutions = caught.value.solutions
    assert solutions is not None
    assert caught.value.rows == (0, 1)
    assert (solutions.status == Status.TIME_LIMIT).all()
    answered = solutions.z.isfinite().all(dim=1)
    assert problem.contains(solutions.z[answered]).all()
    assert (solutions.bound >= solutions.objective)[answered].all()


@pytest.mark.parametrize(("name", "options"), ENGINES)
@pytest.mark.parametrize("limit", [1e-6, 0.05])
def test_a_clock_that_stops_before_the_first_incumbent_proves_nothing(
    name: str, options: dict[str, str], limit: float
) -> None:
    program = market_split(40)
    theta = torch.rand(1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(mapgrad.SolveTimeoutError, match="row 0: TIME_LIMIT"):
        mapgrad.get_solver(name, program, time_limit=limit, **options)(theta)


def test_a_time_limit_holds_for_the_rows_that_have_one() -> None:
    program, theta = knapsack(100, 10).to_ilp(), np.random.default_rng(0).random(100)
    small = np.where(np.arange(100) < 12, theta, -theta)
    for solver in (Mip(program, engine="cbc"), Mip(program, engine="scip"), CpSat(program)):
        state = solver.init()
        assert solver.solve(state, theta, Request(seconds=0.02)).status is Status.TIME_LIMIT
        assert solver.solve(state, small, Request()).status is Status.OPTIMAL


@pytest.mark.parametrize(("solver", "options"), [(Mip, {"engine": "cbc"}), (Mip, {"engine": "scip"}), (CpSat, {})])
@pytest.mark.parametrize("reuse", [False, True])
def test_hundreds_of_solves_on_one_model_equal_fresh_ones(
    solver: type[mapgrad.InstanceSolver], options: dict[str, str], reuse: bool
) -> None:
    problem = knapsack(8, 2, seed=3)
    program = problem.to_ilp()
    states = np.asarray(problem.states())
    rng = np.random.default_rng(0)
    instance = solver(program, **options)
    kept, z = instance.init(), None
    for number in range(250):
        theta = rng.integers(-2, 3, 8) / 4 if number % 3 == 0 else rng.uniform(-1, 1, 8)
        answer = instance.solve(kept, theta, Request(z, reuse=reuse))
        assert answer.status is Status.OPTIMAL
        assert theta @ answer.z == pytest.approx((states @ theta).max(), rel=0, abs=1e-12)
        assert (states == answer.z).all(axis=1).any()
        if number % 25 == 0 and not reuse:
            assert instance.solve(instance.init(), theta, Request()).z.tolist() == answer.z.tolist()
        z = answer.z


def test_a_start_may_say_nothing_of_some_variables() -> None:
    program = knapsack(12, 2).to_ilp()
    start = np.full(12, np.nan)
    start[:6] = 0
    for solver in (Mip(program, engine="cbc"), Mip(program, engine="scip"), CpSat(program)):
        state = solver.init()
        for theta in np.random.default_rng(0).uniform(-1, 1, (15, 12)):
            started = solver.solve(state, theta, Request(start, reuse=True))
            alone = solver.solve(solver.init(), theta, Request())
            assert (started.status, alone.status) == (Status.OPTIMAL, Status.OPTIMAL)
            assert theta @ started.z == pytest.approx(theta @ alone.z, rel=0, abs=1e-12)


@pytest.mark.parametrize(("name", "options"), ENGINES)
def test_threads_give_the_answers_of_one(name: str, options: dict[str, str]) -> None:
    theta = torch.rand(24, 12, generator=torch.Generator().manual_seed(0))
    with mapgrad.get_solver(name, knapsack(12, 2), workers=4, **options) as threaded:
        assert torch.equal(threaded(theta), mapgrad.get_solver(name, knapsack(12, 2), **options)(theta))


def test_what_rounding_may_have_cost_is_in_the_bound() -> None:
    program = mapgrad.IntegerProgram(A_ub=np.ones((1, 60)), b_ub=[3e7], upper=1e6)
    theta = np.random.default_rng(0).random(60)
    solver = CpSat(program)
    solution = solver.solve(solver.init(), theta, Request())
    best = 1e6 * np.sort(theta)[-30:].sum()
    assert solution.status is Status.FEASIBLE
    assert solution.objective <= best <= solution.bound <= best + 1e-2
    single = theta.astype(np.float32).astype(np.float64)
    solution = solver.solve(solver.init(), single, Request())
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(1e6 * np.sort(single)[-30:].sum(), rel=1e-14)


def test_cp_sat_says_what_it_can_not_take() -> None:
    for program, reason in [
        (mapgrad.IntegerProgram(integrality=[1, 0]), "variable 1 is continuous, and CP-SAT takes integer variables"),
        (mapgrad.IntegerProgram(upper=[1, np.inf]), "variable 1 lacks a finite bound"),
        (mapgrad.IntegerProgram(A_ub=np.sqrt([[2, 3, 5, 7, 11]]), b_ub=[5]), "row 0 in integers takes more than 64"),
    ]:
        with pytest.raises(mapgrad.UnsupportedProblemError, match=reason):
            mapgrad.get_solver("ortools.cp_sat", program)
        with pytest.raises(mapgrad.UnsupportedProblemError, match=f"CP-SAT can't solve .*{reason}"):
            CpSat(program).init()


def test_variables_that_only_rows_bound_reach_cp_sat() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2, 3]], b_ub=[12], upper=np.inf)
    solver = mapgrad.get_solver("ortools.cp_sat", program)
    assert solver(torch.tensor([[1.0, 1.0], [1.0, 2.0], [-1.0, 0.5]])).tolist() == [[6, 0], [0, 4], [0, 4]]
    siblings = [program.replace(b_ub=[most]) for most in (30, 7, 0)]
    assert solver(torch.ones(3, 2), problems=siblings).tolist() == [[15, 0], [3, 0], [0, 0]]
    assert solver(torch.tensor([1.0, 1.0])).tolist() == [6, 0]


def test_a_row_whose_sides_cp_sat_can_not_take_fails_alone() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2, 3], [1, 0]], b_ub=[12, 3], upper=np.inf)
    problems = [program, program.replace(b_ub=[np.inf, 2]), program.replace(b_ub=[2.0**40, 3]), program]
    with pytest.raises(mapgrad.RowsError, match=r"can't solve .* variable 1 lacks a finite bound") as caught:
        mapgrad.get_solver("ortools.cp_sat", program)(torch.ones(4, 2), problems=problems)
    assert caught.value.rows == (1, 2)
    assert caught.value.solutions.objective[[0, 3]].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("weights", "capacities"),
    [
        ([[3, 5, 0, 7, 2, 9]], [10]),
        ([[3, 5, 0, 7, 2, 9], [1, 0, 0, 4, 30, 2]], [14, 6]),
        ([[0.1, 0.2, 0.3, 0.4, 0, 0.5], [2, 2, 2, 2, 2, 2]], [0.6, 7]),
        ([[1, 1, 1, 1, 1, 1]], [0]),
        ([[4000001, 3000002, 2000003, 5000004, 1000005, 6000006]], [9000009]),
    ],
)
def test_the_knapsack_search_is_as_good_as_enumeration(weights: list[list[float]], capacities: list[float]) -> None:
    problem = mapgrad.Knapsack(weights, capacities)
    states = problem.states()
    theta = torch.as_tensor(random_rows(np.random.default_rng(0), 6))
    theta = torch.cat([theta, theta.abs(), 1e-9 * theta.abs(), 1e9 * theta.abs()])
    solutions = mapgrad.get_solver("ortools.knapsack", problem).solve(theta)
    best = (theta @ states.T).amax(dim=1)
    margin = 1e-9 * theta.abs().amax(dim=1)
    assert problem.contains(solutions.z).all()
    assert (best - (theta * solutions.z).sum(dim=1) <= margin).all()
    assert ((solutions.bound - best).abs() <= margin).all()


def test_the_knapsack_search_is_the_cheapest_for_small_ones_and_refuses_large_numbers() -> None:
    assert mapgrad.get_solver("ortools", knapsack(16, 2)).name == "ortools.knapsack"
    assert mapgrad.get_solver("ortools", knapsack(100, 5)).name != "ortools.knapsack"
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"capacities in integers reach 1e\+09, more than"):
        mapgrad.get_solver("ortools.knapsack", mapgrad.Knapsack([1e9, 5e8, 3], 1e9))
    for weights in (np.sqrt([2, 3, 5, 7, 11]), [1e300, 1]):
        with pytest.raises(mapgrad.UnsupportedProblemError, match="more than 64 bits"):
            mapgrad.get_solver("ortools.knapsack", mapgrad.Knapsack(weights, 5))


def test_a_time_limit_stops_the_knapsack_search() -> None:
    problem = knapsack(100, 5)
    theta = torch.rand(1, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(mapgrad.SolveTimeoutError, match="row 0: TIME_LIMIT") as caught:
        mapgrad.get_solver("ortools.knapsack", problem, time_limit=0.05)(theta)
    assert caught.value.solutions is not None
    assert problem.contains(caught.value.solutions.z).all()


def test_options_are_checked() -> None:
    problem = knapsack(5, 1)
    with pytest.raises(ValueError, match="engine must be one of 'scip', 'cbc', 'glop' or None, got 'highs'"):
        mapgrad.get_solver("ortools.mip", problem, engine="highs")
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"'glop' solves linear programs, but .* 5 integer"):
        mapgrad.get_solver("ortools.mip", problem, engine="glop")
    with pytest.raises(TypeError, match=r"^ortools.cp_sat \(.*\) has no option 'engine': it has no options of its own"):
        mapgrad.get_solver("ortools.cp_sat", problem, engine="scip")


@pytest.mark.parametrize(("name", "options"), [*ENGINES, ("ortools.mip", {"engine": "glop"})])
def test_an_interrupt_still_reaches_python(name: str, options: dict[str, str]) -> None:
    weights = np.random.default_rng(0).integers(1, 100, (2, 10))
    program = mapgrad.IntegerProgram(
        A_ub=weights, b_ub=weights.sum(axis=1) // 2, integrality=options != {"engine": "glop"}
    )
    theta = torch.rand(60, 10, generator=torch.Generator().manual_seed(0))
    with mapgrad.get_solver(name, program, workers=6, **options) as solver:
        solver(theta)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the signal may take a moment)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


@pytest.mark.parametrize("name", ["mip", "cp_sat", "knapsack"])
def test_a_declared_cost_is_plausible_and_grows_with_the_program(name: str) -> None:
    cost = SPECS[name].cost
    assert cost is not None
    sizes = [knapsack(16, 1), knapsack(40, 1), knapsack(50, 5)]
    costs = [cost(problem if name == "knapsack" else problem.to_ilp()) for problem in sizes]
    assert 1e-5 < costs[0] < costs[1] < costs[2] < 1


def test_small_programs_are_cheaper_by_cp_sat_and_large_ones_by_branch_and_bound() -> None:
    costs = {name: SPECS[name].cost for name in ("mip", "cp_sat")}
    for items, cheapest in [(16, "cp_sat"), (500, "mip")]:
        program = knapsack(items, 5).to_ilp()
        assert min(costs, key=lambda name: costs[name](program)) == cheapest
