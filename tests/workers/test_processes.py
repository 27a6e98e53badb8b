"""Processes of our own: what they import, what they survive, what they leave behind; and deadlines of all workers."""

from __future__ import annotations

import errno
import gc
import importlib.util
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status, Workers
from mapgrad.solvers import Block
from mapgrad.workers import Job, Runner
from mapgrad.workers._child import Bring, serve
from mapgrad.workers._fork_server import ForkServer, Worker, serve_forks
from mapgrad.workers._messages import receive, send

if sys.platform != "linux":
    pytest.skip("looks into /proc", allow_module_level=True)

PROBLEM = mapgrad.KSubset(3, 1)

MODULE = """
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from mapgrad.solvers import InstanceSolver

over = threading.Event()  # by which threads that hang end with their test


class Factory:
    def __init__(self, solver_class):
        self.solver_class = solver_class

    def build(self, problem, options):
        return self.solver_class(problem, **options)


class Base(InstanceSolver):
    \"\"\"Answers with θ; does what a row's first entry says if that is negative.\"\"\"

    def __init__(self, problem, folder=None):
        super().__init__(problem)
        self.folder = folder

    def solve(self, state, theta, request):
        if theta[0] < 0:
            if self.folder:
                with Path(self.folder, f"tried{int(theta[0])}").open("a") as file:
                    file.write("x")
            self.misbehave(int(theta[0]))
        return theta + 0.0

    def misbehave(self, what):
        if what == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == -2:
            ctypes.string_at(0)
        if what == -3:
            os._exit(3)
        if what == -4:
            over.wait(1000)
        if what == -5:
            raise ValueError("minus five")


class Telling(Base):
    \"\"\"Answers with its process's number, whether it has torch, and its memory in MiB.\"\"\"

    def solve(self, state, theta, request):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return np.array([os.getpid(), "torch" in sys.modules, pages * os.sysconf("SC_PAGESIZE") / 2**20])


class Growing(Telling):
    def init(self):
        return []

    def solve(self, state, theta, request):
        state.append(np.ones(1 << 21))
        return super().solve(state, theta, request)


class Whole(Base):
    def solve_rows(self, state, block):
        for row in range(len(block)):
            block.z[row] = self.solve(state, block.theta[row], None)


class Fragile(Base):
    \"\"\"Its process ends as it is made, the first so many times.\"\"\"

    def __init__(self, problem, folder, times):
        super().__init__(problem)
        made = Path(folder, "made")
        if "torch" not in sys.modules and made.exists():
            with made.open("a") as file:
                file.write("x")
            if made.stat().st_size <= times:
                os._exit(3)


class Ending(Base):
    \"\"\"The first processes that have it end before its first row, and the next one at that row.\"\"\"

    def __init__(self, problem, folder, times):
        super().__init__(problem)
        self.ended, self.times = Path(folder, "ended"), times

    def end(self, times):
        with self.ended.open("a") as file:
            file.write("x")
        if self.ended.stat().st_size <= times:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    def init(self):
        self.end(self.times)

    def solve(self, state, theta, request):
        self.end(self.times + 2)
        return theta + 0.0


class EndingWhole(Ending):
    def solve_rows(self, state, block):
        self.end(self.times + 2)
        block.z[...] = block.theta


class Forking(Base):
    \"\"\"Leaves a process of its own behind.\"\"\"

    def misbehave(self, what):
        pid = os.fork()
        if pid == 0:
            time.sleep(10)
            os._exit(0)
        Path(self.folder, str(pid)).touch()
        super().misbehave(what)


class ForeignError(Exception):
    def __init__(self):
        if "torch" in sys.modules:
            raise OSError("not here")


class Foreign(Base):
    def misbehave(self, what):
        raise ForeignError


class ExitError(Exception):
    \"\"\"Ends who unpickles it.\"\"\"

    def __reduce__(self):
        return sys.exit, (3,)


class Ender(Whole):
    def misbehave(self, what):
        raise ExitError("not sent")


class StuckOnce(Telling):
    \"\"\"The second process that makes it hangs meanwhile; rows take some time.\"\"\"

    def __init__(self, problem, folder):
        super().__init__(problem, folder)
        if "torch" not in sys.modules:
            try:
                Path(folder, "first").touch(exist_ok=False)
            except FileExistsError:
                if not Path(folder, "second").exists():
                    Path(folder, "second").touch()
                    over.wait(1000)

    def solve(self, state, theta, request):
        time.sleep(0.02)
        return super().solve(state, theta, request)


class Stuck(Base):
    def __init__(self, problem):
        super().__init__(problem)
        if "torch" not in sys.modules:
            over.wait(1000)


class Late(Base):
    \"\"\"Takes a second to be made, but for the first time, and notes it.\"\"\"

    def __init__(self, problem, folder):
        super().__init__(problem, folder)
        if "torch" not in sys.modules:
            try:
                Path(folder, "first").touch(exist_ok=False)
            except FileExistsError:
                time.sleep(1)
                Path(folder, "second").touch()


class Untidy(Base):
    \"\"\"Closes, or takes, all files that its process may have open.\"\"\"

    def misbehave(self, what):
        if what == -1:
            os.closerange(3, 100)
            if os.fork() == 0:
                os._exit(0)
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
            self.files = []
            while True:
                self.files.append(open(os.devnull))


class Mapped(Base):
    \"\"\"Answers with how many MiB of shared memory its process has.\"\"\"

    def solve_rows(self, state, block):
        ends = [line.split()[0].split("-") for line in Path("/proc/self/maps").open() if "memfd:mapgrad" in line]
        block.z[...] = sum(int(stop, 16) - int(start, 16) for start, stop in ends) / 2**20


class Slow(Base):
    def solve(self, state, theta, request):
        time.sleep(0.05)
        return super().solve(state, theta, request)
"""


