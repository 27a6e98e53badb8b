"""What torch.compile can't trace, and calls as it is."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function whose call breaks the graph of torch.compile, or is refused by fullgraph=True."""

    @functools.wraps(function)
    def call(*arguments: _P.args, **named: _P.kwargs) -> _T:
        if torch.compiler.is_compiling():
            return _call(function, *arguments, **named)
        return function(*arguments, **named)

    return call


def _call(function: Any, *arguments: Any, **named: Any) -> Any:
    disable: Any = torch.compiler.disable  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] (untyped in torch)
    return disable(function)(*arguments, **named)


# what torch.compiler.disable sets too, but that takes a second to import
vars(_call).update(
    _torchdynamo_disable=True,
    _torchdynamo_disable_msg="functions of mapgrad.exact can't be compiled, as they look at values: leave out "
    "fullgraph=True, or call them outside of the compiled function",
)
