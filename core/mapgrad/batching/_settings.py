"""What a user asks for beside the solver and the problem."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, get_args

import numpy as np

from mapgrad.arguments import number
from mapgrad.batching._policy import ErrorPolicy, require_policy
from mapgrad.batching._theta import DomainPolicy
from mapgrad.workers import WorkersLike, require_workers

POLICIES: Final = ("domain", "on_error", "deadline", "blank")
"""What may differ between solvers that share native models, workers and counts."""


@dataclass(frozen=True)
class Settings:
    """What `get_solver` was given beside the solver and the problem."""

    workers: WorkersLike = None
    on_error: ErrorPolicy = "raise"
    time_limit: float | None = None
    deadline: float | None = None
    domain: DomainPolicy = "clip"
    reuse: bool = False
    merge: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    blank: bool = False
    """As for `Solver.under`."""

    def __post_init__(self) -> None:
        """Refuse what can't be meant, and have seconds as floats.

        Raises:
            ValueError: a word or a number is none of those allowed.
            TypeError: `workers` is nothing that can be; or `reuse` or `merge` isn't a bool.
        """
        object.__setattr__(self, "workers", require_workers(self.workers))
        require_policy(self.on_error)
        _require_choice("domain", self.domain, get_args(DomainPolicy))
        for name in ("time_limit", "deadline"):
            seconds = getattr(self, name)
            if seconds is not None:
                object.__setattr__(self, name, require_seconds(name, seconds, also="None or "))
        for name in ("reuse", "merge"):
            require_bool(name, getattr(self, name))

    def bound(
        self,
        domain: DomainPolicy | None = None,
        on_error: ErrorPolicy | None = None,
        deadline: float | None = None,
        blank: bool | None = None,
    ) -> Settings:
        """Return the same with what isn't None in place of what was asked for.

        Raises:
            ValueError: a word or a number is none of those allowed.
        """
        return replace(
            self,
            domain=self.domain if domain is None else domain,
            on_error=self.on_error if on_error is None else on_error,
            deadline=self.deadline if deadline is None else deadline,
            blank=self.blank if blank is None else blank,
        )

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


def require_bool(name: str, value: object, hint: str = "") -> bool:
    """Return an argument that is a bool, which Python takes any number and word for.

    Raises:
        TypeError: it isn't one.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}{hint}")
    return bool(cast("bool", value))


def require_minimize(value: object) -> bool:
    """Return an argument `minimize`.

    Raises:
        TypeError: it isn't a bool.
    """
    return require_bool("minimize", value, ": True for costs, False for utilities (modelSense 1 and −1 in PyEPO)")


def require_seconds(name: str, value: object, *, also: str = "") -> float:
    """Return a positive number of seconds as a float, infinite where it is too large for one; NumPy's are some.

    Args:
        name: The argument's name.
        value: What was given.
        also: What else may be given, as the message says it.

    Raises:
        ValueError: it isn't such a number.
    """
    try:
        seconds = number(name, value)
    except TypeError:
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"{name} must be {also}a positive number of seconds, got {value!r}")
    return seconds
