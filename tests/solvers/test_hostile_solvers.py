"""Solvers that would end the program, or that declare nonsense, when they are asked for by name."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mapgrad


class Ending(mapgrad.InstanceSolver[mapgrad.KSubset, None]):
    """A solver whose constructor ends the program."""

    def __init__(self, problem: mapgrad.KSubset) -> None:
        super().__init__(problem)
        raise SystemExit(3)


def test_a_constructor_can_not_end_the_program():
    with pytest.raises(mapgrad.PluginError, match=r"Ending can't be made: its constructor raised SystemExit: 3"):
        mapgrad.get_solver(Ending, mapgrad.KSubset(5, 2))


class Whole(mapgrad.InstanceSolver[mapgrad.KSubset, None]):
    """A solver of one subset."""

    def solve(self, state: None, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        return np.ones_like(theta)


def ending_cost(problem: mapgrad.KSubset) -> float:
    raise SystemExit(3)


@pytest.mark.parametrize("cost", [ending_cost, lambda _: "cheap", lambda _: -1.0])
def test_a_wrong_cost_does_no_harm_by_name_either(cost: Any, caplog: pytest.LogCaptureFixture):
    class Plugin:
        @mapgrad.hookimpl
        def mapgrad_solvers(self) -> list[mapgrad.SolverSpec]:
            return [mapgrad.SolverSpec(name="whole", factory=Whole, accepts=(mapgrad.KSubset,), cost=cost)]

    mapgrad.register(Plugin(), "wrongcost")
    try:
        assert mapgrad.get_solver("wrongcost.whole", mapgrad.KSubset(3, 3))(torch.zeros(2, 3)).tolist() == [[1] * 3] * 2
    finally:
        mapgrad.unregister("wrongcost")
    assert "comes last: its cost()" in caplog.text
