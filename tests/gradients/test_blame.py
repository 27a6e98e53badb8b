"""Errors name what is at fault: the noise, a temperature, a user's target or estimator, and not always θ."""

import re

import numpy as np
import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)


class Noise:
    def __init__(self, change, std=1.0):
        self.change, self.std = change, std

    def sample(self, shape, *, generator, dtype, device):
        return self.change(torch.randn(shape, generator=generator, dtype=dtype, device=device))

    def __repr__(self):
        return "Noise()"


class Target(mapgrad.Target):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, theta, gradient, context):
        return self.answer(theta, gradient)


class BothSides(Target):
    def both_sides(self, theta, gradient, context):
        return self.answer(theta, gradient)


def random_rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient_of(estimator, theta=None, upstream=None, problems=None):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=0)
    leaf = (random_rows(4, 6) if theta is None else theta).clone().requires_grad_()
    layer(leaf, problems=problems).backward(random_rows(*leaf.shape, seed=1) if upstream is None else upstream)
    return leaf.grad


def row_1(value):
    def change(noise):
        if noise.shape[1] > 1:
            noise[:, 1] = value
        return noise

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("problems", [None, [SUBSET, mapgrad.KSubset(6, 3)] * 2])
def test_noise_that_is_not_finite(value, problems):
    with pytest.raises(mapgrad.NonFiniteError, match=re.escape("the noise of Noise() has NaN or infinite")) as caught:
        gradient_of(mapgrad.IMLE(Noise(lambda noise: noise.fill_(value))), problems=problems)
    assert caught.value.rows == (0, 1, 2, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_its_rows_are_named(value):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(Noise(row_1(value)), samples=2))
    with pytest.raises(mapgrad.NonFiniteError, match=r"infinite values in row 1 \(1 of 4\)") as caught:
        layer(random_rows(4, 6))
    assert caught.value.rows == (1,)
    with pytest.raises(mapgrad.NonFiniteError, match="the noise of Noise"):
        torch.func.grad(lambda theta: layer(theta).sum())(random_rows(4, 6))


def test_noise_that_fails_in_the_backward_pass_only():
    estimator = mapgrad.IMLE(Noise(lambda noise: noise.fill_(torch.nan)), temperature=0.0, target_temperature=1.0)
    with pytest.raises(mapgrad.NonFiniteError, match=r"in the backward pass.* the noise of Noise\(\)"):
        gradient_of(estimator)


def test_theta_is_still_blamed_for_itself():
    theta = random_rows(4, 6)
    theta[2, 1] = torch.nan
    for noise in (Noise(lambda noise: noise), "auto"):
        with pytest.raises(mapgrad.NonFiniteError, match=r"^θ has NaN or infinite entries in row 2"):
            gradient_of(mapgrad.IMLE(noise), theta)
    theta[2] = -torch.inf
    with pytest.raises(mapgrad.InfeasibleError, match="row 2"):
        gradient_of(mapgrad.IMLE(), theta)


@pytest.mark.parametrize("options", [{"temperature": 1e300}, {"target_temperature": 1e300}])
def test_a_temperature_that_overflows(options):
    with pytest.raises(mapgrad.NonFiniteError, match=r"temperature=1e\+300 overflows torch.float32"):
        gradient_of(mapgrad.IMLE(**options))


@pytest.mark.parametrize("std", [np.nan, np.inf, -1.0, "wide", torch.randn])
def test_a_standard_deviation_that_is_none(std):
    with pytest.raises(ValueError, match=r"Noise\.std must be a finite number of at least 0, got"):
        gradient_of(mapgrad.IMLE(Noise(lambda noise: noise, std)))


@pytest.mark.parametrize(
    ("change", "name"),
    [(torch.Tensor.numpy, "ndarray"), (torch.Tensor.tolist, "list"), (lambda noise: None, "NoneType")],
)
def test_noise_that_is_not_a_tensor(change, name):
    with pytest.raises(TypeError, match=rf"Noise.sample must return a tensor of shape \(1, 1, 6\), got {name}"):
        gradient_of(mapgrad.IMLE(Noise(change)))


def test_a_step_of_ours_that_overflows():
    with pytest.raises(mapgrad.NonFiniteError, match="the step overflows, so take a smaller λ"):
        gradient_of(mapgrad.IMLE(None, mapgrad.Step(1e30)), upstream=torch.full((4, 6), 1e30))


