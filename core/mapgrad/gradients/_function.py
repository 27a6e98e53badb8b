# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUntypedBaseClass=false
"""From a layer's θ to its answers: the autograd functions around a pass, made of opaque ops where somebody traces.

These ops and the lean functions of eager mode run the same Python: `Pass.forward` and `Pass.gradient`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mapgrad.batching import Record, SolverAtWork, define, find, is_differentiated, is_in_backward, is_mapped, is_traced
from mapgrad.gradients._counter import can_repeat
from mapgrad.gradients._eager import Each, Eager, refuse
from mapgrad.gradients._pass import Pass
from mapgrad.gradients.estimators._checks import require_state_like

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return MAP states of S copies of θ, with the estimator's gradient.

    Args:
        owner: The layer.
        work: The solver at work on the problem.
        theta: [*batch, *shape], at least float32.
        samples: S.
        perturb: Whether noise is added.
        is_mean: Whether to return the mean over the samples, or all of them.
        key: That of the step, from `next_key`; None for a new one.
        ids: int64 [*batch], what stands for a row in the noise; None for its rank and place.
        dtype: What the user's θ has.

    Returns:
        [*batch, *shape], or [S, *batch, *shape], of θ's dtype and device.
    """
    estimator = owner.estimator
    noise = estimator.noise_for(work.problem) if perturb else None
    if key is None and perturb and (noise is not None or estimator.is_adaptive):
        key = next_key(owner, [theta])
    if not is_traced(theta):
        number = None if key is None else int(key)
        pass_ = Pass(owner, estimator, work, noise, number, samples=samples, is_mean=is_mean, ids=ids)
        monitor, record = owner.monitor, Record((), dtype)
        if is_in_backward():  # the pass that this one repeats was noted
            return Eager.apply(theta, pass_, record)
        monitor.last = None  # its memory may be needed
        output = Eager.apply(theta, pass_, record)
        monitor.last = record
        if monitor.finds_clipped(record):
            monitor.warn_of_clipping([pass_.clipping(theta)])
        return output
    if torch.compiler.is_compiling() and is_mapped():
        if theta.requires_grad or is_differentiated():
            raise RuntimeError(_NO_COMPILED_MAP)
        return _ops.forward(theta, key, ids, [], samples, is_mean, owner.handle, work.handle)[0]
    # without the view, compiling torch.func.grad of θ itself would drop the function
    return _Traced.apply(theta.view_as(theta), key, ids, samples, is_mean, owner.handle, work.handle)[0]


def next_key(owner: Owner, thetas: list[Tensor]) -> int | Tensor:
    """Begin a step with a pass of all θ given, and return its key: a number, or [] int64 where somebody traces."""
    if not any(map(is_traced, thetas)):
        return owner.keys.next(thetas, owner.estimator.begin)
    # of two calls with equal arguments, a compiler would keep one; aten.empty it never merges
    return _ops.key(torch.empty((), dtype=torch.int64, device="cpu"), [*map(torch.detach, thetas)], owner.handle)


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


class _Traced(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        theta: Tensor,
        key: Tensor | None,
        ids: Tensor | None,
        samples: int,
        is_mean: bool,
        owner: int,
        work: int,
    ) -> tuple[Tensor, ...]:
        output, z, status, rows, noise, state = _ops.forward(theta, key, ids, [], samples, is_mean, owner, work)
        return output, z, status, rows, noise, *state

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        theta, key, ids, ctx.samples, ctx.is_mean, ctx.owner, ctx.work = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(key, ids, theta, *output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        if gradient is None:
            return (None,) * 7
        key, ids, theta, z, status, rows, noise, *state = ctx.saved_tensors
        # dynamo takes no more arguments than there are parameters: the state comes as one
        found = _TracedGradient.apply(
            ctx.samples, ctx.is_mean, ctx.owner, ctx.work, gradient, key, ids, theta, z, status, rows, noise, state
        )
        return found, None, None, None, None, None, None


class _TracedGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        samples: int,
        is_mean: bool,
        owner: int,
        work: int,
        gradient: Tensor,
        key: Tensor | None,
        ids: Tensor | None,
        theta: Tensor,
        z: Tensor,
        status: Tensor,
        rows: Tensor,
        noise: Tensor,
        state: list[Tensor],
    ) -> Tensor:
        found = z, status, rows, noise, state
        return _ops.gradient(gradient, theta, *found, key, ids, [], samples, is_mean, owner, work)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    backward = staticmethod(refuse)


