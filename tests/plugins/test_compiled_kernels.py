"""How kernels are compiled: late, kept on disk where that can be, beside threads, processes and torch."""

import pickle
import shutil
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mapgrad
import mapgrad_compiled
from mapgrad_compiled._kernels import INDICES, STATES, VALUES
from mapgrad_compiled._lanes import LANES, larger, load, minus, plus, smaller, spread, store
from mapgrad_compiled._paths import ShortestPaths

PROBLEM = mapgrad.GridShortestPath(3, 3)
CLASS = "mapgrad_compiled._paths:ShortestPaths"
SOLVE = """
import logging, sys, torch, mapgrad
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
from mapgrad_compiled import _dags
from mapgrad_compiled._paths import ShortestPaths
problem = {}
mapgrad.get_solver(ShortestPaths, problem)(-torch.ones(4, *problem.shape))
"""
ON_GRID, ON_DAG = (
    SOLVE.format(each) for each in ("mapgrad.GridShortestPath(3, 3)", "mapgrad.ShortestPath(2, [(0, 1)], 0, 1)")
)
"""The first needs two kernels, the second one."""


@pytest.fixture
def run(run_program):
    """Return a function that runs code in a process of its own, where some folders come first on the path."""

    def run(code: str, *, paths: tuple[Path, ...] = (), **environment: str):
        return run_program(textwrap.dedent(code), paths=paths, environment=environment, timeout=300)

    return run


@pytest.fixture
def output(run):
    def output(code: str, **options) -> str:
        done = run(code, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return output


def test_numba_is_imported_once_a_solver_is_asked_for(output):
    code = """
    import sys, mapgrad, mapgrad_compiled
    mapgrad_compiled.mapgrad_solvers()
    problem = mapgrad.GridShortestPath(3, 3)
    mapgrad.list_solvers(problem)
    before = "numba" in sys.modules
    from mapgrad_compiled._paths import ShortestPaths
    print(before, "numba" in sys.modules)
    """
    assert output(code) == "False True\n"


def test_a_kernel_is_compiled_once_and_when_it_is_asked_for():
    @mapgrad.kernel(INDICES, VALUES)
    def copy(numbers, values):
        for place in range(len(numbers)):
            values[place] = numbers[place]

    assert copy._compiled is None
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(copy.ready())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is found[2] is copy.ready()
    numbers, values = np.arange(3), np.zeros(3)
    for is_writeable in (True, False):
        numbers.flags.writeable = is_writeable
        found[0](numbers, values)
        assert values.tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="No matching definition"):
        found[0](np.arange(3.0), values)


def test_lanes_are_numbers_side_by_side():
    @mapgrad.kernel(STATES, STATES)
    def combine(numbers, answers):
        one, other = load(numbers, 0), load(numbers, 1)
        store(answers, 0, plus(one, other))
        store(answers, 1, minus(one, other))
        store(answers, 2, smaller(one, other))
        store(answers, 3, larger(one, other))
        store(answers, 4, spread(numbers[0, 2]))

    numbers = np.array([[1.0, -2, 3, np.inf, -np.inf, 0, np.nan, 7], [4.0, -3, 3, np.inf, 1, -0.0, 1, np.nan]])
    answers = np.empty((5, LANES))
    combine.ready()(numbers, answers)
    one, other = numbers
    with np.errstate(invalid="ignore"):
        expected = [one + other, one - other, np.where(one < other, one, other), np.where(one > other, one, other)]
    np.testing.assert_array_equal(answers, [*expected, np.full(LANES, 3.0)])


