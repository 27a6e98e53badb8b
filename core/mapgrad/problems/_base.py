"""What every problem has in common: identity by content, shape, bounds, domain, membership and enumeration."""

from __future__ import annotations

import enum
import hashlib
import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.errors import InfeasibleError, ProblemError, ShapeError, UnsupportedProblemError
from mapgrad.problems._arrays import is_array
from mapgrad.problems._budget import Budget
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems._program import IntegerProgram

STATES_LIMIT: Final = 100_000
"""More states than this are not enumerated: `Problem.states` refuses."""
_STATES_NUMBERS: Final = 2**25  # in all states together: 256 MB
_STATES_STEPS: Final = 10_000_000
_SHORT: Final = 12  # numbers of an array that are shown in full


class Domain(enum.Enum):
    """The θ for which a problem is defined, coordinate by coordinate."""

    REAL = "every real θ"
    NONPOSITIVE = "θ ≤ 0"

    def contains(self, theta: Tensor) -> Tensor:
        """Return where θ lies inside the domain: bool, of θ's shape and device."""
        return torch.ones_like(theta, dtype=torch.bool) if self is Domain.REAL else theta <= 0

    def clip(self, theta: Tensor) -> Tensor:
        """Return the nearest point of the domain; θ is not written to."""
        return theta if self is Domain.REAL else theta.clamp(max=0)


