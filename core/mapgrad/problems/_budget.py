"""A bound on the work of a search, in steps, so that its outcome doesn't depend on the speed of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapgrad.errors import MapgradError


class Budget:
    """Steps that a search may still take.

    Args:
        steps: How many; a step is about a tenth of a microsecond to a microsecond of work.
        error: What is raised when more are asked for.
    """

    def __init__(self, steps: int, error: MapgradError) -> None:
        self._left = steps
        self._error = error

    def spend(self, steps: int = 1) -> None:
        """Take steps off the budget.

        Raises:
            MapgradError: the error of this budget, when it is used up.
        """
        self._left -= steps
        if self._left < 0:
            raise self._error
