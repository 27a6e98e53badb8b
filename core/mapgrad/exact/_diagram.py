"""Feasible sets as decision diagrams."""

from __future__ import annotations

import time
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mapgrad.errors import UnsupportedProblemError
from mapgrad.exact import _diagram_cache, _host_sweep, _sweeps
from mapgrad.exact._binary_rows import binary_rows
from mapgrad.exact._compiler import compile_nodes
from mapgrad.exact._scaled_rows import require_states_left, scaled_rows
from mapgrad.problems import Problem, batch_shape
from mapgrad.solutions import Solutions, Status

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.exact._compiler import Nodes

_NUMBERS: Final = 2**23
"""Numbers that a sweep keeps at a time, about, which limits the rows that it takes together."""

_NUMBERS_ON_DEVICE: Final = 2**26
"""The same where each layer is a call of some kernels, which cost less the more rows there are."""

_ROWS_ON_HOST: Final = 1024
"""Rows that NumPy takes together at most, so that a layer stays in a processor's cache."""

_SLOW: Final = 0.1
"""Seconds from which on a diagram is kept on disk, where loading one takes some milliseconds."""

_SMALLER: Final = 2.0**-64
"""By which rows are multiplied whose sums might overflow: a power of two, so that no digit is lost."""


class Diagram:
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

    Attributes:
        problem: The problem.
        nodes: The diagram as arrays: `order`, `ends`, `low`, `high` and `leaf_values`.

    Raises:
        UnsupportedProblemError: the problem isn't of 0/1 variables, or it needs more nodes or time. The message says
            how far it came.
        ValueError: `max_nodes` or `max_seconds` isn't positive.
        TypeError: `problem` isn't a `Problem`.
    """

    def __init__(self, problem: Problem, *, max_nodes: int = 2**20, max_seconds: float = 60.0) -> None:
        if not 0 < max_nodes < 2**31:
            raise ValueError(f"max_nodes must be from 1 to 2³¹ − 1, got {max_nodes}")
        if not max_seconds > 0:
            raise ValueError(f"max_seconds must be positive, got {max_seconds}")
        if not isinstance(problem, Problem):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"problem must be a mapgrad.Problem, got {type(problem).__name__}")
        self.problem = problem
        self.nodes = _compiled(problem, max_nodes, max_seconds)
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

    @cached_property
    def num_states(self) -> int:
        """Number of states, exact whatever its size."""
        low, high, ends = self.nodes.low, self.nodes.high, self.nodes.ends.tolist()
        counts = np.zeros(len(low), dtype=object)  # of Python's integers, which don't overflow
        counts[1 : ends[-1]] = 1
        for last, first in zip(reversed(ends[:-1]), reversed(ends[1:]), strict=True):
            counts[first:last] = counts[low[first:last]] + counts[high[first:last]]
        return int(counts[-1])

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
        rows = scaled_rows(self.problem, theta.detach(), 1.0)
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
        is_large = rows.masked_fill(rows.isneginf(), 0.0).abs().amax(dim=1) > _sweeps.LARGEST
        factor = torch.where(is_large, _SMALLER, 1.0).double()
        z, is_left = torch.empty_like(rows), torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        levels, count = self._levels_on(rows.device), self._rows_at_once(rows.device)
        if rows.is_cpu:
            count = min(count, _ROWS_ON_HOST)
        for first in range(0, len(rows), count):
            part = slice(first, first + count)
            columns = (rows[part] * factor[part, None]).T.contiguous()
            if rows.is_cpu:
                found = _host_sweep.best(levels, columns.numpy(), factor[part].numpy())
                states, value = (torch.as_tensor(each) for each in found)
            else:
                states, value = _sweeps.best(levels, columns, factor[part])
            z[part], is_left[part] = states.T, value > -torch.inf
        status = torch.where(is_left, int(Status.OPTIMAL), int(Status.INFEASIBLE))
        z = z.masked_fill(~is_left[:, None], torch.nan)
        return Solutions(z.reshape(theta.shape).to(theta.dtype), status)

    def log_partition(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return A(θ / τ) = log Σ_z exp(⟨θ, z⟩ / τ), whose gradient is E z / τ.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch] of θ's dtype and device.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit.
            NonFiniteError: θ has NaN or infinite entries that forbid nothing.
            InfeasibleError: a row has no state without forbidden entries.
            ValueError: `temperature` isn't positive, or so small that θ / τ exceeds 1e280.
        """
        rows = self._rows(theta, temperature)
        levels = self._levels_on(theta.device)

        def total(part: Tensor) -> Tensor:
            weights = _sweeps.weigh(levels, part, temperature)
            return torch.stack((weights.total, weights.shift))

        sums, shift = _sweeps.in_chunks(total, rows, self._rows_at_once(theta.device))
        require_states_left(self.problem, sums.detach() > _sweeps.NEVER / 2)
        return (sums + shift).reshape(batch_shape(self.problem, theta, "θ")).to(theta.dtype)

    def marginals(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return E z under the Gibbs distribution p(z; θ) ∝ exp(⟨θ, z⟩ / τ), differentiable as often as you like.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch, *shape] of θ's dtype and device.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit.
            NonFiniteError: θ has NaN or infinite entries that forbid nothing.
            InfeasibleError: a row has no state without forbidden entries.
            ValueError: `temperature` isn't positive, or so small that θ / τ exceeds 1e280.
        """
        rows = self._rows(theta, temperature)
        levels = self._levels_on(theta.device)

        def means(part: Tensor) -> Tensor:
            weights = _sweeps.weigh(levels, part, temperature)
            return torch.cat((_sweeps.marginals(levels, weights), weights.total.unsqueeze(0)))

        result = _sweeps.in_chunks(means, rows, self._rows_at_once(theta.device))
        require_states_left(self.problem, result[-1].detach() > _sweeps.NEVER / 2)
        return result[:-1].T.reshape(theta.shape).to(theta.dtype)

    def sample(
        self, theta: Tensor, count: int, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw states from the Gibbs distribution p(z; θ) ∝ exp(⟨θ, z⟩ / τ), independently.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            count: S, how many for each row.
            temperature: τ > 0.
            generator: Where the random numbers come from, on its own device; None for torch's default on θ's.

        Returns:
            [S, *batch, *shape] of θ's dtype and device; not differentiable.

        Raises:
            ShapeError: θ's shape or dtype doesn't fit.
            NonFiniteError: θ has NaN or infinite entries that forbid nothing.
            InfeasibleError: a row has no state without forbidden entries.
            ValueError: `temperature` isn't positive, or so small that θ / τ exceeds 1e280; or `count` isn't an integer
                of at least 0.
        """
        if not isinstance(count, int) or count < 0:  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise ValueError(f"count must be an int of at least 0, got {count!r}")
        rows = self._rows(theta.detach(), temperature)
        levels = self._levels_on(theta.device)
        device = theta.device if generator is None else generator.device
        uniform = torch.rand(count, *rows.shape, generator=generator, dtype=torch.float64, device=device)
        z, totals = torch.empty_like(uniform, device=theta.device), torch.empty_like(rows[0])
        together = self._rows_at_once(theta.device)
        for first in range(0, rows.shape[1], together):
            part = slice(first, first + together)
            weights = _sweeps.weigh(levels, rows[:, part], temperature)
            totals[part] = weights.total
            if self.num_nodes:  # else the set is empty
                z[:, :, part] = _sweeps.sample(levels, weights, uniform[:, :, part].to(theta.device))
        require_states_left(self.problem, totals > _sweeps.NEVER / 2)
        return z.transpose(1, 2).reshape(count, *theta.shape).to(theta.dtype)

    def _rows(self, theta: Tensor, temperature: float) -> Tensor:
        """Return θ / τ as float64 columns [d, B], with `NEVER` where an entry must be 0."""
        rows = scaled_rows(self.problem, theta, temperature)
        forbidden = rows.detach().isneginf()
        rows = rows.masked_fill(forbidden, 0.0)
        leaves = self.nodes.leaf_values[1:] / temperature
        largest = max(float(rows.detach().abs().amax()) if rows.numel() else 0.0, float(np.abs(leaves).max(initial=0)))
        if largest > _sweeps.LARGEST:
            raise ValueError(f"utilities divided by the temperature must be at most 1e280, got {largest:g}: raise it")
        return rows.masked_fill(forbidden, _sweeps.NEVER).T.contiguous()

    def _rows_at_once(self, device: torch.device) -> int:
        return max(1, (_NUMBERS if device.type == "cpu" else _NUMBERS_ON_DEVICE) // max(self.num_nodes, 1))

    def _levels_on(self, device: torch.device) -> _sweeps.Levels:
        if device not in self._levels:
            with torch.inference_mode(mode=False):  # what is born under it would be unfit for autograd
                self._levels[device] = _sweeps.levels_of(self.nodes, device)
        return self._levels[device]

    def __repr__(self) -> str:
        return f"<Diagram of {self.problem!r}: {self.num_nodes:,} nodes>"


@lru_cache(maxsize=8)
def _compiled(problem: Problem, max_nodes: int, max_seconds: float) -> Nodes:
    program = binary_rows(problem)
    key = f"{program.program.digest}-{max_nodes}"
    nodes = _diagram_cache.load(key, program.num_priced)
    if nodes is None:
        started = time.perf_counter()
        nodes = compile_nodes(program, max_nodes, max_seconds)
        if time.perf_counter() - started > _SLOW:
            _diagram_cache.save(key, nodes)
    for array in nodes:
        array.setflags(write=False)  # others may share it
    return nodes
