"""Programs through PuLP, of either major version: optima to the last digit, how a row ends, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
from mapgrad_pulp._cbc import Cbc
from mapgrad_pulp._highs import HiGHS

each_solver = pytest.mark.parametrize("solver", ["pulp.cbc", "pulp.highs"])


def knapsack(seed: int, items: int = 12, rows: int = 3) -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(seed).integers(1, 20, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


def points(program: mapgrad.IntegerProgram) -> NDArray[np.float64]:
    ranges = [np.arange(low, high + 1) for low, high in zip(program.lower, program.upper, strict=True)]
    box = np.array(list(product(*ranges)))
    activity = box @ program.matrix.toarray().T
    return box[((activity >= program.row_lower) & (activity <= program.row_upper)).all(axis=1)]


@each_solver
@pytest.mark.parametrize("seed", range(6))
def test_random_programs_are_solved_as_by_enumeration(solver: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.integers(-1, 3, 6)
    rows, equal = rng.integers(-5, 6, (3, 6)), rng.integers(0, 3, (seed % 2, 6))
    program = mapgrad.IntegerProgram(
        A_ub=rows, b_ub=rows @ inside + 1, A_eq=equal, b_eq=equal @ inside, lower=-2, upper=rng.integers(2, 4, 6)
    )
    theta = torch.as_tensor(rng.standard_normal((4, 6)))
    solutions = mapgrad.get_solver(solver, program).solve(theta)
    assert program.contains(solutions.z).all()
    best = (np.asarray(theta) @ points(program).T).max(axis=1)
    np.testing.assert_allclose(solutions.objective, best, rtol=0, atol=1e-9)


@each_solver
@pytest.mark.parametrize("gap", [1e-6, 1e-8, 2e-9])
def test_the_second_best_is_never_taken_for_the_best(solver: str, gap: float) -> None:
    for seed in (1, 2):
        program, rng = knapsack(seed), np.random.default_rng(seed)
        theta = rng.integers(4, 8, (4, 12)) / 8 + gap * rng.integers(-9, 10, (4, 12))
        solutions = mapgrad.get_solver(solver, program).solve(torch.as_tensor(theta))
        np.testing.assert_allclose(solutions.objective, (theta @ points(program).T).max(axis=1), rtol=0, atol=1e-9)


@each_solver
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_rows_are_kept_to_the_last_digit_whatever_their_scale(solver: str, scale: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        weights, wanted = rng.random((2, 12)), rng.integers(0, 2, 12)
        program = mapgrad.IntegerProgram(A_ub=scale * weights, b_ub=scale * (weights @ wanted - [1e-7, 2e-8]))
        theta = 2.0 * wanted - 1
        z = mapgrad.get_solver(solver, program)(torch.as_tensor(theta))
        assert program.contains(z)
        assert float(z @ torch.as_tensor(theta)) == (points(program) @ theta).max() < wanted.sum()


@each_solver
@pytest.mark.parametrize("exponent", [-40, 40])
def test_tiny_and_huge_utilities_get_the_same_answers(solver: str, exponent: int) -> None:
    theta = torch.as_tensor(np.random.default_rng(1).standard_normal((3, 12)))
    solve = mapgrad.get_solver(solver, knapsack(0))
    assert torch.equal(solve(theta * 2.0**exponent), solve(theta))


@each_solver
def test_continuous_variables_keep_their_fractions_and_integers_have_none(solver: str) -> None:
    program = mapgrad.IntegerProgram(A_ub=[[2, 1, 0], [0, 1, 3]], b_ub=[3.25, 7.5], upper=5, integrality=[1, 0, 1])
    solutions = mapgrad.get_solver(solver, program).solve(torch.tensor([1.0, 0.9, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(solutions.z, [1, 1.25, 2], rtol=0, atol=1e-9)
    assert solutions.z[[0, 2]].tolist() == [1, 2]


@each_solver
def test_linear_programs_end_at_a_vertex(solver: str) -> None:
    program = mapgrad.IntegerProgram(A_ub=[[1, 2]], b_ub=[1.7], upper=[1, np.inf], integrality=0)
    solutions = mapgrad.get_solver(solver, program).solve(torch.tensor([[1.0, 1.0], [0.5, 1.0]], dtype=torch.float64))
    np.testing.assert_allclose(solutions.z[0], [1, 0.35], rtol=0, atol=1e-9)
    np.testing.assert_allclose(solutions.objective, [1.35, 0.85], rtol=0, atol=1e-9)


@each_solver
def test_variables_that_count_nowhere_keep_nothing_of_the_row_before(solver: str) -> None:
    program = mapgrad.IntegerProgram(A_ub=[[1, 1, 0, 0]], b_ub=[1], lower=[0, 0, -3, 2], upper=[1, 1, 5, 4])
    kept = mapgrad.get_solver(solver, program)
    assert kept(torch.tensor([1.0, 0.5, 1.0, 1.0])).tolist() == [1, 0, 5, 4]
    fresh = mapgrad.get_solver(solver, program)
    for row in ([0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]):
        theta = torch.tensor(row)
        assert kept(theta).tolist() == fresh(theta).tolist()


@each_solver
@pytest.mark.parametrize(
    "program",
    [
        mapgrad.IntegerProgram(A_ub=[[-1, -1]], b_ub=[-3]),
        mapgrad.IntegerProgram(A_ub=[[-1, -1]], b_ub=[-3], integrality=0),
        mapgrad.IntegerProgram(A_eq=[[2, 2]], b_eq=[3]),
        mapgrad.IntegerProgram(A_eq=[[1, 1], [4, 0]], b_eq=[1, 1]),  # CBC 2.935 reports a solution of this
        mapgrad.IntegerProgram(A_eq=[[2, -2]], b_eq=[1], upper=np.inf),  # to HiGHS, unbounded or infeasible
        mapgrad.IntegerProgram(A_ub=[[0, 0]], b_ub=[-1]),
    ],
)
def test_an_empty_set_is_infeasible(solver: str, program: mapgrad.IntegerProgram) -> None:
    with pytest.raises(mapgrad.InfeasibleError) as caught:
        mapgrad.get_solver(solver, program)(torch.tensor([[0.0, 0.0], [1.0, 0.5]]))
    assert caught.value.rows == (0, 1)


@each_solver
@pytest.mark.parametrize(
    "program",
    [
        mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[1], upper=np.inf),
        mapgrad.IntegerProgram(A_ub=[[1, -1]], b_ub=[1], upper=np.inf, integrality=0),
        mapgrad.IntegerProgram(lower=[0, 0], upper=np.inf),
        mapgrad.IntegerProgram(lower=[-np.inf, 0], upper=[np.inf, 1], integrality=[0, 1]),
    ],
)
def test_growth_without_limit_is_unbounded_and_other_rows_are_answered(
    solver: str, program: mapgrad.IntegerProgram
) -> None:
    with pytest.raises(mapgrad.UnboundedError) as caught:
        mapgrad.get_solver(solver, program)(torch.tensor([[0.0, -1.0], [1.0, 0.5]]))
    assert caught.value.rows == (1,)
    assert caught.value.solutions is not None
    assert caught.value.solutions.status.tolist() == [mapgrad.Status.OPTIMAL, mapgrad.Status.UNBOUNDED]


@each_solver
def test_an_incumbent_is_never_called_optimal(solver: str) -> None:
    weights = np.random.default_rng(3).integers(50, 100, (30, 100))
    program, theta = mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2), torch.tensor(weights.mean(0))
    with pytest.raises(mapgrad.SolveTimeoutError):
        mapgrad.get_solver(solver, program, time_limit=1e-9)(theta)
    solutions = mapgrad.get_solver(solver, program, time_limit=0.5, on_error="incumbent").solve(theta)
    assert solutions.status == mapgrad.Status.TIME_LIMIT
    assert program.contains(solutions.z)
    assert solutions.seconds < 4


@pytest.mark.parametrize("solver", [Cbc, HiGHS])
def test_a_linear_program_out_of_time_is_not_optimal(solver: type[mapgrad.InstanceSolver]) -> None:
    out_of_time = solver(mapgrad.IntegerProgram(A_ub=[[1, 1], [-1, -1]], b_ub=[1.5, -0.5], integrality=0))
    out_of_time.time_limit = 1e-9
    answer = out_of_time.solve(out_of_time.init(), np.array([0.75, 0.5]))
    assert answer == mapgrad.Solution(None, mapgrad.Status.TIME_LIMIT)


@each_solver
def test_any_problem_is_solved_by_its_program(solver: str) -> None:
    problem = mapgrad.Assignment(3, 4)
    theta = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 3, 4)))
    assert torch.equal(mapgrad.get_solver(solver, problem)(theta), mapgrad.get_solver("networkx", problem)(theta))


@each_solver
def test_nothing_is_printed_and_no_file_is_left(
    solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(name, str(tmp_path))
    mapgrad.get_solver(solver, knapsack(0), workers=2)(torch.rand(4, 12))
    with pytest.raises(mapgrad.InfeasibleError):
        mapgrad.get_solver(solver, mapgrad.IntegerProgram(A_ub=[[-1, -1]], b_ub=[-3]))(torch.zeros(2))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


INTERRUPTED = """
import os, warnings
import numpy as np, torch, mapgrad
warnings.simplefilter("error")
weights = np.random.default_rng(3).integers(50, 100, (30, 100))
solver = mapgrad.get_solver("pulp.cbc", mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2))
try:
    solver(torch.tensor(weights.mean(0)))
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no process left")
"""


@pytest.mark.skipif(os.name != "posix", reason="a single process is interrupted by a signal, which only POSIX has")
def test_an_interrupt_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(tmp_path))}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.mps")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)  # CBC is at work by then
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    assert output.splitlines() == ["interrupted", "no process left"]
    assert list(tmp_path.iterdir()) == []


def test_without_the_binary_of_cbc_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbcbox", None)
    with pytest.raises(
        mapgrad.MissingDependencyError, match=r"needs cbcbox, which isn't installed: pip install 'mapgr"
    ):
        mapgrad.get_solver("pulp.cbc", knapsack(0))
    assert mapgrad.get_solver("pulp", knapsack(0)).name == "pulp.highs"
