"""A training run ends with the same bits whoever solves its rows and, where that is promised, in whatever parts."""

import math
import sys
from itertools import pairwise

import pytest
import torch

import mapgrad

STEPS, ROWS = 20, 64
KINDS = [None, 2, 4, "processes:2", "processes:4"]
CASES = {
    "assignment": ("scipy.assignment", mapgrad.Assignment(3), ROWS),
    "path": ("networkx.shortest_path", mapgrad.GridShortestPath(3, 3), ROWS),
    "knapsack": ("highs", mapgrad.Knapsack([[3, 5, 4, 6, 2]], [9]), 8),
}
"""A solver in C, one in Python, and an engine; and how many rows a batch has."""


@pytest.fixture(scope="module")
def crews():
    if sys.platform != "linux":
        pytest.skip("processes are tested on Linux")
    made = [mapgrad.Workers(kind) for kind in KINDS]
    yield made
    for workers in made:
        workers.close()


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(torch.nn.Module):
    """θ as a linear function of inputs that each step has anew."""

    def __init__(self, rows, size):
        super().__init__()
        self.weight = torch.nn.Parameter(drawn(size, 4, seed=0))
        self.rows = rows

    def forward(self, step, start, stop):
        return drawn(self.rows, 4, seed=100 + step)[start:stop].to(self.weight) @ self.weight.T


class Table(torch.nn.Module):
    """θ of each row as parameters of its own, so that no gradients are summed over rows."""

    def __init__(self, rows, size):
        super().__init__()
        self.weight = torch.nn.Parameter(drawn(rows, size, seed=0))

    def forward(self, step, start, stop):
        return self.weight[start:stop]


def train(case, workers, *, network=Linear, estimator=None, seed=7, parts=1, steps=STEPS, dtype=torch.float32):
    """Train a network through a layer, and return its weights: each batch is one call, or several of equal size."""
    name, problem, rows = CASES[case]
    torch.manual_seed(3)
    model = network(rows, math.prod(problem.shape)).to(dtype)
    solver = mapgrad.get_solver(name, problem, workers=workers)
    layer = mapgrad.MAPLayer(solver, estimator or mapgrad.IMLE(), seed=seed)
    loss_weight = drawn(rows, *problem.shape, seed=1).to(dtype)
    velocity = torch.zeros_like(model.weight)
    bounds = range(0, rows + 1, rows // parts)
    for step in range(steps):
        model.zero_grad()
        for start, stop in pairwise(bounds):
            theta = model(step, start, stop).reshape(-1, *problem.shape)
            z = layer(-theta.abs() if "path" in name else theta, rows=torch.arange(start, stop))
            (loss_weight[start:stop] * (z - 0.4).square()).sum().backward()
        velocity = 0.9 * velocity + model.weight.grad
        with torch.no_grad():
            model.weight -= 0.01 * velocity
    return model.weight.detach().clone()


@pytest.mark.parametrize(
    ("case", "seed"),
    [
        ("assignment", 7),
        ("path", 7),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("knapsack", 7), ("assignment", None))),
    ],
)
def test_weights_are_the_same_whoever_solves(case, seed, crews):
    runs = [train(case, workers, seed=seed) for workers in crews]
    assert all(torch.equal(run, runs[0]) for run in runs)
    assert not torch.equal(runs[0], train(case, None, seed=seed, steps=1))


@pytest.mark.parametrize("workers", [0, 4], ids=["inline", "processes:4"])
@pytest.mark.parametrize("case", ["assignment", "path"])
def test_without_noise_each_row_has_the_same_gradient_in_micro_batches(case, workers, crews):
    runs = [train(case, crews[workers], network=Table, estimator=mapgrad.IMLE(None), parts=parts) for parts in (1, 4)]
    assert torch.equal(*runs)


def test_micro_batches_of_shared_weights_differ_by_the_rounding_of_their_sums(crews):
    whole, parted = (
        train("assignment", crews[0], estimator=mapgrad.IMLE(None), parts=parts, steps=1, dtype=torch.float64)
        for parts in (1, 4)
    )
    torch.testing.assert_close(whole, parted, rtol=1e-12, atol=1e-12)


def test_micro_batches_are_steps_of_the_noise_of_their_own(crews):
    whole, parted = (train("assignment", crews[0], network=Table, parts=parts, steps=1) for parts in (1, 4))
    assert torch.equal(whole[:16], parted[:16])
    assert (whole != parted)[16:].any(dim=1).sum() > 24
