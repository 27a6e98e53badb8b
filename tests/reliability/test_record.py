"""Rows in files: what is written of rows that fail, what comes when they are solved once more, what it never costs."""

import json
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.recording import RECORDERS, read_row

SUBSET = mapgrad.KSubset(4, 1)
INFEASIBLE = mapgrad.IntegerProgram(A_eq=[[2.0, 2.0]], b_eq=[1.0])
UNBOUNDED = mapgrad.IntegerProgram(A_ub=[[1.0, -1.0]], b_ub=[0.0], upper=np.inf)

MODULE = """
import os
import threading

import numpy as np

import mapgrad

over = threading.Event()  # by which threads that hang end with their test


class Raises(mapgrad.InstanceSolver):
    \"\"\"The largest entry; a row whose largest is the first one fails.\"\"\"

    def __init__(self, problem, gap=0.5, tolerances=(1.0,), hook=None):
        super().__init__(problem)

    def solve(self, state, theta, request):
        return np.eye(4)[theta.argmax()] if theta.argmax() else self.fail()

    def fail(self):
        raise RuntimeError("out of sorts")


class Hangs(Raises):
    def fail(self):
        over.wait(20)


class Dies(Raises):
    def fail(self):
        os._exit(3)


class Limited(Raises):
    def fail(self):
        return mapgrad.Solution(np.eye(4)[1], mapgrad.Status.TIME_LIMIT)


class Own(mapgrad.Problem):
    \"\"\"One of n.\"\"\"

    def __init__(self, n, names=()):
        self.n, self.names = n, names

    shape = property(lambda self: (self.n,))
    kappa = 1.0

    def is_state(self, z):
        return z.sum() == 1


class Broken(Own):
    def to_ilp(self):
        raise MemoryError("a trillion rows")


@mapgrad.hookimpl
def mapgrad_solvers():
    return [mapgrad.SolverSpec(name="raises", factory=f"{__name__}:Raises", accepts=(mapgrad.KSubset,))]


def largest(theta):
    if (theta.argmax(dim=1) == 0).any():
        raise RuntimeError("out of sorts")
    return theta * 0
"""


@pytest.fixture(scope="module")
def solvers(import_source):
    module = import_source("recorded_solvers", MODULE)
    yield module
    module.over.set()


