"""When a row holds is said in one place, and membership, kernels, diagrams and CP-SAT agree with it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad import IntegerProgram, Status


def program(row, side, upper):
    return IntegerProgram(A_ub=[row], b_ub=[side], upper=upper, integrality=1)


def points_of(problem):
    ends = [np.arange(low, high + 1) for low, high in zip(problem.lower, problem.upper, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*ends, indexing="ij")], axis=1)


def best_values(problem, theta):
    """Return the best values by enumeration of the points that `contains` lets pass; None where there is none."""
    points = points_of(problem)
    states = points[problem.contains_rows(points)]
    return torch.tensor((theta.numpy() @ states.T).max(axis=1)) if len(states) else None


@pytest.mark.parametrize(
    ("row", "unit"),
    [
        ([4, -6], 2),
        ([0.5, 0.75], 0.25),
        ([1e6, 1e-3], 1e-3),
        ([0.3 - 0.2, 0.7], 0.1),
        ([1e15, 3], 1),
        ([0, 0], 1),
        ([0, -3], 3),
        ([1 / 3, 1], 0),
        ([1e-9, 1], 0),
        ([1e300, 1], 0),
    ],
)
def test_unit_of_a_row(row, unit):
    assert program(row, 1, 1).row_facts.units == pytest.approx([unit], rel=1e-12)


def test_a_row_with_a_continuous_variable_has_no_unit():
    assert not IntegerProgram(A_ub=[[2, 4]], b_ub=[5], upper=1, integrality=[1, 0]).row_facts.units.any()


@pytest.mark.parametrize("solver", ["search", "ortools.cp_sat"])
@pytest.mark.parametrize(
    ("row", "side", "most"),
    [
        ([1e10, 1], 10.5, 10),
        ([1e12, 1], 10.5, 10),
        ([1e9, 0.5], 5, 10),
        ([1e6, 1e-3], 0.01, 10),
        ([-1e9, 1], 0.5, 0),
        ([-1e12, 1], 0, 0),
        ([1e10 * math.pi, math.e], 2.5 * math.e, 2),
        ([0.1, 0.2], 0.3 - 1e-17, 1),
    ],
)
def test_what_a_large_coefficient_leaves_to_a_small_one(row, side, most, solver):
    """No room that comes of one variable's coefficient lets another one in where the first is 0."""
    problem = program(row, side, [1, 16])
    theta = torch.tensor([[-100.0, 1.0]], dtype=torch.float64)
    assert mapgrad.get_solver(solver, problem)(theta).tolist() == [[0, most]]
    assert problem.contains(torch.tensor([[0.0, most], [0.0, most + 1]])).tolist() == [True, False]


@pytest.mark.parametrize("solver", ["search", "ortools.cp_sat", "ortools.mip", "highs", "scipy.milp", "pulp.highs"])
@pytest.mark.parametrize(
    ("rows", "sides", "upper", "theta", "best"),
    [
        ([[9.63, 3.69, 4.91, 7.99]], [23.14 - 1e-11], [2, 1, 2, 2], [1, 0.6, 2, -0.75], [1, 1, 2, 0]),
        ([[3, 5]], [8 - 5e-9], 1, [1, 1], [1, 1]),
        ([[30_000, 50_000]], [80_000 - 5e-5], 1, [1, 1], [1, 1]),
        ([[0.3, 0.5, 0.2]], [1 - 8e-10], 1, [1, 1, 1], [1, 1, 1]),
        ([[0.3, 0.5, 0.2]], [1 - 8e-9], 1, [1, 1.2, 1.5], [0, 1, 1]),
        (
            [[3.700000047683716, 3.5999999046325684], [8, 4.699999809265137]],
            [3.5999999036325683, 4.699999809265137],
            [2, 1],
            [1.44e-5, 6e-3],
            [0, 1],
        ),
    ],
)
def test_sides_that_are_rounded(solver, rows, sides, upper, theta, best):
    """A sum of floats, or of float32, that is meant to be attained: engines get the side that is meant."""
    problem = IntegerProgram(A_ub=rows, b_ub=sides, upper=upper)
    assert problem.contains(torch.tensor(best, dtype=torch.float64))
    assert mapgrad.get_solver(solver, problem)(torch.tensor(theta, dtype=torch.float64)).tolist() == best


@pytest.mark.parametrize("solver", ["search", "ortools.cp_sat"])
def test_a_side_that_excludes_0_by_what_engines_take_for_nothing(solver):
    problem = IntegerProgram(A_ub=[[-2.5999999046325684, 6.1]], b_ub=[-1e-9], lower=[-1, 0], upper=1, integrality=1)
    assert mapgrad.get_solver(solver, problem)(torch.tensor([[-0.2, -0.5]])).tolist() == [[1, 0]]


FLOATING = ["highs", "scipy.milp", "ortools.mip", "pulp.highs", "pulp.cbc"]


