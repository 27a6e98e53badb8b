# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
"""θ whose gradient has no derivative: that of a piecewise constant function, which autograd would call zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mapgrad.batching import is_mapped


def first_order(theta: Tensor) -> Tensor:
    """Return θ; a second derivative is refused."""
    if torch.compiler.is_compiling() and is_mapped():  # compilers can't map the function
        return theta
    return _FirstOrder.apply(theta)


class _FirstOrder(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(theta: Tensor) -> Tensor:
        return theta.view_as(theta)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Gradient.apply(gradients[0], *ctx.saved_tensors)


class _Gradient(torch.autograd.Function):
    """The gradient, which depends on θ as far as autograd knows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, theta: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(
            "a loss of mapgrad.losses has no second derivative: its gradient counts as constant. "
            "Drop create_graph=True, or detach the loss's gradient before differentiating again"
        )
