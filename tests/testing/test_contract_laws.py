"""The laws on what plugins owe to the core reject whoever breaks them, and say where they don't apply."""

import ctypes
import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import BatchSolver, InstanceSolver, Solution, Status, Traits, testing
from mapgrad.testing._slow_program import slow_program

PROBLEM = mapgrad.KSubset(5, 2)
PROGRAM = mapgrad.IntegerProgram(A_ub=[[1, 2, 3]], b_ub=[4])
STATES = np.asarray(PROBLEM.states())


def name(value):
    return getattr(value, "__name__", None)


def broken(law, solver, problem=PROBLEM, **options):
    with pytest.raises(mapgrad.ConformanceError) as error:
        getattr(testing, f"check_{law}")(solver, problem, **options)
    assert error.value.law == law
    return str(error.value)


def best(theta):
    return STATES[(STATES @ theta).argmax()]


class Rows(InstanceSolver):
    """Honest, row by row."""

    def solve(self, state, theta, request):
        return best(theta)


class Batch(BatchSolver):
    """Honest, all rows at once."""

    def solve(self, theta):
        states = self.problem.states()
        return states[(theta.double() @ states.T).argmax(1)]


class Blocks(Rows):
    """Honest, in both ways."""

    def solve_rows(self, state, block):
        block.z[:] = STATES[(block.theta @ STATES.T).argmax(1)]


class BlocksAlone(InstanceSolver):
    """Honest, by blocks alone."""

    solve_rows = Blocks.solve_rows


# θ is not written to


class Writes(Rows):
    def solve(self, state, theta, request):
        z = best(theta)
        theta[0] = 7
        return z


class WritesWhereItMay(Rows):
    def solve(self, state, theta, request):
        z = best(theta)
        if theta.flags.writeable:
            theta[0] = 7
        return z


class WritesByPointer(Rows):
    def solve(self, state, theta, request):
        z = best(theta)
        if not theta.flags.writeable:
            ctypes.memset(theta.ctypes.data, 0, 8)
        return z


class WritesBlocks(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.theta *= 2


class NeedsToWrite(Rows):
    def solve(self, state, theta, request):
        theta.setflags(write=True)
        return best(theta)


class WritesBatch(Batch):
    def solve(self, theta):
        z = super().solve(theta)
        theta.mul_(0.5)
        return z


class WritesBatchByNumpy(Batch):
    def solve(self, theta):
        z = super().solve(theta)
        theta.numpy()[:, 0] = 7
        return z


class WritesTheSame(Batch):
    def solve(self, theta):
        return super().solve(theta.mul_(1))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Writes, "solve wrote to θ, in 24 coordinates of 24 rows"),
        (WritesWhereItMay, "solve wrote to θ, in 24 coordinates of 24 rows"),
        (WritesByPointer, "solve wrote to θ, in 24 coordinates of 24 rows"),
        (WritesBlocks, "solve_rows wrote to θ, in 120 coordinates of 24 rows"),
        (NeedsToWrite, "solve, given θ read-only, raised ValueError: cannot set WRITEABLE flag to True"),
        (WritesBatch, "solve wrote to θ, in 120 coordinates of 24 rows"),
        (WritesBatchByNumpy, "solve wrote to θ, in 24 coordinates of 24 rows"),
        (WritesTheSame, "solve wrote to θ, though no value changed"),
    ],
    ids=name,
)
def test_theta_is_not_written_to(solver, message):
    assert message in broken("theta_unwritten", solver)
    with pytest.raises(mapgrad.ConformanceError) as error:
        testing.check_solver(solver, PROBLEM)
    assert error.value.law == "theta_unwritten"


class DividesByZero(Rows):
    def solve(self, state, theta, request):
        return np.zeros(5) if 1 // 0 else None


class Exits(Rows):
    def solve(self, state, theta, request):
        raise SystemExit(3)


class RaisesOnBatches(Batch):
    def solve(self, theta):
        raise ValueError("no batches")


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (DividesByZero, "solve raised ZeroDivisionError on a plain row: integer"),
        (Exits, "solve raised SystemExit on a plain row: 3"),
        (RaisesOnBatches, "solve raised ValueError on plain rows: no batches"),
    ],
    ids=name,
)
def test_exceptions_are_told_first_and_by_a_law_of_their_own(solver, message):
    with pytest.raises(mapgrad.ConformanceError, match=message) as error:
        testing.check_solver(solver, PROBLEM)
    assert error.value.law == "plain_rows"


