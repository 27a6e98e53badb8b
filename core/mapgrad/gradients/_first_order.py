# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
"""Values whose gradient has no derivative: that of a piecewise constant or estimated one, which autograd calls zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mapgrad.batching import is_mapped


def first_order(values: Tensor, what: str) -> Tensor:
    """Return the values; a second derivative is refused.

    Args:
        values: Any.
        what: What has none, for the message.
    """
    if torch.compiler.is_compiling() and is_mapped():  # compilers can't map the function
        return values
    return _FirstOrder.apply(values, what)


class _FirstOrder(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, what: str) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        values, ctx.what = inputs
        ctx.save_for_backward(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Gradient.apply(gradients[0], *ctx.saved_tensors, ctx.what), None


class _Gradient(torch.autograd.Function):
    """The gradient, which depends on the values as far as autograd knows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, values: Tensor, what: str) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *_, ctx.what = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(
            f"{ctx.what} has no second derivative: its gradient counts as constant. "
            f"Drop create_graph=True, or detach the gradient before differentiating again"
        )
