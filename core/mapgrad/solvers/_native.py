"""The native models that a solver of integer programs keeps, and what a row asks of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram
    from mapgrad.solvers._limits import Limits
    from mapgrad.solvers._points import Rows
    from mapgrad.solvers._rays import Cone
    from mapgrad.solvers._split_rows import SplitRows

M = TypeVar("M")


@dataclass(eq=False)
class NativeModel(Generic[M]):
    """A native model of a program, and the bounds and sides that it holds at present.

    Attributes:
        native: The engine's own.
        program: What is asked about.
        asked: What says the same to the engine, with bounds and sides that may be earlier ones.
        split: The rows of `program` that are two of `asked`; None where all are the same.
        limits: Those of `program` that `native` holds.
        rows: Those of `program`.
        is_tightened: Coefficients of `asked` follow from the limits.
    """

    native: M
    program: IntegerProgram
    asked: IntegerProgram
    split: SplitRows | None
    limits: Limits
    rows: Rows
    is_tightened: bool


@dataclass(eq=False)
class NativeModels(Generic[M]):
    """The native models of a worker: the program's, and, once they are needed, two linear ones."""

    program: NativeModel[M]
    relaxation: NativeModel[M] | None = None
    cone: Cone | None = None
    cone_model: NativeModel[M] | None = None
    running: NativeModel[M] | None = None
    stopped: Event = field(default_factory=Event)


@dataclass(eq=False)
class AskedRow:
    """What is asked: utilities, bounds and sides, when to stop, and what may help."""

    theta: NDArray[np.float64]
    limits: Limits
    deadline: float | None
    reuse: bool = False
    start: NDArray[np.float64] | None = None

    def sizes(self, x: NDArray[np.float64]) -> tuple[float, float]:
        """Return max |θ| and Σ |θ_j x_j|."""
        theta = np.abs(self.theta)
        return float(theta.max(initial=0)), float(theta @ np.abs(x))