@pytest.fixture(scope="module")
def module(import_source):
    return import_source("processed_solvers", MODULE)


@pytest.fixture
def hangs(module):
    module.over.clear()
    yield module.Base
    module.over.set()


@pytest.fixture(scope="module")
def crew(module):
    workers = Workers("processes:2")
    yield workers
    workers.close()


def solve(workers, solver_class, first, token=None, deadline=None, **options):
    """Solve rows that begin with some numbers, and return their block."""
    theta = np.arange(3) + np.array(first, dtype=np.float64)[:, None]
    theta.flags.writeable = False
    block = Block(theta)
    factory = importlib.import_module("processed_solvers").Factory(solver_class)
    job = Job(token or f"{solver_class.__name__}{options}", factory, PROBLEM, options)
    workers.solve(Runner(solver_class(PROBLEM, **options)), job, block, deadline)
    return block


def assert_answered(block, failed=()):
    expected = block.theta.copy()
    expected[list(failed)] = np.nan
    np.testing.assert_array_equal(block.z, expected)
    assert sorted(block.causes) == sorted(failed)


def test_a_worker_has_neither_torch_nor_much_memory(crew, module):
    block = solve(crew, module.Telling, range(4))
    assert not block.z[:, 1].any()
    assert (block.z[:, 2] < 60).all()
    assert os.getpid() not in block.z[:, 0]


def test_the_users_script_is_not_imported(tmp_path, module):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(module.__file__).parent)!r})\n"
        "print('here')\nimport torch, mapgrad, processed_solvers\n"
        "solver = mapgrad.get_solver(processed_solvers.Base, mapgrad.KSubset(3, 1), workers='processes:2')\n"
        "print(solver(torch.ones(9, 3)).sum().item())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n13.5\n", "")


def test_a_path_among_those_of_imports_is_passed_over(module, monkeypatch):
    monkeypatch.syspath_prepend(Path(module.__file__).parent)
    monkeypatch.setattr(sys, "path", [Path.cwd(), *sys.path])
    server = ForkServer()
    worker = server.fork()
    send(worker.socket, Bring("a job", b"", {}))
    assert isinstance(receive(worker.socket)[0].error.opened(), EOFError)
    worker.close()


