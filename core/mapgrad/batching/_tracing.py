# ruff: noqa: SLF001 (torch has no public questions for these, or none that costs less than 1 µs)
# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Who looks at what happens to a tensor: all questions to torch's private names are asked here."""

from __future__ import annotations

import sys
from typing import Any, Final

import torch
from torch import Tensor

_PLAIN: Final = (Tensor, torch.nn.Parameter)


def is_traced(tensor: Tensor) -> bool:
    """Tell whether something else than eager PyTorch may look at what happens to a tensor."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or type(tensor) not in _PLAIN
        or torch._C._len_torch_dispatch_stack() > 0
    )


def hides_values(tensor: Tensor) -> bool:
    """Tell whether a tensor stands for a batch of them, as is_grads_batched=True hands them out."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def without_transforms(tensor: Tensor) -> Tensor:
    """Return the whole tensor of which torch.vmap and torch.func show a part, mapped dimensions first, for its values.

    Under torch.func.grad its derivative is lost.
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        dim = torch._C._functorch.maybe_get_bdim(tensor)
        tensor = torch._C._functorch.get_unwrapped(tensor)
        tensor = tensor if dim < 0 else tensor.movedim(dim, 0)
    return tensor


def is_in_backward() -> bool:
    """Tell whether this thread is in a backward pass of eager or compiled autograd, which may repeat forward passes."""
    return torch._C._current_graph_task_id() != -1


def is_in_compiled_autograd() -> bool:
    """Tell whether torch's compiled autograd is at work, which has dynamo trace the backward of eager functions."""
    module = sys.modules.get("torch._dynamo.compiled_autograd")
    return module is not None and module.in_compiled_autograd_region


def may_be_repeated() -> bool:
    """Tell whether a checkpoint may be at work, which repeats this forward pass in a backward pass.

    A reentrant one, or a compiled function, runs without a graph; one that isn't reentrant hooks what is saved.
    """
    return not torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def is_mapped() -> bool:
    """Tell whether torch.vmap is at work."""
    return torch._C._functorch.TransformType.Vmap in _transforms()


def is_differentiated() -> bool:
    """Tell whether a gradient of torch.func is being taken."""
    return torch._C._functorch.TransformType.Grad in _transforms()


def _transforms() -> set[Any]:
    return {level.key() for level in torch._C._functorch.get_interpreter_stack() or ()}


for _question in (is_in_compiled_autograd, is_mapped, is_differentiated):
    # what torch.compiler.assume_constant_result does, which costs a second to import: compilers ask once, as they trace
    vars(_question)["_dynamo_marked_constant"] = True
