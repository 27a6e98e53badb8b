"""An existing PuLP model and an existing CP-SAT model learn inside a network."""

from itertools import product

import torch


def test_pulp_model(load, capsys):
    example = load("from_pulp_model")
    before, after = example.main(epochs=3)
    assert after < 0.5 * before
    assert f"by {before:.2f} batches, trained by {after:.2f}" in capsys.readouterr().out


def test_pulp_plans_are_the_best_ones(load):
    example = load("from_pulp_model")
    hours = torch.tensor(list(example.oven_hours.values()))
    plans = torch.tensor(list(product(range(4), repeat=5)), dtype=torch.float32)
    set_up = (plans > 0).sum(dim=1)
    feasible = (plans @ hours <= 10) & (set_up <= 3)
    plans, set_up = plans[feasible], set_up[feasible]

    theta = 2 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    best = (theta @ plans.T - 0.5 * set_up).argmax(dim=1)
    solutions = example.solver.solve(theta)
    assert torch.equal(solutions.z, plans[best])
    assert torch.equal(example.products_set_up(solutions), plans[best] > 0)


def test_cp_sat_model(load, capsys):
    example = load("from_cp_sat_model")
    before, after = example.main(epochs=3)
    assert after > before + 0.3
    assert f"{before:.0%} of the new days get the dispatcher's order, trained {after:.0%}" in capsys.readouterr().out


def test_cp_sat_orders_are_those_the_shop_can_run(load):
    example = load("from_cp_sat_model")
    orders = example.solver(torch.randn(20, example.JOBS, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(orders.sort(dim=1).values, torch.arange(float(example.JOBS)).expand(20, -1))
    assert (orders[:, 0] < orders[:, 4]).all()
    assert torch.equal(orders[:, 3], orders[:, 2] + 1)
    assert len(orders.unique(dim=0)) > 10
