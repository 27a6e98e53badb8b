# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false, reportUntypedBaseClass=false
"""The ops and autograd functions that stand for a pass where somebody traces; opaque, they run what eager mode runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mapgrad.batching import Record, define, find, is_in_backward
from mapgrad.gradients._counter import can_repeat
from mapgrad.gradients._eager import refuse
from mapgrad.gradients._end import end_forward
from mapgrad.gradients._pass import Pass
from mapgrad.gradients.estimators._checks import require_state_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.gradients._owner import Keyed

ops = torch.ops.mapgrad


class Traced(torch.autograd.Function):
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
        output, z, status, rows, noise, state = ops.forward(theta, key, ids, [], samples, is_mean, owner, work)
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
        return ops.gradient(gradient, theta, *found, key, ids, [], samples, is_mean, owner, work)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    backward = staticmethod(refuse)


def _new_pass(
    key: Tensor | None, ids: Tensor | None, mapped: Sequence[int], samples: int, is_mean: bool, owner: int, work: int
) -> Pass:
    differs = tuple(map(bool, mapped))
    return Pass(find(owner), find(work), key, samples=samples, is_mean=is_mean, mapped=differs, ids=ids)


def _key(_fresh: Tensor, thetas: list[Tensor], owner: int) -> Tensor:
    keyed: Keyed = find(owner)
    return torch.tensor(keyed.keys.next(thetas, keyed.begin), device="cpu")


def _key_vmap(_info: Any, dims: Any, fresh: Tensor, thetas: list[Tensor], owner: int) -> Any:
    return ops.key(fresh if dims[0] is None else fresh.select(dims[0], 0), thetas, owner), None


def _forward(
    theta: Tensor, key: Tensor | None, ids: Tensor | None, mapped: Sequence[int], *rest: Any
) -> tuple[Tensor, ...]:
    pass_ = _new_pass(key, ids, mapped, *rest)
    record, is_repeated = Record(()), is_in_backward()
    if not is_repeated:
        pass_.monitor.last = None  # answers are never kept where somebody traces
    found = pass_.forward(theta, record, needs_states=True)
    if found is None:
        raise record.error()
    output, forward = found
    if not is_repeated:
        end_forward(find(rest[-2]), record, [(pass_, theta)])
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
    """Return the gradient where a compiler has mapped the op itself, as it can't map `Traced`."""
    key, ids, theta, z, status, rows, noise, *state = ctx.saved_tensors
    found = ops.gradient(gradient, theta, z, status, rows, noise, state, key, ids, *ctx.rest)
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
    *found, state = ops.forward(theta, key, _mapped_ids(ids, dims[2]), mapped, samples, *rest)
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

    found = ops.gradient(
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