def test_machine_code_is_kept_in_the_folder_that_the_user_names(output, tmp_path):
    code = ON_DAG + "print(sum(_dags._best_in_order._compiled.stats.cache_hits.values()))"
    assert output(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0\n"
    kept = {path.name for path in tmp_path.rglob("*.nbc")}
    names = {name.partition("-")[0].rpartition("_")[0] for name in kept}
    assert names == {"_dags._best_in_order", "_host_kernels._narrow"}
    assert output(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1\n"
    assert {path.name for path in tmp_path.rglob("*.nbc")} == kept


@pytest.fixture
def sealed(tmp_path):
    """The plugin in a folder where nothing can be written, whoever asks, and an environment without another one."""
    copy = tmp_path / "mapgrad_compiled"
    shutil.copytree(Path(mapgrad_compiled.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    copy.joinpath("__pycache__").touch()
    nowhere = tmp_path / "file"
    nowhere.touch()
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "IPYTHONDIR"), str(nowhere / "folder"))
    return {"paths": (tmp_path,), "NUMBA_CACHE_DIR": "", **places}


def test_without_a_folder_to_write_to_kernels_are_compiled_each_time_and_one_line_says_so(run, sealed):
    done = run(ON_GRID + "print(sys.modules['mapgrad_compiled'].__file__)", **sealed)
    assert done.returncode == 0, done.stderr
    assert str(sealed["paths"][0]) in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith("mapgrad: numba keeps no machine code of mapgrad's kernels (cannot cache function")
    assert line.endswith("set NUMBA_CACHE_DIR to a folder that can be written to")


def test_a_folder_that_was_named_and_cannot_be_written_to_is_no_error(run, sealed):
    done = run(ON_DAG, **sealed | {"NUMBA_CACHE_DIR": sealed["HOME"]})
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_torch_keeps_its_threads(output):
    code = """
    import torch, mapgrad
    from mapgrad_compiled._paths import ShortestPaths
    torch.set_num_threads(3)
    mapgrad.get_solver(ShortestPaths, mapgrad.GridShortestPath(3, 3))(-torch.ones(4, 3, 3))
    print(torch.get_num_threads())
    """
    assert output(code) == "3\n"


@pytest.mark.parametrize(
    "problem",
    [
        mapgrad.GridShortestPath(30, 30),
        mapgrad.GridShortestPath(200, 200, goal=(1, 1)),
        mapgrad.ShortestPath(200, [(node, node + 1) for node in range(199)], 0, 199),
        mapgrad.ShortestPath(200, [(node, node + 1) for node in range(199)], 0, 199, directed=False),
    ],
    ids=str,
)
def test_other_threads_run_while_a_kernel_does(problem):
    solver = ShortestPaths(problem)
    state = solver.init()
    block = mapgrad.Block(
        -np.random.default_rng(0)
        .random((2**24 // problem.bounds[0].numel(), *problem.shape))
        .reshape(-1, problem.bounds[0].numel())
    )
    interval, turns = sys.getswitchinterval(), 0
    running = threading.Thread(target=solver.solve_rows, args=(state, block))
    sys.setswitchinterval(30)  # Python takes the GIL from nobody
    try:
        running.start()
        while running.is_alive():
            turns += 1
            time.sleep(1e-4)
    finally:
        sys.setswitchinterval(interval)
    assert turns > 20


@pytest.mark.parametrize("workers", [2, "processes:1"])
def test_workers_give_the_same_answers(workers):
    theta = -torch.rand(50, 3, 3, generator=torch.Generator().manual_seed(0))
    with mapgrad.get_solver(ShortestPaths, PROBLEM, workers=workers) as solver:
        assert solver(theta).equal(mapgrad.get_solver(ShortestPaths, PROBLEM)(theta))


def test_a_solver_can_be_pickled_and_used_in_a_forked_child(in_child):
    theta = -torch.rand(9, 3, 3, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver(ShortestPaths, PROBLEM)
    z = solver(theta)
    assert pickle.loads(pickle.dumps(ShortestPaths(PROBLEM))).problem == PROBLEM
    assert pickle.loads(pickle.dumps(solver))(theta).equal(z)

    def child():
        assert solver(theta).equal(z)
        fresh = ShortestPaths(mapgrad.ShortestPath(2, [(0, 1)], 0, 1))
        block = mapgrad.Block(np.array([[-1.0]]))
        fresh.solve_rows(fresh.init(), block)
        assert block.z.tolist() == [[1]]

    in_child(child)


@pytest.fixture
def broken_numba(tmp_path):
    package = tmp_path / "numba"
    package.mkdir()
    package.joinpath("__init__.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less. Got NumPy 2.9.')\n")
    return tmp_path


ASK = """
import logging, sys, mapgrad, mapgrad_compiled
logging.basicConfig(level=logging.WARNING)
problem = mapgrad.GridShortestPath(3, 3)
if "compiled" not in {info.plugin for info in mapgrad.list_solvers()}:
    mapgrad.register(mapgrad_compiled, "compiled")
try:
    mapgrad.get_solver("compiled.shortest_path", problem)
except mapgrad.MapgradError as error:
    print(f"{type(error).__name__}: {error}")
print(mapgrad.get_solver("auto", problem).spec.factory)
"""


def test_a_numba_that_cannot_be_imported_is_an_error_of_the_plugin_and_auto_takes_another(run, broken_numba):
    done = run(ASK, paths=(broken_numba,))
    assert done.returncode == 0, done.stderr
    named, chosen = done.stdout.splitlines()
    assert named.startswith("PluginError: compiled.shortest_path (")
    assert named.endswith(
        f"can't be loaded: importing {CLASS!r} raised ImportError: Numba needs NumPy 1.0 or less. Got NumPy 2.9."
    )
    assert not chosen.startswith("mapgrad_compiled")
    assert "passes over a solver: compiled.shortest_path" in done.stderr


def test_where_numba_compiles_nothing_auto_takes_another(run):
    done = run(ASK, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    named, chosen = done.stdout.splitlines()
    assert named.endswith("mapgrad's kernels don't run without numba's compiler: unset NUMBA_DISABLE_JIT")
    assert not chosen.startswith("mapgrad_compiled")


def test_without_numba_the_error_says_how_to_get_it(run):
    done = run("import sys\nsys.modules['numba'] = None\n" + ASK)
    assert done.returncode == 0, done.stderr
    named, chosen = done.stdout.splitlines()
    assert named.startswith("MissingDependencyError: compiled.shortest_path (")
    assert named.endswith("needs numba, which isn't installed: pip install 'mapgrad[compiled]'")
    assert not chosen.startswith("mapgrad_compiled")
