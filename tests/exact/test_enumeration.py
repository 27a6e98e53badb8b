import itertools
import math

import numpy as np
import pytest
import torch

from mapgrad import (
    Assignment,
    GridShortestPath,
    IntegerProgram,
    KSubset,
    NonFiniteError,
    ProblemError,
    Ranking,
    ShapeError,
    SpanningTree,
    exact,
)

TRIANGLE = SpanningTree(3, [(0, 1), (1, 2), (0, 2)])
PROBLEMS = [KSubset(5, 2), Ranking(4), Assignment(3), GridShortestPath(2, 3), TRIANGLE]


def random_theta(problem, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *problem.shape, generator=generator, dtype=torch.float64)


def by_hand(problem, theta, temperature=1.0):
    """Weights and states, one by one, in plain Python."""
    states = problem.states()
    weights = [math.exp(float((theta * z).sum()) / temperature) for z in states]
    return [w / sum(weights) for w in weights], states


def test_states_of_a_triangle_s_trees():
    assert sorted(map(tuple, exact.enumerate_states(TRIANGLE).tolist())) == [(0, 1, 1), (1, 0, 1), (1, 1, 0)]


def test_states_are_the_caller_s_own():
    exact.enumerate_states(TRIANGLE).zero_()
    assert exact.enumerate_states(TRIANGLE).sum() == 6


