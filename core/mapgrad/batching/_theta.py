"""Stage `theta`: from a user's tensor to rows that a solver may see: type, shape, dtype, finiteness, domain."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import torch
from torch import Tensor

from mapgrad.errors import DomainError, NonFiniteError, ShapeError
from mapgrad.problems import Domain, IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from mapgrad.problems import Problem

DomainPolicy = Literal["clip", "raise"]

COMPUTED: Final = (torch.float32, torch.float64)
"""The dtypes in which solvers of batches get their rows."""

to_list = cast("Callable[[Tensor], list[Any]]", Tensor.tolist)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
"""Returns a tensor of one dimension as a list of numbers."""

IN_BACKWARD: Final = "in the backward pass, which solves θ′ = θ − step, "
"""How a message about rows of a backward pass begins."""

Culprit = tuple[str, str]
"""What made rows with NaN or infinite entries, and what to do about it."""

_DTYPES: Final = frozenset({torch.float16, torch.bfloat16, *COMPUTED})
_ROWS_NAMED: Final = 10
_CHARACTERS: Final = 1000


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which rows are perturbed and solved: at least float32."""
    return dtype if dtype in COMPUTED else torch.promote_types(dtype, torch.float32)


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which autocast makes no product on a tensor's device less precise."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def require_float(theta: object, name: str = "θ") -> Tensor:
    """Return θ, typed.

    Raises:
        TypeError: θ isn't a tensor.
        ShapeError: θ isn't a dense tensor of real floating-point numbers of 16 bits or more, with values.
    """
    if not isinstance(theta, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(theta).__name__}: wrap it in torch.as_tensor")
    if theta.dtype not in _DTYPES:
        raise ShapeError(
            f"{name} must be a floating-point tensor of float16, bfloat16, float32 or float64, got {theta.dtype}: "
            "convert it, as in theta.float()"
        )
    if theta.layout is not torch.strided:
        raise ShapeError(f"{name} must be a dense tensor, got {theta.layout}: convert it, as in theta.to_dense()")
    if theta.is_nested:
        raise ShapeError(f"{name} must be one tensor, got a nested one: pad it, as in theta.to_padded_tensor(0.0)")
    if theta.is_meta:
        raise ShapeError(f"{name} must have values, but is on the meta device: load or initialise the model first")
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
    if (
        dtype.itemsize < torch.float32.itemsize
        and isinstance(problem, IntegerProgram)
        and problem.unbounded_integers.any()
    ):
        raise ShapeError(
            f"{problem!r} has integer variables without a bound, but {dtype} holds integers exactly only up to "
            f"{exact:g}: bound them, or pass θ in a wider dtype, such as torch.float32"
        )


def is_representable(problem: Problem, dtype: torch.dtype) -> bool:
    """Tell whether every integer within the problem's bounds is a number of this dtype."""
    try:
        require_representable(problem, dtype)
    except ShapeError:
        return False
    return True


def exact_dtypes(problem: Problem | None) -> frozenset[torch.dtype]:
    """Return the float dtypes that a problem's states fit; all of them without a problem."""
    return _DTYPES if problem is None else frozenset(each for each in _DTYPES if is_representable(problem, each))


def admit(
    rows: Tensor, problem: Problem | None, policy: DomainPolicy, may_forbid: Callable[[], Tensor] | None = None
) -> tuple[Tensor, int, bool]:
    """Check rows and bring them into the problem's domain; one pass where nothing is wrong.

    Args:
        rows: [N, *shape].
        problem: What is to be solved.
        policy: What becomes of rows outside of its domain.
        may_forbid: As for `has_forbidden`.

    Returns:
        The rows, the same tensor where none had to be changed; how many were; and whether any has a forbidden entry,
        which is −inf.

    Raises:
        NonFiniteError: rows have NaN or infinite entries that forbid nothing.
        DomainError: rows lie outside the domain and the policy is "raise".
    """
    if rows.numel() == 0:
        return rows, 0, False
    if problem is None or problem.domain is Domain.REAL:
        return rows, 0, not are_finite(rows) and has_forbidden(rows, problem, may_forbid)
    low, high = extremes(rows)
    is_finite = math.isfinite(low) and math.isfinite(high)
    is_masked = not is_finite and has_forbidden(rows, problem, may_forbid)
    if high <= 0:
        return rows, 0, is_masked
    outside = row_numbers(~problem.domain.contains(rows).flatten(1).all(dim=1))
    if outside and policy == "raise":
        raise domain_error(problem, outside, (len(rows),))
    return problem.domain.clip(rows), len(outside), is_masked


def are_finite(values: Tensor) -> bool:
    """Tell whether a tensor has finite entries only: where it is so, their sum tells, which takes least."""
    return math.isfinite(values.sum().item()) or all(map(math.isfinite, extremes(values)))


def extremes(values: Tensor) -> tuple[float, float]:
    """Return the least and the largest entry of a tensor that has some; NaN where one is NaN."""
    low, high = torch.aminmax(values)
    if low.is_cpu:
        return low.item(), high.item()
    low, high = to_list(torch.stack((low, high)))  # one transfer
    return low, high


