"""Where a training step goes, PyEPO's beside it, and what engines take for small programs.

Run by hand: ``python tests/benchmarks/bench_steps.py [--only path knapsack] [--json new.json] [--against old.json]``.
Stages are differences between configurations that use public names only, on the same rows: the plugin alone, the
solver, a step (forward and backward) without noise; then with noise, whose rows are others. All in µs of CPU time a
solve, on one thread; candidates take turns, and medians are shown. PyEPO takes part where it can be imported. With an
earlier run to compare with, exits with 1 where a case is slower by more than a tenth.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _timing  # before NumPy and torch
import numpy as np
import torch

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LAM = 10.0
NOISE = mapgrad.SumOfGamma(5.0)
BATCHES = 32, 512
ENGINES = "highs", "ortools.mip", "ortools.cp_sat", "pulp.highs", "scipy.milp"
ENGINE_BATCH = 16
SLOWER = 1.1


@dataclass(frozen=True)
class Case:
    """A problem whose θ are costs if `minimize`; `pyepo` names PyEPO's model of it, with its arguments."""

    name: str
    problem: mapgrad.Problem
    minimize: bool
    pyepo: tuple[Any, ...] = ()


def grid_edges(height: int, width: int) -> list[tuple[int, int]]:
    """Arcs to the right and down."""
    cells = np.arange(height * width).reshape(height, width)
    right = zip(cells[:, :-1].ravel(), cells[:, 1:].ravel(), strict=True)
    down = zip(cells[:-1].ravel(), cells[1:].ravel(), strict=True)
    return [(int(tail), int(head)) for tail, head in (*right, *down)]


def path_case(size: int) -> Case:
    problem = mapgrad.ShortestPath(size * size, grid_edges(size, size), 0, size * size - 1)
    return Case(f"path {size}×{size}", problem, True, ("shortestPathModel", (size, size)))


def knapsack_case() -> Case:
    weights = np.random.default_rng(5).integers(1, 100, (2, 16)).astype(float)
    capacities = np.floor(weights.sum(axis=1) / 2)
    problem = mapgrad.Knapsack(weights, capacities)
    return Case("knapsack 16×2", problem, False, ("knapsackModel", weights, capacities))


def set_cover() -> mapgrad.IntegerProgram:
    generator = np.random.default_rng(3)
    matrix = (generator.random((30, 60)) < 0.1).astype(float)
    empty = np.flatnonzero(matrix.sum(axis=1) == 0)
    matrix[empty, generator.integers(0, 60, len(empty))] = 1
    return mapgrad.IntegerProgram(A_ub=-matrix, b_ub=-np.ones(30))


CASES = [
    path_case(5),
    path_case(12),
    Case("grid 12", mapgrad.GridShortestPath(12, 12), True),
    Case("grid 30", mapgrad.GridShortestPath(30, 30), True),
    knapsack_case(),
    Case("k-subset 1000/10", mapgrad.KSubset(1000, 10), False),
    Case("assignment 10", mapgrad.Assignment(10), False),
    Case("assignment 50", mapgrad.Assignment(50), False),
]
PROGRAMS = [knapsack_case(), Case("cover 30×60", set_cover(), True)]


def draw(case: Case, count: int) -> torch.Tensor:
    """Return θ, float32 [count, *shape], from 1 to 6: costs or values."""
    return torch.rand((count, *case.problem.shape), generator=torch.Generator().manual_seed(0)) * 5 + 1


def step(layer: Callable[[torch.Tensor], torch.Tensor], theta: torch.Tensor) -> None:
    leaf = theta.clone().requires_grad_()
    layer(leaf).abs().sum().backward()  # pushes out what was chosen: no row's two solves are alike


def layer_of(case: Case, noise: Any, seed: int | None = None) -> mapgrad.MAPLayer:
    estimator = mapgrad.IMLE(noise, mapgrad.Step(LAM))
    return mapgrad.MAPLayer(mapgrad.get_solver("auto", case.problem), estimator, minimize=case.minimize, seed=seed)


def plugin_alone(case: Case, solver: mapgrad.Solver, batches: Sequence[torch.Tensor]) -> _timing.Work:
    """Return the plugin's own work on rows as the core would hand them over."""
    if solver.spec is None:
        raise TypeError(f"{solver.name} has no spec")
    module, _, attribute = str(solver.spec.factory).partition(":")
    plugin = getattr(importlib.import_module(module), attribute)(case.problem)
    if isinstance(plugin, mapgrad.BatchSolver):
        return lambda: [plugin.solve(theta) for theta in batches]
    state, blocks = plugin.init(), [scaled(theta) for theta in batches]
    if hasattr(plugin, "solve_rows"):
        return lambda: [plugin.solve_rows(state, mapgrad.Block(rows)) for rows in blocks]
    shape = case.problem.shape  # version 0.1, which gave each row away
    return lambda: [plugin.solve(state, row.reshape(shape).copy()) for rows in blocks for row in rows]


def scaled(theta: torch.Tensor) -> np.ndarray:
    """Return rows [count, n], read-only, by powers of two such that max |θ| is in [½, 1)."""
    rows = theta.double().flatten(1).numpy()
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    rows.flags.writeable = False
    return rows


