"""Eight numbers side by side, one of each of eight rows, in the processor's vector registers.

numba compiles loops over so few numbers to scalar code. These functions are for kernels only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

LANES: Final = 8
"""Numbers in a vector: more rows would leave more of a small block's lanes empty."""

_instruction: Any = intrinsic  # the type checker takes a kernel's calls for those of the generator
_VECTOR: Final = ir.VectorType(ir.DoubleType(), LANES)


class _Lanes(types.Type):
    """The type of such numbers in a kernel."""

    def __init__(self) -> None:
        super().__init__("Lanes")


_LANES: Final = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _VECTOR)


@_instruction
def load(_context: Any, table: types.Array, row: types.Integer) -> tuple[Any, Any]:
    """Return row `row` of a C-contiguous float64 array [rows, LANES]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments), align=8)

    return _LANES(table, row), generate


@_instruction
def store(_context: Any, table: types.Array, row: types.Integer, value: _Lanes) -> tuple[Any, Any]:
    """Write row `row` of a C-contiguous float64 array [rows, LANES]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature, arguments), align=8)
        return context.get_dummy_value()

    return types.void(table, row, value), generate


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    table = context.make_array(signature.args[0])(context, builder, arguments[0])
    row = context.cast(builder, arguments[1], signature.args[1], types.int64)
    first = builder.gep(table.data, [builder.mul(row, ir.Constant(ir.IntType(64), LANES))])
    return builder.bitcast(first, _VECTOR.as_pointer())


@_instruction
def spread(_context: Any, number: types.Float) -> tuple[Any, Any]:
    """Return a float64 number in all lanes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(LANES):
            value = builder.insert_element(value, arguments[0], ir.Constant(ir.IntType(32), lane))
        return value

    return _LANES(number), generate


def _of_two(operation: Callable[[Any, Any, Any], Any]) -> Callable[[Any, _Lanes, _Lanes], tuple[Any, Any]]:
    def typed(_context: Any, one: _Lanes, other: _Lanes) -> tuple[Any, Any]:
        return _LANES(one, other), lambda _context, builder, _signature, arguments: operation(builder, *arguments)

    return typed


def _where(relation: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, one, other: builder.select(builder.fcmp_ordered(relation, one, other), one, other)


plus: Final = _instruction(_of_two(lambda builder, one, other: builder.fadd(one, other)))
minus: Final = _instruction(_of_two(lambda builder, one, other: builder.fsub(one, other)))
smaller: Final = _instruction(_of_two(_where("<")))
"""The first where it is smaller, else the second: also where one is NaN."""

larger: Final = _instruction(_of_two(_where(">")))
"""The first where it is larger, else the second: also where one is NaN."""
