"""The programs of the fuzzer have the optimum that they claim, and it tells honest solvers from others."""

import hashlib
import itertools
import math
import time

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.testing import Verdict, fuzz_solver
from mapgrad.testing._exact_program import exact_optimum
from mapgrad.testing._fuzz import judged
from mapgrad.testing._fuzz_programs import KINDS, known_program
from mapgrad.testing._known_programs import KnownProgram
from mapgrad.testing._shrinking import shrunk

INF = math.inf
OPTIMAL, INFEASIBLE, UNBOUNDED = mapgrad.Status.OPTIMAL, mapgrad.Status.INFEASIBLE, mapgrad.Status.UNBOUNDED


class Exact(mapgrad.InstanceSolver):
    """Honest: what exact arithmetic says."""

    def init(self):
        return None

    def solve(self, state, theta, request):
        answer = exact_optimum(self.problem, theta)
        if answer is None:
            raise RuntimeError("too many nodes")
        if answer.status is not OPTIMAL:
            return mapgrad.Solution(None, answer.status)
        return np.array([float(each) for each in answer.x])


def faulty(change):
    """Return a solver that changes the right answer."""

    class Faulty(Exact):
        def solve(self, state, theta, request):
            return change(self.problem, super().solve(state, theta, request))

    return Faulty


def one(value=6.25):
    """Return max 2x + y of an integer x and a continuous y with 2x + 4y ≤ 7, in the box of 0 … 3: 6.25 at (3, .25)."""
    program = mapgrad.IntegerProgram(A_ub=[[2, 4]], b_ub=[7], upper=3, integrality=[1, 0])
    return KnownProgram(program, np.array([2.0, 1.0]), OPTIMAL, value, gain=1e-9)


# --- exact arithmetic


@pytest.mark.parametrize(
    ("program", "theta", "status", "value"),
    [
        ({"A_ub": [[3, 8, -1], [5, -5, -6]], "b_ub": [5, -66], "lower": -INF, "upper": INF, "integrality": 0},
         [19, 14, -15], OPTIMAL, -117),
        ({"A_ub": [[31.31, -92.8], [13.1, -76.96], [-87.03, 41.95]], "b_ub": [-1139.74, -255.8, 4421.5],
          "lower": -1e6, "upper": 1e6, "integrality": 0}, [0, -1], OPTIMAL, 5.799891019994881),
        ({"A_ub": [[0, 54, -37], [2, 0, -35]], "b_ub": [0, 0], "lower": [-INF, -1e4, -1e4], "upper": 1e4,
          "integrality": [0, 1, 0]}, [-1, 1, 0], UNBOUNDED, 0),
        ({"A_ub": [[-1, -9, -5], [1, -9, 9]], "b_ub": [13, 9], "lower": [-INF, -10, -10], "upper": [INF, INF, 10],
          "integrality": [1, 0, 0]}, [3, -3, 1], UNBOUNDED, 0),
        ({"A_ub": [[3, 9], [2, 9], [7, 3]], "b_ub": [12, 2, 7], "lower": -INF, "upper": [INF, 10]},
         [-1, 0], UNBOUNDED, 0),
        ({"A_ub": [[-99, -46]], "b_ub": [0], "lower": -100, "upper": [100, INF]}, [-1, 1], UNBOUNDED, 0),
        ({"A_ub": [[96.55, 0, -32.45, 88.78], [-3.14, -78.02, 0, 0], [0, 11.8, -21.94, 0], [0, 0, 91.59, -10.58],
                   [79.17, 1.73, 0, -73.23], [-10.61, -94.66, 0, 76.88]],
          "b_ub": [1216.06, -50.5404, 3.422, -35.25, 411.403, 195.69], "lower": -100, "upper": 100,
          "integrality": [0, 0, 1, 1]}, [24, -5, -7.4, -9], OPTIMAL, 175.91),
        ({"A_ub": [[73.09, 90.88, -99.38], [-27.44, 95.42, 57.73], [88.42, 0, 95.2]],
          "b_ub": [-34932.5708, 2898.451, 2046.0154], "lower": -1e4, "upper": 1e4, "integrality": [0, 1, 0]},
         [.05418, .0762, 0], OPTIMAL, -15.525905580862373),
    ],
)  # fmt: skip
def test_exact_arithmetic_is_right_where_engines_were_wrong(program, theta, status, value):
    answer = exact_optimum(mapgrad.IntegerProgram(**program), np.array(theta, dtype=np.float64))
    assert answer.status is status
    assert float(answer.value) == pytest.approx(value, rel=1e-14)