class Problem(ABC):
    """A feasible set C of vectors z of shape `shape`: no objective, no sense, no solver.

    Problems are immutable, and compare and hash by content. A subclass keeps its constructor's arguments in
    attributes of the same names and names them in `_fields`; arrays go through `frozen_array`. It sets them with
    `_set` in ``__init__``, after it has checked them, and implements `_states` and one of `_contains_row` and
    `_contains_rows`, and `to_ilp` where an integer program can stand for it.
    """

    _fields: tuple[str, ...] = ()

    def _set(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} can't be deleted")

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of θ and z, without batch dimensions."""

    @property
    @abstractmethod
    def kappa(self) -> float:
        """Expected number of ones in a state: the default κ of Sum-of-Gamma noise."""

    @property
    def domain(self) -> Domain:
        """The θ for which the problem is defined."""
        return Domain.REAL

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of each coordinate of z: two float64 CPU tensors of shape `shape`."""
        return torch.zeros(self.shape, dtype=torch.float64), torch.ones(self.shape, dtype=torch.float64)

    @cached_property
    def largest(self) -> float:
        """The largest |z_i| that the bounds allow."""
        return max(float(bound.abs().max()) for bound in self.bounds)

    @cached_property
    def digest(self) -> str:
        """A stable name of the content: equal for equal problems, in every process and on every machine."""
        package = type(self).__module__.partition(".")[0]  # not the module, which is free to move
        hasher = hashlib.sha256(f"{package}.{type(self).__qualname__}".encode())
        for name in self._fields:
            hasher.update(f"|{name}=".encode())
            hasher.update(_canonical_bytes(getattr(self, name)))
        return hasher.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return type(self) is type(other) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {name: getattr(self, name) for name in self._fields})

    def __copy__(self) -> Problem:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={short(getattr(self, name))}" for name in self._fields)
        return f"{type(self).__name__}({arguments})"

    def contains(self, z: Tensor) -> Tensor:
        """Tell which rows of z are states of this problem.

        Args:
            z: [*batch, *shape], any dtype and device; not written to.

        Returns:
            bool tensor of shape [*batch], on z's device.

        Raises:
            ShapeError: z's trailing dimensions aren't `shape`.
            UndecidedError: the step budget ran out before the answer was known.
        """
        batch = batch_shape(self, z, "z")
        rows = np.asarray(z.detach().reshape(-1, *self.shape).to("cpu", torch.float64))
        answers = self._in_box(rows)
        answers[answers] = self._contains_rows(rows[answers])
        return torch.as_tensor(answers, device=z.device).reshape(batch)

    def states(self) -> Tensor:
        """Enumerate the feasible set.

        Returns:
            float64 CPU tensor [N, *shape] of distinct states, in an order that is the same on every call.

        Raises:
            ProblemError: there are more than `STATES_LIMIT` states, or fewer that would take too much memory or time.
            InfeasibleError: there is none.
        """
        limit = min(STATES_LIMIT, _STATES_NUMBERS // math.prod(self.shape))
        found: dict[bytes, None] = {}
        for state in self._states():
            found[np.asarray(state, dtype=np.float64).tobytes()] = None
            if len(found) > limit:
                raise ProblemError(f"{self!r} has more than {limit:,} states: too many to enumerate; make it smaller")
        if not found:
            raise InfeasibleError(f"{self!r} has no state: its constraints contradict each other")
        return torch.frombuffer(bytearray().join(found), dtype=torch.float64).reshape(-1, *self.shape)

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

    def completion_values(self, z: Tensor) -> Tensor:
        """Return what states are worth beside ⟨θ, z⟩: the best that variables may add which θ doesn't price.

        Args:
            z: [N, *shape], any dtype and device, states of this problem.

        Returns:
            float64 CPU tensor [N]: zeros where θ prices all that has a utility, as here.

        Raises:
            ProblemError: it can't be told.
        """
        return torch.zeros(len(z), dtype=torch.float64)

    @abstractmethod
    def _states(self) -> Iterator[NDArray[np.float64]]:
        """Yield every state, of shape `shape` (repeats are dropped by `states`)."""

    def _in_box(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, *shape] are integer and within `bounds`."""
        lower, upper = (np.asarray(bound) for bound in self.bounds)
        return ((z >= lower) & (z <= upper) & (z == z.round())).all(axis=tuple(range(1, z.ndim)))

    def _contains_rows(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which rows of z [N, *shape], integer and within `bounds`, are states."""
        return np.fromiter((self._contains_row(row) for row in z), dtype=np.bool_, count=len(z))

    def _contains_row(self, z: NDArray[np.float64]) -> bool:
        """Tell whether z, of shape `shape`, integer and within `bounds`, is a state."""
        raise NotImplementedError(f"{type(self).__name__} must implement _contains_row or _contains_rows")

    def _enumeration_budget(self) -> Budget:
        """Return a bound on the work of `_states`, for searches that may run long without finding a new state."""
        return Budget(
            _STATES_STEPS,
            ProblemError(f"{self!r} takes more than {_STATES_STEPS:,} steps to enumerate: make it smaller"),
        )


def batch_shape(problem: Problem, tensor: Tensor, name: str) -> tuple[int, ...]:
    """Return a tensor's leading dimensions.

    Raises:
        ShapeError: the trailing dimensions aren't the problem's shape.
    """
    split = tensor.ndim - len(problem.shape)
    if split < 0 or tuple(tensor.shape[split:]) != problem.shape:
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)}, but {problem!r} needs [*batch, "
            f"{', '.join(map(str, problem.shape))}]: any batch dimensions, then {problem.shape}"
        )
    return tuple(tensor.shape[:split])


def _rebuild(cls: type[Problem], arguments: dict[str, Any]) -> Problem:
    return cls(**arguments)


def _canonical_bytes(value: Any) -> bytes:
    if is_array(value):
        little_endian = value.astype(value.dtype.newbyteorder("<"))
        return f"{little_endian.dtype.str}{value.shape}".encode() + little_endian.tobytes()
    if isinstance(value, SparseRows):
        arrays = (_canonical_bytes(array) for array in (value.indptr, value.indices, value.data))
        return repr(value.shape).encode() + b"".join(arrays)
    return repr(value).encode()


def short(value: Any) -> str:
    """Return an argument's repr, or a description of an array that would be long."""
    if isinstance(value, SparseRows):
        return short(value.toarray()) if math.prod(value.shape) <= _SHORT else repr(value)
    if is_array(value):
        return repr(value.tolist()) if value.size <= _SHORT else f"<{'×'.join(map(str, value.shape))} array>"
    return repr(value)
