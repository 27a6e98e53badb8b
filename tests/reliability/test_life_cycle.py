"""Solvers that live long: forked, closed, copied, shared by threads, with many problems or a broken executor."""

import copy
import gc
import io
import multiprocessing
import os
import pickle
import threading
import time
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status

PROBLEM = mapgrad.KSubset(6, 2)


class Best(mapgrad.InstanceSolver):
    """The k largest entries; knows its native models, and whose they are."""

    def __init__(self, problem, seconds=0.0):
        super().__init__(problem)
        self.seconds = seconds
        self.made, self.closed = [], []

    def init(self):
        state = object(), os.getpid()
        self.made.append(state)
        return state

    def solve(self, state, theta, request):
        assert state[1] == os.getpid()
        time.sleep(self.seconds)
        return (theta >= np.sort(theta)[-self.problem.k]).astype(float)

    def close(self, state):
        self.closed.append(state)


class BestRows(Best):
    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.z[row] = self.solve(state, theta, None)


def rows(count=8, size=6):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0))


def right(theta, problem=PROBLEM):
    """Return the truth: the best of all states, for each row."""
    states = problem.states().to(theta.dtype)
    return states[(theta @ states.T).argmax(dim=-1)]


@pytest.fixture(params=[None, 2, "executor"], ids=str)
def workers(request):
    if request.param != "executor":
        yield request.param
        return
    with ThreadPoolExecutor(2) as executor:
        yield executor


# -- forks

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


ENGINES = ["topk", "highs", "ortools.cp_sat", "ortools.mip", "pulp.cbc", "pulp.highs", "scipy.milp"]
WORKERS = [None, 2, "executor"]
FORKED = [*product([Best, BestRows], WORKERS), *((name, WORKERS[place % 3]) for place, name in enumerate(ENGINES))]
"""Solvers of both kinds under each kind of workers, and each engine under one kind."""


def made(solver, problem=PROBLEM, **settings):
    if isinstance(solver, str):
        pytest.importorskip({"highs": "highspy", "topk": "mapgrad_topk"}.get(solver, solver.split(".")[0]))
    return mapgrad.get_solver(solver, problem, **settings)


@needs_fork
@pytest.mark.parametrize(("given", "workers"), FORKED, ids=str, indirect=["workers"])
def test_a_solver_that_was_used_works_in_a_forked_child(given, workers, in_child):
    """Its threads, models and locks are the child's own; and those of the parent go on."""
    solver = made(given, workers=workers)
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None, mapgrad.Step(1.0)))
    truth = right(rows())

    def gradient():
        theta = rows().requires_grad_()
        layer(theta).backward(rows())
        return theta.grad

    expected = gradient()
    assert expected.any()

    def works():
        assert torch.equal(solver(rows()), truth)
        assert torch.equal(gradient(), expected)

    works()
    in_child(works)
    in_child(lambda: in_child(works))
    works()
    solver.close()
    in_child(works)


@needs_fork
def test_a_child_frees_its_own_models_only(in_child):
    plugin = Best(PROBLEM)
    solver = mapgrad.get_solver(plugin, PROBLEM, workers=2)
    solver(rows())

    def child():
        solver(rows())
        solver.close()
        assert {pid for _, pid in plugin.closed} == {os.getpid()}

    in_child(child)
    assert not plugin.closed
    solver.close()
    assert {pid for _, pid in plugin.closed} == {os.getpid()}


