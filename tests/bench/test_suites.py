"""Each suite runs, roughly, and says what it couldn't measure."""

import sys
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

import mapgrad
from mapgrad.bench import run_suite
from mapgrad.bench._cases import KERNELS, STEPS, bare_kernel, path, rows_of_step
from mapgrad.bench._clock import QUICK
from mapgrad.bench._fault_peers import rows_lost
from mapgrad.bench._machine import idle_share
from mapgrad.bench._peers import CASES


@cache
def report_of(suite):
    return run_suite(suite, quick=True)


@pytest.mark.parametrize("suite", ["step", "kernels", "road", "threads", "growth", "faults", "soak"])
def test_a_suite_has_figures_and_says_on_what(suite):
    report = report_of(suite)
    assert report.suite == suite
    measured = [row for row in report.rows if row.value]
    assert measured
    for row in measured:
        assert row.value.low <= row.value.median <= row.value.high
        assert row.ratio is None or (row.ratio.median > 0 and row.against)
    keys = [row.key for row in report.rows]
    assert len(keys) == len(set(keys))
    assert {"cpu", "cores", "load", "governor", "quiet"} <= report.machine.keys()
    assert report.versions["torch"] == torch.__version__
    assert report.seeds == {"θ and noise": 0}


def test_a_step_takes_longer_than_its_kernels():
    for row in report_of("step").rows:
        assert row.ratio.median > 1
        assert row.note in {info.name for info in mapgrad.list_solvers()}


def test_kernels_are_those_of_all_solvers_with_their_declared_cost():
    rows = {row.name: row for row in report_of("kernels").rows if row.case == "assignment 10"}
    assert {info.name for info in mapgrad.list_solvers(mapgrad.Assignment(10))} == set(rows)
    row = rows["networkx.assignment"]
    assert row.extra["declared, µs"] == pytest.approx(120)
    assert row.extra["declared ÷ measured"] == pytest.approx(120 / row.value.median)
    assert row.extra["× fastest"] > 1
    assert sum("auto's choice" in row.note for row in rows.values()) == 1
    assert not any("WRONG" in row.note for row in rows.values())


