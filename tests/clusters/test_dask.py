"""What only a Dask cluster has: clients, a number of workers that changes, and tasks that use their own cluster."""

import asyncio
import os
import threading
import time
from importlib.util import find_spec

import pytest
import torch

import mapgrad

if find_spec("distributed") is None:
    pytest.skip("distributed isn't installed: pip install 'mapgrad[dask]'", allow_module_level=True)

import dask.config
from distributed import Client, KilledWorker, LocalCluster

import mapgrad_dask

PROBLEM = mapgrad.Assignment(3)
NAME = "networkx.assignment"


def rows(count):
    return torch.rand(count, 3, 3, generator=torch.Generator().manual_seed(0))


def expected(count):
    return mapgrad.get_solver(NAME, PROBLEM)(rows(count))


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


def test_by_address(cluster):
    name = f"dask:{cluster.scheduler_address}"
    with mapgrad.get_solver(NAME, PROBLEM, workers=name) as solver:
        assert torch.equal(solver(rows(20)), expected(20))
        solver.close()
        assert torch.equal(solver(rows(20)), expected(20))
    with Client(cluster, set_as_default=False) as client:
        assert client.submit(int, "3").result() == 3


def test_the_scheduler_says_how_many_workers_there_are(cluster):
    with Client(cluster, set_as_default=False) as client:
        executor = mapgrad_dask.executor(client)
        workers = mapgrad.Workers(executor)
        assert workers.count == 1
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        time.sleep(1.1)
        assert workers.count == 2
        with mapgrad.get_solver(NAME, PROBLEM, workers=workers) as solver:
            assert torch.equal(solver(rows(20)), expected(20))
        executor.shutdown()
        assert client.submit(int, "3").result() == 3


def test_dasks_own_executor(cluster):
    with Client(cluster, set_as_default=False) as client, client.get_executor(pure=False) as executor:
        solver = mapgrad.get_solver(NAME, PROBLEM, workers=executor)
        assert torch.equal(solver(rows(20)), expected(20))
        assert torch.equal(solver(rows(20), deadline=60.0), expected(20))


def test_a_task_may_use_its_own_cluster(fragile):
    theta = torch.rand(20, 9, generator=torch.Generator().manual_seed(0))
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    for processes in (True, False):
        with (
            LocalCluster(processes=processes, **options) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            found = client.submit(fragile.largest, theta, pure=False).result(60)
            assert torch.equal(found.argmax(dim=1), theta.argmax(dim=1))


def test_by_a_number_of_processes():
    workers = mapgrad.Workers("dask:1")
    with mapgrad.get_solver(NAME, PROBLEM, workers=workers) as solver:
        assert torch.equal(solver(rows(20)), expected(20))
    workers.close()
    assert dask.config.get("distributed.scheduler.allowed-failures") == 3


def test_workers_are_started_anew_however_many_have_died():
    executor = mapgrad_dask.executor(1)
    try:
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}):
            for _ in range(2):
                assert executor.submit(os._exit, 3).exception(20) is not None
            assert executor.submit(int, "3").result(20) == 3
    finally:
        executor.shutdown(wait=False)


def test_an_answer_that_died_with_its_worker_fails_its_call(cluster, monkeypatch):
    async def gather(client, *args, **kwargs):
        raise KilledWorker("int", None, 0)

    with Client(cluster, set_as_default=False) as client:
        monkeypatch.setattr(Client, "_gather", gather)
        executor = mapgrad_dask.executor(client)
        assert isinstance(executor.submit(int, "3").exception(20), KilledWorker)
        executor.shutdown(wait=False)


def test_where_nobody_listens():
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        solver = mapgrad.get_solver(NAME, PROBLEM, workers="dask:tcp://127.0.0.1:9")
        with pytest.raises(mapgrad.PluginError, match=r"dask \(mapgrad .*\) can't be started: that raised OSError"):
            solver(rows(2))
    with pytest.raises(ValueError, match=r'expected a number of processes or a scheduler\'s address.*got "dask:four"'):
        mapgrad.get_solver(NAME, PROBLEM, workers="dask:four")(rows(2))


def test_a_client_is_taken_as_it_is_and_stays_open(cluster):
    with Client(cluster, set_as_default=False) as client:
        workers = mapgrad.Workers(client)
        with mapgrad.get_solver(NAME, PROBLEM, workers=workers) as solver:
            assert torch.equal(solver(rows(20)), expected(20))
            assert workers.count == sum(client.nthreads().values())
        workers.close()
        solver = mapgrad.get_solver(NAME, PROBLEM, workers=client)
        for _ in range(2):
            assert torch.equal(solver(rows(20)), expected(20))
            solver.close()
        assert client.submit(int, "3").result() == 3


def test_a_cluster_that_is_closed_and_comes_back(fragile):
    """A call amid which its scheduler goes for good ends, and the next one has a new client."""
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    theta = torch.eye(9).repeat(30, 1) - 0.78 * torch.eye(9).roll(1, 0).repeat(30, 1)
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        cluster = LocalCluster(**options)
        name = f"dask:{cluster.scheduler_address}"
        solver = mapgrad.get_solver(fragile.Fragile, mapgrad.KSubset(9, 1), workers=name, merge=False, on_error="nan")
        assert torch.equal(solver(torch.eye(9)), torch.eye(9))
        timer = threading.Timer(0.5, cluster.close)
        timer.start()
        with pytest.warns(UserWarning, match="rows"):
            solutions = solver.solve(theta)
        timer.join()
        assert "the Dask client is closed, or has lost its scheduler for good" in str(solutions.causes[269])
        with LocalCluster(scheduler_port=int(name.rpartition(":")[2]), **options):
            assert torch.equal(solver(torch.eye(9)), torch.eye(9))
            solver.close()


def test_a_client_that_does_not_wait_is_refused(cluster):
    async def ask():
        async with Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(ValueError, match="expected a client that waits for answers"):
                mapgrad.get_solver(NAME, PROBLEM, workers=client)(rows(2))

    asyncio.run(ask())


def test_what_is_no_client_is_told_what_to_write(cluster):
    with pytest.raises(TypeError, match=r'got LocalCluster\(.*; there are .*"dask:tcp://host:port" or a .*Client'):
        mapgrad.get_solver(NAME, PROBLEM, workers=cluster)
