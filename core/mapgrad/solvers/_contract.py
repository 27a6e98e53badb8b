"""What a solver is: two base classes for plugin authors, and what they declare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from mapgrad.problems import Problem
from mapgrad.solvers._options import options_of, unknown_options
from mapgrad.solvers._requests import Block, Progress, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems import IntegerProgram
    from mapgrad.solutions import Solution, Solutions
    from mapgrad.solvers._counter_noise import CounterNoise

P = TypeVar("P", bound=Problem)
S = TypeVar("S")


@dataclass(frozen=True)
class Traits:
    """What a solver promises about itself.

    Attributes:
        exact: Answers are optimal, so a bare array means `Status.OPTIMAL` (else `Status.FEASIBLE`).
        releases_gil: Threads speed it up.
        history_free: An answer doesn't depend on the rows solved before.
        deterministic: Equal rows get equal answers, so they may be solved once.
        scale_free: Rows of any magnitude are solved exactly, so they come unscaled.
        masks: It keeps forbidden entries at 0 itself: those of `Request.forbidden` or `Block.forbidden`, in whose
            places θ is 0, or, if it takes whole batches, those where θ is −inf. Others get a finite θ there, so low
            that an optimum holds such an entry only where every state does.
        limits: It heeds `Request.limits` or `Block.limits`, so that programs which differ in bounds and sides alone
            share a native model. `ProgramSolver` does.
        gives_up: It heeds `Request.patience` or `Block.patience`: rows that take it longer it leaves to another solver.
        stoppable: `InstanceSolver.stop` ends the row that runs, within a second or so; None: if the class has its own.
    """

    exact: bool = True
    releases_gil: bool = False
    history_free: bool = True
    deterministic: bool = True
    scale_free: bool = False
    masks: bool = False
    limits: bool = False
    gives_up: bool = False
    stoppable: bool | None = None


@runtime_checkable
class MAPSolver(Protocol):
    """What a layer needs of a solver; `mapgrad.Solver` is one."""

    @property
    def problem(self) -> Problem | None:
        """The feasible set; None for a callable that doesn't say."""
        ...

    def __call__(self, theta: Tensor) -> Tensor:
        """Return argmax ⟨θ, z⟩ for each row of θ [*batch, *shape]: the same shape, dtype and device."""
        ...


