"""The Fenchel–Young loss of Gibbs' law against its sum over all states: the negative log-likelihood."""

import pytest
import torch

import mapgrad
import mapgrad.losses
from mapgrad.gradients import Relative
from mapgrad.losses import FenchelYoung, Gibbs, Quadratic

SUBSET = mapgrad.KSubset(6, 2)
ORACLES = {
    "one-hot": mapgrad.KSubset(5, 1),
    "k-subset": SUBSET,
    "star-mesh": mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]),
    "paths": mapgrad.ShortestPath(4, [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 0, 3),
    "permanent": mapgrad.Assignment(3, 3),
    "diagram": mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0]], [8.0]),
    "enumeration": mapgrad.GridShortestPath(2, 3),
}


@pytest.fixture(params=ORACLES)
def problem(request):
    found = ORACLES[request.param]
    assert mapgrad.exact.oracle(found).name == request.param
    return found


def solver_of(problem):
    return mapgrad.get_solver(lambda theta: mapgrad.exact.map_state(problem, theta), problem)


def likelihood(problem, theta, z_true, temperature):
    """−τ log p(z*) over all states, differentiable."""
    states = mapgrad.exact.enumerate_states(problem).flatten(1)
    rows = theta.flatten(-len(problem.shape))
    worth = rows @ states.T
    return temperature * (worth / temperature).logsumexp(-1) - (rows * z_true.flatten(-len(problem.shape))).sum(-1)


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_value_gradient_and_marginals(problem, draw, batch, temperature, minimize):
    sign = -1 if minimize else 1
    how = {"temperature": temperature, "minimize": minimize, "reduction": "none", "return_solution": True}
    loss = FenchelYoung(solver_of(problem), Gibbs(), **how)
    pred = draw(*batch, *problem.shape).requires_grad_()
    z_true = mapgrad.exact.map_state(problem, draw(*batch, *problem.shape, seed=1))
    values, means = loss(pred, z_true)
    expected = likelihood(problem, sign * pred, z_true, temperature)
    torch.testing.assert_close(values, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(values.sum(), pred)[0],
        torch.autograd.grad(expected.sum(), pred)[0],
        atol=1e-10,
        rtol=1e-10,
    )
    torch.testing.assert_close(means, mapgrad.exact.marginals(problem, sign * pred.detach(), temperature))
    assert torch.autograd.gradcheck(lambda leaf: loss(leaf, z_true)[0], pred)


def test_it_is_never_negative_and_a_likelihood(problem, draw):
    states = mapgrad.exact.enumerate_states(problem)
    for scale in (0.0, 1.0, 30.0):
        pred = (scale * draw(*problem.shape)).expand_as(states)
        values = FenchelYoung(solver_of(problem), Gibbs(), reduction="none")(pred, states)
        assert (values >= 0).all()
        assert float((-values).exp().sum()) == pytest.approx(1)


def test_it_becomes_the_perceptron_as_the_temperature_falls(problem, draw):
    pred, solver = -draw(8, *problem.shape).abs(), solver_of(problem)
    z_true = solver(-draw(8, *problem.shape, seed=1).abs())
    how = {"reduction": "none", "return_solution": True}
    plain, best = FenchelYoung(solver, None, **how)(pred, z_true)
    values, means = FenchelYoung(solver, Gibbs(), temperature=1e-6, **how)(pred, z_true)
    torch.testing.assert_close(values, plain, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(means, best, atol=1e-6, rtol=0.0)


def test_a_subset_of_one_is_cross_entropy(draw):
    pred, label = draw(7, 5, dtype=torch.float32).requires_grad_(), torch.arange(7) % 5
    loss = FenchelYoung(mapgrad.get_solver("topk", mapgrad.KSubset(5, 1)), Gibbs())
    found = loss(pred, torch.nn.functional.one_hot(label, 5).float())
    expected = torch.nn.functional.cross_entropy(pred, label)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, pred)[0] for each in (found, expected)))


def test_forbidden_entries_are_left_out(draw):
    kept = [0, 1, 2, 4, 5]
    pred = draw(4, 6).index_fill(1, torch.tensor([3]), -torch.inf).requires_grad_()
    z_true = mapgrad.exact.map_state(SUBSET, pred.detach().roll(1, 0))
    found, means = FenchelYoung(mapgrad.get_solver("topk", SUBSET), Gibbs(), return_solution=True)(pred, z_true)
    smaller = FenchelYoung(mapgrad.get_solver("topk", mapgrad.KSubset(5, 2)), Gibbs())
    torch.testing.assert_close(found, smaller(pred[:, kept], z_true[:, kept]))
    assert not means[:, 3].any()
    (gradient,) = torch.autograd.grad(found, pred)
    assert gradient.isfinite().all()
    assert not gradient[:, 3].any()


