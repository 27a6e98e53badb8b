"""The laws on what a plugin does beside other threads: it releases the GIL, and ends when it is told to or in time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.errors import MapgradError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram
from mapgrad.solutions import Status
from mapgrad.solvers import BatchSolver, Block, InstanceSolver, Request
from mapgrad.testing._case import law
from mapgrad.testing._requests import attributes_read, overrides
from mapgrad.testing._sample_rows import generic_rows
from mapgrad.testing._slow_program import slow_program
from mapgrad.testing._threads import both_clocks, times_of_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.testing._case import Case

# releases_gil: seconds of CPU time, and what another thread must have had of a call
_LONG: Final = 0.02
_ENOUGH: Final = 0.4
_ENOUGH_QUICK: Final = 0.1
_MOST_CALLS: Final = 40
_MOST_DOUBLINGS: Final = 12
_SEVERAL: Final = 3
_MOST: Final = 0.8
_ONCE_MORE: Final = 8
# stop: the limit that ends a row which nothing else ends
_GUARD: Final = 10.0
# ends_in_time: the limit of a row that takes longer
_LIMIT: Final = 0.2


@law
def check_releases_gil(case: Case) -> None:
    """Where traits say ``releases_gil``, another Python thread gets on during most of two calls.

    Meanwhile Python takes the GIL from nobody. Calls are made, of single rows or of a block or batch that doubles each
    time, until the other thread had several turns in one, all through. If there is no such call, the trait is wrong
    where calls took 20 ms of CPU time or more, and can't be told where all were quicker.
    """
    plugin = case.plugin
    if not plugin.traits.releases_gil:
        case.not_applicable("the solver's traits don't say releases_gil")
    rows = case.native_rows(generic_rows(case.problem, 8, seed=11))
    longest = _longest_held(case, rows)
    is_limited = isinstance(plugin, InstanceSolver) and "seconds" in attributes_read(plugin, case.new_state(), rows)
    if 0 < longest < _LONG and (case.slow_problem is not None or is_limited):
        slow, rows = _slow_case(case)
        with slow:
            longest = _longest_held(slow, rows, seconds=0.2 if is_limited else None)
    if 0 < longest < _LONG:
        case.not_applicable("no call takes 20 ms of CPU time, which is too little to tell: give a slow_problem")
    message = f"other threads hardly had a turn during calls of up to {1e3 * longest:.0f} ms of CPU time"
    case.require(longest == 0, message)


def _longest_held(case: Case, rows: NDArray[np.float64], seconds: float | None = None) -> float:
    """Return the most CPU time, in seconds, of calls during which another thread stood still; 0 if it got on in one."""
    call = _call(case, rows, seconds)
    spent = longest = 0.0
    with times_of_turns() as turns, case.no_exceptions("the solver"):

        def held(number: int) -> float:
            """Return the CPU time of a call during which the other thread stood still; 0 if it got on."""
            before, started, cpu = len(turns), both_clocks(), time.thread_time()
            call(number)
            used, ended = time.thread_time() - cpu, both_clocks()
            met = turns[before:]
            standstill = np.diff([started, *met, ended], axis=0).max(axis=0).min()
            # in CPU time: what waits for a core or for threads of its own may release the GIL meanwhile
            return 0.0 if len(met) >= _SEVERAL and standstill < _MOST * used else used

        number = -1
        while number < _MOST_CALLS and spent <= (_ENOUGH if longest >= _LONG else _ENOUGH_QUICK):
            number += 1
            used = held(number)
            if used >= _LONG:  # once may have been for compiling, or for collecting garbage
                used = min(used, held(number))
            if used == 0:
                return 0.0
            spent, longest = spent + used, max(longest, used)
        # it may be chance: a busy machine stops and starts threads
        return 0.0 if any(held(number) == 0 for _ in range(_ONCE_MORE)) else longest


def _call(case: Case, rows: NDArray[np.float64], seconds: float | None) -> Callable[[int], object]:
    """Return a function that makes the n-th call of the plugin: one row, or a block or batch of some rows times 2^n."""
    plugin, shape = case.plugin, case.lowering.native.shape

    def many(number: int) -> NDArray[np.float64]:
        return np.tile(rows, (2 ** min(number, _MOST_DOUBLINGS), 1))

    if isinstance(plugin, BatchSolver):
        return lambda number: plugin.solve(torch.as_tensor(many(number)).reshape(-1, *shape))
    state = case.new_state()
    if overrides(plugin, "solve_rows"):
        return lambda number: plugin.solve_rows(state, Block(many(number), seconds=seconds))
    request = Request(None, seconds)
    return lambda number: plugin.solve(state, rows[number % len(rows)].reshape(shape), request)


@law
def check_stop(case: Case) -> None:
    """`stop`, called from another thread, ends within a second what runs, and the next row is answered as ever.

    The row stopped is one of the kit's slow program or, where the solver isn't given programs, of ``slow_problem``.
    The next row is asked of the same native model or, if the stopped one raised, of a fresh one, as the core does.
    """
    solver = case.instance_solver
    if not overrides(solver, "stop"):
        case.not_applicable("the solver doesn't override stop")
    slow, rows = _slow_case(case)
    solver = slow.instance_solver
    if solver.traits.stoppable is False:
        case.not_applicable("the solver says that it can't be stopped")
    state = solver.init()
    block = _stopped(case, solver, state, rows)
    if block.causes:
        solver.close(state)
        state = solver.init()
    if case.slow_problem is not None:
        _stopped(case, solver, state, rows, again=True)
    else:
        case.require(not _is_lie(block), "the stopped row is called optimal")
        known = slow_program()
        after = Block(known.quick, seconds=_GUARD, exact=solver.traits.exact)
        with case.no_exceptions("the row after the stopped one"):
            solver.solve_rows(state, after)
        wrong = solver.traits.exact and not np.array_equal(after.z[0], known.quick_answer)
        status = Status(int(after.status[0])).name
        case.require(not wrong, f"the row after the stopped one is answered wrongly, with status {status}")
    solver.close(state)


def _stopped(
    case: Case, solver: InstanceSolver[Any, Any], state: Any, rows: NDArray[np.float64], *, again: bool = False
) -> Block:
    """Start to solve a row in a thread, stop it, and return its block."""
    block = Block(rows[:1], seconds=_GUARD, exact=solver.traits.exact)
    running = _started(solver, state, block)
    if _ends(running, after=0.3, used=0.1, latest=1.0):
        case.require(not again, "the row after the stopped one ended at once")
        case.not_applicable("the slow row took less than a second: give a slow_problem that takes longer")
    solver.stop(state)
    case.require(_ends(running, after=1.0, used=1.0, latest=5.0), "the row goes on a second after it was stopped")
    return block


@law
def check_ends_in_time(case: Case) -> None:
    """A row that would take longer than its limit ends within a second after it, and isn't called OPTIMAL.

    The row is that of `check_stop`. One that goes on all the same is told to stop; what can't be stopped goes on in a
    thread of its own after the law is called broken.
    """
    if "seconds" not in attributes_read(
        case.instance_solver, case.new_state(), case.native_rows(generic_rows(case.problem, 2, seed=13))
    ):
        case.not_applicable("the solver doesn't look at `seconds` of what it is asked: it knows no limit")
    slow, rows = _slow_case(case)
    solver = slow.instance_solver
    try:
        state = solver.init()
    except MapgradError as error:
        case.not_applicable(f"the solver has no native model for the slow row ({error}): give a slow_problem")
    block = Block(rows[:1], seconds=_LIMIT, exact=solver.traits.exact)
    running = _started(solver, state, block)
    if not _ends(running, after=_LIMIT + 1.0, used=1.0, latest=5.0):
        solver.stop(state)
        case.fail(f"a row that may take {_LIMIT} s goes on a second after that")
    solver.close(state)
    case.require(block.status[0] != Status.ERROR, f"a row that may take {_LIMIT} s raised {block.causes.get(0)!r}")
    lies = case.slow_problem is None and _is_lie(block)
    case.require(not lies, f"a row that may take {_LIMIT} s, and needs hours to be proved, is called optimal")


def _started(solver: InstanceSolver[Any, Any], state: Any, block: Block) -> Future[None]:
    """Have a block of one row solved in a thread of its own."""
    running: Future[None] = Future()

    def run() -> None:
        try:
            solver.solve_rows(state, block)
        except Exception as error:  # noqa: BLE001 (a solver under test may raise anything)
            block.fail(0, error)
        running.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    return running


def _is_lie(block: Block) -> bool:
    """Return whether the slow program's row is called optimal: nobody proves so soon that a deviation must remain."""
    return bool(block.status[0] == Status.OPTIMAL and (block.theta * block.z).sum() < 0)


def _ends(running: Future[None], *, after: float, used: float, latest: float) -> bool:
    """Wait for some seconds, and until this process has used some CPU time, but not for ever; return whether it ended.

    On a busy machine a second may leave an engine no time to notice anything.
    """
    started, cpu = time.monotonic(), time.process_time()
    while not running.done():
        wait([running], 0.02)
        passed = time.monotonic() - started
        if passed > latest or (passed > after and time.process_time() - cpu > used):
            break
    return running.done()


def _slow_case(case: Case) -> tuple[Case, NDArray[np.float64]]:
    """Return the case of a problem whose rows take seconds, and such rows [N, n]."""
    if case.slow_problem is not None:
        slow = case.on(case.slow_problem)
        return slow, slow.native_rows(generic_rows(case.slow_problem, 2, seed=12))
    if case.is_object or not isinstance(case.lowering.native, IntegerProgram):
        case.not_applicable(
            "the kit has a slow row only for solvers of programs, by name or class: give a slow_problem"
        )
    try:
        slow = case.on(slow_program().program)
        assert slow.plugin
    except UnsupportedProblemError as error:
        case.not_applicable(f"the kit's slow program isn't taken ({error}): give a slow_problem")
    return slow, slow_program().slow
