# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Normal cones of the linear relaxation of a program of zeros and ones, and projections on them."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from mapgrad.batching import ByteCache, get_solver, name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems._optional import optional_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.batching import Solver
    from mapgrad.problems import IntegerProgram, Problem

    Projection = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

_TOLERANCE: Final = 1e-6
_ROUNDING: Final = 1e-9
_MAX_BYTES: Final = 1 << 26


class _Normals(NamedTuple):
    """Normals of a program's constraints.

    Attributes:
        span: [r, n], an orthonormal basis of those of the equations, which bind in both directions.
        others: [M, n], those of the other constraints, less what `span` has of them: unit vectors, or zeros.
    """

    span: NDArray[np.float64]
    others: NDArray[np.float64]


class Cones:
    """The cones of a problem's states: all θ for which a state is optimal in the linear relaxation of its program.

    At a state, a row of the program binds if it has a side that it reaches, and so does a bound. The cone is that of
    the outward normals of what binds, of equations in both directions.

    Args:
        problem: Of zeros and ones.

    Raises:
        UnsupportedProblemError: it isn't, or has no integer program.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.program: IntegerProgram = problem.to_ilp().reformulated()
        lower, upper = problem.box
        if lower.min() < 0 or upper.max() > 1 or not self.program.integrality[self.program.decision].all():
            raise UnsupportedProblemError(
                f"CaVE needs variables of zeros and ones, and those of {name_problem(problem)} aren't"
            )
        self._completer: Solver | None = None
        self._binding: OrderedDict[bytes, NDArray[np.int64]] = OrderedDict()
        self._bytes = 0
        self._normals = lru_cache(maxsize=8)(self._normals_of)

    @property
    def held_bytes(self) -> int:
        """What it takes, in bytes, with the normals for one set of forbidden entries; about."""
        rows, columns = self.program.matrix.shape
        return 8 * columns * (3 * (rows + columns) + columns)

    def project(
        self, theta: NDArray[np.float64], z: NDArray[np.float64], iterations: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the projections of rows on the cones of states.

        Args:
            theta: [N, *shape]; −inf forbids an entry, which has no say then.
            z: [N, *shape].
            iterations: Those of an interior-point method, which stops inside of the cone; None for the projection.

        Returns:
            The projections p of rows over their largest |θ_i|, as far as θ prices variables, [N, *shape], and ‖p‖ over
            all variables, [N].

        Raises:
            MissingDependencyError: the package that projects isn't installed.
            RowsError: a state has no values for the variables that θ doesn't price.
        """
        program = self.program
        nearest = _nearest() if iterations is None else _interior(iterations)
        rows = np.zeros((len(theta), program.num_vars))
        rows[:, program.decision] = theta.reshape(len(theta), len(program.decision))
        for row, binding in zip(rows, self._bindings(z), strict=True):
            seen = np.isfinite(row)
            span, others = self._normals(seen.tobytes())
            row[~seen] = 0
            if size := np.abs(row).max(initial=0):
                row /= size
                along = span.T @ (span @ row)
                chosen = others[binding]
                chosen = chosen[chosen.any(axis=1)]
                # without normals SciPy's nnls brings the whole process down
                row[:] = along + nearest(row - along, chosen) if len(chosen) else along
        return program.extract(rows), np.linalg.norm(rows, axis=1)

    def _bindings(self, z: NDArray[np.float64]) -> list[NDArray[np.int64]]:
        """Return which of the normals bind at states [N, *shape], and keep that of as many as there is room for."""
        keys = [state.tobytes() for state in z]
        new = {key: place for place, key in enumerate(keys) if key not in self._binding}
        if new:
            for key, x in zip(new, self._completed(z[list(new.values())]), strict=True):
                self._binding[key] = np.flatnonzero(self._reached(x))
                self._bytes += len(key) + self._binding[key].nbytes
        found = [self._binding[key] for key in keys]
        while self._bytes > _MAX_BYTES:
            key, binding = self._binding.popitem(last=False)
            self._bytes -= len(key) + binding.nbytes
        return found

    def _completed(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values of all variables, [N, num_vars], for states [N, *shape]."""
        program = self.program
        if len(program.others) == 0:
            return program.embed(z)
        if self._completer is None:
            self._completer = get_solver("scipy.milp", None)
        whole, fixed = program.full(), []
        for state in z.reshape(len(z), -1):
            lower, upper = whole.lower.copy(), whole.upper.copy()
            lower[program.decision] = upper[program.decision] = state
            fixed.append(whole.replace(lower=lower, upper=upper))
        theta = torch.zeros(len(z), program.num_vars, dtype=torch.float64, device="cpu")
        return self._completer(theta, fixed).numpy()

    def _reached(self, x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which constraints are met with equality: upper and lower sides of rows, then bounds, [M]."""
        program = self.program
        activity = program.matrix.activities(x[None])[0]
        room = _TOLERANCE * np.maximum(program.matrix.magnitudes(x[None])[0], 1)
        return np.concatenate(
            (
                activity >= program.row_upper - room,
                activity <= program.row_lower + room,
                x >= program.upper - _TOLERANCE,
                x <= program.lower + _TOLERANCE,
            )
        )

    def _normals_of(self, seen: bytes) -> _Normals:
        """Return the normals as far as some variables go, a bool [num_vars] as bytes, in the order of `_reached`."""
        program = self.program
        rows, unit = program.matrix.toarray(), np.eye(program.num_vars)
        is_equation = np.concatenate((program.row_lower == program.row_upper, program.lower == program.upper))
        one_way = np.concatenate((rows, unit)) * np.frombuffer(seen, dtype=np.bool_)
        _, sizes, directions = np.linalg.svd(one_way[is_equation], full_matrices=False)
        span = directions[sizes > _ROUNDING * sizes.max(initial=0)]
        m = len(rows)
        others = np.concatenate((one_way[:m], -one_way[:m], one_way[m:], -one_way[m:]))
        before = np.linalg.norm(others, axis=1, keepdims=True)
        others = others - (others @ span.T) @ span
        lengths = np.linalg.norm(others, axis=1, keepdims=True)
        is_spanned = lengths <= _ROUNDING * before
        return _Normals(span, np.where(is_spanned, 0.0, others / np.where(is_spanned, 1.0, lengths)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Cones, (self.problem,)


def _bytes_of(cones: Cones) -> int:
    return cones.held_bytes


cones_of: Final = ByteCache(Cones, _bytes_of, _MAX_BYTES)
"""Returns the cones of a problem, those of the last ones kept."""


def _nearest() -> Projection:
    """Return what finds the nearest point of the cone of unit normals [m, n], m > 0, to a point [n], by SciPy.

    Raises:
        MissingDependencyError: scipy isn't installed.
    """
    optimize = optional_module("scipy.optimize", "CaVE's projection", "scipy")

    def project(point: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            found = optimize.nnls(normals.T, point, maxiter=10 * sum(normals.shape))[0] @ normals
        except RuntimeError:  # it went round in a circle
            found = point
        else:
            left, size = point - found, np.linalg.norm(point)
            if (normals @ left).max(initial=0) <= _ROUNDING * size and abs(left @ found) <= _ROUNDING * size**2:
                return found
        # nnls misses the nearest point now and then where normals depend on each other; this takes ten times as long
        return optimize.lsq_linear(normals.T, point, bounds=(0, np.inf), method="bvls", tol=1e-14).x @ normals

    return project


def _interior(iterations: int) -> Projection:
    """Return what does the same by some iterations of Clarabel's interior-point method, and stops inside of the cone.

    Raises:
        MissingDependencyError: clarabel or scipy isn't installed.
    """
    sparse = optional_module("scipy.sparse", "CaVE's projection", "scipy")
    clarabel = optional_module("clarabel", "CaVE with `iterations`", "cave")
    settings: Any = clarabel.DefaultSettings()
    settings.max_iter, settings.verbose, settings.max_threads = iterations, False, 1

    def project(point: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
        m = len(normals)
        gram = sparse.triu(sparse.csc_matrix(normals @ normals.T), format="csc")
        signs, cones = -sparse.eye(m, format="csc"), [clarabel.NonnegativeConeT(m)]
        found = clarabel.DefaultSolver(gram, -normals @ point, signs, np.zeros(m), cones, settings).solve()
        return np.maximum(found.x, 0) @ normals

    return project
