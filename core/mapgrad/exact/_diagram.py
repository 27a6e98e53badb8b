"""Feasible sets as decision diagrams."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import ByteCache, is_traced, require_float, require_seconds
from mapgrad.errors import UnsupportedProblemError
from mapgrad.exact import _diagram_cache, _host_sweep, _sweeps
from mapgrad.exact._binary_rows import binary_rows
from mapgrad.exact._chunks import MAX_BYTES, rows_together
from mapgrad.exact._compiler import compile_nodes
from mapgrad.exact._oracle import Moments, Oracle, require_unmapped
from mapgrad.exact._scaled_rows import LARGEST, require_below_largest, require_states_left, scaled_rows
from mapgrad.exact._uncompiled import uncompiled
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers._entries import require_problem

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.exact._compiler import Nodes
    from mapgrad.exact._sweeps import Weights
    from mapgrad.problems import Problem

_NODE_BYTES: Final = 8 * 8
"""What a node takes for a row, about, with what its derivative needs."""

_ROWS_ON_HOST: Final = 1024
"""Rows that NumPy takes together at most, so that a layer stays in a processor's cache."""

_KEPT_BYTES: Final = 2**27
"""What compiled diagrams that are kept may take together."""

_SLOW: Final = 0.1
"""Seconds from which on a diagram is kept on disk, where loading one takes some milliseconds."""

_SMALLER: Final = 2.0**-64
"""By which rows are multiplied whose sums might overflow: a power of two, so that no digit is lost."""


