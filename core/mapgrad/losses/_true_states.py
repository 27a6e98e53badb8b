# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""What can be told of true states that users give: whether they are states, and the best ones."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import torch

from mapgrad.batching import (
    group_rows,
    is_traced,
    name_problem,
    name_rows,
    row_hashes,
    row_numbers,
    to_list,
    users_level,
)
from mapgrad.errors import MissingDependencyError, ProblemError, UndecidedError
from mapgrad.losses._values import inner
from mapgrad.problems import IntegerProgram, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_ROUNDING: Final = 1e-6
"""Of what the entries of states are worth, as solvers of continuous states are no more exact."""

_MOST: Final = 1 << 16
"""States of a problem that are remembered."""

_KNOWN: Final[WeakKeyDictionary[Problem, set[int]]] = WeakKeyDictionary()
"""Hashes of states that were found to be some, so that each row of a data set is looked at once."""


def are_whole(problem: Problem) -> bool:
    """Tell whether all states of a problem are known to be integers."""
    if isinstance(problem, IntegerProgram):
        return bool(problem.integrality[problem.decision].all())
    return type(problem).in_box is Problem.in_box


def require_states(
    z_true: Tensor,
    split: int,
    problem: Problem | None,
    problems: Sequence[Problem] | None = None,
    *,
    dtype: torch.dtype,
) -> None:
    """Refuse rows that aren't states, as far as it can be told.

    Args:
        z_true: [*batch, *shape], float32 or float64.
        split: How many dimensions those of the batch are.
        problem: Of all rows; None where it isn't known.
        problems: One a row, in its place.
        dtype: What the rows came in. Continuous states that were rounded to half a float can't be told from others, and
            pass from then on.

    Raises:
        ProblemError: rows aren't states.
        TypeError, ShapeError: `problems` aren't one problem for each row.
    """
    states = z_true.reshape(-1, *z_true.shape[split:])
    if problems is not None:
        groups = [*chain.from_iterable(group_rows(states, problems))]
    elif problem is not None and len(states):
        groups = [(problem, [*range(len(states))])]
    else:
        return
    is_half = dtype.itemsize < 4
    bad: list[int] = []
    for each, rows in groups:
        own = states if len(rows) == len(states) else states[rows]
        if is_half and not are_whole(each):
            _remember(each, _hashes(own.flatten(1)))
        else:
            bad += [rows[row] for row in _not_states(each, own)]
    if bad:
        bad.sort()
        named = name_rows(bad, tuple(z_true.shape[:split]))
        of_what = name_problem(problem if problems is None else problems[bad[0]])
        verdict = "isn't one" if len(bad) == 1 else "aren't"
        raise ProblemError(
            f"z_true must hold states of {of_what}, but {named} {verdict}: are these costs, or states of another "
            "problem?"
        )


def _not_states(problem: Problem, z: Tensor) -> list[int]:
    """Return the numbers of rows [N, *shape] that aren't states; those seen before aren't looked at again."""
    hashes, known = _hashes(z.flatten(1)), _KNOWN.get(problem, set())
    new = [row for row, key in enumerate(hashes) if key not in known]
    if not new:
        return []
    bad = [new[place] for place in _refused(problem, z[new])]
    refused = {hashes[row] for row in bad}
    _remember(problem, [key for key in hashes if key not in refused])
    return bad


def _remember(problem: Problem, hashes: list[int]) -> None:
    """Keep the hashes of states; those before are forgotten where they are too many."""
    known = _KNOWN.setdefault(problem, set())
    if len(known) > _MOST:
        known.clear()
    known.update(hashes)


def _hashes(z: Tensor) -> list[int]:
    """Return a hash of each row [N, n]; a device's rows stay there."""
    if z.device.type != "cpu":
        return to_list(row_hashes(z))
    rows = z.contiguous().numpy()
    return [*map(hash, rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel().tolist())]


def _refused(problem: Problem, z: Tensor) -> list[int]:
    try:
        return row_numbers(~problem.contains(z).flatten())
    except (UndecidedError, MissingDependencyError):
        return [] if len(z) == 1 else [row for row in range(len(z)) if _refused(problem, z[row : row + 1])]


def rounding_of(true: Tensor, z_true: Tensor) -> float:
    """Return by how much a user's true values and states may be rounded, relative to what entries are worth."""
    kinds = [each.dtype for each in (true, z_true) if each.is_floating_point()]
    return max([_ROUNDING, *(torch.finfo(dtype).eps for dtype in kinds)])


def beaten_rows(t: Tensor, z: Tensor, z_true: Tensor, split: int, rounding: float) -> list[int]:
    """Return the numbers of rows whose true states are worth less than other states.

    Args:
        t: [*batch, *shape], true utilities.
        z: Like t, states, NaN where there is none.
        z_true: Like t, z*.
        split: How many dimensions those of the batch are.
        rounding: As `rounding_of` returns.
    """
    change = z - z_true
    if is_traced(change) or not change.numel():
        return []
    if float(torch.linalg.vecdot(t.flatten(split), change.flatten(split)).amax()) <= 0:  # the usual case, at once
        return []
    sizes = torch.where(t.isinf(), 0.0, t).abs()
    return row_numbers((inner(t, change, split) > rounding * inner(sizes, z.abs() + z_true.abs(), split)).flatten())


def warn_of_beaten(rows: list[int], batch: tuple[int, ...], *, minimize: bool, is_last: bool = True) -> None:
    """Warn that true states of some rows can't be the best ones.

    Args:
        rows: Their numbers.
        batch: The batch's dimensions.
        minimize: What the user said.
        is_last: Whether nothing is said of later rows.
    """
    end = ". From now on nothing is said of such rows" if is_last else ""
    warnings.warn(
        f"z_true isn't optimal for the true values in {name_rows(rows, batch)}, where better states were found: say "
        f"minimize={not minimize} if that is meant, and look whether these are the states of other rows, or of solves "
        f"that ended too early{end}",
        stacklevel=users_level(),
    )