@pytest.mark.parametrize("solver", FLOATING)
def test_engines_that_cannot_tell_say_what_can(solver):
    problem = IntegerProgram(A_ub=[[-1, 0, -1 / 3, 1]], b_ub=[-1e-10])
    utilities = torch.tensor([[0.359, 1.322, -0.014, 1.042], [-0.0773, -2.0167, -0.6486, 0.678]])
    for theta in utilities:
        with pytest.raises(mapgrad.SolverCrashError, match="exactly may help: search"):
            mapgrad.get_solver(solver, problem)(theta)
    assert mapgrad.get_solver("search", problem)(utilities).tolist() == [[1, 1, 1, 1], [1, 0, 1, 1]]


@pytest.mark.parametrize("solver", FLOATING)
def test_equations_that_hold_but_for_a_rounding_have_states(solver):
    problem = IntegerProgram(A_eq=[[0, -0.6, 4 / 7]], b_eq=[-0.6285714279708285], upper=[2, 2, 1], integrality=1)
    assert mapgrad.get_solver(solver, problem)(torch.tensor([1.0, 1, 1])).tolist() == [2, 2, 1]
    assert problem.contains(torch.tensor([2.0, 2, 1]))


@pytest.mark.parametrize("solver", ["search", "diagram", "ortools.cp_sat", *FLOATING])
@pytest.mark.parametrize("is_equation", [True, False])
@pytest.mark.parametrize(
    ("row", "state"),
    [
        ([0.6, -0.7, 0.5, -0.3, 0.5], [0, 1, 1, 1, 1]),
        ([0.7, -0.6, -0.1, 0.8], [1, 1, 1, 0]),
        ([-5 / 7, 9 / 7, -8 / 7, 6 / 7, -2 / 7], [1, 1, 1, 1, 1]),
        ([4e-9 / 3, -1e-8 / 3, 2e-9, 1e-8], [1, 1, 1, 0]),
    ],
)
def test_a_side_that_is_a_sum_in_floats_is_that_sum_where_it_is_0(solver, row, state, is_equation):
    """Sides are often A @ x of a known plan x, in floats: where terms cancel, some 1e-17 of them are left."""
    rest = abs(sum(entry * taken for entry, taken in zip(row, state, strict=True)))
    assert 0 < rest < 1e-15
    sides = (rest, rest) if is_equation else (-math.inf, -rest)
    problem = IntegerProgram.from_rows([row], *([side] for side in sides))
    theta = 2.0 * torch.tensor(state) - 1
    assert mapgrad.get_solver(solver, problem)(theta).tolist() == state
    assert problem.contains(torch.tensor(state))


@pytest.mark.parametrize(("entry", "side"), [(1, 1e-15), (1, 5e-324), (0.1, 1e-12), (0.1, 1e-18), (1 / 7, 1e-18)])
def test_a_side_that_excludes_0_and_is_no_rounding_of_a_sum(entry, side):
    problem = IntegerProgram.from_rows([[entry, -entry]], [side], [math.inf])
    assert problem.contains(torch.tensor([[0, 0], [1, 1], [1, 0]])).tolist() == [False, False, True]


NEARLY_EQUAL = [
    (
        {
            "A_eq": [
                [2999, 2998, 3002, 3002, 2999, 3001, 3002, 3001, 2999, 2998, 3001, 3002],
                [3000, 2999, 3001, 3002, 3001, 3000, 2999, 2998, 3002, 2998, 3000, 3000],
            ],
            "b_eq": [18002, 17998],
        },
        [0.4, 1.2, 0.1, 0.9, 1.2, 0.4, 0.9, -1.9, -1.7, -1.4, -0.7, 1.6],
    ),
    (
        {
            "A_eq": [
                [10001, 9998, 9998, 10002, 9999, 10002, 10002, 10000, 10000, 10001, 10002, 9999],
                [9999, 9998, 10001, 9998, 9999, 9999, 10002, 9999, 10000, 10000, 9998, 10000],
                [10002, 10000, 10001, 10001, 9999, 10001, 10000, 10000, 9999, 9998, 9998, 9998],
            ],
            "b_eq": [50003, 49996, 49998],
        },
        [1.6, 1.9, -1.6, 0.7, 1.5, -0.8, 1.3, -0.1, -0.6, -0.5, 0.1, -1.2],
    ),
    (
        {
            "A_eq": [[0.99997, 1.00003, 1.00005, 1.00004, 1.00002]],
            "b_eq": [-2.00021],
            "lower": [-1, -2, -2, -1, -2],
            "upper": [2, 0, 0, 0, 0],
            "integrality": 1,
        },
        [0.6, 0.6, -0.7, -0.5, -1.2],
    ),
    (
        {
            "A_eq": [[299998, 99996, 399998, 100000, 100003, 399997]],
            "b_eq": [100003],
            "lower": [0, -2, 0, -2, -1, -1],
            "upper": 1,
            "integrality": 1,
        },
        [-0.3, -0.5, 0.8, 1.3, -1.2, 1.4],
    ),
    (
        {
            "A_eq": [[1.0000002, 0.9999998, 1.0000004, 1.0000002, 0.9999997, 1.0000003]],
            "b_eq": [2.9999997],
            "lower": [0, -1, -2, -1, 0, -2],
            "upper": [2, 1, 0, 0, 3, 1],
            "integrality": 1,
        },
        [1.2, 0.9, -0.7, 0.5, 1, 0.2],
    ),
]


