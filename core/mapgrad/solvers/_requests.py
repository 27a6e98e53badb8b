"""What a solver is asked, row by row or in blocks, and where its answers go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.errors import InfeasibleError, SolveTimeoutError, UnboundedError
from mapgrad.solutions import Solution, Status
from mapgrad.solvers._limits import Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a solver beside a row's utilities; it may get further attributes.

    Attributes:
        start: A state near the optimum to start from, float64 of the problem's shape, with NaN where nothing is known;
            None where there is none. Read-only.
        seconds: Seconds of wall-clock time that this row may take; None for no limit.
        reuse: Whether what earlier rows left behind (a basis, an incumbent) may speed up this one. Where it is false,
            the answer must not depend on the rows before.
        forbidden: Bool array of the problem's shape, read-only: the entries that must be 0, whose lower bounds allow
            it; None where there are none, and for solvers without ``masks`` among their traits.
        limits: Bounds and sides that hold for this row, in place of the problem's; None where those do, and for
            solvers without ``limits`` among their traits. Read-only.
        patience: Seconds of processor time after which the solver should leave this row to another one, by the status
            TIME_LIMIT without a state; None where there is no other, and for solvers without ``gives_up`` among their
            traits. Best counted in steps, so that an answer doesn't depend on what else the machine does.
    """

    start: NDArray[np.float64] | None = None
    seconds: float | None = None
    reuse: bool = False
    forbidden: NDArray[np.bool_] | None = None
    limits: Limits | None = None
    patience: float | None = None


class Progress(IntEnum):
    """How far a row is that a loop over rows solves."""

    WAITING = 0
    BEGUN = 1
    ENDED = 2


