"""What every problem has in common: shape, bounds, domain, membership, enumeration and an integer program."""

from __future__ import annotations

import enum
import math
from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import numpy as np

from mapgrad.errors import InfeasibleError, ProblemError, ShapeError, UnsupportedProblemError
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._budget import Budget
from mapgrad.problems._identity import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from mapgrad.problems._program import IntegerProgram

STATES_LIMIT: Final = 100_000
"""More states than this are not enumerated: `Problem.states` refuses."""
_STATES_NUMBERS: Final = 2**25  # in all states together: 256 MB
_STATES_STEPS: Final = 10_000_000
_BOX_POINTS: Final = 2**13  # integer points of a box in which states are looked for one by one

Theta = TypeVar("Theta", "Tensor", "NDArray[np.float64]")


class Domain(enum.Enum):
    """The θ for which a problem is defined, coordinate by coordinate."""

    REAL = "every real θ"
    NONPOSITIVE = "θ ≤ 0"

    @overload
    def contains(self, theta: Tensor) -> Tensor: ...
    @overload
    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]: ...
    def contains(self, theta: Tensor | NDArray[np.float64]) -> Tensor | NDArray[np.bool_]:
        """Return where θ, a tensor or an array, lies inside the domain: bool, of θ's kind, shape and device."""
        return (theta <= 0) | (self is Domain.REAL)

    def clip(self, theta: Theta) -> Theta:
        """Return the nearest point of the domain, of θ's kind; θ, a tensor or an array, is not written to."""
        return theta if self is Domain.REAL else theta.clip(max=0)


