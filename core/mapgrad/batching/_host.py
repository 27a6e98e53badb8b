"""Stage `host`: rows into one float64 block, lowered and scaled; answers back to θ's device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._arrivals import pinned
from mapgrad.batching._clock import LONGEST
from mapgrad.batching._forbidden import UNSERVED, with_penalties
from mapgrad.batching._host_kernels import NARROW, SCALE
from mapgrad.batching._policy import unusable_rows
from mapgrad.batching._theta import are_finite
from mapgrad.errors import ShapeError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers import Block, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.solvers import Lowering, Traits

_from_numpy = cast("Callable[[NDArray[Any]], Tensor]", torch.from_numpy)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)


class Staged:
    """Rows that lie in a block, and how their answers go back.

    Args:
        rows: [N, *shape], float32 or float64, N ≥ 1, on the CPU; not written to.
        lowering: How rows become those of the solver's own problem.
        traits: What the solver promises; it gets unscaled rows if it is scale-free.
        near: [N, *shape], states to start from, on the CPU, or None.
        seconds: For each row, or None.
        reuse: Whether earlier rows may help.
        is_masked: Whether rows have forbidden entries, −inf.
        patience: After which rows are to be given up, or None.
        limits: Bounds and sides, [N, ...]; None for the problem's own.
    """

    def __init__(
        self,
        rows: Tensor,
        lowering: Lowering,
        traits: Traits,
        *,
        near: Tensor | None,
        seconds: float | None,
        reuse: bool,
        is_masked: bool,
        patience: float | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._lowering = lowering
        self._unserved: list[int] = []
        self._plain = int(Status.OPTIMAL if traits.exact else Status.FEASIBLE)
        values: NDArray[Any] = rows.numpy()
        forbidden: NDArray[np.bool_] | None = None
        if is_masked:
            entries = np.isneginf(values)
            forbidden = lowering.forbidden(entries).reshape(len(rows), -1)
            values = np.where(entries, values.dtype.type(0), values)
        if lowering.is_lowered:
            values = np.ascontiguousarray(lowering.rows(values.astype(np.float64, copy=False)))
        values = values.reshape(len(rows), values[0].size)
        self._exponents: NDArray[np.int32] | None = None
        if traits.scale_free:
            theta = values.astype(np.float64, copy=False)
        else:
            theta, self._exponents = scale_rows(values)
        start = None
        if near is not None:
            start = lowering.start(near.double().numpy()).reshape(theta.shape)
            if forbidden is not None:
                start = np.where(forbidden, 0.0, start)
            start.flags.writeable = False
        if forbidden is not None:
            if traits.masks:
                forbidden.flags.writeable = False
            else:
                theta, forbidden = self._with_penalties(theta, forbidden), None
        theta.flags.writeable = False
        self.block = Block(
            theta,
            start=start,
            seconds=None if seconds is None else min(seconds, LONGEST),
            reuse=reuse,
            forbidden=forbidden,
            limits=limits,
            patience=patience,
            exact=traits.exact,
        )
        self._whole = self.block.part(0, len(theta))  # the same arrays, whatever a solver puts in their places

    def _with_penalties(self, theta: NDArray[np.float64], forbidden: NDArray[np.bool_]) -> NDArray[np.float64]:
        native = self._lowering.native
        shape = len(theta), *native.shape
        rows, entries = _from_numpy(theta).reshape(shape), _from_numpy(forbidden).reshape(shape)
        rows, self._unserved = with_penalties(rows, entries, native)
        return rows.reshape(theta.shape).numpy()

    def answers(self, like: Tensor, *, priced: bool) -> tuple[Solutions, bool]:
        """Return what the block holds once it is solved.

        Args:
            like: [N, *shape], the rows on θ's device.
            priced: Whether somebody asks for objectives; they are worked out for failing rows all the same.

        Returns:
            z [N, *shape] of that dtype and device, status [N], and the rest where asked for; and whether all rows
            succeeded, as in `solve_batch`.
        """
        block, lowering = self._whole, self._lowering
        block.causes = self.block.causes
        for row in self._unserved:
            block.fail(row, UnsupportedProblemError(UNSERVED))
        states, clean = _narrowed(block, self._plain, like)
        if not clean:
            for row, error in unusable_rows(_from_numpy(block.z), _from_numpy(block.status)).items():
                block.fail(row, error)
        has_integers = isinstance(lowering.problem, IntegerProgram) and lowering.problem.unbounded_integers.any()
        if states is None or not clean or lowering.is_lowered or has_integers:
            z = block.z.reshape(-1, *lowering.native.shape)
            if lowering.is_lowered:
                z = lowering.states(z)
            if isinstance(lowering.problem, IntegerProgram) and has_integers:
                clean &= not _fail_inexact(block, z, lowering.problem.unbounded_integers, like.dtype)
            states = to_device(z, like)
        objective = bound = None
        if priced or not clean:
            objective, bound = self._values()
        solutions = Solutions(
            z=states.view_as(like),
            status=_from_numpy(block.status).to(like.device),
            causes=block.causes,
        )
        if isinstance(lowering.native, IntegerProgram):
            # on the host: most callers don't ask for them
            solutions.variables = _from_numpy(lowering.variables(block.z))
        if objective is not None and bound is not None:
            solutions.objective, solutions.bound = (
                _from_numpy(values).to(like.device) for values in (objective, bound)
            )
        return solutions, clean

    def _values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return objectives and bounds of the rows as they were before they were scaled; NaN where unknown."""
        block = self._whole
        objective, bound = block.objective, block.bound
        if self._lowering.is_restated:  # the state may be better than the program's solution
            objective = np.full_like(objective, np.nan)
        elif np.isnan(objective).any():
            objective = np.where(np.isnan(objective), np.einsum("ij,ij->i", block.theta, block.z), objective)
        if self._exponents is not None:
            objective, bound = np.ldexp(objective, self._exponents), np.ldexp(bound, self._exponents)
        return objective, bound


