"""What the ranks of DistributedDataParallel share in the middle of a forward pass."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from collections.abc import Callable


def is_alone() -> bool:
    """Tell whether there are no other ranks."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


class Accumulation:
    """Tells passes that begin a step from those that go on with one, as under DistributedDataParallel's `no_sync`.

    Ranks may have different numbers of passes in a step, but all begin it together. A layer may be called several times
    in a pass, equally often in all passes. As long as there is a DistributedDataParallel that has called the layer, a
    call outside of its forward pass, such as one rank's for a log, belongs to no step.
    """

    def __init__(self) -> None:
        self._ends = True
        self._had: int | None = None
        self._wrapper: Callable[[], Any] = lambda: None

    def taken_in(self, records: int) -> int | None:
        """Return how many records a training pass takes in, as it begins; called once for each call of a layer.

        Args:
            records: How many backward passes have left something since the last ones were taken in.

        Returns:
            None where the pass goes on with a step, or belongs to none; else all must ask each other for theirs: all
            records, or 0 where the layer is called again in the pass that ends a step of several.
        """
        parallel, began = _parallel(), self._ends
        if parallel is not None:
            self._wrapper = weakref.ref(parallel)
        elif self._wrapper() is not None and not is_alone():
            return None
        self._ends = parallel is None or parallel.require_backward_grad_sync
        if not began:
            self._had = records if self._ends else None
            return None
        if self._had == records and self._ends and parallel is not None and not parallel.require_forward_param_sync:
            return 0
        self._had = None
        return records

    def __reduce__(self) -> tuple[Any, ...]:  # a copy belongs to nobody yet
        return Accumulation, ()


def gathered(rows: Tensor, mark: Callable[[], Tensor] | None = None) -> tuple[Tensor, bool]:
    """Return the rows of all ranks, in the order of ranks, inside of DistributedDataParallel's forward pass; else rows.

    There all ranks call at one time, whatever their numbers of rows, none included. Not under `join`, whose ranks may
    have no more batches: there each rank keeps to its own rows.

    Args:
        rows: [N, *shape].
        mark: Returns what ranks should have in common, int64 [] on the same device; None for nothing.

    Returns:
        The rows, and whether the marks of all these ranks are equal.
    """
    group = _group()
    if group is None:
        return rows, True
    count = torch.tensor(len(rows), device=rows.device)
    head = torch.stack([count, torch.zeros_like(count) if mark is None else mark()])
    heads = [torch.empty_like(head) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(heads, head, group=group)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    sizes, marks = ([int(each) for each in values] for values in torch.stack(heads, dim=1).cpu())
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded, group=group)  # pyright: ignore[reportUnknownMemberType] (as above)
    whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return whole, len(set(marks)) == 1


def gathered_in_step(rows: Tensor) -> Tensor:
    """Return what `gathered` does, but under `no_sync`, where ranks may differ in their numbers of passes, rows."""
    parallel = _parallel()
    return rows if parallel is not None and not parallel.require_backward_grad_sync else gathered(rows)[0]


def summed(count: Tensor, rows: int) -> tuple[Tensor, Tensor | int]:
    """Return the sums of a count, int64 [], and of rows over all ranks where `gathered` has those of all; else both.

    Nothing waits for the device.
    """
    group = _group()
    if group is None:
        return count, rows
    sums = torch.stack([count, torch.full_like(count, rows)])
    distributed.all_reduce(sums, group=group)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    return sums[0], sums[1]


def _group() -> Any:
    """Return the ranks that are in this forward pass together; None where there is no other, or under `join`."""
    parallel = _parallel()
    return None if is_alone() or parallel is None or parallel._join_config.enable else parallel.process_group  # noqa: SLF001 (torch has no other)


def _parallel() -> Any:
    """Return the DistributedDataParallel in whose forward pass this is; None where it is in none's."""
    if not distributed.is_available():
        return None
    return torch.nn.parallel.DistributedDataParallel._get_active_ddp_module()  # noqa: SLF001 # pyright: ignore[reportUnknownMemberType, reportPrivateUsage, reportUnknownVariableType] (dynamo asks so, too)