def row_numbers(mask: Tensor) -> list[int]:
    """Return where a bool tensor [N] is true."""
    return to_list(mask.nonzero().squeeze(1))


def name_rows(rows: list[int], batch: tuple[int, ...]) -> str:
    """Name rows of a batch for a message, the first few by number and, if it has several dimensions, by index."""
    named = [str(row) for row in rows[:_ROWS_NAMED]]
    if len(batch) > 1:
        indices = np.transpose(np.unravel_index(rows[:_ROWS_NAMED], batch)).tolist()
        named = [f"{row} (index {tuple(index)})" for row, index in zip(named, indices, strict=True)]
    listed = ", ".join(named) + (", …" if len(rows) > _ROWS_NAMED else "")
    return f"{'row' if len(rows) == 1 else 'rows'} {listed} ({len(rows)} of {math.prod(batch)})"


def name_problem(problem: object) -> str:
    """Name a problem for a message, in at most 1,000 characters; never raises, as an author's __repr__ may."""
    try:
        text = repr(problem)
    except Exception as error:  # noqa: BLE001 (an author's own code)
        return f"<{type(problem).__name__}, whose __repr__ raises {type(error).__name__}>"
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}… ({len(text):,} characters)"


def has_forbidden(rows: Tensor, problem: Problem | None, may_forbid: Callable[[], Tensor] | None = None) -> bool:
    """Tell whether rows have entries −inf, which forbid to choose what may be 0.

    Args:
        rows: [N, *shape].
        problem: What is to be solved.
        may_forbid: Returns bool, of which entries −inf is meant so, and isn't an overflow; only asked where rows aren't
            finite. None for all.

    Raises:
        NonFiniteError: with the numbers of the rows that have NaN, +inf, or −inf that isn't allowed or where the lower
            bound isn't 0.
    """
    if are_finite(rows):
        return False
    kept = ""
    forbidden = rows.isneginf()
    wrong = ~(rows.isfinite() | (forbidden if may_forbid is None else forbidden & may_forbid()))
    if problem is not None and problem.box[0].any():
        wrong |= (held := forbidden & torch.as_tensor(problem.box[0] != 0, device=rows.device))
        kept = _kept(held, problem)
    bad = row_numbers(wrong.flatten(1).any(dim=1))
    if bad:
        raise non_finite_error(bad, (len(rows),), kept=kept)
    return True


def _kept(held: Tensor, problem: Problem) -> str:
    """Say which entry the first of some entries [N, *shape] is, and what keeps it from 0; empty where there is none."""
    places = to_list(held.nonzero()[:1, 1:])
    if not places:
        return ""
    entry = tuple(places[0])
    return f"θ{list(entry)} is −inf, but its lower bound is {problem.box[0][entry]:g}"


def non_finite_error(
    bad: list[int], batch: tuple[int, ...], *, kept: str = "", is_backward: bool = False
) -> NonFiniteError:
    """Return the error that names rows of θ, or of a backward pass's θ′, whose NaN or infinite entries aren't allowed.

    Args:
        bad: Their numbers in the flattened batch.
        batch: The batch's dimensions.
        kept: `NonFiniteError.kept`.
        is_backward: Whether they are those of a backward pass.
    """
    if is_backward:
        return NonFiniteError(
            f"{IN_BACKWARD}θ′ has NaN or infinite entries in {name_rows(bad, batch)}, where θ and ∂L/∂z are finite: "
            f"the step overflows, so take a smaller λ or scale the loss down",
            rows=bad,
        )
    return NonFiniteError(
        f"θ has NaN or infinite entries in {name_rows(bad, batch)}, which weren't solved: only −inf is allowed (+inf "
        f"in costs, which take minimize=True), where the variable's lower bound is 0, and forbids that entry; look for "
        f"an overflow or a division by zero in what computes θ{f'; {kept}' if kept else ''}",
        rows=bad,
        kept=kept,
    )


def made_error(
    culprit: Culprit, bad: list[int], batch: tuple[int, ...], *, is_backward: bool = False
) -> NonFiniteError:
    """Return the error that names rows with NaN or infinite entries whose θ and ∂L/∂z are as they should be.

    Args:
        culprit: What made them so.
        bad: Their numbers in the flattened batch.
        batch: The batch's dimensions.
        is_backward: Whether they are those of a backward pass.
    """
    what, advice = culprit
    where = IN_BACKWARD if is_backward else ""
    return NonFiniteError(f"{where}{what} in {name_rows(bad, batch)}: {advice}", rows=bad)


def domain_error(problem: Problem, bad: list[int], batch: tuple[int, ...], *, is_backward: bool = False) -> DomainError:
    """Return the error that names rows outside of a problem's domain; arguments as for `non_finite_error`."""
    return DomainError(
        f"{IN_BACKWARD if is_backward else ''}{name_problem(problem)} is defined for {problem.domain.value} only, and "
        f'{name_rows(bad, batch)} lie outside (the policy is domain="raise"): '
        f'{"pass" if is_backward else "keep the costs −θ non-negative, or pass"} domain="clip"',
        rows=bad,
    )
