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
    normalize: bool = False,
    seed: int | None = None,
) -> Callable[[Callable[..., Tensor]], DifferentiableFunction]:
    """Turn a function or method θ [B, *shape] → z into a `MAPLayer`.

    What the function takes beside θ is context: the layer hands it on untouched, in both directions.

    A method becomes one layer for each object, a shallow copy included. That of an `nn.Module` is a submodule from the
    end of the class's constructor on, with an estimator of its own, so that `train`, `eval`, `to`, `state_dict` and
    deep copies reach it; an object of a class that gets its constructor later, as a dataclass does, or its method, has
    it from its first use on. That of another object is made at its first use and kept with the object; the estimator
    is shared. What an override calls as ``super().method(θ)`` is a layer too, in a module the submodule
    ``method_super``; where the override is decorated itself, it is the function alone.

    Args:
        estimator: The gradient estimator; None for ``TwoSided()``, which draws no noise where no problem is known.
        minimize: Whether θ are costs. The function always maximises: it is called with utilities, the negated costs, so
            that a function of the least cost must negate what it gets.
        reduction: As for `MAPLayer`.
        normalize: As for `MAPLayer`.
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
        if isinstance(function, staticmethod):
            raise TypeError("write @staticmethod above @mapgrad.differentiable(), not below it")
        if isinstance(function, classmethod):
            raise TypeError(
                "differentiable decorates a function or an object's method, not a class's: decorate a function, or "
                "write @staticmethod above @mapgrad.differentiable()"
            )
        if not callable(function):  # pyright: ignore[reportUnnecessaryComparison] (a user's value)
            raise TypeError(f"differentiable decorates a function of θ, got {function!r}")
        layer = {"minimize": minimize, "reduction": reduction, "normalize": normalize, "seed": seed}
        return DifferentiableFunction(function, estimator, **layer)

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

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name
        self.__module__, self.__qualname__ = owner.__module__, f"{owner.__qualname__}.{name}"
        if issubclass(owner, nn.Module):
            _register_when_constructed(owner, owner, name)
        else:
            _register_in_modules(owner, name)

    def __get__(self, instance: object, owner: type | None = None) -> MAPLayer:
        if instance is None:
            return self
        if "_name" not in vars(self):
            self.__set_name__(*_find(self, type(instance)))
        name = self._name_of_layer(type(instance))
        if name is None:  # the override's layer asks, which has noise and a gradient of its own
            return _Method(instance, self)  # pyright: ignore[reportReturnType] (is called like a layer)
        is_module = isinstance(instance, nn.Module)
        layers: dict[str, Any]
        if is_module:
            layers = instance._modules  # noqa: SLF001 (get_submodule would ask for it here)
        else:
            layers, name = _attributes(instance, name), f"_{name}_layer"
        if name not in layers:
            estimator = copy.deepcopy(self.estimator) if is_module else self.estimator
            layers[name] = MethodLayer(_Method(instance, self), estimator, **self._layer)
            if is_module:
                layers[name].train(instance.training)
        layer = layers[name]
        if not isinstance(layer, MethodLayer) or layer.method.instance is instance:
            return layer  # or what a user put in its place
        layers[name] = layer.of_copy(_Method(instance, self), self._layer)
        return layers[name]

    def _name_of_layer(self, kind: type) -> str | None:
        """Return the method's name, with "_super" for each override; None where one of these is decorated, too."""
        name, suffix = self._name, ""
        for each in kind.__mro__:
            found = vars(each).get(name)
            if found is self:
                return name + suffix
            if isinstance(found, DifferentiableFunction):
                return None
            suffix += "" if found is None else "_super"
        raise TypeError(
            f"{kind.__qualname__} has {self.__qualname__} under another name than {name!r}: "
            "decorate a function for each class"
        )

    def __reduce__(self) -> str:
        return str(self.__qualname__)


class MethodLayer(MAPLayer):
    """The layer of an object's decorated method."""

    def __init__(self, method: _Method, estimator: Estimator | None, **layer: Any) -> None:
        super().__init__(method, estimator, **layer)
        self.method = method

    def of_copy(self, method: _Method, layer: dict[str, Any]) -> MethodLayer:
        """Return a layer for a shallow copy of the object, which shares the estimator and the stream of noise."""
        twin = MethodLayer(method, self.estimator, **layer)
        twin.keys = self.keys
        twin.training = self.training
        return twin


class _Method:
    """A decorated method's own function, bound to an object; unlike the function, it can be pickled by name."""

    def __init__(self, instance: object, decorated: DifferentiableFunction) -> None:
        self.instance = instance
        self._decorated = decorated
        self.__qualname__ = str(decorated.__qualname__)  # by which messages name it

    def __call__(self, theta: Tensor, *context: Any, **named: Any) -> Tensor:
        return self._decorated.function(self.instance, theta, *context, **named)

    def __repr__(self) -> str:
        return self.__qualname__


def _attributes(instance: object, name: str) -> dict[str, Any]:
    try:
        return vars(instance)
    except TypeError:
        kind = type(instance).__qualname__
        raise TypeError(
            f"a {kind} has __slots__ and no __dict__, where the layer of its method {name!r} would be kept: "
            f'add "__dict__" to the __slots__ of {kind}, or decorate a function'
        ) from None


def _find(decorated: DifferentiableFunction, kind: type) -> tuple[type, str]:
    """Return the class that was given a decorated method once it was made, and the method's name."""
    for owner in kind.__mro__:
        for name, value in vars(owner).items():
            if value is decorated:
                return owner, name
    raise TypeError(f"{kind.__qualname__} has no method that is {decorated.__qualname__}: assign it to the class")


def _register_when_constructed(kind: Any, owner: type, name: str) -> None:
    """Have the constructor of a class of modules end with making the layer of a method that an owner defines."""
    own = kind.__dict__.get("__init__")

    @functools.wraps(kind.__init__)
    def construct(self: nn.Module, *arguments: Any, **named: Any) -> None:
        construct_kind: Any = super(kind, self).__init__ if own is None else functools.partial(own, self)
        construct_kind(*arguments, **named)
        decorated = vars(owner).get(name)
        if isinstance(decorated, DifferentiableFunction):
            decorated.__get__(self)

    kind.__init__ = construct


def _register_in_modules(owner: Any, name: str) -> None:
    """Have each class of modules that a class is mixed into make the layer of a method as it is constructed."""
    own = owner.__dict__.get("__init_subclass__")

    def init_subclass(cls: type, **named: Any) -> None:
        (super(owner, cls).__init_subclass__ if own is None else own.__get__(None, cls))(**named)
        if issubclass(cls, nn.Module):
            _register_when_constructed(cls, owner, name)

    owner.__init_subclass__ = classmethod(init_subclass)
