# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""From a layer's θ to its answers: by the lean functions of eager mode, or by opaque ops where somebody traces.

Both run the same Python: `Pass.forward` and `Pass.gradient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mapgrad.batching import (
    Record,
    exported,
    is_differentiated,
    is_in_backward,
    is_mapped,
    is_traced,
    without_gradient,
)
from mapgrad.gradients._eager import Eager
from mapgrad.gradients._end import end_forward
from mapgrad.gradients._normalized import normalized
from mapgrad.gradients._pass import Pass
from mapgrad.gradients._pending import Background, Pending
from mapgrad.gradients._traced import Traced, ops
from mapgrad.gradients._widened import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients._owner import Keyed, Owner


def sample(
    owner: Owner,
    work: SolverAtWork,
    theta: Tensor,
    *,
    samples: int,
    perturb: bool,
    is_mean: bool,
    key: int | Tensor | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Return MAP states of S copies of θ, with the estimator's gradient.

    Args:
        owner: The layer.
        work: The solver at work on the problem.
        theta: [*batch, *shape], of any float dtype.
        samples: S.
        perturb: Whether noise is added.
        is_mean: Whether to return the mean over the samples, or all of them.
        key: That of the step, from `step_key`; None for a new one if `perturb`.
        ids: int64 [*batch], what stands for a row in the noise; None for its rank and place.

    Returns:
        [*batch, *shape], or [S, *batch, *shape], of θ's dtype and device.
    """
    if is_mean and not perturb and torch.compiler.is_exporting():
        found = exported(-theta if owner.minimize else theta, work)
        if found is not None:
            return without_gradient(found, theta)
    wide = prepared(owner, work, theta)
    if key is None and perturb:
        key = step_key(owner, [work], [wide])
    if not is_traced(theta):
        pass_ = Pass(owner, work, key, samples=samples, is_mean=is_mean, ids=ids)
        return _output(owner, wide, pass_, Record((), theta.dtype)).to(theta.dtype)
    if torch.compiler.is_compiling() and is_mapped():
        if theta.requires_grad or is_differentiated():
            raise RuntimeError(_NO_COMPILED_MAP)
        z = ops.forward(wide, key, ids, [], samples, is_mean, owner.handle, work.handle)[0]
    else:
        # without the view, compiling torch.func.grad of θ itself would drop the function
        z = Traced.apply(wide.view_as(wide), key, ids, samples, is_mean, owner.handle, work.handle)[0]
    return z if z.dtype == theta.dtype else z.to(theta.dtype)


def submit(
    owner: Owner,
    work: SolverAtWork,
    theta: Tensor,
    *,
    samples: int,
    perturb: bool,
    is_mean: bool,
    ids: Tensor | None,
) -> Pending:
    """Begin what `sample` does in a thread of its own; arguments as there, θ not traced."""
    wide = prepared(owner, work, theta)
    key = step_key(owner, [work], [wide]) if perturb else None
    pass_ = Pass(owner, work, key, samples=samples, is_mean=is_mean, ids=ids)
    record = Record((), theta.dtype)
    background = Background(owner, pass_, wide, record)
    return Pending(background, lambda: _output(owner, wide, pass_, record, background).to(theta.dtype))


def prepared(owner: Owner, work: SolverAtWork, theta: Tensor) -> Tensor:
    """Return θ as passes take it: in at least float32, and normalised if the layer does so."""
    wide = widened(theta)
    return normalized(wide, work, minimize=owner.minimize) if owner.normalize else wide


def _output(owner: Owner, theta: Tensor, pass_: Pass, record: Record, background: Background | None = None) -> Tensor:
    if is_in_backward():  # the pass that this one repeats was noted
        return Eager.apply(theta, pass_, record, background)
    monitor = owner.monitor
    monitor.last = None  # its memory may be needed
    output = Eager.apply(theta, pass_, record, background)
    monitor.last = record
    end_forward(owner, record, [(pass_, theta)])
    return output


def step_key(
    owner: Owner, works: Sequence[SolverAtWork], thetas: list[Tensor], *, may_differ: bool = False
) -> int | Tensor | None:
    """Begin a step as `next_key` does, where the estimator draws noise for any problem, or adapts; else return None.

    Where problems may differ from call to call, a law is enough: the step is also that of other ranks, whose rows may
    have problems with noise while those of this one have none, or while it has no rows.
    """
    estimator = owner.estimator
    laws = [estimator.noise_for(work.problem) for work in works]
    has_noise = any(law is not None for law in laws) or (may_differ and estimator.noise is not None)
    return next_key(owner, thetas) if has_noise or estimator.is_adaptive else None


def next_key(owner: Keyed, thetas: list[Tensor]) -> int | Tensor:
    """Begin a step with a pass of all θ given, and return its key: a number, or [] int64 where somebody traces."""
    if not any(map(is_traced, thetas)):
        return owner.keys.next(thetas, owner.begin)
    # of two calls with equal arguments, a compiler would keep one; aten.empty it never merges
    return ops.key(torch.empty((), dtype=torch.int64, device="cpu"), [*map(torch.detach, thetas)], owner.handle)


_NO_COMPILED_MAP = (
    "torch.compile can't take the gradient of a MAP layer inside torch.vmap: torch 2.13 has no support for it. "
    "Leave out torch.vmap and give the layer the whole batch, or leave out torch.compile"
)