class Diagram(Oracle):
    """All states of a problem of 0/1 variables as the paths through a decision diagram, for exact answers at any size.

    A program is compiled once, in milliseconds to seconds; what its size will be isn't known before. Afterwards an
    answer costs one sweep over the nodes for the whole batch, on θ's device and in float64. θ isn't clipped; −inf
    forbids an entry. Where variables that θ doesn't price have utilities, the best that these may add to a state counts
    with ⟨θ, z⟩.

    What took longer than a tenth of a second to compile is kept on disk, in the user's cache folder (at most 512 MB):
    in another one if ``MAPGRAD_CACHE_DIR`` names it, or nowhere if that is empty.

    Args:
        problem: `mapgrad.IntegerProgram`, all of whose variables are 0/1 ones, or any problem for which such a program
            stands, whatever θ is.
        max_nodes: How many states the layers may have together while it is compiled; some orders of the variables are
            tried. The diagram is that large at most.
        max_seconds: How long compiling may take.
        max_bytes: What an answer may take beside θ and its result.

    Attributes:
        problem: The problem.
        nodes: The diagram as arrays: `order`, `ends`, `low`, `high` and `leaf_values`.

    Raises:
        UnsupportedProblemError: the problem isn't of 0/1 variables, or it needs more nodes or time. The message says
            how far it came.
        ValueError: `max_nodes`, `max_seconds` or `max_bytes` isn't positive.
        ProblemError: a single row takes more than `max_bytes`.
        TypeError: `problem` isn't a `Problem`, or a number isn't one.
    """

    name = "diagram"

    def __init__(
        self, problem: Problem, *, max_nodes: int = 2**20, max_seconds: float = 60.0, max_bytes: int = MAX_BYTES
    ) -> None:
        max_nodes = whole_number("max_nodes", max_nodes, 1)
        if max_nodes >= 2**31:
            raise ValueError(f"max_nodes must be below 2³¹, got {max_nodes!r}")
        max_seconds = require_seconds("max_seconds", max_seconds)
        require_problem(problem)
        self.nodes = _compiled((problem, max_nodes, max_seconds))
        super().__init__(problem, _NODE_BYTES * max(self.num_nodes, 1), max_bytes)
        self._levels: dict[torch.device, _sweeps.Levels] = {}

    @staticmethod
    def refusal(problem: Problem) -> str | None:
        """Return why there is no diagram of a problem, however large it may be; None where it may fit."""
        try:
            binary_rows(problem)
        except UnsupportedProblemError as error:
            return str(error)
        return None

    @property
    def num_nodes(self) -> int:
        """Number of nodes: those of the layers and the leaves."""
        return len(self.nodes.low) - 1

    @property
    def held_bytes(self) -> int:
        """What the diagram takes, in bytes, with its layers on one device, whose entries are twice as wide."""
        return super().held_bytes + 3 * _nodes_bytes(self.nodes)

    @cached_property
    def num_states(self) -> int:
        """Number of states, exact whatever its size."""
        low, high, ends = self.nodes.low, self.nodes.high, self.nodes.ends.tolist()
        counts = np.zeros(len(low), dtype=object)  # of Python's integers, which don't overflow
        counts[1 : ends[-1]] = 1
        for last, first in zip(reversed(ends[:-1]), reversed(ends[1:]), strict=True):
            counts[first:last] = counts[low[first:last]] + counts[high[first:last]]
        return int(counts[-1])

    @cached_property
    def log_num_states(self) -> float:
        """The logarithm of the number of states; −∞ if there is none."""
        return math.log(self.num_states) if self.num_states else -math.inf

    @uncompiled
    def map(self, theta: Tensor) -> Tensor:
        """Return argmax ⟨θ, z⟩; among equals, the one with a 1 where they first differ in the order of ``nodes.order``.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.

        Returns:
            [*batch, *shape] of θ's dtype and device; not differentiable.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit.
            NonFiniteError: θ has NaN or infinite entries that forbid nothing.
            InfeasibleError: a row has no state without forbidden entries.
        """
        require_unmapped()
        rows = scaled_rows(self.problem, require_float(theta).detach(), 1.0)
        solutions = self.solve(rows)
        require_states_left(self.problem, solutions.status == Status.OPTIMAL)
        return solutions.z.reshape(theta.shape).to(theta.dtype)

    def solve(self, theta: Tensor) -> Solutions:
        """Return `map` as a solver does: a row without a state is NaN, and has the status INFEASIBLE.

        Args:
            theta: [N, *shape], utilities, any floating dtype and device; finite, or −inf where an entry may be 0.

        Returns:
            z [N, *shape] of θ's dtype and device, and status [N].
        """
        rows = theta.detach().flatten(1).double()
        is_large = rows.masked_fill(rows.isneginf(), 0.0).abs().amax(dim=1) > LARGEST
        factor = torch.where(is_large, _SMALLER, 1.0).double()
        z, is_left = torch.empty_like(rows), torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        levels, count = self._levels_on(rows.device), rows_together(rows, self._row_bytes, self.max_bytes)
        if rows.is_cpu:
            count = min(count, _ROWS_ON_HOST)
        for first in range(0, len(rows), count):
            part = slice(first, first + count)
            columns = (rows[part] * factor[part, None]).T.contiguous()
            if rows.is_cpu and not is_traced(rows):
                found = _host_sweep.best(levels, columns.numpy(), factor[part].numpy())
                states, value = (torch.as_tensor(each) for each in found)
            else:
                states, value = _sweeps.best(levels, columns, factor[part])
            z[part], is_left[part] = states.T, value > -torch.inf
        status = torch.where(is_left, int(Status.OPTIMAL), int(Status.INFEASIBLE))
        z = z.masked_fill(~is_left[:, None], torch.nan)
        return Solutions(z.reshape(theta.shape).to(theta.dtype), status)

    def _rows(self, theta: Tensor, temperature: float) -> Tensor:
        rows = super()._rows(theta, temperature)
        require_below_largest(float(np.abs(self.nodes.leaf_values[1:] / temperature).max(initial=0)))
        return rows

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        weights = self._weigh(rows, temperature)
        return weights.total + weights.shift

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        weights = self._weigh(rows, temperature)
        means, leaf = _sweeps.marginals(self._levels_on(rows.device), weights)
        return Moments(means.T, weights.total + weights.shift, leaf / temperature)

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        levels, weights = self._levels_on(rows.device), self._weigh(rows, temperature)
        return _sweeps.sample(levels, weights, uniform.transpose(1, 2)).transpose(1, 2)

    def _weigh(self, rows: Tensor, temperature: float) -> Weights:
        return _sweeps.weigh(self._levels_on(rows.device), rows.T.contiguous(), temperature)

    def _levels_on(self, device: torch.device) -> _sweeps.Levels:
        if device not in self._levels:
            with torch.inference_mode(mode=False):  # what is born under it would be unfit for autograd
                self._levels[device] = _sweeps.levels_of(self.nodes, device)
        return self._levels[device]

    def __repr__(self) -> str:
        return f"<Diagram of {self.problem!r}: {self.num_nodes:,} nodes>"


def _nodes_of(key: tuple[Problem, int, float]) -> Nodes:
    problem, max_nodes, max_seconds = key
    program = binary_rows(problem)
    name = f"{program.program.digest}-{max_nodes}"
    nodes = _diagram_cache.load(name, program.num_priced)
    if nodes is None:
        started = time.perf_counter()
        nodes = compile_nodes(program, max_nodes, max_seconds)
        if time.perf_counter() - started > _SLOW:
            _diagram_cache.save(name, nodes)
    for array in nodes:
        array.setflags(write=False)  # others may share it
    return nodes


def _nodes_bytes(nodes: Nodes) -> int:
    return sum(array.nbytes for array in nodes)


_compiled: Final = ByteCache(_nodes_of, _nodes_bytes, _KEPT_BYTES)
