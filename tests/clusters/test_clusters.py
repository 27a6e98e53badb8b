"""Rows on a Dask cluster and in Ray actors of this machine: the same answers, whatever happens to workers."""

import os
import signal
import sys
import threading
import time

import pytest
import torch

import mapgrad
from mapgrad import Status

PROBLEM = mapgrad.KSubset(9, 1)
SECONDS = 90.0


def rows(count, seed=0):
    return torch.rand(count, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_worst(theta, worst):
    """Put what a row asks of `Fragile` into its entries: its largest is 9."""
    theta = theta.clone()
    theta[:, 0], theta[:, 1] = 9.0, worst
    return theta


def best(theta):
    return torch.nn.functional.one_hot(theta.argmax(dim=-1), 9).to(theta)


def test_answers_are_the_same_as_inline_bit_for_bit(executor):
    problem = mapgrad.GridShortestPath(5, 6)
    theta = -torch.rand(3, 40, 5, 6, generator=torch.Generator().manual_seed(0))
    inline = mapgrad.get_solver("networkx.shortest_path", problem)
    with mapgrad.get_solver("networkx.shortest_path", problem, workers=executor) as solver:
        for _ in range(2):
            assert torch.equal(solver(theta), inline(theta))
        found, expected = solver.solve(theta), inline.solve(theta)
        assert torch.equal(found.objective, expected.objective)
        assert torch.equal(found.status, expected.status)
        gradients = []
        for each in (solver, inline):
            leaf = theta.clone().requires_grad_()
            layer = mapgrad.MAPLayer(each, mapgrad.IMLE(), seed=0)
            (layer(leaf) * torch.linspace(-1, 1, 30).reshape(5, 6)).sum().backward()
            gradients.append(leaf.grad)
        assert gradients[0].any()
        assert torch.equal(*gradients)


def test_problems_of_their_own(executor):
    problems = [mapgrad.KSubset(9, k) for k in (1, 2, 3)] * 4
    theta = rows(12)
    with mapgrad.get_solver("highs", None, workers=executor) as solver:
        assert solver(theta, problems=problems).sum(dim=1).tolist() == [problem.k for problem in problems]


def test_how_many_workers_there_are(executor):
    deadline = time.monotonic() + SECONDS
    while executor._max_workers < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert executor._max_workers == 2


def test_workers_keep_a_job_by_its_content(executor, fragile, tmp_path):
    theta = with_worst(rows(60), 0.0)
    solvers = [
        mapgrad.get_solver(fragile.Fragile, PROBLEM, workers=executor, merge=False, folder=str(tmp_path))
        for _ in range(3)
    ]
    for solver in solvers:
        assert torch.equal(solver(theta), best(theta))
    assert 1 <= len(list(tmp_path.iterdir())) <= 2


@pytest.mark.filterwarnings("ignore:.*no acceptable answer to 1 of 12 rows:UserWarning")
def test_a_row_that_hangs_misses_the_deadline_alone(executor, fragile):
    theta = with_worst(rows(12), 0.0)
    theta[5, 1] = -8.0
    with mapgrad.get_solver(fragile.Fragile, PROBLEM, workers=executor, on_error="nan", merge=False) as solver:
        assert torch.equal(solver(theta[:5]), best(theta[:5]))
        for _ in range(2):  # each time one of the workers
            began = time.monotonic()
            solutions = solver.solve(theta, deadline=2.0)
            assert time.monotonic() - began < 30
            assert solutions.status.tolist() == [1] * 5 + [Status.TIME_LIMIT] + [1] * 6
            assert "deadline of 2 s" in str(solutions.causes[5])
        began = time.monotonic()
        assert torch.equal(solver(theta[6:]), best(theta[6:]))
        assert time.monotonic() - began < 30


def test_a_row_that_kills_its_worker_costs_itself(executor, fragile):
    theta = with_worst(rows(60), 0.0)
    theta[33, 1] = -9.0
    with mapgrad.get_solver(fragile.Fragile, PROBLEM, workers=executor, on_error="nan", merge=False) as solver:
        assert torch.equal(solver(theta[:20]), best(theta[:20]))
        with pytest.warns(UserWarning, match="1 of 60 rows"):
            solutions = solver.solve(theta)
        assert (~solutions.mask).nonzero().flatten().tolist() == [33]
        assert torch.equal(solutions.z[solutions.mask], best(theta)[solutions.mask])
        assert torch.equal(solver(theta[:20]), best(theta[:20]))


def test_workers_that_are_killed_amid_a_batch_cost_nothing(executor, fragile, tmp_path):
    theta = with_worst(rows(250), -7.0)
    killed = []

    def kill():
        deadline = time.monotonic() + SECONDS
        while len(killed) < 2 and time.monotonic() < deadline:
            time.sleep(0.3)
            pids = {int(path.name.partition("-")[0]) for path in tmp_path.iterdir()} - {*killed}
            if pids:
                killed.append(pids.pop())
                os.kill(killed[-1], signal.SIGKILL)

    options = {"merge": False, "folder": str(tmp_path)}
    with mapgrad.get_solver(fragile.Fragile, PROBLEM, workers=executor, **options) as solver:
        killer = threading.Thread(target=kill)
        killer.start()
        z = solver(theta)
        assert killed
        killer.join()
        assert torch.equal(z, best(theta))


def test_a_class_of_the_users_script_goes_along(executor, fragile, monkeypatch):
    class Own(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            z = theta * 0.0
            z[theta.argmax()] = 1.0
            return z

    Own.__module__, Own.__qualname__ = "__main__", "Own"
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    with mapgrad.get_solver(Own, PROBLEM, workers=executor) as solver:
        assert torch.equal(solver(rows(5)), best(rows(5)))


def test_what_is_large_goes_whole(executor, fragile):
    problem = mapgrad.KSubset(200_000, 1)
    theta = torch.rand(4, 200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with mapgrad.get_solver(fragile.Fragile, problem, workers=executor) as solver:
        assert torch.equal(solver(theta).argmax(dim=1), theta.argmax(dim=1))


def test_a_training_run_ends_with_the_same_weights_as_inline(executor):
    def train(workers):
        solver = mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(3), workers=workers)
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=2), seed=3)
        weight, velocity = rows(4), torch.zeros(4, 9, dtype=torch.float64)
        for step in range(20):
            weight.requires_grad_()
            z = layer((rows(16, step)[:, :4] @ weight).reshape(16, 3, 3))
            (rows(16, 100 + step) * (z - 0.3).square().flatten(1)).sum().backward()
            velocity = 0.9 * velocity + weight.grad
            weight = (weight - 0.05 * velocity).detach()
        solver.close()
        return weight

    assert torch.equal(train(executor), train(None))
