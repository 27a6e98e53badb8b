"""A run beside an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mapgrad.errors import MapgradError

if TYPE_CHECKING:
    from mapgrad.bench._report import Report, Spread

_SLOWER: Final = 1.1
"""What counts as slower at least: other places in memory alone move medians by some percent from run to run."""


@dataclass(frozen=True)
class Change:
    """A row's ratio in two runs.

    Attributes:
        key: Which row.
        before: Its ratio in the earlier run.
        now: Its ratio in this run.
    """

    key: str
    before: Spread
    now: Spread

    @property
    def factor(self) -> float:
        """What the median is, as a multiple of what it was."""
        return self.now.median / self.before.median

    @property
    def is_regression(self) -> bool:
        """Whether it got worse beyond the spread: by a tenth at least, and the quartiles don't overlap."""
        return self.factor > _SLOWER and self.now.low > self.before.high


def compare(before: Report, now: Report) -> list[Change]:
    """Return how the ratios of two runs of a suite differ: of the rows that both have and that are judged in both.

    Raises:
        MapgradError: the runs are of two suites, or have no such row in common.
    """
    if before.suite != now.suite:
        raise MapgradError(f"the earlier report is of suite {before.suite!r}, this one of {now.suite!r}")
    earlier = {row.key: row for row in before.rows}
    changes = [
        Change(row.key, old.ratio, row.ratio)
        for row in now.rows
        if (old := earlier.get(row.key)) and row.judged and old.judged and row.ratio and old.ratio
    ]
    if not changes:
        raise MapgradError("the two reports have no figure in common: run the same cases")
    return changes