def test_a_solver_of_a_prompt_goes_along_or_says_what_it_takes():
    program = """
import numpy as np, torch, mapgrad

class First(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        return np.eye(3)[0]

try:
    print(mapgrad.get_solver(First, mapgrad.KSubset(3, 1), workers="processes:1")(torch.ones(2, 3)).tolist())
except mapgrad.RowsError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=120, check=False
    )
    has_cloudpickle = importlib.util.find_spec("cloudpickle") is not None
    assert ("[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]" if has_cloudpickle else "install cloudpickle") in done.stdout


@pytest.mark.parametrize(
    ("what", "how"), [(-1, "was killed by SIGKILL"), (-2, "was killed by SIGSEGV"), (-3, "ended with exit code 3")]
)
@pytest.mark.parametrize("kind", ["Base", "Whole"])
def test_only_rows_of_which_a_process_dies_twice_fail(crew, module, tmp_path, what, how, kind):
    first = [*range(40), what, *range(30), what - 0.5, 7, -5]
    if kind == "Whole":
        first.pop()
    solver = getattr(module, kind)
    block = solve(crew, solver, first, folder=str(tmp_path))
    raising = [len(first) - 1] if kind == "Base" else []
    assert_answered(block, failed=[40, 71, *raising])
    assert all(isinstance(block.causes[row], ChildProcessError) for row in (40, 71))
    assert how in str(block.causes[40])
    if kind == "Base":
        assert isinstance(block.causes[raising[0]], ValueError)
        assert len((tmp_path / f"tried{what}").read_text()) == 4  # two rows, each of them twice
    assert_answered(solve(crew, solver, range(20), folder=str(tmp_path)))


def test_the_end_of_a_process_is_seen_though_its_own_ones_go_on(crew, module, tmp_path):
    block = solve(crew, module.Forking, [1, -1, 2], folder=str(tmp_path))
    assert_answered(block, failed=[1])
    for path in tmp_path.glob("[0-9]*"):
        os.kill(int(path.name), signal.SIGKILL)  # which would raise if we had waited for their end


def test_an_error_that_can_only_be_made_in_the_process_costs_its_row(crew, module):
    block = solve(crew, module.Foreign, [*range(40), -1, *range(30)])
    assert_answered(block, failed=[40])
    assert str(block.causes[40]) == "ForeignError: "


def test_an_error_that_ends_who_unpickles_it_costs_its_row(module):
    workers = Workers("processes:1")
    solve(workers, module.Ender, range(2))
    block = solve(workers, module.Ender, [*range(40), -1, *range(30)])
    assert_answered(block, failed=[40])
    assert str(block.causes[40]) == "ExitError: not sent"
    workers.close()


def test_a_process_whose_files_a_solver_closed_or_took_ends_without_a_word(module, monkeypatch, capfd):
    monkeypatch.setattr("mapgrad.workers._processes.fork_server", ForkServer())  # whose words are captured
    workers = Workers("processes:1")
    assert_answered(solve(workers, module.Untidy, [1, -2, 3]), failed=[1])
    assert_answered(solve(workers, module.Untidy, range(100_000)))  # new memory for them can't be mapped there
    assert_answered(solve(workers, module.Untidy, [1, -1, 3]))
    workers.close()
    assert capfd.readouterr().err == ""


def test_a_process_that_is_late_for_a_deadline_is_there_for_the_next_rows(hangs, module, tmp_path):
    workers = Workers("processes:2")
    assert_answered(solve(workers, module.Late, [-4, -4], deadline=0.2, folder=str(tmp_path)), failed=[0, 1])
    wait_until((tmp_path / "second").exists)
    workers.close()


def test_a_process_that_can_not_be_started_says_why(module, monkeypatch):
    def fork(server):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(ForkServer, "fork", fork)
    block = solve(Workers("processes:1"), module.Base, [1])
    assert "the last one can't be started ([Errno 24] too many open files)" in str(block.causes[0])


def test_processes_that_hang_as_they_make_a_solver_are_given_up_with_its_rows(module, monkeypatch):
    monkeypatch.setattr("mapgrad.workers._threads.START", 1.5)
    workers = Workers("processes:2")
    began = time.monotonic()
    block = solve(workers, module.Stuck, range(4), deadline=0.1)
    assert_answered(block, failed=range(4))
    assert "no worker was there with its solver" in str(block.causes[0])
    assert_answered(solve(workers, module.Base, range(4)))
    assert time.monotonic() - began < 10
    workers.close()


def test_a_process_that_hangs_as_it_makes_a_solver_is_replaced_though_others_solve_its_rows(
    module, tmp_path, monkeypatch
):
    monkeypatch.setattr("mapgrad.workers._threads.START", 0.5)
    workers = Workers("processes:2")

    def pids():
        return {*solve(workers, module.StuckOnce, range(20), folder=str(tmp_path)).z[:, 0].tolist()}

    assert len(pids()) == 1
    wait_until(lambda: len(pids()) == 2)
    workers.close()


def test_a_process_that_hangs_as_it_makes_a_solver_ends_with_its_workers(module, tmp_path):
    workers = Workers("processes:2")
    before = {*threading.enumerate()}
    solve(workers, module.StuckOnce, range(20), folder=str(tmp_path))
    wait_until((tmp_path / "second").exists)
    workers.close()
    wait_until(lambda: before.issuperset(threading.enumerate()))


@pytest.fixture
def slowly(monkeypatch):
    """Have a worker process take a second to begin."""
    fork = ForkServer.fork

    def forked(server):
        time.sleep(1)
        return fork(server)

    return lambda: monkeypatch.setattr(ForkServer, "fork", forked)


def test_a_process_that_begins_after_its_rows_were_given_up_makes_no_solver(module, tmp_path, monkeypatch, slowly):
    monkeypatch.setattr("mapgrad.workers._threads.START", 0.1)
    slowly()
    workers = Workers("processes:1")
    before = {*threading.enumerate()}
    assert_answered(solve(workers, module.Late, [1], deadline=0.1, folder=str(tmp_path)), failed=[0])
    wait_until(lambda: before.issuperset(threading.enumerate()))
    assert not list(tmp_path.iterdir())
    workers.close()


def test_a_row_that_killed_its_process_is_not_tried_again_after_the_deadline(module, tmp_path, slowly, capfd):
    """Its memory has been given up by then, and another file may have its number."""
    workers = Workers("processes:1")
    before = {*threading.enumerate()}
    assert_answered(solve(workers, module.Base, [1], folder=str(tmp_path)))
    slowly()
    block = solve(workers, module.Base, [-1], deadline=0.3, folder=str(tmp_path))
    assert block.status[0] == Status.TIME_LIMIT
    wait_until(lambda: before.issuperset(threading.enumerate()))
    assert (tmp_path / "tried-1").read_text() == "x"
    assert capfd.readouterr().err == ""
    workers.close()


def test_a_process_that_ends_as_it_makes_the_solver_is_replaced_twice(module, tmp_path):
    made = tmp_path / "made"
    for times, failed in ((1, ()), (2, ()), (3, range(4))):
        workers = Workers("processes:1")
        made.write_text("")
        block = solve(workers, module.Fragile, range(4), folder=str(tmp_path), times=times)
        assert_answered(block, failed)
        assert len(made.read_text()) == min(times + 1, 3)
        workers.close()
    assert (
        str(block.causes[0]) == "no worker process has made the solver in 3 tries: the last one ended with exit code 3"
    )


def test_a_batch_whose_solver_can_not_be_made_is_not_kept(module, tmp_path):
    (tmp_path / "made").write_text("")
    workers = Workers("processes:1")
    gc.disable()
    try:
        block = solve(workers, module.Fragile, range(4), folder=str(tmp_path), times=3)
        z = weakref.ref(block.z)
        assert len(block.causes) == 4
        del block
        deadline = time.monotonic() + 10  # the thread lets go of its last portion
        while z() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert z() is None
    finally:
        gc.enable()
        workers.close()


@pytest.mark.parametrize("kind", ["Ending", "EndingWhole"])
@pytest.mark.parametrize(("times", "failed"), [(0, ()), (2, ()), (3, (0,))])
def test_processes_that_end_before_a_row_are_no_tries_of_it(module, tmp_path, kind, times, failed):
    """As when a job's processes are told twice to end. From the third on, it may be the solver's beginning."""
    workers = Workers("processes:1")
    block = solve(workers, getattr(module, kind), [7], folder=str(tmp_path), times=times)
    assert_answered(block, failed)
    workers.close()


def test_a_process_that_ended_while_it_had_nothing_to_do_is_no_try_of_a_row(module, tmp_path):
    workers = Workers("processes:1")
    for _ in range(2):
        assert_answered(solve(workers, module.Ending, [7], folder=str(tmp_path), times=0))
        pid = int(solve(workers, module.Telling, [1]).z[0, 0])
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        (tmp_path / "ended").unlink()
    workers.close()


def test_signals_to_all_processes_are_the_programs_business(module):
    """A scheduler or a launcher sends them to all: a program that heeds them may want to end its step before."""
    workers = Workers("processes:1")
    pid = int(solve(workers, module.Telling, [1]).z[0, 0])
    server = parent_of(pid)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        os.kill(server, signum)
        if signum != signal.SIGTERM:
            os.kill(pid, signum)
        assert solve(workers, module.Telling, [1]).z[0, 0] == pid
    os.kill(pid, signal.SIGTERM)
    pid = int(solve(workers, module.Telling, [1]).z[0, 0])
    assert parent_of(pid) == server
    workers.close()


def test_a_server_that_may_open_no_more_files_keeps_the_processes_that_it_has(module):
    workers, late = Workers("processes:1"), Workers("processes:1")
    pid = int(solve(workers, module.Telling, [1]).z[0, 0])
    server = parent_of(pid)
    most = resource.prlimit(server, resource.RLIMIT_NOFILE)
    resource.prlimit(server, resource.RLIMIT_NOFILE, (3, most[1]))
    try:
        block = solve(late, module.Telling, [1])
        assert str(block.causes[0]) == "no worker process has made the solver in 3 tries: the last one ended"
        assert solve(workers, module.Telling, [1]).z[0, 0] == pid
    finally:
        resource.prlimit(server, resource.RLIMIT_NOFILE, most)
    assert parent_of(int(solve(late, module.Telling, [1]).z[0, 0])) == server
    workers.close()
    late.close()


def test_a_server_that_can_fork_no_more_says_so_and_goes_on():
    """With a stand-in for os.fork, as root may have any number of processes."""
    ours, theirs = socket.socketpair()
    server = os.fork()
    if server == 0:
        ours.close()
        os.fork = failing_first(os.fork)
        serve_forks(theirs.detach())
        os._exit(0)
    theirs.close()
    ends = []
    for _ in range(2):
        to_worker, to_parent = socket.socketpair()
        told, status = os.pipe()
        send(ours, None, (to_parent.fileno(), status))
        to_parent.close()
        os.close(status)
        worker = Worker(to_worker, told)
        with suppress(BrokenPipeError):
            send(worker.socket, None)
        ends.append(worker.end_of())
        worker.close()
    ours.close()
    assert os.waitpid(server, 0)[1] == 0
    assert ends == [f"can't be forked ({os.strerror(errno.EAGAIN)})", "ended with exit code 0"]


def failing_first(fork):
    tries = iter(range(2))

    def failing():
        if next(tries) == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    return failing


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def has_ended(pid):
    """Tell whether a process has ended, though nobody may have asked how: not each system's first process does."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_processes_killed_from_outside_cost_nothing(crew, module):
    pids = set(solve(crew, module.Telling, range(40)).z[:, 0].astype(int).tolist())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert_answered(solve(crew, module.Base, range(40)))
    killer = threading.Thread(target=kill_all_that, args=({*solve(crew, module.Telling, range(40)).z[:, 0]}, 0.12))
    killer.start()
    assert_answered(solve(crew, module.Slow, range(10)))
    killer.join()


