"""The identity with projection: the transposed Jacobian of a projection that no answer sees."""

import math

import pytest
import torch

import mapgrad

PROBLEMS = [
    mapgrad.KSubset(5, 2),
    mapgrad.Assignment(3),
    mapgrad.Assignment(2, 4),
    mapgrad.Knapsack([[1, 2, 3, 2]], [4]),
    mapgrad.SpanningTree(4, [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]]),
]


def projected(problem, rows, projection):
    """The projection itself, by the span of the constant sums."""
    ndim = len(problem.shape)
    flat = rows.flatten(-ndim)
    if projection != "normalise":
        normals = []
        for axes in problem.constant_sums:
            others = [axis for axis in range(ndim) if axis not in axes]
            sizes = [problem.shape[axis] for axis in others]
            for number in range(math.prod(sizes)):
                place = torch.zeros(math.prod(sizes), dtype=rows.dtype)
                place[number] = 1
                shape = [problem.shape[axis] if axis in others else 1 for axis in range(ndim)]
                normals.append(place.reshape(shape).expand(problem.shape).flatten())
        if normals:
            basis = torch.stack(normals)
            flat = flat - flat @ basis.T @ torch.linalg.pinv(basis @ basis.T) @ basis
    if projection != "centre":
        flat = flat / flat.norm(dim=-1, keepdim=True)
    return flat.reshape(rows.shape)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("projection", ["centre", "normalise", "both"])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_gradient_is_that_of_the_projection(problem, projection, samples):
    noise = mapgrad.Gaussian() if samples > 1 else None
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("auto", problem), mapgrad.Identity(projection, noise, samples=samples), seed=3
    )
    theta = torch.randn(4, *problem.shape, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(4, *problem.shape, dtype=torch.float64)
    layer(theta).backward(slope)
    rows = mapgrad.MAPLayer(
        lambda rows: rows, mapgrad.StraightThrough(noise, samples=samples), reduction="none", seed=3
    )
    perturbed = rows(theta.detach()).detach() if samples > 1 else theta.detach()[None]
    again = theta.detach().clone().requires_grad_()
    shifted = again + (perturbed - theta.detach())
    projected(problem, shifted, projection).mean(dim=0).backward(slope)
    torch.testing.assert_close(theta.grad, again.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_what_is_projected_away_moves_no_answer(problem):
    theta = torch.randn(50, *problem.shape, dtype=torch.float64)
    solver = mapgrad.get_solver("auto", problem)
    for projection in ("centre", "normalise", "both"):
        assert torch.equal(solver(projected(problem, theta, projection)), solver(theta))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", ["zero", "tiny", "huge"])
def test_rows_of_any_size_have_a_finite_gradient(dtype, size):
    factor = {"zero": 0.0, "tiny": torch.finfo(dtype).tiny, "huge": torch.finfo(dtype).max / 8}[size]
    theta = (torch.tensor([[1.0, -0.5, 0.25, 2.0, 0.0]], dtype=dtype) * factor).requires_grad_()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEMS[0]), mapgrad.Identity("normalise"))
    layer(theta).backward(torch.tensor([[1e-3, 2e-3, 0.0, 0.0, -1e-3]], dtype=dtype))
    assert theta.grad.isfinite().all()
    if size == "zero":
        assert not theta.grad.any()


@pytest.mark.parametrize("projection", ["centre", "normalise", "both"])
def test_forbidden_entries_take_no_part(projection):
    problem = mapgrad.Assignment(3)
    theta = torch.randn(2, 3, 3, dtype=torch.float64)
    theta[0, 0, 1] = theta[0, 2, 0] = -torch.inf
    slope = torch.randn(2, 3, 3, dtype=torch.float64)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), mapgrad.Identity(projection))
    leaf = theta.clone().requires_grad_()
    layer(leaf).backward(slope)
    allowed = ~theta[0].isneginf()
    assert not leaf.grad[0][~allowed].any()
    if projection != "normalise":
        for dim in (0, 1):
            torch.testing.assert_close(leaf.grad.sum(dim=dim + 1), torch.zeros(2, 3, dtype=torch.float64))
    if projection != "centre":
        inner = (leaf.grad[0] * theta[0].masked_fill(~allowed, 0)).sum()
        assert abs(float(inner)) < 1e-9
    states = problem.states()[(problem.states()[:, ~allowed] == 0).all(dim=1)]
    directions = (states - states[0]).flatten(1)
    if projection == "centre":  # along differences of states it is ∂L/∂z
        lost = (slope[0].masked_fill(~allowed, 0) - leaf.grad[0]).flatten()
        torch.testing.assert_close(directions @ lost, torch.zeros(len(states), dtype=torch.float64))


def test_an_unknown_projection_is_refused():
    with pytest.raises(ValueError, match=r"one of 'centre', 'normalise', 'both', got 'center'"):
        mapgrad.Identity("center")
