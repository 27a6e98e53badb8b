"""Fenchel–Young losses of the quadratically regularised optimum, against a quadratic program over all states."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize

import mapgrad
import mapgrad.losses
from mapgrad.losses import FenchelYoung, Quadratic

SUBSET = mapgrad.KSubset(6, 2)


def best_value(states, row, weight):
    """max ⟨θ, μ⟩ − (w/2) ‖μ‖² over the weights of all states, by SLSQP."""
    states, row, count = states.flatten(1).double().numpy(), row.flatten().numpy(), len(states)
    found = scipy_minimize(
        lambda p: weight / 2 * np.square(p @ states).sum() - row @ (p @ states),
        np.full(count, 1 / count),
        jac=lambda p: states @ (weight * (p @ states) - row),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(count)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return -found.fun


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_value_and_gradient(case, draw, batch, weight, minimize):
    sign = -1 if minimize else 1
    how = {"temperature": weight, "minimize": minimize, "reduction": "none", "return_solution": True}
    loss = FenchelYoung(case.solver, Quadratic(), **how)
    pred = draw(*batch, *case.problem.shape).requires_grad_()
    z_true = case.solver(draw(*batch, *case.problem.shape, seed=1))
    values, mean = loss(pred, z_true)
    theta = sign * pred.detach().reshape(-1, *case.problem.shape)
    for row, z, value, each in zip(
        theta, z_true.view(theta.shape), values.view(-1), mean.view(theta.shape), strict=True
    ):
        omega = weight / 2 * z.square().sum()
        assert float(value.detach()) == pytest.approx(
            float(best_value(case.states, row, weight) + omega - (row * z).sum()), abs=1e-6
        )
        assert value >= weight / 2 * (each - z).square().sum() - 1e-9
    (gradient,) = torch.autograd.grad(values.sum(), pred)
    torch.testing.assert_close(gradient, sign * (mean - z_true))
    step = 1e-6 * draw(*pred.shape, seed=2)
    with torch.no_grad():
        change = (loss(pred + step, z_true)[0] - loss(pred - step, z_true)[0]).sum() / 2
    assert float(change) == pytest.approx(float((gradient * step).sum()), abs=1e-10)


def test_it_is_zero_where_the_true_state_wins_by_a_margin_and_convex(draw):
    loss = FenchelYoung(mapgrad.get_solver("topk", SUBSET), Quadratic(), reduction="none")
    z_true = loss.solver(draw(5, 6))
    assert not loss(2 * z_true - 1, z_true).any()
    one, other = draw(5, 6, seed=1), draw(5, 6, seed=2)
    middle = loss((one + other) / 2, z_true)
    assert (middle <= (loss(one, z_true) + loss(other, z_true)) / 2 + 1e-12).all()


def test_paths_stay_in_their_domain_and_forbidden_entries_are_0(draw):
    grid = mapgrad.GridShortestPath(2, 3)
    solver = mapgrad.get_solver("networkx.shortest_path", grid)
    costs = draw(4, 2, 3).abs().requires_grad_()
    loss = FenchelYoung(solver, Quadratic(), temperature=2.0, minimize=True)
    loss(costs, solver(-draw(4, 2, 3, seed=1).abs())).backward()
    assert costs.grad.any()
    with pytest.raises(mapgrad.DomainError, match="pred"):
        loss(-costs, solver(-costs.detach()))

    loss = FenchelYoung(mapgrad.get_solver("topk", SUBSET), Quadratic(), return_solution=True)
    pred = draw(3, 6)
    pred[:, 2] = -torch.inf
    value, mean = loss(pred, loss.solver(pred))
    assert value.isfinite()
    assert not mean[:, 2].any()


def test_refusals(draw):
    solver = mapgrad.get_solver("topk", SUBSET)
    with pytest.raises(ValueError, match="temperature above 0, got 0: take smoothing=None"):
        FenchelYoung(solver, Quadratic(), temperature=0.0)
    for how in ({"samples": 3}, {"multiplicative": True}):
        with pytest.raises(ValueError, match="in place of noise"):
            FenchelYoung(solver, Quadratic(), **how)
    pred = draw(3, 6)
    bad = pred.clone()
    bad[1] = torch.nan
    loss = FenchelYoung(solver, Quadratic())
    with pytest.raises(mapgrad.NonFiniteError, match="row 1"):
        loss(bad, solver(pred))
    z_true = solver(pred)
    z_true[2] = 5.0
    with pytest.raises(mapgrad.ProblemError, match="row 2"):
        FenchelYoung(solver, Quadratic(), temperature=1e-3)(pred.abs(), z_true)