def kill_all_that(pids, seconds):
    time.sleep(seconds)
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("kind", [None, 2, "processes:2"])
def test_a_row_that_hangs_costs_itself_alone_at_the_deadline(hangs, kind):
    workers = Workers(kind)
    solve(workers, hangs, [1])
    began = time.monotonic()
    first = [*range(60), -4] if kind is None else [*range(30), -4, *range(30)]
    block = solve(workers, hangs, first, deadline=0.7)
    assert 0.6 < time.monotonic() - began < 5
    hung = first.index(-4)
    assert_answered(block, failed=[hung])
    assert block.status[hung] == Status.TIME_LIMIT
    assert str(block.causes[hung]) == "the deadline of 0.7 s passed while it was solved"
    assert_answered(solve(workers, hangs, range(10), deadline=5.0))
    workers.close()


@pytest.mark.parametrize("kind", [2, "processes:2"])
def test_rows_that_hang_hold_up_other_batches_until_their_deadline(hangs, module, kind):
    workers = Workers(kind)
    solve(workers, module.Base, range(4))
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(solve(workers, module.Telling, range(4))), daemon=True)
    threading.Timer(0.2, waiting.start).start()
    assert_answered(solve(workers, hangs, [-4, -4], deadline=0.5), failed=[0, 1])
    waiting.join(10)
    assert len(answers) == 1
    assert not answers[0].causes
    workers.close()


