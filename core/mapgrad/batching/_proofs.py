"""Stage `proofs`: rows whose answers are known without a solve, because an equal row has one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import torch
from torch import Tensor

from mapgrad.batching._theta import to_list
from mapgrad.solvers import InstanceSolver, cost_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.solutions import Solutions
    from mapgrad.solvers import BatchSolver, Lowering, SolverFactory

_unique = cast("Callable[..., tuple[Tensor, Tensor]]", torch.unique)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)

_SECONDS_A_ROW: Final = 4e-6
_SECONDS_AN_ENTRY: Final = 4e-9
"""Some times what looking for a row takes, as most rows have no equal."""

_SAMPLED_COLUMNS: Final = 16


class Known(NamedTuple):
    """Rows that were solved before, each with its answer: where the same row comes again, it isn't solved again.

    Attributes:
        rows: [N, *shape], as they were given to the solver then.
        z: [N, *shape], the answers.
        status: [N], `Status` values.
    """

    rows: Tensor
    z: Tensor
    status: Tensor


def are_worth_it(
    factory: SolverFactory, solver: InstanceSolver[Any, Any] | BatchSolver[Any], lowering: Lowering | None
) -> bool:
    """Tell whether looking for equal rows takes much less than a solve: as declared, else where rows are solved alone.

    Args:
        factory: What made the solver, and knows the seconds that it declares for a row.
        solver: The solver.
        lowering: How rows become its own; None without a problem.
    """
    cost = factory.spec and factory.spec.cost
    if cost is None or lowering is None:
        return isinstance(solver, InstanceSolver)
    entries = math.prod(lowering.native.shape)
    return cost_of(cost, lowering.native, factory.label) > _SECONDS_A_ROW + _SECONDS_AN_ENTRY * entries


def solve_unproved(
    rows: Tensor,
    known: Known | None,
    solve: Callable[[Tensor, Tensor | None], Solutions],
    counts: dict[str, float],
) -> Solutions:
    """Solve the rows that no proof answers, each of several equal ones once.

    Args:
        rows: [N, *shape].
        known: What was solved before, N rows, or None.
        solve: Solves rows [M, *shape], given with what `known` holds in their places, or None.
        counts: Gets `known` and `equal`, the numbers of rows answered so.

    Returns:
        Answers to all N rows.
    """
    left = None if known is None else _unknown(rows, known.rows)
    asked = rows if left is None else rows[left]
    counts["known"] = len(rows) - len(asked)
    near = None if known is None else known.z if left is None else known.z[left]
    if len(asked) > 1 and (equal := _equal_rows(asked)) is not None:
        first, places = equal
        counts["equal"] = len(asked) - len(first)
        answers = _taken(solve(asked[first], None if near is None else near[first]), places)
    else:
        answers = solve(asked, near)
    if known is None or left is None:
        return answers
    return _placed(answers, left, known)


def _unknown(rows: Tensor, known: Tensor) -> Tensor | None:
    """Return the numbers of the rows [N, *shape] that aren't the known ones in their places; None for all."""
    rows, known = rows.flatten(1), known.flatten(1)
    if bool((_sampled(rows) != _sampled(known)).any(dim=1).all()):
        return None
    numbers = (rows != known).any(dim=1).nonzero().squeeze(1)
    return None if len(numbers) == len(rows) else numbers


def _sampled(rows: Tensor) -> Tensor:
    """Return a few columns of rows [N, n]: where they differ the rows do, and mostly there is no more to do."""
    return rows[:, :: max(-(-rows.shape[1] // _SAMPLED_COLUMNS), 1)]


def _equal_rows(rows: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find equal rows of [N, *shape], bit by bit.

    Returns:
        Numbers of the distinct rows [M], each at its first place, and for every row its place among these [N]; None
        where no two are equal, or rows that differ have one hash.
    """
    bits = _bits(rows.flatten(1))
    sample = _sampled(bits)
    hashes = _hashes(sample)
    if len(set(to_list(hashes))) == len(bits):
        return None
    distinct, places = _unique(hashes if sample.shape == bits.shape else _hashes(bits), return_inverse=True)
    if len(distinct) == len(bits):
        return None
    numbers = torch.arange(len(bits), device=bits.device)
    first = numbers.new_full((len(distinct),), len(bits)).scatter_reduce_(0, places, numbers, "amin")
    first, order = first.sort()
    places = torch.empty_like(order).scatter_(0, order, numbers[: len(order)])[places]
    return (first, places) if torch.equal(bits[first][places], bits) else None


def row_hashes(rows: Tensor) -> Tensor:
    """Return a hash of each row [N, n] of float32 or float64 numbers, bit by bit: int64 [N]."""
    return _hashes(_bits(rows))


def _bits(rows: Tensor) -> Tensor:
    return rows.view(torch.int64 if rows.dtype == torch.float64 else torch.int32)


def _hashes(bits: Tensor) -> Tensor:
    bits = bits.to(torch.int64)
    bits = bits ^ (bits >> 32)  # small integers differ in their upper bits only, which a product would push out
    return (bits * _weights(bits.shape[1], bits.device)).sum(dim=1)


@lru_cache(maxsize=16)
def _weights(entries: int, device: torch.device) -> Tensor:
    """Return odd random int64 numbers [entries]."""
    generator = torch.Generator("cpu").manual_seed(entries)
    return (torch.empty(entries, dtype=torch.int64, device="cpu").random_(generator=generator) | 1).to(device)


def _taken(answers: Solutions, places: Tensor) -> Solutions:
    """Return the answers at these places."""
    numbers = enumerate(to_list(places)) if answers.causes else ()
    return replace(
        answers,
        z=answers.z[places],
        status=answers.status[places],
        objective=_at(answers.objective, places),
        bound=_at(answers.bound, places),
        variables=None if answers.variables is None else answers.variables[places.to(answers.variables.device)],
        causes={row: answers.causes[place] for row, place in numbers if place in answers.causes},
    )


def _placed(answers: Solutions, rows: Tensor, known: Known) -> Solutions:
    """Return known answers with those to some rows written over them."""
    numbers = to_list(rows) if answers.causes else ()
    return replace(
        answers,
        z=known.z.index_copy(0, rows, answers.z),
        status=known.status.index_copy(0, rows, answers.status),
        objective=_spread(answers.objective, rows, known),
        bound=_spread(answers.bound, rows, known),
        variables=None,  # what is known are states
        causes={numbers[place]: error for place, error in answers.causes.items()},
    )


def _at(values: Tensor | None, places: Tensor) -> Tensor:
    return None if values is None else values[places]  # pyright: ignore[reportReturnType] (what nobody asked for stays out)


def _spread(values: Tensor | None, rows: Tensor, known: Known) -> Tensor:
    if values is None:
        return None  # pyright: ignore[reportReturnType] (what nobody asked for stays out)
    return values.new_full((len(known.z),), torch.nan).index_copy_(0, rows, values)
