"""All plugins in one process: in any order of import every solver works and torch keeps its threads; who needs it."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mapgrad
import mapgrad_topk

PACKAGES = ("highspy", "ortools", "pulp", "scipy")
"""What plugins bring into the process as compiled code, or as a user of it."""
USE = """
import sys, torch, mapgrad
threads = torch.get_num_threads()
problems = {
    "topk": mapgrad.KSubset(4, 2),
    "compiled": mapgrad.Assignment(2),
    "search": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "rustworkx": mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3)]),
    "diagram": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "networkx": mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3)]),
    "highspy": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "ortools": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "pulp": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "scipy": mapgrad.Assignment(2),
    "clarabel": mapgrad.Portfolio([[1, 0.2], [0.2, 2]], 0.5),
    "torch": mapgrad.GridShortestPath(1, 2),
}
plugins = {"highspy": "highs"}
order = sys.argv[1:]
for name in (*order, *reversed(order)):  # once as the first of its package, once after all the others
    plugin, problem = plugins.get(name, name), problems[name]
    theta = torch.arange(problem.bounds[0].numel(), dtype=torch.float64).reshape(problem.shape)
    own = [info.name for info in mapgrad.list_solvers(problem) if info.plugin == plugin]
    assert own, name
    objectives = {solver: float(mapgrad.get_solver(solver, problem).solve(theta).objective) for solver in own}
    assert len(set(objectives.values())) == 1, objectives
assert torch.get_num_threads() == threads
"""


def run(order: tuple[str, ...]) -> str:
    """Return what goes wrong when plugins are used in an order, in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", USE, *order], capture_output=True, text=True, check=False, env=environment
    )
    return f"{order}: exit status {done.returncode}\n{done.stderr}" if done.returncode else ""


FIRST, LAST = ("topk", "torch", "diagram", "compiled", "search"), ("rustworkx", "networkx", "clarabel")


@pytest.mark.parametrize("step", [1, -1])
def test_every_two_packages_in_both_orders(step: int) -> None:
    assert not run((*FIRST, *PACKAGES, *LAST)[::step])


@pytest.mark.slow
def test_every_order_of_import() -> None:
    orders = [(*FIRST, *order, *LAST) for order in itertools.permutations(PACKAGES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert not [failure for failure in pool.map(run, orders) if failure]


def test_all_plugins_take_part() -> None:
    plugins = {info.plugin for info in mapgrad.list_solvers() if info.distribution == "mapgrad"}
    assert plugins == {
        "topk",
        "diagram",
        "clarabel",
        "compiled",
        "networkx",
        "highs",
        "ortools",
        "pulp",
        "rustworkx",
        "scipy",
        "search",
        "torch",
    }


WITHOUT_TORCH = """
import importlib, pathlib, sys
for path in (path for folder in sys.argv[1:] for path in sorted(pathlib.Path(folder).glob("*.py"))):
    name = f"{path.parent.name}.{path.stem}" if path.stem != "__init__" else path.parent.name
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""


def test_plugins_of_the_host_import_no_torch() -> None:
    plugins = ("clarabel", "compiled", "highs", "networkx", "ortools", "pulp", "rustworkx", "scipy", "search")
    folders = [Path(mapgrad_topk.__file__).parents[1] / f"mapgrad_{plugin}" for plugin in plugins]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *folders], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
