"""Numbers that users give."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, cast


def whole_number(name: str, value: object, least: int | None = None, *, also: str = "") -> int:
    """Return an argument as an int; integers of NumPy are some.

    Args:
        name: The argument's name.
        value: What was given.
        least: The smallest that is allowed; None allows all.
        also: What else may be given, as the message says it.

    Raises:
        TypeError: it isn't an integer.
        ValueError: it is less than that.
    """
    expected = f"{name} must be an int{'' if least is None else f' of at least {least}'}{also}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{expected}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{expected}, got {value!r}")
    return int(value)


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
    found = number(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, got {value}")
    return found


def number(name: str, value: object) -> float:
    """Return an argument as a float, infinite where it is too large for one.

    Raises:
        TypeError: it isn't a number, or requires grad, which is lost on the way.
    """
    if getattr(value, "requires_grad", False):
        raise TypeError(f"{name} must be a number, which no gradient reaches, got a tensor that requires grad")
    try:
        plain = cast("Any", value)
        if hasattr(plain, "item"):
            plain = plain.item()  # so that NumPy's and torch's are Python's
        if hasattr(plain, "__float__") and not isinstance(plain, bool):
            return float(plain)
    except OverflowError:
        return math.inf if cast("Any", value) > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):  # an array of several numbers
        pass
    raise TypeError(f"{name} must be a number, got {value!r}")