@pytest.mark.parametrize(("rows", "theta"), NEARLY_EQUAL)
@pytest.mark.parametrize("solver", ["auto", "search", "highs", "scipy.milp", "ortools.mip", "pulp.highs"])
def test_coefficients_that_are_nearly_equal(solver, rows, theta):
    problem = IntegerProgram(**rows)
    utilities = torch.tensor(theta, dtype=torch.float64)
    best = (problem.states().double() @ utilities).max()
    found = mapgrad.get_solver(solver, problem)(utilities)
    torch.testing.assert_close(found @ utilities, best)


@pytest.mark.parametrize("solver", FLOATING)
def test_a_step_from_a_sum_that_floats_round(solver):
    problem = IntegerProgram.from_rows(
        [[-2, -0.00014]], [0.00028], [math.inf], lower=[0, -2], upper=[0, -1], integrality=1
    )
    assert mapgrad.get_solver(solver, problem)(torch.tensor([-2.0, -2.0])).tolist() == [0, -2]


def test_half_a_unit_is_no_rounding():
    assert not program([1, 1e9], 999_999_999.5, 1).contains(torch.tensor([0.0, 1.0]))


def test_a_packing_beside_a_weight_that_dwarfs_the_others():
    problem = mapgrad.Knapsack([[1e9, 1, 1, 1]], [2.5])
    theta = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    for solver in ("search", "diagram", "ortools.cp_sat", "ortools.knapsack"):
        assert float(mapgrad.get_solver(solver, problem)(theta).sum()) == 2, solver


@pytest.mark.filterwarnings("ignore:.*no acceptable answer")
@pytest.mark.parametrize("solver", ["search", "ortools.cp_sat"])
@pytest.mark.parametrize("row", [[0, 0], [math.pi, math.e], [2, 4]])
def test_nothing_is_less_than_nothing(row, solver):
    problem = program(row, -1e-12, 3)
    answers = mapgrad.get_solver(solver, problem, on_error="nan").solve(torch.ones(1, 2))
    assert answers.status.tolist() == [int(Status.INFEASIBLE)]
    assert not problem.contains(torch.zeros(1, 2)).item()


@pytest.mark.filterwarnings("ignore:.*no acceptable answer")
@given(st.integers(0, 2**32 - 1), st.sampled_from(["decimals", "floats", "powers"]))
@settings(deadline=None, max_examples=25)
def test_all_agree_on_rows_of_any_spread(seed, kind):
    generator = np.random.default_rng(seed)
    height, width = int(generator.integers(1, 4)), int(generator.integers(2, 6))
    matrix = generator.integers(-9, 10, (height, width)).astype(float)
    if kind == "floats":
        matrix *= generator.normal(size=(height, width)) * 10.0 ** generator.integers(-2, 4, (height, width))
    else:
        matrix *= 10.0 ** generator.integers(-3, 10, (height, width if kind == "powers" else 1))
    inside = matrix @ generator.integers(0, 2, width)
    size = abs(inside) if generator.random() < 0.5 else abs(matrix).max(axis=1)
    missed = generator.choice([0, 3e-10, 0.9e-9, 1.1e-9, 1e-8]) * size
    upper = inside + generator.choice([0, 0.5, -1e-12, 1e-3, 0.71], height) - missed
    lower = np.where(generator.random(height) < 0.2, upper, -np.inf)
    problem = IntegerProgram.from_rows(matrix, lower, upper)
    _, most = problem.row_facts.anywhere(problem.row_lower, problem.row_upper)
    beyond = abs(points_of(problem) @ matrix.T - upper)
    assume(not (abs(beyond - (most - upper)) < 1e-3 * (most - upper)).any())  # at the tolerance's end, roundings decide
    theta = torch.tensor(generator.normal(size=(3, width)))
    best = best_values(problem, theta)
    for solver in ("search", "ortools.cp_sat", "diagram"):
        try:
            answers = mapgrad.get_solver(solver, problem, on_error="nan").solve(theta)
        except mapgrad.UnsupportedProblemError:
            continue
        if best is None:
            assert (answers.status == int(Status.INFEASIBLE)).all(), solver
        else:
            torch.testing.assert_close(answers.objective, best, rtol=1e-12, atol=1e-12, msg=solver)
