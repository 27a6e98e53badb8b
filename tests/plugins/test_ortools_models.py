"""CP-SAT models as problems: what θ prices, what stays, which solvers take them."""

import itertools
import pickle
import re
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

import mapgrad
from mapgrad import ProblemError
from mapgrad_ortools import CpModelProblem, _cp_models, from_cp_model, from_mathopt


def all_different(size: int, values: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    variables = [model.new_int_var(0, values - 1, f"x{i}") for i in range(size)]
    model.add_all_different(variables)
    return model, variables


def tour(size: int) -> tuple[cp_model.CpModel, dict[tuple[int, int], cp_model.IntVar]]:
    model = cp_model.CpModel()
    arcs = {(i, j): model.new_bool_var("") for i in range(size) for j in range(size) if i != j}
    model.add_circuit([(i, j, literal) for (i, j), literal in arcs.items()])
    return model, arcs


def schedule(durations: list[int], horizon: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    starts = [model.new_int_var(0, horizon - duration, "") for duration in durations]
    model.add_no_overlap(
        [model.new_fixed_size_interval_var(start, length, "") for start, length in zip(starts, durations, strict=True)]
    )
    return model, starts


class BruteForce(mapgrad.InstanceSolver):
    def init(self) -> np.ndarray:
        return np.asarray(self.problem.states())

    def solve(self, state: np.ndarray, theta: np.ndarray, request: mapgrad.Request) -> np.ndarray:
        return state[(state.reshape(len(state), -1) @ theta.ravel()).argmax()]


def assert_solved_as_by_enumeration(problem: mapgrad.Problem, name: str = "ortools.cp_sat") -> None:
    states = problem.states()
    rng = np.random.default_rng(0)
    rows = np.concatenate((rng.standard_normal((6, *problem.shape)), rng.integers(-1, 2, (6, *problem.shape))))
    theta = torch.as_tensor(rows)
    solutions = mapgrad.get_solver(name, problem).solve(theta)
    best = (theta.flatten(1) @ states.flatten(1).T).amax(dim=1)
    assert problem.contains(solutions.z).all()
    torch.testing.assert_close((theta * solutions.z).flatten(1).sum(dim=1), best, rtol=0, atol=1e-9)


def test_all_different_values_are_permutations() -> None:
    problem = from_cp_model(*all_different(3, 4))
    assert isinstance(problem, CpModelProblem)
    assert {tuple(state) for state in problem.states().tolist()} == set(itertools.permutations(range(4), 3))
    assert problem.bounds[1].tolist() == [3, 3, 3]
    assert (
        problem.contains(torch.tensor([[0, 1, 2], [0, 1, 0], [0, 1, 4], [0.5, 1, 2]])).tolist() == [True] + [False] * 3
    )
    assert_solved_as_by_enumeration(problem)


def test_circuits_are_tours() -> None:
    problem = from_cp_model(*tour(5))
    assert problem.shape == (20,)
    assert problem.kappa == 10
    assert len(problem.states()) == 24
    assert_solved_as_by_enumeration(problem)


def test_intervals_do_not_overlap() -> None:
    durations = [2, 1, 3]
    problem = from_cp_model(*schedule(durations, 8))
    expected = {
        starts
        for starts in itertools.product(range(7), range(8), range(6))
        if all(
            starts[i] + durations[i] <= starts[j] or starts[j] + durations[j] <= starts[i]
            for i, j in [(0, 1), (0, 2), (1, 2)]
        )
    }
    assert {tuple(state) for state in problem.states().tolist()} == expected
    assert_solved_as_by_enumeration(problem)


def test_values_with_holes_products_and_tables() -> None:
    model = cp_model.CpModel()
    x = model.new_int_var_from_domain(cp_model.Domain.from_values([-2, 0, 3]), "x")
    y = model.new_int_var(-5, 5, "y")
    product = model.new_int_var(-20, 20, "")
    model.add_multiplication_equality(product, [x, y])
    model.add(product >= 1)
    model.add_forbidden_assignments([x, y], [(3, 2)])
    problem = from_cp_model(model, [x, y])
    expected = {(x, y) for x in (-2, 0, 3) for y in range(-5, 6) if x * y >= 1 and (x, y) != (3, 2)}
    assert {tuple(state) for state in problem.states().tolist()} == expected
    assert problem.bounds[0].tolist() == [-2, -5]
    assert not problem.contains(torch.tensor([1.0, 1.0]))
    assert_solved_as_by_enumeration(problem)


def test_a_model_with_all_different_is_trained_through() -> None:
    torch.manual_seed(0)
    problem = from_cp_model(*all_different(4, 4))
    features = torch.randn(16, 3)
    truth = mapgrad.get_solver("ortools.cp_sat", problem)(features @ torch.randn(3, 4))
    losses = {}
    for name in ("ortools.cp_sat", BruteForce):
        network = torch.nn.Linear(3, 4, bias=False)
        torch.nn.init.constant_(network.weight, 0.1)
        layer = mapgrad.MAPLayer(mapgrad.get_solver(name, problem), seed=0)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
        losses[name] = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = (layer(network(features)) - truth).square().mean()
            loss.backward()
            optimizer.step()
            losses[name].append((loss.item(), network.weight.grad.flatten().tolist()))
    first, second = losses.values()
    assert first[-1][0] < 0.4 * first[0][0]
    for (loss, gradient), (expected_loss, expected_gradient) in zip(first, second, strict=True):
        assert loss == pytest.approx(expected_loss, abs=1e-6)
        assert gradient == pytest.approx(expected_gradient, abs=1e-6)


def test_a_model_that_is_no_program_has_no_variables() -> None:
    solver = mapgrad.get_solver("auto", from_cp_model(*all_different(3, 3)))
    assert solver.solve(torch.zeros(1, *solver.problem.shape)).variables is None


def test_other_solvers_say_which_one_takes_such_a_model() -> None:
    problem = from_cp_model(*all_different(3, 3))
    assert mapgrad.get_solver("ortools", problem).name == "ortools.cp_sat"
    assert mapgrad.get_solver("auto", problem).name == "ortools.cp_sat"
    for name in ("ortools.mip", "highs", "topk"):
        with pytest.raises(mapgrad.UnsupportedProblemError, match=r"Installed solvers that can: ortools\.cp_sat"):
            mapgrad.get_solver(name, problem)
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"aren't linear, which only 'ortools\.cp_sat' takes"):
        problem.to_ilp()


def linear_model() -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Every constraint that is linear: ranges, equations, clauses, implications, at most and exactly one."""
    model = cp_model.CpModel()
    a, b, c, d, e = (model.new_bool_var(name) for name in "abcde")
    n = model.new_int_var(-2, 3, "n")
    model.add_linear_constraint(2 * a + b - n, -1, 3)
    model.add(a + c + n == 2)
    model.add(b + d >= n - 1)
    model.add_bool_or([a, b.negated(), d])
    model.add_implication(a, e)
    model.add_bool_or([c, d]).only_enforce_if(e)
    model.add_bool_and([e, d.negated()]).only_enforce_if([a, c])
    model.add_at_most_one([b, c.negated(), d])
    model.add_exactly_one([d, e, b])
    return model, [a, b, c, d, e, n]


def test_a_linear_model_is_a_program_that_every_solver_takes() -> None:
    model, variables = linear_model()
    before = str(model.proto)
    problem = from_cp_model(model, variables)
    assert str(model.proto) == before
    assert isinstance(problem, mapgrad.IntegerProgram)
    native = CpModelProblem(str(model.proto), range(6))
    states = {tuple(state) for state in native.states().tolist()}
    assert {tuple(state) for state in problem.states().tolist()} == states
    assert len(states) > 1
    for name in ("ortools.cp_sat", "ortools.mip", "highs"):
        assert_solved_as_by_enumeration(problem, name)


@pytest.mark.parametrize("kind", ["linear", "clause", "range", "assumption", "number"])
def test_what_no_row_says_makes_a_model_native(kind: str) -> None:
    model = cp_model.CpModel()
    x, y, switch = model.new_int_var(0, 3, "x"), model.new_int_var(0, 3, "y"), model.new_bool_var("switch")
    expected = set(itertools.product(range(4), range(4), range(2)))
    if kind == "linear":
        other = model.new_bool_var("other")
        model.add(x + y <= 2).only_enforce_if(switch, other)
        model.add(x + other >= 3)
        expected = {(x, y, s) for x, y, s in expected if x >= 2 and (x == 3 or not s or x + y <= 2)}
    elif kind == "clause":
        model.add_bool_xor([switch, True])
        expected = {(x, y, s) for x, y, s in expected if not s}
    elif kind == "range":
        model.add(x + y != 3)
        expected = {(x, y, s) for x, y, s in expected if x + y != 3}
    elif kind == "assumption":
        model.add_assumption(switch.negated())
        expected = {(x, y, s) for x, y, s in expected if not s}
    else:
        model.add(x * (2**53 + 1) + y * 2**53 <= 2**54 + 1)
        expected = {(x, y, s) for x, y, s in expected if x * (2**53 + 1) + y * 2**53 <= 2**54 + 1}
    problem = from_cp_model(model, [x, y, switch])
    assert isinstance(problem, CpModelProblem)
    assert {tuple(state) for state in problem.states().tolist()} == expected
    assert_solved_as_by_enumeration(problem)


def test_linear_constraints_with_one_literal_are_indicators() -> None:
    model = cp_model.CpModel()
    x, y, z = (model.new_int_var(-2, 3, name) for name in "xyz")
    first, second = model.new_bool_var("first"), model.new_bool_var("second")
    always, never = model.new_constant(1), model.new_constant(0)
    model.add(x + y + z <= 4)
    model.add_linear_constraint(x + 2 * y - 3 * first, -2, 3).only_enforce_if(first)
    model.add(x == z + 1).only_enforce_if(~second)
    model.add(y - z >= 1).only_enforce_if(second)
    model.add(x <= -2).only_enforce_if(never)
    model.add(x - y <= 3).only_enforce_if(always)
    model.add_bool_or(first, second)
    problem = from_cp_model(model, [x, y, z, first, second])
    assert isinstance(problem, mapgrad.IntegerProgram)
    assert [(each[0], each[1]) for each in problem.indicators[:3]] == [(3, 1), (4, 0), (4, 1)]
    expected = {
        (x, y, z, a, b)
        for x, y, z, a, b in itertools.product(*[range(-2, 4)] * 3, range(2), range(2))
        if x + y + z <= 4
        and (not a or -2 <= x + 2 * y - 3 <= 3)
        and (y - z >= 1 if b else x == z + 1)
        and x - y <= 3
        and (a or b)
    }
    assert {tuple(state) for state in problem.states().tolist()} == expected
    for name in ("ortools.cp_sat", "ortools.mip", "highs", "scipy.milp"):
        assert_solved_as_by_enumeration(problem, name)
    assert_solved_as_by_enumeration(from_cp_model(model, [first, z, y]))


def makespan(maximize: bool = False) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model, starts = schedule([2, 2, 1], 9)
    end = model.new_int_var(0, 9, "end")
    model.add_max_equality(end, [start + length for start, length in zip(starts, [2, 2, 1], strict=True)])
    if maximize:
        model.maximize(3 - 4 * end + 100 * starts[0])
    else:
        model.minimize(4 * end - 100 * starts[0] + 3)
    return model, starts


@pytest.mark.parametrize("maximize", [False, True])
def test_what_the_model_says_of_other_variables_stays(maximize: bool) -> None:
    problem = from_cp_model(*makespan(maximize))
    assert problem.others.tolist() == [3]
    assert problem.fixed.tolist() == [-4]
    states = problem.states()
    value = -4 * (states + torch.tensor([2, 2, 1])).amax(dim=1)
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 1e-3, 1e3):
        theta = scale * torch.randn(8, 3, dtype=torch.float64, generator=generator)
        solutions = mapgrad.get_solver("ortools.cp_sat", problem).solve(theta)
        best = (theta @ states.T + value).amax(dim=1)
        torch.testing.assert_close(solutions.objective, best, rtol=1e-9, atol=0)
        assert problem.contains(solutions.z).all()


def test_utilities_of_a_linear_model_go_by_the_sense_of_its_objective() -> None:
    for build, expected in [
        (lambda model, x: model.minimize(3 * x[0] - 2 * x[1] + x[2]), [-3, -1]),
        (lambda model, x: model.maximize(3 * x[0] - 2 * x[1] + x[2] + 7), [3, 1]),
        (lambda model, x: model.minimize(0.5 * x[0] + x[1] - 1.25 * x[2]), [-0.5, 1.25]),
        (lambda model, x: model.maximize(0.5 * x[0]), [0.5, 0]),
        (lambda model, x: None, [0, 0]),
    ]:
        model = cp_model.CpModel()
        variables = [model.new_bool_var("") for _ in range(3)]
        model.add_at_least_one(variables)
        build(model, variables)
        problem = from_cp_model(model, [variables[1]])
        assert problem.decision.tolist() == [1]
        assert problem.fixed.tolist() == expected


@pytest.mark.parametrize("is_linear", [True, False])
def test_negations_and_affine_terms_are_priced(is_linear: bool) -> None:
    model = cp_model.CpModel()
    x, y = model.new_int_var(-1, 3, "x"), model.new_int_var_from_domain(cp_model.Domain.from_intervals([[0, 4]]), "y")
    flag, other = model.new_bool_var("flag"), model.new_bool_var("other")
    model.add(x + y + 2 * flag <= 5)
    if not is_linear:
        model.add(y != 2)
    model.maximize(5 * x + 7 * flag + 3 * other)
    before = str(model.proto)
    problem = from_cp_model(model, [[2 * x + 3, ~flag], [1 - y, flag]])
    assert str(model.proto) == before
    assert isinstance(problem, mapgrad.IntegerProgram) is is_linear
    expected = {
        ((2 * x + 3, 1 - flag), (1 - y, flag))
        for x, y, flag in itertools.product(range(-1, 4), range(5), range(2))
        if x + y + 2 * flag <= 5 and (is_linear or y != 2)
    }
    assert {tuple(map(tuple, state)) for state in problem.states().tolist()} == expected
    assert problem.bounds[0].tolist() == [[1, 0], [-3, 0]]
    assert problem.bounds[1].tolist() == [[9, 1], [1, 1]]
    assert sorted(value for value in problem.fixed.tolist() if value) == [3]  # of `other` alone
    for name in ("ortools.cp_sat", *(("highs", "ortools.mip") if is_linear else ())):
        assert_solved_as_by_enumeration(problem, name)
    assert problem.contains(torch.tensor([[[3.0, 1.0], [1.0, 0.0]], [[4.0, 1.0], [1.0, 0.0]]])).tolist() == [
        True,
        False,
    ]
    assert pickle.loads(pickle.dumps(problem)) == problem == from_cp_model(model, [[2 * x + 3, ~flag], [1 - y, flag]])


def test_nesting_gives_the_shape() -> None:
    model = cp_model.CpModel()
    x = [[model.new_bool_var(f"{i}{j}") for j in range(3)] for i in range(2)]
    series = model.new_bool_var_series("s", pd.Index(["one", "two"]))
    for variables, shape, decision in [
        (x, (2, 3), range(6)),
        (np.array(x, dtype=object), (2, 3), range(6)),
        (np.array(x, dtype=object).T, (3, 2), [0, 3, 1, 4, 2, 5]),
        (tuple(x[1]), (3,), [3, 4, 5]),
        ({(1, 0): x[1][0], (0, 1): x[0][1]}, (2,), [3, 1]),
        ({"b": x[1], "a": x[0]}, (2, 3), [3, 4, 5, 0, 1, 2]),
        ([{"only": x[0][2]}], (1, 1), [2]),
        (series, (2,), [6, 7]),
    ]:
        problem = from_cp_model(model, variables)
        assert problem.shape == shape
        assert problem.decision.tolist() == list(decision)


def test_variables_must_be_the_models_own_and_distinct() -> None:
    model, x = all_different(3, 3)
    flag = model.new_bool_var("flag")
    _, foreign = all_different(3, 3)
    optimizer = mathopt.Model()
    y = [optimizer.add_binary_variable(name="y"), optimizer.add_binary_variable()]
    stranger = mathopt.Model().add_binary_variable(name="stranger")
    for build, given, variables, error, message in [
        (from_cp_model, model, [x[0], x[1], x[0]], ProblemError, "variable 0 of the model is there 2 times"),
        (from_cp_model, model, [[x[0]], [x[1], x[2]]], ProblemError, "got parts of shapes (1,) and (2,)"),
        (from_cp_model, model, [x[0], [x[1]]], ProblemError, "got parts of shapes () and (1,)"),
        (from_cp_model, model, [x[0], 3], TypeError, "of one variable and integers: got 3"),
        (from_cp_model, model, [x[0] + x[1]], TypeError, "of one variable and integers: got"),
        (from_cp_model, model, [0.5 * x[0]], TypeError, "of one variable and integers: got"),
        (from_cp_model, model, [0 * x[0] + 3], TypeError, "of one variable and integers: got"),
        (from_cp_model, model, [1 * x[0], x[0]], ProblemError, "variable 0 of the model is there 2 times"),
        (from_cp_model, model, [2 * x[0], x[0] + x[0]], ProblemError, "must be distinct, but"),
        (
            from_cp_model,
            model,
            [~flag, flag, flag.negated()],
            ProblemError,
            "NotBooleanVariable(var_index=3) is there 2",
        ),
        (from_cp_model, model, [2**62 * x[0]], ProblemError, "beyond CP-SAT's 64-bit integers"),
        (from_cp_model, model, [foreign[0] + 1], ProblemError, "is a variable of another model"),
        (from_cp_model, model, [foreign[0]], ProblemError, "is a variable of another model"),
        (from_cp_model, model, [], ProblemError, "at least one variable, got none"),
        (from_cp_model, model, x[0], ProblemError, "must be a list, an array or a dictionary of variables, got x0"),
        (from_cp_model, optimizer, x, TypeError, "model must be an ortools.sat.python.cp_model.CpModel, got Model"),
        (from_mathopt, model, y, TypeError, "model must be an ortools.math_opt.python.mathopt.Model, got CpModel"),
        (from_mathopt, optimizer, [y[0], y[0]], ProblemError, "variable 0 of the model is there 2 times"),
        (from_mathopt, optimizer, [2 * y[0]], TypeError, "neither expressions nor constants"),
        (from_mathopt, optimizer, [stranger], ProblemError, "'stranger'> is no variable of this model"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            build(given, variables)


def test_a_model_that_cp_sat_refuses_is_refused() -> None:
    model, x = all_different(2, 2)
    model.add(x[0] * 2**62 + x[1] * 2**62 <= 3)
    with pytest.raises(ProblemError, match=r"CP-SAT refuses the model: .*overflow"):
        from_cp_model(model, x)
    model, x = all_different(2, 2)
    model.maximize(x[0])
    model.proto.objective.domain.extend([0, 0])
    with pytest.raises(ProblemError, match="the objective has a domain"):
        from_cp_model(model, x)


def test_a_problem_is_its_content() -> None:
    model, x = all_different(3, 3)
    problem = from_cp_model(model, x)
    renamed, y = cp_model.CpModel(), []
    y = [renamed.new_int_var(0, 2, "") for _ in range(3)]
    renamed.add_all_different(y)
    renamed.add_hint(y[0], 1)
    renamed.minimize(y[1])
    same = from_cp_model(renamed, y)
    copies = [same, pickle.loads(pickle.dumps(problem)), pickle.loads(pickle.dumps(same))]
    assert all(each == problem and hash(each) == hash(problem) for each in copies)
    assert from_cp_model(model, x[:2]) != problem
    assert from_cp_model(model, [x[1], x[0], x[2]]) != problem
    assert from_cp_model(model, [x]) != problem
    model.add(x[0] == 0)
    assert len(problem.states()) == 6
    assert repr(problem) == "<CpModelProblem: 3 of 3 variables priced>"
    priced = pickle.loads(pickle.dumps(from_cp_model(*makespan())))
    assert repr(priced) == "<CpModelProblem: 3 of 4 variables priced, 1 others with utilities of their own>"
    assert not priced.columns.flags.writeable


def test_arguments_of_a_native_problem_are_checked() -> None:
    text = str(all_different(3, 3)[0].proto)
    for arguments, message in [
        (("variables { domain: 1 }", [0]), "CP-SAT refuses the model"),
        (("nonsense", [0]), "model must be a CpModelProto in the text format"),
        ((text, []), "columns must be at least one, and distinct"),
        ((text, [0, 0]), "columns must be at least one, and distinct"),
        ((text, [0], None, [0], [1.0]), "columns must be at least one, and distinct"),
        ((text, [3]), r"columns and others must be in 0\.\.2"),
        ((text, [0, 1], (3,)), r"shape \(3,\) doesn't fit 2 columns"),
        ((text, [0], None, [1], []), "fixed must be 1 finite numbers"),
        ((text, [0], None, [1], [np.inf]), "fixed must be 1 finite numbers"),
    ]:
        with pytest.raises(ProblemError, match=message):
            CpModelProblem(*arguments)


def test_no_and_too_many_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = all_different(3, 2)
    problem = from_cp_model(model, x)
    with pytest.raises(mapgrad.InfeasibleError):
        problem.states()
    with pytest.raises(mapgrad.InfeasibleError, match="row 0: INFEASIBLE"):
        mapgrad.get_solver("ortools.cp_sat", problem)(torch.ones(1, 3))
    monkeypatch.setattr(_cp_models, "_SOLUTION_STEPS", 10_000_000 // 100)
    assert len(from_cp_model(*tour(5)).states()) == 24
    with pytest.raises(ProblemError, match="30 of 30 variables priced> takes more than 10,000,000 steps"):
        from_cp_model(*tour(6)).states()


def remainder(largest: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    x = model.new_int_var(0, largest, "x")
    model.add_modulo_equality(3, x, 7)
    return model, [x]


def holes(values: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    domain = cp_model.Domain.from_values(list(range(0, 3 * values, 3)))
    return model, [model.new_int_var_from_domain(domain, "") for _ in range(2)]


def table(rows: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    x = [model.new_int_var(0, 10**6, "") for _ in range(2)]
    model.add_allowed_assignments(x, [(i, i * 7919 % rows) for i in range(rows)])
    return model, x


def parity(size: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    x = [model.new_bool_var("") for _ in range(size)]
    model.add_bool_xor(x)
    return model, x


def test_ten_thousand_states_are_enumerated() -> None:
    for built, count in (
        (remainder(69_999), 10_000),
        (all_different(2, 100), 9_900),
        (holes(100), 10_000),
        (parity(13), 4_096),
        (table(300), 300),
    ):
        assert len(from_cp_model(*built).states()) == count


def test_too_many_states_are_refused_soon() -> None:
    for built in (
        remainder(699_999),
        all_different(4, 40),
        holes(3_000),
        parity(24),
        table(100_000),
    ):
        problem = from_cp_model(*built)
        started = time.process_time()
        with pytest.raises(ProblemError, match=r"variables priced> takes (more than|too long).*make it smaller"):
            problem.states()
        assert time.process_time() - started < 4  # a second or two; the machine may be slower


def test_the_range_of_a_native_variable_may_be_too_large() -> None:
    model = cp_model.CpModel()
    x = [model.new_int_var(0, 2**40, ""), model.new_int_var(0, 1, "")]
    model.add_all_different(x)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="leave no room for θ"):
        mapgrad.get_solver("ortools.cp_sat", from_cp_model(model, x))
    assert mapgrad.get_solver("ortools.cp_sat", from_cp_model(model, x[1:]))(torch.ones(1)).tolist() == [1]


NATIVE = {"values": lambda: all_different(3, 4), "times": lambda: schedule([2, 1], 5), "makespan": makespan}


@pytest.mark.parametrize("build", NATIVE.values(), ids=NATIVE)
def test_native_problems_pass_the_kit(build: Any) -> None:
    mapgrad.testing.check_solver("ortools.cp_sat", from_cp_model(*build()))
