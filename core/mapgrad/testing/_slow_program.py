"""An integer program that no engine solves within seconds, with a row that any of them solves at once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mapgrad.problems import IntegerProgram

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EQUATIONS: Final = 5
_BINARIES: Final = 40


class SlowProgram(NamedTuple):
    """A program with rows of utilities [1, n] float64, scaled to max |θ| in [½, 1).

    Attributes:
        program: A market split (Cornuéjols and Dawande 1999, "A class of hard small 0-1 programs"): binaries of which
            five weighted sums should be half of all, and integers for how much each sum is above or below.
        slow: Asks for the least deviation. At an objective of 0 an answer is optimal; elsewhere hours wouldn't tell.
        quick: Asks for each binary by its sign, and so little for the deviation that no binary depends on it.
        quick_answer: The only optimum of the quick row, [n].
    """

    program: IntegerProgram
    slow: NDArray[np.float64]
    quick: NDArray[np.float64]
    quick_answer: NDArray[np.float64]


@cache
def slow_program() -> SlowProgram:
    """Return the program, the same on every call."""
    generator = np.random.default_rng(0)
    weights = generator.integers(0, 100, (_EQUATIONS, _BINARIES)).astype(np.float64)
    total, each = weights.sum(axis=1), np.eye(_EQUATIONS)
    program = IntegerProgram(
        A_eq=np.hstack((weights, each, -each)),
        b_eq=np.floor(total / 2),
        upper=np.concatenate((np.ones(_BINARIES), total, total)),
    )
    chosen = generator.random(_BINARIES) < 0.5
    missing = np.floor(total / 2) - weights @ chosen
    slow, quick = np.zeros((2, 1, program.num_vars))
    slow[0, _BINARIES:] = -0.5
    quick[0] = np.concatenate((np.where(chosen, 0.5, -0.5), np.full(2 * _EQUATIONS, -(2.0**-12))))
    answer = np.concatenate((chosen.astype(np.float64), np.maximum(missing, 0), np.maximum(-missing, 0)))
    return SlowProgram(program, slow, quick, answer)
