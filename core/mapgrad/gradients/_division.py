"""Differences of answers over the steps that they belong to."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def divided(difference: Tensor, divisor: Tensor | float) -> Tensor:
    """Return the quotient, in the difference's dtype whatever the divisor's, and finite."""
    if not isinstance(divisor, Tensor):
        return difference / _scalar(divisor, difference.dtype)
    most = torch.finfo(difference.dtype).max * 2.0**-16
    return difference * divisor.double().reciprocal().clamp(-most, most).to(difference.dtype)


@lru_cache(maxsize=16)
def _scalar(value: float, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor [], the same for all who ask: torch would make one each time, in more time."""
    with torch.inference_mode(mode=False):
        return torch.full((), value, dtype=dtype, device="cpu")
