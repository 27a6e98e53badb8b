"""Whole training runs with faults in them end where undisturbed runs do, bit for bit, and leave nothing behind."""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import mapgrad

if sys.platform != "linux":
    pytest.skip("looks into /proc", allow_module_level=True)

STEPS, ROWS, SIZE = 16, 8, 6
PROBLEM = mapgrad.KSubset(SIZE + 1, 2)
"""The last entry is one that only rows at fault choose."""

MODULE = """
import ctypes
import hashlib
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

import mapgrad


class Picks(mapgrad.InstanceSolver):
    \"\"\"The k largest entries; a fault where the last one is among them.\"\"\"

    def __init__(self, problem, fault="none", folder="", seconds=0.0):
        super().__init__(problem)
        self.fault, self.folder, self.seconds = fault, folder, seconds

    def solve(self, state, theta, request):
        time.sleep(self.seconds)
        z = np.zeros(theta.shape)
        z[np.argsort(theta)[-self.problem.k :]] = 1
        if z[-1]:
            getattr(self, self.fault)(theta)
        return z

    def none(self, theta):
        pass

    def segfaults(self, theta):
        ctypes.string_at(0)

    def exits(self, theta):
        os._exit(3)

    def wants_memory(self, theta):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), most))
        np.ones(1 << 30)

    def waits_to_be_killed(self, theta):
        \"\"\"Tell this process's number, and wait for its end; answer when the row comes for the second time.\"\"\"
        tried = Path(self.folder, hashlib.sha256(theta.tobytes()).hexdigest())
        if not tried.exists():
            tried.touch()
            part = tried.with_suffix(".part")
            part.write_text(str(os.getpid()))
            part.rename(tried.with_suffix(".pid"))
            time.sleep(20)


def refuse(event, arguments):
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "os.mkdir" or (event == "open" and arguments[2] & writes):
        folder, _, name = str(arguments[0]).rpartition("/")
        if folder != os.environ["DISK_IS_FULL_BUT"] and not folder.startswith(("/dev", "/proc/")):
            raise OSError(28, "No space left on device")


if "DISK_IS_FULL_BUT" in os.environ:
    sys.addaudithook(refuse)
"""

IDS = torch.arange(ROWS) * 11
SICK = {4: [2], 8: [0, 5], 13: [7]}
"""Rows at fault, by their step."""
WELL: dict[int, list[int]] = {}


@pytest.fixture(scope="module")
def solvers(import_source):
    return import_source("training_solvers", MODULE)


@pytest.fixture(scope="module")
def crew(solvers):
    workers = mapgrad.Workers("processes:2")
    yield workers
    workers.close()


@pytest.fixture
def layer_of(solvers, crew):
    """Return a function that makes a layer whose solver has a fault, in worker processes unless others are given."""

    def make(fault="none", on_error="raise", workers=crew, **options):
        solver = mapgrad.get_solver(solvers.Picks, PROBLEM, workers=workers, on_error=on_error, fault=fault, **options)
        return mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), samples=2), seed=3)

    return make


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS = drawn(STEPS, ROWS, 4, seed=0)


def train(layer, sick=WELL, left_out=WELL, *, before=lambda step: None, ask=None, batches=INPUTS):
    """Train a linear network through a layer, and return its weights as one vector.

    Args:
        layer: The layer.
        sick: Rows whose last entry is the largest.
        left_out: Rows that the loss doesn't count, beside those that failed.
        before: Called before each step with its number.
        ask: Takes θ and the step's number in place of the layer, and returns z and which rows have one.
        batches: Inputs, [ROWS, 4] a step.
    """

    def forward(theta, step):
        return layer(theta, rows=IDS), layer.last.mask

    network = torch.nn.Linear(4, SIZE, bias=False)
    with torch.no_grad():
        network.weight.copy_(drawn(SIZE, 4, seed=1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    weight = drawn(ROWS, SIZE, seed=2)
    for step, x in enumerate(batches):
        before(step)
        last = torch.full((ROWS, 1), -50.0)
        last[sick.get(step, [])] = 50.0
        z, mask = (ask or forward)(torch.cat([network(x), last], dim=1), step)
        mask = mask.clone()
        mask[left_out.get(step, [])] = False
        loss = ((z[mask, :SIZE] - 0.4) * weight[mask]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.weight.detach().clone()


@pytest.fixture(scope="module")
def undisturbed(solvers):
    """The weights of runs without faults: with all rows well, with those at fault answered, and with them left out."""
    runs = {}
    for name, rows in {"well": (WELL, WELL), "answered": (SICK, WELL), "left out": (SICK, SICK)}.items():
        solver = mapgrad.get_solver("topk", PROBLEM)
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), samples=2), seed=3)
        runs[name] = train(layer, *rows)
    assert len({tuple(weights.flatten().tolist()) for weights in runs.values()}) == 3
    return runs


