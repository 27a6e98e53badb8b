"""Numbers that users give to estimators and targets."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        TypeError: it isn't a number.
        ValueError: it isn't positive, or infinite.
    """
    if not number(name, value) > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return finite(name, value)


def non_negative(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        TypeError: it isn't a number.
        ValueError: it is negative, infinite or NaN.
    """
    if not number(name, value) >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return finite(name, value)


def finite(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        TypeError: it isn't a number.
        ValueError: it is infinite or NaN.
    """
    if not math.isfinite(number(name, value)):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def number(name: str, value: float) -> float:
    """Return an argument as a float.

    Raises:
        TypeError: it isn't a number.
    """
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)
