"""The laws that every problem keeps, each a free function: it returns the outcome, or raises ConformanceError.

All take a problem that is small enough to enumerate. Below, C is its feasible set, as `Problem.iterate_states` yields
it or, for a class that doesn't enumerate, as `Problem.contains` picks it out of the integer points of a small box.
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
import torch

from mapgrad.errors import (
    ConformanceError,
    MapgradError,
    MissingDependencyError,
    ProblemError,
    ShapeError,
    UnsupportedProblemError,
)
from mapgrad.problems import Domain, IntegerProgram
from mapgrad.testing._outcome import Outcome
from mapgrad.testing._points import (
    BOX_LIMIT,
    flat,
    integer_points,
    is_among,
    near_misses,
    odd_points,
    sample_thetas,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.problems import Problem

_REPR: Final = 2_000  # characters, so that a message about a problem can be read
_TOLERANCE: Final = 1e-9


class _Require(Protocol):
    def __call__(self, fine: object, message: str) -> None: ...


class _NotApplicableError(MapgradError):
    """There is nothing to check."""


def check_problem(problem: Problem) -> list[Outcome]:
    """Check that a problem keeps every law; stop at the first that it breaks.

    Args:
        problem: A problem with few states.

    Returns:
        How each law stands: whether it applies to this problem, and why not.

    Raises:
        ConformanceError: A law is broken; the message has the numbers, the attribute `law` the law's name.
        ProblemError: The problem has too many states to enumerate, so that nothing could be compared with the truth.
        InfeasibleError: It has none.
    """
    return [law(problem) for law in PROBLEM_LAWS]


def _law(body: Callable[[Problem, _Require], None]) -> Callable[[Problem], Outcome]:
    """Make a law of a function that calls what it gets whenever something must be fine.

    What a problem's own methods raise breaks the law as well, but for this library's errors, which speak for
    themselves.
    """
    name = body.__name__.removeprefix("check_")

    @functools.wraps(body)
    def check(problem: Problem) -> Outcome:
        def require(fine: object, message: str) -> None:
            if not fine:
                raise ConformanceError(f"{_name_of(problem)} breaks the law {name!r}: {message}", law=name)

        try:
            body(problem, require)
        except _NotApplicableError as error:
            return Outcome(name, applies=False, reasons=(str(error),))
        except MapgradError:
            raise
        except Exception as error:
            text = f"{_name_of(problem)} breaks the law {name!r}: it raises {type(error).__name__}: {error}"
            raise ConformanceError(text, law=name) from error
        return Outcome(name)

    del check.__wrapped__  # a law takes the problem alone
    return check


@_law
def check_problem_attributes(problem: Problem, require: _Require) -> None:
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


@_law
def check_problem_identity(problem: Problem, require: _Require) -> None:
    """P = Q, of one hash, digest and repr, for each Q made of P's fields: by the constructor, by pickle, by copying."""
    cls = type(problem)
    ways: dict[str, Callable[[], Problem]] = {
        "the constructor": lambda: cls(**{name: getattr(problem, name) for name in cls.fields}),
        "pickle": lambda: pickle.loads(pickle.dumps(problem)),
        "copy.copy": lambda: copy.copy(problem),
        "copy.deepcopy": lambda: copy.deepcopy(problem),
    }
    for way, make in ways.items():
        try:
            twin = make()
        except Exception as error:  # noqa: BLE001 (whatever it is, it breaks this law)
            return require(False, f"{way} can't make it again of its fields: {type(error).__name__}: {error}")
        fine = type(twin) is cls and twin == problem and problem == twin
        require(fine, f"made of the same fields by {way}, {twin!r} isn't equal")
        for what, of in {"hash": hash, "digest": _digest, "repr": repr}.items():
            require(of(twin) == of(problem), f"made of the same fields by {way}, {twin!r} has another {what}")
    require(problem != object(), "it is equal to an object that isn't a problem")
    text = repr(problem)
    fine = cls.__name__ in text and "\n" not in text and len(text) <= _REPR
    require(fine, f"repr must be one line with the class's name, of at most {_REPR} characters, got {text[:_REPR]}")
    return None


@_law
def check_problem_immutable(problem: Problem, require: _Require) -> None:
    """No attribute can be set or deleted, and no array that is a public attribute can be written to."""
    used = [problem.digest, problem.box, problem.largest]  # what is computed once is kept as an attribute
    for name, value in [*vars(problem).items(), ("anything", used)]:
        require(_raises(AttributeError, setattr, problem, name, value), f"the attribute {name!r} can be set")
        require(_raises(AttributeError, delattr, problem, name), f"the attribute {name!r} can be deleted")
        require(name.startswith("_") or _is_read_only(value), f"an array of {name!r} can be written to: freeze it")


