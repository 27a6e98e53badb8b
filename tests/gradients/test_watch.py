"""The watch on the scale of θ, and what `MAPLayer.stats` shows of the last backward passes."""

import warnings

import pytest
import torch

import mapgrad
from mapgrad.gradients import Relative, StraightThrough, _monitor

SUBSET = mapgrad.KSubset(6, 2)
THETA = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
SLOPE = torch.arange(6.0)


def backward(layer, scale, count=100):
    for _ in range(count):
        leaf = (scale * THETA).requires_grad_()
        (layer(leaf) * SLOPE).sum().backward()


def layer_with(estimator, **options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, **options)


def caught(layer, *scales):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for scale in scales:
            backward(layer, scale)
    return [each for each in found if "the scale of θ" in str(each.message)]


@pytest.mark.parametrize(
    ("estimator", "scales", "words"),
    [
        (StraightThrough(), (1.0, 1e-4, 1e-6), "fell from .* its gradient grows as it shrinks"),
        (StraightThrough(), (1.0, 10.0, 1e4), "rose from .* its gradient shrinks as it grows"),
        (StraightThrough(mapgrad.Gumbel()), (10.0, 1e-3), "fell from .* noise of 1.3 drowns it"),
        (StraightThrough(mapgrad.Gumbel()), (1.0, 1e4), "rose from .* noise of 1.3 changes hardly an answer"),
        (StraightThrough(mapgrad.Gumbel(), temperature=Relative(0.5)), (1.0, 1e-4), "fell from .* grows as it shrinks"),
        (mapgrad.IMLE(None), (0.0, 1.0, 1e-4), "fell from"),
        (StraightThrough(), (1.0, 0.0), "fell from .* to 0 within"),
    ],
)
def test_one_warning_when_the_scale_runs_away(estimator, scales, words):
    found = caught(layer_with(estimator), *scales, *scales)
    assert len(found) == 1
    with pytest.warns(UserWarning, match=f"{words}.*Pass normalize=True"):
        warnings.warn_explicit(found[0].message, UserWarning, found[0].filename, found[0].lineno)
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    ("estimator", "scales"),
    [
        (StraightThrough(), (1.0, 0.01, 50.0)),
        (StraightThrough(mapgrad.Gumbel()), (1e-3, 10.0)),  # towards the noise's own
        (StraightThrough(mapgrad.Gumbel()), (1e4, 1.0)),
        (StraightThrough(), (0.0, 1e-3, 0.5)),
    ],
)
def test_no_warning_where_the_scale_stays_or_comes_near_the_noise(estimator, scales):
    assert not caught(layer_with(estimator), *scales)


def test_rows_that_are_normalised_have_one_scale():
    layer = layer_with(StraightThrough(), normalize=True)
    assert not caught(layer, 1.0, 1e-6, 1e6)
    assert layer.stats["scale"] == pytest.approx(1.0)


def test_masks_and_constants_are_not_the_scale():
    layer = layer_with(StraightThrough())
    backward(layer, 1.0)
    before = layer.stats["scale"]
    assert before == pytest.approx(float(THETA.std(1, correction=0).median()), rel=0.3)
    leaf = torch.cat([THETA + 100, torch.full((8, 2), -1e9)], dim=1)
    other = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 2)), StraightThrough())
    for _ in range(100):
        other(leaf.clone().requires_grad_()).sum().backward()
    assert other.stats["scale"] == pytest.approx(before, rel=0.3)


def test_one_pass_in_a_hundred_is_looked_at(monkeypatch):
    calls = []
    spread = _monitor.spread
    monkeypatch.setattr(_monitor, "spread", lambda *arguments: calls.append(arguments[0].shape) or spread(*arguments))
    layer = layer_with(StraightThrough())
    backward(layer, 1.0, 350)
    assert calls == [(8, 6)] * 6  # of what counts, and of all
    large = THETA.repeat(1000, 1).requires_grad_()
    for _ in range(50):
        layer(large).sum().backward()
    assert calls[6][0] * 6 <= _monitor._LOOKED_AT + 6


def test_sparsity_is_the_share_of_zeros_in_the_gradient():
    layer = layer_with(mapgrad.IMLE(None))
    zeros = []
    for _ in range(5):
        leaf = THETA.clone().requires_grad_()
        (layer(leaf) * SLOPE).sum().backward()
        zeros.append(float((leaf.grad == 0).float().mean()))
    assert layer.stats["sparsity"] == pytest.approx(sum(zeros) / 5)
    assert layer.stats["lam"] == 1.0
    assert "snr" not in layer.stats


def test_statistics_of_now_forget_what_was_long_ago():
    layer = layer_with(mapgrad.IMLE(None, mapgrad.Step(1e-6)))
    with pytest.warns(UserWarning, match="zero gradient"):
        backward(layer, 1.0)
    assert layer.stats["sparsity"] == 1.0
    layer.estimator.target.lam = 100.0
    backward(layer, 1.0, 100)
    assert layer.stats["sparsity"] < 1.0
    fresh = layer.stats["sparsity"]
    backward(layer, 1.0, 100)
    assert layer.stats["sparsity"] == pytest.approx(fresh)
    assert layer.stats["lam"] == 100.0
    assert layer.stats["dead"] >= 100


@pytest.mark.parametrize("samples", [2, 8])
def test_signal_to_noise_is_that_of_many_repetitions(samples):
    layer = layer_with(mapgrad.IMLE(mapgrad.Gumbel(), samples=samples, scaled=False), seed=0)
    gradients = []
    for _ in range(400):
        leaf = THETA.clone().requires_grad_()
        (layer(leaf) * SLOPE).sum().backward()
        gradients.append(leaf.grad)
    found = torch.stack(gradients).double()
    noise = found.var(0).sum()
    signal = found.mean(0).square().sum() - noise / 400
    assert layer.stats["snr"] == pytest.approx(float(signal / noise), rel=0.15)
    assert layer.stats["lam"] == 0.5


def test_a_layer_that_did_nothing_has_no_statistics_of_now():
    assert not {"sparsity", "snr", "scale", "lam"} & layer_with(mapgrad.IMLE()).stats.keys()


def test_costs_whose_softmax_becomes_peaked_are_no_smaller_for_it():
    problem = mapgrad.KSubset(50, 3)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), mapgrad.IMLE(None), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(401):
            logits = torch.linspace(0, 0.3 * step, 50).expand(4, 50).clone().requires_grad_()
            (layer(50 * logits.softmax(dim=1)) ** 2).sum().backward()
