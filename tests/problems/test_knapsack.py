from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapgrad.errors import ProblemError
from mapgrad.problems import Domain, Knapsack


@given(st.data(), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_states_are_the_sets_that_fit(data: st.DataObject, constraints: int, items: int) -> None:
    tenths = st.integers(0, 12)
    weights = np.array(
        data.draw(
            st.lists(st.lists(tenths, min_size=items, max_size=items), min_size=constraints, max_size=constraints)
        )
    )
    capacities = np.array(data.draw(st.lists(tenths, min_size=constraints, max_size=constraints)))
    points = np.array(list(itertools.product((0, 1), repeat=items)))
    truth = (points @ weights.T <= capacities).all(axis=1)
    for scale in (1, 0.1, 0.1 * 2**40):  # tenths aren't exact in binary: their sums miss a capacity that they meet
        problem = Knapsack(weights * scale, capacities * scale)
        assert problem.contains(torch.as_tensor(points)).tolist() == truth.tolist()
        assert sorted(problem.states().tolist()) == points[truth].tolist()


def test_whole_weights_are_compared_exactly() -> None:
    problem = Knapsack([10**12, 10**12 + 1], 2 * 10**12)
    assert problem.contains(torch.tensor([[1, 1], [1, 0]])).tolist() == [False, True]
    assert Knapsack([10**12, 10**12], 2 * 10**12).contains(torch.tensor([1, 1])).item() is True


@pytest.mark.parametrize(
    ("problem", "kappa"),
    [
        (Knapsack([2, 2, 2, 2], 5), 2),
        (Knapsack([[2, 2, 2, 2], [1, 1, 1, 3]], [5, 3]), 2),
        (Knapsack([2, 2, 2, 2], 50), 4),
        (Knapsack([0, 0, 0], 0), 3),
        (Knapsack([5, 6], 1), 1),
    ],
    ids=repr,
)
def test_kappa_counts_items_of_average_weight(problem: Knapsack, kappa: float) -> None:
    assert problem.kappa == kappa
    assert problem.domain is Domain.REAL


def test_arrays_are_private_and_read_only() -> None:
    given = np.array([[1.0, 2.0]])
    problem = Knapsack(given, [2])
    given[:] = 7
    assert problem.weights.tolist() == [[1, 2]]
    for array in (problem.weights, problem.capacities):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


def test_large_sets_are_refused_in_the_name_of_the_knapsack(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProblemError, match=r"^Knapsack\(.* has more than 100,000 states: too many to enumerate"):
        Knapsack(np.ones(30), 15).states()
    monkeypatch.setattr("mapgrad.problems._base._STATES_STEPS", 12_345)
    with pytest.raises(ProblemError, match=r"^Knapsack\(.* takes more than 12,345 steps to enumerate"):
        Knapsack(np.ones((300, 60)), np.full(300, 30)).states()
