"""Rows on their way from θ's device to solvers: chunk by chunk, while those that have arrived are solved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK_BYTES: Final = 1 << 22
"""How much of a batch is on its way at a time: so much takes a bus some 100 µs, and a copy's start some 10."""

_ROWS_A_WORKER: Final = 64
"""A chunk has so many rows for each worker or more: workers wait for the last one of each chunk."""


class Chunk(NamedTuple):
    """Rows that have arrived.

    Attributes:
        numbers: Which ones of the batch they are.
        given: [m, *shape], as they were given.
        rows: The same on the CPU; not to be written to.
        near: As many states, likewise, or None.
    """

    numbers: range
    given: Tensor
    rows: Tensor
    near: Tensor | None


def arriving(rows: Tensor, near: Tensor | None, workers: int) -> Iterator[Chunk]:
    """Yield all rows, in order; the next ones are on their way meanwhile.

    From a GPU, chunks go through pinned memory on a stream of their own, which begins when the current stream has
    computed the rows. Two chunks' memory is in use at a time, unless the caller keeps more. Rows on the CPU come at
    once, as they are.

    Args:
        rows: [N, *shape], N ≥ 1, any device.
        near: As many states, or None.
        workers: How many solve them.
    """
    if not rows.is_cuda:
        yield Chunk(range(rows.shape[0]), rows, rows.cpu(), None if near is None else near.cpu())
        return
    sent = [rows] if near is None else [rows, near]
    chunks = cut(rows, workers)
    stream = torch.cuda.Stream(rows.device)
    stream.wait_stream(torch.cuda.current_stream(rows.device))
    for tensor in sent:
        tensor.record_stream(stream)  # whose memory the caller may free before a copy has ended, if it stops early
    under_way = _send(sent, chunks[0], stream)
    for numbers, following in zip(chunks, [*chunks[1:], None], strict=True):
        arrived, event = under_way
        if following is not None:
            under_way = _send(sent, following, stream)
        event.synchronize()
        given = rows[numbers.start : numbers.stop]
        yield Chunk(numbers, given, arrived[0], None if near is None else arrived[1])


def cut(rows: Tensor, workers: int) -> list[range]:
    """Return which rows from a GPU come together: all of them, unless they are many."""
    count = rows.shape[0]
    size = max(_CHUNK_BYTES * count // max(rows.nbytes, 1), _ROWS_A_WORKER * workers)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _send(
    tensors: Sequence[Tensor], numbers: range, stream: torch.cuda.Stream
) -> tuple[list[Tensor], torch.cuda.Event]:
    """Start the copy of some rows; return where they arrive, and what tells when they have."""
    with torch.cuda.stream(stream):
        copies = [
            pinned(part.shape, part.dtype).copy_(part, non_blocking=True)
            for part in (tensor[numbers.start : numbers.stop] for tensor in tensors)
        ]
        event = torch.cuda.Event()
        event.record()
        return copies, event


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return memory of the CPU for values from or for a GPU; torch keeps it until a copy is done."""
    return torch.empty(tuple(shape), dtype=dtype, device="cpu", pin_memory=True)
