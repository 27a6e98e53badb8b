"""Costs mixed with those of the nearest neighbours, against loops over all pairs."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.data import OptDataset, ShortestPathTask, neighbor_costs


def by_loops(features, costs, k, weight):
    mixed = []
    for row, own in enumerate(costs):
        others = [other for other in range(len(costs)) if other != row]
        others.sort(key=lambda other: sum((features[row].ravel() - features[other].ravel()) ** 2))
        mixed.append([weight * own + (1 - weight) * costs[other] for other in others[:k]])
    return np.array(mixed)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 4, 29])
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
def test_it_is_the_mix_with_the_nearest_rows(shape, k, weight):
    rng = np.random.default_rng(0)
    x, costs = rng.normal(size=(30, 3)), rng.normal(size=(30, *shape))
    expected = by_loops(x, costs, k, weight)
    np.testing.assert_allclose(neighbor_costs(x, costs, k, weight=weight, reduction="none"), expected)
    np.testing.assert_allclose(neighbor_costs(x, costs, k, weight=weight), expected.mean(axis=1))


def test_equal_rows_are_neighbours_of_each_other_and_not_of_themselves():
    x = torch.tensor([[1e4, 1.0], [1e4, 1.0], [1e4, 2.0], [-5.0, 0.0]])
    costs = torch.tensor([[1.0], [3.0], [7.0], [100.0]])
    assert neighbor_costs(x, costs, 1, weight=0).tolist() == [[3], [1], [1], [1]]


def test_more_rows_than_are_compared_at_a_time():
    rng = np.random.default_rng(1)
    x, costs = rng.normal(size=(2500, 2)), rng.normal(size=(2500, 1))
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(neighbor_costs(x, costs, 1, weight=0), costs[distance.argmin(axis=1)])


def test_a_data_set_of_robust_costs():
    task = ShortestPathTask(height=3, width=3)
    x, costs = task.draw(40)
    robust = neighbor_costs(x, costs, 5)
    assert robust.dtype == torch.float32
    data = OptDataset(mapgrad.get_solver("auto", task.problem), x, robust, minimize=True)
    states = task.problem.states().float()
    torch.testing.assert_close(data.values, (robust @ states.T).amin(dim=1))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be from 1 to 3, as a row has 3 others, got 0"),
        ({"k": 4}, ValueError, "k must be from 1 to 3"),
        ({"k": 2.0}, TypeError, r"k must be an int, got 2.0"),
        ({"k": True}, TypeError, "k must be an int"),
        ({"weight": 1.5}, ValueError, "weight must be from 0 to 1, got 1.5"),
        ({"weight": float("nan")}, ValueError, "weight must be from 0 to 1"),
        ({"reduction": "sum"}, ValueError, 'reduction must be "mean" or "none"'),
        ({"costs": torch.zeros(3, 2)}, mapgrad.ShapeError, "one row each"),
        (
            {"features": torch.tensor([[0.0], [1], [torch.nan], [2]])},
            mapgrad.NonFiniteError,
            r"features have NaN or infinite entries in row 2",
        ),
        ({"costs": torch.tensor([[0.0], [torch.inf], [1], [2]])}, mapgrad.NonFiniteError, r"costs .* row 1"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    given = {"features": torch.arange(4.0)[:, None], "costs": torch.zeros(4, 2), "k": 2} | changes
    with pytest.raises(error, match=message):
        neighbor_costs(**given)