@pytest.fixture(autouse=True)
def quiet():
    """Rows that fail warn once for each solver."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* has no acceptable answer")
        yield
    assert RECORDERS.active is None


def theta(*best):
    """Return rows whose largest entries are at these places."""
    found = torch.rand(len(best), 4, generator=torch.Generator().manual_seed(0))
    found[range(len(best)), list(best)] += 5.0
    return found


def rows_in(folder):
    return sorted(Path(folder).glob("*.json"))


def facts_of(path):
    return json.loads(path.read_text())


KINDS = {
    "infeasible": ("highs", INFEASIBLE, {}, "INFEASIBLE"),
    "unbounded": ("highs", UNBOUNDED, {}, "UNBOUNDED"),
    "raises": ("Raises", SUBSET, {}, "ERROR"),
    "raises in a thread": ("Raises", SUBSET, {"workers": 2}, "ERROR"),
    "time limit": ("Limited", SUBSET, {"time_limit": 0.5}, "TIME_LIMIT"),
    "deadline": ("Hangs", SUBSET, {"deadline": 0.3}, "TIME_LIMIT"),
    "deadline of a process": ("Hangs", SUBSET, {"deadline": 0.3, "workers": "processes:1"}, "TIME_LIMIT"),
    "dies": ("Dies", SUBSET, {"workers": "processes:2"}, "ERROR"),
    "raises, ignored": ("Raises", SUBSET, {"on_error": "nan"}, "ERROR"),
    "time limit, accepted": ("Limited", SUBSET, {"on_error": "incumbent"}, "TIME_LIMIT"),
    "raises, answered by another": ("Raises", SUBSET, {"on_error": "fallback:topk"}, "ERROR"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_failing_row_is_written_and_comes_again(kind, solvers, tmp_path):
    name, problem, how, status = KINDS[kind]
    given = getattr(solvers, name, name)
    rows = theta(1, 2, 0) if problem is SUBSET else torch.ones(1, 2)
    with mapgrad.record(tmp_path) as recorder, mapgrad.get_solver(given, problem, **how) as solver:
        raised = pytest.raises(mapgrad.RowsError) if how.get("on_error", "raise") == "raise" else nullcontext()
        with raised:
            solver(rows)
    (path,) = rows_in(tmp_path)
    assert recorder.written == 1
    facts = facts_of(path)
    assert (facts["status"], facts["row"], facts["rows"]) == (status, len(rows) - 1, len(rows))
    assert facts["solver"]["label"].startswith(name)
    assert {"python", "mapgrad", "torch", "numpy"} <= facts["versions"].keys()
    assert ("highspy" in facts["versions"]) == (name == "highs")
    again = mapgrad.replay(path, modules=["recorded_solvers"])
    assert again.is_same
    assert again.has_same_state
    assert np.array_equal(again.row.theta, rows[-1].numpy())
    assert again.row.problem == problem
    assert again.cause == again.row.cause
    assert (again.row.z is not None) == (name == "Limited")
    if problem is SUBSET:
        other = mapgrad.replay(path.with_suffix(".npz"), "topk")
        assert not other.is_same
        assert (other.status, other.objective) == (mapgrad.Status.OPTIMAL, pytest.approx(float(rows[-1].max())))


def test_no_file_needs_pickle(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")(theta(0))
        mapgrad.get_solver("highs", INFEASIBLE, on_error="nan")(torch.ones(1, 2))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz", ".mps", ".py"}
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype.kind in "biuf" for name in file.files)
    for path in tmp_path.glob("*.py"):
        assert "mapgrad" not in re.sub("#.*", "", path.read_text())


def edges(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


PROBLEMS = [
    SUBSET,
    mapgrad.Assignment(2, 3),
    mapgrad.GridShortestPath(3, 3, neighbors=4),
    mapgrad.ShortestPath(3, [(0, 1), (1, 2), (0, 2)], 0, 2),
    mapgrad.Knapsack([[1.0, 2.0, 3.0]], [4.0]),
    mapgrad.SpanningTree(4, edges(4)),
    mapgrad.Matching(4, edges(4), cardinality="maximum"),
    mapgrad.TravelingSalesman(4),
    mapgrad.Arborescence(3, [(0, 1), (1, 2), (0, 2), (2, 1)], 0),
    mapgrad.IntegerProgram(A_ub=[[1.0, 2, 3, 4]], b_ub=[6], upper=[1, 2, 1, 1], decision=[3, 0], fixed=[0.5, -1.0]),
    mapgrad.IntegerProgram.from_rows([[1.0, 2, 3, 4]], [2.5], [6], integrality=[1, 0, 1, 0], upper=2, shape=(2, 2)),
    mapgrad.IntegerProgram(
        A_ub=[[1.0, 1, 1, 1]],
        b_ub=[3.5],
        lower=[0, 0, 1, 0],
        upper=[1, 2, 3, 3],
        integrality=[1, 1, 0, 1],
        semicontinuous=[0, 0, 1, 0],
        sos=[(1, [1, 2], [1.0, 2.0])],
        indicators=[(0, 1, [0.0, 0, 0, 1], -np.inf, 2.0)],
    ),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_every_problem_comes_back_and_its_mps_file_has_the_rows_optimum(problem, tmp_path):
    draw = torch.Generator().manual_seed(1)
    rows = torch.randn((2, *problem.shape), generator=draw, dtype=torch.float64)
    rows = -rows.abs() if problem.domain is mapgrad.Domain.NONPOSITIVE else rows
    with mapgrad.record(tmp_path, failing=False):
        found = mapgrad.get_solver("highs", problem).solve(rows)
    assert len(rows_in(tmp_path)) == 2
    for path in rows_in(tmp_path):
        row = read_row(path)
        assert row.problem == problem
        assert row.problem.digest == problem.digest
        number = facts_of(path)["row"]
        assert np.array_equal(row.theta, rows[number].numpy())
        assert np.array_equal(row.z, found.z[number].numpy())
        assert row.objective == pytest.approx(float(found.objective[number]), abs=1e-9)
        program = mapgrad.IntegerProgram.from_mps(path.with_suffix(".mps"))
        best = mapgrad.get_solver("highs", program).solve(-torch.tensor(program.objective)[None])
        assert float(best.objective) == pytest.approx(row.objective, abs=1e-7)
        again = mapgrad.replay(path)
        assert again.is_same
        assert again.has_same_state


def test_a_program_with_forbidden_entries(tmp_path):
    rows = torch.tensor([[3.0, -torch.inf, 1.0, -torch.inf]])
    program = mapgrad.KSubset(4, 2).to_ilp()
    with mapgrad.record(tmp_path, failing=False):
        mapgrad.get_solver("highs", program)(rows)
        mapgrad.get_solver("highs", mapgrad.KSubset(4, 3).to_ilp(), on_error="zero_grad")(rows)
    for path in rows_in(tmp_path):
        row = mapgrad.replay(path)
        assert row.is_same
        assert row.row.theta.tolist() == rows[0].tolist()
        program = mapgrad.IntegerProgram.from_mps(path.with_suffix(".mps"))
        assert program.upper.tolist() == [1, 0, 1, 0]
        if row.status == mapgrad.Status.OPTIMAL:
            assert row.objective == row.row.objective == 4.0
        else:
            assert mapgrad.replay(path, "scipy.milp").is_same


@pytest.mark.parametrize("engine", ["highs", "scipy.milp", "ortools.mip", "ortools.cp_sat", "pulp.cbc", "diagram"])
def test_the_script_of_a_program_needs_its_engine_alone(engine, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver(engine, INFEASIBLE, on_error="nan")(torch.ones(1, 2))
    (script,) = tmp_path.glob("*.py")
    assert ("HiGHS solves the file here" in script.read_text()) == (engine == "diagram")
    program = f"import runpy, sys; sys.modules['mapgrad'] = None; runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "infeasible" in done.stdout.lower()


def test_the_command_replays_in_another_process(solvers, run_program, tmp_path):
    def command(*arguments):
        program = "import sys; sys.path = [each for each in sys.path if each]; from mapgrad.cli import main; main()"
        done = run_program(
            program, "replay", *arguments, environment={"COLUMNS": "300"}, paths=[Path(solvers.__file__).parent]
        )
        return done.returncode, done.stdout + done.stderr

    with mapgrad.record(tmp_path):
        mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")(theta(0))
        mapgrad.get_solver("highs", INFEASIBLE, on_error="nan")(torch.ones(1, 2))
    own, program = rows_in(tmp_path)
    for arguments, expected, part in (
        ((program, "--solver", "scipy.milp"), 0, "the same came"),
        ((program.with_suffix(".mps"), "--time-limit", "5"), 0, "the same came"),
        ((own, "--solver", "topk"), 1, "something else came"),
        ((own, "--import", "recorded_solvers"), 0, "out of sorts"),
        ((own,), 2, "--import recorded_solvers"),
        ((own, "--solver", "nobody"), 2, "no solver is named"),
        ((tmp_path / "nothing.json",), 2, "there is no file"),
        ((tmp_path,), 2, "there is no file"),
        ((own, "--time-limit", "0"), 2, "--time-limit"),
    ):
        code, said = command(*arguments)
        assert (code, part in said) == (expected, True), said


def test_a_solver_is_found_by_name_in_the_plugin_that_a_module_is(solvers, run_program, tmp_path):
    mapgrad.register(solvers, "moody")
    try:
        with mapgrad.record(tmp_path):
            mapgrad.get_solver("moody.raises", SUBSET, on_error="nan")(theta(0))
    finally:
        mapgrad.unregister("moody")
    (path,) = rows_in(tmp_path)
    for _ in range(2):  # it is registered for the call alone
        found = mapgrad.replay(path, modules=["recorded_solvers"])
        assert (found.solver, found.is_same) == ("moody.raises", True)
        with pytest.raises(mapgrad.UnknownSolverError, match=r"modules=\[…\] or, on the command line, --import"):
            mapgrad.replay(path)
    with pytest.raises(mapgrad.UnknownSolverError, match="moody"):
        mapgrad.get_solver("moody", SUBSET)
    program = "from mapgrad.cli import main; main()"
    done = run_program(program, "replay", path, "--import", "recorded_solvers", paths=[Path(solvers.__file__).parent])
    assert done.returncode == 0, done.stdout + done.stderr


def test_problems_and_functions_of_a_users_own(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        problem = solvers.Own(4, names=("a", frozenset({1, 2}), 2.5, None))
        mapgrad.get_solver(solvers.Raises, problem, on_error="nan")(theta(0))
        mapgrad.MAPLayer(solvers.largest, mapgrad.IMLE(None), on_error="nan")(theta(0))
    of_class, of_function = rows_in(tmp_path)
    assert "stands for no integer program" in facts_of(of_class)["mps"]
    assert facts_of(of_function)["mps"] == "the problem isn't known"
    again = mapgrad.replay(of_class, modules=["recorded_solvers"])
    assert again.is_same
    assert again.row.problem == problem
    again = mapgrad.replay(of_function, modules=["recorded_solvers"])
    assert again.is_same
    assert again.row.problem is None
    for path in (of_class, of_function):
        with pytest.raises(mapgrad.MapgradError, match=r"modules=\['recorded_solvers'\]"):
            mapgrad.replay(path)


def test_a_program_that_can_not_be_made_costs_the_file_of_it_alone(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver(solvers.Raises, solvers.Broken(4), on_error="nan")(theta(0))
    (path,) = rows_in(tmp_path)
    assert facts_of(path)["mps"] == "MemoryError: a trillion rows"
    assert mapgrad.replay(path, modules=["recorded_solvers"]).is_same


def test_a_file_has_nothing_imported_or_called(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver("highs", INFEASIBLE, on_error="nan")(torch.ones(1, 2))
    (path,) = rows_in(tmp_path)
    facts = facts_of(path)
    for name in ("antigravity:nothing", "os:system", "subprocess:Popen"):
        facts["problem"] = {"class": name, "arguments": {"args": ["true"]}}
        path.write_text(json.dumps(facts))
        with pytest.raises(mapgrad.MapgradError, match="imported unasked"):
            mapgrad.replay(path)
    assert "antigravity" not in sys.modules
    for name in ("mapgrad.recording:record", "mapgrad.recording:Recorder"):
        facts["problem"] = {"class": name, "arguments": {"path": str(tmp_path / "made")}}
        path.write_text(json.dumps(facts))
        with pytest.raises(mapgrad.MapgradError, match="isn't a class"):
            mapgrad.replay(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "mapgrad row 1"}', '{"format": "mapgrad row 9"}'])
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "row.json"
    with pytest.raises(FileNotFoundError):
        mapgrad.replay(path)
    path.write_text(damage)
    np.savez(path.with_suffix(".npz"), theta=np.zeros(2))
    with pytest.raises(mapgrad.MapgradError, match=r"row\.json isn't a row that mapgrad\.record wrote"):
        mapgrad.replay(path)
    path.with_suffix(".npz").write_bytes(b"PK")
    with pytest.raises(mapgrad.MapgradError, match=r"row\.json isn't a row"):
        mapgrad.replay(path)


def test_whatever_a_cause_says_is_written(tmp_path):
    said = "\0 no file \udcff \u2028 \f 解 \r\n second line"

    class Fails(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            raise OSError(said)

    with mapgrad.record(tmp_path):
        mapgrad.get_solver(Fails, SUBSET, on_error="nan")(theta(1))
    (path,) = rows_in(tmp_path)
    assert read_row(path).cause == f"OSError: {said}"
    compile(path.with_suffix(".py").read_bytes(), "script", "exec")


def test_arrays_of_the_wrong_size_are_refused_before_they_are_unpacked(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")(theta(0))
    (path,) = rows_in(tmp_path)
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    for name in ("theta", "z", "nobody_asks_for_it"):
        np.savez_compressed(path.with_suffix(".npz"), **{**arrays, name: np.zeros(1 << 22)})
        tracemalloc.start()
        if name in ("theta", "z"):
            with pytest.raises(mapgrad.MapgradError, match=rf"\.json isn't a row .*: {name} is of 33554560 bytes"):
                mapgrad.replay(path, "topk")
        else:
            mapgrad.replay(path, "topk")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()


def test_arrays_of_a_problem_that_are_too_large_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    program = mapgrad.IntegerProgram(A_eq=[[2.0, 2.0]], b_eq=[1.0])
    solver = mapgrad.get_solver("highs", program, on_error="nan")
    with mapgrad.record(tmp_path):
        solver(torch.ones(1, 2))
    (path,) = rows_in(tmp_path)
    monkeypatch.setattr("mapgrad.recording._row._LARGEST", 1 << 20)
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    for name in arrays.keys() - {"theta", "z"}:
        np.savez_compressed(path.with_suffix(".npz"), **{**arrays, name: np.zeros(1 << 22)})
        tracemalloc.start()
        with pytest.raises(mapgrad.MapgradError, match=rf"\.json isn't a row .*: {name} is of 33554560 bytes, where "):
            mapgrad.replay(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
        tracemalloc.stop()
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    assert mapgrad.replay(path).is_same


def test_a_row_that_is_too_large_to_be_read_again_is_not_written(tmp_path, monkeypatch):
    small, large = (mapgrad.IntegerProgram(A_eq=np.full((size, 2), 2.0), b_eq=np.ones(size)) for size in (1, 20_000))
    monkeypatch.setattr("mapgrad.recording._row._LARGEST", 1 << 18)
    solver = mapgrad.get_solver("highs", None, on_error="nan")
    problems = [large, small, small.replace(b_eq=[3.0])]
    with (
        mapgrad.record(tmp_path) as recorder,
        pytest.warns(UserWarning, match=r"can't write all rows .* a row's arrays may take 262144 bytes, and those of"),
    ):
        solver(torch.ones(3, 2), problems=problems)
    assert recorder.written == 2
    assert {read_row(path).problem for path in rows_in(tmp_path)} == {*problems[1:]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta", np.array(["a", "b", "c", "d"])),
        ("theta", np.zeros(4, np.longdouble)),
        ("theta", np.zeros(4, ">f8")),
        ("theta", np.zeros(5)),
        ("theta", np.zeros(10_000)),
        ("z", np.zeros(4, int)),
        ("z", np.zeros(3)),
        ("time_limit", "x"),
        ("time_limit", float("nan")),
        ("deadline", -1),
        ("deadline", True),
        ("objective", [1]),
        ("problem", {"class": "mapgrad.problems:KSubset", "arguments": {"n": 10**12, "k": 1}}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_no_row_has_is_refused(solvers, name, value, tmp_path):
    with mapgrad.record(tmp_path):
        mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")(theta(0))
    (path,) = rows_in(tmp_path)
    facts = facts_of(path)
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    {"theta": arrays, "z": arrays, "objective": facts, "problem": facts}.get(name, facts["solver"])[name] = value
    path.write_text(json.dumps(facts))
    np.savez(path.with_suffix(".npz"), **arrays)
    with pytest.raises(mapgrad.MapgradError, match=rf"\.json isn't a row .*: (theta|{name}) is "):
        mapgrad.replay(path, "topk")


def test_options_come_back_and_those_that_can_not_are_named(solvers, tmp_path):
    with mapgrad.record(tmp_path):
        options = {"gap": np.inf, "tolerances": [0.5, {"a": 1}], "hook": print}
        mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan", **options)(theta(0))
    (path,) = rows_in(tmp_path)
    assert read_row(path).options == {"gap": np.inf, "tolerances": [0.5, {"a": 1}]}
    assert facts_of(path)["solver"]["options_left_out"] == {"hook": repr(print)}


def test_the_same_row_is_written_once_and_only_while_it_is_open(solvers, tmp_path):
    solver = mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan", merge=False)
    solver(theta(0))
    outer = mapgrad.record(tmp_path / "outer")
    solver(theta(0, 1))
    with mapgrad.record(tmp_path / "inner") as inner:
        solver(theta(0).repeat(3, 1))
        solver(theta(0))
    solver(2 * theta(0))
    outer.close()
    outer.close()
    solver(3 * theta(0))
    assert (outer.written, inner.written) == (2, 1)
    assert len(rows_in(tmp_path / "inner")) == 1
    with mapgrad.record(tmp_path / "inner") as inner:
        solver(theta(0))
    assert inner.written == 0


def test_layers_rows_of_their_own_problems_and_backward_passes(solvers, tmp_path):
    estimator = mapgrad.Blackbox(100.0)
    layer = mapgrad.MAPLayer(mapgrad.get_solver(solvers.Raises, None), estimator, on_error="nan")
    rows = theta(3, 0).requires_grad_()
    other = mapgrad.KSubset(4, 2)
    with mapgrad.record(tmp_path) as recorder:
        z = layer(rows, problems=[SUBSET, other])
        assert recorder.written == 1
        (z[0] * torch.tensor([-1.0, 0.0, 0.0, 1.0])).sum().backward()
    assert recorder.written == 2
    assert {read_row(path).problem for path in rows_in(tmp_path)} == {SUBSET, other}


def test_no_more_than_max_bytes(solvers, tmp_path):
    solver = mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")
    rows = torch.tensor([[5.0, 0.0, 0.0, 0.0]]) + torch.arange(60.0)[:, None] / 100
    with (
        mapgrad.record(tmp_path, max_bytes=20_000) as recorder,
        pytest.warns(UserWarning, match="max_bytes=20000 bytes; take another folder, or allow more"),
    ):
        assert solver(rows).isnan().all()
    assert 3 < recorder.written < 30
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in rows_in(tmp_path)}
    assert 10_000 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    before = len(rows_in(tmp_path))
    with mapgrad.record(tmp_path, max_bytes=20_000) as recorder, pytest.warns(UserWarning, match="max_bytes"):
        solver(rows + 100)
    assert len(rows_in(tmp_path)) == before
    for path in rows_in(tmp_path):
        assert mapgrad.replay(path, modules=["recorded_solvers"]).is_same


def test_a_program_that_is_too_large_is_left_out(tmp_path):
    program = mapgrad.IntegerProgram(A_eq=2.0 * np.ones((40, 100)), b_eq=np.ones(40))
    with mapgrad.record(tmp_path, max_bytes=30_000):
        mapgrad.get_solver("highs", program, on_error="nan")(torch.ones(1, 100))
    (path,) = rows_in(tmp_path)
    assert facts_of(path)["mps"] == "the program is larger than what is left of max_bytes"
    assert not [*tmp_path.glob("*.mps"), *tmp_path.glob("*.py")]
    assert mapgrad.replay(path).is_same


def test_what_can_not_be_written_to_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=r"mapgrad\.record can't write to .*name another folder"):
            mapgrad.record(path)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_bytes must be"):
            mapgrad.record(tmp_path, max_bytes=wrong)


def test_a_folder_that_is_lost_costs_a_warning_and_no_row(solvers, tmp_path):
    solver = mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan")
    with mapgrad.record(tmp_path / "lost"):
        shutil.rmtree(tmp_path / "lost")
        (tmp_path / "lost").write_text("")
        with pytest.warns(UserWarning, match="can't write all rows to .*lost: .*Nothing else is said") as told:
            assert solver(theta(0, 1)).isnan().any(dim=1).tolist() == [True, False]
        assert [Path(each.filename) for each in told if "can't write" in str(each.message)] == [Path(__file__)]
        assert solver(theta(0, 2)).isnan().any(dim=1).tolist() == [True, False]


@pytest.mark.parametrize("limit", [100, 700])  # the second is enough for all files of a row but its JSON
def test_a_full_disk_costs_a_warning_and_no_row(solvers, run_program, tmp_path, limit):
    program = """
