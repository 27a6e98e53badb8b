"""The laws that every problem keeps, each a free function: it returns the outcome, or raises ConformanceError.

Below, C is a problem's feasible set, as `Problem.iterate_states` yields it; where it can't be enumerated, what a solver
finds by `Problem.to_ilp` stands for C.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from mapgrad.errors import InfeasibleError, ShapeError, UnsupportedProblemError
from mapgrad.problems import Domain
from mapgrad.testing._points import flat, is_among, near_misses, odd_points, outside_points, sample_thetas, show
from mapgrad.testing._problem_law import (
    NotApplicableError,
    is_enumerated,
    law,
    program_of,
    raises,
    require_in_box,
    solved,
    states_of,
)
from mapgrad.testing._problem_program import check_problem_program
from mapgrad.testing._problem_values import check_problem_fields, check_problem_identity, check_problem_immutable

if TYPE_CHECKING:
    from mapgrad.problems import Problem
    from mapgrad.testing._outcome import Outcome
    from mapgrad.testing._problem_law import Require

_TOLERANCE: Final = 1e-9


def check_problem(problem: Problem) -> list[Outcome]:
    """Check that a problem keeps every law; stop at the first that it breaks.

    Args:
        problem: A problem with few states, if it can be enumerated. One that can't needs `to_ilp`, and a solver of
            programs that is installed.

    Returns:
        How each law stands: whether it applies to this problem, and why not.

    Raises:
        ConformanceError: A law is broken; the message has the numbers, the attribute `law` the law's name.
        ProblemError: The problem has too many states to enumerate, so that nothing could be compared with the truth.
        InfeasibleError: It has none.
    """
    return [law(problem) for law in PROBLEM_LAWS]


@law
def check_problem_attributes(problem: Problem, require: Require) -> None:
    """Shape: a tuple of at least one integer, each ≥ 1; box = bounds: arrays of that shape; κ ∈ (0, ∞); a `Domain`."""
    shape: Any = problem.shape
    require(_is_shape(shape), f"shape must be a tuple of integers ≥ 1, got {shape!r}")
    require(problem.shape == shape, f"shape was {shape!r} and is {problem.shape!r} now")
    lower, upper = problem.box
    for name, bound, tensor in zip(("lower", "upper"), (lower, upper), problem.bounds, strict=True):
        given: Any = bound
        fine = isinstance(given, np.ndarray) and bound.dtype == np.float64 and bound.shape == shape
        require(fine, f"box must have a float64 array of shape {shape} as {name} bound, got {given!r}")
        fine = tensor.dtype == torch.float64 and np.array_equal(tensor.numpy(), bound)
        require(fine, f"box and bounds have different {name} bounds")
    require((lower <= upper).all(), "a lower bound is above the upper one")
    kappa: Any = problem.kappa
    fine = isinstance(kappa, float) and 0 < kappa < math.inf
    require(fine, f"kappa must be a positive float, got {kappa!r}")
    domain: Any = problem.domain
    require(isinstance(domain, Domain), f"domain must be a mapgrad.Domain, got {domain!r}")


@law
def check_problem_states(problem: Problem, require: Require) -> None:
    """C is enumerated as distinct arrays of the problem's shape, at least one, in the same order on every call."""
    try:
        states = problem.state_rows()  # refuses too many
    except UnsupportedProblemError as error:
        raise NotApplicableError(str(error)) from None
    except InfeasibleError:
        with suppress(NotApplicableError, InfeasibleError):
            points = solved(program_of(problem), sample_thetas(problem))[1]
            require_in_box(problem, points, problem.repair(points))
        raise
    for state in problem.iterate_states():
        shape = np.shape(state)
        require(shape == problem.shape, f"iterate_states yields an array of shape {shape}, not {problem.shape}")
        require(np.isfinite(state).all(), f"the state {show(state[None])} isn't finite")
    again, tensor = problem.state_rows(), problem.states()
    require(not np.signbit(states[states == 0]).any(), "a state has a negative zero: add 0.0 to it")
    require(np.array_equal(again, states), "a second enumeration gives other states or another order")
    fine = tensor.dtype == torch.float64 and np.array_equal(tensor.numpy(), states)
    require(fine, "states and state_rows aren't the same")


@law
def check_problem_bounds(problem: Problem, require: Require) -> None:
    """∀ z ∈ C: lower ≤ z ≤ upper and |zᵢ| ≤ largest, where (lower, upper) = box; largest ≤ 10 max |zᵢ|, or ≤ 10."""
    states, (lower, upper) = states_of(problem), problem.box
    outside = flat((states < lower) | (states > upper)).any(axis=1)
    require(not outside.any(), f"the state {show(states[outside])} lies outside the box")
    reach = float(np.abs(states).max())
    require(problem.largest >= reach, f"largest is {problem.largest!r}, but a coordinate of a state is {reach:g}")
    fine = problem.largest <= 10 * max(1.0, reach)
    require(fine, f"the box reaches to {problem.largest:g}, but no coordinate of a state beyond {reach:g}: tighten it")


