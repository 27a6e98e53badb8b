"""What the ranks of DistributedDataParallel share in the middle of a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def is_alone() -> bool:
    """Tell whether there are no other ranks."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in the order of ranks, inside of DistributedDataParallel's forward pass; else rows.

    There all ranks call at one time, whatever their numbers of rows, none included. Not under `join`, whose ranks may
    have no more batches: there each rank keeps to its own rows.

    Args:
        rows: [N, *shape].
    """
    if is_alone():
        return rows
    parallel: Any = torch.nn.parallel.DistributedDataParallel._get_active_ddp_module()  # noqa: SLF001 # pyright: ignore[reportUnknownMemberType, reportPrivateUsage, reportUnknownVariableType] (dynamo asks so, too)
    if parallel is None or parallel._join_config.enable:  # noqa: SLF001 (as above)
        return rows
    group = parallel.process_group
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(counts, count, group=group)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    sizes = [int(each) for each in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded, group=group)  # pyright: ignore[reportUnknownMemberType] (as above)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
