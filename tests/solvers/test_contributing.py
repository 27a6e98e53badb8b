"""The plugin and the engine that CONTRIBUTING.md shows work as they stand there."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.testing import check_solver

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_plugin_in_30_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plugin, usage, *_ = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(plugin.splitlines()) <= 30
    tmp_path.joinpath("mapgrad_partition.py").write_text(plugin, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        exec(compile(usage, GUIDE.name, "exec"), {})
        assert "partition" in [info.name for info in mapgrad.list_solvers(mapgrad.KSubset(6, 3))]
    finally:
        sys.modules.pop("mapgrad_partition", None)


def test_the_kernel_is_compiled_and_keeps_the_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    (code,) = re.findall(r"```python\n(from numba .*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    tmp_path.joinpath("mapgrad_best_one.py").write_text(f"import mapgrad\n{code}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        check_solver(import_module("mapgrad_best_one").BestOne, mapgrad.KSubset(4, 1))
    finally:
        sys.modules.pop("mapgrad_best_one", None)


@pytest.fixture(scope="module")
def engine() -> Any:
    """The engine of integer programs."""
    _, section = GUIDE.read_text(encoding="utf-8").split("\n## Write an engine of integer programs\n")
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, GUIDE.name, "exec"), names)
    return names["Milp"]


def test_the_engine_keeps_the_laws(engine: Any) -> None:
    check_solver(engine, mapgrad.Knapsack([3, 2, 4, 1], 6))


def test_what_the_engine_says_wrongly_is_not_believed(engine: Any) -> None:
    feasible = mapgrad.IntegerProgram(  # SciPy's presolving calls it infeasible
        A_ub=[
            [96.55, 0, -32.45, 88.78],
            [-3.14, -78.02, 0, 0],
            [0, 11.8, -21.94, 0],
            [0, 0, 91.59, -10.58],
            [79.17, 1.73, 0, -73.23],
            [-10.61, -94.66, 0, 76.88],
        ],
        b_ub=[1216.06, -50.5404, 3.422, -35.25, 411.403, 195.69],
        lower=-100,
        upper=100,
        integrality=[0, 0, 1, 1],
    )
    theta = torch.tensor([24, -5, -7.4, -9], dtype=torch.float64)
    assert float(mapgrad.get_solver(engine, feasible).solve(theta).objective) == pytest.approx(175.91)
    endless = mapgrad.IntegerProgram(A_ub=[[3, 9], [2, 9], [7, 3]], b_ub=[12, 2, 7], lower=-np.inf, upper=[np.inf, 10])
    with pytest.raises(mapgrad.UnboundedError):
        mapgrad.get_solver(engine, endless)(torch.tensor([-1.0, 0.0]))