def pyepo_step(case: Case, theta: torch.Tensor) -> dict[str, _timing.Work]:
    if not case.pyepo or find_spec("pyepo") is None:
        return {}
    name, *arguments = case.pyepo
    model = getattr(importlib.import_module("pyepo.model"), name)(*arguments, backend="ortools")
    layer = importlib.import_module("pyepo.func").implicitMLE(model, n_samples=1, sigma=1.0, lambd=LAM, processes=1)
    return {"pyepo": partial(step, layer, theta)}


def measure_steps(case: Case, count: int) -> dict[str, Any]:
    """Return the name of the solver, and µs a solve by configuration."""
    theta = draw(case, count)
    utilities = -theta if case.minimize else theta
    solver = mapgrad.get_solver("auto", case.problem)
    batches = utilities, utilities - LAM * solver(utilities)  # what a step without noise solves
    candidates = {
        "plugin": plugin_alone(case, solver, batches),
        "solver": lambda: [solver(rows) for rows in batches],
        "step, no noise": partial(step, layer_of(case, None), theta),
        "step": partial(step, layer_of(case, NOISE), theta),
        "step, seeded": partial(step, layer_of(case, NOISE, seed=0), theta),
    }
    seconds = _timing.medians(candidates, seconds=2.0)
    seconds |= _timing.medians(pyepo_step(case, theta), seconds=1.0, least=2)
    return {"name": solver.name, **{name: value / (2 * count) * 1e6 for name, value in seconds.items()}}


def measure_engines(case: Case) -> dict[str, float]:
    """Return µs a solve by engine."""
    theta = draw(case, ENGINE_BATCH)
    utilities = (-theta if case.minimize else theta).double()
    names = [info.name for info in mapgrad.list_solvers(case.problem) if info.name in ENGINES and info.status == "ok"]
    work = {name: partial(mapgrad.get_solver(name, case.problem), utilities) for name in names}
    return {name: value / ENGINE_BATCH * 1e6 for name, value in _timing.medians(work, seconds=5.0).items()}


def step_row(label: str, cost: dict[str, Any]) -> list[str]:
    whole = cost["step"]
    stages = {
        "plugin": cost["plugin"],
        "road": cost["solver"] - cost["plugin"],
        "estimator": cost["step, no noise"] - cost["solver"],
        "noise": whole - cost["step, no noise"],
    }
    cells = [f"{value:.2f} ({value / whole * 100:.0f} %)" for value in stages.values()]
    pyepo = [f"{cost['pyepo']:.0f}", f"{cost['pyepo'] / whole:.1f}"] if "pyepo" in cost else ["–", "–"]
    return [label, f"{whole:.2f}", *cells, f"{cost['step, seeded']:.2f}", *pyepo, cost["name"]]


def compare(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield every cost that both runs have but PyEPO's and the plugin's, which isn't this library's road."""
    for label, costs in now.items():
        for name, value in costs.items():
            old = before.get(label, {}).get(name)
            if isinstance(value, float) and isinstance(old, float) and name not in ("pyepo", "plugin"):
                yield f"{label}: {name}", old, value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases whose names begin so; or engines")
    parser.add_argument("--json", type=Path, help="where to write the costs")
    parser.add_argument("--against", type=Path, help="costs of an earlier run, to compare with")
    arguments = parser.parse_args()
    if find_spec("pyepo") is None:
        sys.stdout.write("PyEPO can't be imported: its columns stay empty\n\n")
    yardstick = _timing.medians({"loop": partial(_timing.busy_loop, 100_000)})["loop"]

    def wanted(name: str) -> bool:
        return not arguments.only or any(name.startswith(each) for each in arguments.only)

    steps = {f"{case.name}, B = {n}": measure_steps(case, n) for case in CASES if wanted(case.name) for n in BATCHES}
    engines = {f"{case.name}, engines": measure_engines(case) for case in PROGRAMS if wanted("engines")}
    if steps:
        header = ["case", "step", "plugin", "road", "estimator", "noise", "seeded step", "PyEPO", "÷ step", "solver"]
        rows = [step_row(label, cost) for label, cost in steps.items()]
        title = f"A step (forward and backward, S = 1): µs of CPU time a solve; {_timing.load()}"
        _timing.show(title, header, rows)
    if engines:
        rows = [
            [label, *(f"{costs[name]:.0f}" if name in costs else "–" for name in ENGINES), ""]
            for label, costs in engines.items()
        ]
        _timing.show(f"solver(θ), B = {ENGINE_BATCH}: µs of CPU time a solve", ["program", *ENGINES, ""], rows)
    now: dict[str, Any] = {"yardstick": {"loop": yardstick}, **steps, **engines}
    if arguments.json:
        arguments.json.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.against:
        sys.exit(show_ratios(json.loads(arguments.against.read_text(encoding="utf-8")), now))


def show_ratios(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Print what each case takes of what it took before, and return whether any is slower."""
    drift = now["yardstick"]["loop"] / before["yardstick"]["loop"]
    del before["yardstick"]
    ratios = [(label, old, new, new / old) for label, old, new in compare(before, now)]
    rows = [
        [label, f"{old:.2f}", f"{new:.2f}", f"{ratio:.2f}", "slower" if ratio > SLOWER else ""]
        for label, old, new, ratio in ratios
    ]
    title = f"µs of CPU time a solve; a loop of plain Python takes {drift:.2f} × what it took in the earlier run"
    _timing.show(title, ["case", "before", "now", "ratio", ""], rows)
    return any(ratio > SLOWER for *_, ratio in ratios)


if __name__ == "__main__":
    main()