class InstanceSolver(Generic[P, S]):
    """Base class for plugins that solve rows on the CPU, one at a time or a block of them.

    The core batches, scales, merges equal rows and runs threads; a plugin is a constructor, `init` and either `solve`
    or `solve_rows`. One object serves all workers: whatever a row changes belongs in the state that `init` returns.
    ``InstanceSolver[KSubset, None]`` names the problem's class and the state's for a type checker.

    Args:
        problem: The feasible set.
        options: What the caller of `get_solver` gave beside the core's own options; a subclass names those it knows.
    """

    traits: Traits = Traits()

    def __init__(self, problem: P, **options: Any) -> None:
        if options:
            raise unknown_options(type(self).__name__, options, options_of(type(self))[0])
        self.problem = problem

    def init(self) -> S:
        """Build the native model. Called once a worker; the state is never used by two threads at a time."""
        return cast("S", None)

    def solve(self, state: S, theta: NDArray[np.float64], request: Request) -> NDArray[np.float64] | Solution:
        """Return argmax ⟨θ, z⟩ over the problem's set.

        Args:
            state: What `init` returned.
            theta: float64, C-contiguous, of the problem's shape, read-only; scaled to max |θ| in [½, 1) unless it is
                zero or the solver's traits say ``scale_free``.
            request: A start, a limit of time, whether earlier rows may help, and which entries must be 0.

        Returns:
            An array of the problem's shape, or a `Solution`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement solve or solve_rows")

    def solve_rows(self, state: S, block: Block) -> None:
        """Solve all rows of a block and write the answers to its arrays; by default, by `solve` row after row.

        Args:
            state: What `init` returned.
            block: Rows, and where their answers go.
        """
        shape, z, put, solve = self.problem.shape, block.z, block.put, self.solve
        rows, states = block.theta.reshape(-1, *shape), z.reshape(-1, *shape)
        request = Request(None, block.seconds, block.reuse, patience=block.patience)
        has_own = not (block.start is None and block.forbidden is None and block.limits is None)
        row, progress = 0, block.progress
        try:
            for row, theta in enumerate(rows):
                if block.stopped:
                    return
                if progress is not None:
                    progress[row] = Progress.BEGUN
                if has_own:
                    request = block.request(row, shape)
                answer = solve(state, theta, request)
                if type(answer) is np.ndarray and answer.dtype == np.float64 and answer.shape == shape:
                    states[row] = answer
                else:
                    put(row, answer, shape)
                if progress is not None:
                    progress[row] = Progress.ENDED
        except BaseException:
            block.row = row
            raise

    def stop(self, state: S) -> None:
        """Interrupt what runs on this state. Solvers that can be stopped override it.

        Called from another thread, once or more often while `solve_rows` runs, so it may come just before or after the
        engine's own work; it must return at once.
        """

    def close(self, state: S) -> None:
        """Free the native model."""

    def serves(self, other: IntegerProgram) -> bool:
        """Tell whether this object takes the bounds and sides of a program of the same rows; another one else does.

        Asked where the traits say ``limits``. Solvers that choose an engine, its settings or a scale by the bounds or
        sides of their problem override it. Where no object can be made of the other program, its rows fail.
        """
        return True


class BatchSolver(ABC, Generic[P]):
    """Base class for plugins that solve the whole batch at once, on θ's device.

    Args:
        problem: The feasible set.
        options: As for `InstanceSolver`.
    """

    traits: Traits = Traits()

    def __init__(self, problem: P, **options: Any) -> None:
        if options:
            raise unknown_options(type(self).__name__, options, options_of(type(self))[0])
        self.problem = problem

    @abstractmethod
    def solve(self, theta: Tensor) -> Tensor | Solutions:
        """Return argmax ⟨θ, z⟩ over the problem's set, row by row.

        Args:
            theta: [N, *shape], float32 or float64, contiguous, any device; must not be written to.

        Returns:
            A tensor of its own of θ's shape and device, or `Solutions` with batch dimensions [N].
        """

    def solve_perturbed(self, theta: Tensor, noise: CounterNoise) -> Tensor | None:
        """Return argmax ⟨θ + τε_s, z⟩ for each sample s, without a θ + τε_s in memory; overridden where that pays.

        Called in place of `solve` where θ isn't on the CPU, if the problem's domain are all θ. States must be those
        that `solve` finds with this noise, but where entries are equal up to rounding.

        Args:
            theta: [G, S or 1, B, *shape], float32 or float64, contiguous, any device; must not be written to. Each of
                the G has the same noise.
            noise: τε_s.

        Returns:
            A tensor of its own, [G, S, B, *shape] of θ's dtype and device; None where the noise had better be added
            before.
        """
        return None

    def exported(self, theta: Tensor) -> Tensor | None:
        """Return what `solve` does in tensor operations alone, whatever the values, as torch.export traces them.

        The core makes rows NaN that it refuses elsewhere: with NaN or +inf, or an answer that holds what −inf forbids.

        Args:
            theta: As for `solve`, but any dimension may be symbolic.

        Returns:
            [N, *shape] like θ; None where there is no such way, or a lower bound is below 0.
        """
        return None

    def mean_perturbed(self, theta: Tensor, noise: CounterNoise, less: Tensor | None = None) -> Tensor | None:
        """Return the mean over s of argmax ⟨θ + τε_s, z⟩, without S states in memory; overridden where that pays.

        Called in place of `solve_perturbed` where nobody needs single states.

        Args:
            theta: [B, *shape], as for `solve_perturbed` but for the dimensions.
            noise: τε_s.
            less: Like θ, or None: other rows, whose mean with the same noise is subtracted.

        Returns:
            A tensor of its own, [B, *shape] of θ's dtype and device; None where states had better be asked for.
        """
        return None


@dataclass(frozen=True)
class SolverSpec:
    """What a plugin says of a solver before anything heavy is imported.

    Attributes:
        name: Name within the plugin. The full name is ``plugin.name``, or ``plugin`` where both are the same.
        factory: The solver class as ``"module:Class"``, imported on first use; or the class itself.
        accepts: Problem classes that it takes.
        supports: Maps a problem of these classes to None, or to the reason why it can't be taken; None accepts all.
        requires: Importable packages that must be there.
        install: The command that installs them.
        cost: Expected seconds a row, finite and at least 0, by which ``"auto"`` chooses, ours first among equals. None
            sorts last, and so does a cost that raises or isn't such a number, with a warning on the logger ``mapgrad``.
        native: Those of `IntegerProgram.features` that it takes: ``"semicontinuous"``, ``"sos"``, ``"indicators"``.
            Rows and 0/1 variables stand for the others.
        settings: Options worth a trial beside none: `tune` races the solver under each of them.
        setup: Expected seconds to make the solver for a problem, such as those of compiling it; as for `cost`. They
            count where calls bring problems of their own, shared among a problem's rows of the call. None for next to
            none.
        script: Lines of Python by which the engine alone solves the file `path` in MPS format and prints its answer,
            for who looks into a row that `record` wrote. HiGHS solves it where there are none.
    """

    name: str
    factory: str | type[InstanceSolver[Any, Any]] | type[BatchSolver[Any]]
    accepts: tuple[type[Problem], ...]
    supports: Callable[[Any], str | None] | None = None
    requires: tuple[str, ...] = ()
    install: str = ""
    cost: Callable[[Any], float] | None = None
    native: tuple[str, ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    setup: Callable[[Any], float] | None = None
    script: str = ""