def test_an_estimator_that_asks_for_nan():
    class Asking(mapgrad.IMLE):
        def forward(self, theta, sampler, solve):
            return mapgrad.Forward((answers := solve(theta[None] * torch.nan)).z, answers.status)

    class AskingLate(mapgrad.IMLE):
        def gradient(self, forward, gradient):
            return forward.solve(forward.theta[None] * torch.nan).z[0]

    with pytest.raises(mapgrad.NonFiniteError, match=r"Asking.forward asked for states of θ with NaN"):
        gradient_of(Asking())
    with pytest.raises(mapgrad.NonFiniteError, match=r"AskingLate.gradient asked for states of θ with NaN"):
        gradient_of(AskingLate())


ANSWERS = {
    "nan": (lambda t, g: (t * torch.nan, 1.0), mapgrad.NonFiniteError, "θ′ of Target.forward has NaN or infinite"),
    "none": (lambda t, g: None, TypeError, "must return a tuple (θ′, divisor), got NoneType"),
    "one": (lambda t, g: t - g, TypeError, "must return a tuple (θ′, divisor), got torch.float32 (1, 4, 6)"),
    "three": (lambda t, g: (t, g, 1.0), TypeError, "must return a tuple (θ′, divisor), got a tuple of 3"),
    "shape": (
        lambda t, g: ((t - g)[..., :3], 1.0),
        mapgrad.ShapeError,
        "(1, 4, 6) on cpu, got torch.float32 (1, 4, 3)",
    ),
    "dtype": (lambda t, g: ((t - g).double(), 1.0), mapgrad.ShapeError, "got torch.float64 (1, 4, 6)"),
    "array": (lambda t, g: ((t - g).numpy(), 1.0), TypeError, "got ndarray"),
    "zero": (lambda t, g: (t - g, 0.0), ValueError, "a divisor that is finite and not 0, got 0.0"),
    "some zero": (lambda t, g: (t - g, (t > 0).float()), ValueError, "a divisor that is finite and not 0"),
    "nan divisor": (lambda t, g: (t - g, torch.nan), ValueError, "a divisor that is finite and not 0, got nan"),
    "no divisor": (lambda t, g: (t - g, None), TypeError, "a number or a tensor as divisor, got NoneType"),
    "shape of divisor": (
        lambda t, g: (t - g, torch.ones(3)),
        mapgrad.ShapeError,
        "a divisor that broadcasts to [S, B, *shape]",
    ),
    "writes to theta": (lambda t, g: (t.sub_(g), 1.0), RuntimeError, "Target.forward wrote to its argument `theta`"),
    "writes to g": (lambda t, g: (t - g.mul_(2), 1.0), RuntimeError, "Target.forward wrote to its argument `gradient`"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_a_target_must_return(name, symmetric):
    answer, error, message = ANSWERS[name]
    with pytest.raises(error, match=re.escape(message)):
        gradient_of(mapgrad.IMLE(target=Target(answer), symmetric=symmetric))


def test_what_both_sides_must_return():
    with pytest.raises(TypeError, match=r"BothSides.both_sides must return a tuple \(θ′, θ′ for −g̃, divisor\)"):
        gradient_of(mapgrad.IMLE(target=BothSides(lambda t, g: (t - g, 1.0)), symmetric=True))


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_target_of_ones_own_gives_what_ours_gives(symmetric):
    own = Target(lambda t, g: (t - 2 * g, torch.full((1, 4, 1), 2.0)))
    expected = gradient_of(mapgrad.IMLE(target=mapgrad.Step(2.0), symmetric=symmetric))
    assert torch.equal(gradient_of(mapgrad.IMLE(target=own, symmetric=symmetric)), expected)


@pytest.mark.parametrize("make", [lambda lam: mapgrad.IMLE(None, mapgrad.Step(lam)), mapgrad.Blackbox])
@pytest.mark.parametrize("lam", [1e-300, 1e-35, 1e35, 1e300])
def test_a_step_beyond_the_dtype(make, lam):
    with pytest.raises(ValueError, match=rf"lam must be between .* torch.float32, got {re.escape(f'{lam:g}')}"):
        gradient_of(make(lam))
    if abs(np.log10(lam)) < 200:
        assert gradient_of(make(lam), random_rows(4, 6).double(), torch.randn(4, 6).double()).isfinite().all()


def test_alpha_beyond_the_dtype():
    with pytest.raises(ValueError, match=r"alpha must be at most .* got 1e\+200"):
        gradient_of(mapgrad.IMLE(None, mapgrad.Step(1.0, alpha=1e200)))