def quiet(call, *arguments, **named):
    """Call something whose first failing rows warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* has no acceptable answer")
        return call(*arguments, **named)


# -- rows at fault


@pytest.mark.parametrize(
    ("fault", "policy"),
    [("segfaults", "nan"), ("segfaults", "zero_grad"), ("exits", "nan"), ("wants_memory", "zero_grad")],
)
def test_rows_at_fault_are_as_if_they_were_left_out(fault, policy, layer_of, undisturbed):
    layer = layer_of(fault, policy)
    assert torch.equal(quiet(train, layer, SICK), undisturbed["left out"])
    assert layer.stats["unsolved"] == sum(map(len, SICK.values()))


@pytest.mark.parametrize("fault", ["segfaults", "wants_memory"])
def test_with_a_fallback_the_run_is_what_it_would_have_been(fault, layer_of, undisturbed):
    layer = layer_of(fault, "fallback:topk")
    assert torch.equal(quiet(train, layer, SICK), undisturbed["answered"])
    assert layer.stats["fallback"] > 2 * sum(map(len, SICK.values()))  # of two samples each, and in the backward pass


@pytest.mark.parametrize("policy", ["raise", "incumbent"])
def test_a_run_that_catches_the_error_goes_on_without_the_rows(policy, layer_of):
    """The call that raised was a step of the noise, as one that is thrown away is."""

    def run(layer, call):
        lost = {}

        def ask(theta, step):
            keep = torch.ones(ROWS, dtype=torch.bool)
            z, rows = call(layer, theta, step)
            if rows:
                lost[step] = rows
                keep[rows] = False
                z = torch.zeros_like(theta).masked_scatter(keep[:, None], layer(theta[keep], rows=IDS[keep]))
            return z, keep

        weights = train(layer, SICK, ask=ask)
        assert lost == SICK
        return weights

    def careful(layer, theta, step):
        try:
            return layer(theta, rows=IDS), []
        except mapgrad.SolverCrashError as error:
            return None, [*error.rows]

    def wasteful(layer, theta, step):
        return layer(theta, rows=IDS), SICK.get(step, [])

    assert torch.equal(run(layer_of("segfaults", policy), careful), run(layer_of("none"), wasteful))


def test_workers_that_are_killed_amid_batches_change_nothing(layer_of, undisturbed, tmp_path):
    over, killed = threading.Event(), []

    def kill():
        while not over.wait(0.002):
            for path in tmp_path.glob("*.pid"):
                killed.append(int(path.read_text()))
                path.unlink()
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        weights = train(layer_of("waits_to_be_killed", folder=str(tmp_path)), SICK)
    finally:
        over.set()
        killer.join()
    assert torch.equal(weights, undisturbed["answered"])
    assert len(killed) > 2 * sum(map(len, SICK.values()))


def test_all_workers_killed_at_once_with_the_process_that_forks_them(layer_of, undisturbed):
    def kill():
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
                if parent == os.getpid() and "serve_forks" in path.with_name("cmdline").read_text():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    killed.append(path)

    def before(step):
        if step in (5, 10):
            timers.append(threading.Timer(0.005, kill))
            timers[-1].start()

    killed, timers = [], []
    assert torch.equal(train(layer_of(seconds=0.002), before=before), undisturbed["well"])
    for timer in timers:
        timer.join()
    assert len(killed) == 2


def test_workers_that_are_replaced_change_nothing(layer_of, undisturbed):
    workers = mapgrad.Workers("processes:2", solves=9)
    assert torch.equal(train(layer_of(workers=workers)), undisturbed["well"])
    workers.close()


# -- who else is there


def test_a_layer_is_none_the_worse_for_another_one_on_its_workers(layer_of, undisturbed):
    weights = {}

    def run(fault, policy):
        weights[fault] = train(layer_of(fault, policy), SICK)

    runs = [threading.Thread(target=run, args=each) for each in (("segfaults", "zero_grad"), ("none", "raise"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in runs:
            each.start()
        for each in runs:
            each.join()
    assert torch.equal(weights["none"], undisturbed["answered"])
    assert torch.equal(weights["segfaults"], undisturbed["left out"])


def test_a_data_loader_that_was_forked_while_the_workers_were_warm(layer_of, undisturbed):
    """Its processes live on while workers die, whose end nobody may miss."""
    layer = layer_of("exits", "zero_grad")
    quiet(train, layer_of("exits", "zero_grad"), SICK)
    dataset = torch.utils.data.TensorDataset(INPUTS.flatten(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks while threads run, of more workers than cores, of rows that failed
        loader = torch.utils.data.DataLoader(
            dataset, ROWS, num_workers=2, multiprocessing_context="fork", persistent_workers=True, timeout=60
        )
        weights = train(layer, SICK, batches=(x for (x,) in loader))
    assert torch.equal(weights, undisturbed["left out"])


def test_a_run_goes_on_in_a_child_and_in_its_parent(layer_of, undisturbed, in_child):
    layer = layer_of()

    def child():
        assert torch.equal(train(layer_of()), undisturbed["well"])

    def before(step):
        if step in (0, 10):
            in_child(child)

    assert torch.equal(train(layer, before=before), undisturbed["well"])
    layer.keys.step = 0
    in_child(lambda: torch.testing.assert_close(train(layer), undisturbed["well"], rtol=0, atol=0))


def test_close_while_another_thread_trains(layer_of, undisturbed):
    workers = mapgrad.Workers("processes:2")
    layer = layer_of(workers=workers)
    over = threading.Event()

    def close():
        while not over.wait(0.01):
            workers.close()
            layer.solver.close()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        assert torch.equal(train(layer), undisturbed["well"])
    finally:
        over.set()
        closer.join()


def test_a_folder_that_is_gone(layer_of, undisturbed, tmp_path, monkeypatch):
    gone = tmp_path / "job"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    workers = mapgrad.Workers("processes:2")
    assert torch.equal(train(layer_of(workers=workers)), undisturbed["well"])
    workers.close()


def test_a_step_without_memory_to_share_costs_itself(layer_of, undisturbed, in_child):
    workers = mapgrad.Workers("processes:2")
    layer = layer_of(on_error="zero_grad", workers=workers)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def before(step):
        if step == 5:
            workers.close()  # and with it the memory that is there
        resource.setrlimit(resource.RLIMIT_FSIZE, (0 if step == 5 else most, most))

    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        weights = quiet(train, layer, before=before)
        assert layer.stats["unsolved"] == ROWS
        assert torch.equal(weights, train(layer_of(), left_out={5: range(ROWS)}))

    in_child(child)


# -- programs that end early

RUN = """
import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

