"""The decorator that makes a layer of a function or method."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import TYPE_CHECKING, Any

from torch import nn

from mapgrad.layer import MAPLayer, Reduction

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.gradients import Estimator


def differentiable(
    estimator: Estimator | None = None,
    *,
    minimize: bool = False,
    reduction: Reduction = "mean",
    seed: int | None = None,
) -> Callable[[Callable[..., Tensor]], DifferentiableFunction]:
    """Turn a function or method θ [B, *shape] → z into a `MAPLayer`.

    What the function takes beside θ is context: the layer hands it on untouched, in both directions.

    A method becomes one layer for each object. That of an `nn.Module` is a submodule from the end of the class's
    constructor on, with an estimator of its own, so that `train`, `eval`, `to`, `state_dict` and copies reach it; an
    object of a class whose constructor is replaced later, as a dataclass's is, has it from its first use on. That of
    another object is made at its first use and kept with the object; the estimator is shared.

    Args:
        estimator: The gradient estimator; None for ``IMLE()``, which draws no noise where no problem is known.
        minimize: Whether θ are costs and the function minimises.
        reduction: As for `MAPLayer`.
        seed: As for `MAPLayer`.

    Example:
        >>> import torch, mapgrad
        >>> @mapgrad.differentiable(mapgrad.IMLE(noise=mapgrad.Gumbel(), samples=10))
        ... def pick(theta):
        ...     return torch.nn.functional.one_hot(theta.argmax(-1), theta.shape[-1])
        >>> pick(torch.zeros(3, 5, requires_grad=True)).shape
        torch.Size([3, 5])
    """

    def decorate(function: Callable[..., Tensor]) -> DifferentiableFunction:
        if not callable(function):  # pyright: ignore[reportUnnecessaryComparison] (a user's value)
            raise TypeError(f"differentiable decorates a function of θ, got {function!r}")
        return DifferentiableFunction(function, estimator, minimize=minimize, reduction=reduction, seed=seed)

    if inspect.isroutine(estimator):
        raise TypeError("write @mapgrad.differentiable(), with parentheses")
    return decorate


class DifferentiableFunction(MAPLayer):
    """The layer that `differentiable` makes; a decorated method gives each of its objects a layer of its own."""

    def __init__(self, function: Callable[..., Tensor], estimator: Estimator | None, **layer: Any) -> None:
        super().__init__(function, estimator, **layer)
        self.function = function
        self._layer = layer
        functools.update_wrapper(self, function, updated=())

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        if issubclass(owner, nn.Module):
            _register_when_constructed(owner, name)

    def __get__(self, instance: object, owner: type | None = None) -> MAPLayer:
        if instance is None:
            return self
        is_module = isinstance(instance, nn.Module)
        layers = instance._modules if is_module else vars(instance)  # noqa: SLF001 (get_submodule would ask for it here)
        if self._name not in layers:
            estimator = copy.deepcopy(self.estimator) if is_module else self.estimator
            layer = MAPLayer(_Method(instance, self._name), estimator, **self._layer)
            if is_module:
                layer.train(instance.training)
            setattr(instance, self._name, layer)
        return layers[self._name]  # pyright: ignore[reportReturnType] (a layer)

    def __reduce__(self) -> str:
        return str(self.__qualname__)


def _register_when_constructed(owner: type[nn.Module], name: str) -> None:
    """Have a class's constructor end with making the layer of a method."""
    own = vars(owner).get("__init__")

    @functools.wraps(owner.__init__)
    def construct(self: nn.Module, *arguments: Any, **named: Any) -> None:
        construct_owner = super(owner, self).__init__ if own is None else functools.partial(own, self)
        construct_owner(*arguments, **named)
        getattr(self, name)

    owner.__init__ = construct


class _Method:
    """A decorated method's own function, bound to an object; unlike the function, it can be pickled by name."""

    def __init__(self, instance: object, name: str) -> None:
        self._instance = instance
        self._name = name
        self.__qualname__ = f"{type(instance).__qualname__}.{name}"  # by which messages name it

    def __call__(self, theta: Tensor, *context: Any, **named: Any) -> Tensor:
        layer: DifferentiableFunction = inspect.getattr_static(type(self._instance), self._name)
        return layer.function(self._instance, theta, *context, **named)

    def __repr__(self) -> str:
        return self.__qualname__
