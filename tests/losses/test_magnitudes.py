"""Predictions of any size that float32 holds: values and gradients are those of float64, as far as float32 goes."""

import pytest
import torch

import mapgrad
import mapgrad.losses
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
STATES = SUBSET.states()
SOLVER = mapgrad.get_solver("topk", SUBSET)
OF_VALUES = {
    "SPO+": mapgrad.losses.SPOPlus,
    "PG": mapgrad.losses.DirectionalGradient,
    "pointwise": mapgrad.losses.PointwiseRanking,
    "pairwise": mapgrad.losses.PairwiseRanking,
    "listwise": mapgrad.losses.ListwiseRanking,
}
OF_STATES = {
    "SSVM": mapgrad.losses.StructuredSVM,
    "perceptron": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, None, **how),
    "noise": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, seed=0, samples=2, **how),
    "quadratic": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Quadratic(), **how),
    "Gibbs": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Gibbs(), **how),
    "CaVE": mapgrad.losses.CaVE,
    "LAVA": mapgrad.losses.LAVA,
    "NCE": mapgrad.losses.NoiseContrastive,
    "contrastive MAP": mapgrad.losses.MAPContrastive,
}
SIZES = [1e-44, 1e-40, 1e-30, 1e-9, 1.0, 1e9, 1e30, 1e38]


def value_and_gradient(name, pred, true, **how):
    loss = (OF_VALUES | OF_STATES)[name](SOLVER, **how)
    if isinstance(loss, mapgrad.losses.PooledLoss):
        loss.pool.add(STATES)
        loss.eval()
    leaf = pred.clone().requires_grad_()
    z_true = SOLVER(true)
    margins = (true.abs().max() * (1 - 2 * z_true),) if name == "SSVM" else ()
    value = loss(leaf, true if name in OF_VALUES else z_true, *margins)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OF_VALUES | OF_STATES)
def test_float32_is_as_float64_within_its_range(name, size, reduction, draw):
    pred, true = ((size * draw(4, 6, seed=seed).tanh()).float() for seed in range(2))
    most = torch.finfo(torch.float32).max
    found = value_and_gradient(name, pred, true, reduction=reduction)
    exact = value_and_gradient(name, pred.double(), true.double(), reduction=reduction)
    for each, expected in zip(found, exact, strict=True):
        assert each.dtype == torch.float32
        assert each.isfinite().all()
        beyond = expected.abs() > most * 2.0**-16
        assert (each[beyond].sign() == expected[beyond].sign()).all()
        assert (each[beyond].abs() >= most * 2.0**-17).all()
        expected = expected.masked_fill(beyond, 0.0)
        error = 1e-5 * float(expected.abs().max()) + 1e-44  # which is about float32's smallest number
        torch.testing.assert_close(each.masked_fill(beyond, 0.0).double(), expected, rtol=1e-4, atol=error)


@pytest.mark.parametrize("name", ["pointwise", "pairwise", "listwise", "NCE", "contrastive MAP"])
def test_what_float64_cannot_square_is_refused(name, draw):
    pred, true = draw(3, 6), draw(3, 6, seed=1)
    for each in (pred, true) if name in OF_VALUES else (pred,):
        kept = each[1, 2].item()
        each[1, 2] = -1e200
        with pytest.raises(mapgrad.NonFiniteError, match=r"exceeds 1e\+140 in row 1 \(1 of 3\)") as caught:
            value_and_gradient(name, pred, true)
        assert caught.value.rows == (1,)
        each[1, 2] = kept
    pool = StatePool(SUBSET)
    pool.add(STATES)
    loss = mapgrad.losses.PointwiseRanking(SOLVER, pool)
    assert loss(torch.full((1, 6), 1e140, dtype=torch.float64), torch.zeros(1, 6).double()).isfinite()


def test_listwise_ranking_at_small_temperatures_is_that_of_the_best_states(draw):
    pred = draw(5, 6).requires_grad_()
    pool = StatePool(SUBSET)
    pool.add(STATES)
    for temperature in (1e-300, 1e-30):
        loss = mapgrad.losses.ListwiseRanking(SOLVER, pool, temperature=temperature)
        value = loss(pred, pred.detach())
        assert value == 0
        assert torch.autograd.grad(value, pred)[0].isfinite().all()


def test_cave_has_no_gradient_within_the_cone_at_any_size(draw):
    """Else rounding, divided by a small ‖θ‖, would be a large step."""
    for size in SIZES:
        leaf = (size * draw(20, 6).tanh()).float().requires_grad_()
        value = mapgrad.losses.CaVE(SOLVER, reduction="sum")(leaf, SOLVER(leaf.detach()))
        assert value < 1e-12
        assert not torch.autograd.grad(value, leaf)[0].any()
