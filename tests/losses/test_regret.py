"""Regret as functions and as a metric over batches and ranks."""

import copy
import pickle

import pytest
import torch
from torch import distributed

import mapgrad
import mapgrad.losses


@pytest.mark.parametrize("minimize", [False, True])
def test_regret_by_enumeration(case, draw, values, batch, minimize):
    sign = -1 if minimize else 1
    pred, true = draw(*batch, *case.problem.shape), draw(*batch, *case.problem.shape, seed=1)
    worth = values(case.states, true)
    chosen = values(case.states, sign * pred).argmax(-1, keepdim=True)
    best = (sign * worth).amax(-1) * sign
    expected = sign * (best - worth.gather(-1, chosen).squeeze(-1))
    found = mapgrad.losses.regret(case.solver, pred.requires_grad_(), true, minimize=minimize)
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    z_true = case.solver(sign * true)
    again = mapgrad.losses.regret(case.solver, pred, true, z_true, minimize=minimize)
    torch.testing.assert_close(again, expected)
    normalized = mapgrad.losses.normalized_regret(case.solver, pred, true, minimize=minimize)
    torch.testing.assert_close(normalized, expected.sum() / best.abs().sum())


@pytest.fixture
def solver():
    return mapgrad.get_solver("topk", mapgrad.KSubset(6, 2))


def test_a_metric_accumulates(solver, draw):
    pred, true = draw(10, 6), draw(10, 6, seed=1)
    metric, mean = mapgrad.losses.Regret(solver), mapgrad.losses.Regret(solver, normalize=False)
    assert metric.compute().isnan()
    for start, stop in ((0, 4), (4, 5), (5, 5), (5, 10)):
        for each in (metric, mean):
            each.update(pred[start:stop], true[start:stop])
    torch.testing.assert_close(metric.compute(), mapgrad.losses.normalized_regret(solver, pred, true))
    torch.testing.assert_close(mean.compute(), mapgrad.losses.regret(solver, pred, true).mean())
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.compute() == metric.compute()
    saved = mapgrad.losses.Regret(solver)
    saved.load_state_dict(metric.state_dict())
    assert saved.compute() == metric.compute()
    for wrong in ({}, {"totals": torch.zeros(2)}, {"totals": [0.0, 0.0, 0.0]}):
        with pytest.raises(
            ValueError, match=r"a saved Regret has its sums, a real tensor of shape \(3,\), as 'totals'"
        ):
            saved.load_state_dict(wrong)
    metric.reset()
    assert metric.compute().isnan()
    assert not saved.compute().isnan()


def test_a_batch_that_fails_leaves_nothing(solver, draw):
    metric = mapgrad.losses.Regret(solver)
    metric.update(draw(3, 6), draw(3, 6, seed=1))
    before = metric.compute()
    pred = draw(3, 6)
    pred[1] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError) as caught:
        metric.update(pred, draw(3, 6, seed=1))
    assert caught.value.rows == (1,)
    with pytest.raises(mapgrad.ShapeError, match="prediction's shape"):
        metric.update(draw(3, 6), draw(6))
    assert metric.compute() == before


def test_predictions_are_solved_as_in_use_and_true_costs_exactly(draw):
    with mapgrad.get_solver("networkx.shortest_path", mapgrad.GridShortestPath(3, 3)) as solver:
        pred, true = draw(4, 3, 3), draw(4, 3, 3, seed=1).abs()
        found = mapgrad.losses.regret(solver, pred, true, minimize=True)
        assert torch.equal(found, mapgrad.losses.regret(solver, pred.clamp(min=0), true, minimize=True))
        with pytest.raises(mapgrad.DomainError):
            mapgrad.losses.regret(solver, pred, -true, minimize=True)


@pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="torch.distributed has no gloo here"
)
def test_a_metric_over_two_ranks(run_program, tmp_path, solver, draw):
    program = """
import os, sys
import torch
from torch import distributed
import mapgrad
import mapgrad.losses

folder, other = sys.argv[1], os.fork()
rank = int(other == 0)
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
pred, true = torch.load(f"{folder}/rows.pt")
metric = mapgrad.losses.Regret(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)))
if rank == 0:  # the other has no rows at all
    metric.update(pred[:4], true[:4])
    first = metric.compute()
    metric.update(pred[4:], true[4:])
else:
    first = metric.compute()
torch.save((first, metric.compute(), metric.compute()), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
sys.exit(0 if rank else os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""
    pred, true = draw(10, 6), draw(10, 6, seed=1)
    torch.save((pred, true), tmp_path / "rows.pt")
    done = run_program(program, tmp_path)
    assert done.returncode == 0, done.stderr
    whole = mapgrad.losses.normalized_regret(solver, pred, true)
    part = mapgrad.losses.normalized_regret(solver, pred[:4], true[:4])
    for rank in range(2):
        torch.testing.assert_close(torch.stack(torch.load(tmp_path / f"{rank}.pt")), torch.stack((part, whole, whole)))
