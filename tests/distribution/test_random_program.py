"""Score-function learning of parameters: unbiased for each kind, and infeasible draws cost the recourse."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

import mapgrad
from mapgrad.distribution import RandomProgram, floored_normal

VALUES = torch.tensor([3.0, 2.0, 2.5], dtype=torch.float64)
LEVELS = np.array([[1.0, 1, 1], [2, 1, 1], [1, 2, 2], [2.5, 1, 2]])
PROGRAM = mapgrad.IntegerProgram(A_ub=[[1.0, 1, 1]], b_ub=[2.0])


def chosen(build, logits, *, theta=VALUES, minimize=False):
    """A law over four parameter vectors, so that expectations can be enumerated."""
    return RandomProgram(
        mapgrad.get_solver("highs", None),
        Categorical(logits=logits),
        theta=theta,
        program=lambda y, row: build(LEVELS[int(y)]),
        minimize=minimize,
    )


KINDS = {
    "A": lambda level: mapgrad.IntegerProgram(A_ub=[level], b_ub=[3.0]),
    "b": lambda level: PROGRAM.replace(b_ub=[level[0]]),
    "upper": lambda level: PROGRAM.replace(upper=np.minimum(level - 1, 1)),
    "lower": lambda level: PROGRAM.replace(lower=[0, *np.minimum(level[1:] - 1, 1)]),
    "fixed": lambda level: PROGRAM.replace(lower=[level[1] - 1, 0, 0]),
}


def cost(z, y):
    """A black box of both."""
    assert not z.requires_grad
    return np.cos(z.numpy() @ [1.0, 2.0, 4.0]) + y.numpy() * 0.3


@pytest.mark.parametrize("baseline", ["loo", None])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_unbiased_for_each_kind_of_parameter(kind, baseline):
    torch.manual_seed(0)
    logits = torch.tensor([0.2, -0.3, 0.4, 0.0], dtype=torch.float64, requires_grad=True)
    law = chosen(KINDS[kind], logits)
    every = torch.arange(4).unsqueeze(1)
    z = chosen(KINDS[kind], logits.expand(1, 4), theta=VALUES[None]).solve(every).z
    exact = (logits.softmax(0) * torch.as_tensor(cost(z, every))[:, 0]).sum()
    (truth,) = torch.autograd.grad(exact, logits)
    many = logits.detach().expand(150, 4).clone().requires_grad_()
    law = chosen(KINDS[kind], many, theta=VALUES.expand(150, 3))
    values = law.expectation(cost, 4, baseline=baseline)
    values.sum().backward()
    assert abs(values.detach().mean() - exact) / (values.detach().std() / math.sqrt(150)) < 4
    z = (many.grad.mean(0) - truth) / (many.grad.std(0) / math.sqrt(150))
    assert (z.abs() < 4).all()
    assert truth.abs().max() > 0.02


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("solver", ["auto", "topk", "highs"])
def test_utilities_and_costs_on_any_solver(solver, minimize):
    """θ is Gaussian: the perturbed optimizer's law, whose gradient is exact."""
    torch.manual_seed(1)
    problem, mean = mapgrad.KSubset(4, 2), torch.tensor([0.5, 0.0, -0.3, 0.1], dtype=torch.float64)
    many = mean.expand(1500, 4).clone().requires_grad_()
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    if solver == "highs":
        many = mean.expand(20, 4).clone().requires_grad_()
    law = RandomProgram(
        mapgrad.get_solver(solver, problem), Independent(Normal(many, 1.0), 1), theta=lambda y: y, minimize=minimize
    )
    law.expectation(lambda z, y: (z @ weights).sin(), 8).sum().backward()
    leaf = mean.clone().requires_grad_()
    states = mapgrad.exact.enumerate_states(problem)
    chances = mapgrad.exact.topk_probabilities(-leaf if minimize else leaf, states, 2, mapgrad.Gaussian())
    (truth,) = torch.autograd.grad((chances * (states @ weights).sin()).sum(), leaf)
    z = (many.grad.mean(0) - truth) / (many.grad.std(0) / math.sqrt(len(many)))
    assert (z.abs() < 4).all()


def normals(mean, std=0.4):
    return Independent(Normal(mean, std), 1)


def capacity_law(mean, **options):
    """Weights of one item each, in a program whose right side is drawn: negative ones leave no state."""
    return RandomProgram(
        mapgrad.get_solver("highs", None),
        normals(mean),
        theta=VALUES.expand(*mean.shape[:-1], 3),
        program=lambda y, row: PROGRAM.replace(b_ub=y),
        **options,
    )


