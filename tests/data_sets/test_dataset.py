"""`OptDataset` holds the optimal states of its costs, or says which rows have none."""

import doctest
import itertools
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mapgrad
import mapgrad.data
from mapgrad import exact
from mapgrad.data import Examples, OptDataset, ShortestPathTask, _dataset, _solving

GRID = mapgrad.GridShortestPath(3, 3)
PICK = mapgrad.KSubset(5, 2)
PROBLEMS = [PICK, GRID, ShortestPathTask(height=3, width=3).problem, mapgrad.Knapsack([[3, 4, 5, 6]], [10])]


def rows_of(problem, count=12, dtype=torch.float32, seed=0):
    return torch.rand(count, *problem.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def made(problem=PICK, costs=None, **arguments):
    costs = rows_of(problem) if costs is None else costs
    return OptDataset(mapgrad.get_solver("auto", problem), torch.zeros(len(costs), 2), costs, **arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("minimize", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_states_and_values_are_those_of_enumeration(problem, minimize, dtype):
    costs = rows_of(problem, dtype=dtype)
    if problem is GRID and not minimize:
        costs = -costs
    data = made(problem, costs, minimize=minimize)
    values = costs.double().flatten(1) @ exact.enumerate_states(problem).flatten(1).T
    best, place = (values.min if minimize else values.max)(dim=1)
    assert torch.equal(data.states, exact.enumerate_states(problem)[place].to(dtype))
    torch.testing.assert_close(data.values, best.to(dtype))
    assert data.costs is costs
    assert data.minimize is minimize


def test_what_the_costs_do_not_price_counts_in_the_values():
    program = mapgrad.IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[1], decision=[0, 1], fixed=[0.5])
    costs = torch.tensor([[-1.0, 2.0], [3.0, 4.0]])
    data = made(program, costs, minimize=True)
    assert data.states.tolist() == [[1, 0], [0, 0]]
    assert data.values.tolist() == [-1, -0.5]


def test_a_loader_gives_batches_with_names():
    data = made(GRID, minimize=True)
    batches = [*DataLoader(data, batch_size=5)]
    assert all(isinstance(batch, Examples) for batch in batches)
    assert [len(batch.values) for batch in batches] == [5, 5, 2]
    for name in Examples._fields:
        assert torch.equal(torch.cat([getattr(batch, name) for batch in batches]), getattr(data, name))


def test_rows_are_found_by_whatever_finds_rows_of_a_tensor():
    data = made()
    assert len(data) == 12
    assert torch.equal(data[3].states, data.states[3])
    assert data[3].values.shape == ()
    assert torch.equal(data[2:4].costs, data.costs[2:4])
    assert torch.equal(data[[5, 1]].features, data.features[[5, 1]])
    with pytest.raises(IndexError):
        data[12]


def test_it_is_pickled_and_takes_arrays():
    data = made(costs=rows_of(PICK).numpy())
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.states, data.states)
    assert torch.equal(data.states, made().states)


@pytest.mark.parametrize("progress", [False, True])
def test_no_rows_are_no_failure(progress):
    data = made(costs=torch.empty(0, 5), progress=progress)
    assert len(data) == 0
    assert data.states.shape == (0, 5)
    assert data.values.shape == (0,)


def test_no_gradient_flows():
    costs = rows_of(PICK).requires_grad_()
    data = made(costs=costs)
    assert not data.states.requires_grad
    assert not data.values.requires_grad


def test_half_precision():
    data = made(costs=rows_of(PICK).half(), minimize=True)
    assert data.states.dtype == data.values.dtype == torch.float16
    assert (data.states.sum(dim=1) == 2).all()


def test_workers_share_the_rows():
    costs = rows_of(GRID, 20)
    with mapgrad.get_solver("networkx.shortest_path", GRID, workers=2) as solver:
        data = OptDataset(solver, torch.zeros(20, 1), costs, minimize=True, progress=True)
    assert torch.equal(data.states, made(GRID, costs, minimize=True).states)


def test_rows_may_have_problems_of_their_own():
    problems = [mapgrad.KSubset(5, 1 + row % 3) for row in range(12)]
    solver = mapgrad.get_solver("auto", None)
    for progress in (False, True):
        data = OptDataset(solver, torch.zeros(12, 1), rows_of(PICK), problems=problems, progress=progress)
        assert data.states.sum(dim=1).tolist() == [problem.k for problem in problems]
        torch.testing.assert_close(data.values, (data.states * data.costs).sum(dim=1))


def test_a_function_stands_in_for_a_solver():
    def largest(theta):
        return (theta == theta.amax(dim=1, keepdim=True)).to(theta)

    data = OptDataset(largest, torch.zeros(12, 1), rows_of(PICK), minimize=True)
    assert torch.equal(data.states.argmax(dim=1), data.costs.argmin(dim=1))
    torch.testing.assert_close(data.values, data.costs.amin(dim=1))


def test_a_heuristic_answers_too():
    class First(mapgrad.InstanceSolver):
        traits = mapgrad.Traits(exact=False)

        def solve(self, state, theta, request):
            return np.array([1.0, 1, 0, 0, 0])

    data = OptDataset(mapgrad.get_solver(First, PICK), torch.zeros(12, 1), rows_of(PICK))
    assert (data.states == torch.tensor([1.0, 1, 0, 0, 0])).all()


def test_forbidden_entries_are_left_out():
    costs = rows_of(PICK)
    costs[:, 1] = torch.inf
    data = made(costs=costs, minimize=True)
    assert not data.states[:, 1].any()
    assert data.values.isfinite().all()


@pytest.mark.parametrize("progress", [False, True])
def test_failed_rows_are_named_and_lose_no_others(progress, monkeypatch):
    monkeypatch.setattr(_solving, "_ROWS", 2)
    costs = rows_of(PICK, 9)
    costs[4, :4] = costs[7, 1:] = torch.inf
    with pytest.raises(mapgrad.InfeasibleError, match=r"rows 4, 7 \(2 of 9\)") as caught:
        made(costs=costs, minimize=True, progress=progress)
    assert caught.value.rows == (4, 7)
    solutions = caught.value.solutions
    assert solutions.mask.tolist() == [row not in (4, 7) for row in range(9)]
    kept = solutions.mask
    assert torch.equal(solutions.z[kept], made(costs=costs[kept], minimize=True).states)


def test_what_a_solver_raised_is_chained(monkeypatch):
    monkeypatch.setattr(_solving, "_ROWS", 2)

    class Fails(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if theta[0] > 0:
                raise RuntimeError("no luck")
            return np.array([1.0, 1, 0, 0, 0])

    costs = -torch.ones(5, 5)
    costs[3, 0] = 1
    with pytest.raises(mapgrad.SolverCrashError, match=r"row 3 \(1 of 5\).*no luck") as caught:
        OptDataset(mapgrad.get_solver(Fails, PICK), torch.zeros(5, 1), costs, progress=True)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [*caught.value.solutions.causes] == [3]


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("policy", ["nan", "zero_grad"])
def test_failed_rows_that_raise_nothing_are_nan(policy, progress):
    costs = rows_of(PICK, 4)
    costs[2, 1:] = torch.inf
    solver = mapgrad.get_solver("topk", PICK, on_error=policy)
    with pytest.warns(UserWarning, match="1 of 4 rows"):
        data = OptDataset(solver, torch.zeros(4, 1), costs, minimize=True, progress=progress)
    assert data.states[2].isnan().all()
    kept = data.values.isfinite()
    assert kept.tolist() == [True, True, False, True]
    assert torch.equal(data.states[kept], made(costs=costs[kept], minimize=True).states)


@pytest.mark.parametrize("progress", [False, True])
def test_rows_with_nan_are_refused_by_number(progress, monkeypatch):
    monkeypatch.setattr(_solving, "_ROWS", 2)
    costs = rows_of(PICK, 9)
    costs[6, 0] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="row 6") as caught:
        made(costs=costs, progress=progress)
    assert caught.value.rows == (6,)
    with pytest.raises(mapgrad.NonFiniteError, match="row 6"):
        OptDataset(mapgrad.get_solver("auto", None), costs, costs, problems=[PICK, mapgrad.KSubset(5, 1)] * 4 + [PICK])


def test_costs_outside_of_the_domain_are_refused_and_never_clipped():
    costs = rows_of(GRID)
    costs[5, 0, 0] = -0.1
    with pytest.raises(mapgrad.DomainError, match=r"θ ≤ 0 only.*row 5 .*non-negative") as caught:
        made(GRID, costs, minimize=True)
    assert caught.value.rows == (5,)
    with pytest.raises(mapgrad.DomainError, match="minimize=True"):
        made(GRID)
    solver = mapgrad.get_solver("auto", None)
    with pytest.raises(mapgrad.DomainError, match="row 5") as caught:
        OptDataset(solver, costs, costs, minimize=True, problems=[mapgrad.GridShortestPath(3, 3)] * 12)
    assert caught.value.rows == (5,)


@pytest.mark.parametrize(
    ("features", "costs", "error", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 5), mapgrad.ShapeError, r"one row each .* shapes \(3, 2\) and"),
        (torch.tensor(0.0), torch.zeros(4, 5), mapgrad.ShapeError, "one row each"),
        (torch.zeros(5, 2), torch.zeros(5), mapgrad.ShapeError, "one row each"),
        (torch.zeros(4, 2), torch.zeros(4, 6), mapgrad.ShapeError, "has shape"),
        (torch.zeros(2, 2), torch.zeros(2, 3, 5), mapgrad.ShapeError, r"rows \[N, \*shape\].*got \(2, 3, 5\)"),
        (torch.zeros(2, 2), torch.zeros(2, 5, dtype=torch.int64), mapgrad.ShapeError, "floating-point"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_named(features, costs, error, message):
    with pytest.raises(error, match=message):
        OptDataset(mapgrad.get_solver("topk", PICK), features, costs)


def test_what_is_not_a_solver_is_refused():
    for solver in ("topk", PICK, mapgrad.Solver, None):
        with pytest.raises(TypeError, match="make one with mapgrad"):
            OptDataset(solver, torch.zeros(1, 1), torch.zeros(1, 5))
    with pytest.raises(TypeError, match="without a problem"):
        OptDataset(mapgrad.get_solver("topk", None), torch.zeros(1, 1), torch.zeros(1, 5))
    with pytest.raises(mapgrad.ShapeError, match="1 problems for 2 rows"):
        OptDataset(mapgrad.get_solver("topk", None), torch.zeros(2, 1), torch.zeros(2, 5), problems=[PICK])


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_the_bar_changes_no_answer(problem, monkeypatch, capsys):
    monkeypatch.setattr(_solving, "_ROWS", 5)
    plain, shown = (made(problem, minimize=True, progress=progress) for progress in (False, True))
    assert torch.equal(plain.states, shown.states)
    assert torch.equal(plain.values, shown.values)
    out, err = capsys.readouterr()
    assert out == ""
    assert "12/12" in err


def test_parts_are_at_most_a_hundred_and_not_small():
    for count in (1, 63, 64, 65, 1000, 100_001):
        parts = [*itertools.chain.from_iterable([_solving._with_bar(count)])]
        assert [parts[0].start, parts[-1].stop] == [0, count]
        assert all(one.stop == other.start for one, other in itertools.pairwise(parts))
        assert len(parts) <= 100
        assert all(part.stop - part.start >= 64 for part in parts[:-1])


def test_the_bar_ends_whatever_is_raised(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_dataset.Solver, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        made(progress=True)
    assert caught.tb  # keeps the frames that it came through
    for thread in threading.enumerate():
        if "rich" in type(thread).__module__:  # told to stop, it still waits for its next turn
            thread.join(5)
            assert not thread.is_alive()


def test_a_bar_without_rich_is_refused_before_anything_is_solved(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    monkeypatch.setattr(_dataset.Solver, "solve", lambda *_: pytest.fail("solved"))
    with pytest.raises(mapgrad.MissingDependencyError, match="pip install 'mapgrad\\[cli\\]'"):
        made(progress=True)


def test_nothing_heavy_is_imported_without_a_bar():
    code = (
        "import sys, torch, mapgrad\nfrom mapgrad.data import OptDataset\n"
        "solver = mapgrad.get_solver('topk', mapgrad.KSubset(3, 1))\n"
        "OptDataset(solver, torch.zeros(2, 1), torch.rand(2, 3))\n"
        "assert not {'rich', 'scipy', 'networkx', 'ortools'} & sys.modules.keys(), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["mapgrad.data", "mapgrad.data._dataset"])
def test_the_examples_of_the_docstrings(module):
    results = doctest.testmod(sys.modules[module])
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", ["minimize", "progress"])
def test_switches_are_bools(name):
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(3, 1))
    with pytest.raises(TypeError, match=f"{name} must be True or False, got -1"):
        mapgrad.data.OptDataset(solver, torch.zeros(2, 4), torch.eye(2, 3), **{name: -1})
