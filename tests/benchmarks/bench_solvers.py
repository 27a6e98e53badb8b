"""What solvers cost: memory over thousands of solves, what two threads buy, and the time around the bare kernels.

Run by hand: ``python tests/benchmarks/bench_solvers.py [memory | threads | time] [--only scipy highs] [--solves 500]``.
All installed solvers take part, each with the problems of the classes that it accepts. Candidates take turns within one
process and medians are shown: on a shared machine, trust the ratios.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import mapgrad

Row = np.ndarray
Work = Callable[[], Any]
Case = tuple[str, mapgrad.Problem]

RNG = np.random.default_rng(0)
ROUNDS = 9
ENOUGH = 0.5
"""Seconds: a quick candidate, which a busy machine disturbs most, gets more rounds, up to this or a hundred."""
BATCH = 64
FRESH = 25
"""Rows that new models solve again."""


def knapsack(items: int, rows: int) -> mapgrad.IntegerProgram:
    weights = RNG.integers(1, 50, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


def random_graph(num_nodes: int, count: int) -> list[tuple[int, int]]:
    """Edges from lower to higher nodes that join all of them."""
    ends = np.sort(RNG.integers(0, num_nodes, (count, 2)), axis=1).tolist()
    return [*((node, node + 1) for node in range(num_nodes - 1)), *((u, v) for u, v in ends if u != v)]


def complete_graph(num_nodes: int) -> list[tuple[int, int]]:
    return [(u, v) for u in range(num_nodes) for v in range(u + 1, num_nodes)]


SMALL = [
    mapgrad.KSubset(100, 10),
    mapgrad.Ranking(50),
    mapgrad.GridShortestPath(12, 12),
    mapgrad.ShortestPath(30, random_graph(30, 100), 0, 29),
    mapgrad.ShortestPath(30, random_graph(30, 100), 0, 29, directed=False),
    mapgrad.Assignment(20),
    mapgrad.Matching(10, complete_graph(10)),
    mapgrad.SpanningTree(20, random_graph(20, 60)),
    mapgrad.TravelingSalesman(8),
    knapsack(12, 2),
]
ABOUT_A_MILLISECOND = [mapgrad.Assignment(180), knapsack(14, 2)]
SEVERAL_SIZES = [
    *(mapgrad.KSubset(n, n // 10) for n in (100, 1000)),
    *(mapgrad.GridShortestPath(n, n) for n in (6, 12, 24)),
    *(mapgrad.ShortestPath(n, random_graph(n, 4 * n), 0, n - 1) for n in (20, 200)),
    *(mapgrad.ShortestPath(n, random_graph(n, 4 * n), 0, n - 1, directed=False) for n in (20, 200)),
    *(mapgrad.Assignment(n) for n in (10, 30)),
    mapgrad.Matching(10, complete_graph(10)),
    *(mapgrad.SpanningTree(n, random_graph(n, 4 * n)) for n in (20, 200)),
    *(mapgrad.TravelingSalesman(n) for n in (6, 10)),
    knapsack(16, 2),
    knapsack(30, 2),
]


def cases(problems: Iterable[mapgrad.Problem], only: Sequence[str]) -> Iterator[Case]:
    for problem in problems:
        for info in mapgrad.list_solvers(problem):
            wanted = not only or any(info.name.startswith(name) for name in only)
            if wanted and info.status == "ok" and isinstance(problem, info.accepts):
                yield info.name, problem


def label(problem: mapgrad.Problem) -> str:
    return f"{type(problem).__name__} {'×'.join(map(str, problem.shape))}"


def draw(problem: mapgrad.Problem, count: int) -> torch.Tensor:
    """Rows [count, *shape]: costs for paths, values for a knapsack's items, else of both signs."""
    rows = RNG.standard_normal((count, *problem.shape))
    if isinstance(problem, mapgrad.GridShortestPath | mapgrad.ShortestPath):
        rows = -np.abs(rows)
    elif isinstance(problem, mapgrad.IntegerProgram):
        rows = np.abs(rows)
    return torch.as_tensor(rows)