@_law
def check_problem_states(problem: Problem, require: _Require) -> None:
    """C is enumerated as distinct arrays of the problem's shape, at least one, in the same order on every call."""
    _require_enumeration(problem)
    states = problem.state_rows()  # refuses too many
    for state in problem.iterate_states():
        shape = np.shape(state)
        require(shape == problem.shape, f"iterate_states yields an array of shape {shape}, not {problem.shape}")
        require(np.isfinite(state).all(), f"the state {show(state[None])} isn't finite")
    again, tensor = problem.state_rows(), problem.states()
    require(not np.signbit(states[states == 0]).any(), "a state has a negative zero: add 0.0 to it")
    require(np.array_equal(again, states), "a second enumeration gives other states or another order")
    fine = tensor.dtype == torch.float64 and np.array_equal(tensor.numpy(), states)
    require(fine, "states and state_rows aren't the same")


@_law
def check_problem_bounds(problem: Problem, require: _Require) -> None:
    """∀ z ∈ C: lower ≤ z ≤ upper and |zᵢ| ≤ largest, where (lower, upper) = box."""
    states, (lower, upper) = _states(problem), problem.box
    outside = flat((states < lower) | (states > upper)).any(axis=1)
    require(not outside.any(), f"the state {show(states[outside])} lies outside the box")
    reach = float(np.abs(states).max())
    require(problem.largest >= reach, f"largest is {problem.largest!r}, but a coordinate of a state is {reach:g}")


@_law
def check_problem_constant_sums(problem: Problem, require: _Require) -> None:
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
        raise _NotApplicableError("no sum is said to be constant")
    states = _states(problem)
    for axes, value in sums.items():
        found = states.sum(axis=tuple(axis + 1 for axis in axes))
        off = flat(np.abs(found - value) > _TOLERANCE * (1 + abs(value))).any(axis=1)
        message = f"constant_sums says that z adds up to {value:g} along the axes {axes}, but the state "
        require(not off.any(), f"{message}{show(states[off])} adds up to {show(found[off])}")


@_law
def check_problem_contains(problem: Problem, require: _Require) -> None:
    """contains(z) ⇔ z ∈ C, for all integer points of the box, or near misses in a large one, and for points beside it.

    It is the same for any batch dimensions; z isn't written to, and refused where its shape is wrong.
    """
    _require_enumeration(problem)
    states = problem.state_rows()
    points = np.concatenate((states, near_misses(problem, states), odd_points(problem, states)))
    before, truth = points.copy(), is_among(states, points)
    answers = problem.contains_rows(points)
    fine = answers.dtype == np.bool_ and answers.shape == truth.shape
    require(fine, f"membership of {len(points)} rows is told by {answers.dtype} {answers.shape}")
    require(np.array_equal(points, before, equal_nan=True), "contains writes to what it is asked about")
    wrong = answers & ~truth
    require(not wrong.any(), f"contains accepts {show(points[wrong])}, which iterate_states doesn't list")
    wrong = truth & ~answers
    require(not wrong.any(), f"contains rejects {show(points[wrong])}, which iterate_states lists")
    for batch in ((), (0,), (2, 0), (1, len(points))):
        z = torch.as_tensor(points[: math.prod(batch)].reshape(*batch, *problem.shape))
        fine = np.array_equal(problem.contains(z).numpy(), truth[: math.prod(batch)].reshape(batch))
        require(fine, f"contains answers in another way where the batch dimensions are {batch}")
    refused = torch.zeros(*problem.shape[:-1], problem.shape[-1] + 1)
    fine = _raises(ShapeError, problem.contains, refused)
    require(fine, f"contains takes z of shape {tuple(refused.shape)} without a ShapeError")


@_law
def check_problem_kappa(problem: Problem, require: _Require) -> None:
    """For 0/1 sets m / 10 ≤ κ ≤ max(10 m, n / 2), where m is the mean of Σᵢ zᵢ over C, at least 1."""
    states, kappa = _states(problem), problem.kappa
    if not np.isin(states, (0, 1)).all():
        raise _NotApplicableError("some states have other entries than 0 and 1")
    ones = max(1.0, float(flat(states).sum(axis=1).mean()))
    fine = ones / 10 <= kappa <= max(10 * ones, math.prod(problem.shape) / 2)
    require(fine, f"kappa is {kappa:g}, but the states have {ones:g} ones on average")


