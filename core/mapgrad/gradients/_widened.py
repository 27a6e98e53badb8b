# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
"""θ in the dtype that a layer computes in, and its gradient back in θ's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mapgrad.batching import compute_dtype


def widened(theta: Tensor) -> Tensor:
    """Return θ in a dtype of at least float32; its gradient saturates where θ's own dtype ends."""
    if compute_dtype(theta.dtype) == theta.dtype:
        return theta
    if not theta.requires_grad and torch.compiler.is_compiling():  # which can't map the function
        return theta.to(compute_dtype(theta.dtype))
    return _Widened.apply(theta)


class _Widened(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(theta: Tensor) -> Tensor:
        return theta.to(compute_dtype(theta.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        limits = torch.finfo(ctx.dtype)
        return gradients[0].clamp(limits.min, limits.max).to(ctx.dtype)
