"""A batch whose arrays lie in memory that worker processes map, too."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

from mapgrad.workers._batch import Batch
from mapgrad.workers._child import arrays_of, block_of
from mapgrad.workers._shared_memory import Shape, SharedMemory

if TYPE_CHECKING:
    from mapgrad.solvers import Block
    from mapgrad.workers._runner import Job, Runner

_numbers: Final = count()


class Shared(Batch):
    """A batch whose arrays lie in shared memory.

    Attributes:
        name: Another one for each batch.
        number: The memory's, by which workers know it.
        memory: It.
        shapes: As in `Rows`.
        mirror: The block there.
        progress: Its own.
    """

    __slots__ = ("memory", "mirror", "name", "number", "progress", "shapes")

    def __init__(
        self, runner: Runner, job: Job, block: Block, deadline: float | None, memory: tuple[int, SharedMemory] | None
    ) -> None:
        super().__init__(runner, job, block, deadline)
        self.name = next(_numbers)
        arrays = arrays_of(block)
        self.shapes = tuple(None if array is None else Shape.of(array) for array in arrays)
        there = [shape for shape in self.shapes if shape is not None]
        size = sum(shape.size for shape in there)
        if memory is None or memory[1].size < size:
            if memory is not None:
                memory[1].close()
            memory = next(_numbers), SharedMemory.of_size(size)
        self.number, self.memory = memory
        shared = iter(self.memory.arrays(there))
        copies = [None if array is None else next(shared) for array in arrays]
        for array, copy in zip(arrays, copies, strict=True):
            if copy is not None:
                copy[...] = array
        self.mirror = block_of(copies, reuse=block.reuse, patience=block.patience)
        assert self.mirror.progress is not None
        self.progress = self.mirror.progress