@pytest.mark.parametrize("smoothing", ["auto", None, Gibbs(), Quadratic()], ids=str)
@pytest.mark.parametrize("problems", [None, [SUBSET] * 3])
def test_a_true_state_with_a_forbidden_entry_is_refused(smoothing, problems, draw):
    solver = mapgrad.get_solver("topk", SUBSET)
    pred = draw(3, 6)
    z_true = solver(pred)
    pred[1, z_true[1].argmax()] = -torch.inf
    with pytest.raises(mapgrad.ProblemError, match="pred forbids in row 1"):
        FenchelYoung(solver, smoothing)(pred, z_true, problems=problems)


def test_a_relative_temperature_fits_each_row(draw):
    solver = mapgrad.get_solver("topk", SUBSET)
    pred, z_true = draw(4, 6), solver(draw(4, 6, seed=1))
    for smoothing in (Gibbs(), Quadratic()):
        loss = FenchelYoung(solver, smoothing, temperature=Relative(0.5), reduction="none", return_solution=True)
        (values, means), (large, same) = loss(pred, z_true), loss(1000 * pred, z_true)
        torch.testing.assert_close(large, 1000 * values)
        torch.testing.assert_close(same, means)


@pytest.mark.parametrize("size", [1e-30, 1e6, 1e30])
def test_large_and_small_utilities(problem, size, draw):
    pred = (size * draw(5, *problem.shape)).requires_grad_()
    z_true = mapgrad.exact.map_state(problem, pred.detach())
    values, means = FenchelYoung(solver_of(problem), Gibbs(), reduction="none", return_solution=True)(pred, z_true)
    assert (values >= 0).all()
    if size > 1:
        assert (values <= 1e-14 * size).all()
        torch.testing.assert_close(means, z_true)
    assert torch.autograd.grad(values.sum(), pred)[0].isfinite().all()


@pytest.mark.parametrize("temperature", [1e-200, 1e200])
def test_extreme_temperatures(problem, temperature, draw):
    pred = draw(5, *problem.shape).requires_grad_()
    z_true = mapgrad.exact.map_state(problem, draw(5, *problem.shape, seed=1))
    loss = FenchelYoung(solver_of(problem), Gibbs(), temperature=temperature, return_solution=True)
    value, means = loss(pred, z_true)
    assert 0 <= value < 1e203
    states = mapgrad.exact.enumerate_states(problem)
    expected = mapgrad.exact.map_state(problem, pred.detach()) if temperature < 1 else states.mean(0).expand_as(means)
    torch.testing.assert_close(means, expected)


def test_overflow_in_half_precision_is_told(draw):
    loss = FenchelYoung(mapgrad.get_solver("topk", SUBSET), Gibbs())
    pred = draw(3, 6, dtype=torch.float32)
    pred[1, 0] = 1e5
    z_true = loss.solver(pred)
    assert loss(pred, z_true).isfinite()
    with pytest.raises(mapgrad.NonFiniteError, match=r"FenchelYoung solves pred: .*row 1"):
        loss(pred.half(), z_true)
    with pytest.raises(mapgrad.ProblemError, match="pred forbids in row 1"):
        FenchelYoung(loss.solver, Gibbs(), minimize=True)(pred.half(), z_true)


def test_refusals():
    solver = mapgrad.get_solver("topk", SUBSET)
    with pytest.raises(ValueError, match="temperature above 0"):
        FenchelYoung(solver, Gibbs(), temperature=0.0)
    with pytest.raises(ValueError, match="there are no samples, got samples=3"):
        FenchelYoung(solver, Gibbs(), samples=3)
    with pytest.raises(TypeError, match=r"smoothing must be .*Gibbs\(\)"):
        FenchelYoung(solver, Gibbs)
    with pytest.raises(ValueError, match="needs to know the problem"):
        FenchelYoung(torch.sign, Gibbs())
    with pytest.raises(mapgrad.ProblemError, match=r"needs an exact oracle of TravelingSalesman.*Noise and Quadratic"):
        FenchelYoung(mapgrad.get_solver("highs", mapgrad.TravelingSalesman(30)), Gibbs())
    with pytest.raises(mapgrad.ProblemError, match=r"allow as many by max_bytes"):
        FenchelYoung(solver, Gibbs(max_bytes=10))
    mixed = mapgrad.IntegerProgram(A_ub=[[1.0, 1.0]], b_ub=[1.5], integrality=[1, 0])
    with pytest.raises(mapgrad.ProblemError, match="continuous variables"):
        FenchelYoung(mapgrad.get_solver("highs", mixed), Gibbs())
    with pytest.raises(ValueError, match="at most 1e280"):
        FenchelYoung(solver, Gibbs(), temperature=1e-290)(torch.ones(6), torch.tensor([1.0, 1, 0, 0, 0, 0]))
