"""The estimator `Exact`: the Gibbs law's mean, and the gradient of a loss of it."""

import pytest
import torch

import mapgrad
from mapgrad import exact
from mapgrad.gradients import Exact

PROBLEMS = [mapgrad.KSubset(6, 2), mapgrad.Assignment(3), mapgrad.SpanningTree(3, [(0, 1), (1, 2), (0, 2), (0, 1)])]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_the_oracle_s(problem, minimize, batch, dtype):
    generator = torch.Generator().manual_seed(0)
    theta, weights = torch.randn(2, *batch, *problem.shape, generator=generator, dtype=dtype)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), Exact(problem, temperature=0.7), minimize=minimize)

    def loss(means):
        return (weights * means.square()).sum()

    sign = -1 if minimize else 1
    leaf, truth = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    means, expected = layer(leaf), exact.marginals(problem, sign * truth, 0.7)
    torch.testing.assert_close(means, expected)
    loss(means).backward()
    loss(expected).backward()
    torch.testing.assert_close(leaf.grad, truth.grad)
    layer.eval()
    assert torch.equal(layer(theta), exact.map_state(problem, sign * theta))
    layer.train()
    layer(leaf).sum().mul(0).backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
def test_forbidden_entries_and_transforms():
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), Exact(problem))
    theta = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    theta[:, 3] = -torch.inf
    leaf = theta.clone().requires_grad_()
    layer(leaf)[:, 0].sum().backward()
    assert not leaf.grad[:, 3].any()
    finite = theta.nan_to_num(neginf=0.0)
    slope = torch.func.grad(lambda t: layer(t)[:, 0].sum())(finite)
    by_row = torch.func.vmap(torch.func.grad(lambda t: layer(t)[0]))(finite)
    torch.testing.assert_close(slope, by_row)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(finite), layer(finite))


def test_a_network_learns_through_it():
    problem = mapgrad.KSubset(8, 3)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), Exact(problem))
    theta = torch.zeros(8, requires_grad=True)
    goal = torch.tensor([0.0, 1, 0, 0, 1, 0, 1, 0])
    optimizer = torch.optim.Adam([theta], lr=0.1)
    losses = []
    for _ in range(100):
        loss = (layer(theta) - goal).square().sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.01 * losses[0]


def test_refusals():
    with pytest.raises(ValueError, match="temperature"):
        Exact(mapgrad.KSubset(3, 1), temperature=0.0)
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(3, 1))
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"take Exact\(solver\.problem\)"):
        mapgrad.MAPLayer(solver, Exact(mapgrad.KSubset(3, 2)))
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), Exact(mapgrad.KSubset(3, 2)))
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"take Exact\(solver\.problem\)"):
        layer(torch.zeros(1, 3), problems=[solver.problem])
    with pytest.raises(ValueError, match="isn't random, but 4 samples"):
        mapgrad.MAPLayer(solver, Exact(solver.problem)).distribution(torch.zeros(3)).sample((4,))
