"""What holds for every problem: states, membership, bounds, batches and dtypes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mapgrad.errors import ShapeError
from mapgrad.problems import AsymmetricTravelingSalesman, Domain, IntegerProgram, Problem, Ranking


def box(problem: Problem) -> Tensor:
    """All integer points within the bounds."""
    lower, upper = (bound.flatten().long().tolist() for bound in problem.bounds)
    points = itertools.product(*(range(low, high + 1) for low, high in zip(lower, upper, strict=True)))
    return torch.tensor(list(points), dtype=torch.float64).reshape(-1, *problem.shape)


def as_set(states: Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, states.flatten(1).tolist()))


def test_contains_agrees_with_states_on_every_integer_point(problem: Problem) -> None:
    points, states = box(problem), problem.states()
    assert as_set(points[problem.contains(points)]) == as_set(states)


def test_states_are_distinct_float64_and_in_the_same_order_on_every_call(problem: Problem) -> None:
    states = problem.states()
    assert states.dtype == torch.float64
    assert states.device.type == "cpu"
    assert states.shape == (len(as_set(states)), *problem.shape)
    assert torch.equal(states, problem.states())


def test_bounds_hold_all_states_and_no_more(problem: Problem) -> None:
    lower, upper = problem.bounds
    assert lower.shape == upper.shape == problem.shape
    assert lower.dtype == upper.dtype == torch.float64
    states = problem.states()
    assert (states >= lower).all()
    assert (states <= upper).all()
    assert problem.largest == max(upper.max(), -lower.min())
    if not isinstance(problem, IntegerProgram):
        assert lower.unique().tolist() == [0]
        if isinstance(problem, AsymmetricTravelingSalesman):
            upper = upper + torch.eye(problem.n)
        assert upper.unique().tolist() == ([problem.n - 1] if isinstance(problem, Ranking) else [1])


def test_kappa_is_a_positive_float(problem: Problem) -> None:
    assert isinstance(problem.kappa, float)
    assert problem.kappa > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_contains_takes_any_dtype(problem: Problem, dtype: torch.dtype) -> None:
    states = problem.states().to(dtype)
    before = states.clone()
    assert problem.contains(states).all()
    assert torch.equal(states, before)


def test_contains_keeps_batch_dimensions(problem: Problem) -> None:
    z = problem.states()[0]
    assert problem.contains(z).shape == ()
    assert problem.contains(z).item() is True
    assert problem.contains(z.expand(2, 3, *problem.shape)).tolist() == [[True] * 3] * 2
    assert problem.contains(z.expand(2, 0, *problem.shape)).shape == (2, 0)


def test_contains_detaches_and_takes_strided_rows(problem: Problem) -> None:
    z = torch.stack([problem.states()[0]] * 4)[::2].requires_grad_()
    answer = problem.contains(z)
    assert answer.tolist() == [True, True]
    assert not answer.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.5, -1.0, 99.0])
def test_what_is_no_integer_within_bounds_is_no_state(problem: Problem, value: float) -> None:
    z = problem.states()[0].clone()
    z.view(-1)[-1] = value
    assert problem.contains(z).item() is False


def test_rows_are_judged_one_by_one(problem: Problem) -> None:
    good = problem.states()[0]
    z = torch.stack([good, good + 0.25, good, torch.full_like(good, float("nan"))])
    assert problem.contains(z).tolist() == [True, False, True, False]


def test_a_wrong_shape_is_refused(problem: Problem) -> None:
    with pytest.raises(ShapeError, match=r"z has shape .*, but .* needs \[\*batch, "):
        problem.contains(torch.zeros(*problem.shape[:-1], problem.shape[-1] + 1))
    with pytest.raises(ShapeError, match=r"z has shape \(\)"):
        problem.contains(torch.tensor(0.0))


def test_domains_clip_to_their_nearest_point() -> None:
    theta = torch.tensor([-1.0, 0.0, 2.0])
    assert Domain.REAL.contains(theta).tolist() == [True, True, True]
    assert Domain.NONPOSITIVE.contains(theta).tolist() == [True, True, False]
    assert Domain.REAL.clip(theta).tolist() == [-1, 0, 2]
    assert Domain.NONPOSITIVE.clip(theta).tolist() == [-1, 0, 0]
    assert theta.tolist() == [-1, 0, 2]