import mapgrad
import training_solvers
from mapgrad import disk_cache

os.setsid()
folder, end = Path(sys.argv[1]), json.loads(sys.argv[2])
disk_cache.save("runs", "key", {"value": 1})  # as diagrams and data sets are kept, where there is room
(folder / "pid").write_text(str(os.getpid()))
is_told = threading.Event()


def leave(number, frame):
    sys.exit(128 + number)


handlers = {"none": signal.SIG_DFL, "leaves": leave, "saves": lambda *_: is_told.set()}
if end["signal"] != signal.SIGKILL:
    signal.signal(end["signal"], handlers[end["handler"]])
PROBLEM = mapgrad.KSubset(6, 2)
workers = mapgrad.Workers("processes:2")
layers = torch.nn.ModuleList(
    [
        mapgrad.MAPLayer(mapgrad.get_solver(training_solvers.Picks, PROBLEM, workers=workers, seconds=0.002)),
        mapgrad.MAPLayer(mapgrad.get_solver("pulp.cbc", PROBLEM, workers=2), mapgrad.IMLE(None)),
        mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM), mapgrad.AdaptiveIMLE(step=0.1)),
    ]
)
mapgrad.seed_layers(layers, 0)
torch.manual_seed(0)
network = torch.nn.Linear(4, 6, bias=False)
momentum = torch.zeros(6, 4)  # by hand, as torch.optim takes two seconds to import
first = 0
if (folder / "checkpoint.pt").exists():
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    network.load_state_dict(saved["network"])
    layers.load_state_dict(saved["layers"])
    momentum = saved["momentum"]
    first = saved["step"]
