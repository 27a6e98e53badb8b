"""How a law stands that isn't broken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How a law stands that isn't broken.

    Attributes:
        law: Its name.
        applies: Whether there was anything to check.
        reasons: Why the law doesn't apply; of one that is kept, what was left out and why.
    """

    law: str
    applies: bool = True
    reasons: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """The outcome in words: ``kept``, ``kept; left out: …`` or ``doesn't apply: …``."""
        reasons = "; ".join(self.reasons)
        if not self.applies:
            return f"doesn't apply: {reasons}"
        return f"kept; left out: {reasons}" if reasons else "kept"

    def __str__(self) -> str:
        return f"{self.law}: {self.result}"
