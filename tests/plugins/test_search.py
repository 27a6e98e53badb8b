"""Branch and bound in numba: equal to enumeration and to engines, within its limits of time, and ready to give up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad import Block, IntegerProgram, Status

pytest.importorskip("numba")

import numba

from mapgrad_search import _search
from mapgrad_search._knapsack import pack
from mapgrad_search._memory import MEMORY, ROWS
from mapgrad_search._search import Search
from mapgrad_search._simplex import TABLEAU
from mapgrad_search._tree import search

COEFFICIENTS = (
    st.integers(0, 6).map(float),
    st.integers(-5, 5).map(float),
    st.integers(-40, 50).map(lambda number: number / 10),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 1 / 3, -np.sqrt(2), np.pi, 0.1]),
    st.sampled_from([0.0, 1e-3, 7.0, -2.3e6, 5.3e5, 0.25]),
)


@st.composite
def programs(draw):
    """Rows of one or two sides or equations near a point, or far from any; 0/1 variables, some of them fixed."""
    width, height = draw(st.integers(1, 7)), draw(st.integers(0, 4))
    matrix = np.array(
        [draw(st.lists(draw(st.sampled_from(COEFFICIENTS)), min_size=width, max_size=width)) for _ in range(height)]
    ).reshape(height, width)
    middle = matrix @ np.array(draw(st.lists(st.integers(0, 1), min_size=width, max_size=width)), dtype=float)
    lower, upper = np.full(height, -np.inf), np.full(height, np.inf)
    for row in range(height):
        kind = draw(st.integers(0, 4))
        away = draw(st.integers(0, 2)) * np.abs(matrix[row]).max(initial=0)
        lower[row] = -np.inf if kind == 0 else middle[row] if kind in (1, 2) else middle[row] - away
        upper[row] = np.inf if kind == 1 else middle[row] if kind in (0, 2) else middle[row] + away
        if kind == 4:
            lower[row], upper[row] = middle[row] + 0.5, middle[row] + 1.5
    most = draw(st.lists(st.sampled_from([1, 1, 1, 1, 0, 3]), min_size=width, max_size=width))
    least = [min(draw(st.sampled_from([0, 0, 0, 1, -1])), each) for each in most]
    return IntegerProgram.from_rows(matrix, lower, upper, lower=least, upper=most)


def rows(width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(9, width))
    theta[3:6] = rng.integers(-2, 3, (3, width))
    theta[6:] = np.array([0.0, 1.0, -1.0])[:, None]
    theta[2] *= rng.random(width) < 0.4
    return theta


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 1000), st.integers(-9, 9))
def test_it_is_as_good_as_enumeration(program, seed, exponent):
    theta = torch.tensor(rows(program.num_vars, seed)) * 10.0**exponent
    with mapgrad.get_solver("search", program) as solver:
        try:
            best = (theta @ program.states().T).amax(1)
        except mapgrad.InfeasibleError:
            with pytest.raises(mapgrad.InfeasibleError) as refused:
                solver(theta)
            assert refused.value.rows == tuple(range(len(theta)))
            return
        found = solver.solve(theta)
    assert program.contains(found.z).all()
    worth = (theta * found.z).sum(1)
    assert ((worth - best).abs() <= 1e-9 * theta.abs().amax(1)).all()


def require_best(program, theta):
    """Compare with enumeration."""
    solver = mapgrad.get_solver("search", program)
    try:
        best = (theta @ program.states().T).amax(1)
    except mapgrad.InfeasibleError:
        with pytest.raises(mapgrad.InfeasibleError):
            solver(theta)
        return
    found = solver.solve(theta)
    assert program.contains(found.z).all()
    assert (found.objective - best).abs().max() <= 1e-9 * theta.abs().max()


TINY = [0.0, 5e-324, -5e-324, 1e-323, 1e-310, -1e-310, 1e-300, 1e-20]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from([1.0, 1e-290, 1e-312, 1e300]), st.integers(0, 1000))
def test_rows_and_sides_of_any_magnitude_are_as_good_as_enumeration(data, magnitude, seed):
    numbers = st.sampled_from([0.0, 1.0, -1.0, np.pi, -np.e, 1 / 3, 7.0, 0.1, 8.0])
    row = np.array(data.draw(st.lists(numbers, min_size=1, max_size=5))) * magnitude
    sides = st.sampled_from([*TINY, *row, row.sum()])
    lower, upper = data.draw(sides | st.just(-np.inf)), data.draw(sides | st.just(np.inf))
    program = IntegerProgram.from_rows([row], [min(lower, upper)], [upper], upper=np.ones(len(row)))
    require_best(program, torch.tensor(rows(len(row), seed)))


@pytest.mark.parametrize("sides", [(5e-324, 5e-324), (5e-324, 1e-300), (-1e-310, -5e-324)])
@pytest.mark.parametrize("row", [[np.pi], [1.0, -np.e, 7.0], [3 * np.pi, -8 * np.e]])
def test_zero_isnt_between_sides_that_exclude_it(row, sides):
    program = IntegerProgram.from_rows([row], [sides[0]], [sides[1]], upper=np.ones(len(row)))
    with pytest.raises(mapgrad.InfeasibleError):
        mapgrad.get_solver("search", program)(torch.ones(1, len(row)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([1e14 + 1, 3e14 - 1, -2e14 + 3, 1e9 + 7, 1.0, -2.0, 0.0]), min_size=1, max_size=5),
    st.data(),
)
def test_large_integers_are_summed_exactly_or_refused(row, data):
    width = len(row)
    x = data.draw(st.lists(st.integers(0, 1), min_size=width, max_size=width))
    side = float(np.dot(row, x)) + data.draw(st.integers(-1, 1))
    program = IntegerProgram.from_rows(
        [row], [data.draw(st.sampled_from([-np.inf, side]))], [side], upper=np.ones(width)
    )
    theta = torch.tensor(rows(width, data.draw(st.integers(0, 1000))))
    if np.abs(row).sum() / program.row_facts.units[0] > 2.0**50:
        with pytest.raises(mapgrad.UnsupportedProblemError, match="times its unit"):
            mapgrad.get_solver("search", program)
    else:
        require_best(program, theta)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 1000))
def test_forbidden_entries_and_starts_change_no_optimum(program, seed):
    rng = np.random.default_rng(seed)
    program = program.replace(lower=np.minimum(program.lower, 0))
    theta, width = rows(program.num_vars, seed), program.num_vars
    theta /= np.maximum(np.abs(theta).max(axis=1, keepdims=True), 1)
    forbidden = rng.random(theta.shape) < 0.2
    starts = np.where(rng.random((len(theta), 1)) < 0.3, np.nan, rng.integers(0, 2, theta.shape))
    solver = Search(program)
    block = Block(theta, forbidden=forbidden, start=starts, reuse=True)
    solver.solve_rows(solver.init(), block)
    try:
        states = np.asarray(program.states())
    except mapgrad.InfeasibleError:
        states = np.empty((0, width))
    for row in range(len(theta)):
        left = states[~states[:, forbidden[row]].any(axis=1)]
        if len(left):
            assert block.status[row] == Status.OPTIMAL
            assert not block.z[row][forbidden[row]].any()
            assert theta[row] @ block.z[row] == pytest.approx((left @ theta[row]).max(), abs=1e-9)
        else:
            assert block.status[row] == Status.INFEASIBLE
            assert np.isnan(block.z[row]).all()


def covering(sets: int, elements: int, seed: int) -> IntegerProgram:
    holds = np.random.default_rng(seed).random((elements, sets)) < 0.1
    return IntegerProgram(A_ub=-1.0 * holds[holds.any(1)], b_ub=-np.ones(holds.any(1).sum()))


def packing(sets: int, elements: int, seed: int) -> IntegerProgram:
    holds = np.random.default_rng(seed).random((elements, sets)) < 0.1
    return IntegerProgram(A_ub=1.0 * holds[holds.any(1)], b_ub=np.ones(holds.any(1).sum()))


def mixture(seed: int) -> IntegerProgram:
    """Rows of decimals of either sign with two sides, and an equation."""
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.normal(size=(6, 25)), 2)
    matrix[5] = rng.integers(1, 9, 25)
    middle = matrix @ rng.integers(0, 2, 25)
    return IntegerProgram.from_rows(matrix, middle - [1, 1, 1, 1, np.inf, 0], middle + np.array([1, 1, 1, 1, 0, 0]))


def knapsack(items: int, constraints: int, seed: int) -> mapgrad.Knapsack:
    weights = np.random.default_rng(seed).integers(1, 100, (constraints, items))
    return mapgrad.Knapsack(weights, weights.sum(1) // 2)


MEDIUM = {
    "covering": (covering(60, 30, 3), -1),
    "packing": (packing(60, 30, 3), 1),
    "mixture": (mixture(4), 0),
    "knapsack 35×5": (knapsack(35, 5, 2), 1),
    "knapsack 60×1": (knapsack(60, 1, 2), 1),
    "decimal knapsack": (mapgrad.Knapsack(np.random.default_rng(1).random((3, 30)), [4, 5.5, 7]), 1),
    "assignment": (mapgrad.Assignment(7).to_ilp(), 0),
}


PROGRAMS = [*MEDIUM.values(), (IntegerProgram(A_ub=[[0, 0, 0]], b_ub=[0], upper=[2, 2, 2]), 0)]


@pytest.mark.parametrize("problem", [problem for problem, _ in PROGRAMS], ids=[*MEDIUM, "without coefficients"])
def test_all_programs_are_of_the_one_type_that_kernels_are_compiled_for(problem):
    solver = Search(problem)
    state = solver.init()
    assert numba.typeof(solver._form.rows) == ROWS
    assert numba.typeof(state.tableau) == TABLEAU
    assert numba.typeof(state.memory) == MEMORY
    count = problem.to_ilp().num_vars
    limits = mapgrad.Limits(*(np.asfortranarray([each] * 2) for each in mapgrad.Limits.of(problem.to_ilp())))
    solver.solve_rows(state, Block(np.zeros((2, count)), limits=limits))
    assert len(search.ready().signatures) == len(pack.ready().signatures) == 1


@pytest.mark.parametrize("engine", ["highs", "ortools.cp_sat"])
@pytest.mark.parametrize(("problem", "sign"), MEDIUM.values(), ids=MEDIUM)
def test_it_agrees_with_engines(problem, sign, engine):
    if engine == "ortools.cp_sat" and problem is MEDIUM["decimal knapsack"][0]:
        pytest.skip("CP-SAT takes no weights that aren't decimals")
    theta = np.random.default_rng(0).normal(size=(12, *problem.shape))
    theta = torch.tensor(sign * (np.abs(theta) + 0.2) if sign else theta)
    found = mapgrad.get_solver("search", problem).solve(theta)
    expected = mapgrad.get_solver(engine, problem).solve(theta)
    assert problem.contains(found.z).all()
    scale = theta.abs().flatten(1).amax(1)
    assert ((found.objective - expected.objective).abs() <= 2e-9 * scale).all()


def correlated(items: int) -> tuple[mapgrad.Knapsack, np.ndarray]:
    """A knapsack of two constraints, and rows in which an item is worth what it weighs, nearly."""
    rng = np.random.default_rng(2)
    weights = rng.integers(1, 100, (2, items)).astype(float)
    theta = weights.mean(0)[None] / 20 + 0.5 + rng.random((4, items)) * 0.01
    return mapgrad.Knapsack(weights, weights.sum(1) // 2), theta / 8


def test_utilities_that_follow_the_weights_are_solved_right():
    problem, theta = correlated(30)
    found = mapgrad.get_solver("search", problem).solve(torch.tensor(theta))
    expected = mapgrad.get_solver("ortools.cp_sat", problem).solve(torch.tensor(theta))
    assert problem.contains(found.z).all()
    assert (found.objective - expected.objective).abs().max() <= 1e-9


def hard() -> tuple[IntegerProgram, np.ndarray]:
    """Jobs for machines of hardly enough capacity: no tree of linear programs ends soon."""
    rng = np.random.default_rng(5)
    weights = rng.integers(5, 25, (8, 40)).astype(float)
    matrix = np.zeros((48, 320))
    for machine in range(8):
        matrix[machine, machine * 40 : machine * 40 + 40] = weights[machine]
        matrix[8 + np.arange(40), machine * 40 + np.arange(40)] = 1
    sides = np.concatenate((weights.sum(1) // 10, np.ones(40)))
    program = IntegerProgram(A_ub=matrix, b_ub=sides)
    return program, (rng.random((6, 320)) * 5 + 1) / 8


def most_of_packings(weights, capacities, theta):
    """Return the optima of rows by looking at all packings."""
    numbers = np.arange(2 ** weights.shape[1])
    states = (numbers[:, None] >> np.arange(weights.shape[1]) & 1).astype(float)
    return (theta @ states[(states @ weights.T <= capacities).all(axis=1)].T).max(axis=1)


@pytest.mark.parametrize("nodes", [(0, 10_000), (6, 10_000), (6, 20)])
@pytest.mark.parametrize("height", [1, 2, 6])
def test_a_search_among_better_packings_that_finds_none_keeps_the_known_one(height, nodes, monkeypatch):
    monkeypatch.setattr(_search, "_NODES", nodes)
    rng = np.random.default_rng(height)
    weights = rng.integers(1, 9, (height, 12))
    capacities = weights.sum(axis=1) // 2
    theta = 0.7 + 0.3 * rng.standard_normal((400, 12))
    found = mapgrad.get_solver("search", mapgrad.Knapsack(weights, capacities)).solve(torch.tensor(theta))
    assert (found.status == Status.OPTIMAL).all()
    np.testing.assert_allclose(found.objective, most_of_packings(weights, capacities, theta), rtol=1e-12)


def test_a_packing_for_which_both_searches_are_needed():
    weights = np.array([[6, 7, 1, 7, 4, 5, 6, 3, 8, 1, 3, 4, 5], [4, 2, 1, 1, 1, 2, 8, 2, 6, 7, 2, 3, 4]])
    theta = [[0.9062767756534889, 0.7459874812376104, 0.28843831323467795, 0.3701102028495711, 0.6363659819623007,
              0.7002761004192571, 0.8964712632581029, 0.35339663535015686, 0.49219391640626653, 0.09720121432791551,
              0.5394681336650289, 0.34242836350098504, 0.6866579934172191]]  # fmt: skip
    solver = mapgrad.get_solver("search", mapgrad.Knapsack(weights, [16, 19]))
    assert solver.solve(torch.tensor(theta, dtype=torch.float64)).objective.item() == pytest.approx(2.63065, abs=1e-5)


def test_a_row_without_an_integer_between_its_sides_is_infeasible_at_once():
    solver = Search(IntegerProgram(A_eq=[[2] * 40], b_eq=[21]))
    block = Block(np.random.default_rng(0).standard_normal((2, 40)), seconds=1e-3)
    solver.solve_rows(solver.init(), block)
    assert block.status.tolist() == [Status.INFEASIBLE] * 2


def test_a_time_limit_is_kept_with_the_best_state_found():
    program, theta = hard()
    solver = Search(program)
    state = solver.init()
    block = Block(theta[:2], seconds=0.2)
    began = time.thread_time()
    solver.solve_rows(state, block)
    assert time.thread_time() - began < 2
    assert block.status.tolist() == [Status.TIME_LIMIT] * 2
    assert program.contains(torch.tensor(block.z)).all()
    easy = Block(-theta[:2])
    solver.solve_rows(state, easy)
    assert easy.status.tolist() == [Status.OPTIMAL] * 2
    assert not easy.z.any()


@pytest.mark.parametrize("seconds", [1e-6, 1e-3])
@pytest.mark.parametrize("kind", ["program", "knapsack"])
def test_a_short_time_limit_is_kept_too(kind, seconds):
    if kind == "program":
        problem, theta = hard()
    else:
        problem = knapsack(30, 2, 1)
        theta = np.tile((problem.weights.sum(0) + 10) / 256, (6, 1))
    solver = Search(problem)
    state, blocks = solver.init(), [Block(theta, seconds=seconds) for _ in range(3)]
    took = []
    for block in blocks:
        began = time.thread_time()
        solver.solve_rows(state, block)
        took.append((time.thread_time() - began) / len(theta))
        assert Status.TIME_LIMIT in block.status
        assert problem.contains(torch.tensor(block.z)).all()
    assert min(took) < seconds + 2e-3


def test_a_stop_ends_the_search():
    program, theta = hard()
    solver = Search(program)
    state, block = solver.init(), Block(theta)
    thread = threading.Thread(target=solver.solve_rows, args=(state, block))
    thread.start()
    time.sleep(0.1)
    block.stopped = True
    thread.join(20)
    assert not thread.is_alive()
    assert np.isnan(block.z).all()


def test_rows_are_given_up_by_steps_and_not_by_the_clock():
    program, theta = hard()
    solver = Search(program)
    state = solver.init()
    theta = np.concatenate((theta[:2], -theta[:2]))
    block = Block(theta, patience=1e-2)
    began = time.thread_time()
    solver.solve_rows(state, block)
    assert time.thread_time() - began < 0.5
    assert block.status.tolist() == [Status.TIME_LIMIT] * 2 + [Status.OPTIMAL] * 2
    assert np.isnan(block.z[:2]).all()
    assert not block.z[2:].any()


def test_rows_that_are_given_up_come_back_solved():
    program, theta = hard()
    easier = program.replace(row_upper=np.concatenate((program.row_upper[:8] + 20, program.row_upper[8:])))
    with mapgrad.get_solver("search", easier) as solver:
        found = solver.solve(torch.tensor(theta[:3]))
    expected = mapgrad.get_solver("highs", easier).solve(torch.tensor(theta[:3]))
    assert (found.objective - expected.objective).abs().max() <= 1e-9
    assert easier.contains(found.z).all()


def test_a_good_start_helps_and_a_bad_one_does_no_harm():
    program, theta = MEDIUM["covering"][0], -np.abs(np.random.default_rng(0).normal(size=(8, 60))) / 8 - 0.01
    solver = Search(program)
    state, first = solver.init(), Block(theta)
    solver.solve_rows(state, first)
    for start in (first.z.copy(), np.zeros_like(theta), np.ones_like(theta), np.full_like(theta, np.nan)):
        block = Block(theta, start=start, reuse=True)
        solver.solve_rows(state, block)
        np.testing.assert_allclose((theta * block.z).sum(1), (theta * first.z).sum(1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (IntegerProgram(upper=[1, 1], integrality=[1, 0]), "continuous"),
        (IntegerProgram(upper=[1, np.inf]), "reach inf"),
        (IntegerProgram(upper=[5000, 5001]), "10001 steps"),
        (IntegerProgram(A_ub=np.ones((600, 1000)), b_ub=np.ones(600)), "600 rows of 1000 variables"),
        (IntegerProgram(A_ub=[[1, 2], [4e15, 1]], b_ub=[1, 1]), r"row 1 may come to 4e\+15 times its unit, 1, more"),
        (IntegerProgram(A_ub=[[np.pi, 1e-16]], b_ub=[0]), r"3.14e\+16 times its smallest coefficient, 1e-16, more"),
        (IntegerProgram(A_ub=[[1e300, 1e-300]], b_ub=[0]), "inf times its smallest coefficient"),
    ],
)
def test_it_says_what_it_doesnt_take(program, reason):
    with pytest.raises(mapgrad.UnsupportedProblemError, match=reason):
        mapgrad.get_solver("search", program)


def test_auto_takes_it_for_small_programs():
    for problem in (MEDIUM["covering"][0], MEDIUM["packing"][0], knapsack(35, 5, 2)):
        assert mapgrad.get_solver("auto", problem).name == "search"


def test_workers_change_nothing():
    problem = knapsack(35, 5, 2)
    theta = torch.tensor(np.random.default_rng(0).random((50, 35)))
    z = mapgrad.get_solver("search", problem)(theta)
    for workers in (3, "processes:1"):
        with mapgrad.get_solver("search", problem, workers=workers) as solver:
            assert torch.equal(solver(theta), z)
