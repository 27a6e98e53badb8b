"""All plugins in one process: whatever is imported first, every solver works, and torch keeps its threads."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mapgrad

PACKAGES = ("highspy", "ortools", "pulp", "scipy")
"""What plugins bring into the process as compiled code, or as a user of it."""
USE = """
import sys, torch, mapgrad
threads = torch.get_num_threads()
problems = {
    "topk": mapgrad.KSubset(4, 2),
    "networkx": mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3)]),
    "highspy": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "ortools": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "pulp": mapgrad.Knapsack([[3, 2, 2, 1]], [5]),
    "scipy": mapgrad.Assignment(2),
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


def test_every_order_of_import() -> None:
    orders = [("topk", *order, "networkx") for order in itertools.permutations(PACKAGES)]
    orders.append(("networkx", *PACKAGES, "topk"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert not [failure for failure in pool.map(run, orders) if failure]


def test_all_plugins_take_part() -> None:
    plugins = {info.plugin for info in mapgrad.list_solvers() if info.distribution == "mapgrad"}
    assert plugins == {"topk", "networkx", "highs", "ortools", "pulp", "scipy"}