class Problem(Value):
    """A feasible set C of vectors z of shape `shape`: no objective, no sense, no solver.

    Problems are immutable, and compare and hash by content. A subclass

    - takes named arguments in ``__init__``, checks them, and keeps each as an attribute of its name (`fields`): as
      numbers, strings, tuples or arrays, of which it then has a read-only copy;
    - gives `shape` and `kappa`, and `domain` and `box` where they aren't the usual ones;
    - gives `constant_sums`, if some sums of z are the same for all states, so that gradients don't depend on what the
      problem can't see;
    - implements `is_state` or, for many rows at once, `are_states`;
    - implements `iterate_states`, if the conformance kit and `mapgrad.exact` shall be able to enumerate more than sets
      in small boxes;
    - implements `to_ilp`, if an integer program can stand for it, so that every solver of programs takes it.

    None of this needs torch: `contains`, `bounds` and `states` speak of tensors, `contains_rows`, `box` and
    `state_rows` of arrays. `mapgrad.testing.check_problem` holds a problem to what is said here.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of θ and z, without batch dimensions."""

    @property
    @abstractmethod
    def kappa(self) -> float:
        """Expected number of ones in a state, positive: the default κ of Sum-of-Gamma noise."""

    @property
    def domain(self) -> Domain:
        """The θ for which the problem is defined."""
        return Domain.REAL

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """Sums of z that are the same for all states, by the axes of `shape` that are summed over: none, as here.

        ``{(0,): k}`` says that Σᵢ zᵢ = k, and ``{(0,): 1, (1,): 1}`` of a matrix that each column and each row has the
        sum 1. θ plus a constant along these axes has the same optima, which relative steps and the noise heed.
        """
        return {}

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bound of each coordinate of z: two read-only arrays of shape `shape`; 0 and 1, as here."""
        return frozen_array(np.zeros(self.shape), np.float64), frozen_array(np.ones(self.shape), np.float64)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of each coordinate of z: `box` as two float64 CPU tensors of shape `shape`."""
        import torch

        lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in self.box)
        return lower, upper

    @cached_property
    def largest(self) -> float:
        """The largest |z_i| that the bounds allow."""
        return float(max(np.abs(bound).max() for bound in self.box))

    def contains(self, z: Tensor) -> Tensor:
        """Tell which rows of z are states of this problem.

        Args:
            z: [*batch, *shape], any dtype and device; not written to.

        Returns:
            bool tensor of shape [*batch], on z's device.

        Raises:
            TypeError: z isn't a tensor.
            ShapeError: z's trailing dimensions aren't `shape`.
            UndecidedError: the step budget ran out before the answer was known.
        """
        import torch

        if not isinstance(z, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (a caller's value)
            raise TypeError(f"contains takes a tensor, got {type(z).__name__}: contains_rows takes arrays")
        return torch.as_tensor(self.contains_rows(z.detach().cpu().double().numpy()), device=z.device)

    def contains_rows(self, z: ArrayLike) -> NDArray[np.bool_]:
        """Tell which rows of an array are states of this problem.

        Args:
            z: [*batch, *shape], real numbers; not written to.

        Returns:
            bool array of shape [*batch].

        Raises:
            ShapeError: z's trailing dimensions aren't `shape`.
            UndecidedError: the step budget ran out before the answer was known.
        """
        numbers = np.asarray(z, dtype=np.float64)
        batch = batch_shape(self, numbers, "z")
        rows = numbers.reshape(-1, *self.shape)
        answers = self.in_box(rows)
        answers[answers] = self.are_states(rows[answers])
        return answers.reshape(batch)

    def states(self) -> Tensor:
        """Enumerate the feasible set.

        Returns:
            float64 CPU tensor [N, *shape] of distinct states, in an order that is the same on every call.

        Raises:
            ProblemError: there are more than `STATES_LIMIT` states, or fewer that would take too much memory or time.
            InfeasibleError: there is none.
            UnsupportedProblemError: this class of problems can't be enumerated.
        """
        import torch

        return torch.as_tensor(self.state_rows())

    def state_rows(self) -> NDArray[np.float64]:
        """Enumerate the feasible set.

        Returns:
            float64 array [N, *shape] of distinct states, in an order that is the same on every call.

        Raises:
            ProblemError: there are more than `STATES_LIMIT` states, or fewer that would take too much memory or time.
            InfeasibleError: there is none.
            UnsupportedProblemError: this class of problems can't be enumerated.
        """
        limit = min(STATES_LIMIT, _STATES_NUMBERS // math.prod(self.shape))
        found: dict[bytes, None] = {}
        for state in self.iterate_states():
            found[np.asarray(state, dtype=np.float64).tobytes()] = None
            if len(found) > limit:
                raise ProblemError(f"{self!r} has more than {limit:,} states: too many to enumerate; make it smaller")
        if not found:
            raise InfeasibleError(f"{self!r} has no state: its constraints contradict each other")
        return np.frombuffer(bytearray().join(found), dtype=np.float64).reshape(-1, *self.shape)

    def to_ilp(self) -> IntegerProgram:
        """Return an integer program of θ's shape that stands for this problem.

        For every θ of the problem's domain its optimum is that of the problem, and `repair` makes each of its
        solutions a state that is at least as good.

        Raises:
            UnsupportedProblemError: this class of problems has none.
        """
        raise UnsupportedProblemError(
            f"{self!r} stands for no integer program, so that only solvers of its own class can take it"
        )

    def repair(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return states of this problem from what solved the program of `to_ilp`.

        Args:
            z: [N, *shape] float64, solutions of that program as θ prices them; not written to.

        Returns:
            [N, *shape] float64: z itself where the program has the same feasible set, as here.
        """
        return z

    def completion_values(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what states are worth beside ⟨θ, z⟩: the best that variables may add which θ doesn't price.

        Args:
            z: [N, *shape] float64, states of this problem; not written to.

        Returns:
            float64 array [N]: zeros where θ prices all that has a utility, as here.

        Raises:
            ProblemError: it can't be told.
        """
        return np.zeros(len(z))

    def is_state(self, z: NDArray[np.float64]) -> bool:
        """Tell whether z [*shape], which `in_box` has accepted, is a state.

        Raises:
            UndecidedError: the step budget ran out before the answer was known.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement is_state or are_states")

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, *shape], all of which `in_box` has accepted, are states: bool [N].

        Raises:
            UndecidedError: the step budget ran out before the answer was known.
        """
        return np.fromiter((self.is_state(row) for row in z), dtype=np.bool_, count=len(z))

    def in_box(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, *shape] are integer and within `box`: bool [N]."""
        lower, upper = self.box
        return ((z >= lower) & (z <= upper) & (z == z.round())).all(axis=tuple(range(1, z.ndim)))

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        """Yield every state, of shape `shape`, in an order that is the same on every call; repeats are dropped.

        Here, those of the integer points of a small box that are states.

        Raises:
            UnsupportedProblemError: the box is larger, or the class may have continuous states, as it overrides
                `in_box`.
        """
        points = None if may_be_continuous(self) else box_points(self, _BOX_POINTS)
        if points is None:
            raise UnsupportedProblemError(
                f"{self!r} can't be enumerated, as {type(self).__name__} doesn't implement iterate_states and its box "
                f"hasn't at most {_BOX_POINTS:,} points, all integer"
            )
        return iter(points[self.are_states(points)])

    def enumeration_budget(self) -> Budget:
        """Return a bound on the work of `iterate_states`, for searches that may run long without a new state."""
        return Budget(
            _STATES_STEPS,
            ProblemError(f"{self!r} takes more than {_STATES_STEPS:,} steps to enumerate: make it smaller"),
        )


def may_be_continuous(problem: Problem) -> bool:
    """Tell whether states may have entries that aren't integer: whether the class has a test of its own for the box."""
    return type(problem).in_box is not Problem.in_box


def box_points(problem: Problem, most: int) -> NDArray[np.float64] | None:
    """Return all integer points of a problem's box, [N, *shape]; None where there are more than `most`."""
    lower, upper = (bound.ravel() for bound in problem.box)
    lower = np.ceil(lower) + 0.0  # no negative zeros
    counts = np.floor(upper) - lower + 1
    if not np.prod(counts) <= most:
        return None
    grid = np.stack(np.unravel_index(np.arange(int(np.prod(counts))), counts.astype(np.int64)), axis=1)
    return (lower + grid).reshape(-1, *problem.shape)


def batch_shape(problem: Problem, z: Tensor | NDArray[Any], name: str) -> tuple[int, ...]:
    """Return the leading dimensions of a tensor or an array.

    Raises:
        ShapeError: the trailing dimensions aren't the problem's shape.
    """
    shape = problem.shape
    split = z.ndim - len(shape)
    if split < 0 or z.shape[split:] != shape:
        raise ShapeError(
            f"{name} has shape {tuple(z.shape)}, but {problem!r} needs [*batch, "
            f"{', '.join(map(str, shape))}]: any batch dimensions, then {shape}"
        )
    return tuple(z.shape[:split])
