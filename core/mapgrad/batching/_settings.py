"""What a user asks for beside the solver and the problem."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapgrad.batching._policy import ErrorPolicy
    from mapgrad.batching._theta import DomainPolicy
    from mapgrad.batching._workers import Workers


@dataclass(frozen=True)
class Settings:
    """What `get_solver` was given beside the solver and the problem."""

    workers: Workers = None
    on_error: ErrorPolicy = "raise"
    time_limit: float | None = None
    domain: DomainPolicy = "clip"
    reuse: bool = False
    merge: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle.dumps(self.workers)
        except Exception as error:
            raise TypeError(
                f"a solver with workers=<{type(self.workers).__name__}> can't be pickled, as the executor can't leave "
                "this process: save the layer's state_dict(), or give a number of workers"
            ) from error
        return self.__dict__