@law
def check_problem_constant_sums(problem: Problem, require: Require) -> None:
    """∀ z ∈ C: Σ z over each of the axes of `constant_sums` = the value there; axes are distinct and of `shape`."""
    ndim = len(problem.shape)
    sums: Any = problem.constant_sums
    for axes, value in sums.items():
        given = cast("tuple[object, ...]", axes) if isinstance(axes, tuple) else ()
        fine = 0 < len(given) == len({*given} & {*range(ndim)})
        require(fine, f"constant_sums must have tuples of distinct axes from 0 to {ndim - 1} as keys, got {axes!r}")
        fine = isinstance(value, (int, float)) and math.isfinite(value)
        require(fine, f"constant_sums must have finite numbers as values, got {value!r} for the axes {axes}")
    if not sums:
        raise NotApplicableError("no sum is said to be constant")
    states = states_of(problem)
    for axes, value in sums.items():
        found = states.sum(axis=tuple(axis + 1 for axis in axes))
        off = flat(np.abs(found - value) > _TOLERANCE * (1 + abs(value))).any(axis=1)
        message = f"constant_sums says that z adds up to {value:g} along the axes {axes}, but the state "
        require(not off.any(), f"{message}{show(states[off])} adds up to {show(found[off])}")


@law
def check_problem_contains(problem: Problem, require: Require) -> None:
    """contains(z) ⇔ z ∈ C, for all integer points of the box, or near misses in a large one, and for points beside it.

    It is the same for any batch dimensions; z isn't written to, and refused where its shape is wrong. Where C can't be
    enumerated, only what lies outside the box is known not to be in it.
    """
    states, listed = states_of(problem), "iterate_states lists"
    if is_enumerated(problem):
        points = np.concatenate((states, near_misses(problem, states), odd_points(problem, states)))
    else:
        listed = "is a solution of its program"
        points = np.concatenate((states, outside_points(problem, states)))
    before, truth = points.copy(), is_among(states, points)
    answers = problem.contains_rows(points)
    fine = answers.dtype == np.bool_ and answers.shape == truth.shape
    require(fine, f"membership of {len(points)} rows is told by {answers.dtype} {answers.shape}")
    require(np.array_equal(points, before, equal_nan=True), "contains writes to what it is asked about")
    wrong = answers & ~truth
    require(not wrong.any(), f"contains accepts {show(points[wrong])}, which iterate_states doesn't list")
    wrong = truth & ~answers
    require(not wrong.any(), f"contains rejects {show(points[wrong])}, which {listed}")
    for batch in ((), (0,), (2, 0), (1, len(points))):
        z = torch.as_tensor(points[: math.prod(batch)].reshape(*batch, *problem.shape))
        fine = np.array_equal(problem.contains(z).numpy(), truth[: math.prod(batch)].reshape(batch))
        require(fine, f"contains answers in another way where the batch dimensions are {batch}")
    refused = torch.zeros(*problem.shape[:-1], problem.shape[-1] + 1)
    fine = raises(ShapeError, problem.contains, refused)
    require(fine, f"contains takes z of shape {tuple(refused.shape)} without a ShapeError")


@law
def check_problem_kappa(problem: Problem, require: Require) -> None:
    """For 0/1 sets m / 10 ≤ κ ≤ max(10 m, n / 2), where m is the mean of Σᵢ zᵢ over C, at least 1."""
    states, kappa = states_of(problem), problem.kappa
    if not np.isin(states, (0, 1)).all():
        raise NotApplicableError("some states have other entries than 0 and 1")
    ones = max(1.0, float(flat(states).sum(axis=1).mean()))
    fine = ones / 10 <= kappa <= max(10 * ones, math.prod(problem.shape) / 2)
    require(fine, f"kappa is {kappa:g}, but the states have {ones:g} ones on average")


@law
def check_problem_completion(problem: Problem, require: Require) -> None:
    """completion_values: C → ℝ, as many finite float64 numbers as there are states."""
    states = states_of(problem)
    before, values = states.copy(), problem.completion_values(states)
    fine = values.dtype == np.float64 and values.shape == (len(states),) and np.isfinite(values).all()
    require(fine, f"completion_values must give {len(states)} finite numbers for as many states, got {values!r}")
    require(np.array_equal(states, before), "completion_values writes to the states")


PROBLEM_LAWS: Final = (
    check_problem_attributes,
    check_problem_identity,
    check_problem_immutable,
    check_problem_states,
    check_problem_bounds,
    check_problem_constant_sums,
    check_problem_contains,
    check_problem_kappa,
    check_problem_completion,
    check_problem_program,
    check_problem_fields,
)


def _is_shape(value: Any) -> bool:
    lengths = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else ()
    return len(lengths) > 0 and all(type(length) is int and length >= 1 for length in lengths)