def test_rows_whose_turn_has_not_come_say_so(hangs):
    workers = Workers()
    block = solve(workers, hangs, [1, -4, 2], deadline=0.3)
    assert_answered(block, failed=[1, 2])
    assert "before its turn came" in str(block.causes[2])


def test_a_process_is_replaced_after_so_many_rows_or_so_much_memory(module, caplog):
    workers = Workers("processes:1", solves=5)
    pids = [solve(workers, module.Telling, [1]).z[0, 0] for _ in range(12)]
    assert len(set(pids)) == 3
    workers.close()
    workers = Workers("processes:1", memory=200 << 20)
    pids = [solve(workers, module.Growing, [1]).z[0, 0] for _ in range(15)]
    assert len(set(pids)) >= 2
    workers.close()
    assert not caplog.records


def test_memory_that_no_process_keeps_to_is_warned_of_once(module, caplog):
    workers = Workers("processes:1", memory=1 << 20)
    pids = [solve(workers, module.Telling, [1]).z[0, 0] for _ in range(4)]
    workers.close()
    assert len(set(pids)) == 4
    (message,) = [record.getMessage() for record in caplog.records if "memory=" in record.getMessage()]
    least, advised = map(int, re.findall(r"the (\d+) bytes.*set memory=(\d+)", message)[0])
    workers = Workers("processes:1", memory=advised)
    blocks = [solve(workers, module.Telling, [1]) for _ in range(2)]
    workers.close()
    assert blocks[0].z[0, 0] == blocks[1].z[0, 0]
    assert blocks[0].z[0, 2] == pytest.approx(least / 2**20, rel=0.3)