def to_host(rows: Tensor) -> Tensor:
    """Return a tensor's values on the CPU: the tensor itself if it lies there."""
    if rows.device.type != "cuda":
        return rows.cpu()
    buffer = pinned(rows.shape, rows.dtype)
    buffer.copy_(rows, non_blocking=True)
    torch.cuda.current_stream(rows.device).synchronize()
    return buffer


def to_device(values: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array as a tensor of another tensor's dtype and device."""
    tensor = _from_numpy(np.ascontiguousarray(values))
    if like.device.type != "cuda":
        return tensor.to(like.device, like.dtype)
    return pinned(tensor.shape, like.dtype).copy_(tensor).to(like.device, non_blocking=True)


def _narrowed(block: Block, expected: int, like: Tensor) -> tuple[Tensor | None, bool]:
    """Look at a block's states and status in one go.

    Returns:
        The states as a float32 tensor [N, n] on the device of another one, None if that has another dtype or numba
        isn't at work; and whether all states are finite and of the expected status.
    """
    narrow = NARROW.ready() if like.dtype == torch.float32 else None
    if narrow is None:
        return None, are_finite(_from_numpy(block.z)) and bool((block.status == expected).all())
    shape = block.z.shape
    states = pinned(shape, like.dtype) if like.is_cuda else _from_numpy(np.empty(shape, np.float32))
    clean = narrow(block.z, block.status, expected, states.numpy())
    return states.to(like.device, non_blocking=True), clean


def scale_rows(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Scale each row of [m, n], float32 or float64, by a power of two so that max |θ| is in [½, 1); zero rows stay.

    Returns:
        The scaled rows, float64 without negative zeros, and the exponents e [m] such that row = scaled · 2^e.
    """
    scaled, exponents = np.empty(rows.shape), np.empty(len(rows), np.int32)
    scale = SCALE[rows.dtype].ready()
    if scale is not None:
        scale(rows, scaled, exponents)
        return scaled, exponents
    exponents[:] = np.frexp(np.abs(rows).max(axis=1))[1]
    half = exponents // 2  # as 2^−e may not be a float64 number
    np.multiply(rows, np.ldexp(1.0, -half)[:, None], out=scaled)
    scaled *= np.ldexp(1.0, half - exponents)[:, None]
    scaled += 0.0
    return scaled, exponents


def _fail_inexact(block: Block, z: NDArray[np.float64], integer: NDArray[np.bool_], dtype: torch.dtype) -> bool:
    """Fail the rows of z [m, *shape] in which a dtype can't hold one of these coordinates; tell whether there are."""
    held = _from_numpy(z).to(dtype).double().numpy()
    wrong = integer & (held != z) & np.isfinite(z)
    rows = np.flatnonzero(wrong.any(axis=tuple(range(1, wrong.ndim)))).tolist()
    for row in rows:
        value = z[row][wrong[row]][0]
        z[row] = np.nan
        block.fail(row, ShapeError(f"{dtype} can't hold the integer {value:.0f}: pass θ in a wider dtype"))
    return bool(rows)