send = os.killpg if end["to"] == "group" else os.kill
timer = threading.Timer(end["delay"], send, (os.getpid(), end["signal"]))
for step in range(first, STEPS):
    if step >= end["step"] and timer.ident is None:
        timer.start()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    theta = network(x)
    loss = sum(
        ((layer(part) - 0.4) * torch.linspace(-1, 2, 6)).square().sum()
        for layer, part in zip(layers, (theta, theta[:1], theta), strict=True)
    )
    network.zero_grad()
    loss.backward()
    momentum = 0.9 * momentum + network.weight.grad
    with torch.no_grad():
        network.weight -= 0.05 * momentum
    saved = {"network": network.state_dict(), "layers": layers.state_dict(), "momentum": momentum}
    torch.save(saved | {"step": step + 1}, folder / "part.pt")
    (folder / "part.pt").replace(folder / "checkpoint.pt")
    if is_told.is_set():
        sys.exit(77)
if end["step"] < STEPS:
    if timer.ident is None:
        timer.start()
    timer.join()
    is_told.wait(60)
    sys.exit(77)
"""
NEVER = {"step": 1000, "delay": 0.0, "signal": signal.SIGTERM, "handler": "none", "to": "self", "code": 0}


def ends(seed, *kinds):
    """Return random moments of a run, in order: a step each, and how many seconds after it begins."""
    draw = random.Random(seed)
    steps = sorted(draw.randrange(STEPS - 3) for _ in kinds)
    return [
        NEVER | kind | {"step": step, "delay": draw.uniform(0, 0.1)} for step, kind in zip(steps, kinds, strict=True)
    ]


def session_of(leader):
    """Return the processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *_ = path.read_text().rsplit(")", 1)[1].split()
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def last_checkpoint(run_program, solvers, tmp_path_factory):
    """Return a function from the ends that a run comes to before it is through to its last checkpoint.

    After each of them nothing may be left: no process, no temporary file, and no memory that has a name.
    """

    def run(ends, *, is_full=False):
        pytest.importorskip("pulp")
        folder = tmp_path_factory.mktemp("run")
        (folder / "temporary").mkdir()
        environment = {"TMPDIR": str(folder / "temporary"), "MAPGRAD_CACHE_DIR": str(folder / "cache")}
        if is_full:
            environment["DISK_IS_FULL_BUT"] = str(folder)
        for end in (*ends, NEVER):
            memory = {*Path("/dev/shm").iterdir()}
            done = run_program(
                RUN.replace("STEPS", str(STEPS)),
                folder,
                json.dumps(end),
                paths=[Path(solvers.__file__).parent],
                environment=environment,
            )
            assert done.returncode == end["code"], done.stderr
            leader = int((folder / "pid").read_text())
            deadline = time.monotonic() + 10
            while left := session_of(leader):
                assert time.monotonic() < deadline, left
                time.sleep(0.01)
            assert not [*(folder / "temporary").iterdir()]
            assert not [path for path in {*Path("/dev/shm").iterdir()} - memory if "mapgrad" in path.name]
        assert (folder / "cache").exists() != is_full
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    return run


@pytest.fixture(scope="module")
def uninterrupted(last_checkpoint):
    return last_checkpoint([])


KILL = {"signal": signal.SIGKILL, "code": -signal.SIGKILL}
TERMINATE = [
    {"code": -signal.SIGTERM},
    {"handler": "leaves", "code": 128 + signal.SIGTERM},
    {"handler": "saves", "to": "group", "code": 77},
]
ENDS = {"SIGTERM": ends(0, *TERMINATE), "SIGKILL": ends(1, KILL, KILL), "twenty SIGKILL": ends(2, *[KILL] * 20)}
EACH = [pytest.param(each, id=name, marks=[pytest.mark.slow] * (len(each) > 3)) for name, each in ENDS.items()]


def assert_same(found, expected):
    assert found["step"] == expected["step"] == STEPS
    for name in ("network", "layers"):
        assert found[name].keys() == expected[name].keys()
        for key, value in expected[name].items():
            assert torch.equal(found[name][key], value), key


@pytest.mark.parametrize("ends", EACH)
def test_a_run_that_ends_early_leaves_nothing_and_goes_on_from_its_checkpoint(ends, last_checkpoint, uninterrupted):
    assert_same(last_checkpoint(ends), uninterrupted)


def test_a_run_needs_no_room_on_the_disk(last_checkpoint, uninterrupted):
    """But for its checkpoints."""
    assert_same(last_checkpoint([], is_full=True), uninterrupted)