class Block:
    """Rows for `InstanceSolver.solve_rows`, and the arrays that it writes their answers to.

    Attributes:
        theta: [m, n] float64, C-contiguous, read-only: utilities, where n is the product of the problem's shape.
        start: [m, n] float64, states to start from, NaN where nothing is known; None where there are none. Read-only.
        seconds: As in `Request`, for each row.
        reuse: As in `Request`.
        forbidden: [m, n] bool, as in `Request`, None where no row has such entries.
        limits: As in `Request`, with a first dimension [m].
        patience: As in `Request`, for each row.
        z: [m, n] float64, C-contiguous: the states. What is still NaN at the end counts as no answer.
        status: [m] int64, values of `Status`: OPTIMAL at first if the solver is exact, else FEASIBLE.
        objective: [m] float64: ⟨θ, z⟩, NaN at first and where the solver leaves it to the core.
        bound: [m] float64: proved upper bounds on the optimum, NaN at first and where the solver knows none.
        row: Number of the row that an exception is about, for a loop in ascending order that sets it before it raises:
            that row alone fails, and the rows after it are asked for once more, with a fresh native model. None: not
            known; all rows are asked for once more, one at a time.
        stopped: Set from another thread, once before `InstanceSolver.stop` is called: nobody wants the rows any more
            that aren't solved yet. A loop over rows looks at it and returns.
        causes: What rows raised, by their numbers in this block.
        progress: [m] uint8, values of `Progress`, for a loop over rows to write as it goes, so that it is known of
            which row its process died; None where nobody asks.
    """

    __slots__ = (
        "bound",
        "causes",
        "forbidden",
        "limits",
        "objective",
        "patience",
        "progress",
        "reuse",
        "row",
        "seconds",
        "start",
        "status",
        "stopped",
        "theta",
        "z",
    )

    def __init__(
        self,
        theta: NDArray[np.float64],
        *,
        start: NDArray[np.float64] | None = None,
        seconds: float | None = None,
        reuse: bool = False,
        forbidden: NDArray[np.bool_] | None = None,
        limits: Limits | None = None,
        patience: float | None = None,
        exact: bool = True,
    ) -> None:
        count = len(theta)
        self.theta = theta
        self.start = start
        self.seconds = seconds
        self.reuse = reuse
        self.forbidden = forbidden
        self.limits = limits
        self.patience = patience
        self.z: NDArray[np.float64] = np.empty(theta.shape)
        self.status = np.empty(count, np.int64)
        self.objective, self.bound = np.empty(count), np.empty(count)
        self.reset(exact=exact)
        self.row: int | None = None
        self.stopped = False
        self.causes: dict[int, BaseException] = {}
        self.progress: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.status)

    def reset(self, *, exact: bool) -> None:
        """Forget all answers; `exact` says whether a row that gets one is OPTIMAL."""
        self.z.fill(np.nan)
        self.status.fill(Status.OPTIMAL if exact else Status.FEASIBLE)
        self.objective.fill(np.nan)
        self.bound.fill(np.nan)

    def part(self, start: int, stop: int) -> Block:
        """Return some rows as a block that writes to the same arrays; its causes are its own."""
        part = Block.__new__(Block)
        part.theta = self.theta[start:stop]
        part.start = None if self.start is None else self.start[start:stop]
        part.forbidden = None if self.forbidden is None else self.forbidden[start:stop]
        part.limits = None if self.limits is None else Limits(*(each[start:stop] for each in self.limits))
        part.seconds, part.reuse, part.row, part.causes = self.seconds, self.reuse, None, {}
        part.stopped, part.patience = self.stopped, self.patience
        part.progress = None if self.progress is None else self.progress[start:stop]
        part.z, part.status = self.z[start:stop], self.status[start:stop]
        part.objective, part.bound = self.objective[start:stop], self.bound[start:stop]
        return part

    def put(self, row: int, answer: Any, shape: tuple[int, ...] | None = None) -> None:
        """Write one row's answer.

        Args:
            row: Its number in this block.
            answer: A `Solution`, or an array of real numbers, whose status is then the one that the block began with.
            shape: The shape that the state must have; None for (n,).

        Raises:
            ValueError: it isn't an answer: a state is missing, masked, of another shape, complex, or an unknown status.
        """
        if isinstance(answer, Solution):
            status = Status(answer.status)
            if answer.z is None and status in (Status.OPTIMAL, Status.FEASIBLE):
                raise ValueError(f"the solver reports {status.name} without a state")
            self.status[row] = status
            self.objective[row] = np.nan if answer.objective is None else answer.objective
            self.bound[row] = np.nan if answer.bound is None else answer.bound
            answer = answer.z
            if answer is None:
                return
        z = np.asarray(answer)
        is_masked = type(answer) is not np.ndarray and np.ma.is_masked(answer)
        if z.dtype.kind not in "biuf" or is_masked:
            came = f"numbers of dtype {z.dtype}" if z.dtype.kind == "c" else type(answer).__name__
            raise ValueError(f"the solver answered with {came} where an array of real numbers was expected")
        expected = self.z.shape[1:] if shape is None else shape
        if z.shape != expected:
            raise ValueError(f"the solver answered with shape {z.shape} where {expected} was expected")
        self.z[row] = z.reshape(-1)

    def request(self, row: int, shape: tuple[int, ...]) -> Request:
        """Return what is asked of one row beside its utilities, with arrays of the problem's shape."""
        start = None if self.start is None else self.start[row].reshape(shape)
        forbidden = None if self.forbidden is None else self.forbidden[row]
        if forbidden is not None:
            forbidden = forbidden.reshape(shape) if forbidden.any() else None
        limits = None if self.limits is None else Limits(*(each[row] for each in self.limits))
        return Request(start, self.seconds, self.reuse, forbidden, limits, self.patience)

    def fail(self, row: int, error: BaseException) -> None:
        """Note that a row raised; the state that it may have written is dropped."""
        self.causes[row] = error
        self.z[row] = self.objective[row] = self.bound[row] = np.nan
        self.status[row] = next((status for kind, status in _STATUSES if isinstance(error, kind)), Status.ERROR)


_STATUSES: Final = (
    (InfeasibleError, Status.INFEASIBLE),
    (UnboundedError, Status.UNBOUNDED),
    (SolveTimeoutError, Status.TIME_LIMIT),
)
