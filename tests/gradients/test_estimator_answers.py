"""What a user's own estimator must not return, and what the error says then."""

import numpy as np
import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
COMPILED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles


class Honest(mapgrad.Estimator):
    """Keeps a number a row, and gives back what it is told to beside."""

    def __init__(self, *, change=lambda forward: forward, give=lambda gradient: gradient, like=None):
        super().__init__(None, samples=2, temperature=1.0)
        self.change, self.give = change, give
        self.like = (lambda theta: (theta.new_empty(theta.shape[0]),)) if like is None else like

    def forward(self, theta, sampler, solve):
        forward = super().forward(theta, sampler, solve)
        forward.state = (theta.amax(-1),)
        return self.change(forward)

    def gradient(self, forward, gradient):
        return self.give(gradient.mean(0))

    def state_like(self, theta):
        return self.like(theta)


def step(estimator, run_by=lambda function: function):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator)
    theta = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    run_by(layer)(theta).square().sum().backward()
    return theta.grad


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def replaced(**fields):
    def change(forward):
        for name, make in fields.items():
            setattr(forward, name, make(forward))
        return forward

    return change


WRONG_FORWARDS = {
    "nothing": (lambda forward: None, TypeError, r"must return a Forward, got NoneType: end it with return mapgrad"),
    "a tensor": (lambda forward: forward.z, TypeError, r"must return a Forward, got torch.float32 \(2, 12, 6\) on cpu"),
    "z without samples": (
        replaced(z=lambda forward: forward.z[0]),
        mapgrad.ShapeError,
        r"torch.float32 \(12, 6\) on cpu as z, where \[S, B, \*shape\] = torch.float32 \(2, 12, 6\) on cpu was",
    ),
    "z of another dtype": (
        replaced(z=lambda forward: forward.z.double()),
        mapgrad.ShapeError,
        r"torch.float64 .* as z",
    ),
    "z on another device": (
        replaced(z=lambda forward: forward.z.to("meta")),
        mapgrad.ShapeError,
        r"on meta as z, where",
    ),
    "z from NumPy": (replaced(z=lambda forward: np.zeros((2, 12, 6))), TypeError, r"returned ndarray as z, where"),
    "status without samples": (
        replaced(status=lambda forward: forward.status[0]),
        mapgrad.ShapeError,
        r"int64 \(12,\) on cpu as status, where \[S, B\] = torch.int64 \(2, 12\) on cpu was expected",
    ),
    "status of another dtype": (
        replaced(status=lambda forward: forward.status.double()),
        mapgrad.ShapeError,
        r"torch.float64 \(2, 12\) on cpu as status",
    ),
    "status as a number": (replaced(status=lambda forward: 1), TypeError, r"returned int as status"),
    "rows without samples": (
        replaced(rows=lambda forward: forward.rows[0]),
        mapgrad.ShapeError,
        r"\(12, 6\) on cpu as rows, where None or \[S, B, \*shape\]",
    ),
    "a list as state": (replaced(state=lambda forward: [forward.z]), TypeError, r"list as state, where a tuple of"),
    "a tensor as state": (replaced(state=lambda forward: forward.z), mapgrad.ShapeError, r"as state, where a tuple of"),
    "a number as state": (replaced(state=lambda forward: (0.5,)), TypeError, r"returned float as state\[0\], where"),
    "samples first in the state": (
        replaced(state=lambda forward: (torch.zeros(()), forward.z)),
        mapgrad.ShapeError,
        r"\(2, 12, 6\) on cpu as state\[1\], where a tensor .*with one entry a row in its first dimension, B = 12, was",
    ),
}


WRONG_GRADIENTS = {
    "nothing": (lambda gradient: None, TypeError, r"returned NoneType as the gradient for θ"),
    "all samples": (
        lambda gradient: gradient.expand(2, 12, 6),
        mapgrad.ShapeError,
        r"torch.float32 \(2, 12, 6\) on cpu as the gradient for θ, where \[B, \*shape\] = torch.float32 \(12, 6\)",
    ),
    "one row": (lambda gradient: gradient[:1], mapgrad.ShapeError, r"\(1, 6\) on cpu as the gradient for θ"),
    "another dtype": (
        lambda gradient: gradient.double(),
        mapgrad.ShapeError,
        r"torch.float64 .* as the gradient for θ",
    ),
}


@COMPILED
@pytest.mark.parametrize("run_by", [lambda function: function, compiled], ids=["eager", "compile"])
@pytest.mark.parametrize(
    ("method", "wrong", "error", "message"),
    [
        pytest.param(method, {option: wrong}, error, message, id=f"{method}: {name}")
        for method, option, table in (("forward", "change", WRONG_FORWARDS), ("gradient", "give", WRONG_GRADIENTS))
        for name, (wrong, error, message) in table.items()
    ],
)
def test_a_wrong_answer(method, wrong, error, message, run_by):
    with pytest.raises(error, match=rf"^Honest\.{method} .*{message}"):
        step(Honest(**wrong), run_by)


WRONG_STATES = {
    "none": (lambda theta: (), r"forward gave \(torch.float32 \(12,\)\), but it returned \(\)"),
    "another shape": (lambda theta: (theta,), r"but it returned \(torch.float32 \(12, 6\)\)"),
    "another dtype": (lambda theta: (theta[:, 0].double(),), r"but it returned \(torch.float64 \(12,\)\)"),
}


@COMPILED
@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_state_that_compilers_were_told_otherwise(name):
    like, message = WRONG_STATES[name]
    estimator = Honest(like=like)
    assert step(estimator).abs().sum() > 0  # which only tracing needs
    with pytest.raises(mapgrad.ShapeError, match=rf"^Honest\.state_like must return .*{message}"):
        step(estimator, compiled)


@COMPILED
@pytest.mark.parametrize("like", [lambda theta: None, lambda theta: (1,)])
def test_what_cannot_be_a_state(like):
    with pytest.raises(
        RuntimeError, match=r"Honest\.state_like returned (NoneType as state|int as state\[0\]), where a"
    ):
        step(Honest(like=like), compiled)


@COMPILED
def test_an_honest_estimator():
    assert torch.equal(step(Honest()), step(Honest(), compiled))


def test_each_part_of_a_large_batch_is_looked_at(monkeypatch):
    monkeypatch.setattr("mapgrad.gradients._parts._SMALL", 0)
    monkeypatch.setattr("mapgrad.gradients._parts._PART_BYTES", 200)

    class Late(Honest):
        is_rowwise = True

        def gradient(self, forward, gradient):
            return gradient[0] if len(forward.theta) == 2 else gradient

    with pytest.raises(
        mapgrad.ShapeError, match=r"Late\.gradient returned .*\[B, \*shape\] = torch.float32 \(\d, 6\) on cpu"
    ):
        step(Late())