def test_solvers_share_workers_that_they_are_given(module):
    workers = Workers("processes:1")
    solvers = [mapgrad.get_solver(module.Telling, mapgrad.KSubset(3, k), workers=workers) for k in (1, 2)]
    pids = {solver(torch.rand(2, 3, dtype=torch.float64))[0, 0].item() for solver in solvers}
    assert len(pids) == 1
    solvers[0].close()  # which doesn't end what another one uses
    assert solvers[1](torch.rand(1, 3, dtype=torch.float64))[0, 0].item() in pids
    workers.close()


def test_workers_that_are_dropped_leave_no_thread_of_a_deadline(module):
    before = set(threading.enumerate())
    workers = Workers()
    assert_answered(solve(workers, module.Base, range(3), deadline=5.0))
    assert any(thread.name == "mapgrad_0" for thread in set(threading.enumerate()) - before)
    del workers
    gc.collect()
    wait_until(lambda: not {thread for thread in threading.enumerate() if thread.name == "mapgrad_0"} - before)


@pytest.mark.parametrize(("options", "error"), [({"solves": 0}, ValueError), ({"memory": 1.5}, TypeError)])
def test_limits_that_are_refused(options, error):
    with pytest.raises(error, match="must be an int of at least 1 or None"):
        Workers("processes:1", **options)
    with pytest.raises(TypeError, match="are for processes"):
        Workers(2, solves=3)


def test_processes_let_go_of_the_memory_of_large_batches(module):
    workers = Workers("processes:1")
    solve(workers, module.Mapped, [1])
    for _ in range(2):
        solve(workers, module.Mapped, range(1 << 20))
    assert 0 < solve(workers, module.Mapped, [1]).z[0, 0] < 1
    workers.close()


@pytest.mark.parametrize("rows", [4, 10_000])
def test_an_interrupt_while_a_batch_is_put_into_memory_leaves_no_file(module, monkeypatch, rows):
    workers = Workers("processes:1")
    solve(workers, module.Base, range(100))
    before = descriptors()

    def interrupted(arrays, **asked):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mapgrad.workers._shared_batch.block_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            solve(workers, module.Base, range(rows))
    assert_answered(solve(workers, module.Base, range(100)))
    gc.collect()
    assert descriptors() == before
    workers.close()


def test_nothing_is_left_behind(module):
    solve(warm := Workers("processes:1"), module.Base, range(4))  # the server, which stays
    warm.close()
    before = descriptors()
    workers = Workers("processes:2")
    pids = set(solve(workers, module.Telling, range(50)).z[:, 0].astype(int).tolist())
    for _ in range(3):
        solve(workers, module.Base, [1, -1, 2, -3, 5])
    workers.close()
    wait_until(lambda: descriptors() == before)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_that_can_tell_nobody_ends_without_an_error():
    ours, theirs = socket.socketpair()
    send(ours, Bring("a job", b"", {}))
    ours.close()
    with theirs:
        serve(theirs)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_program_whatever_they_are_at(module, tmp_path, signum):
    script = f"""
import sys, threading
sys.path.insert(0, {str(Path(module.__file__).parent)!r})
import torch, mapgrad, processed_solvers
problem, workers = mapgrad.KSubset(3, 1), mapgrad.Workers("processes:2")
tell = mapgrad.get_solver(processed_solvers.Telling, problem, workers=workers)
print(*set(tell(torch.rand(50, 3, dtype=torch.float64))[:, 0].int().tolist()), flush=True)
hang = mapgrad.get_solver(processed_solvers.Base, problem, workers=workers)
hang(torch.tensor([[-4.0, 0, 0]] * 2))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as program:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        server = parent_of(pids[0])
        time.sleep(0.3)
        program.send_signal(signum)
        program.wait(20)
    wait_until(lambda: all(map(has_ended, [*pids, server])))