def test_infeasible_draws_cost_the_recourse_and_lose_nobody():
    torch.manual_seed(2)
    mean = torch.tensor([[2.5], [0.0], [-9.0]], requires_grad=True)
    law = capacity_law(mean)
    y, found = law.sample((20,))
    assert found.status.shape == (20, 3)
    is_empty = y[..., 0] < 0
    assert is_empty.any(0).tolist() == [False, True, True]
    assert torch.equal(found.status == mapgrad.Status.INFEASIBLE, is_empty)
    assert torch.equal(found.z.isnan().all(-1), is_empty)
    assert torch.equal(found.mask, ~is_empty)
    torch.manual_seed(2)
    seen = []

    def f(z, y):
        seen.append((z, y))
        return -(z @ VALUES)

    value = law.expectation(f, 20, recourse=5.0)
    expected = torch.where(is_empty, 5.0, -(found.z.nan_to_num() @ VALUES)).mean(0)
    torch.testing.assert_close(value, expected)
    ((states, parameters),) = seen
    assert torch.equal(states[~is_empty], found.z[~is_empty])
    assert (parameters >= 0).all()  # f sees feasible draws alone
    assert (states.sum(-1) <= parameters.squeeze(-1).floor()).all()
    for draw in torch.where(is_empty[:, 1])[0]:  # those of the same row
        assert (parameters[draw, 1] == y[~is_empty[:, 1], 1]).any()
    value.sum().backward()
    assert mean.grad.isfinite().all()
    assert mean.grad[2].abs().max() < 1e-6  # all of its draws cost the same
    assert mean.grad[1] < 0  # a larger capacity costs less


def test_recourse_by_row_and_its_gradient():
    torch.manual_seed(3)
    mean = torch.tensor([[-9.0], [-9.0]])
    recourse = torch.tensor([1.0, 2.0], requires_grad=True, dtype=torch.float64)
    weight = torch.tensor(1.0, requires_grad=True, dtype=torch.float64)
    value = capacity_law(mean).expectation(lambda z, y: weight / z.sum(-1), 4, recourse=recourse)
    assert value.tolist() == [1.0, 2.0]
    value.sum().backward()
    assert recourse.grad.tolist() == [1.0, 1.0]
    assert weight.grad is None  # all draws are infeasible: there is nothing to ask f


@pytest.mark.parametrize("standardize", [False, True])
def test_a_cost_without_a_value_at_zero_keeps_its_gradients(standardize):
    torch.manual_seed(2)
    mean = torch.tensor([[0.2], [-9.0], [2.5]], requires_grad=True)
    weight = torch.ones(3, requires_grad=True, dtype=torch.float64)
    law = RandomProgram(
        mapgrad.get_solver("highs", None),
        normals(mean),
        theta=VALUES.expand(3, 3),
        program=lambda y, row: PROGRAM.replace(b_ub=y + 1) if y[0] > 0 else None,
    )
    value = law.expectation(lambda z, y: weight / z.sum(-1), 20, recourse=7.0, standardize=standardize)
    value.sum().backward()
    assert value[1].item() == pytest.approx(7)
    for found in (value, weight.grad, mean.grad):
        assert found.isfinite().all()
    assert weight.grad[1] == 0
    assert 0 < weight.grad[0] < 1
    assert mean.grad[0] < 0


def test_an_empty_batch_has_no_answers():
    mean = torch.zeros(0, 1, requires_grad=True)
    law = capacity_law(mean)
    assert law.solve(mean.detach()).z.shape == (0, 3)
    y, found = law.sample((4,))
    assert y.shape == (4, 0, 1)
    assert found.z.shape == (4, 0, 3)
    assert found.status.shape == (4, 0)
    for options in ({"recourse": 1.0}, {"baseline": None}, {"standardize": True}):
        value = law.expectation(lambda z, y: z.sum(-1), 4, **options)
        assert value.shape == (0,)
        value.sum().backward()
        assert mean.grad.shape == (0, 1)
    assert capacity_law(torch.tensor([[2.5]])).sample((0,))[1].z.shape == (0, 1, 3)
    own = RandomProgram(
        mapgrad.get_solver("topk", mapgrad.KSubset(3, 1)), normals(torch.zeros(2, 0, 3)), theta=lambda y: y
    )
    assert own.sample((4,))[1].z.shape == (4, 2, 0, 3)
    assert own.expectation(lambda z, y: z.sum(-1), 4).shape == (2, 0)


def test_without_recourse_infeasible_rows_are_named():
    torch.manual_seed(4)
    mean = torch.tensor([[2.5], [-9.0], [-9.0]])
    with pytest.raises(mapgrad.InfeasibleError, match=r"8 of 12 drawn programs are infeasible.*recourse=") as caught:
        capacity_law(mean).expectation(lambda z, y: z.sum(-1), 4)
    assert tuple(caught.value.rows) == (1, 2)


