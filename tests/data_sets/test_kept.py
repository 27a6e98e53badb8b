"""Solved data sets on disk: found again where all is equal, and never trusted."""

import logging

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.data import OptDataset, _dataset, _kept
from mapgrad.solutions import Solutions, Status

PROBLEM = mapgrad.KSubset(6, 2)
COSTS = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep every data set, however fast it was solved, in a folder of this test."""
    monkeypatch.setenv("MAPGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_kept, "_SLOW", -1.0)
    return tmp_path / "datasets"


def made(costs=COSTS, solver="topk", problem=PROBLEM, **arguments):
    minimize = arguments.pop("minimize", True)
    made_solver = mapgrad.get_solver(solver, problem, **arguments)
    return OptDataset(made_solver, torch.zeros(len(costs), 1), costs, minimize=minimize)


def same(one, other):
    return all(
        torch.equal(mine, theirs) and mine.dtype == theirs.dtype
        for mine, theirs in ((one.states, other.states), (one.values, other.values))
    )


def only_file(folder):
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def no_solves(monkeypatch):
    """Return a function after which nothing may be solved."""

    def begin():
        monkeypatch.setattr(_dataset, "solve_parts", lambda *_, **__: pytest.fail("solved again"))

    return begin


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_equal_data_set_is_not_solved_again(folder, no_solves, dtype):
    first = made(COSTS.to(dtype))
    assert only_file(folder).suffix == ".npz"
    no_solves()
    assert same(first, made(COSTS.to(dtype)))
    assert same(first, made(COSTS.to(dtype), problem=mapgrad.KSubset(6, 2)))
    opposite = made(-COSTS.to(dtype), minimize=False)
    assert torch.equal(opposite.states, first.states)
    assert torch.equal(opposite.values, -first.values)


def test_what_differs_has_a_file_of_its_own(folder):
    other = COSTS.clone()
    other[3, 2] += 1e-6
    made(), made(other), made(COSTS[:-1]), made(COSTS.double()), made(-COSTS), made(COSTS, minimize=False)
    made(problem=mapgrad.KSubset(6, 3)), made(solver="highs"), made(COSTS.reshape(8, 6)[:, [1, 0, 2, 3, 4, 5]])
    assert len(list(folder.iterdir())) == 8  # −costs to be minimised are the costs to be maximised


def test_rows_of_two_dimensions(folder, no_solves):
    grid = mapgrad.GridShortestPath(3, 4)
    costs = torch.rand(5, 3, 4)
    first = made(costs, "auto", grid)
    no_solves()
    assert same(first, made(costs, "auto", grid))


class Tops(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        z = np.zeros_like(theta)
        z[np.argsort(-theta)[:2]] = 1
        return z


class Own(mapgrad.KSubset):
    """A problem whose code may change while its arguments stay."""


class Guess(Tops):
    traits = mapgrad.Traits(exact=False)


def test_what_may_change_without_another_name_is_not_kept(folder):
    made(solver=Tops), made(problem=Own(6, 2), solver="highs")
    solver = mapgrad.get_solver("topk", None)
    OptDataset(solver, COSTS, COSTS, problems=[PROBLEM] * 8)
    OptDataset(lambda theta: torch.ones_like(theta), COSTS, COSTS)
    assert not folder.exists()


def test_heuristics_are_not_kept(folder):
    @mapgrad.hookimpl
    def mapgrad_solvers():
        return [mapgrad.SolverSpec(name="guess", factory=Guess, accepts=(mapgrad.KSubset,), install="")]

    plugin = type("Plugin", (), {"mapgrad_solvers": staticmethod(mapgrad_solvers)})()
    mapgrad.register(plugin, "guessing")
    try:
        made(solver="guessing.guess")
    finally:
        mapgrad.unregister("guessing")
    assert not folder.exists()


@pytest.mark.parametrize("status", [Status.FEASIBLE, Status.TIME_LIMIT])
def test_answers_without_a_proof_are_not_kept(folder, status):
    statuses = torch.full((8,), int(Status.OPTIMAL))
    statuses[5] = int(status)
    _kept.save("key", Solutions(COSTS, statuses, COSTS[:, 0].double()))
    assert not folder.exists()


def test_quick_ones_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(_kept, "_SLOW", 60.0)
    made()
    assert not folder.exists()


def test_an_empty_name_keeps_nothing(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("MAPGRAD_CACHE_DIR", "")
    assert same(made(), made())
    assert not list(tmp_path.iterdir())


def altered(**changes):
    """Return what writes a file with some arrays changed."""

    def write(path):
        with np.load(path) as file:
            arrays = {name: file[name].copy() for name in file.files}
        np.savez(path, **arrays | {name: change(arrays[name]) for name, change in changes.items()})

    return write


def flipped(path):
    content = bytearray(path.read_bytes())
    with np.load(path) as file:
        place = content.index(file["states"].tobytes())
    content[place + 3] ^= 64
    path.write_bytes(content)


def with_nan(array):
    array.flat[1] = np.nan
    return array


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        flipped,
        lambda path: np.savez(path, other=np.zeros(3)),
        lambda path: np.savez(path, states=np.array([{}], dtype=object), allow_pickle=True),
        altered(key=lambda _: np.array("another")),
        altered(states=lambda array: array[:-1]),
        altered(states=lambda array: array.astype(np.float64)),
        altered(states=with_nan),
        altered(objective=with_nan),
        altered(objective=lambda array: array[:, None]),
        altered(objective=lambda array: array.astype(np.float32)),
    ],
)  # fmt: skip
def test_damaged_and_foreign_files_are_replaced(folder, damage, caplog, no_solves):
    first = made()
    path = only_file(folder)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    with caplog.at_level(logging.WARNING, "mapgrad"):
        assert same(first, made())
    assert f"{path} isn't used and will be written anew" in caplog.text
    caplog.clear()
    no_solves()
    assert same(first, made())
    assert not caplog.records
    assert only_file(folder) == path
