"""What a pool of states is in a `state_dict`, and what it can't be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from mapgrad.batching import is_readable, text_of_saved

if TYPE_CHECKING:
    from mapgrad.problems import Problem

PROBLEM: Final = "_problem._extra_state"
"""What a `state_dict` calls what stands for the problem of a pool."""


class SavedProblem(nn.Module):
    """What stands for the problem of a pool, in `state_dict`; who loads the pool looks at it.

    No buffer, which averages of models would round, and DistributedDataParallel send; and no other key, as
    `torch.distributed.checkpoint` knows parameters, buffers and extra states alone.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self._digest = problem.digest

    def get_extra_state(self) -> Tensor:
        """Return it."""
        return digest(self._digest)

    def set_extra_state(self, state: object) -> None:
        """Do nothing: it is the problem's."""


def digest(text: str) -> Tensor:
    """Return a problem's digest as it is in a `state_dict`, whose values are tensors all."""
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def ages(keys: Tensor, used: Tensor) -> Tensor:
    """Return for each of P states how many others were used later, or at once and have a smaller key."""
    order = keys.argsort()
    order = order[used[order].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def refused(key: str, size: int, saved: object) -> str:
    """Return what is said of a value that stands for no problem."""
    return (
        f"{key}: a saved pool has {size} bytes there that stand for its problem, got {text_of_saved(saved)}: is the "
        f"file damaged, or another module's?"
    )


def require_tensor(state: object, columns: int) -> None:
    """Refuse what can't be the extra state of a pool.

    Args:
        state: That.
        columns: One more than a state of the problem has entries.

    Raises:
        TypeError: it isn't a dense tensor of floats, [P, columns].
    """
    if is_readable(state) and state.is_floating_point() and state.ndim == 2 and state.shape[1] == columns:
        return
    raise TypeError(
        f"a saved pool has the age and the entries of each state as its extra state, a tensor of floats "
        f"[P, {columns}], got {text_of_saved(state)}: is the file damaged, or another module's?"
    )


def require_possible(state: Tensor, rows: Tensor, keys: Tensor) -> None:
    """Refuse saved states that no pool has.

    Args:
        state: [P, 1 + n], ages and entries as they were saved.
        rows: The same as float32.
        keys: The hashes of the entries, int64 [P].

    Raises:
        ValueError: they are such states.
    """
    finite = rows.isfinite().all(dim=1)
    expected = torch.arange(len(state), device=state.device).to(state.dtype)  # rounded as saved ones are
    if not bool(finite.all()):
        came = f"NaN or infinity for state {int(finite.int().argmin())}"
    elif not torch.equal(state[:, 0].sort().values, expected):
        came = f"ages from {float(rows[:, 0].min()):g} to {float(rows[:, 0].max()):g}"
    elif bool((keys.sort().values.diff() == 0).any()):
        came = "states that are equal"
    else:
        return
    raise ValueError(
        f"a saved pool of {len(state)} states has finite ones, all different, behind their ages 0 to {len(state) - 1} "
        f"in any order, got {came}: is the file damaged?"
    )