def test_what_raises_is_not_said_to_write():
    outcome = testing.check_theta_unwritten(DividesByZero, PROBLEM)
    assert outcome.result.startswith("doesn't apply: solve raises ZeroDivisionError on plain rows")


# blocks


@pytest.mark.parametrize("solver", [Blocks, BlocksAlone], ids=name)
def test_honest_blocks_pass(solver):
    assert testing.check_solve_rows(solver, PROBLEM).result == "kept"


class ShiftsRows(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.z[:] = np.roll(block.z, 1, axis=0)


class ShiftsRowsAlone(BlocksAlone):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.z[:] = np.roll(block.z, 1, axis=0)


class LeavesTheLastRow(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block.part(0, max(1, len(block) - 1)))


class WritesElsewhere(Blocks):
    def solve_rows(self, state, block):
        block.z = STATES[(block.theta @ STATES.T).argmax(1)]


class WritesOneRowMore(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        np.lib.stride_tricks.as_strided(block.z, (len(block) + 1, 5), block.z.strides)[-1] = 0


class WritesTheNextStatus(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        np.lib.stride_tricks.as_strided(block.status, (len(block) + 1,), block.status.strides)[-1] = Status.ERROR


class Doubts(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.status[:] = Status.FEASIBLE


class Flatters(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.objective[:] = (block.theta * block.z).sum(1) + 1e-6


class BoundsAbove(Blocks):
    def solve_rows(self, state, block):
        super().solve_rows(state, block)
        block.bound[:] = (block.theta * block.z).sum(1) + 1e-6


class HeedsLimitsByRowAlone(Blocks):
    def solve(self, state, theta, request):
        return Solution(None, Status.TIME_LIMIT) if (request.seconds or 1) < 1e-3 else best(theta)


class TrustsStarts(Blocks):
    def solve_rows(self, state, block):
        if block.reuse and block.start is not None:
            block.z[:] = np.where(np.isnan(block.start), 0, np.roll(block.start, 1, axis=1))
        else:
            super().solve_rows(state, block)


class GivesUpOnManyRows(Blocks):
    def solve_rows(self, state, block):
        if len(block) > 2:
            raise ArithmeticError("too many")
        super().solve_rows(state, block)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (ShiftsRows, "in a block of 2, row 0 has another z than alone"),
        (ShiftsRowsAlone, "in a block of 2, row 0 has another z than alone"),
        (LeavesTheLastRow, "in a block of 2, row 1 was left without an answer"),
        (WritesElsewhere, "in a block of 1, row 0 was left without an answer"),
        (WritesOneRowMore, "solve_rows of rows 1 to 1 wrote to z of a row beside the block"),
        (WritesTheNextStatus, "solve_rows of rows 1 to 1 wrote to status of a row beside the block"),
        (Doubts, "in a block of 1, row 0 has another status than alone: FEASIBLE, alone OPTIMAL"),
        (Flatters, "in a block of 1, row 0 has another objective than alone"),
        (BoundsAbove, "in a block of 1, row 0 has another bound than alone"),
        (HeedsLimitsByRowAlone, "solve looks at request.seconds, but solve_rows never at block.seconds"),
        (TrustsStarts, "in a block of 1, row 0 has another z than alone"),
        (GivesUpOnManyRows, "solve_rows of 7 rows raised ArithmeticError: too many"),
    ],
    ids=name,
)
def test_dishonest_blocks_are_rejected(solver, message):
    assert message in broken("solve_rows", solver)


# limits


class SharesItsLimit(Rows):
    def solve(self, state, theta, request):
        self.seconds = request.seconds
        z = best(theta)
        late = self.seconds is not None and self.seconds < 1e-6
        return Solution(None, Status.TIME_LIMIT) if late else z


class HasItsOwnLimit(Rows):
    """Honest."""

    def solve(self, state, theta, request):
        late = request.seconds is not None and request.seconds < 1e-6
        return Solution(None, Status.TIME_LIMIT) if late else best(theta)


def test_limits_of_two_solvers_over_one_object_do_not_mix():
    assert testing.check_limits_apart(HasItsOwnLimit, PROBLEM).result == "kept"
    assert testing.check_limits_apart(HasItsOwnLimit(PROBLEM), PROBLEM).result == "kept"
    message = broken("limits_apart", SharesItsLimit)
    assert "has status TIME_LIMIT where another Solver of the object is short of time" in message


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"time_limit": 1.0}, "with {'time_limit': 9.0, 'reuse': False} came with seconds=1.0 and reuse=False"),
        ({"reuse": True}, "with {'time_limit': 9.0, 'reuse': False} came with seconds=9.0 and reuse=True"),
    ],
)
def test_a_core_that_mixes_limits_is_rejected(monkeypatch, mix, message):
    def mixed(*arguments, **options):
        return mapgrad.get_solver(*arguments, **(options | mix))

    monkeypatch.setattr("mapgrad.testing._case.get_solver", mixed)
    assert message in broken("limits_apart", HasItsOwnLimit)


