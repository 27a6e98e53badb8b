"""What an engine of integer programs is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Event

    import numpy as np
    from numpy.typing import NDArray

    from mapgrad.solutions import Status


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One run of an engine; it may get further attributes.

    Attributes:
        theta: [num_vars] float64, utilities to be maximised, with max |θ| in [½, 1) unless all are zero.
        way: How to run: 0 for the usual way, 1, 2, … for others that share as little with it as the engine allows.
        stopped: Set, maybe from another thread, once nobody wants the answer any more.
        seconds: Seconds of wall-clock time that the run may take; None for no limit.
        reuse: Whether what earlier runs left behind may speed up this one.
        start: [num_vars] float64, a point near the optimum with NaN where nothing is known; None where there is none.
        is_coarse: Whether the rows are multiples of integers, and not of such as to need the finest tolerance.
    """

    theta: NDArray[np.float64]
    way: int
    stopped: Event
    seconds: float | None = None
    reuse: bool = False
    start: NDArray[np.float64] | None = None
    is_coarse: bool = False


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What an engine says, believed or not.

    Attributes:
        status: OPTIMAL, INFEASIBLE, TIME_LIMIT for whatever ended the run early, UNBOUNDED also for «unbounded or
            infeasible», and ERROR for all else.
        x: [num_vars] float64, the point found, as the engine gives it; None without one.
        objective: ⟨θ, x⟩ as the engine gives it; None where it gives none.
        bound: Upper bound on the optimum that the engine says it has proved; None where it gives none.
        text: How the engine puts it, for the error where its answer can't be believed.
    """

    status: Status
    x: NDArray[np.float64] | None = None
    objective: float | None = None
    bound: float | None = None
    text: str = ""

    def in_words(self) -> str:
        """Return what the engine says, for an error."""
        objective = "" if self.objective is None else f" of objective {self.objective:.12g}"
        return f"{self.status.name}{objective}{f' ({self.text})' if self.text else ''}"