def test_exact_arithmetic_finds_what_enumeration_finds():
    rng = np.random.default_rng(0)
    for _ in range(60):
        width = int(rng.integers(1, 5))
        matrix, sides = rng.integers(-9, 10, (3, width)), rng.integers(-5, 20, 3)
        lower = rng.integers(-3, 1, width)
        theta = rng.integers(-9, 10, width).astype(np.float64)
        program = mapgrad.IntegerProgram(
            A_ub=matrix[:2], b_ub=sides[:2], A_eq=matrix[2:], b_eq=sides[2:], lower=lower, upper=lower + 3
        )
        points = np.array(list(itertools.product(*(range(low, low + 4) for low in lower))))
        activity = points @ matrix.T
        held = points[(activity[:, :2] <= sides[:2]).all(axis=1) & (activity[:, 2] == sides[2])]
        answer = exact_optimum(program, theta)
        assert answer.status is (OPTIMAL if len(held) else INFEASIBLE)
        assert not len(held) or answer.value == (held @ theta).max()


def test_exact_arithmetic_gives_up_at_its_limit():
    program = mapgrad.IntegerProgram(A_eq=[[2] * 12], b_eq=[11], upper=1)
    assert exact_optimum(program, np.zeros(12), limit=100) is None


# --- programs


@pytest.mark.parametrize("kind", KINDS)
def test_programs_have_the_optimum_that_they_claim(kind):
    undecided = 0
    for number in range(30):
        known = known_program(kind, 5, number)
        answer = exact_optimum(known.program, known.theta, limit=300)
        if answer is None:
            undecided += 1
            continue
        assert answer.status is known.status
        if known.status is OPTIMAL:
            room = 1e-12 * max(np.abs(known.theta).max(), known.terms)
            assert float(answer.value) == pytest.approx(known.value, rel=0, abs=room)
    assert undecided <= 6


def test_programs_are_the_same_on_every_machine():
    content = hashlib.sha256()
    for kind, number in itertools.product(KINDS, range(5)):
        known = known_program(kind, 1, number)
        program = known.program
        arrays = (program.matrix.data, program.row_upper, program.lower, program.upper, program.integrality)
        for array in (*arrays, known.theta):
            content.update(array.astype("<f8").tobytes())
    assert content.hexdigest() == "dd5efe2823d1f8953f1e62d2ffdbf3ce77583d91939091c7f8b294d64ccca08e"


def test_utilities_reach_from_1e_minus_9_to_1e9():
    sizes = np.concatenate([np.abs(known_program(kind, 0, number).theta) for kind in KINDS for number in range(40)])
    assert sizes[sizes > 0].min() <= 1e-8
    assert sizes.max() >= 1e9


def test_boxes_reach_from_1_to_1e8():
    for kind in ("boxed_lp", "boxed_mixed"):
        sizes = {known_program(kind, 0, number).program.upper.max() for number in range(100)}
        assert sizes >= {10.0**power for power in range(9)}


def test_half_of_the_mixed_programs_are_not_solved_at_the_root():
    highspy = pytest.importorskip("highspy")
    nodes = []
    for number in range(40):
        known = known_program("mixed", 0, number)
        program, highs = known.program, highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.addVars(program.num_vars, program.lower, program.upper)
        for column in range(program.num_vars):
            highs.changeColCost(column, -known.theta[column] / np.abs(known.theta).max())
            if program.integrality[column]:
                highs.changeColIntegrality(column, highspy.HighsVarType.kInteger)
        for row in range(len(program.row_upper)):
            part = slice(program.matrix.indptr[row], program.matrix.indptr[row + 1])
            indices, values = program.matrix.indices[part].astype(np.int32), program.matrix.data[part]
            highs.addRow(program.row_lower[row], program.row_upper[row], len(values), indices, values)
        highs.setOptionValue("threads", 1)
        highs.resetGlobalScheduler(True)
        highs.run()
        highs.resetGlobalScheduler(True)
        nodes.append(highs.getInfo().mip_node_count)
    assert sum(count > 1 for count in nodes) >= 20


# --- verdicts


def test_an_honest_solver_is_right():
    report = fuzz_solver(Exact, 75)
    assert report.total(Verdict.RIGHT) + report.total(Verdict.ERROR) == 75
    assert report.total(Verdict.RIGHT) >= 70
    assert list(report.counts) == list(KINDS)
    assert "free_lp" in str(report)