_ops = torch.ops.mapgrad


def _new_pass(
    key: Tensor | None, ids: Tensor | None, mapped: Sequence[int], samples: int, is_mean: bool, owner: int, work: int
) -> Pass:
    layer: Owner = find(owner)
    at_work: SolverAtWork = find(work)
    estimator = layer.estimator
    noise, number = (None, None) if key is None else (estimator.noise_for(at_work.problem), int(key))
    differs = tuple(map(bool, mapped))
    return Pass(layer, estimator, at_work, noise, number, samples=samples, is_mean=is_mean, mapped=differs, ids=ids)


def _key(_fresh: Tensor, thetas: list[Tensor], owner: int) -> Tensor:
    layer: Owner = find(owner)
    return torch.tensor(layer.keys.next(thetas, layer.estimator.begin), device="cpu")


def _key_vmap(_info: Any, dims: Any, fresh: Tensor, thetas: list[Tensor], owner: int) -> Any:
    return _ops.key(fresh if dims[0] is None else fresh.select(dims[0], 0), thetas, owner), None


def _forward(
    theta: Tensor, key: Tensor | None, ids: Tensor | None, mapped: Sequence[int], *rest: Any
) -> tuple[Tensor, ...]:
    pass_ = _new_pass(key, ids, mapped, *rest)
    record, is_repeated = Record(()), is_in_backward()
    if not is_repeated:
        pass_.monitor.last = None  # answers are never kept where somebody traces
    found = pass_.forward(theta, record)
    if found is None:
        raise record.error()
    output, forward = found
    if not is_repeated and pass_.monitor.finds_clipped(record):
        pass_.monitor.warn_of_clipping([pass_.clipping(theta)])
    lead = pass_.samples, *pass_.lead
    rows, noise = forward.rows, forward.sampler.unrepeatable(theta)
    empty = theta.new_empty(0)
    if pass_.work.proves and rows is None:  # whose shape must be known before an estimator leaves them out
        rows = torch.full_like(forward.z, torch.inf)
    return (
        output,
        forward.z.reshape(*lead, *pass_.event),
        forward.status.reshape(lead),
        empty if rows is None else rows.reshape(*lead, *pass_.event),
        empty if noise is None else noise.reshape(*lead, *pass_.event),
        [*pass_.whole_state(forward)],  # pyright: ignore[reportReturnType] (a list of tensors)
    )


def _forward_fake(
    theta: Tensor,
    key: Tensor | None,
    ids: Tensor | None,
    mapped: Sequence[int],
    samples: int,
    is_mean: bool,
    owner: int,
    work: int,
) -> tuple[Tensor, ...]:
    pass_ = _new_pass(None, ids, mapped, samples, is_mean, owner, work)
    noise = None if key is None else pass_.estimator.noise_for(pass_.work.problem)
    keeps_noise = noise is not None and not can_repeat(noise)
    split = pass_.work.lead_ndim(theta, len(mapped))
    z = theta.new_empty((samples, *theta.shape))
    empty = theta.new_empty(0)
    flat = theta.new_empty((math.prod(theta.shape[:split]), *theta.shape[split:]))
    state = [
        tensor.new_empty((*theta.shape[:split], *tensor.shape[1:], 1) if tensor.ndim else theta.shape[: len(mapped)])
        for tensor in require_state_like(pass_.estimator, flat)
    ]
    return (
        theta.new_empty(theta.shape) if is_mean else torch.empty_like(z),
        z,
        theta.new_empty((samples, *theta.shape[:split]), dtype=torch.int64),
        torch.empty_like(z) if pass_.work.proves else empty,
        torch.empty_like(z if keeps_noise else empty),
        state,  # pyright: ignore[reportReturnType] (a list of tensors)
    )


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    theta, key, ids, *ctx.rest = inputs
    _, *found, state = output
    ctx.mark_non_differentiable(*found, *state)
    ctx.save_for_backward(key, ids, theta, *found, *state)


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
    """Return the gradient where a compiler has mapped the op itself, as it can't map `_Traced`."""
    key, ids, theta, z, status, rows, noise, *state = ctx.saved_tensors
    found = _ops.gradient(gradient, theta, z, status, rows, noise, state, key, ids, *ctx.rest)
    of_mapped = None if ctx.rest[0] else []  # torch takes an empty list for one of tensors
    return found, None, None, of_mapped, None, None, None, None