def test_three_trees_by_hand():
    theta = torch.log(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    # products of two edge weights: 2, 8 and 4, which sum to 14
    assert float(exact.log_partition(TRIANGLE, theta)) == pytest.approx(math.log(14))
    assert sorted(exact.probabilities(TRIANGLE, theta).tolist()) == pytest.approx([2 / 14, 4 / 14, 8 / 14])
    assert exact.marginals(TRIANGLE, theta).tolist() == pytest.approx([6 / 14, 10 / 14, 12 / 14])
    assert exact.map_state(TRIANGLE, theta).tolist() == [0, 1, 1]
    assert float(exact.expectation(TRIANGLE, theta, lambda z: z[:, 0] * z[:, 1])) == pytest.approx(2 / 14)
    cost = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    variance = 6 / 14 * 8 / 14
    covariances = [variance, 2 / 14 - 6 / 14 * 10 / 14, 4 / 14 - 6 / 14 * 12 / 14]
    assert exact.gradient(TRIANGLE, theta, lambda z: z @ cost).tolist() == pytest.approx(covariances)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_all_of_it_agrees_with_plain_loops(problem, temperature):
    theta = random_theta(problem, 2, 3)
    target = random_theta(problem, seed=1)

    def distance(z):
        return (z - target).square().flatten(1).sum(dim=1)

    chances = exact.probabilities(problem, theta, temperature)
    marginals = exact.marginals(problem, theta, temperature)
    expectation = exact.expectation(problem, theta, distance, temperature)
    moments = exact.expectation(problem, theta, lambda z: z, temperature)
    partition = exact.log_partition(problem, theta, temperature)
    best = exact.map_state(problem, theta)
    for row in itertools.product(range(2), range(3)):
        weights, states = by_hand(problem, theta[row], temperature)
        assert chances[row].tolist() == pytest.approx(weights, rel=1e-12)
        mean = sum(w * z for w, z in zip(weights, states, strict=True))
        torch.testing.assert_close(marginals[row], mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(moments[row], mean, rtol=1e-12, atol=1e-14)
        distances = [float((z - target).square().sum()) for z in states]
        assert float(expectation[row]) == pytest.approx(sum(map(math.prod, zip(weights, distances, strict=True))))
        total = sum(math.exp(float((theta[row] * z).sum()) / temperature) for z in states)
        assert float(partition[row]) == pytest.approx(math.log(total))
        assert torch.equal(best[row], max(states, key=lambda z, row=row: float((theta[row] * z).sum())))


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_marginals_are_the_gradient_of_the_log_partition(problem):
    theta = random_theta(problem, 2).requires_grad_()
    (slope,) = torch.autograd.grad(exact.log_partition(problem, theta, 0.7).sum(), theta)
    torch.testing.assert_close(0.7 * slope, exact.marginals(problem, theta, 0.7).detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_the_gradient_is_autograd_s_and_the_finite_difference(problem):
    theta = random_theta(problem, 2).requires_grad_()
    target = random_theta(problem, seed=1)

    def distance(z):
        return (z - target).square().flatten(1).sum(dim=1)

    (slope,) = torch.autograd.grad(exact.expectation(problem, theta, distance, 0.8).sum(), theta)
    torch.testing.assert_close(exact.gradient(problem, theta, distance, 0.8), slope, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda t: exact.expectation(problem, t, distance, 0.8), theta)
    assert torch.autograd.gradcheck(lambda t: exact.gradient(problem, t, distance, 0.8), theta)
    assert torch.autograd.gradcheck(lambda t: exact.marginals(problem, t, 0.8), theta)


def test_what_f_depends_on_gets_a_gradient_too():
    cost = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    theta = random_theta(TRIANGLE)
    exact.expectation(TRIANGLE, theta, lambda z: z @ cost).backward()
    torch.testing.assert_close(cost.grad, exact.marginals(TRIANGLE, theta))


def test_the_published_toy_starts_where_it_should():
    random = np.random.RandomState(0)
    theta = torch.as_tensor(random.randn(10))
    target = torch.as_tensor(np.abs(random.randn(10)))

    def loss(z):
        return (z - target).square().sum(dim=1)

    smallest = float(loss(exact.enumerate_states(KSubset(10, 5))).min())
    assert smallest == pytest.approx(1.12515, abs=1e-5)
    assert float(exact.expectation(KSubset(10, 5), theta, loss)) - smallest == pytest.approx(4.114, abs=1e-3)


def test_ties_go_to_the_state_that_is_listed_first():
    assert torch.equal(
        exact.map_state(Assignment(2), torch.zeros(2, 2)), exact.enumerate_states(Assignment(2))[0].float()
    )


def test_paths_are_weighed_by_their_sets_of_cells_whatever_the_sign():
    problem = GridShortestPath(3, 3)
    theta = random_theta(problem).abs()
    assert exact.probabilities(problem, theta).shape == (62,)
    weights, _ = by_hand(problem, theta)
    assert exact.probabilities(problem, theta).tolist() == pytest.approx(weights)


def test_what_theta_does_not_price_counts_at_its_best():
    # z may be 1 if y is, which costs 0.5; z = 0 leaves y free to be 0
    program = IntegerProgram(A_ub=[[1, -1]], b_ub=[0], decision=[0], fixed=[-0.5])
    theta = torch.tensor([[0.4], [0.6]], dtype=torch.float64)
    worth = torch.stack([torch.zeros(2, dtype=torch.float64), theta[:, 0] - 0.5], dim=1)
    assert exact.enumerate_states(program).tolist() == [[0], [1]]
    assert exact.map_state(program, theta).tolist() == [[0], [1]]
    for temperature in (1.0, 0.3):
        chances = (worth / temperature).softmax(dim=1)
        torch.testing.assert_close(exact.probabilities(program, theta, temperature), chances)
        torch.testing.assert_close(exact.marginals(program, theta, temperature), chances[:, 1:])
        torch.testing.assert_close(exact.log_partition(program, theta, temperature), (worth / temperature).logsumexp(1))


def test_large_theta_neither_overflows_nor_underflows():
    theta = torch.tensor([1e4, -1e4, 0.0], dtype=torch.float64)
    assert exact.marginals(TRIANGLE, theta).tolist() == [1, 0, 1]
    assert float(exact.log_partition(TRIANGLE, theta)) == pytest.approx(1e4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_results_have_the_dtype_of_theta_and_the_precision_of_float64(dtype):
    theta = random_theta(Assignment(3), 4).to(dtype)
    results = [
        (f(t).dtype, torch.equal(f(theta), f(theta.double()).to(dtype)))
        for f in (
            lambda t: exact.marginals(Assignment(3), t),
            lambda t: exact.probabilities(Assignment(3), t),
            lambda t: exact.log_partition(Assignment(3), t),
            lambda t: exact.map_state(Assignment(3), t),
            lambda t: exact.gradient(Assignment(3), t, lambda z: z[:, 0, 0]),
            lambda t: exact.expectation(Assignment(3), t, lambda z: z[:, 0, 0]),
        )
        for t in (theta,)
    ]
    assert results == [(dtype, True)] * 6


def test_empty_and_strided_batches():
    problem = Assignment(3)
    assert exact.marginals(problem, torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert exact.probabilities(problem, torch.zeros(2, 0, 3, 3)).shape == (2, 0, 6)
    assert exact.expectation(problem, torch.zeros(0, 3, 3), lambda z: z).shape == (0, 3, 3)
    theta = random_theta(problem, 2)
    assert torch.equal(exact.marginals(problem, theta.mT), exact.marginals(problem, theta.mT.contiguous()))


def test_states_first_seen_in_inference_mode_serve_autograd_later():
    problem, theta = Assignment(2, 3), torch.zeros(2, 3, requires_grad=True)
    with torch.inference_mode():
        exact.marginals(problem, theta)
    exact.marginals(problem, theta)[0, 0].backward()
    assert theta.grad is not None
    assert float(theta.grad[0, 0]) == pytest.approx(1 / 3 * 2 / 3)


def test_refusals_say_what_was_wrong():
    theta = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"θ has shape \(2, 4\)"):
        exact.marginals(TRIANGLE, torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="θ must be a floating-point tensor"):
        exact.map_state(TRIANGLE, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(NonFiniteError, match=r"row 1 \(1 of 2\)") as caught:
        exact.log_partition(TRIANGLE, torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]))
    assert caught.value.rows == (1,)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite, got"):
            exact.probabilities(TRIANGLE, theta, temperature)
    with pytest.raises(ShapeError, match=r"one number each, \[N\]; it gave \(3, 3\)"):
        exact.gradient(TRIANGLE, theta, lambda z: z)
    with pytest.raises(ShapeError, match=r"map the 3 states \(3, 3\) to as many values, not \(\)"):
        exact.expectation(TRIANGLE, theta, lambda z: z.sum())
    with pytest.raises(ProblemError, match="too many to enumerate"):
        exact.enumerate_states(KSubset(30, 15))
