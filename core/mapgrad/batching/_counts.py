"""What solvers at work did."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from mapgrad.batching._theta import to_list
from mapgrad.solutions import Status
from mapgrad.workers import new_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def _name(status: Status) -> str:
    return f"failed_{status.name.lower()}"


NO_COUNTS: Final[Mapping[str, float]] = {
    **dict.fromkeys(
        ("rows", "solves", "equal", "known", "clipped", "handed_over", "incumbent", "fallback", "failed"), 0
    ),
    **dict.fromkeys((_name(status) for status in Status if status != Status.OPTIMAL), 0),
    "seconds": 0.0,
}
"""What is counted, under the names of `Solver.stats`."""


def failures(status: Tensor) -> dict[str, float]:
    """Return the counts of rows that failed, together and by this status of theirs, [N]."""
    by_status = Counter(_name(Status(each)) for each in to_list(status))
    return {"failed": by_status.total(), **by_status}


class Counts:
    """What solvers at work did, under the names of `NO_COUNTS`; added to from any thread."""

    def __init__(self) -> None:
        self._totals = {**NO_COUNTS}
        self._lock = new_lock()
        self._has_warned = False

    def add(self, counts: Mapping[str, float]) -> None:
        """Add what was done."""
        with self._lock:
            for name, number in counts.items():
                self._totals[name] += number

    def may_warn(self) -> bool:
        """Tell, once, whether nobody has warned yet that rows fail."""
        with self._lock:
            is_first, self._has_warned = not self._has_warned, True
        return is_first

    def totals(self) -> dict[str, float]:
        """Return the sums so far."""
        with self._lock:
            return {**self._totals}
