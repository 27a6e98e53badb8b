"""MathOpt models as integer programs."""

import itertools

import numpy as np
import pytest
import torch
from ortools.math_opt.python import mathopt

import mapgrad
from mapgrad_ortools import from_mathopt


def mixed_model(maximize: bool) -> tuple[mathopt.Model, list[mathopt.Variable]]:
    model = mathopt.Model()
    gone = model.add_binary_variable()
    x = [model.add_binary_variable(name=f"x{i}") for i in range(4)]
    y = model.add_variable(lb=-1.5, ub=5, name="y")
    model.add_linear_constraint(lb=1, ub=3, expr=x[0] + 2 * x[1] + x[2] + x[3])
    removed = model.add_linear_constraint(x[0] <= 0)
    model.add_linear_constraint(y >= x[0] - x[1])
    model.add_linear_constraint(x[2] + 2 * x[3] + gone == 2)
    model.delete_variable(gone)
    model.delete_linear_constraint(removed)
    model.set_objective(2 * y + 9 * x[0] + 4, is_maximize=maximize)
    return model, x


def test_a_mathopt_model_is_a_program_that_every_solver_takes() -> None:
    model, x = mixed_model(maximize=False)
    problem = from_mathopt(model, [x[:2], x[2:]])
    assert problem.shape == (2, 2)
    assert problem.fixed.tolist() == [-2]
    assert from_mathopt(*mixed_model(maximize=True)).fixed.tolist() == [2]
    expected = [(a, b, 0, 1) for a in (0, 1) for b in (0, 1) if 1 <= a + 2 * b + 1 <= 3]
    states = problem.states().flatten(1)
    assert {tuple(state) for state in states.tolist()} == set(expected)
    theta = torch.randn(10, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = -2 * (states[:, 0] - states[:, 1])
    best = (theta.flatten(1) @ states.T + own).amax(dim=1)
    for name in ("ortools.mip", "highs", "scipy.milp"):
        solutions = mapgrad.get_solver(name, problem).solve(theta)
        torch.testing.assert_close(solutions.objective, best, rtol=0, atol=1e-9)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="variable 4 is continuous"):
        mapgrad.get_solver("ortools.cp_sat", problem)


def test_what_no_program_holds_is_refused() -> None:
    for extend, named in [
        (lambda model, x, y: model.minimize(x * x), "a quadratic objective"),
        (lambda model, x, y: model.add_quadratic_constraint(expr=x * y, ub=1), "quadratic constraints"),
        (lambda model, x, y: model.add_maximization_objective(x, priority=1), "auxiliary objectives"),
    ]:
        model = mathopt.Model()
        x, y = model.add_binary_variable(), model.add_variable(lb=0, ub=1)
        extend(model, x, y)
        with pytest.raises(mapgrad.UnsupportedProblemError, match=f"the model has {named}"):
            from_mathopt(model, [x])


def test_indicator_constraints_are_read() -> None:
    model = mathopt.Model()
    gone = model.add_binary_variable()
    x = [model.add_integer_variable(lb=-1, ub=2) for _ in range(3)]
    switch = [model.add_binary_variable() for _ in range(2)]
    y = model.add_variable(lb=0, ub=1.5)
    model.add_linear_constraint(lb=-1, ub=3, expr=x[0] + x[1] + x[2] + 1)
    model.add_indicator_constraint(indicator=switch[0], implied_lb=0, implied_ub=1, implied_expr=x[0] - 2 * x[1] + 1)
    model.add_indicator_constraint(indicator=switch[1], activate_on_zero=True, implied_constraint=x[1] + x[2] == 1)
    model.add_indicator_constraint(indicator=switch[1], implied_constraint=y + x[2] <= 1)
    model.add_indicator_constraint(indicator=gone, implied_constraint=x[0] <= -1)
    model.delete_variable(gone)
    model.maximize(2 * y - switch[0])
    problem = from_mathopt(model, [*x, *switch])
    assert len(problem.indicators) == 3
    expected: dict[tuple[int, ...], float] = {}
    for a, b, c in itertools.product(range(-1, 3), repeat=3):
        for s, t in itertools.product(range(2), repeat=2):
            most = min(1.5, 1 - c) if t else 1.5
            if -1 <= a + b + c + 1 <= 3 and (not s or 0 <= a - 2 * b + 1 <= 1) and (t or b + c == 1) and most >= 0:
                expected[a, b, c, s, t] = 2 * most
    assert {tuple(state) for state in problem.states().tolist()} == set(expected)
    theta = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = [max(np.dot(row, z) + value for z, value in expected.items()) for row in theta.tolist()]
    for name in ("ortools.mip", "highs", "scipy.milp"):
        assert mapgrad.get_solver(name, problem).solve(theta).objective.tolist() == pytest.approx(best, abs=1e-9)


def test_an_indicator_must_be_a_variable_of_0_and_1() -> None:
    model = mathopt.Model()
    x, wide = model.add_binary_variable(), model.add_integer_variable(lb=0, ub=2)
    model.add_indicator_constraint(indicator=wide, implied_constraint=x <= 0)
    with pytest.raises(mapgrad.ProblemError, match="indicator 0 asks for variable 1, which must be integer"):
        from_mathopt(model, [x])