def test_no_program_is_an_infeasible_draw():
    law = RandomProgram(
        mapgrad.get_solver("highs", None),
        normals(torch.tensor([[0.5], [3.0]])),
        theta=VALUES.expand(2, 3),
        program=lambda y, row: PROGRAM.replace(lower=float(y[0] > 0), upper=float(y[0] < 2)) if y[0] < 2 else None,
    )
    found = law.solve(torch.tensor([[0.0], [3.0]]))
    assert found.status.tolist() == [mapgrad.Status.OPTIMAL, mapgrad.Status.INFEASIBLE]
    wrong = RandomProgram(
        mapgrad.get_solver("highs", None),
        normals(torch.tensor([[0.5], [3.0]])),
        theta=VALUES.expand(2, 3),
        program=lambda y, row: PROGRAM.replace(lower=float(y[0]), upper=1.0),
    )
    with pytest.raises(mapgrad.ProblemError, match=r"draw 0 of row 1 leaves no problem: .*Let program return None"):
        wrong.solve(torch.tensor([[0.0], [3.0]]))


def test_rows_have_their_numbers_and_data():
    capacities = [1.0, 2.0, 3.0, 0.0]
    seen = []

    def program(y, row):
        seen.append(row)
        assert y.dtype == np.float64
        return PROGRAM.replace(b_ub=[capacities[row]])

    law = RandomProgram(
        mapgrad.get_solver("highs", None), normals(torch.zeros(2, 2, 5)), theta=VALUES.expand(2, 2, 3), program=program
    )
    _, found = law.sample((3,))
    assert seen == [0, 1, 2, 3] * 3
    assert found.z.sum(-1).tolist() == [[[1, 2], [3, 0]]] * 3
    torch.testing.assert_close(found.objective, (found.z * VALUES).sum(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes(batch, dtype):
    mean = torch.zeros(*batch, 2, 3, dtype=dtype, requires_grad=True)
    law = RandomProgram(
        mapgrad.get_solver("auto", mapgrad.Assignment(2, 3)), Independent(Normal(mean, 1.0), 2), theta=lambda y: y
    )
    value = law.expectation(lambda z, y: (z * y).sum((-1, -2)), 4)
    assert value.shape == batch
    assert value.dtype == dtype
    value.sum().backward()
    assert mean.grad.shape == mean.shape
    assert law.solve(law.parameters.mean).z.shape == (*batch, 2, 3)


def test_a_constant_changes_nothing_and_neither_does_scale_where_standardised():
    mean = torch.tensor([[1.0], [2.0]], dtype=torch.float64)

    def gradient(f, **options):
        torch.manual_seed(5)
        leaf = mean.clone().requires_grad_()
        value = capacity_law(leaf).expectation(f, 8, recourse=0.0, **options)
        value.sum().backward()
        return value.detach(), leaf.grad

    value, plain = gradient(lambda z, y: z.sum(-1))
    torch.testing.assert_close(gradient(lambda z, y: z.sum(-1) + 1000)[1], plain, atol=1e-9, rtol=1e-9)
    same, standard = gradient(lambda z, y: z.sum(-1), standardize=True)
    torch.testing.assert_close(same, value)
    assert not torch.allclose(standard, plain)
    torch.testing.assert_close(torch.sign(standard), torch.sign(plain))
    torch.testing.assert_close(gradient(lambda z, y: 1e5 * z.sum(-1) + 7, standardize=True)[1], standard)
    for f in (lambda z, y: torch.full(z.shape[:-1], 0.1), lambda z, y: torch.zeros(z.shape[:-1])):
        assert (gradient(f, standardize=True)[1] == 0).all()


def test_a_row_whose_cost_is_not_finite_loses_nobody_else():
    mean = torch.tensor([[1.0], [2.0], [2.0]], requires_grad=True)

    def f(z, y):
        costs = z.sum(-1)
        costs[0, 1] = math.inf
        return costs

    for standardize in (False, True):
        torch.manual_seed(6)
        mean.grad = None
        value = capacity_law(mean).expectation(f, 4, recourse=0.0, standardize=standardize)
        value.sum().backward()
        assert value.isfinite().tolist() == [True, False, True]
        assert mean.grad.isfinite().flatten().tolist() == [True, False, True]


def test_a_second_derivative_is_refused():
    mean = torch.tensor([[1.0]], requires_grad=True)
    value = capacity_law(mean).expectation(lambda z, y: z.sum(-1), 4, recourse=0.0)
    (first,) = torch.autograd.grad(value.sum(), mean, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.sum().backward()


def test_rows_that_fail_otherwise_are_named_by_the_batch():
    law = RandomProgram(
        mapgrad.get_solver("highs", None),
        normals(torch.tensor([[1.0], [-9.0], [1.0]])),
        theta=VALUES.expand(3, 3),
        program=lambda y, row: mapgrad.IntegerProgram(
            A_ub=[[-1.0, 0, 0]], b_ub=y, upper=math.inf if y[0] < 0 else 1, integrality=0
        ),
    )
    with pytest.raises(mapgrad.UnboundedError) as caught:
        law.sample((2,))
    assert tuple(caught.value.rows) == (1,)
    theta = VALUES.expand(3, 3).clone()
    theta[2, 0] = math.nan
    law = RandomProgram(
        mapgrad.get_solver("highs", None), normals(torch.ones(3, 1)), theta=theta, program=lambda y, row: PROGRAM
    )
    with pytest.raises(mapgrad.NonFiniteError) as caught:
        law.sample((2,))
    assert tuple(caught.value.rows) == (2,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"solver": "highs"}, TypeError, "solver must be a mapgrad.Solver"),
        ({"parameters": torch.zeros(3)}, TypeError, "must be a torch.distributions.Distribution"),
        ({"theta": [1.0]}, TypeError, "theta must be a tensor or a function"),
        ({"program": PROGRAM}, TypeError, "program must be a function"),
        ({"program": lambda y, row: "no"}, TypeError, "must return a mapgrad.Problem"),
        ({"theta": VALUES}, mapgrad.ShapeError, "theta must begin with the dimensions"),
        ({"parameters": Normal(torch.zeros(2, 1), 1.0)}, mapgrad.ShapeError, "torch.distributions.Independent"),
    ],
)
def test_what_is_wrong_is_said(change, error, message):
    arguments = {
        "solver": mapgrad.get_solver("highs", None),
        "parameters": normals(torch.zeros(2, 1)),
        "theta": VALUES.expand(2, 3),
        "program": lambda y, row: PROGRAM,
    } | change
    with pytest.raises(error, match=message):
        RandomProgram(**arguments).expectation(lambda z, y: z.sum(-1), 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"samples": 1}, ValueError, "at least 2"),
        ({"samples": 1, "baseline": None, "standardize": True}, ValueError, "standardize=True needs samples"),
        ({"recourse": torch.zeros(5)}, mapgrad.ShapeError, r"one number or \[\*batch\] = \(2,\)"),
        ({"recourse": math.nan}, ValueError, "recourse must be finite"),
    ],
)
def test_what_is_wrong_with_an_expectation_is_said(options, error, message):
    with pytest.raises(error, match=message):
        capacity_law(torch.full((2, 1), -9.0)).expectation(
            lambda z, y: z.sum(-1), **{"samples": 2, "recourse": 0.0} | options
        )
    with pytest.raises(mapgrad.ShapeError, match=r"\[\*batch, \*event\] = \(2, 1\)"):
        capacity_law(torch.zeros(2, 1)).solve(torch.zeros(3, 1))