@needs_fork
def test_a_fork_amid_other_threads_batches(workers, in_child):
    solver = mapgrad.get_solver(Best, None, workers=workers, seconds=0.001)
    problems = [mapgrad.KSubset(6, 1 + row % 3) for row in range(8)]
    over = threading.Event()

    def works():
        assert solver(rows(), problems=problems).sum() == sum(problem.k for problem in problems)

    def work():
        while not over.is_set():
            works()

    callers = [threading.Thread(target=work) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(5):
            in_child(works)
    finally:
        over.set()
        for caller in callers:
            caller.join()


@needs_fork
def test_a_forked_child_has_none_of_a_given_executors_processes(in_child):
    """So that the caller solves, in the child; a process of a data loader could start none."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        solver = mapgrad.get_solver("topk", PROBLEM, workers=executor)
        remote = made("highs", workers=executor)

        def works():
            assert torch.equal(solver(rows()), right(rows()))
            assert torch.equal(remote(rows()), right(rows()))

        works()
        in_child(works)
        in_child(lambda: (works(), remote.close(), works()))
        works()


class Solved(torch.utils.data.Dataset):
    """A data set that solves on the fly, as predict-then-optimise ones do."""

    def __init__(self, solver):
        self.solver = solver

    def __len__(self):
        return 12

    def __getitem__(self, number):
        theta = rows(12)[number : number + 1]
        return theta[0], self.solver(theta)[0], self.solver.solve(rows(5)).z, os.getpid()


@needs_fork
@pytest.mark.parametrize("given", [Best, "highs"], ids=str)
def test_a_data_loader_with_forked_workers(given, workers):
    solver = made(given, workers=workers)
    solver(rows())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks while threads run, and of more workers than cores
        loader = torch.utils.data.DataLoader(
            Solved(solver), batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        found = list(loader)
    theta, z, five, pids = (torch.cat(each) for each in zip(*found, strict=True))
    assert torch.equal(z, right(theta))
    assert torch.equal(five[-1], right(rows(5)))
    assert len(pids.unique()) == 2
    assert torch.equal(solver(rows()), right(rows()))


# -- one pool for all problems


def test_many_problems_share_the_threads():
    seen = set()

    class Seen(Best):
        def solve(self, state, theta, request):
            seen.add(threading.current_thread())
            return super().solve(state, theta, request)

    before = threading.active_count()
    problems = [mapgrad.KSubset(60, k) for k in range(1, 60) for _ in range(2)]
    theta = rows(len(problems), 60)
    expected = torch.stack([(row >= row.sort().values[-p.k]).float() for row, p in zip(theta, problems, strict=True)])
    with mapgrad.get_solver(Seen, None, workers=2) as solver:
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None, mapgrad.Step(1.0)))
        for call in (solver, layer):
            assert torch.equal(call(theta, problems=problems), expected)
            assert threading.active_count() <= before + 2
        assert len(seen - {threading.current_thread()}) <= 2
        well = theta.clone().requires_grad_()
        layer(well, problems=problems).sum().backward()
        assert threading.active_count() <= before + 2
        assert len(seen - {threading.current_thread()}) <= 2
    assert threading.active_count() <= before


@pytest.fixture
def module(import_source):
    """A module whose solvers a worker elsewhere can import."""
    return import_source(
        "remote_solvers",
        "import os\nimport mapgrad, numpy as np\n"
        "class Pid(mapgrad.InstanceSolver):\n"
        "    def solve(self, state, theta, request):\n"
        "        return np.full(theta.shape, float(os.getpid()))\n",
    )


def test_many_problems_share_one_process(module):
    problems = [mapgrad.KSubset(6, k) for k in (1, 2, 3, 1, 2, 3)]
    with mapgrad.get_solver(module.Pid, None, workers="processes:1") as solver:
        pids = {*solver(rows(6).double(), problems=problems).flatten().tolist()}
        pids |= {*solver(rows(6).double(), problems=problems[::-1]).flatten().tolist()}
        assert len(pids) == 1
        assert pids != {os.getpid()}


# -- close() while others solve


@pytest.mark.parametrize("given", [Best, BestRows, "topk"], ids=str)
def test_close_while_others_solve_lets_their_rows_finish(given, workers):
    solver = made(given, workers=workers)
    own = made(Best, None, workers=workers)
    problems = [mapgrad.KSubset(6, 1 + row % 3) for row in range(8)]
    expected = right(rows())
    failures, rounds = [], []

    def work():
        try:
            for _ in range(15):
                assert torch.equal(solver(rows()), expected)
                assert own(rows(), problems=problems).sum() == sum(problem.k for problem in problems)
                rounds.append(1)
        except BaseException as error:  # noqa: BLE001 (told in the main thread)
            failures.append(error)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        solver.close()
        own.close()
        time.sleep(0.001)
    assert not failures
    assert len(rounds) == 60
    solver.close()
    if given != "topk":
        plugin = solver.at_work().plugin
        assert len(plugin.closed) == len(plugin.made)
        assert set(plugin.closed) == set(plugin.made)
    assert torch.equal(solver(rows()), expected)


def test_a_solver_that_is_dropped_while_its_rows_are_solved_finishes_them(workers):
    def call():
        return mapgrad.get_solver(Best, PROBLEM, workers=workers, seconds=0.01)(rows())

    found = []
    callers = [threading.Thread(target=lambda: found.append(call())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(z, right(rows())) for z in found)
    assert len(found) == 4


# -- layers and solvers that nobody uses any more


class Holding(Best):
    """Has the model that uses it among its options."""

    def __init__(self, problem, model):
        super().__init__(problem)
        self.model = model


class Plain:
    @mapgrad.differentiable()
    def pick(self, theta):
        return right(theta)


class Decorated(torch.nn.Module):
    @mapgrad.differentiable()
    def pick(self, theta):
        return right(theta)


class WithMethod(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pick = mapgrad.MAPLayer(self.solve)

    def solve(self, theta):
        return right(theta)


class WithClosure(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pick = mapgrad.MAPLayer(lambda theta: right(theta) + 0.0 * self.training)


class WithOptions(torch.nn.Module):
    def __init__(self, workers=None):
        super().__init__()
        self.pick = mapgrad.MAPLayer(mapgrad.get_solver(Holding, PROBLEM, workers=workers, model=self))


class WithManyProblems(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = mapgrad.MAPLayer(mapgrad.get_solver(Holding, None, model=self))

    def pick(self, theta):
        return self.layer(theta, problems=[PROBLEM] * len(theta))


@pytest.mark.parametrize(
    "make",
    [Plain, Decorated, WithMethod, WithClosure, WithOptions, lambda: WithOptions(2), WithManyProblems],
    ids=["plain", "decorated", "method", "closure", "options", "threads", "problems"],
)
def test_a_model_that_its_own_solver_holds_is_freed(make):
    alive = []
    for _ in range(3):
        model = make()
        model.pick(rows().requires_grad_()).sum().backward()
        alive.append(weakref.ref(model))
    del model
    gc.collect()
    assert [each() for each in alive] == [None] * 3


def test_a_model_among_the_options_of_a_solver_with_an_executor_is_freed():
    with ThreadPoolExecutor(2) as executor:
        model = WithOptions(executor)
        model.pick(rows())
        alive = weakref.ref(model)
        del model
        gc.collect()
        assert alive() is None


@pytest.mark.parametrize("problem", [PROBLEM, None], ids=["own", "of its rows"])
def test_dropping_a_solver_frees_its_native_models_and_threads(problem):
    before = threading.active_count()
    held = []
    solver = mapgrad.get_solver(Holding, problem, workers=2, model=held)
    held.append(solver)
    solver(rows(), problems=[PROBLEM] * 8)
    plugin = solver.at_work(PROBLEM).plugin
    made, closed = plugin.made, plugin.closed
    assert made
    assert not closed
    del solver, plugin, held
    gc.collect()
    assert set(closed) == set(made)
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", ["None", "2"])
def test_the_end_of_the_program_frees_native_models(workers, run_program):
    script = f"""
import mapgrad, torch

class Loud(mapgrad.InstanceSolver):
    def init(self):
        return "model"

    def solve(self, state, theta, request):
        return theta * 0

    def close(self, state):
        print("closed", state)

solver = mapgrad.get_solver(Loud, mapgrad.KSubset(6, 2), workers={workers})
solver(torch.zeros(1, 6))
print("ends")
"""
    done = run_program(script)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["ends", "closed model"]
    assert not done.stderr


# -- limits


@pytest.mark.parametrize("base", ["solve", "solve_rows"])
def test_two_solvers_over_one_object_keep_their_limits(base, workers):
    wrong = []

    class Limited(mapgrad.InstanceSolver):
        def check(self, theta, seconds):
            time.sleep(0.0005)
            if seconds != (None if theta[0] > 0 else 1.0 if theta[1] > 0 else 9.0):
                wrong.append(seconds)

    def solve(self, state, theta, request):
        self.check(theta, request.seconds)
        return np.abs(theta)

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            self.check(theta, block.seconds)
            block.z[row] = np.abs(theta)

    setattr(Limited, base, solve if base == "solve" else solve_rows)
    plugin = Limited(PROBLEM)
    signs = {None: [1.0, 1.0], 1.0: [-1.0, 1.0], 9.0: [-1.0, -1.0]}
    solvers = {
        limit: mapgrad.get_solver(plugin, PROBLEM, workers=workers, time_limit=limit, merge=False) for limit in signs
    }
    failures = []

    def work(limit):
        theta = torch.tensor([*signs[limit], 1.0, 1.0, 1.0, 1.0]).expand(60, 6)
        try:
            assert (solvers[limit](theta) == 0.5).all()
        except BaseException as error:  # noqa: BLE001 (told in the main thread)
            failures.append(error)

    callers = [threading.Thread(target=work, args=(limit,)) for limit in signs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures
    assert not wrong


# -- an executor that was shut down


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_was_shut_down_before_a_batch_fails_its_rows(kind):
    executor = kind(1)
    executor.shutdown()
    solver = mapgrad.get_solver(Best, PROBLEM, workers=executor)
    for call in (solver, solver.solve, mapgrad.MAPLayer(solver).eval()):
        with pytest.raises(mapgrad.MapgradError, match="It says: cannot schedule new futures") as caught:
            call(rows())
        assert caught.value.rows == tuple(range(8))
    with pytest.raises(mapgrad.MapgradError, match="It says: cannot schedule new futures") as caught:
        solver(rows(), problems=[PROBLEM, mapgrad.KSubset(6, 3)] * 4)
    assert caught.value.rows == tuple(range(8))
    solver.close()


def test_an_executor_that_is_shut_down_amid_a_batch_keeps_the_rows_that_are_done():
    class Ending(Best):
        def solve(self, state, theta, request):
            if theta[0] == np.abs(theta).max():
                executor.shutdown(wait=False, cancel_futures=True)
            return super().solve(state, theta, request)

    theta = rows(40)
    theta[:, 0] = 0.0
    theta[3, 0] = 9.0
    with ThreadPoolExecutor(1) as executor:
        solver = mapgrad.get_solver(Ending, PROBLEM, workers=executor, seconds=0.005)
        with pytest.raises(mapgrad.SolverCrashError) as caught:
            solver(theta)
    done = (caught.value.solutions.status == Status.OPTIMAL).nonzero().flatten().tolist()
    assert {0, 1, 2, 3} <= set(done)
    assert sorted([*done, *caught.value.rows]) == list(range(40))
    assert torch.equal(caught.value.solutions.z[done], right(theta[done]))


# -- copies


def copies(value):
    yield pickle.loads(pickle.dumps(value))
    yield copy.deepcopy(value)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    yield torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("own_workers", [None, 2, "processes:1"])
def test_copies_with_workers_of_their_own_work(own_workers):
    solver = mapgrad.get_solver("topk", PROBLEM, workers=own_workers)
    for twin in copies(solver):
        assert torch.equal(twin(rows()), right(rows()))
    for twin in copies(mapgrad.MAPLayer(solver).eval()):
        assert torch.equal(twin(rows()), right(rows()))


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("problem", [PROBLEM, None])
def test_pickling_a_solver_with_an_executor_says_what_to_do(kind, problem):
    with kind(1) as executor:
        solver = mapgrad.get_solver("topk", problem, workers=executor)
        for value in (solver, mapgrad.MAPLayer(solver), torch.nn.Sequential(mapgrad.MAPLayer(solver))):
            for save in (pickle.dumps, lambda each: torch.save(each, io.BytesIO())):
                with pytest.raises(TypeError, match=r"workers=.*Executor.*state_dict"):
                    save(value)
        torch.save(mapgrad.MAPLayer(solver).state_dict(), io.BytesIO())


def test_a_deep_copy_shares_the_given_executor():
    """As an exponential average of a model needs: the executor is the user's, and lives in this process."""
    with ThreadPoolExecutor(1) as executor:
        layer = mapgrad.MAPLayer(mapgrad.get_solver(Best, PROBLEM, workers=executor)).eval()
        twin, shallow = copy.deepcopy(layer), copy.copy(layer.solver)
        assert twin.solver is not layer.solver
        for each in (twin, layer, shallow):
            assert torch.equal(each(rows()), right(rows()))
        twin.solver.close()
        assert torch.equal(layer(rows()), right(rows()))


# -- names of plugins


class Plugin:
    @staticmethod
    @mapgrad.hookimpl
    def mapgrad_solvers():
        return [mapgrad.SolverSpec(name="best", factory=Best, accepts=(mapgrad.KSubset,))]


@pytest.mark.parametrize("name", ["", " ", ".", "a.b", "a b", "1st", "auto", "a:b", "ä", None, 1, b"name"], ids=repr)
def test_what_can_not_be_a_plugins_name_is_refused(name, monkeypatch):
    before = [each.name for each in mapgrad.list_solvers()]
    for blocked in ("", "x", ",", " , "):
        monkeypatch.setenv("MAPGRAD_BLOCK", blocked)
        with pytest.raises(mapgrad.PluginError, match="name"):
            mapgrad.register(Plugin, name)
    assert [each.name for each in mapgrad.list_solvers()] == before
    monkeypatch.delenv("MAPGRAD_BLOCK")
    mapgrad.register(Plugin, "best")
    try:
        assert torch.equal(mapgrad.get_solver("best", PROBLEM)(rows()), right(rows()))
    finally:
        mapgrad.unregister("best")
