# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUntypedBaseClass=false
"""The ops that hide solvers, noise and state from tracing, and the one autograd function around them.

An op is opaque to torch.compile, torch.vmap and torch.func.grad: each sees a function of tensors whose output shapes
are known. The autograd function's backward calls a second one whose own backward refuses, so that second derivatives,
which these estimators don't define, are an error instead of zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mapgrad.gradients._handles import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.gradients._engine import Engine

_library = torch.library.Library("mapgrad", "DEF")
_ops = torch.ops.mapgrad


def _define(schema: str, implementation: Any, fake: Any, vmap: Any, *, tags: tuple[torch.Tag, ...] = ()) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=tags)
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mapgrad::{name}", fake, lib=_library)
    torch.library.register_vmap(f"mapgrad::{name}", vmap, lib=_library)


def _stacked(tensors: Sequence[Tensor | None], dims: Sequence[int | None], size: int) -> list[Tensor | None]:
    """Bring vmap's dimension to the front, or make it where a tensor doesn't have it."""
    return [
        None if tensor is None else tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]


def _solve_fake(
    rows: Tensor, known_rows: object, known_z: object, known_status: object, lead: int, event_ndim: int, handle: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), rows.new_empty(rows.shape[: rows.ndim - event_ndim], dtype=torch.int64)


def _solve_vmap(info: Any, dims: Any, *arguments: Any) -> Any:
    *tensors, lead, event_ndim, handle = arguments
    return _ops.solve(*_stacked(tensors, dims[:4], info.batch_size), lead + 1, event_ndim, handle), (0, 0)


def _observe_vmap(info: Any, dims: Any, *arguments: Any) -> Any:
    *tensors, event_ndim, handle = arguments
    return _ops.observe(*_stacked(tensors, dims[:3], info.batch_size), event_ndim, handle), 0


_define(
    "solve(Tensor rows, Tensor? known_rows, Tensor? known_z, Tensor? known_status, int lead, int event_ndim, "
    "int handle) -> (Tensor, Tensor)",
    lambda *arguments: find(arguments[-1]).solve(*arguments[:-1]),
    _solve_fake,
    _solve_vmap,
)
_define(
    "noise(Tensor like, int samples, int handle) -> Tensor",
    lambda like, samples, handle: find(handle).draw(like, samples),
    lambda like, samples, handle: like.new_empty((samples, *like.shape)),
    lambda info, dims, like, samples, handle: (_ops.noise(like.movedim(dims[0], 0), samples, handle), 1),
    tags=(torch.Tag.nondeterministic_seeded,),
)
_define(
    "state(Tensor like, int handle) -> Tensor",
    lambda like, handle: find(handle).advance(like),
    lambda like, handle: like.new_empty(()),
    lambda info, dims, like, handle: (_ops.state(like.new_empty(()), handle), None),
    tags=(torch.Tag.nondeterministic_seeded,),
)
_define(
    "observe(Tensor difference, Tensor gradient, Tensor z, int event_ndim, int handle) -> Tensor",
    lambda *arguments: find(arguments[-1]).observe(*arguments[:-1]),
    lambda difference, *arguments: torch.empty_like(difference),
    _observe_vmap,
    tags=(torch.Tag.nondeterministic_seeded,),
)


class ForwardPass(NamedTuple):
    """What a backward pass may use of the forward pass; ``*`` stands for θ's dimensions.

    Attributes:
        theta: [*], the utilities, at least float32.
        noise: [S, *], the draws, or None where none were made.
        state: [], the state of an adaptive target as it was in this pass, or None.
        rows: [S, *], what was solved.
        z: [S, *], the answers.
        status: [S, *batch], `Status` values.
        event_ndim: Number of trailing dimensions that make one row.
        handle: Number of the engine that solves.
    """

    theta: Tensor
    noise: Tensor | None
    state: Tensor | None
    rows: Tensor
    z: Tensor
    status: Tensor
    event_ndim: int
    handle: int

    def solve(self, rows: Tensor) -> Tensor:
        """Return argmax ⟨row, z⟩ for rows [*lead, S, *]; rows equal to the forward pass's aren't solved again."""
        lead = rows.ndim - self.theta.ndim
        known = (self.rows.expand(rows.shape), self.z.expand(rows.shape))
        status = self.status.expand(rows.shape[: rows.ndim - self.event_ndim])
        return _ops.solve(rows, *known, status, lead, self.event_ndim, self.handle)[0]

    def observe(self, difference: Tensor, gradient: Tensor) -> Tensor:
        """Return a difference of answers [S, *] unchanged, after the layer has counted what the step found."""
        return _ops.observe(difference, gradient, self.z, self.event_ndim, self.handle)


class _Gradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        engine: Engine,
        event_ndim: int,
        gradient: Tensor,
        theta: Tensor,
        noise: Tensor | None,
        state: Tensor | None,
        rows: Tensor,
        z: Tensor,
        status: Tensor,
    ) -> Tensor:
        forward = ForwardPass(theta, noise, state, rows, z, status, event_ndim, engine.handle)
        return engine.estimator.gradient(forward, gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "a MAP layer has no second derivative: its gradient is itself an estimate from solver calls. "
            "Drop create_graph=True, or detach the layer's gradient before differentiating again"
        )


class _PerturbAndMAP(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        engine: Engine, samples: int, event_ndim: int, theta: Tensor, noise: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = engine.estimator.perturb(theta, noise, samples)
        z, status = _ops.solve(rows, None, None, None, 1, event_ndim, engine.handle)
        return z, rows, status

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        engine, _, event_ndim, theta, noise, state = inputs
        z, rows, status = output
        ctx.engine, ctx.event_ndim = engine, event_ndim
        ctx.mark_non_differentiable(rows, status)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(theta, noise, state, rows, z, status)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        if gradient is None:
            return (None,) * 6
        theta_gradient = _Gradient.apply(ctx.engine, ctx.event_ndim, gradient, *ctx.saved_tensors)
        return None, None, None, theta_gradient, None, None


def perturb_and_map(engine: Engine, theta: Tensor, *, samples: int, perturb: bool, event_ndim: int) -> Tensor:
    """Return MAP states of S perturbed copies of θ, with the estimator's gradient.

    Args:
        engine: Solver, estimator and noise.
        theta: [*batch, *shape], at least float32.
        samples: S.
        perturb: Whether noise is drawn.
        event_ndim: Number of trailing dimensions that make one row.

    Returns:
        [S, *batch, *shape] of θ's dtype and device.
    """
    noise = _ops.noise(theta.detach(), samples, engine.handle) if perturb and engine.draws_noise else None
    state = _ops.state(theta.detach(), engine.handle) if engine.estimator.adaptive else None
    return _PerturbAndMAP.apply(engine, samples, event_ndim, theta, noise, state)[0]