# patience


class GivesUp(Rows):
    """Honest: gives up every other row."""

    traits = Traits(gives_up=True)

    def solve(self, state, theta, request):
        hurried = request.patience is not None and request.patience < 1e-6
        return self.given_up(theta) if hurried and theta[0] > theta[1] else best(theta)

    def given_up(self, theta):
        return Solution(None, Status.TIME_LIMIT)


class NeverLooks(GivesUp):
    def solve(self, state, theta, request):
        return best(theta)


class KeepsAState(GivesUp):
    def given_up(self, theta):
        return Solution(best(theta), Status.TIME_LIMIT)


class Guesses(GivesUp):
    def given_up(self, theta):
        return STATES[0]


class GivesUpAtOnce(GivesUp):
    def solve(self, state, theta, request):
        return self.given_up(theta) if request.patience is None else best(theta)


class GivesUpBlocks(GivesUp):
    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, block.request(row, PROBLEM.shape)))


def test_rows_are_given_up_without_a_state_or_answered():
    assert testing.check_patience(Rows, PROBLEM).result.startswith(
        "doesn't apply: the solver's traits don't say gives_up"
    )
    for solver in (GivesUp, GivesUpBlocks):
        assert testing.check_patience(solver, PROBLEM).result == "kept"
    assert "but it never looks at patience" in broken("patience", NeverLooks)
    assert "is given up by solve with a state" in broken("patience", KeepsAState)
    assert "is neither given up nor answered" in broken("patience", Guesses)
    assert "is given up by solve where patience is None" in broken("patience", GivesUpAtOnce)


# the GIL


def work(seconds):
    """Hold the GIL."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Busy(Rows):
    traits = Traits(releases_gil=True)

    def solve(self, state, theta, request):
        work(0.03)
        return best(theta)


class BusyBlocks(Blocks):
    traits = Traits(releases_gil=True)

    def solve_rows(self, state, block):
        work(1e-5 * len(block))
        super().solve_rows(state, block)


class BusyBatch(Batch):
    traits = Traits(releases_gil=True)

    def solve(self, theta):
        work(1e-3 * len(theta))
        return super().solve(theta)


class Admits(Busy):
    traits = Traits(releases_gil=False)


class Hashes(Rows):
    """Honest: the hash of much memory is computed without the GIL."""

    traits = Traits(releases_gil=True)

    def solve(self, state, theta, request):
        hashlib.sha256(bytes(2**24))
        return best(theta)


class Quick(Rows):
    traits = Traits(releases_gil=True)


@pytest.mark.parametrize("solver", [Busy, BusyBlocks, BusyBatch], ids=name)
def test_who_holds_the_gil_can_not_say_otherwise(solver):
    before = sys.getswitchinterval(), threading.active_count()
    assert "other threads hardly had a turn during calls of up to" in broken("releases_gil", solver)
    assert (sys.getswitchinterval(), threading.active_count()) == before


def test_who_releases_the_gil_may_say_so():
    assert testing.check_releases_gil(Hashes, PROBLEM).result == "kept"
    assert testing.check_releases_gil("topk", PROBLEM).result == "kept"
    admitted = testing.check_releases_gil(Admits, PROBLEM).result
    assert admitted == "doesn't apply: the solver's traits don't say releases_gil"


@pytest.mark.slow
def test_on_a_busy_machine_nobody_is_taken_for_who_holds_the_gil():
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        for _ in range(5):
            assert testing.check_releases_gil(Hashes, PROBLEM).result == "kept"
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_calls_too_quick_to_tell_do_not_count():
    reason = "no call takes 20 ms of CPU time, which is too little to tell: give a slow_problem"
    assert testing.check_releases_gil(Quick, PROBLEM).result == f"doesn't apply: {reason}"


class LongOnce(Blocks):
    """Honest: a call of one size, and one of another, have to compile what they need, or to collect garbage."""

    traits = Traits(releases_gil=True)

    def __init__(self, problem):
        super().__init__(problem)
        self.sizes = set()

    def solve_rows(self, state, block):
        if len(block) in (8, 64) and len(block) not in self.sizes:
            work(0.5)
        self.sizes.add(len(block))
        super().solve_rows(state, block)


def test_a_call_that_takes_long_once_does_not_count():
    testing.check_releases_gil(LongOnce, PROBLEM)


class QuickButLimited(InstanceSolver):
    """Quick on small programs; on slow ones it works for as long as it may."""

    traits = Traits(releases_gil=True)

    def solve(self, state, theta, request):
        seconds = request.seconds
        if theta.size > 10:
            work(seconds)
        return np.zeros(theta.shape)


def test_programs_are_slow_enough_to_tell():
    assert "during calls of up to 2" in broken("releases_gil", QuickButLimited, PROGRAM)


# stop


class Stops(InstanceSolver):
    """Honest: a row whose utilities are few it can't solve, and works on it until it is stopped."""

    def init(self):
        return threading.Event()

    def solve(self, state, theta, request):
        if np.unique(theta).size > 2:
            return slow_program().quick_answer
        state.clear()
        return self.give_up(state.wait(request.seconds))

    def give_up(self, stopped):
        return Solution(None, Status.TIME_LIMIT)

    def stop(self, state):
        state.set()


