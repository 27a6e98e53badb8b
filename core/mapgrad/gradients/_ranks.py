"""What the ranks of DistributedDataParallel share in the middle of a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def is_alone() -> bool:
    """Tell whether there are no other ranks."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


class Accumulation:
    """Tells passes that begin a step from those that go on with one, as under DistributedDataParallel's `no_sync`.

    Ranks may have different numbers of passes in a step, but all begin it together. A layer may be called several times
    in a pass, equally often in all passes.
    """

    def __init__(self) -> None:
        self._ends = True
        self._had: int | None = None

    def taken_in(self, records: int) -> int | None:
        """Return how many records a training pass takes in, as it begins; called once for each call of a layer.

        Args:
            records: How many backward passes have left something since the last ones were taken in.

        Returns:
            None where the pass goes on with a step; else all must ask each other for theirs: all records, or 0 where
            the layer is called again in the pass that ends a step of several.
        """
        parallel, began = _parallel(), self._ends
        self._ends = parallel is None or parallel.require_backward_grad_sync
        if not began:
            self._had = records if self._ends else None
            return None
        if self._had == records and self._ends and parallel is not None and not parallel.require_forward_param_sync:
            return 0
        self._had = None
        return records


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in the order of ranks, inside of DistributedDataParallel's forward pass; else rows.

    There all ranks call at one time, whatever their numbers of rows, none included. Not under `join`, whose ranks may
    have no more batches: there each rank keeps to its own rows.

    Args:
        rows: [N, *shape].
    """
    group = _group()
    if group is None:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(counts, count, group=group)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    sizes = [int(each) for each in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded, group=group)  # pyright: ignore[reportUnknownMemberType] (as above)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gathered_in_step(rows: Tensor) -> Tensor:
    """Return what `gathered` does, but under `no_sync`, where ranks may differ in their numbers of passes, rows."""
    parallel = _parallel()
    return rows if parallel is not None and not parallel.require_backward_grad_sync else gathered(rows)


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
