"""Gradients of passes in eval mode, which have no noise."""

import warnings

import pytest
import torch

import mapgrad
from mapgrad.gradients import Centred

SUBSET = mapgrad.KSubset(6, 2)
NO_GRADIENT = pytest.warns(UserWarning, match=r"Perturbed has a gradient of 0 in passes without noise.*call train\(\)")


def layer_of(estimator):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=0)


def gradient_of(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta, slope = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    (layer(theta.requires_grad_()) * slope).sum().backward()
    return theta.grad


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (
            lambda: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.RelativeStep(3.0), samples=3),
            lambda: mapgrad.IMLE(None, mapgrad.RelativeStep(3.0)),
        ),
        (lambda: mapgrad.IMLE(symmetric=True), lambda: mapgrad.IMLE(None, symmetric=True)),
        (lambda: mapgrad.AdaptiveIMLE(initial=3.0), lambda: mapgrad.IMLE(None, mapgrad.RelativeStep(3.0))),
        (lambda: mapgrad.TwoSided(draws=4, step=3.0), lambda: mapgrad.IMLE(None, mapgrad.RelativeStep(3.0))),
        (lambda: mapgrad.Blackbox(4.0), lambda: mapgrad.Blackbox(4.0)),
        (lambda: mapgrad.Identity("both", mapgrad.Gumbel()), mapgrad.Identity),
        (lambda: mapgrad.StraightThrough("auto", samples=3), mapgrad.StraightThrough),
        (mapgrad.FrankWolfe, mapgrad.FrankWolfe),
        (lambda: mapgrad.Exact(SUBSET), lambda: mapgrad.Exact(SUBSET)),
    ],
    ids=lambda make: repr(make()).partition("(")[0],
)
def test_it_is_that_of_training_without_noise(make, plain):
    found = gradient_of(layer_of(make()).eval())
    assert found.any()
    torch.testing.assert_close(found, gradient_of(layer_of(plain())))


@pytest.mark.parametrize("estimator", [mapgrad.Line(), mapgrad.Exact(SUBSET), mapgrad.StraightThrough()], ids=repr)
def test_there_is_one(estimator):
    assert gradient_of(layer_of(estimator).eval()).any()


@pytest.mark.parametrize(
    "law", [mapgrad.Gaussian(), mapgrad.Laplace(), mapgrad.SumOfGamma(2), Centred(mapgrad.Gumbel())]
)
@pytest.mark.parametrize("baseline", ["auto", None])
def test_perturbed_has_none_and_says_so_once(law, baseline):
    layer = layer_of(mapgrad.Perturbed(law, baseline=baseline)).eval()
    with NO_GRADIENT:
        assert not gradient_of(layer).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not gradient_of(layer).any()
        assert gradient_of(layer.train()).any()


def test_perturbed_is_silent_where_nothing_was_to_be_had():
    layer = layer_of(mapgrad.Perturbed()).eval()
    theta = torch.randn(4, 6, requires_grad=True)
    (layer(theta) * 0).sum().backward()
    assert not theta.grad.any()
    layer(theta)
    with NO_GRADIENT:
        layer(theta).sum().backward()


def test_perturbed_says_so_under_a_compiler_too():
    torch._dynamo.reset()
    layer = layer_of(mapgrad.Perturbed()).eval()
    with NO_GRADIENT:
        assert not gradient_of(torch.compile(layer, fullgraph=True, backend="aot_eager")).any()
