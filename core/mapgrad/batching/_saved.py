"""Values of a `state_dict`, which may be of a damaged file or another module's."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from mapgrad.batching._theta import to_list

_SHOWN = 3
"""Numbers of a tensor that a message has."""


def is_readable(value: object) -> TypeGuard[Tensor]:
    """Tell whether it is a dense tensor of real numbers, with values."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_complex() or value.is_quantized or value.is_meta)
    )


def text_of_saved(value: object) -> str:
    """Return what a message says of it: its type and, of a tensor, the dtype, the shape and the first numbers."""
    if not isinstance(value, Tensor):
        return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    text = f"a tensor of {value.dtype} {tuple(value.shape)}"
    if not is_readable(value):
        return f"{text}, {value.layout} on {value.device}"
    numbers = ", ".join(map(str, to_list(value.flatten()[:_SHOWN])))
    more = ", …" if value.numel() > _SHOWN else ""
    damage = "" if bool(value.isfinite().all()) else ", not all finite"
    return f"{text}: {numbers}{more}{damage}"
