"""Numbers that users give to estimators and targets."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        ValueError: it isn't positive, or infinite.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return finite(name, value)


def non_negative(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        ValueError: it is negative, infinite or NaN.
    """
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return finite(name, value)


def finite(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        ValueError: it is infinite or NaN.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)
