"""What estimators, targets, laws and pools refuse: numbers out of their range, and what isn't what is asked for."""

from functools import partial

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.gradients import AdaptiveStep, Centred, Relative
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)
GAUSSIAN = mapgrad.Gaussian()
Pooled, MultiFidelity = partial(mapgrad.Pooled, SUBSET), partial(mapgrad.MultiFidelity, SUBSET)
Derivative = partial(mapgrad.Pooled, SUBSET, derivative=True)

FROM_ZERO = {
    "temperature": [
        mapgrad.IMLE,
        mapgrad.AdaptiveIMLE,
        mapgrad.TwoSided,
        mapgrad.Identity,
        mapgrad.StraightThrough,
        Pooled,
    ],
    "target_temperature": [mapgrad.IMLE],
    "correction": [MultiFidelity],
    "initial": [AdaptiveStep],
}
POSITIVE = {
    "temperature": [mapgrad.Perturbed, mapgrad.Line, partial(mapgrad.Exact, SUBSET), MultiFidelity, Derivative],
    "lam": [mapgrad.Blackbox, mapgrad.Step, mapgrad.RelativeStep],
    "weight": [mapgrad.FrankWolfe],
    "tolerance": [mapgrad.FrankWolfe],
    "factor": [Relative],
    "step": [mapgrad.TwoSided, Pooled, AdaptiveStep],
    "target": [AdaptiveStep],
}
FINITE = {"alpha": [partial(mapgrad.Step, 1.0)], "momentum": [AdaptiveStep]}
SHARES = {"decay": [AdaptiveStep], "gate": [Pooled]}


def cases(tables):
    return [
        pytest.param(make, name, id=f"{name}-{number}")
        for table in tables
        for name in table
        for number, make in enumerate(table[name])
    ]


@pytest.mark.parametrize(("make", "name"), cases([FROM_ZERO, POSITIVE, FINITE, SHARES]))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400], ids=str)
def test_numbers_are_finite(make, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        make(**{name: value})


@pytest.mark.parametrize(("make", "name"), cases([FROM_ZERO, POSITIVE, FINITE, SHARES]))
@pytest.mark.parametrize(
    "value", [True, np.True_, "1", 1j, (1, 2), torch.ones(2), torch.ones((), requires_grad=True)], ids=str
)
def test_numbers_are_numbers(make, name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a number"):
        make(**{name: value})


@pytest.mark.parametrize(("make", "name"), cases([FROM_ZERO, POSITIVE, SHARES]))
def test_numbers_are_in_their_range(make, name):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        make(**{name: -0.5})


@pytest.mark.parametrize(("make", "name"), cases([POSITIVE]))
def test_what_must_be_positive_isnt_zero(make, name):
    with pytest.raises(ValueError, match=f"^{name} must be positive"):
        make(**{name: 0})


@pytest.mark.parametrize(("make", "name"), cases([FROM_ZERO]))
def test_what_may_be_zero_may_be(make, name):
    make(**{name: 0})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (mapgrad.IMLE, "symmetric"),
        (mapgrad.IMLE, "scaled"),
        (mapgrad.AdaptiveIMLE, "scaled"),
        (mapgrad.Perturbed, "multiplicative"),
        (Pooled, "derivative"),
        (partial(mapgrad.MAPLayer, mapgrad.get_solver("topk", SUBSET)), "minimize"),
        (partial(mapgrad.MAPLayer, mapgrad.get_solver("topk", SUBSET)), "normalize"),
    ],
)
@pytest.mark.parametrize("value", [1, -1, "no", torch.ones(2)], ids=str)
def test_switches_are_bools(make, name, value):
    with pytest.raises(TypeError, match=f"^{name} must be True or False"):
        make(**{name: value})
    assert getattr(make(**{name: np.False_}), name) is False


@pytest.mark.parametrize("value", ["2", 2.0, True, None])
def test_samples_are_an_int(value):
    for make in (mapgrad.IMLE, mapgrad.Perturbed, mapgrad.Line, Pooled, MultiFidelity, mapgrad.TwoSided):
        with pytest.raises(TypeError, match=r"^samples must be an int"):
            make(samples=value)


def test_an_adaptive_step_begins_within_float32():
    with pytest.raises(ValueError, match="initial must be within the range of float32"):
        AdaptiveStep(1e300)


@pytest.mark.parametrize("sides", [1.0, "12", (1.0,), (0.5, 1.0, 2.0), (0.5, "2"), (True, 1.0)])
def test_sides_are_two_numbers(sides):
    for make in (Pooled, mapgrad.TwoSided):
        with pytest.raises(TypeError, match=r"^sides must be "):
            make(sides=sides)


@pytest.mark.parametrize("target", [2.0, "step", mapgrad.Combinatorial(), AdaptiveStep(), mapgrad.RelativeStep])
def test_multi_fidelity_takes_a_step_of_one_length(target):
    with pytest.raises(TypeError, match=r"^target must be a RelativeStep or a Step, such as RelativeStep\(0\.5\), got"):
        MultiFidelity(target=target)


@pytest.mark.parametrize("noise", [5, "gaussian", None, mapgrad.Gumbel, object()])
def test_only_a_law_that_says_its_mean_is_centred(noise):
    with pytest.raises(TypeError, match=r"^noise must be a mapgrad\.StandardNoise, such as mapgrad\.Gumbel\(\), got"):
        Centred(noise)


@pytest.mark.parametrize("kappa", [True, 10**400])
def test_kappa_is_a_number_within_float64(kappa):
    with pytest.raises(ValueError, match="kappa must be a positive finite number"):
        mapgrad.SumOfGamma(kappa, terms=10)


@pytest.mark.parametrize(
    "make",
    [
        mapgrad.Pooled,
        mapgrad.MultiFidelity,
        StatePool,
        mapgrad.Exact,
        mapgrad.exact.Diagram,
        mapgrad.exact.enumerate_states,
        lambda problem: mapgrad.exact.map_state(problem, torch.ones(6)),
        mapgrad.bench.lab,
    ],
)
@pytest.mark.parametrize(
    "value",
    [mapgrad.get_solver("topk", SUBSET), None, GAUSSIAN, "KSubset(6, 2)", (6,), mapgrad.KSubset, torch.ones(6)],
    ids=str,
)
def test_a_problem_is_a_problem(make, value):
    with pytest.raises(TypeError, match=r"^problem must be a "):
        make(value)


def test_a_layer_isn_t_a_solver():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET))
    with pytest.raises(
        TypeError, match="solver is a MAPLayer already, with noise of its own: pass its attribute solver"
    ):
        mapgrad.MAPLayer(layer)
    assert mapgrad.MAPLayer(layer.solver).solver is layer.solver


def test_a_derivative_needs_noise():
    for make in (mapgrad.MultiFidelity, partial(mapgrad.Pooled, derivative=True)):
        with pytest.raises(ValueError, match=r'noise="auto" is none for GridShortestPath.*name a law, such as'):
            make(GRID)
        make(GRID, GAUSSIAN)
