"""A linear model trained by each loss: regret on its rows falls by a stated factor."""

import pytest
import torch

import mapgrad
import mapgrad.losses

ITEMS, FEATURES, ROWS = 10, 4, 60
SUBSET = mapgrad.KSubset(ITEMS, 3)


@pytest.fixture(scope="module")
def task():
    """Features, costs of degree 4 in them, and best states."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=generator)
    weights = (torch.rand(ITEMS, FEATURES, generator=generator) < 0.5).float()
    costs = ((x @ weights.T / 2 + 3) ** 4 + 1) / 3.5**4
    return x, costs, mapgrad.exact.map_state(SUBSET, -costs)


LOSSES = {
    "SPO+": (mapgrad.losses.SPOPlus, {}, "true"),
    "PG": (mapgrad.losses.DirectionalGradient, {}, "true"),
    "PG one-sided": (mapgrad.losses.DirectionalGradient, {"central": False}, "true"),
    "SSVM": (mapgrad.losses.StructuredSVM, {}, "z_true"),
    "SSVM with costs": (mapgrad.losses.StructuredSVM, {"weight": 2.0}, "margin"),
    "Fenchel-Young": (mapgrad.losses.FenchelYoung, {"seed": 0, "samples": 2}, "z_true"),
    "multiplicative": (mapgrad.losses.FenchelYoung, {"seed": 0, "multiplicative": True, "temperature": 0.3}, "z_true"),
    "Gibbs": (mapgrad.losses.FenchelYoung, {"smoothing": mapgrad.losses.Gibbs()}, "z_true"),
    "quadratic": (mapgrad.losses.FenchelYoung, {"smoothing": mapgrad.losses.Quadratic()}, "z_true"),
    "perceptron": (mapgrad.losses.FenchelYoung, {"smoothing": None}, "z_true"),
    "NCE": (mapgrad.losses.NoiseContrastive, {}, "z_true"),
    "NCE, few solves": (mapgrad.losses.NoiseContrastive, {"solve_ratio": 0.1}, "z_true"),
    "contrastive MAP": (mapgrad.losses.MAPContrastive, {}, "z_true"),
    "contrastive MAP with costs": (mapgrad.losses.MAPContrastive, {}, "both"),
    "pointwise": (mapgrad.losses.PointwiseRanking, {}, "true"),
    "pairwise": (mapgrad.losses.PairwiseRanking, {"margin": 1.0}, "true"),
    "listwise": (mapgrad.losses.ListwiseRanking, {}, "true"),
    "CaVE": (mapgrad.losses.CaVE, {}, "z_true"),
    "LAVA": (mapgrad.losses.LAVA, {}, "z_true"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_regret_falls_to_a_tenth(task, name):  # with NCE, which compares with the mean of the pool, to a fifth
    x, costs, z_true = task
    loss_class, options, target = LOSSES[name]
    solver = mapgrad.get_solver("topk", SUBSET)
    loss = loss_class(solver, minimize=True, **options)
    arguments = {"true": (costs,), "z_true": (z_true,), "margin": (z_true, costs), "both": (z_true, costs)}[target]
    torch.manual_seed(1)
    model = torch.nn.Linear(FEATURES, ITEMS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    before = mapgrad.losses.normalized_regret(solver, model(x), costs, z_true, minimize=True)
    for _ in range(50):
        optimizer.zero_grad()
        loss(model(x), *arguments).backward()
        optimizer.step()
    after = mapgrad.losses.normalized_regret(solver, model(x), costs, z_true, minimize=True)
    assert after < before / (5 if "NCE" in name else 10)


def test_a_narrow_difference_leaves_most_rows_without_a_gradient(task):
    costs = task[1]
    pred = costs[torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))].requires_grad_()
    share = {}
    for width in (0.1, 1.0):
        loss = mapgrad.losses.DirectionalGradient(mapgrad.get_solver("topk", SUBSET), width=width, minimize=True)
        (gradient,) = torch.autograd.grad(loss(pred, costs), pred)
        share[width] = gradient.any(dim=1).double().mean()
    assert share[0.1] < 0.5 < share[1.0], share


def test_two_sides_learn_faster_with_as_many_solves(task):
    x, costs, z_true = task
    found = {}
    for central in (True, False):
        solver = mapgrad.get_solver("topk", SUBSET)
        loss = mapgrad.losses.DirectionalGradient(solver, minimize=True, **{} if central else {"central": False})
        torch.manual_seed(1)
        model = torch.nn.Linear(FEATURES, ITEMS)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            loss(model(x), costs).backward()
            optimizer.step()
        solves = solver.stats["rows"]
        found[central] = mapgrad.losses.normalized_regret(solver, model(x), costs, z_true, minimize=True), solves
    assert found[True][0] < found[False][0] / 2
    assert found[True][1] == found[False][1]