def seconds(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(candidates: Sequence[Work]) -> list[float]:
    """Return the median seconds of each candidate: after a first call each, they take turns in changing order."""
    slowest = max(seconds(candidate) for candidate in candidates)
    times: list[list[float]] = [[] for _ in candidates]
    for number in range(max(ROUNDS, min(int(ENOUGH / slowest), 100))):
        for turn in range(len(candidates)):
            chosen = (number + turn) % len(candidates)
            times[chosen].append(seconds(candidates[chosen]))
    return [median(each) for each in times]


def resident_megabytes() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(only: Sequence[str], solves: int) -> None:
    """Solve thousands of rows with one model, then some of them with new ones."""
    table: list[list[str]] = []
    for name, problem in cases(SMALL, only):
        with mapgrad.get_solver(name, problem, merge=False) as solver:
            solver(draw(problem, max(solves // 10, BATCH)))
            before, started = resident_megabytes(), time.perf_counter()
            for _ in range(solves // BATCH):
                solver(draw(problem, BATCH))
            spent, growth = time.perf_counter() - started, resident_megabytes() - before
            theta = draw(problem, FRESH)
            kept = solver.solve(theta)
        fresh = [mapgrad.get_solver(name, problem).solve(row) for row in theta]
        apart = max(abs(float(one.objective - other)) for one, other in zip(fresh, kept.objective, strict=True))
        others = sum(not torch.equal(one.z, other) for one, other in zip(fresh, kept.z, strict=True))
        per_row = f"{spent / (solves // BATCH * BATCH) * 1e6:.0f}"
        table.append([name, label(problem), per_row, f"{before:.1f}", f"{growth:+.1f}", f"{apart:.0e}", str(others)])
    header = ["solver", "problem", "µs a row", "MB before", "growth", "largest difference", "other states"]
    show(f"{solves:,} solves of one model; and {FRESH} rows next to new models", header, table)


def threads(only: Sequence[str]) -> None:
    """Solve a batch in one thread and in two, with solvers that release the GIL."""
    table: list[list[str]] = []
    for name, problem in cases(ABOUT_A_MILLISECOND, only):
        solver_class = class_of(name, problem)
        if not (issubclass(solver_class, mapgrad.InstanceSolver) and solver_class.traits.releases_gil):
            continue
        theta = draw(problem, BATCH)
        with mapgrad.get_solver(name, problem) as one, mapgrad.get_solver(name, problem, workers=2) as two:
            single, double = interleaved([partial(one, theta), partial(two, theta)])
        per_row = [f"{each / BATCH * 1e3:.2f}" for each in (single, double)]
        table.append([name, label(problem), *per_row, f"{single / double:.2f}"])
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    title = f"{BATCH} rows, one thread and two ({cores} cores, load {load:.1f} with this process)"
    show(title, ["solver", "problem", "ms a row, one", "two", "ratio"], table)


def times(only: Sequence[str]) -> None:
    """Time batches next to the plugin's own loop and to the library's bare call."""
    table: list[list[str]] = []
    for name, problem in cases(SEVERAL_SIZES, only):
        theta = draw(problem, BATCH)
        work = [partial(mapgrad.get_solver(name, problem), theta), plugin_work(name, problem, theta)]
        library = LIBRARY.get(name)
        if library is not None:
            work.append(library(problem, theta))
        micros = [each / BATCH * 1e6 for each in interleaved(work)]
        cells = [f"{each:.1f}" for each in micros] + ["–"] * (3 - len(micros))
        table.append([name, label(problem), *cells, f"{micros[0] / micros[-1]:.2f}"])
    header = ["solver", "problem", "mapgrad", "plugin", "library", "mapgrad / last"]
    show(f"µs a row, in batches of {BATCH}", header, table)


def class_of(name: str, problem: mapgrad.Problem) -> type[mapgrad.InstanceSolver | mapgrad.BatchSolver]:
    spec = mapgrad.get_solver(name, problem).spec
    assert spec is not None
    module, _, attribute = str(spec.factory).partition(":")
    return getattr(importlib.import_module(module), attribute)


def plugin_work(name: str, problem: mapgrad.Problem, theta: torch.Tensor) -> Work:
    plugin = class_of(name, problem)(problem)
    if isinstance(plugin, mapgrad.BatchSolver):
        return partial(plugin.solve, theta)
    state, rows = plugin.init(), np.asarray(theta)
    return lambda: [plugin.solve(state, row.copy()) for row in rows]


# The bare calls of libraries, in their own settings but for a gap of zero: the same problems, nothing read back.


def torch_topk(problem: Any, theta: torch.Tensor) -> Work:
    return partial(theta.topk, problem.k, sorted=False) if isinstance(problem, mapgrad.KSubset) else theta.argsort


def scipy_assignment(problem: Any, theta: torch.Tensor) -> Work:
    from scipy.optimize import linear_sum_assignment

    return over_rows(partial(linear_sum_assignment, maximize=True), theta)


def scipy_dijkstra(problem: Any, theta: torch.Tensor) -> Work:
    from scipy.sparse.csgraph import dijkstra

    return on_sparse_graph(problem, theta, partial(dijkstra, indices=0, return_predecessors=True))


def scipy_spanning_tree(problem: Any, theta: torch.Tensor) -> Work:
    from scipy.sparse.csgraph import minimum_spanning_tree

    return on_sparse_graph(problem, theta, minimum_spanning_tree)


def on_sparse_graph(problem: Any, theta: torch.Tensor, kernel: Callable[[Any], Any]) -> Work:
    import networkx as nx

    graph = nx.to_scipy_sparse_array(networkx_graph(problem), dtype=float)
    prices = graph.indices if isinstance(problem, mapgrad.GridShortestPath) else np.arange(graph.nnz) % theta[0].numel()

    def call(row: Row) -> Any:
        graph.data[:] = -row.ravel()[prices]
        return kernel(graph)

    return over_rows(call, theta)


def scipy_milp(problem: Any, theta: torch.Tensor) -> Work:
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = LinearConstraint(problem.matrix.to_scipy(), problem.row_lower, problem.row_upper)
    bounds = Bounds(problem.lower, problem.upper)
    options = {"mip_rel_gap": 0.0}
    return over_rows(lambda row: milp(-row, integrality=1, bounds=bounds, constraints=rows, options=options), theta)


def networkx_path(problem: Any, theta: torch.Tensor) -> Work:
    import networkx as nx

    if not isinstance(problem, mapgrad.GridShortestPath):
        find = partial(nx.shortest_path, source=problem.source, target=problem.target, weight="weight")
        return on_networkx_edges(problem, -theta, find)
    graph, goal = networkx_graph(problem), theta[0].numel() - 1

    def call(row: Row) -> Any:
        cost = (-row).ravel().tolist()
        return nx.shortest_path(graph, 0, goal, lambda _tail, head, _attributes: cost[head])

    return over_rows(call, theta)


def networkx_matching(problem: Any, theta: torch.Tensor) -> Work:
    import networkx as nx

    return on_networkx_edges(problem, theta, nx.max_weight_matching)


def networkx_spanning_tree(problem: Any, theta: torch.Tensor) -> Work:
    import networkx as nx

    return on_networkx_edges(
        problem, theta, lambda graph: list(nx.maximum_spanning_edges(graph, algorithm="prim", data=False))
    )


def on_networkx_edges(problem: Any, theta: torch.Tensor, kernel: Callable[[Any], Any]) -> Work:
    graph = networkx_graph(problem)
    edges = [attributes for _, _, attributes in graph.edges(data=True)]

    def call(row: Row) -> Any:
        for attributes, weight in zip(edges, row.tolist(), strict=False):  # a simple graph merges parallel edges
            attributes["weight"] = weight
        return kernel(graph)

    return over_rows(call, theta)


def networkx_graph(problem: Any) -> Any:
    import networkx as nx

    if isinstance(problem, mapgrad.GridShortestPath):
        grid: Any = nx.strong_product(nx.path_graph(problem.height), nx.path_graph(problem.width))
        return nx.convert_node_labels_to_integers(grid)
    graph = nx.DiGraph() if getattr(problem, "directed", False) else nx.Graph()
    graph.add_nodes_from(range(problem.num_nodes))
    graph.add_edges_from(problem.edges.tolist())
    return graph


def highs_run(problem: Any, theta: torch.Tensor) -> Work:
    import highspy

    engine, columns = highspy.Highs(), np.arange(problem.num_vars, dtype=np.int32)
    engine.silent()
    engine.setOptionValue("mip_rel_gap", 0.0)
    engine.addVars(problem.num_vars, problem.lower, problem.upper)
    for column in range(problem.num_vars):
        engine.changeColIntegrality(column, highspy.HighsVarType.kInteger)
    for number in range(len(problem.row_lower)):
        indices, values = problem.matrix.row(number)
        bounds = problem.row_lower[number], problem.row_upper[number]
        engine.addRow(*bounds, len(indices), indices.astype(np.int32), values)

    def call(row: Row) -> Any:
        engine.changeColsCost(len(columns), columns, -row)
        engine.clearSolver()
        return engine.run()

    return over_rows(call, theta)


def over_rows(call: Callable[[Row], Any], theta: torch.Tensor) -> Work:
    rows = list(np.asarray(theta))
    return lambda: [call(row) for row in rows]


LIBRARY: dict[str, Callable[[Any, torch.Tensor], Work]] = {
    "topk": torch_topk,
    "networkx.shortest_path": networkx_path,
    "networkx.matching": networkx_matching,
    "networkx.spanning_tree": networkx_spanning_tree,
    "scipy.assignment": scipy_assignment,
    "scipy.shortest_path": scipy_dijkstra,
    "scipy.spanning_tree": scipy_spanning_tree,
    "scipy.milp": scipy_milp,
    "highs": highs_run,
}


def show(title: str, header: Sequence[str], table: Sequence[Sequence[str]]) -> None:
    """Print a table: by rich where it is installed."""
    if find_spec("rich") is None:
        widths = [max(map(len, column)) for column in zip(header, *table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *table)
        ]
        sys.stdout.write("\n".join(["", title, "", *lines, ""]))
        return
    from rich.console import Console
    from rich.table import Table

    view = Table(*header, title=title, title_justify="left")
    for row in table:
        view.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(view)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["memory", "threads", "time", "all"], default="all")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="solvers whose names begin so")
    parser.add_argument("--solves", type=int, default=5000, help="rows solved by one model in `memory`")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for what, run in {
        "memory": partial(memory, arguments.only, arguments.solves),
        "threads": partial(threads, arguments.only),
        "time": partial(times, arguments.only),
    }.items():
        if arguments.what in (what, "all"):
            run()


if __name__ == "__main__":
    main()
