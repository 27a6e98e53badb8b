"""Rows of integers of many digits, nearly equal, and of reals as fine: each engine against enumeration."""

import itertools

import numpy as np
import pytest
import torch

import mapgrad

INF = float("inf")
ENGINES = {
    "highs": "highspy",
    "scipy.milp": "scipy",
    "ortools.mip": "ortools",
    "pulp.cbc": "cbcbox",
    "pulp.highs": "pulp",
}
NEARLY_EQUAL = {
    "an equation of 1e8": ([[100000009, 99999996, 99999998]], [2800000106], [2800000106], [-3, -11, 0], [19, 13, 24]),
    "an equation of 1e7 and both signs": (
        [[10000002, -9999998, -10000000]],
        [-140000014],
        [-140000014],
        [-7, -2, 0],
        [8, 11, 12],
    ),
    "an equation of decimals": (
        [[-999999.99, 999999.99, -1000000]],
        [-999999.98],
        [-999999.98],
        [-1, -7, -2],
        [2, 4, 4],
    ),
    "two sides": ([[100000.02, -100000, -99999.98]], [-300000.31], [-300000.29], [-10, -12, -14], [-3, 14, 11]),
    "two sides of thousandths": (
        [[10000.009, 10000.002, 10000.006]],
        [140000.054],
        [140000.057],
        [0, 0, -6],
        [5, 18, 10],
    ),
    "an upper side": ([[9999.998, 10000.001, 10000.001]], [-INF], [-120000.006], [-15, -14, -4], [13, -5, 15]),
    "three upper sides of 1e6": (
        [
            [999999, 999999, -1000000, -999999, 999999],
            [1000001, 1000002, -999998, 999998, -999999],
            [-1000002, 999998, 1000002, -1000000, -1000001],
        ],
        [-INF, -INF, -INF],
        [-3000001, -8999990, 5000011],
        [-1, -3, 0, -2, -2],
        [2, 1, 5, 4, 2],
    ),
    "two upper sides of opposite rows": (
        [
            [-99999997, 100000009, 100000004, 100000002, 99999996],
            [99999992, -100000001, -99999997, -99999991, -99999995],
        ],
        [-INF, -INF],
        [-699999989, 699999954],
        [0, 0, -3, -3, -3],
        [3, 1, 0, 2, 1],
    ),
    "0/1 variables": (
        [
            [999999, 1000002, 999999, 1000000, 1000001, 999998, 1000001, 999999],
            [1000000, 1000002, 999998, 1000000, 1000002, 1000001, 999998, 999999],
        ],
        [3000000, 2999997],
        [3000003, 3000003],
        [0] * 8,
        [1] * 8,
    ),
}


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
@pytest.mark.parametrize("rows", NEARLY_EQUAL.values(), ids=[each.replace(" ", "_") for each in NEARLY_EQUAL])
def test_the_best_point_is_that_of_enumeration(rows, name, package):
    pytest.importorskip(package)
    matrix, row_lower, row_upper, lower, upper = rows
    program = mapgrad.IntegerProgram.from_rows(matrix, row_lower, row_upper, lower=lower, upper=upper)
    box = np.array([*itertools.product(*(range(low, high + 1) for low, high in zip(lower, upper, strict=True)))])
    units = 1000 if any(each != int(each) for row in matrix for each in row) else 1
    exact = np.rint(units * np.array(matrix)).astype(np.int64)
    sides = [np.rint(units * np.array(side)) for side in (row_lower, row_upper)]
    activities = box @ exact.T
    states = box[((sides[0] <= activities) & (activities <= sides[1])).all(axis=1)]
    assert len(states) >= 1
    theta = np.round(np.random.default_rng(0).normal(size=(4, len(lower))), 1)
    solutions = mapgrad.get_solver(name, program).solve(torch.tensor(theta))
    assert program.contains(solutions.z).all()
    assert solutions.objective.numpy() == pytest.approx((states @ theta.T).max(axis=0), abs=1e-9)


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
@pytest.mark.parametrize("side", [30000002, 30000003])
def test_a_program_without_a_point_is_infeasible(side, name, package):
    pytest.importorskip(package)
    program = mapgrad.IntegerProgram(A_eq=[[10000000, 10000002, 10000004]], b_eq=[side])
    with pytest.raises(mapgrad.InfeasibleError):
        program.states()
    with pytest.raises(mapgrad.RowsError, match="INFEASIBLE"):
        mapgrad.get_solver(name, program).solve(torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
def test_forbidden_entries_and_sides_of_rows_reach_rows_of_large_integers(name, package):
    pytest.importorskip(package)
    weights = np.array([10000000, 10000002, 10000004, 10000007, 9999995])
    sides = np.array([20000002, 20000004, 30000006, 20000009, 19999999])
    programs = [mapgrad.IntegerProgram(A_eq=[weights], b_eq=[side]) for side in sides]
    theta = torch.tensor([[3.0, 1, -2, 2, 1]] * len(sides), dtype=torch.float64)
    theta[4, 0] = -INF
    points = np.array([*itertools.product((0, 1), repeat=5)])
    best = []
    for row, side in zip(theta.numpy(), sides, strict=True):
        values = np.where(points > 0, row, 0).sum(axis=1)
        best.append(values[points @ weights == side].max(initial=-INF))
    assert np.isfinite(best).sum() >= 4
    with mapgrad.get_solver(name, programs[0], on_error="nan") as solver:
        solutions = solver.solve(theta, problems=programs)
    for found, value in zip(solutions.objective.tolist(), best, strict=True):
        assert found == value if np.isfinite(value) else np.isnan(found)


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
def test_a_real_equation_of_a_wide_box_has_its_points(name, package):
    pytest.importorskip(package)
    coefficients, side = np.array([0.1990332029363526, 0, 0.519899111456324]), 15971.582510510678
    program = mapgrad.IntegerProgram(A_eq=[coefficients], b_eq=[side], upper=30000)
    third = np.arange(30001)
    first = np.rint((side - coefficients[2] * third) / coefficients[0])
    points = np.stack((first, np.full(30001, 30000), third), axis=1)
    points = points[(first >= 0) & (first <= 30000)]
    points = points[np.abs(points @ coefficients - side) <= 1e-9 * side]
    theta = torch.tensor([9.0, 1, 7], dtype=torch.float64)
    assert float(mapgrad.get_solver(name, program).solve(theta).objective) == (points @ theta.numpy()).max()


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
def test_a_side_of_4e8_units_is_met_to_the_unit(name, package):
    pytest.importorskip(package)
    lower, upper = [-1000, -1000, -3000], [1999000, 1999000, 3997000]
    program = mapgrad.IntegerProgram(A_ub=[[7.06, 1.75, 5.62]], b_ub=[4298013.42175], lower=lower, upper=upper)
    third = np.arange(lower[2], upper[2] + 1)
    first = np.minimum((429801342 - 175 * lower[1] - 562 * third) // 706, upper[0])
    best = (9 * first + lower[1] + 7 * third)[first >= lower[0]].max()
    theta = torch.tensor([9.0, 1, 7], dtype=torch.float64)
    assert float(mapgrad.get_solver(name, program).solve(theta).objective) == best


@pytest.mark.parametrize(("name", "package"), ENGINES.items())
def test_a_row_of_two_sides_far_apart_is_met_at_both(name, package):
    pytest.importorskip(package)
    matrix, lower, upper = [[-1580706929, 1630850906, 7920773500]], [11232619290], [18034687530]
    program = mapgrad.IntegerProgram.from_rows(matrix, lower, upper, upper=[1, 3, 1])
    theta = torch.tensor([[774, 245, -765], [-774, -245, -765]], dtype=torch.float64)
    points = np.array([*itertools.product(range(2), range(4), range(2))])
    (activities,) = np.array(matrix) @ points.T
    assert lower[0] - 1 in activities
    states = points[(lower[0] <= activities) & (activities <= upper[0])]
    solutions = mapgrad.get_solver(name, program).solve(theta)
    assert solutions.objective.tolist() == (states @ theta.numpy().T).max(axis=0).tolist()


@pytest.mark.parametrize("name", [each for each in ENGINES if each != "scipy.milp"])
def test_nearly_equal_coefficients_of_a_wide_box_are_searched_in_seconds(name):
    pytest.importorskip(ENGINES[name])
    program = mapgrad.IntegerProgram.from_rows(
        [
            [-1000000.03, -1000000.02, -1000000.05, 999999.95, 1000000.09, -1000000.01],
            [-1000000, -999999.95, 1000000.09, 999999.98, 1000000.01, 999999.98],
            [1000000.02, 1000000.06, -999999.96, 999999.99, 999999.97, -999999.99],
        ],
        [-INF, -1773615075788.15, -1484287037808.55],
        [424983034419.45, -1773615075788.1, -1484287037808.55],
        lower=[-834979, -598934, -817902, -882773, -865170, -412534],
        upper=[113707, -266527, -753574, -675806, -227767, -9697],
    )
    theta = torch.tensor([[6, -6, 16, -6, -6, 5], [-4, -8, 7, 3, -15, 13]], dtype=torch.float64)
    solutions = mapgrad.get_solver(name, program, time_limit=10.0).solve(theta)
    assert solutions.objective.tolist() == [-3219148, 5922231]
