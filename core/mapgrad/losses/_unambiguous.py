"""The worst of the states that are optimal for a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import name_rows, row_numbers, to_list
from mapgrad.errors import DomainError, NonFiniteError
from mapgrad.losses._values import inner
from mapgrad.problems import Domain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem

_ROUNDING: Final = 1e-12
"""Of what rows are worth, below which a difference is none."""

_TRIES: Final = 100
"""Many more than it takes: with each, the product of two positive differences falls to a quarter or less."""


def worst_states(
    solver: Solver, theta: Tensor, t: Tensor, z: Tensor, split: int, problems: Sequence[Problem] | None
) -> Tensor:
    """Return for each row the state of the least ⟨t, z⟩ among those of the largest ⟨θ, z⟩.

    With g(ε) = max_z ⟨θ − εt, z⟩, which is convex, a state z that is optimal at 0 and at an ε > 0 is optimal in
    between, so that no other optimum at 0 has a smaller ⟨t, z⟩. Each try solves at an ε. An answer that is optimal at 0
    is the one; if it isn't worth more at ε than the optimum that is known, that one is. Else the next ε is where both
    are worth the same (Newton's method, as Dinkelbach's on a ratio).

    Args:
        solver: An exact one.
        theta: [*batch, *shape], predicted utilities.
        t: Like it, true ones, within the domain.
        z: Like it, the solver's answers to θ.
        split: How many dimensions those of the batch are.
        problems: One a row, in place of the solver's own.

    Returns:
        Like z.

    Raises:
        ValueError: the solver isn't exact.
        NonFiniteError: t has infinite entries where θ is finite.
        DomainError: no θ − εt lies within the domain.
        RowsError: a row has no acceptable answer.
    """
    _require_exact(solver, theta, problems)
    shape, batch = theta.shape[split:], tuple(theta.shape[:split])
    rows, true, states = (each.reshape(-1, *shape).double() for each in (theta, t, z))
    domains = _domains(solver, len(rows), problems)
    costly = torch.tensor([each is Domain.NONPOSITIVE for each in domains], dtype=torch.bool, device=rows.device)
    rows = torch.where(_spread(costly, rows), rows.clamp(max=0), rows)  # as the solver has seen them
    forbidden = rows.isneginf()
    true = true.masked_fill(forbidden, 0.0)
    _require_finite(true, batch)
    finite = rows.masked_fill(forbidden, 0.0)
    weight = _first_weights(finite.flatten(1), true.flatten(1), costly, batch)
    room = finite.flatten(1).abs().amax(dim=1) * (1e-9 if theta.dtype == torch.float64 else 1e-6)
    exact = solver.under("raise")
    left = torch.arange(len(rows), device=rows.device)
    for _ in range(_TRIES):
        if len(left) == 0:
            break
        here, there, known, epsilon = finite[left], true[left], states[left], weight[left]
        moved = here - _spread(epsilon, here) * there
        picked: list[Problem] | None = None if problems is None else [problems[row] for row in to_list(left)]
        found = exact(moved.masked_fill(forbidden[left], -torch.inf), picked)
        behind, lower = inner(here, known - found, 1), inner(there, known - found, 1)
        is_optimal = behind <= room[left]
        is_worse = is_optimal & (lower > 0)
        states[left[is_worse]] = found[is_worse]
        gain = epsilon * lower - behind
        goes_on = ~is_optimal & (gain > _ROUNDING * inner(moved.abs(), known.abs() + found.abs(), 1))
        left = left[goes_on]
        weight[left] = (behind / lower)[goes_on]
    return states.reshape(z.shape).to(z)


def _spread(values: Tensor, rows: Tensor) -> Tensor:
    """Return one value a row, [N], in a shape that broadcasts to rows [N, *shape]."""
    return values.reshape(-1, *[1] * (rows.ndim - 1))


def _domains(solver: Solver, count: int, problems: Sequence[Problem] | None) -> list[Domain]:
    """Return the domain of each row; a function's is all θ unless it says what its problem is."""
    if problems is not None:
        return [problem.domain for problem in problems]
    return [Domain.REAL if solver.problem is None else solver.problem.domain] * count


def _first_weights(theta: Tensor, t: Tensor, costly: Tensor, batch: tuple[int, ...]) -> Tensor:
    """Return an ε > 0 for each row, [N], which keeps θ − εt within the domain and weighs both alike.

    Args:
        theta: [N, n], finite.
        t: [N, n].
        costly: [N] bool, whether a row must stay ≤ 0.
        batch: The batch's dimensions, for messages.

    Raises:
        DomainError: there is none.
    """
    sizes, true_sizes = theta.abs().amax(dim=1), t.abs().amax(dim=1)
    weight = torch.where((sizes > 0) & (true_sizes > 0), sizes / true_sizes, 1.0)
    falls = costly[:, None] & (t < 0)
    bad = row_numbers((falls & (theta == 0)).any(dim=1))
    if bad:
        raise DomainError(
            f"the unambiguous regret of {name_rows(bad, batch)} would be that of the longest path through entries "
            "whose predicted cost is 0, which no solver of shortest paths finds: predict costs above 0, or take the "
            "regret of the solver's own choice",
            rows=bad,
        )
    return torch.minimum(weight, torch.where(falls, theta / t, torch.inf).amin(dim=1) / 2)


def _require_exact(solver: Solver, theta: Tensor, problems: Sequence[Problem] | None) -> None:
    works = [solver.at_work()] if problems is None else [work for work, _ in solver.works_on(theta, problems)]
    if not all(work.traits.exact for work in works):
        raise ValueError(
            f"the unambiguous regret compares optimal states, and {solver!r} doesn't promise to find one: take an "
            "exact solver, or the regret of the solver's own choice"
        )


def _require_finite(true: Tensor, batch: tuple[int, ...]) -> None:
    bad = row_numbers((~true.isfinite()).flatten(1).any(dim=1))
    if bad:
        raise NonFiniteError(
            f"true has NaN or infinite entries in {name_rows(bad, batch)} that pred doesn't forbid: the worst of the "
            "optimal states then has no finite regret",
            rows=bad,
        )