@_law
def check_problem_completion(problem: Problem, require: _Require) -> None:
    """completion_values: C → ℝ, as many finite float64 numbers as there are states."""
    states = _states(problem)
    before, values = states.copy(), problem.completion_values(states)
    fine = values.dtype == np.float64 and values.shape == (len(states),) and np.isfinite(values).all()
    require(fine, f"completion_values must give {len(states)} finite numbers for as many states, got {values!r}")
    require(np.array_equal(states, before), "completion_values writes to the states")


@_law
def check_problem_program(problem: Problem, require: _Require) -> None:
    """max ⟨θ, z⟩ over C = max ⟨θ, x⟩ over Q, and ∀ x ∈ Q: repair(x) ∈ C with ⟨θ, repair(x)⟩ ≥ ⟨θ, x⟩.

    Q is the enumerated set of `to_ilp`, and θ any row of the problem's domain; what variables add that θ doesn't price
    counts on both sides.
    """  # noqa: D403 (a formula)
    states = _states(problem)
    try:
        given: Any = problem.to_ilp()
    except UnsupportedProblemError:
        raise _NotApplicableError(f"{type(problem).__name__} stands for no integer program") from None
    require(isinstance(given, IntegerProgram), f"to_ilp gives a {type(given).__name__}, not an IntegerProgram")
    program: IntegerProgram = given
    require(program.shape == problem.shape, f"the program has shape {program.shape}, not {problem.shape}")
    try:
        points = program.state_rows()
    except (ProblemError, MissingDependencyError) as error:
        raise _NotApplicableError(f"its program can't be enumerated: {error}") from None
    before, repaired = points.copy(), problem.repair(points)
    require(np.array_equal(points, before), "repair writes to its argument")
    require(repaired.shape == points.shape, f"repair gives shape {repaired.shape} for {points.shape}")
    lost = ~is_among(states, repaired)
    message = f"repair makes {show(repaired[lost])} of the solution {show(points[lost])}, and that isn't a state"
    require(not lost.any(), message)
    theta = sample_thetas(problem)
    of_states, of_points, of_repaired = (
        flat(theta) @ flat(z).T + of.completion_values(z)
        for z, of in ((states, problem), (points, program), (repaired, problem))
    )
    margin = _TOLERANCE * (1 + np.abs(of_states).max(axis=1))
    best, found = of_states.max(axis=1), of_points.max(axis=1)
    row = int((np.abs(best - found) - margin).argmax())
    message = f"at θ = {show(theta[row:])} the best state is worth {best[row]:.12g}, but the program's best solution "
    require(abs(best[row] - found[row]) <= margin[row], f"{message}{found[row]:.12g}")
    loss = of_points - of_repaired - margin[:, None]
    row, point = divmod(int(loss.argmax()), len(points))
    message = f"at θ = {show(theta[row:])} repair makes the solution {show(points[point:])} worse: "
    require(loss[row, point] <= 0, f"{message}{of_points[row, point]:.12g} becomes {of_repaired[row, point]:.12g}")


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
)


def _name_of(problem: Problem) -> str:
    try:
        return repr(problem)[:_REPR]
    except Exception:  # noqa: BLE001 (nothing is known yet of this problem)
        return f"a {type(problem).__name__}"


def _is_shape(value: Any) -> bool:
    lengths = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else ()
    return len(lengths) > 0 and all(type(length) is int and length >= 1 for length in lengths)


def _digest(problem: Problem) -> str:
    return problem.digest


def _raises(kind: type[Exception], call: Callable[..., object], *arguments: Any) -> bool:
    try:
        call(*arguments)
    except kind:
        return True
    return False


def _is_read_only(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_read_only, cast("tuple[Any, ...]", value)))
    return not isinstance(value, np.ndarray) or not value.flags.writeable


def _require_enumeration(problem: Problem) -> None:
    try:
        problem.iterate_states()
    except UnsupportedProblemError as error:
        raise _NotApplicableError(str(error)) from None


def _states(problem: Problem) -> NDArray[np.float64]:
    """Return all states, [N, *shape], enumerated or picked out of a small box."""
    try:
        return problem.state_rows()
    except UnsupportedProblemError as error:
        points = integer_points(problem)
        if points is None:
            reason = f"{error}, and there are more than {BOX_LIMIT:,} integer points in its box"
            raise _NotApplicableError(reason) from None
    return points[problem.contains_rows(points)]
