"""What every exact oracle of a Gibbs law is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import torch

from mapgrad.arguments import whole_number
from mapgrad.batching import is_mapped
from mapgrad.exact._chunks import in_chunks, require_fit, rows_together
from mapgrad.exact._scaled_rows import NEVER, NO_STATE, floored_rows, require_states_left
from mapgrad.exact._uncompiled import uncompiled
from mapgrad.problems import batch_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.problems import Problem

NEARLY_ONE: Final = 1 - 2.0**-51
"""Less than 1 by more than what rounding adds: a uniform number times it and the last sum stays below that sum."""


class Moments(NamedTuple):
    """What an oracle finds for rows.

    Attributes:
        means: [B, d], E z.
        log_partition: [B], below `NO_STATE` for a row without a state.
        rest: [B], E of what counts with ⟨θ, z⟩ / τ: the utilities of variables that θ doesn't price, divided by τ.
    """

    means: Tensor
    log_partition: Tensor
    rest: Tensor | float = 0.0


class Oracle(ABC):
    """Exact answers about p(z; θ) ∝ exp(⟨θ, z⟩ / τ) over the states of a problem; `mapgrad.exact.oracle` picks one.

    All are computed in float64 on θ's device and returned in θ's dtype. All but states are differentiable in θ as often
    as you like. θ isn't clipped to the problem's domain, and an entry −inf, where a variable's lower bound is 0, leaves
    the law of the states that don't hold it. Where variables that θ doesn't price have utilities, the best that these
    may add to a state counts with ⟨θ, z⟩.

    Rows are worked on in chunks, so that what lies between θ and the result takes at most `max_bytes`.

    Every method but those without arguments raises ShapeError where θ's shape or dtype doesn't fit, NonFiniteError
    where θ has NaN or infinite entries that forbid nothing, InfeasibleError where a row has no state without forbidden
    entries, and ValueError where the temperature isn't positive and finite, or so small that θ / τ exceeds 1e280.

    Attributes:
        name: How it works, in a word.
        problem: The problem.
        max_bytes: The budget.
    """

    name: ClassVar[str]

    def __init__(self, problem: Problem, row_bytes: int, max_bytes: int) -> None:
        self.max_bytes = require_fit(f"the exact oracle {self.name!r} of {problem!r}", row_bytes, max_bytes)
        self.problem = problem
        self._row_bytes = row_bytes

    @property
    def held_bytes(self) -> int:
        """What the oracle itself takes on one device, in bytes; about."""
        return 8 * math.prod(self.problem.shape)

    @cached_property
    def log_num_states(self) -> float:
        """The logarithm of the number of states."""
        rows = torch.zeros(1, math.prod(self.problem.shape), dtype=torch.float64, device="cpu")
        return float(self._log_partition(rows, 1.0))

    @uncompiled
    def log_partition(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return A(θ / τ) = log Σ_z exp(⟨θ, z⟩ / τ), of which τ times the gradient in θ is `marginals`.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch] of θ's dtype and device.
        """
        rows = self._rows(theta, temperature)
        total = self._in_chunks(lambda part: self._log_partition(part, temperature), rows)
        require_states_left(self.problem, total.detach() > NO_STATE)
        return total.reshape(batch_shape(self.problem, theta, "θ")).to(theta.dtype)

    @uncompiled
    def marginals(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return E z.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch, *shape] of θ's dtype and device.
        """
        return self.log_partition_and_marginals(theta, temperature)[1]

    @uncompiled
    def log_partition_and_marginals(self, theta: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return A(θ / τ) and E z, which take no more work than E z alone.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch] and [*batch, *shape], of θ's dtype and device.
        """

        def both(part: Tensor) -> Tensor:
            found = self._moments(part, temperature)
            return torch.cat((found.means, found.log_partition.unsqueeze(1)), dim=1)

        found = self._in_chunks(both, self._rows(theta, temperature))
        total = found[:, -1]
        require_states_left(self.problem, total.detach() > NO_STATE)
        batch = batch_shape(self.problem, theta, "θ")
        return total.reshape(batch).to(theta.dtype), found[:, :-1].reshape(theta.shape).to(theta.dtype)

    @uncompiled
    def entropy(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return −E log p(z; θ) = A(θ / τ) − E ⟨θ, z⟩ / τ, in nats; right to about 1e-15 times |A|.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch] of θ's dtype and device.
        """
        return self._entropy(theta, temperature).to(theta.dtype)

    @uncompiled
    def kl_to_uniform(self, theta: Tensor, temperature: float = 1.0) -> Tensor:
        """Return KL(p(z; θ) ‖ uniform law over all states) = log N − entropy, in nats.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            temperature: τ > 0.

        Returns:
            [*batch] of θ's dtype and device.
        """
        return (-self._entropy(theta, temperature) + self.log_num_states).to(theta.dtype)

    @uncompiled
    def sample(
        self, theta: Tensor, count: int, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw states independently.

        Args:
            theta: [*batch, *shape], utilities, any floating dtype and device.
            count: S, how many for each row.
            temperature: τ > 0.
            generator: Where the random numbers come from, on its own device; None for torch's default on θ's.

        Returns:
            [S, *batch, *shape] of θ's dtype and device; not differentiable.

        Raises:
            TypeError: `count` isn't an int.
            ValueError: it is negative.
        """
        count = whole_number("count", count, 0)
        require_unmapped()
        with torch.no_grad():
            rows = self._rows(theta, temperature)
            total = self._in_chunks(lambda part: self._log_partition(part, temperature), rows)
            require_states_left(self.problem, total > NO_STATE)
            z = rows.new_empty((count, *rows.shape), dtype=theta.dtype)
            numbers = self._uniforms + self._sample_numbers
            samples = max(1, self.max_bytes // max(1, 8 * numbers * len(rows)))
            row_bytes = self._row_bytes + 8 * numbers * min(samples, count)
            device = rows.device if generator is None else generator.device
            for some in torch.split(z, samples):
                size = (len(some), len(rows), self._uniforms)
                uniform = torch.rand(size, generator=generator, dtype=torch.float64, device=device).to(rows.device)
                at_once = rows_together(rows, row_bytes, self.max_bytes)
                for first in range(0, len(rows), at_once):
                    part = slice(first, first + at_once)
                    some[:, part] = self._sample(rows[part], temperature, uniform[:, part])
        return z.reshape(count, *theta.shape)

    @property
    def _uniforms(self) -> int:
        """How many random numbers a state takes."""
        return math.prod(self.problem.shape)

    @property
    def _sample_numbers(self) -> int:
        """How many numbers a state takes while it is drawn, beside the random ones; about."""
        return 2 * math.prod(self.problem.shape)

    @abstractmethod
    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        """Return `Moments.log_partition` for rows θ / τ, float64 [B, d], `NEVER` where an entry is forbidden: [B]."""

    @abstractmethod
    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        """Return what is found for such rows."""

    @abstractmethod
    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        """Return states of such rows, which have some, from numbers in [0, 1), [S, B, `_uniforms`]: [S, B, d]."""

    def _rows(self, theta: Tensor, temperature: float) -> Tensor:
        return floored_rows(self.problem, theta, temperature)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        def dependent(part: Tensor) -> Tensor:
            found = function(part)
            if part.requires_grad and torch.is_grad_enabled() and not found.requires_grad:
                return found + 0.0 * part.flatten()[:1].sum()  # of a single state: a gradient of 0, not an error
            return found

        return in_chunks(dependent, rows, self._row_bytes, self.max_bytes)

    def _entropy(self, theta: Tensor, temperature: float) -> Tensor:
        def entropy(part: Tensor) -> Tensor:
            found = self._moments(part, temperature)
            priced = (part.masked_fill(part <= NEVER, 0.0) * found.means).sum(dim=1)
            return torch.stack((found.log_partition - priced - found.rest, found.log_partition), dim=1)

        found = self._in_chunks(entropy, self._rows(theta, temperature))
        require_states_left(self.problem, found[:, 1].detach() > NO_STATE)
        return found[:, 0].reshape(batch_shape(self.problem, theta, "θ"))

    def __repr__(self) -> str:
        return f"<exact oracle {self.name!r} of {self.problem!r}>"


def require_unmapped() -> None:
    """Refuse to look for states under torch.vmap, place by place.

    Raises:
        RuntimeError: it is at work.
    """
    if is_mapped():
        raise RuntimeError("torch.vmap can't map how states are found: give the whole batch, [*batch, *shape], at once")


def choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return entries drawn in proportion to weights [..., D] from numbers [...] in [0, 1): [...], of positive weight.

    Each row needs one.
    """
    sums = weights.cumsum(dim=-1)
    return (sums <= (uniform * NEARLY_ONE).unsqueeze(-1) * sums[..., -1:]).sum(dim=-1)
