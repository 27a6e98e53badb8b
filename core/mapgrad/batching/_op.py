# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false
"""The op that hides a solver from tracing.

An op is opaque to torch.compile, torch.vmap and torch.func: each sees a function of tensors whose output shapes are
known. Where nobody traces, the same Python is called directly, as an op costs some 15 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.batching._handles import find
from mapgrad.batching._theta import compute_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.batching._at_work import SolverAtWork

_LIBRARY: Final = torch.library.Library("mapgrad", "DEF")


def define(
    schema: str,
    implementation: Any,
    fake: Any,
    vmap: Any,
    *,
    autograd: tuple[Any, Any] | None = None,
    tags: tuple[torch.Tag, ...] = (),
) -> None:
    """Define an op of namespace mapgrad.

    Args:
        schema: Its name and types.
        implementation: What it does, on every device; its outputs may be views of each other and of its inputs.
        fake: What its outputs are like.
        vmap: What it does to a dimension that torch.vmap maps.
        autograd: What it leaves to its backward pass, and that; None where no gradient flows.
        tags: What compilers must know.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=tags)
    _LIBRARY.impl(name, _with_own_outputs(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"mapgrad::{name}", fake, lib=_LIBRARY)
    torch.library.register_vmap(f"mapgrad::{name}", vmap, lib=_LIBRARY)
    if autograd is None:
        _LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")
    else:
        setup_context, backward = autograd
        torch.library.register_autograd(f"mapgrad::{name}", backward, setup_context=setup_context, lib=_LIBRARY)


def _with_own_outputs(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an implementation whose outputs are contiguous and share no memory, as compilers take for granted."""

    def run(*arguments: Any) -> Any:
        seen: set[int] = set()

        def own(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return type(value)(map(own, value)) if isinstance(value, tuple | list) else value
            tensor = value.contiguous()
            if tensor.numel() == 0 or tensor.untyped_storage().data_ptr() in seen:
                tensor = tensor.clone()
            seen.add(tensor.untyped_storage().data_ptr())
            return tensor

        for argument in arguments:
            for tensor in argument if isinstance(argument, list) else [argument]:
                if isinstance(tensor, Tensor):
                    seen.add(tensor.untyped_storage().data_ptr())
        return own(implementation(*arguments))

    return run


def solve_op(theta: Tensor, work: SolverAtWork) -> Tensor:
    """Return argmax ⟨θ, z⟩ as `Solver` does, by the op."""
    wide = theta.to(compute_dtype(theta.dtype))
    return torch.ops.mapgrad.solve(wide, 0, work.handle)[0].to(theta.dtype)


def _solve(theta: Tensor, mapped: int, handle: int) -> tuple[Tensor, Tensor]:
    work: SolverAtWork = find(handle)
    batch = theta.shape[: work.lead_ndim(theta, mapped)]
    solutions = work.solve(theta.reshape(-1, *theta.shape[len(batch) :]), calls=batch[:mapped].numel(), batch=batch)
    return solutions.z, solutions.status


def _solve_fake(theta: Tensor, mapped: int, handle: int) -> tuple[Tensor, Tensor]:
    batch = theta.shape[: find(handle).lead_ndim(theta, mapped)]
    return torch.empty_like(theta, memory_format=torch.contiguous_format), theta.new_empty(batch, dtype=torch.int64)


def _solve_vmap(_info: Any, dims: Any, theta: Tensor, mapped: int, handle: int) -> Any:
    return torch.ops.mapgrad.solve(theta.movedim(dims[0], 0), mapped + 1, handle), (0, 0)


define("solve(Tensor theta, int mapped, int handle) -> (Tensor, Tensor)", _solve, _solve_fake, _solve_vmap)
