"""Stage `host`: rows from θ's device into one float64 block, lowered and scaled; answers back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from mapgrad.batching._forbidden import UNSERVED, with_penalties
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

_LARGEST_EXPONENT: Final = 1000
"""Up to which 2^e and 2^−e are normal float64 numbers."""


class Staged:
    """Rows that lie in a block, and how their answers go back.

    Args:
        rows: [N, *shape], float32 or float64, N ≥ 1, any device; not written to.
        lowering: How rows become those of the solver's own problem.
        traits: What the solver promises; it gets unscaled rows if it is scale-free.
        near: [N, *shape], states to start from, or None.
        seconds: For each row, or None.
        reuse: Whether earlier rows may help.
        is_masked: Whether rows have forbidden entries, −inf.
        patience: After which rows are to be given up, or None.
        limits: Bounds and sides, [B, ...]: row i of `rows` has those of number i modulo B. None for the problem's own.
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
        self._rows, self._lowering = rows, lowering
        self._unserved: list[int] = []
        self._plain = int(Status.OPTIMAL if traits.exact else Status.FEASIBLE)
        values = to_host(rows)
        forbidden: NDArray[np.bool_] | None = None
        if is_masked:
            entries = values.isneginf()
            forbidden = lowering.forbidden(entries.numpy()).reshape(len(rows), -1)
            values = values.masked_fill(entries, 0.0)
        if lowering.is_lowered:
            values = _from_numpy(lowering.rows(values.double().numpy()))
        flat = values.flatten(1)
        self._exponents: NDArray[np.int32] | None = None
        if traits.scale_free:
            theta = flat.double().numpy()
        else:
            theta, self._exponents = scale_rows(flat)
        start = None
        if near is not None:
            start = lowering.start(to_host(near).double().numpy()).reshape(theta.shape)
            if forbidden is not None:
                start = np.where(forbidden, 0.0, start)
            start.flags.writeable = False
        if forbidden is not None:
            if traits.masks:
                forbidden.flags.writeable = False
            else:
                theta, forbidden = self._with_penalties(theta, forbidden), None
        theta.flags.writeable = False
        if limits is not None:
            numbers = np.arange(len(theta)) % len(limits.lower)
            limits = Limits(*(_read_only(each[numbers]) for each in limits))
        self.block = Block(
            theta,
            start=start,
            seconds=seconds,
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

    def answers(self, *, priced: bool) -> tuple[Solutions, bool]:
        """Return what the block holds once it is solved.

        Args:
            priced: Whether somebody asks for objectives; they are worked out for failing rows all the same.

        Returns:
            z [N, *shape] of the rows' dtype and device, status [N], and the rest where asked for; and whether all rows
            succeeded, as in `solve_batch`.
        """
        block, lowering = self._whole, self._lowering
        block.causes = self.block.causes
        for row in self._unserved:
            block.fail(row, UnsupportedProblemError(UNSERVED))
        clean = _is_finite(block.z) and bool((block.status == self._plain).all())
        if not clean:
            for row, error in unusable_rows(_from_numpy(block.z), _from_numpy(block.status)).items():
                block.fail(row, error)
        z = block.z.reshape(-1, *lowering.native.shape)
        if lowering.is_lowered:
            z = lowering.states(z)
        if isinstance(lowering.problem, IntegerProgram) and lowering.problem.unbounded_integers.any():
            clean &= not _fail_inexact(block, z, lowering.problem.unbounded_integers, self._rows.dtype)
        objective = bound = None
        if priced or not clean:
            objective, bound = self._values()
        like = self._rows
        solutions = Solutions(
            z=to_device(z, like).reshape(like.shape),
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
    buffer = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    buffer.copy_(rows, non_blocking=True)
    torch.cuda.current_stream(rows.device).synchronize()
    return buffer


def to_device(values: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array as a tensor of another tensor's dtype and device."""
    tensor = _from_numpy(np.ascontiguousarray(values))
    if like.device.type != "cuda":
        return tensor.to(like.device, like.dtype)
    buffer = torch.empty(tensor.shape, dtype=like.dtype, pin_memory=True)  # kept by torch until the copy is done
    return buffer.copy_(tensor).to(like.device, non_blocking=True)


def scale_rows(rows: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Scale each row of [m, n] by a power of two so that max |θ| is in [½, 1); zero rows stay as they are.

    Returns:
        The scaled rows, float64 without negative zeros, and the exponents e [m] such that row = scaled · 2^e.
    """
    exponents = np.frexp(rows.abs().amax(dim=1).numpy())[1]
    if abs(exponents).max() > _LARGEST_EXPONENT:
        scaled = np.ldexp(rows.double().numpy(), -exponents[:, None])
        scaled += 0.0
        return scaled, exponents
    scaled = np.empty(rows.shape)  # NumPy's memory comes in huge pages
    factors = _from_numpy(np.ldexp(1.0, -exponents)).unsqueeze(1)
    _from_numpy(scaled).copy_(rows).mul_(factors).add_(0.0)
    return scaled, exponents


def _read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values.flags.writeable = False
    return values


def _is_finite(values: NDArray[np.float64]) -> bool:
    return are_finite(_from_numpy(values))


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
