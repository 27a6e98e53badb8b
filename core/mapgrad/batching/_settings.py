"""What a user asks for beside the solver and the problem."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from mapgrad.batching._policy import ErrorPolicy
from mapgrad.batching._theta import DomainPolicy
from mapgrad.workers import WorkersLike, require_workers


@dataclass(frozen=True)
class Settings:
    """What `get_solver` was given beside the solver and the problem."""

    workers: WorkersLike = None
    on_error: ErrorPolicy = "raise"
    time_limit: float | None = None
    domain: DomainPolicy = "clip"
    reuse: bool = False
    merge: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def require_valid(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ValueError: a word or a number is none of those allowed.
            TypeError: `workers` is nothing that can be.
        """
        require_workers(self.workers)
        _require_choice("on_error", self.on_error, get_args(ErrorPolicy))
        _require_choice("domain", self.domain, get_args(DomainPolicy))
        _require_time_limit(self.time_limit)

    def without_options(self) -> Settings:
        """Return the same for another solver than the one that was asked for."""
        return replace(self, options={})

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle.dumps(self.workers)
        except Exception as error:
            raise TypeError(
                f"a solver with workers=<{type(self.workers).__name__}> can't be pickled, as the executor can't leave "
                "this process: save the layer's state_dict(), or give a number of workers"
            ) from error
        return self.__dict__


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _require_time_limit(value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"time_limit must be None or a positive number of seconds, got {value!r}")
