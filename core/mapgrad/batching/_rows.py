"""From a user's tensor to rows that a solver may see: shape, dtype, finiteness, domain, scale, equality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
from torch import Tensor

from mapgrad.errors import DomainError, NonFiniteError, ShapeError
from mapgrad.problems import Domain, IntegerProgram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import Problem

DomainPolicy = Literal["clip", "raise"]

_ROWS_NAMED: Final = 10


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which rows are perturbed and solved: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def require_float(theta: object) -> Tensor:
    """Return θ, typed.

    Raises:
        TypeError: θ isn't a tensor.
        ShapeError: θ isn't real floating-point.
    """
    if not isinstance(theta, Tensor):
        raise TypeError(f"θ must be a torch.Tensor, got {type(theta).__name__}: wrap it in torch.as_tensor")
    if not theta.is_floating_point():
        raise ShapeError(f"θ must be a floating-point tensor, got {theta.dtype}: convert it, as in theta.float()")
    return theta


def require_representable(problem: Problem, dtype: torch.dtype) -> None:
    """Check that every integer within the problem's bounds is a number of this dtype.

    Where an integer variable lacks a bound, that takes at least float32, and answers are checked later.

    Raises:
        ShapeError: some aren't, so that a state couldn't be returned exactly.
    """
    exact = 2 / torch.finfo(dtype).eps
    if problem.largest > exact:
        raise ShapeError(
            f"states of {problem!r} reach {problem.largest:g}, but {dtype} holds integers exactly only up to "
            f"{exact:g}: pass θ in a wider dtype, such as torch.float32"
        )
    if dtype.itemsize < torch.float32.itemsize and isinstance(problem, IntegerProgram) and problem.endless.any():
        raise ShapeError(
            f"{problem!r} has integer variables without a bound, but {dtype} holds integers exactly only up to "
            f"{exact:g}: bound them, or pass θ in a wider dtype, such as torch.float32"
        )


def require_finite(rows: Tensor) -> None:
    """Check that rows [N, ...] have neither NaN nor infinities.

    Raises:
        NonFiniteError: with the numbers of the rows that have.
    """
    finite = torch.isfinite(rows)
    if not bool(finite.all()):
        bad = row_numbers(~finite.flatten(1).all(dim=1))
        raise NonFiniteError(
            f"θ has NaN or infinite entries in {name_rows(bad, len(rows))}; no solver was run: "
            f"look for an overflow or a division by zero in what computes θ",
            rows=bad,
        )


def enforce_domain(rows: Tensor, problem: Problem, policy: DomainPolicy) -> tuple[Tensor, int]:
    """Bring rows [N, *shape] into the problem's domain.

    Returns:
        The rows, and how many of them were changed.

    Raises:
        DomainError: some rows lie outside and the policy is "raise".
    """
    if problem.domain is Domain.REAL:
        return rows, 0
    outside = ~problem.domain.contains(rows).flatten(1).all(dim=1)
    bad = row_numbers(outside)
    if bad and policy == "raise":
        raise DomainError(
            f"{problem!r} is defined for {problem.domain.value} only, and {name_rows(bad, len(rows))} lie outside "
            f'(the policy is domain="raise"): keep the costs −θ non-negative, or pass domain="clip"',
            rows=bad,
        )
    return (problem.domain.clip(rows) if bad else rows), len(bad)


def scale_rows(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Scale each row [N, ...] by a power of two so that max |θ| is in [½, 1); zero rows stay as they are.

    Returns:
        The scaled rows, without negative zeros, and the exponents e of [N] such that row = scaled · 2^e.
    """
    largest = np.abs(rows).max(axis=tuple(range(1, rows.ndim)), initial=0.0)
    _, exponents = np.frexp(largest)
    shifts = exponents.reshape(-1, *(1,) * (rows.ndim - 1))
    return np.ldexp(rows, -shifts) + 0.0, exponents


def first_of_equal(rows: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Find equal rows of [N, ...], bit by bit.

    Returns:
        Numbers of the distinct rows, each at its first place, and for every row its place among these.
    """
    places: dict[bytes, int] = {}
    distinct: list[int] = []
    inverse: list[int] = []
    for number, row in enumerate(rows):
        place = places.setdefault(row.tobytes(), len(distinct))
        if place == len(distinct):
            distinct.append(number)
        inverse.append(place)
    return distinct, inverse


def row_numbers(mask: Tensor) -> list[int]:
    """Return where a bool tensor [N] is true."""
    return [int(number) for number in mask.nonzero()]


def name_rows(rows: list[int], total: int) -> str:
    """Name rows for a message, the first few by number."""
    named = ", ".join(map(str, rows[:_ROWS_NAMED])) + (", …" if len(rows) > _ROWS_NAMED else "")
    return f"{'row' if len(rows) == 1 else 'rows'} {named} ({len(rows)} of {total})"