@pytest.mark.parametrize(
    ("change", "verdict", "text"),
    [
        (lambda problem, z: z, Verdict.RIGHT, ""),
        (lambda problem, z: mapgrad.Solution(None, UNBOUNDED), Verdict.WRONG, "UNBOUNDED instead of OPTIMAL 6.25"),
        (lambda problem, z: mapgrad.Solution(z, mapgrad.Status.FEASIBLE), Verdict.ERROR, "FEASIBLE, which is true"),
        (lambda problem, z: mapgrad.Solution(None, mapgrad.Status.TIME_LIMIT), Verdict.WRONG, "TIME_LIMIT after 0"),
        (lambda problem, z: mapgrad.Solution(None, mapgrad.Status.ERROR), Verdict.WRONG, "ERROR () instead of"),
        (lambda problem, z: [][1], Verdict.ERROR, "list index out of range"),
        (lambda problem, z: np.add(z, [0, 1e-8]), Verdict.WRONG, "row 0 is missed by 4e-08"),
        (lambda problem, z: np.add(z, [0, 1e-10]), Verdict.RIGHT, ""),
        (lambda problem, z: z - [0, 1e-7], Verdict.WRONG, "less than the optimum"),
        (lambda problem, z: z - [1e-10, 0], Verdict.WRONG, "isn't an integer"),
        (lambda problem, z: np.add(z, [1, -0.5]), Verdict.WRONG, "out of bounds"),
    ],
)
def test_verdicts(change, verdict, text):
    found, said = judged(faulty(change), one())
    assert (found, text in said) == (verdict, True), said


def wait(seconds):
    def change(problem, z):
        time.sleep(seconds)
        return mapgrad.Solution(None, mapgrad.Status.TIME_LIMIT)

    return change


@pytest.mark.parametrize(("seconds", "verdict"), [(0.3, Verdict.SLOW), (0.8, Verdict.WRONG)])
def test_the_limit_is_late_enough_and_kept(monkeypatch, seconds, verdict):
    monkeypatch.setattr("mapgrad.testing._fuzz._GRACE", 0.4)
    assert judged(faulty(wait(seconds)), one(), time_limit=0.2)[0] is verdict


def test_what_is_slow_is_asked_once_and_written_as_it_is(tmp_path):
    asked = []

    def slow(problem, z):
        asked.append(problem)
        return wait(1.1)(problem, z)

    report = fuzz_solver(faulty(slow), 1, kinds="boxed_mixed", folder=tmp_path, time_limit=1)
    assert (report.total(Verdict.SLOW), len(asked)) == (1, 1)
    (path,) = tmp_path.iterdir()
    assert mapgrad.IntegerProgram.from_mps(path).num_vars == asked[0].num_vars


def test_what_the_caller_got_wrong_is_not_held_against_the_solver():
    with pytest.raises(TypeError, match="no option 'time_limt'"):
        fuzz_solver(Exact, 1, time_limt=5)
    with pytest.raises(ValueError, match="time_limit must be a positive number of seconds, got None"):
        fuzz_solver(Exact, 1, time_limit=None)


def test_better_than_the_optimum_is_wrong():
    verdict, text = judged(Exact, one(value=6.0))
    assert (verdict, "more than the optimum" in text) == (Verdict.WRONG, True)


def test_a_solver_that_takes_no_programs_is_counted_as_such():
    report = fuzz_solver("ortools.cp_sat", 2, kinds=["free_lp"])
    assert report.total(Verdict.REFUSED) == 2
    assert report.failures == []


def test_an_unknown_solver_or_kind_is_an_error():
    with pytest.raises(mapgrad.UnknownSolverError):
        fuzz_solver("nobody", 1)
    with pytest.raises(mapgrad.ProblemError, match=r"kinds of programs are free_lp, .*; got fre_lp"):
        fuzz_solver(Exact, 1, kinds=["fre_lp"])
    with pytest.raises(mapgrad.ProblemError, match=r"; got fre_lp"):
        fuzz_solver(Exact, 1, kinds="fre_lp")


# --- what fails


def infeasible_where_two_meet(problem, z):
    """Say INFEASIBLE where a row has two variables."""
    return mapgrad.Solution(None, INFEASIBLE) if (np.diff(problem.matrix.indptr) >= 2).any() else z


def test_programs_are_shrunk_to_what_fails():
    solver = faulty(infeasible_where_two_meet)
    known = shrunk(known_program("boxed_mixed", 0, 3), lambda each: judged(solver, each)[0] is Verdict.WRONG)
    assert known.program.matrix.shape == (1, 2)
    assert all(len(repr(number).strip("-0.")) == 1 for number in known.program.matrix.data.tolist())


def test_what_fails_is_written(tmp_path):
    report = fuzz_solver(faulty(infeasible_where_two_meet), 3, kinds=["boxed_mixed"], folder=tmp_path / "new")
    paths = sorted((tmp_path / "new").iterdir())
    assert len(paths) == report.total(Verdict.WRONG) == len(report.failures) >= 1
    for path, line in zip(paths, sorted(report.failures), strict=True):
        assert str(path) in line
        program = mapgrad.IntegerProgram.from_mps(path)
        assert judged(Exact, KnownProgram(program, -program.objective, OPTIMAL, np.nan))[0] is Verdict.RIGHT
        solved = mapgrad.get_solver(Exact, program).solve(torch.tensor(-program.objective))
        assert f"INFEASIBLE instead of OPTIMAL {float(solved.objective)!r}" in line
