"""Solvers that take rows of any magnitude unscaled are as exact at 1e-300 and 1e300 as they are at 1."""

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad
from mapgrad_compiled._spanning_tree import Boruvka
from mapgrad_networkx._spanning_tree import Prim
from mapgrad_scipy._spanning_tree import Kruskal
from mapgrad_topk._topk import TopK

TREES = mapgrad.SpanningTree(4, [*combinations(range(4), 2), (1, 0), (2, 3)])
CASES = [(TopK, mapgrad.KSubset(7, 3)), (TopK, mapgrad.Ranking(5)), (Boruvka, TREES), (Kruskal, TREES), (Prim, TREES)]


def rows(problem: mapgrad.Problem) -> NDArray[np.float64]:
    """Rows of one magnitude, of few values, and of all magnitudes at once."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((12, *problem.shape))
    scales = 10.0 ** rng.uniform(-300, 300, values.shape)
    ranges = [values * 10.0**exponent for exponent in (-323, -310, -300, -20, 0, 20, 300, 307)]
    return np.concatenate([*ranges, np.rint(values) * 1e-320, np.rint(values) * 1e300, values * scales])


@pytest.mark.parametrize(("solver", "problem"), CASES)
def test_optima_of_any_magnitude_are_exact(solver: type[Any], problem: mapgrad.Problem) -> None:
    assert solver.traits.scale_free
    states = np.asarray(problem.states()).astype(int).reshape(-1, np.prod(problem.shape)).tolist()
    theta = rows(problem)
    instance = solver(problem)
    if isinstance(instance, mapgrad.BatchSolver):
        answers = instance.solve(torch.as_tensor(theta)).tolist()
    else:
        block = mapgrad.Block(theta)
        instance.solve_rows(instance.init(), block)
        answers = block.z.tolist()
    for row, z in zip(theta.tolist(), answers, strict=True):
        exact = [Fraction(entry) for entry in row]

        def value(state: list[float], exact: list[Fraction] = exact) -> Fraction:
            return sum((int(times) * entry for times, entry in zip(state, exact, strict=True)), start=Fraction())

        assert value(z) == max(map(value, states))


def test_nobody_else_says_so() -> None:
    infos = [info for info in mapgrad.list_solvers() if info.distribution == "mapgrad" and info.status == "ok"]
    scale_free = {info.name for info in infos if info.traits is not None and info.traits.scale_free}
    trees = {f"{plugin}.spanning_tree" for plugin in ("compiled", "scipy", "networkx")}
    assert scale_free == {"topk", "diagram", "compiled.shortest_path", "torch.shortest_path", *trees}