def test_floored_normal():
    raw = torch.tensor([-50.0, 0.0], requires_grad=True)
    law = floored_normal(torch.zeros(3, 2), raw, floor=0.1)
    assert (law.batch_shape, law.event_shape) == ((3,), (2,))
    torch.testing.assert_close(law.stddev, torch.tensor([0.1, 0.1 + math.log(2)]).expand(3, 2))
    assert floored_normal(torch.zeros(3, 2, 2), raw, floor=0.1, event_ndim=2).event_shape == (2, 2)
    for floor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"floor must be (positive|finite)"):
            floored_normal(torch.zeros(2), raw, floor=floor)
    with pytest.raises(TypeError, match="floor must be a number"):
        floored_normal(torch.zeros(2), raw, floor="0.1")


def test_shapes_of_a_floored_normal_are_checked():
    for event_ndim, error in ((-1, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="event_ndim must be"):
            mapgrad.floored_normal(torch.zeros(2), torch.zeros(2), floor=1.0, event_ndim=event_ndim)
    for mean, raw, match in (((2,), (3, 2), "raw must broadcast"), ((), (), "mean must have 1 dimensions or more")):
        with pytest.raises(mapgrad.ShapeError, match=match):
            mapgrad.floored_normal(torch.zeros(mean), torch.zeros(raw), floor=1.0)


@pytest.mark.parametrize("recourse", [math.nan, torch.zeros(3)])
def test_a_wrong_recourse_is_refused_without_infeasible_draws_too(recourse):
    law = capacity_law(torch.full((2, 1), 9.0))
    assert (law.sample((2,))[1].status == mapgrad.Status.OPTIMAL).all()
    with pytest.raises(ValueError, match="recourse must be"):
        law.expectation(lambda z, y: z.sum(-1), 2, recourse=recourse)
