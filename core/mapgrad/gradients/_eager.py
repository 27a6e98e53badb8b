# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false
"""The autograd functions of eager mode.

A backward pass that is asked for a graph runs inside another function whose own backward refuses, so that second
derivatives, which these estimators don't define, are an error instead of zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mapgrad.batching import Record, hides_values, is_in_compiled_autograd
from mapgrad.gradients.estimators import Forward

if TYPE_CHECKING:
    from mapgrad.gradients._pass import Pass
    from mapgrad.gradients._pending import Background


class Eager(torch.autograd.Function):
    """One pass; a forward pass that was run elsewhere is waited for."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, pass_: Pass, record: Record, background: Background | None = None) -> Tensor:
        found = pass_.forward(theta, record) if background is None else background.found()
        if found is None:
            raise record.error()
        output, forward = found
        ctx.pass_, ctx.sampler, ctx.status, ctx.state = pass_, forward.sampler, forward.status, forward.state
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(forward.theta, forward.z, forward.rows, theta)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        gradient = gradients[0]
        if gradient is None:
            return None, None, None, None
        theta, z, rows, given = ctx.saved_tensors
        forward = Forward(z, ctx.status, rows, ctx.state, theta, ctx.sampler)
        record = Record(())
        found = _gradient_in_eager(ctx.pass_, forward, gradient, record, given)
        if found is None:
            raise record.error(is_backward=True)
        return found, None, None, None


class Each(torch.autograd.Function):
    """The passes of a batch whose rows have several problems: all are tried before rows that failed are named."""

    @staticmethod
    def forward(ctx: Any, passes: list[Pass], record: Record, *thetas: Tensor) -> tuple[Tensor, ...]:
        tried = [pass_.forward(theta, record) for pass_, theta in zip(passes, thetas, strict=True)]
        if record.has_failed:
            raise record.error()
        found = [each for each in tried if each is not None]
        ctx.passes, ctx.batch = passes, record.batch
        ctx.rest = [(forward.sampler, forward.status, forward.state) for _, forward in found]
        ctx.set_materialize_grads(False)
        kept = ((made.theta, made.z, made.rows, theta) for (_, made), theta in zip(found, thetas, strict=True))
        ctx.save_for_backward(*(each for tensors in kept for each in tensors))
        return tuple(output for output, _ in found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        record = Record(ctx.batch)
        found: list[Tensor | None] = []
        for place, (pass_, gradient) in enumerate(zip(ctx.passes, gradients, strict=True)):
            if gradient is None or not ctx.needs_input_grad[2 + place]:
                found.append(None)
                continue
            theta, z, rows, given = saved[4 * place : 4 * place + 4]
            sampler, status, state = ctx.rest[place]
            forward = Forward(z, status, rows, state, theta, sampler)
            found.append(_gradient_in_eager(pass_, forward, gradient, record, given))
        if record.has_failed:
            raise record.error(is_backward=True)
        return None, None, *found


def _gradient_in_eager(pass_: Pass, forward: Forward, gradient: Tensor, record: Record, theta: Tensor) -> Tensor | None:
    if is_in_compiled_autograd():  # else dynamo would trace noise and solver, to other numbers
        return torch.compiler.disable(pass_.gradient)(forward, gradient, record)  # pyright: ignore[reportCallIssue] (as a decorator in torch)
    if hides_values(gradient):
        raise RuntimeError(
            "a MAP layer can't take is_grads_batched=True, whose tensors hide their values from it: "
            "take torch.func.jacrev or torch.func.vmap of torch.func.vjp instead"
        )
    if torch.is_grad_enabled():
        # θ as it was given, so that whoever differentiates the gradient by it comes by
        return _OneDerivative.apply(theta, gradient, pass_, forward, record)
    return pass_.gradient(forward, gradient, record)


def refuse(ctx: Any, *_: Any) -> Any:
    """Refuse a second derivative."""
    raise RuntimeError(_NO_SECOND_DERIVATIVE)


class _OneDerivative(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, theta: Tensor, gradient: Tensor, pass_: Pass, forward: Forward, record: Record
    ) -> Tensor | None:
        return pass_.gradient(forward, gradient.detach(), record)

    backward = staticmethod(refuse)


_NO_SECOND_DERIVATIVE = (
    "a MAP layer has no second derivative: its gradient is itself an estimate from solver calls. "
    "Drop create_graph=True, or detach the layer's gradient before differentiating again"
)
