# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""From a layer's θ to its answers: by the lean functions of eager mode, or by opaque ops where somebody traces.

Both run the same Python: `Pass.forward` and `Pass.gradient`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mapgrad.batching import Record, is_differentiated, is_in_backward, is_mapped, is_traced
from mapgrad.gradients._eager import Each, Eager
from mapgrad.gradients._pass import Pass
from mapgrad.gradients._pending import Background, Pending
from mapgrad.gradients._traced import Traced, ops
from mapgrad.gradients._widened import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients._owner import Owner


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
        key: That of the step, from `next_key`; None for a new one.
        ids: int64 [*batch], what stands for a row in the noise; None for its rank and place.

    Returns:
        [*batch, *shape], or [S, *batch, *shape], of θ's dtype and device.
    """
    wide = widened(theta)
    key = _key_of(owner, work, wide, perturb=perturb) if key is None else key
    if not is_traced(theta):
        pass_ = _pass_of(owner, work, key, samples=samples, perturb=perturb, is_mean=is_mean, ids=ids)
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
    wide = widened(theta)
    key = _key_of(owner, work, wide, perturb=perturb)
    pass_ = _pass_of(owner, work, key, samples=samples, perturb=perturb, is_mean=is_mean, ids=ids)
    record = Record((), theta.dtype)
    background = Background(owner, pass_, wide, record)
    return Pending(background, lambda: _output(owner, wide, pass_, record, background).to(theta.dtype))


def _key_of(owner: Owner, work: SolverAtWork, theta: Tensor, *, perturb: bool) -> int | Tensor | None:
    estimator = owner.estimator
    begins = perturb and (estimator.noise_for(work.problem) is not None or estimator.is_adaptive)
    return next_key(owner, [theta]) if begins else None


def _pass_of(
    owner: Owner,
    work: SolverAtWork,
    key: int | Tensor | None,
    *,
    samples: int,
    perturb: bool,
    is_mean: bool,
    ids: Tensor | None,
) -> Pass:
    estimator = owner.estimator
    noise = estimator.noise_for(work.problem) if perturb else None
    number = None if key is None else int(key)
    return Pass(owner, estimator, work, noise, number, samples=samples, is_mean=is_mean, ids=ids)


def _output(owner: Owner, theta: Tensor, pass_: Pass, record: Record, background: Background | None = None) -> Tensor:
    if is_in_backward():  # the pass that this one repeats was noted
        return Eager.apply(theta, pass_, record, background)
    monitor = owner.monitor
    monitor.last = None  # its memory may be needed
    output = Eager.apply(theta, pass_, record, background)
    monitor.last = record
    if monitor.finds_clipped(record):
        monitor.warn_of_clipping([pass_.clipping(theta)])
    return output


def next_key(owner: Owner, thetas: list[Tensor]) -> int | Tensor:
    """Begin a step with a pass of all θ given, and return its key: a number, or [] int64 where somebody traces."""
    if not any(map(is_traced, thetas)):
        return owner.keys.next(thetas, owner.estimator.begin)
    # of two calls with equal arguments, a compiler would keep one; aten.empty it never merges
    return ops.key(torch.empty((), dtype=torch.int64, device="cpu"), [*map(torch.detach, thetas)], owner.handle)


_NO_COMPILED_MAP = (
    "torch.compile can't take the gradient of a MAP layer inside torch.vmap: torch 2.13 has no support for it. "
    "Leave out torch.vmap and give the layer the whole batch, or leave out torch.compile"
)


def sample_each(
    owner: Owner,
    groups: Sequence[tuple[SolverAtWork, Tensor, Sequence[int]]],
    *,
    dtypes: torch.dtype | list[torch.dtype],
    samples: int,
    perturb: bool,
    is_mean: bool,
    key: int | Tensor | None,
    ids: Sequence[Tensor],
) -> list[Tensor]:
    """Return what `sample` does for the rows of each problem of a batch; all are tried before failing rows are named.

    Where somebody traces, the first group that fails is named alone.

    Args:
        owner: The layer.
        groups: For each problem the solver at work on it, its rows θ [N, *shape], and their numbers in the batch.
        dtypes: That of the user's batch, or of each row of a list.
        samples: S.
        perturb: Whether noise is added.
        is_mean: As for `sample`.
        key: That of the noise of all groups.
        ids: For each group, what stands for its rows in the noise.

    Returns:
        For each group, as from `sample`.
    """
    if any(is_traced(theta) for _, theta, _ in groups):
        return [
            sample(owner, work, theta, samples=samples, perturb=perturb, is_mean=is_mean, key=key, ids=each)
            for (work, theta, _), each in zip(groups, ids, strict=True)
        ]
    passes: list[Pass] = []
    estimator = owner.estimator
    for (work, _, numbers), each in zip(groups, ids, strict=True):
        noise = estimator.noise_for(work.problem) if perturb else None
        number = None if key is None else int(key)
        made = Pass(owner, estimator, work, noise, number, samples=samples, is_mean=is_mean, ids=each, numbers=numbers)
        passes.append(made)
    thetas = [theta for _, theta, _ in groups]
    monitor, record = owner.monitor, Record((sum(map(len, thetas)),), dtypes)
    if is_in_backward():
        return list(Each.apply(passes, record, *thetas))
    monitor.last = None
    outputs = Each.apply(passes, record, *thetas)
    monitor.last = record
    if monitor.finds_clipped(record):
        monitor.warn_of_clipping([pass_.clipping(theta) for pass_, theta in zip(passes, thetas, strict=True)])
    return list(outputs)