def _forward_vmap(
    info: Any, dims: Any, theta: Tensor, key: Any, ids: Any, mapped: Any, samples: int, *rest: Any
) -> Any:
    layer, work = find(rest[-2]), find(rest[-1])
    if key is not None and info.randomness == "error" and layer.estimator.noise_for(work.problem) is not None:
        raise RuntimeError(
            "vmap: a MAP layer draws noise, but vmap was called with randomness='error': pass "
            "randomness='different' for noise of its own for each element, or 'same' for the same noise for all"
        )
    mapped = [int(info.randomness == "different"), *mapped]
    size = info.batch_size
    theta = theta.expand(size, *theta.shape) if dims[0] is None else theta.movedim(dims[0], 0)
    *found, state = _ops.forward(theta, key, _mapped_ids(ids, dims[2]), mapped, samples, *rest)
    is_mean = rest[0]
    places = [0 if is_mean else 1, *(1 if tensor.numel() else None for tensor in found[1:])]
    return (*found, state), (*places, [0] * len(state))


def _mapped_ids(ids: Tensor | None, dim: int | None) -> Tensor | None:
    if ids is None:
        return None
    return ids.unsqueeze(0) if dim is None else ids.movedim(dim, 0)


def _gradient(
    gradient: Tensor,
    theta: Tensor,
    z: Tensor,
    status: Tensor,
    rows: Tensor,
    noise: Tensor,
    state: list[Tensor],
    *rest: Any,
) -> Tensor:
    if theta.numel() == 0:
        return torch.empty_like(theta)
    pass_ = _new_pass(*rest)
    record = Record(())
    found = pass_.gradient(pass_.resumed(theta, z, status, rows, noise, state), gradient, record)
    if found is None:
        raise record.error(is_backward=True)
    return found


def _gradient_vmap(info: Any, dims: Any, *arguments: Any) -> Any:
    gradient, theta, z, status, rows, noise, state, key, ids, mapped, samples, is_mean, *handles = arguments
    is_mapped = dims[2] is not None  # else the forward pass was a single one, whose noise all elements share
    size = info.batch_size

    def moved(tensor: Tensor, dim: int | None, place: int) -> Tensor:
        if tensor.numel() == 0 and dim is None:
            return tensor
        if dim is not None:
            return tensor.movedim(dim, place)
        return tensor.unsqueeze(place).expand(*tensor.shape[:place], size, *tensor.shape[place:])

    found = _ops.gradient(
        moved(gradient, dims[0], 0 if is_mean else 1),
        moved(theta, dims[1], 0),
        *(moved(tensor, dim, 1) for tensor, dim in zip((z, status, rows, noise), dims[2:6], strict=True)),
        [moved(tensor, dim, 0) for tensor, dim in zip(state, dims[6] or [None] * len(state), strict=True)],
        key,
        _mapped_ids(ids, dims[8]),
        [int(is_mapped and info.randomness == "different"), *mapped],
        samples,
        is_mean,
        *handles,
    )
    return found, 0


_PASS = "Tensor? key, Tensor? ids, int[] mapped, int samples, bool is_mean, int owner, int work"

define(
    "key(Tensor fresh, Tensor[] thetas, int owner) -> Tensor",
    _key,
    lambda fresh, thetas, owner: torch.empty((), dtype=torch.int64),
    _key_vmap,
    tags=(torch.Tag.nondeterministic_seeded,),
)
define(
    f"forward(Tensor theta, {_PASS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])",
    _forward,
    _forward_fake,
    _forward_vmap,
    autograd=(_setup_context, _backward),
)
define(
    f"gradient(Tensor gradient, Tensor theta, Tensor z, Tensor status, Tensor rows, Tensor noise, Tensor[] state, "
    f"{_PASS}) -> Tensor",
    _gradient,
    lambda gradient, theta, *_: theta.new_empty(theta.shape),
    _gradient_vmap,
    autograd=(lambda ctx, inputs, output: None, refuse),
)
