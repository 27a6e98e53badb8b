"""The states themselves, found by their hashes, and the memory that they are in."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from mapgrad.arguments import whole_number
from mapgrad.batching import full_precision, is_readable, name_problem, require_float
from mapgrad.errors import ShapeError
from mapgrad.pool._saved import PROBLEM, SavedProblem, ages, digest, refused, require_possible, require_tensor
from mapgrad.solvers._entries import require_problem
from mapgrad.workers import new_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.problems import Problem

_MAX_BYTES: Final = 1 << 26
_BLOCK: Final = 1 << 22
"""Scores that are worked out at a time."""

_MULTIPLIER: Final = -0x61C8864680B583EB
"""SplitMix64's odd constant, as int64 has it."""

_PAST_BYTES: Final = 1 << 26
_PAST: Final = 64
"""How much, and how many, of the memory that a pool has left behind is kept for its earlier versions."""

_changing: Final = new_lock()
"""Held while a pool changes; of all pools, as a lock of its own could neither be copied nor pickled."""

Version = tuple[int, int]
"""Which memory a pool had its states in, by number, and how many of them."""


class _Held(NamedTuple):
    """What a pool holds.

    Attributes:
        memory: [A, *shape], whose first P rows are the states; the others are free.
        states: These P rows.
        keys: Their hashes, int64 [P].
        order: The places of the keys in ascending order, int64 [P].
        used: When each was added last, int64 [P]; written to.
        number: That of the memory.
    """

    memory: Tensor
    states: Tensor
    keys: Tensor
    order: Tensor
    used: Tensor
    number: int

    @classmethod
    def of(cls, memory: Tensor, keys: Tensor, used: Tensor, number: int) -> _Held:
        """Return the first states of a memory, of which there are as many as keys."""
        return cls(memory, memory[: len(keys)], keys, keys.argsort(), used, number)

    def __reduce__(self) -> tuple[Any, ...]:  # copies share no memory, and have no free one
        return _Held.of, (self.states.clone(), self.keys, self.used, self.number)

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of some keys [N], and which of them are here."""
        if len(self.keys) == 0:
            return torch.zeros_like(keys), torch.zeros_like(keys, dtype=torch.bool)
        below = torch.searchsorted(self.keys[self.order], keys).clamp_(max=len(self.keys) - 1)
        places = self.order[below]
        return places, self.keys[places] == keys


class StatePool(nn.Module):
    """Distinct states of one problem.

    A feasible set is the same for all rows and steps, so what a solver returned for one row is a candidate for all
    others: the best of the pool is found by a matrix product. States move with the module, and are in its `state_dict`.
    Threads may share a pool.

    New states are written behind the others, so that what the pool was before stays in the same memory: `at` gives it
    for a `version`. A pool that is full lets an eighth of its states go at a time.

    Args:
        problem: The feasible set, a `Problem`; that of a solver is its attribute `problem`.
        max_bytes: What the states may take; where there are more, those go that weren't added for longest. At least
            one stays. Versions may take 64 MiB more, or one memory if that is larger.

    Attributes:
        problem: As given.
        states: [P, *shape], float32, to which other states are rounded, in the order in which they came. Never written
            to: `add` makes another tensor where it changes.

    Raises:
        TypeError: `problem` isn't a `Problem`, or `max_bytes` no int.
        ValueError: `max_bytes` isn't positive.

    Example:
        >>> import torch, mapgrad
        >>> from mapgrad.pool import StatePool
        >>> pool = StatePool(mapgrad.KSubset(3, 1))
        >>> pool.add(torch.eye(3)[:2])
        tensor([False, False])
        >>> value, place = pool.best(torch.tensor([[1.0, 2.0, 5.0]]))
        >>> pool.states[place].tolist(), value.item()
        ([[0.0, 1.0, 0.0]], 2.0)
    """

    def __init__(self, problem: Problem, *, max_bytes: int = _MAX_BYTES) -> None:
        super().__init__()
        self.problem = require_problem(problem)
        self._problem = SavedProblem(problem)
        self.max_bytes = whole_number("max_bytes", max_bytes, 1)
        # no buffers, which DistributedDataParallel would take to be of one shape on all ranks
        nothing = torch.empty(0, dtype=torch.int64)
        self._held = _Held.of(torch.empty(0, *problem.shape), nothing, nothing.clone(), 0)
        self._past: OrderedDict[int, Tensor] = OrderedDict()
        self._clock = 0

    @property
    def states(self) -> Tensor:
        """As the class says."""
        return self._held.states

    def __len__(self) -> int:
        return len(self.states)

    @property
    def version(self) -> Version:
        """What stands for the states as they are now."""
        held = self._held
        return held.number, len(held.states)

    @property
    def fingerprint(self) -> Tensor:
        """[] int64, on its device: the same for pools with the same states, in whatever order."""
        return self._held.keys.sum()

    def at(self, version: Version) -> Tensor:
        """Return `states` as they were.

        Args:
            version: What `version` was then.

        Raises:
            RuntimeError: they have been let go since.
        """
        number, count = version
        with _changing:
            held = self._held
            memory = held.memory if number == held.number else self._past.get(number)
        if memory is None:
            raise RuntimeError(
                f"a backward pass needs the pool of {name_problem(self.problem)} as it was in the forward pass, and "
                f"since then it let too many states go: take the backward pass earlier, or give the pool more max_bytes"
            )
        return memory[:count]

    @property
    def capacity(self) -> int:
        """The most states that `max_bytes` allow."""
        return max(self.max_bytes // self.bytes_of(self.problem), 1)

    @staticmethod
    def bytes_of(problem: Problem) -> int:
        """Return what one state takes."""
        return 4 * max(math.prod(problem.shape), 1)

    @torch.inference_mode(mode=False)  # its memory is written to outside of that mode too
    @torch.no_grad()
    def add(self, z: Tensor) -> Tensor:
        """Add states, those of a batch by ascending hash, so that their order in z doesn't matter.

        Args:
            z: [*batch, *shape], any floating dtype and device; rows with NaN, which stand for no state, are left out.

        Returns:
            Which of them were here before, bool [*batch].

        Raises:
            ShapeError: z hasn't the problem's shape.
        """
        lead, rows = self._state_rows(z)
        keys = self._hash(rows)
        with _changing:
            held = self._held
            places, is_known = held.find(keys)
            self._clock += 1
            held.used[places[is_known]] = self._clock
            if not bool(is_known.all()):
                new = _firsts(keys, ~is_known & rows.flatten(1).isfinite().all(dim=1))
                self._append(rows[new], keys[new])
        return is_known.reshape(lead)

    def _append(self, rows: Tensor, keys: Tensor) -> None:
        """Add rows [N, *shape] that aren't here, with their hashes."""
        held = self._held
        before, after = len(held.keys), len(held.keys) + len(keys)
        keys, used = torch.cat([held.keys, keys]), torch.cat([held.used, torch.full_like(keys, self._clock)])
        if after > self.capacity:
            kept = ages(keys, used).argsort()[: self.capacity - self.capacity // 8].sort().values
            old = int((kept < before).sum())
            self._move([held.states[kept[:old]], rows[kept[old:] - before]], keys[kept], used[kept])
        elif after > len(held.memory):
            self._move([held.states, rows], keys, used)
        else:
            held.memory.data[before:after] = rows  # .data: states that autograd has saved count as they were
            self._held = _Held.of(held.memory, keys, used, held.number)

    def _move(self, parts: Sequence[Tensor], keys: Tensor, used: Tensor) -> None:
        """Hold other states, in a memory of their own with room for as many again."""
        held = self._held
        memory = held.memory.new_empty(min(2 * len(keys), self.capacity), *self.problem.shape)
        torch.cat([*parts], out=memory[: len(keys)])
        self._past[held.number] = held.memory
        while len(self._past) > 1 and (len(self._past) > _PAST or _bytes(self._past) > _PAST_BYTES):
            self._past.popitem(last=False)
        self._held = _Held.of(memory, keys, used, held.number + 1)

    @torch.no_grad()
    def contains(self, z: Tensor) -> Tensor:
        """Tell which of some states are here, bool [*batch] for z [*batch, *shape].

        Raises:
            ShapeError: z hasn't the problem's shape.
        """
        lead, rows = self._state_rows(z)
        return self._held.find(self._hash(rows))[1].reshape(lead)

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
        split = require_float(values, what).ndim - len(shape)
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
        """Return the states [P, 1 + n], each behind its age: how many others were added later."""
        with _changing:
            held = self._held
            return torch.cat([ages(held.keys, held.used)[:, None].to(held.states), held.states.flatten(1)], dim=1)

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Take the states of a saved pool of this problem.

        Raises:
            TypeError: it isn't what `get_extra_state` returns.
            ValueError: it is no pool's: its states aren't finite and distinct, or its ages not 0, 1, … in any order.
        """
        require_tensor(state, 1 + math.prod(self.problem.shape))
        with _changing:
            rows = state.to(self.states)
            keys = self._hash(rows[:, 1:])
            require_possible(state, rows, keys)
            kept = rows[:, 0] < self.capacity
            states = rows[kept, 1:].reshape(-1, *self.problem.shape)
            self._move([states], keys[kept], -rows[kept, 0].long())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any, **keywords: Any) -> None:
        """Load a saved pool; the states of another problem, with a warning, aren't taken."""
        errors: list[str] = arguments[-1]
        key, states = f"{prefix}{PROBLEM}", f"{prefix}_extra_state"
        if key in state_dict:
            saved, own = state_dict[key], digest(self.problem.digest)
            if not is_readable(saved) or saved.shape != own.shape:
                errors.append(refused(key, len(own), saved))
                return
            if states in state_dict and not torch.equal(saved.cpu().double(), own.double()):
                warnings.warn(
                    f"the saved pool has states of another problem than {self.problem!r}: this one begins empty",
                    stacklevel=2,
                )
                state_dict[states] = self.states.new_empty(0, 1 + math.prod(self.problem.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments, **keywords)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)

    def _apply(self, fn: Any, recurse: bool = True) -> StatePool:
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
        with _changing:
            held = self._held
            device = fn(held.states).device  # float32 whatever dtype the model is cast to
            if device != held.states.device:
                memory, keys, used = (each.to(device) for each in (held.memory, held.keys, held.used))
                self._held = _Held.of(memory, keys, used, held.number)
                self._past = OrderedDict((number, each.to(device)) for number, each in self._past.items())
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_past": OrderedDict()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        """Return what is in it."""
        return f"{self.problem!r}, {len(self)} states"


def _firsts(keys: Tensor, chosen: Tensor) -> Tensor:
    """Return the place of the first of each chosen key [N], by ascending key."""
    places = chosen.nonzero().squeeze(1)
    ordered, order = keys[places].sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    return places[order[is_first]]


def _bytes(memories: OrderedDict[int, Tensor]) -> int:
    return sum(each.nbytes for each in memories.values())


def _scores(rows: Tensor, states: Tensor) -> Tensor:
    """Return ⟨row, state⟩ for rows [m, n] and states [n, P], −inf where a state has an entry that −inf forbids."""
    forbidden = rows.isneginf()
    with full_precision(rows):
        if not bool(forbidden.any()):
            return rows @ states
        scores = rows.masked_fill(forbidden, 0.0) @ states
        return scores.masked_fill_((forbidden.to(states) @ (states != 0).to(states)) > 0, -math.inf)