import resource, signal, sys, warnings
import torch, mapgrad, recorded_solvers
warnings.filterwarnings("ignore", message=".* has no acceptable answer")
solver = mapgrad.get_solver(recorded_solvers.Raises, mapgrad.KSubset(4, 1), on_error="nan")
with mapgrad.record(sys.argv[1]) as recorder, warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # files can't grow beyond, as on a full disk
    for _ in range(2):
        assert solver(torch.eye(4)).isnan().any(dim=1).tolist() == [True, False, False, False]
assert sum("File too large" in str(each.message) for each in told) == 1, told
assert recorder.written == 0
"""
    done = run_program(program, tmp_path / "rows", limit, paths=[Path(solvers.__file__).parent])
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "rows").iterdir()) == []


def test_threads_and_ranks_share_a_folder(solvers, in_child, tmp_path):
    solver = mapgrad.get_solver(solvers.Raises, SUBSET, on_error="nan", merge=False, workers=2)
    rows = torch.tensor([[5.0, 0.0, 0.0, 0.0]]) + torch.arange(24.0)[:, None] / 100

    def solve():
        for part in rows.split(3):
            solver(part)

    def rank():
        with mapgrad.record(tmp_path):
            solve()

    with mapgrad.record(tmp_path):
        ranks = [threading.Thread(target=in_child, args=(rank,)) for _ in range(2)]
        threads = [threading.Thread(target=solve) for _ in range(4)]
        for each in (*ranks, *threads):
            each.start()
        for each in (*ranks, *threads):
            each.join()
    found = rows_in(tmp_path)
    assert len(found) == 24
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz", ".mps", ".py"}
    assert len([*tmp_path.iterdir()]) == 4 * 24
    assert sorted(float(read_row(path).theta[1]) for path in found) == sorted(rows[:, 1].tolist())


def test_it_may_be_on_while_others_are_traced_or_interrupted(solvers, tmp_path):
    layer = mapgrad.MAPLayer(mapgrad.get_solver(solvers.Raises, SUBSET), mapgrad.IMLE(None), on_error="nan").eval()
    with mapgrad.record(tmp_path) as recorder:
        assert torch.func.vmap(layer)(theta(3, 0, 3)).isnan().all(dim=1).tolist() == [False, True, False]
    assert recorder.written == 1


def test_a_row_whose_problem_the_solver_does_not_take(tmp_path):
    problems = [mapgrad.KSubset(4, 1), mapgrad.Assignment(2)]
    solver = mapgrad.get_solver("topk", None, on_error="nan")
    with mapgrad.record(tmp_path):
        solver([torch.ones(4), torch.ones(2, 2)], problems)
    (path,) = rows_in(tmp_path)
    with pytest.raises(mapgrad.UnsupportedProblemError):
        mapgrad.replay(path)
    assert mapgrad.replay(path, "scipy.assignment").objective == 2.0
