"""States that a solver has returned for one feasible set, kept for what needs many of them and no solve."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from mapgrad.batching import full_precision
from mapgrad.errors import ShapeError
from mapgrad.workers import new_lock

if TYPE_CHECKING:
    from mapgrad.problems import Problem

_MAX_BYTES: Final = 1 << 26
_BLOCK: Final = 1 << 22
"""Scores that are worked out at a time."""

_MULTIPLIER: Final = -0x61C8864680B583EB
"""SplitMix64's odd constant, as int64 has it."""

_changing: Final = new_lock()
"""Held while a pool changes; of all pools, as a lock of its own could neither be copied nor pickled."""


class StatePool(nn.Module):
    """Distinct states of one problem, those that were added last first.

    A feasible set is the same for all rows and steps, so what a solver returned for one row is a candidate for all
    others: the best of the pool is found by a matrix product. States move with the module, and are in its `state_dict`.
    Threads may share a pool.

    Args:
        problem: The feasible set.
        max_bytes: What the states may take; where there are more, those go that weren't added for longest. At least
            one stays.

    Attributes:
        problem: As given.
        states: [P, *shape], float32, to which other states are rounded. Never written to: `add` makes a new tensor.

    Example:
        >>> import torch, mapgrad
        >>> from mapgrad.pool import StatePool
        >>> pool = StatePool(mapgrad.KSubset(3, 1))
        >>> pool.add(torch.eye(3)[:2])
        >>> value, place = pool.best(torch.tensor([[1.0, 2.0, 5.0]]))
        >>> pool.states[place].tolist(), value.item()
        ([[0.0, 1.0, 0.0]], 2.0)
    """

    _problem: Tensor

    def __init__(self, problem: Problem, *, max_bytes: int = _MAX_BYTES) -> None:
        super().__init__()
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise ValueError(f"max_bytes must be a positive int, got {max_bytes!r}")
        self.problem = problem
        self.max_bytes = max_bytes
        self.register_buffer("_problem", _digest(problem))
        # no buffers, which DistributedDataParallel would take to be of one shape on all ranks
        self._held = torch.empty(0, *problem.shape), torch.empty(0, dtype=torch.int64)

    @property
    def states(self) -> Tensor:
        """As the class says."""
        return self._held[0]

    def __len__(self) -> int:
        return len(self.states)

    @property
    def capacity(self) -> int:
        """The most states that `max_bytes` allow."""
        return max(self.max_bytes // self.bytes_of(self.problem), 1)

    @staticmethod
    def bytes_of(problem: Problem) -> int:
        """Return what one state takes."""
        return 4 * max(math.prod(problem.shape), 1)

    @torch.no_grad()
    def add(self, z: Tensor) -> None:
        """Add states; those that are there already move to the front.

        What comes first and what goes doesn't depend on the order of z: of states that are new together, those of the
        smaller hash come first.

        Args:
            z: [*batch, *shape], any floating dtype and device; rows with NaN, which stand for no state, are left out.

        Raises:
            ShapeError: z hasn't the problem's shape.
        """
        _, rows = self._state_rows(z)
        rows = rows[rows.flatten(1).isfinite().all(dim=1)]
        new = self._hash(rows)
        with _changing:
            states, before = self._held
            every = torch.cat([new, before])
            distinct, place = _unique(every)
            first = torch.full((len(distinct),), len(place), device=place.device)
            first.scatter_reduce_(0, place, torch.arange(len(place), device=place.device), "amin")
            is_new = torch.zeros(len(distinct), dtype=torch.bool, device=place.device)
            is_new[place[: len(rows)]] = True
            kept = torch.cat([first[is_new], first[~is_new].sort().values])[: self.capacity]
            self._held = torch.cat([rows, states])[kept], every[kept]

    @torch.no_grad()
    def contains(self, z: Tensor) -> Tensor:
        """Tell which of some states are here, bool [*batch] for z [*batch, *shape].

        Raises:
            ShapeError: z hasn't the problem's shape.
        """
        lead, rows = self._state_rows(z)
        states, held = self._held
        if len(states) == 0 or len(rows) == 0:
            return torch.zeros(lead, dtype=torch.bool, device=z.device)
        ordered, order = held.sort()
        place = order[torch.searchsorted(ordered, self._hash(rows)).clamp(max=len(states) - 1)]
        return (states[place] == rows).flatten(1).all(dim=1).reshape(lead)

    @torch.no_grad()
    def best(self, theta: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the largest ⟨θ, z⟩ over the pool for each row, and the place of a state that has it in `states`.

        Args:
            theta: [*batch, *shape], on the pool's device; −inf forbids an entry.
            among: What `states` was before; None for what it is.

        Returns:
            Values [*batch] of θ's dtype, at least float32, −inf where no state is allowed; and places [*batch] int64,
            the first of equal ones, 0 where there is none.

        Raises:
            ShapeError: θ hasn't the problem's shape.
        """
        lead, rows = self._theta_rows(theta)
        values = rows.new_full((len(rows),), -math.inf)
        places = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        states = self.states if among is None else among
        if len(states):
            states = states.flatten(1).to(rows.dtype).T
            size = max(_BLOCK // states.shape[1], 1)
            for start in range(0, len(rows), size):
                block = slice(start, start + size)
                values[block], places[block] = _scores(rows[block], states).max(dim=1)
        return values.reshape(lead), places.reshape(lead)

    @torch.no_grad()
    def scores(self, theta: Tensor, among: Tensor | None = None) -> Tensor:
        """Return ⟨θ, z⟩ of all states, [*batch, P] of θ's dtype, at least float32; −inf where one isn't allowed.

        Args:
            theta: [*batch, *shape], on the pool's device; −inf forbids an entry.
            among: As for `best`.

        Raises:
            ShapeError: θ hasn't the problem's shape.
        """
        lead, rows = self._theta_rows(theta)
        states = self.states if among is None else among
        return _scores(rows, states.flatten(1).to(rows.dtype).T).reshape(*lead, len(states))

    def _lead(self, values: Tensor, what: str) -> torch.Size:
        """Return the batch's dimensions of values [*batch, *shape].

        Raises:
            ShapeError: they don't end with the problem's shape.
        """
        shape = self.problem.shape
        split = values.ndim - len(shape)
        if split < 0 or tuple(values.shape[split:]) != shape:
            raise ShapeError(f"{what} must be [*batch, {', '.join(map(str, shape))}], got {tuple(values.shape)}")
        return values.shape[:split]

    def _theta_rows(self, theta: Tensor) -> tuple[torch.Size, Tensor]:
        """Return θ's batch dimensions, and θ as rows [N, n] of at least float32."""
        lead = self._lead(theta, "θ")
        rows = theta.reshape(lead.numel(), math.prod(self.problem.shape))
        return lead, rows.to(torch.promote_types(rows.dtype, torch.float32))

    def _state_rows(self, z: Tensor) -> tuple[torch.Size, Tensor]:
        """Return the batch dimensions of states, and these as rows [N, *shape] of the pool's dtype."""
        lead = self._lead(z, "states")
        return lead, z.detach().reshape(lead.numel(), *self.problem.shape).to(self.states)

    def _hash(self, rows: Tensor) -> Tensor:
        """Return a hash of each row, int64 [N]."""
        bits = (rows.flatten(1).double() + 0.0).view(torch.int64) * _MULTIPLIER  # + 0.0 takes −0.0 to 0.0
        bits = (bits ^ (bits >> 32)) * _MULTIPLIER
        weights = torch.arange(1, 2 * bits.shape[1], 2, device=bits.device) * _MULTIPLIER
        weights = (weights ^ (weights >> 29)) | 1
        return ((bits ^ (bits >> 29)) * weights).sum(dim=1)

    def get_extra_state(self) -> Tensor:
        """Return the states."""
        return self.states

    def set_extra_state(self, state: Tensor) -> None:
        """Take the states of a saved pool; those of another problem, with a warning, aren't taken.

        Raises:
            TypeError: it isn't what `get_extra_state` returns.
        """
        shape = self.problem.shape
        own = _digest(self.problem).to(self._problem.device)
        is_own = torch.equal(self._problem, own)  # which has been loaded before
        self._problem = own
        if not isinstance(state, Tensor) or (is_own and tuple(state.shape) != (len(state), *shape)):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's file)
            came = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__  # pyright: ignore[reportUnnecessaryIsInstance] (as above)
            raise TypeError(f"a saved pool has its states as its extra state, a tensor [P, *{shape}], got {came}")
        if not is_own:
            warnings.warn(
                f"the saved pool has states of another problem than {self.problem!r}: this one begins empty",
                stacklevel=2,
            )
            state = state.new_empty(0, *shape)
        with _changing:
            states = state.to(self.states)[: self.capacity]
            self._held = states, self._hash(states)

    def _apply(self, fn: Any, recurse: bool = True) -> StatePool:
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        with _changing:
            device = fn(self.states).device  # float32 whatever dtype the model is cast to
            states, keys = self._held
            self._held = states.to(device), keys.to(device)
        return self

    def extra_repr(self) -> str:
        """Return what is in it."""
        return f"{self.problem!r}, {len(self)} states"


def _unique(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return distinct keys in ascending order, and the place of each key among them."""
    unique: Any = torch.unique  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped in torch)
    return unique(keys, return_inverse=True)


def _scores(rows: Tensor, states: Tensor) -> Tensor:
    """Return ⟨row, state⟩ for rows [m, n] and states [n, P], −inf where a state has an entry that −inf forbids."""
    forbidden = rows.isneginf()
    with full_precision(rows):
        if not bool(forbidden.any()):
            return rows @ states
        scores = rows.masked_fill(forbidden, 0.0) @ states
        return scores.masked_fill_((forbidden.to(states) @ (states != 0).to(states)) > 0, -math.inf)


def _digest(problem: Problem) -> Tensor:
    """Return what stands for a problem in a `state_dict`, whose values are tensors all."""
    return torch.tensor(list(bytes.fromhex(problem.digest)), dtype=torch.uint8)
