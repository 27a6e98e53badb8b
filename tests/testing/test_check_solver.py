"""The three ways to check all laws: a call, a generator, a pytest decorator."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import testing

PROBLEM = mapgrad.KSubset(4, 2)


class Worst(mapgrad.BatchSolver):
    def solve(self, theta):
        states = self.problem.states()
        return states[(theta.double() @ states.T).argmin(1)]


class Scaled(testing.BruteForce):
    def __init__(self, problem, *, factor):
        super().__init__(problem)
        self.factor = factor

    def solve(self, theta):
        return super().solve(self.factor * theta).z


def test_every_law_is_a_function_of_its_own():
    laws = [law for law, _ in testing.iter_checks("topk", PROBLEM)]
    functions = {name.removeprefix("check_") for name in testing.__all__ if name.startswith("check_")} - {
        "solver",
        "problem",
    }
    assert len(laws) == len(set(laws)) == 30
    assert set(laws) == functions


def test_nothing_is_looked_up_before_a_check_is_called():
    checks = dict(testing.iter_checks("no_such_solver", PROBLEM))
    with pytest.raises(mapgrad.UnknownSolverError, match="no_such_solver"):
        checks["feasible"]()


def test_options_reach_the_solver():
    testing.check_solver(Scaled, PROBLEM, factor=2.0)
    with pytest.raises(mapgrad.ConformanceError, match="breaks the law 'optimal'"):
        testing.check_solver(Scaled, PROBLEM, factor=-2.0)
    with pytest.raises(TypeError, match="factor"):
        testing.check_solver(Scaled, PROBLEM)


def test_an_object_and_a_function_stand_for_a_name():
    testing.check_solver(testing.BruteForce(PROBLEM), PROBLEM)

    def largest_two(theta):
        return torch.zeros_like(theta).scatter_(1, theta.topk(2).indices, 1)

    testing.check_solver(largest_two, PROBLEM)
    with pytest.raises(mapgrad.ConformanceError, match="smallest_two on KSubset"):
        testing.check_solver(smallest_two, PROBLEM)


def smallest_two(theta):
    return torch.zeros_like(theta).scatter_(1, (-theta).topk(2).indices, 1)


def results(solver, problem=PROBLEM, **options):
    return {outcome.law: outcome.result for outcome in testing.check_solver(solver, problem, **options)}


def test_what_does_not_apply_is_told_with_its_reason():
    found = results("topk")
    whole = "doesn't apply: the solver takes whole batches, without limits, starts or a stop"
    assert {law for law, result in found.items() if result == whole} == {
        "ends_in_time",
        "limits_apart",
        "reuse",
        "solve_rows",
        "stop",
        "time_limit",
    }
    assert found["infeasible"] == "doesn't apply: the solver isn't given integer programs"
    assert found["optimal"] == "kept"
    assert [str(outcome) for outcome in testing.check_solver("topk", PROBLEM)][2] == "feasible: kept"


def test_an_object_has_one_problem():
    program = mapgrad.IntegerProgram(A_ub=[[1, 2]], b_ub=[2])
    found = results(testing.BruteForce(program), program)
    reason = "an object or a function has one problem and can't be given another program"
    assert found["infeasible"] == f"doesn't apply: {reason}"
    assert found["per_row_problems"].startswith("kept; left out: other problems than this")


def test_dtypes_too_narrow_are_left_out():
    program = mapgrad.IntegerProgram(lower=[2998], upper=[3000])
    result = testing.check_shape_dtype_device(testing.BruteForce, program).result
    for dtype in ("torch.float16", "torch.bfloat16"):
        assert f"{dtype}, which can't hold all states and which the core refuses" in result
    assert "float32" not in result


class AnyState(mapgrad.InstanceSolver):
    traits = mapgrad.Traits(exact=False, deterministic=False)

    def solve(self, state, theta, request):
        return np.random.default_rng().permutation([1.0, 1.0, 0.0, 0.0])


def test_a_heuristic_owes_no_optimum():
    found = results(AnyState)
    assert found["optimal"] == "doesn't apply: the solver is a heuristic and calls none of its answers optimal"
    assert found["ties"] == found["optimal"]
    same = "kept; left out: equal answers, which a heuristic that isn't deterministic doesn't promise"
    assert found["deterministic"] == found["history_free"] == found["batch_equals_rows"] == same
    assert found["gradient"].startswith("kept; left out: the gradient's value")
    assert found["time_limit"].startswith("doesn't apply: the solver doesn't look at `seconds`")
    assert found["reuse"].startswith("doesn't apply: the solver looks neither at `reuse` nor at `start`")


def test_a_law_that_does_not_apply_is_a_skipped_test():
    tests = parameters(testing.parametrize_with_checks([("topk", PROBLEM)]))
    (check,) = tests["topk-KSubset-stop"].values
    with pytest.raises(pytest.skip.Exception, match="doesn't apply: the solver takes whole batches"):
        check()


def test_a_problem_that_the_solver_does_not_take_is_no_broken_law():
    with pytest.raises(mapgrad.UnsupportedProblemError, match="topk"):
        testing.check_solver("topk", mapgrad.Assignment(2))


def parameters(decorator):
    return {parameter.id: parameter for parameter in decorator.args[1]}


def test_each_check_is_one_test_with_a_readable_name():
    cases = [("topk", PROBLEM), ("topk", mapgrad.KSubset(4, 4)), (Worst, PROBLEM), ("topk", mapgrad.Ranking(3))]
    tests = parameters(testing.parametrize_with_checks(cases))
    assert len(tests) == 4 * 30
    assert {name.rpartition("-")[0] for name in tests} == {
        "topk-KSubset",
        "topk-KSubset2",
        "Worst-KSubset",
        "topk-Ranking",
    }
    assert all(not parameter.marks for parameter in tests.values())
    (check,) = tests["topk-KSubset2-optimal"].values
    check()


def test_expected_failures_name_a_law_or_tests():
    cases = [(Worst, PROBLEM), ("topk", PROBLEM)]
    known = {"Worst-*": "it minimises", "ties": "not yet"}
    marked = {
        name: parameter.marks[0].kwargs
        for name, parameter in parameters(testing.parametrize_with_checks(cases, known)).items()
        if parameter.marks
    }
    assert len(marked) == 30 + 1
    expected = {"raises": mapgrad.ConformanceError, "strict": True}
    assert marked["Worst-KSubset-optimal"] == {"reason": "it minimises", **expected}
    assert marked["topk-KSubset-ties"] == {"reason": "not yet", **expected}


def test_an_expected_failure_of_no_test_is_refused():
    with pytest.raises(ValueError, match="no test is called 'optimall', 'topk-Ranking-\\*': correct the expected"):
        testing.parametrize_with_checks([("topk", PROBLEM)], {"optimall": "a slip", "topk-Ranking-*": "none such"})


def test_no_cases_are_refused():
    with pytest.raises(ValueError, match="there are no cases, so that pytest would run nothing"):
        testing.parametrize_with_checks([])


class Outcomes:
    def __init__(self):
        self.of = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            expected = hasattr(report, "wasxfail")
            self.of[report.nodeid.partition("[")[2].rstrip("]")] = f"{report.outcome}{' as expected' * expected}"


def test_pytest_reports_a_check_that_starts_to_pass(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_worst.py").write_text(
        "import mapgrad\n"
        "from mapgrad.testing import parametrize_with_checks\n"
        "\n"
        "class Worst(mapgrad.BatchSolver):\n"
        "    def solve(self, theta):\n"
        "        states = self.problem.states()\n"
        "        return states[(theta.double() @ states.T).argmin(1)]\n"
        "\n"
        "known = {'optimal': 'it minimises', 'feasible': 'once it did not'}\n"
        "\n"
        "@parametrize_with_checks([(Worst, mapgrad.KSubset(4, 2))], known)\n"
        "def test_conformance(check):\n"
        "    check()\n"
    )
    outcomes = Outcomes()
    arguments = [str(tmp_path), "-c", str(tmp_path / "pytest.ini"), "-p", "no:cacheprovider", "-k", "Worst-KSubset"]
    assert pytest.main(arguments, plugins=[outcomes]) == pytest.ExitCode.TESTS_FAILED
    assert len(outcomes.of) == 30
    assert outcomes.of["Worst-KSubset-optimal"] == "skipped as expected"
    assert outcomes.of["Worst-KSubset-feasible"] == "failed"
    assert outcomes.of["Worst-KSubset-ties"] == "failed"
    assert outcomes.of["Worst-KSubset-deterministic"] == "passed"
