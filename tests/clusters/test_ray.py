"""What only Ray has: names of numbers of actors, and actors that are ended when they hang."""

import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from importlib.util import find_spec

import pytest
import torch

import mapgrad

if find_spec("ray") is None:
    pytest.skip("ray isn't installed: pip install 'mapgrad[ray]'", allow_module_level=True)

from ray.exceptions import RayActorError

import mapgrad_ray

PROBLEM = mapgrad.Assignment(3)
NAME = "networkx.assignment"


def rows(count):
    return torch.rand(count, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def actor(local_ray):
    executor = mapgrad_ray.executor(1)
    yield executor
    executor.shutdown()


def test_by_a_number_of_actors(local_ray):
    """Of the Ray that is initialised, which stays so."""
    with mapgrad.get_solver(NAME, PROBLEM, workers="ray:1") as solver:
        for _ in range(2):
            assert torch.equal(solver(rows(20)), mapgrad.get_solver(NAME, PROBLEM)(rows(20)))
            solver.close()
    assert local_ray.is_initialized()


def test_a_number_is_needed():
    with pytest.raises(ValueError, match=r'expected a number of actors, as in "ray:8", got "ray:all"'):
        mapgrad.get_solver(NAME, PROBLEM, workers="ray:all")(rows(2))


def test_a_call_that_hangs_ends_with_its_actor_when_it_is_cancelled(actor):
    call = actor.submit(time.sleep, 100)
    later = actor.submit(int, "3")
    while not call.running():
        time.sleep(0.01)
    assert not call.cancel()
    assert later.result(60) == 3
    with pytest.raises(Exception, match="actor"):
        call.result(60)


def test_calls_that_wait_are_cancelled_and_errors_come_back(actor):
    first, second = actor.submit(time.sleep, 0.5), actor.submit(int, "3")
    assert second.cancel()
    assert first.result(60) is None
    with pytest.raises(ValueError, match="invalid literal"):
        actor.submit(int, "three").result(60)


def test_what_was_shut_down_takes_no_rows(local_ray):
    executor = mapgrad_ray.executor(1)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(mapgrad.MapgradError, match="is it shut down"):
        mapgrad.get_solver(NAME, PROBLEM, workers=executor)(rows(2))


def test_what_ray_has_of_its_own_is_told_what_to_write(local_ray):
    from ray.util import ActorPool

    for handle in (local_ray, ActorPool([]), local_ray.put(1)):
        with pytest.raises(TypeError, match=r'got .*; there are .*"ray:8" \(installed\)'):
            mapgrad.get_solver(NAME, PROBLEM, workers=handle)


ENDS = """
import atexit
import sys
import time

import torch

import mapgrad

solver = mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(3), workers="ray:1")
if sys.argv[1] == "hangs":
    import mapgrad_ray

    atexit.register(lambda: executor.shutdown())  # after Ray, which registers its own end later
    executor = mapgrad_ray.executor(1, num_cpus=0)  # a cluster that runs already may have none left
    executor.submit(time.sleep, 1000)
print(solver(torch.eye(3)).sum().item())
sys.exit(7)
"""


@pytest.mark.parametrize("how", ["idle", "hangs"])
def test_a_program_may_end_without_closing_its_solvers(how):
    """Ray, which has ended by then, isn't started again, and isn't waited for."""
    run = subprocess.run([sys.executable, "-c", ENDS, how], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (7, "3.0\n"), run.stderr
    assert "Traceback" not in run.stderr


ALONE = """
from functools import cache

from ray._private import services

services.find_gcs_addresses = cache(set)  # as if no Ray ran on this machine
"""

SHUT_DOWN = """
import sys
import threading
import time

import ray
import torch

import mapgrad
from cluster_solvers import Fragile

options = {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False}
ray.init(address="local", **options)
solver = mapgrad.get_solver(Fragile, mapgrad.KSubset(9, 1), workers="ray:1", on_error="nan", merge=False)
rows = torch.eye(9)
assert torch.equal(solver(rows), rows)
slow = torch.eye(9).repeat(40, 1) - 0.78 * torch.eye(9).roll(1, 0).repeat(40, 1)
assert torch.equal(solver(slow[:9]), rows)
timer = threading.Timer(1.0, ray.shutdown)
timer.start()
began = time.monotonic()
solutions = solver.solve(slow)
seconds = time.monotonic() - began
timer.join()
errors = {str(error) for error in solutions.causes.values()}
print(0 < int(solutions.mask.sum()) < len(slow), seconds < 20, ray.is_initialized(), errors)
ray.init(address="local", **options)
print(torch.equal(solver(rows), rows))
ray.shutdown()
print(torch.equal(solver(rows), rows), threading.active_count() < 10)
solver.close()
print(ray.is_initialized())
"""


def test_the_program_shuts_ray_down_amid_a_call_and_before_one(fragile):
    """Nobody waits for ever, Ray isn't started behind the program's back, and the next call has actors again."""
    run = subprocess.run([sys.executable, "-c", ALONE + SHUT_DOWN], capture_output=True, text=True, timeout=120)
    lost = "{'Ray was shut down, and the actors of this executor with it'}"
    assert run.stdout.splitlines() == [f"True True False {lost}", "True", "True True", "False"], run.stderr
    assert "Traceback" not in run.stderr


THREADS = """
import threading
import time

import ray
import torch

import mapgrad
from cluster_solvers import Fragile

rows = torch.eye(9)
slow = rows.repeat(12, 1) - 0.78 * rows.roll(1, 0).repeat(12, 1)
solvers = [mapgrad.get_solver(Fragile, mapgrad.KSubset(9, 1), workers="ray:1", merge=False) for _ in range(2)]
found = []
threads = [threading.Thread(target=lambda each=each: found.append(each(rows))) for each in solvers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([torch.equal(z, rows) for z in found])
timer = threading.Timer(0.5, solvers[0].close)
timer.start()
print(torch.equal(solvers[1](slow), rows.repeat(12, 1)))
timer.join()
solvers[1].close()
print(ray.is_initialized())
"""


def test_two_solvers_start_ray_in_threads_that_end(fragile):
    """Both find it there, it outlives the threads, and it is shut down by who is closed last."""
    run = subprocess.run([sys.executable, "-c", ALONE + THREADS], capture_output=True, text=True, timeout=120)
    assert run.stdout.splitlines() == ["[True, True]", "True", "False"], run.stderr


def test_calls_fail_once_all_actors_are_lost_for_good(local_ray):
    executor = mapgrad_ray.executor(2)
    try:
        assert executor.submit(int, "3").result(60) == 3
        calls = [executor.submit(time.sleep, 100) for _ in range(3)]
        for actor in executor._actors:
            local_ray.kill(actor)
        for call in calls:
            with pytest.raises(RayActorError):
                call.result(60)
        with pytest.raises(BrokenExecutor, match="this executor takes no calls: its Ray actors are lost for good"):
            executor.submit(int, "3")
    finally:
        executor.shutdown()


def test_actors_without_room_are_told_of_once(local_ray, monkeypatch, caplog):
    monkeypatch.setattr("mapgrad_ray._executor._LONG", 0.6)
    executor = mapgrad_ray.executor(2, resources={"none of it": 1})
    call = executor.submit(int, "3")
    with pytest.raises(TimeoutError):
        call.result(2)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "none of 2 Ray actors has started within 0.6 s, so that rows wait: has the cluster room for them? Each needs "
        "{'num_cpus': 1, 'resources': {'none of it': 1}}, and "
    )
    call.cancel()
    executor.shutdown()
