"""Laws that hold for all rows, with ties too: integer utilities, so that many states are optimal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad
import mapgrad.losses

SUBSET = mapgrad.KSubset(5, 2)
KNAPSACK = mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0, 3.0]], [8.0])
SOLVERS = {
    SUBSET: mapgrad.get_solver("topk", SUBSET),
    KNAPSACK: mapgrad.get_solver(lambda theta: mapgrad.exact.map_state(KNAPSACK, theta), KNAPSACK),
}
STATES = {problem: mapgrad.exact.enumerate_states(problem) for problem in SOLVERS}

problems = st.sampled_from([*SOLVERS])
vectors = st.lists(st.integers(-3, 3), min_size=5, max_size=5).map(lambda row: torch.tensor(row, dtype=torch.float64))
laws = settings(max_examples=60, deadline=None)


def optimal(problem, theta):
    """All states that are optimal for integer utilities."""
    worth = STATES[problem] @ theta
    return STATES[problem][worth == worth.max()]


@laws
@given(problems, vectors, vectors)
def test_spo_plus_bounds_the_regret_of_every_optimal_state(problem, theta, t):
    solver = SOLVERS[problem]
    value = mapgrad.losses.SPOPlus(solver)(theta, t)
    worst = (STATES[problem] @ t).max() - (optimal(problem, theta) @ t).min()
    assert value >= worst >= mapgrad.losses.regret(solver, theta, t) >= 0


@laws
@given(problems, vectors, vectors)
def test_spo_plus_takes_any_optimal_state_as_the_true_one(problem, theta, t):
    loss = mapgrad.losses.SPOPlus(SOLVERS[problem], reduction="none")
    z_true = optimal(problem, t)
    found = loss(theta.expand_as(z_true), t.expand_as(z_true), z_true)
    worst = (STATES[problem] @ t).max() - (optimal(problem, theta) @ t).min()
    assert (found >= worst).all()


@laws
@given(problems, vectors, vectors)
def test_spo_plus_is_the_structured_hinge_loss_with_weight_two(problem, pred, true):
    solver = SOLVERS[problem]
    pred.requires_grad_()
    spo = mapgrad.losses.SPOPlus(solver, minimize=True, return_solution=True)
    hinge = mapgrad.losses.StructuredSVM(solver, weight=2.0, minimize=True, return_solution=True)
    z_true = solver(-true)
    (found, z), (expected, other) = spo(pred, true, z_true), hinge(pred, z_true, true)
    assert found == expected
    assert torch.equal(z, other)
    (gradient,), (wanted,) = (torch.autograd.grad(each, pred) for each in (found, expected))
    assert torch.equal(gradient, wanted)


@laws
@given(problems, vectors, vectors)
def test_no_margin_is_the_fenchel_young_loss_without_noise(problem, pred, true):
    solver = SOLVERS[problem]
    z_true, pred = solver(true), pred.requires_grad_()
    hinge = mapgrad.losses.StructuredSVM(solver)(pred, z_true, torch.zeros_like(z_true))
    plain = mapgrad.losses.FenchelYoung(solver, None)(pred, z_true)
    assert hinge == plain
    assert torch.equal(*(torch.autograd.grad(each, pred)[0] for each in (hinge, plain)))


@laws
@given(problems, vectors, st.integers(0, 2**31), st.booleans(), st.sampled_from([0.01, 0.3, 3.0]))
def test_fenchel_young_terms_are_zero_where_samples_agree_and_positive_elsewhere(
    problem, theta, seed, multiplicative, scale
):
    loss = mapgrad.losses.FenchelYoung(
        SOLVERS[problem],
        mapgrad.Gaussian(),
        temperature=0.5,
        multiplicative=multiplicative,
        reduction="none",
        return_solution=True,
        seed=seed,
    )
    states = STATES[problem]
    pred = (scale * theta).expand_as(states).clone().requires_grad_()
    terms, z = loss(pred, states)  # one sample a row: each value is a term
    assert (terms >= 0).all()
    agrees = (z == states).all(dim=1)
    assert (terms[agrees] == 0).all()
    terms.sum().backward()
    assert (pred.grad[agrees] == 0).all()
    if scale * theta.abs().min() > 0:
        assert (terms[~agrees] > 0).all()


@laws
@given(problems, vectors, vectors, st.sampled_from([0.1, 1.0, 4.0]))
def test_backward_difference_bounds_the_decision(problem, theta, t, width):
    solver = SOLVERS[problem]
    backward = mapgrad.losses.DirectionalGradient(solver, width=width, central=False)(theta, t)
    assert backward >= -(optimal(problem, theta) @ t).min() - 1e-12
    far = mapgrad.losses.DirectionalGradient(solver, width=width)(theta, t)
    assert far <= backward + 1e-12


@laws
@given(problems, vectors, st.sampled_from([False, True]))
def test_no_true_cost_no_gradient_along_it(problem, pred, central):
    pred.requires_grad_()
    loss = mapgrad.losses.DirectionalGradient(SOLVERS[problem], central=central)(pred, torch.zeros(5).double())
    assert loss == 0
    assert not torch.autograd.grad(loss, pred)[0].any()


@pytest.mark.parametrize("problem", SOLVERS, ids=str)
def test_a_perfect_prediction_costs_nothing(problem):
    true = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    solver = SOLVERS[problem]
    loss = mapgrad.losses.SPOPlus(solver)(true, true)
    assert loss == 0
    assert not torch.autograd.grad(loss, true)[0].any()
    assert not mapgrad.losses.regret(solver, true, true).any()
