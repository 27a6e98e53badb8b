"""Rows between a device and the host: pinned and non-blocking where the device is a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def to_host(rows: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array; on the CPU it shares the tensor's memory."""
    if rows.device.type != "cuda":
        return np.asarray(rows.cpu())
    buffer = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    buffer.copy_(rows, non_blocking=True)
    torch.cuda.current_stream(rows.device).synchronize()
    return np.asarray(buffer)


def to_device(values: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array as a tensor of another tensor's dtype and device."""
    tensor = torch.as_tensor(values)
    if like.device.type != "cuda":
        return tensor.to(like.device, like.dtype)
    return tensor.to(like.dtype).pin_memory().to(like.device, non_blocking=True)
