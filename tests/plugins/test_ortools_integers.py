"""Exact integers for CP-SAT: coefficients, rows, implied bounds and objectives."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad_ortools._integers import IntegerForm, IntegerObjective, implied_bounds, integer_form


def form_of(**program: object) -> IntegerForm:
    form = integer_form(mapgrad.IntegerProgram(**program))
    assert isinstance(form, IntegerForm), form
    return form


def reason_of(**program: object) -> str:
    reason = integer_form(mapgrad.IntegerProgram(**program))
    assert isinstance(reason, str)
    return reason


@pytest.mark.parametrize(
    ("coefficients", "bound", "expected", "most"),
    [
        ([3, -2], 5.5, [3, -2], 5),
        ([0.1, 0.2], 0.3, [1, 2], 3),
        ([0.1 + 0.2, 0.5], 0.7, [3, 5], 7),
        ([1 / 3, -0.25], 0.5, [4, -3], 6),
        ([12.34, 5], 17.34, [617, 250], 867),
        ([2.0**-20, 1], 1, [1, 2**20], 2**20),
        ([1e15, 1], 1e15, [10**15, 1], 10**15),
        ([1e15, 1], 1e15 - 1, [10**15, 1], 10**15 - 1),
    ],
)
def test_rows_become_integers_without_loss(
    coefficients: list[float], bound: float, expected: list[int], most: int
) -> None:
    form = form_of(A_ub=[coefficients], b_ub=[bound])
    assert form.rows[0].integers == expected
    assert form.sides == [(-sum(map(abs, expected)) - 1, most)]


def test_bounds_within_the_tolerance_count_as_reached() -> None:
    sides = form_of(A_ub=[[0.1, 0.2], [-0.1, -0.2]], b_ub=[0.3 - 1e-12, -(0.1 + 0.2) - 1e-12]).sides
    assert [most for _, most in sides] == [3, -3]
    assert form_of(A_ub=[[1, 1]], b_ub=[2 - 1e-6], upper=5).sides[0][1] == 1


def test_an_equation_without_a_solution_has_an_empty_range() -> None:
    ((least, most),) = form_of(A_eq=[[1, 2]], b_eq=[2.5], upper=9).sides
    assert least > most
    form = form_of(A_eq=[[0, 0.5]], b_eq=[1], upper=9)
    assert (form.rows[0].columns.tolist(), form.rows[0].integers, form.sides) == ([1], [1], [(2, 2)])


def test_what_does_not_fit_is_refused_with_the_reason() -> None:
    numbers = np.random.default_rng(0).random((1, 8))
    assert reason_of(A_ub=numbers, b_ub=[2]).startswith("row 0 in integers takes more than 64 bits")
    assert "variable 1 is continuous" in reason_of(integrality=[1, 0], lower=[0, 0])
    assert "variable 1 lacks a finite bound" in reason_of(upper=[1, np.inf])
    assert "variable 0 lacks a finite bound" in reason_of(A_ub=[[1, 1]], b_ub=[3], lower=[-np.inf, 0])
    assert "bounds up to ±2e+09 leave no room" in reason_of(upper=[1, 2e9])
    assert integer_form(mapgrad.IntegerProgram(upper=[1, 2.0**30 - 1])).upper.tolist() == [1, 2**30 - 1]


def test_rows_imply_the_bounds_that_are_missing() -> None:
    program = mapgrad.IntegerProgram(
        A_ub=[[2, 1, 0], [0, -1, 1]],
        b_ub=[7, 0],
        A_eq=[[0, 1, 1]],
        b_eq=[4],
        lower=[0, 0, -np.inf],
        upper=np.inf,
    )
    lower, upper = implied_bounds(program)
    assert lower.tolist() == [0, 0, -3]
    assert upper.tolist() == [3, 7, 4]


def test_implied_bounds_keep_what_a_row_holds_by_its_tolerance():
    side = 0.08 * (1 - 1e-8)
    program = mapgrad.IntegerProgram.from_rows([[0.08, -2e6, -4e5, 6e4]], [side], [side])
    state = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert program.contains(state)
    lower, upper = implied_bounds(program)
    assert (lower <= state.numpy()).all()
    assert (state.numpy() <= upper).all()
    assert mapgrad.get_solver("ortools.cp_sat", program)(state).tolist() == state.tolist()


def test_contradicting_rows_leave_bounds_that_are_in_order() -> None:
    lower, upper = implied_bounds(mapgrad.IntegerProgram(A_ub=[[1, 1], [-1, -1]], b_ub=[1, -9], upper=[3, 3]))
    assert (lower <= upper).all()


numbers = st.integers(-6, 6)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(0, 3), st.sampled_from([1.0, 0.1, 0.25]))
def test_the_integer_form_has_the_states_of_the_program(data: st.DataObject, size: int, rows: int, unit: float) -> None:
    coefficients = [data.draw(st.lists(numbers, min_size=size, max_size=size)) for _ in range(rows)]
    bounds = data.draw(st.lists(st.integers(-9, 12), min_size=rows, max_size=rows))
    lower = np.array(data.draw(st.lists(st.integers(-2, 0), min_size=size, max_size=size)))
    upper = lower + data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    matrix = unit * np.reshape(coefficients, (rows, size))
    program = mapgrad.IntegerProgram(A_ub=matrix, b_ub=unit * np.array(bounds, dtype=float), lower=lower, upper=upper)
    form = integer_form(program)
    assert isinstance(form, IntegerForm)
    for point in itertools.product(*(range(low, high + 1) for low, high in zip(lower, upper, strict=True))):
        exact = all(
            sum(Fraction(str(round(unit * a, 2))) * x for a, x in zip(row, point, strict=True))
            <= Fraction(str(round(unit * bound, 2)))
            for row, bound in zip(coefficients, bounds, strict=True)
        )
        inside = (form.lower <= point).all() and (form.upper >= point).all()
        met = all(
            least <= sum(a * point[j] for a, j in zip(row.integers, row.columns, strict=True)) <= most
            for row, (least, most) in zip(form.rows, form.sides, strict=True)
        )
        assert (inside and met) == exact


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.lists(st.integers(-50, 50), min_size=6, max_size=6))
def test_an_objective_loses_no_more_than_it_says(theta: list[float], ends: list[int]) -> None:
    lower, upper = np.sort(np.reshape(ends, (2, 3)), axis=0)
    utilities = np.array(theta)
    objective = IntegerObjective.of(utilities, lower, upper)
    reach = np.maximum(np.abs(lower), np.abs(upper))
    assert sum(abs(int(c)) * int(m) for c, m in zip(objective.coefficients, reach, strict=True)) <= 2**61
    for point in (lower, upper, np.clip(0, lower, upper)):
        exact = sum(Fraction(t) * int(x) for t, x in zip(theta, point, strict=True))
        held = objective.unit * sum(int(c) * int(x) for c, x in zip(objective.coefficients, point, strict=True))
        slack = Fraction(objective.slack)
        assert exact - held <= slack + abs(slack) * Fraction(1e-12) + Fraction(1e-300)


def test_float32_utilities_are_held_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        theta = rng.standard_normal(100).astype(np.float32).astype(np.float64)
        objective = IntegerObjective.of(theta, np.zeros(100, dtype=np.int64), np.full(100, 10))
        assert objective.slack == 0
        assert [objective.unit * int(c) for c in objective.coefficients] == [Fraction(t) for t in theta]


def test_common_divisors_leave_small_integers() -> None:
    objective = IntegerObjective.of(
        np.array([0.5, -0.25, 0.0]), np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)
    )
    assert objective.coefficients.tolist() == [2, -1, 0]
    assert objective.unit == Fraction(1, 4)
    zero = IntegerObjective.of(np.zeros(2), np.zeros(2, dtype=np.int64), np.ones(2, dtype=np.int64))
    assert zero.coefficients.tolist() == [0, 0]


def test_a_variable_fixed_at_zero_does_not_overflow() -> None:
    zeros = np.zeros(2, dtype=np.int64)
    objective = IntegerObjective.of(np.array([0.9, 1e-200]), zeros, np.array([0, 1]))
    assert objective.coefficients[0] == 0
    assert objective.coefficients[1] > 0


def test_indicator_rows_are_rows_of_their_own() -> None:
    form = form_of(
        A_ub=[[1, 1, 1]],
        b_ub=[9],
        upper=[np.inf, 7, 1],
        indicators=[(2, 1, [0.5, 0.25, 0], -np.inf, 1), (2, 0, [2, 0, 0], 2.5, 2.5)],
    )
    assert form.upper.tolist() == [9, 7, 1]
    always, first, second = form.rows
    assert (always.literal, first.literal, second.literal) == (None, 2, -3)
    assert (first.integers, form.sides[1][1]) == ([2, 1], 4)
    assert form.sides[2][0] > form.sides[2][1]
    large = [1 + 2.0**-40, 2.0**-40, 0]
    assert "indicator 0 in integers takes more than 64 bits" in reason_of(
        upper=[2**25, 2**25, 1], indicators=[(2, 1, large, 0, 0)]
    )
    assert "it uses semicontinuous and sos" in reason_of(upper=[1, 2], semicontinuous=1, sos=[(1, [0, 1], [1, 2])])


@pytest.mark.parametrize("seed", range(12))
def test_cp_sat_takes_indicators_itself(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapgrad.IntegerProgram, "reformulated", lambda program, native=(): program)
    rng = np.random.default_rng(seed)
    size, unit = 5, (1, 0.1, 0.25)[seed % 3]
    integers = rng.integers(-3, 4, (4, size))
    level = rng.integers(-4, 3, 4)
    program = mapgrad.IntegerProgram.from_rows(
        unit * integers[:1],
        unit * (level[:1] - 4),
        unit * (level[:1] + 6),
        lower=[*rng.integers(-3, 0, 3), 0, 0],
        upper=[*rng.integers(0, 4, 3), 1, 1],
        indicators=[
            (3, 1, unit * integers[1], unit * level[1], np.inf),
            (3, 0, unit * integers[2], -np.inf, unit * level[2]),
            (4, seed % 2, unit * integers[3], unit * level[3], unit * (level[3] + seed % 4)),
        ],
    )
    x = np.array(list(itertools.product(*map(range, program.lower.astype(int), program.upper.astype(int) + 1))))
    first, *others = integers @ x.T
    holds = (first >= level[0] - 4) & (first <= level[0] + 6)
    holds &= np.where(x[:, 3] == 1, others[0] >= level[1], others[1] <= level[2])
    holds &= (x[:, 4] != seed % 2) | ((others[2] >= level[3]) & (others[2] <= level[3] + seed % 4))
    theta = np.random.default_rng(1).standard_normal((8, size))
    theta[:2] = np.rint(theta[:2])
    assert_best(program, theta, x[holds])
    theta[:, 3] = -np.inf  # the indicator itself is forbidden
    assert_best(program, theta, x[holds & (x[:, 3] == 0)])


def assert_best(program: mapgrad.IntegerProgram, theta: np.ndarray, states: np.ndarray) -> None:
    solver = mapgrad.get_solver("ortools.cp_sat", program)
    if not len(states):
        with pytest.raises(mapgrad.InfeasibleError) as caught:
            solver.solve(torch.as_tensor(theta))
        assert len(caught.value.rows) == len(theta)
        return
    found = solver.solve(torch.as_tensor(theta))
    best = (np.where(np.isinf(theta), 0, theta) @ states.T).max(axis=1)
    assert found.objective.tolist() == pytest.approx(best.tolist(), abs=1e-9)
    assert set(map(tuple, found.z.tolist())) <= set(map(tuple, states.tolist()))
