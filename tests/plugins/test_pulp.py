"""PuLP's plugin: what is said without the binary of CBC."""

import sys

import numpy as np
import pytest

import mapgrad


def knapsack(seed: int, items: int = 12, rows: int = 3) -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(seed).integers(1, 20, (rows, items))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


def test_without_the_binary_of_cbc_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbcbox", None)
    with pytest.raises(
        mapgrad.MissingDependencyError, match=r"needs cbcbox, which isn't installed: pip install 'mapgr"
    ):
        mapgrad.get_solver("pulp.cbc", knapsack(0))
    assert mapgrad.get_solver("pulp", knapsack(0)).name == "pulp.highs"
