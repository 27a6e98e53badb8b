"""`get_solver`: a problem and a solver, found by name, ready for batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapgrad.batching._settings import Settings
from mapgrad.batching._solver import Solver
from mapgrad.solvers import advice_on

if TYPE_CHECKING:
    from mapgrad.batching._policy import ErrorPolicy
    from mapgrad.batching._theta import DomainPolicy
    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverLike
    from mapgrad.workers import WorkersLike


def get_solver(
    solver: SolverLike,
    problem: Problem | None,
    *,
    workers: WorkersLike = None,
    on_error: ErrorPolicy = "raise",
    time_limit: float | None = None,
    deadline: float | None = None,
    domain: DomainPolicy = "clip",
    reuse: bool = False,
    merge: bool = True,
    **options: Any,
) -> Solver:
    """Return a solver for a problem.

    Args:
        solver: A name (``"plugin.solver"``, or ``"plugin"`` for its cheapest one that takes the problem), ``"auto"``
            for the cheapest exact solver installed, a solver class or object, or a function θ [N, *shape] → z. What
            making a solver costs counts for problems that calls bring, with ``problems=``.
        problem: The feasible set; None if each call brings one problem a row. What can be known without a problem is
            refused at once, and the rest on the first call. Solvers of the last 512 problems are kept: a step with
            more of them builds each again, every time. Programs that `IntegerProgram.replace` makes, of other sides
            and bounds alone, share one solver, and count as one.
        workers: None or 1 solves in the calling thread; n in n threads, each with its own native model;
            ``"processes:n"`` in n processes; a `mapgrad.Workers` in those, with whatever else is given it; any
            `concurrent.futures.Executor` in its workers; ``"ray:8"``, ``"dask:8"``, ``"dask:tcp://host:port"`` or a
            `distributed.Client` on a cluster. A solver that takes whole batches always runs in the calling thread.
        on_error: What becomes of rows that an exact solver doesn't solve to optimality, or any solver fails: they are
            infeasible or unbounded, run out of time, or the solver raises or dies. The others keep their answers.
            ``"raise"`` names them in an error that carries the answers of the others; ``"incumbent"`` accepts a
            feasible state where there is one, and raises elsewhere; under ``"nan"`` their z is NaN, and under
            ``"zero_grad"`` 0, with a first warning: `Solutions.mask` is False there, and `MAPLayer` says what becomes
            of gradients, and what ``"nan:any"`` and ``"zero_grad:any"`` are. ``"fallback:highs,ortools.mip"`` gives
            them to these solvers, one after the other, with the same `workers`, and raises where all fail; their
            answers have their own status. θ that can't be solved, with NaN say, is refused under each. `stats` counts
            what happened.
        time_limit: Seconds that one row may take, for solvers whose engine has a limit; None for no limit.
        deadline: Seconds that a batch may take: what isn't finished then is stopped and fails with TIME_LIMIT, for
            `on_error` to decide on; None for any time. Each forward and each backward pass of a layer has it whole, and
            so has each solver of a fallback. The first start of workers doesn't count. What can't be stopped goes on
            in a thread that nobody waits for, as all solvers of whole batches and functions do, which get a copy of θ
            for that; on a GPU what was begun there holds up what comes after it.
        domain: ``"clip"`` θ to the problem's domain and count it, or ``"raise"``.
        reuse: Whether what earlier rows left behind (a basis, the forward pass's answer) may speed up later ones. The
            objectives stay the same; among equal optima another one may be found.
        merge: Whether equal rows are solved once: those of a batch, and a target row that equals its forward row. They
            are looked for only where the solver is deterministic and a solve is declared to take longer than that.
        options: The solver's own options.

    Raises:
        UnknownSolverError: No plugin offers this name.
        MissingDependencyError: The solver's package isn't installed.
        PluginError: The solver's plugin is broken or blocked.
        UnsupportedProblemError: The solver can't take this problem.
        TypeError: An option is unknown to the solver, which the message lists, or an argument has the wrong type.
    """
    if isinstance(solver, Solver):
        raise TypeError(f"{solver!r} is made already: call it, or pass its name, {solver.name!r}, for another problem")
    if advice := advice_on(solver):
        raise TypeError(
            f'a solver was expected, such as "auto", got {solver!r}{advice}, and pass it beside the solver\'s name: '
            f"get_solver(name, problem)"
        )
    return Solver(solver, problem, Settings(workers, on_error, time_limit, deadline, domain, reuse, merge, options))
