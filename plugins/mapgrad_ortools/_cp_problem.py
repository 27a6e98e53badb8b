"""Constraint models as problems."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from ortools.sat.python import cp_model


class CpModelProblem(mapgrad.Problem):
    """All values of some variables that the constraints of a CP-SAT model allow, whatever these constraints are.

    θ and z speak of the variables `columns`; z is a state if some values of the others complete it. What a solver
    maximises is ⟨θ, z⟩ + ⟨fixed, y⟩, with y the variables `others`. `from_cp_model` makes such problems.

    Args:
        model: The model's variables and constraints, in the text format of protocol buffers.
        columns: [d] distinct indices of the variables that θ prices, in θ's flattened order.
        shape: Shape of θ and z; None means (len(columns),).
        others: Distinct indices of the variables with a utility of their own.
        fixed: Their finite utilities.

    Raises:
        ProblemError: CP-SAT refuses the model, or the other arguments don't fit it.
    """

    model: str
    columns: NDArray[np.int64]
    others: NDArray[np.int64]
    fixed: NDArray[np.float64]
    _shape: tuple[int, ...]

    def __init__(
        self,
        model: str,
        columns: ArrayLike,
        shape: Sequence[int] | None = None,
        others: ArrayLike = (),
        fixed: ArrayLike = (),
    ) -> None:
        self.model = model
        self.columns, self.others = _frozen(columns, np.int64), _frozen(others, np.int64)
        self.fixed = _frozen(fixed, np.float64)
        self._shape = self.columns.shape if shape is None else tuple(int(length) for length in shape)
        self._check()

    def _check(self) -> None:
        count = len(self._domains)
        indices = np.concatenate((self.columns, self.others))
        if len(self.columns) == 0 or len(np.unique(indices)) < len(indices):
            raise mapgrad.ProblemError(
                f"columns must be at least one, and distinct from each other and from others, got {self.columns} and "
                f"{self.others}"
            )
        if indices.min() < 0 or indices.max() >= count:
            raise mapgrad.ProblemError(f"columns and others must be in 0..{count - 1}, got {indices}")
        if self.fixed.shape != self.others.shape or not np.isfinite(self.fixed).all():
            raise mapgrad.ProblemError(f"fixed must be {len(self.others)} finite numbers, got {self.fixed}")
        if np.prod(self.shape) != len(self.columns):
            raise mapgrad.ProblemError(f"shape {self.shape} doesn't fit {len(self.columns)} columns")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of θ and z."""
        return self._shape

    @cached_property
    def integer_bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lower and upper bound of each priced variable: int64 [d], read-only."""
        lower, upper = self._domains[self.columns].T
        return _frozen(lower, np.int64), _frozen(upper, np.int64)

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bound of each coordinate of z: two read-only arrays of shape `shape`."""
        lower, upper = (bound.reshape(self.shape) for bound in self.integer_bounds)
        return _frozen(lower, np.float64), _frozen(upper, np.float64)

    @property
    def kappa(self) -> float:
        """Half the number of priced Boolean variables, and at least 1."""
        lower, upper = self.integer_bounds
        return max(1.0, int(((lower == 0) & (upper == 1)).sum()) / 2)

    def to_cp_model(self) -> cp_model.CpModel:
        """Return a new CP-SAT model of the variables and constraints, without an objective.

        Raises:
            MissingDependencyError: ortools isn't installed.
            ProblemError: the text describes none.
        """
        return _cp_models().parsed(self.model)

    def to_ilp(self) -> mapgrad.IntegerProgram:
        """Refuse: this class holds the models that no integer program stands for.

        Raises:
            UnsupportedProblemError: always.
        """
        raise mapgrad.UnsupportedProblemError(
            f"{self!r} has constraints that aren't linear, which only 'ortools.cp_sat' takes"
        )

    def full(self) -> CpModelProblem:
        """Return the same constraints with every variable priced that has a utility: shape (n,), no `others`."""
        return self._full

    @cached_property
    def _full(self) -> CpModelProblem:
        if self.shape == self.columns.shape and len(self.others) == 0:
            return self
        return CpModelProblem(self.model, np.concatenate((self.columns, self.others)))

    def embed(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return utilities [N, n] as the full problem prices them: θ [N, *shape], then `fixed`."""
        flat = theta.reshape(len(theta), len(self.columns))
        return np.concatenate((flat, np.broadcast_to(self.fixed, (len(flat), len(self.fixed)))), axis=1)

    def extract(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what θ prices, [N, *shape], of states [N, n] of the full problem."""
        return x[:, : len(self.columns)].reshape(len(x), *self.shape)

    def completion_values(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return max ⟨fixed, y⟩ over the y that complete each state, by enumerating all of both.

        Args:
            z: [N, *shape] float64, states of this problem; not written to.

        Returns:
            float64 array [N].

        Raises:
            ProblemError: there is too much to enumerate, or a state isn't one.
        """
        if not self.fixed.any():
            return super().completion_values(z)
        best: dict[bytes, float] = {}
        full = self.full().state_rows()
        for state, value in zip(self.extract(full), full[:, len(self.columns) :] @ self.fixed, strict=True):
            best[state.tobytes()] = max(value, best.get(state.tobytes(), -np.inf))
        try:
            return np.array([best[state.tobytes()] for state in z + 0.0])  # no negative zeros
        except KeyError:
            raise mapgrad.ProblemError(f"something in z is no state of {self!r}") from None

    def __repr__(self) -> str:
        others = f", {len(self.others)} others with utilities of their own" if len(self.others) else ""
        return f"<CpModelProblem: {len(self.columns)} of {len(self._domains)} variables priced{others}>"

    @cached_property
    def _domains(self) -> NDArray[np.int64]:
        """Smallest and largest value of each of the model's variables, [num_vars, 2]."""
        return _cp_models().domains(self.to_cp_model())

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        found = _cp_models().solutions(self.to_cp_model(), self.columns, self.enumeration_budget(), repr(self))
        return (state.reshape(self.shape) for state in found)

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        flat = z.reshape(len(z), len(self.columns)).astype(np.int64)
        return _cp_models().completable(self.to_cp_model(), self.columns, flat, repr(self))


def _frozen(values: ArrayLike, dtype: type) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def _cp_models() -> Any:
    try:
        from mapgrad_ortools import _cp_models
    except ImportError as error:
        raise mapgrad.MissingDependencyError(
            "a CpModelProblem needs ortools, which isn't installed: pip install 'mapgrad[ortools]'"
        ) from error
    return _cp_models