@pytest.mark.skipif(sys.platform != "linux", reason="processes are tested on Linux")
def test_faults_cost_no_other_rows():
    rows = report_of("faults").rows
    assert {row.name for row in rows} == {"inline", "threads:2", "processes:2"}
    assert {row.case for row in rows} == {"a row that raises", "a row that kills its process"}
    assert all(row.extra["other rows lost"] == 0 for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are tested on Linux")
@pytest.mark.parametrize(("fault", "next_lost"), [("raises", 0), ("kills its process", 64)])
def test_what_a_pool_of_the_standard_library_loses(fault, next_lost):
    (row,) = rows_lost(fault, QUICK)
    assert row.name == "concurrent.futures, 2 processes"
    assert (row.value.median == 0) == (fault == "raises")
    assert row.extra["rows of the next batch lost"] == next_lost


@pytest.mark.skipif(sys.platform != "linux", reason="memory can be read on Linux only")
def test_a_soak_counts_what_is_left():
    rows = report_of("soak").rows
    ends = [row for row in rows if row.unit == "bytes more a row"]
    assert [row.name for row in ends] == ["inline", "threads:2", "processes:2"]
    for end in ends:
        sizes = [row.size["rows"] for row in rows if row.name == end.name and row.size]
        assert len(sizes) == 25
        assert sizes[-1] == end.extra["rows solved"] > sizes[0] > 0
        assert 0 < end.extra["rows at fault"] < 0.1 * end.extra["rows solved"]
        assert abs(end.extra["processes more"]) <= 1, "one may just be replaced"


def test_torch_has_its_threads_back():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run_suite("road", quick=True, only=["k-subset"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


class Least(mapgrad.InstanceSolver):
    """Lies: the worst assignment of the identity and its mirror image."""

    def solve(self, state, theta, request):
        one, other = torch.eye(len(theta)).double().numpy(), torch.eye(len(theta)).flip(0).double().numpy()
        return min(one, other, key=lambda z: (theta * z).sum())


class Plugin:
    @mapgrad.hookimpl
    def mapgrad_solvers(self):
        return [
            mapgrad.SolverSpec("least", Least, (mapgrad.Assignment,)),
            mapgrad.SolverSpec("absent", Least, (mapgrad.Assignment,), requires=("no_such_package",), install="get it"),
        ]


def test_wrong_solvers_and_missing_ones_are_named():
    mapgrad.register(Plugin(), "mine")
    try:
        report = run_suite("kernels", quick=True, only=["assignment 10"])
    finally:
        mapgrad.unregister("mine")
    notes = {row.name: row.note for row in report.rows}
    assert "WRONG on " in notes["mine.least"]
    assert notes["mine.absent"] == "needs no_such_package, which isn't installed: get it"
    assert "WRONG" not in notes["scipy.assignment"]


def test_a_case_whose_solvers_are_missing_is_a_row_that_says_so(monkeypatch):
    def missing(problem):
        raise mapgrad.MissingDependencyError("no exact solver is installed")

    monkeypatch.setattr("mapgrad.bench._step.auto", missing)
    report = run_suite("step", quick=True, only=["path 5×5"])
    assert [(row.case, row.value, row.note) for row in report.rows] == [
        ("path 5×5", None, "no exact solver is installed")
    ]


def test_unknown_names_are_refused():
    with pytest.raises(mapgrad.MapgradError, match="there is no suite 'steps': take one of step, kernels"):
        run_suite("steps")
    with pytest.raises(mapgrad.MapgradError, match="no quick case of suite 'step' begins so: take from path 5×5; k-"):
        run_suite("step", quick=True, only=["grid 12"])


def package(name, **attributes):
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(attributes)
    return module


@pytest.fixture
def no_peers(monkeypatch):
    for name in ("pyepo", "imle", "cvxpylayers"):
        monkeypatch.setitem(sys.modules, name, None)


def test_peers_that_arent_installed_are_named(no_peers):
    report = run_suite("peers", quick=True)
    rows = {(row.case, row.name): row for row in report.rows}
    for case in ("path 5×5", "knapsack 16×2"):
        assert rows[case, "mapgrad"].ratio.median > 0
        assert rows[case, "mapgrad, PyEPO's engine"].against == "mapgrad"
        for peer, name in (("PyEPO", "pyepo"), ("torch-imle", "imle"), ("cvxpylayers", "cvxpylayers")):
            assert rows[case, peer].note == f"{name} isn't installed"
            assert rows[case, peer].value is None


def test_peers_that_are_installed_take_part_and_those_that_fail_say_why(no_peers, monkeypatch):
    def layer(model, *, n_samples, sigma, lambd, processes):
        assert (n_samples, sigma, lambd, processes) == (1, 1.0, 10.0, 1)
        return lambda costs: costs * model

    def fails(*arguments, **options):
        raise AttributeError("saved_variables")

    for name, attributes in {
        "pyepo": {},
        "pyepo.model": {"shortestPathModel": lambda size, backend: 2.0},
        "pyepo.func": {"implicitMLE": layer},
        "imle": {},
        "imle.wrapper": {"imle": fails},
        "imle.noise": {"SumOfGammaNoiseDistribution": lambda k, nb_iterations: None},
        "imle.target": {"TargetDistribution": lambda alpha, beta: None},
    }.items():
        monkeypatch.setitem(sys.modules, name, package(name, **attributes))
    report = run_suite("peers", quick=True, only=["path 5×5"])
    rows = {row.name: row for row in report.rows}
    assert rows["PyEPO"].ratio.median < 1
    assert (rows["PyEPO"].against, rows["PyEPO"].judged) == ("mapgrad", False)
    assert rows["torch-imle"].note == "AttributeError: saved_variables"


def test_peers_solve_the_same_problems():
    weights, capacities = CASES[2].model[1:]
    assert CASES[2].case.make() == mapgrad.Knapsack(weights, capacities)


@pytest.mark.parametrize("case", [*STEPS, *KERNELS], ids=lambda case: case.name)
def test_cases_are_problems_with_rows_in_their_domain(case):
    problem, rows = case.make(), case.utilities(2)
    assert problem == case.make()
    assert rows.shape == (2, *problem.shape)
    assert problem.domain.contains(rows).all()


def test_a_step_asks_for_rows_and_the_kernel_solves_them():
    case = path(5)
    solver = mapgrad.get_solver("scipy.shortest_path", case.make())
    rows = rows_of_step(solver, case, case.theta(3))
    assert [each.shape for each in rows] == [(3, 40), (3, 40)]
    assert not torch.equal(*rows)
    bare_kernel(solver.name, case.make(), rows)()


def test_the_share_of_cores_is_a_share():
    assert 0 < idle_share() < 1.1