class RaisesWhenStopped(Stops):
    """Honest: needs a fresh native model once it was stopped."""

    def solve(self, state, theta, request):
        if state.is_set():
            raise ArithmeticError("this model is broken")
        return super().solve(state, theta, request)

    def give_up(self, stopped):
        raise mapgrad.SolveTimeoutError("stopped")


class Deaf(Stops):
    over = threading.Event()

    def solve(self, state, theta, request):
        while not self.over.is_set():
            work(0.001)
        return Solution(None, Status.TIME_LIMIT)


class StaysStopped(Stops):
    def solve(self, state, theta, request):
        if state.wait(request.seconds if np.unique(theta).size <= 2 else 0.01):
            return Solution(None, Status.TIME_LIMIT)
        return super().solve(state, theta, request)


class CallsItOptimal(Stops):
    def give_up(self, stopped):
        known = slow_program()
        return Solution(known.quick_answer, Status.OPTIMAL)


class RaisesFromThenOn(Stops):
    def solve(self, state, theta, request):
        if state.is_set():
            raise ArithmeticError("this model is broken")
        return super().solve(state, theta, request)


@pytest.mark.parametrize("solver", [Stops, RaisesWhenStopped], ids=name)
def test_who_stops_passes(solver):
    assert testing.check_stop(solver, PROGRAM).result == "kept"


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Deaf, "the row goes on a second after it was stopped"),
        (StaysStopped, "the row after the stopped one is answered wrongly, with status TIME_LIMIT"),
        (CallsItOptimal, "the stopped row is called optimal"),
        (RaisesFromThenOn, "the row after the stopped one raised ArithmeticError: this model is broken"),
    ],
    ids=name,
)
def test_who_does_not_stop_is_rejected(solver, message):
    try:
        assert message in broken("stop", solver, PROGRAM)
    finally:
        Deaf.over.set()


class StopsSubsets(Rows):
    """Honest: works on large problems until it is stopped."""

    def init(self):
        return threading.Event()

    def solve(self, state, theta, request):
        if theta.size > 5:
            state.clear()
            state.wait(request.seconds)
            return Solution(None, Status.TIME_LIMIT)
        return best(theta)

    def stop(self, state):
        state.set()


class StaysStoppedOnSubsets(StopsSubsets):
    def solve(self, state, theta, request):
        state.wait(request.seconds)
        return Solution(None, Status.TIME_LIMIT)


