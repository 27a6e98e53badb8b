"""Which of a node's workers are this rank's, as the launcher of its ranks says by environment variables."""

from __future__ import annotations

import os
from typing import Final

_LAUNCHERS: Final = (
    ("LOCAL_WORLD_SIZE", "LOCAL_RANK"),  # torchrun
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("MPI_LOCALNRANKS", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
)
"""The names of how many ranks a node has, and of which one this is."""

_SIGNS: Final = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE")
"""What tells that there may be other ranks."""


def share_of(count: int) -> int:
    """Return how many of a node's workers are this rank's: all where nothing tells of other ranks, and at least 1.

    Raises:
        ValueError: Environment variables tell of ranks, but not how many this node has and which of them this is.
    """
    for pair in _LAUNCHERS:
        if all(name in os.environ for name in pair):
            ranks, rank = _numbers(*pair)
            return max(count // ranks + (rank < count % ranks), 1)
    signs = [f"{name}={os.environ[name]!r}" for name in _SIGNS if name in os.environ]
    if signs:
        raise ValueError(
            f"per_node=True must know how many ranks this node has and which one this is: set LOCAL_WORLD_SIZE and "
            f"LOCAL_RANK, as torchrun does, got {', '.join(signs)}"
        )
    return count


def _numbers(size: str, place: str) -> tuple[int, int]:
    texts = os.environ[size], os.environ[place]
    if all(text.isdecimal() for text in texts) and int(texts[1]) < int(texts[0]):
        return int(texts[0]), int(texts[1])
    raise ValueError(
        f"{size} must be the number of ranks of this node and {place} one from 0 to below it, for per_node=True, got "
        f"{texts[0]!r} and {texts[1]!r}"
    )