def test_a_solver_of_other_problems_needs_a_slow_one():
    slow = mapgrad.KSubset(20, 10)
    reason = "the kit has a slow row only for solvers of programs, by name or class: give a slow_problem"
    assert testing.check_stop(StopsSubsets, PROBLEM).result == f"doesn't apply: {reason}"
    assert testing.check_stop(StopsSubsets, PROBLEM, slow_problem=slow).result == "kept"
    message = broken("stop", StaysStoppedOnSubsets, slow_problem=slow)
    assert "the row after the stopped one ended at once" in message
    quick = testing.check_stop(StopsSubsets, PROBLEM, slow_problem=PROBLEM)
    assert "give a slow_problem that takes longer" in quick.result


# ends_in_time


class Limited(InstanceSolver):
    """Honest: quick on few variables, and on more at work for as long as it may."""

    def init(self):
        return threading.Event()

    def solve(self, state, theta, request):
        seconds = request.seconds
        return self.work(state, seconds) if theta.size > 5 else np.zeros(theta.shape)

    def work(self, state, seconds):
        state.wait(seconds)
        return Solution(None, Status.TIME_LIMIT)

    def stop(self, state):
        state.set()


class SaysSoByAnError(Limited):
    """Honest too."""

    def work(self, state, seconds):
        state.wait(seconds)
        raise mapgrad.SolveTimeoutError("too late")


class Endless(Limited):
    stopped = threading.Event()

    def work(self, state, seconds):
        while not state.is_set():
            work(0.001)
        self.stopped.set()


class EndlessAndDeaf(Limited):
    over = threading.Event()
    stop = InstanceSolver.stop

    def work(self, state, seconds):
        while not self.over.is_set():
            work(0.001)


class RaisesWhenLate(Limited):
    def work(self, state, seconds):
        raise ArithmeticError("too late")


class CallsItOptimalWhenLate(Limited):
    def work(self, state, seconds):
        return Solution(slow_program().quick_answer, Status.OPTIMAL)


@pytest.mark.parametrize("solver", [Limited, SaysSoByAnError, "highs"], ids=str)
def test_who_keeps_its_limit_passes(solver):
    assert testing.check_ends_in_time(solver, PROGRAM).result == "kept"


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Endless, "a row that may take 0.2 s goes on a second after that"),
        (EndlessAndDeaf, "a row that may take 0.2 s goes on a second after that"),
        (CallsItOptimalWhenLate, "a row that may take 0.2 s, and needs hours to be proved, is called optimal"),
        (RaisesWhenLate, "a row that may take 0.2 s raised ArithmeticError('too late')"),
    ],
    ids=name,
)
def test_who_ignores_its_limit_is_rejected(solver, message):
    try:
        assert message in broken("ends_in_time", solver, PROGRAM)
        assert solver is not Endless or solver.stopped.wait(10.0)
    finally:
        getattr(solver, "over", threading.Event()).set()


def test_limits_of_a_solver_of_other_problems_want_a_slow_one():
    slow = mapgrad.KSubset(20, 10)
    assert "give a slow_problem" in testing.check_ends_in_time(Limited, PROBLEM).result
    assert testing.check_ends_in_time(Limited, PROBLEM, slow_problem=slow).result == "kept"
    assert "goes on a second after" in broken("ends_in_time", Endless, slow_problem=slow)


class SmallOnly(Limited):
    def init(self):
        if self.problem.num_vars > 5:
            raise mapgrad.ProblemError("make it smaller")
        return super().init()


def test_who_cannot_take_the_slow_program_is_told_so():
    result = testing.check_ends_in_time(SmallOnly, PROGRAM).result
    assert result.startswith("doesn't apply: the solver has no native model for the slow row (make it smaller)")


def test_who_knows_no_limit_need_not_keep_one():
    result = testing.check_ends_in_time(Rows, PROBLEM).result
    assert result == "doesn't apply: the solver doesn't look at `seconds` of what it is asked: it knows no limit"


def test_the_slow_program_has_a_row_with_a_known_answer():
    known = slow_program()
    z = torch.as_tensor(known.quick_answer)
    assert known.program.contains(z[None]).all()
    solution = mapgrad.get_solver("highs", known.program).solve(torch.as_tensor(known.quick))
    assert torch.equal(solution.z[0], z)
    slow = mapgrad.get_solver("highs", known.program, time_limit=0.2, on_error="incumbent")
    assert slow.solve(torch.as_tensor(known.slow)).status.tolist() == [Status.TIME_LIMIT]
