"""LAVA: neighbours against the edges of the polytope, values and gradients against the formula over them."""

import pytest
import torch

import mapgrad
import mapgrad.losses
from mapgrad.pool import StatePool

PROBLEMS = {
    "k-subset": mapgrad.KSubset(5, 2),
    "all but one": mapgrad.KSubset(4, 3),
    "all": mapgrad.KSubset(3, 3),
    "tree": mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]),
    "tree with parallel edges and a loop": mapgrad.SpanningTree(3, [(0, 1), (1, 0), (1, 2), (2, 2), (0, 2)]),
    "a bridge": mapgrad.SpanningTree(4, [(0, 1), (1, 2), (0, 2), (2, 3)]),
}


def edges_of(states):
    """Which vertices are adjacent: bool [N, N], by whether the middle is a mean of states in one way only."""
    optimize = pytest.importorskip("scipy.optimize")
    states = states.flatten(1).numpy()
    count = len(states)
    equations = torch.cat([torch.tensor(states.T), torch.ones(1, count)]).numpy()
    are_adjacent = torch.zeros(count, count, dtype=torch.bool)
    for a in range(count):
        for b in range(a):
            middle = [*((states[a] + states[b]) / 2), 1]
            shares = torch.zeros(count)
            shares[[a, b]] = 1.0  # the least that these two must have between them
            found = optimize.linprog(shares.numpy(), A_eq=equations, b_eq=middle)
            are_adjacent[a, b] = are_adjacent[b, a] = found.fun > 1 - 1e-7
    return are_adjacent


@pytest.fixture(scope="module", params=PROBLEMS)
def polytope(request):
    problem = PROBLEMS[request.param]
    states = problem.states()
    name = "topk" if isinstance(problem, mapgrad.KSubset) else "networkx.spanning_tree"
    return mapgrad.get_solver(name, problem), states, edges_of(states)


def formula(states, are_adjacent, theta, place, margin):
    """theta [*batch, n], place [*batch]."""
    z = states[place]
    changes = theta @ states.T - (theta * z).sum(-1, keepdim=True)
    return (changes.clamp(min=-margin) * are_adjacent[place]).sum(-1)


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("minimize", [False, True])
def test_the_sum_is_over_the_edges_of_the_polytope(polytope, draw, batch, margin, minimize):
    solver, states, are_adjacent = polytope
    pred = draw(*batch, states.shape[1]).requires_grad_()
    place = torch.randint(len(states), batch, generator=torch.Generator().manual_seed(0))
    rows = formula(states, are_adjacent, -pred if minimize else pred, place, margin)
    weights = draw(*batch, seed=2)
    (expected,) = torch.autograd.grad((rows * weights).sum(), pred)
    for reduction, reduced in {"sum": rows.sum(), "mean": rows.mean(), "none": rows}.items():
        loss = mapgrad.losses.LAVA(solver, margin=margin, minimize=minimize, reduction=reduction)
        before = solver.stats["rows"]
        found = loss(pred, states[place])
        assert solver.stats["rows"] == before
        torch.testing.assert_close(found, reduced)
    (gradient,) = torch.autograd.grad((found * weights).sum(), pred)
    torch.testing.assert_close(gradient, expected)


def test_no_excess_is_optimality(polytope, draw):
    solver, states, are_adjacent = polytope
    theta = draw(30, states.shape[1])
    loss = mapgrad.losses.LAVA(solver, margin=0.0, reduction="none")
    for place, z in enumerate(states):
        is_best = loss(theta, z.expand_as(theta)) == 0
        worth = theta @ states.T
        torch.testing.assert_close(is_best, worth[:, place] >= worth.amax(1) - 1e-12)
    theta = (solver(theta) - 0.5) * 10
    value = mapgrad.losses.LAVA(solver, margin=0.1)(theta, solver(theta))
    counts = (solver(theta)[:, None] == states).all(-1).double() @ are_adjacent.double()
    torch.testing.assert_close(value, -0.1 * counts.sum(1).mean())


def test_a_pool_stands_for_the_neighbors_of_other_problems(draw):
    problem = mapgrad.Assignment(3)
    solver, states = mapgrad.get_solver("scipy.assignment", problem), problem.states()
    pool = StatePool(problem)
    pool.add(states)
    pred = draw(4, 3, 3).requires_grad_()
    z_true = solver(draw(4, 3, 3, seed=1))
    changes = pred.flatten(1) @ states.flatten(1).T - (pred * z_true).sum((1, 2))[:, None]
    others = (states != z_true[:, None]).any(-1).any(-1)
    rows = (changes.clamp(min=-0.5) * others).sum(1)
    found = mapgrad.losses.LAVA(solver, pool, margin=0.5, reduction="none")(pred, z_true)
    torch.testing.assert_close(found, rows)
    torch.testing.assert_close(*(torch.autograd.grad(each.sum(), pred)[0] for each in (found, rows)))


def test_forbidden_entries_have_no_neighbors(polytope, draw):
    solver, states, are_adjacent = polytope
    theta = draw(states.shape[1])
    for place, z in enumerate(states):
        for hidden in range(len(z)):
            masked = theta.clone()
            masked[hidden] = -torch.inf
            loss = mapgrad.losses.LAVA(solver, margin=0.3)
            if z[hidden]:
                with pytest.raises(mapgrad.ProblemError, match="pred forbids"):
                    loss(masked, z)
                continue
            expected = formula(states, are_adjacent & (states[:, hidden] == 0), theta, torch.tensor(place), 0.3)
            pred = masked.requires_grad_()
            found = loss(pred, z)
            torch.testing.assert_close(found, expected)
            (gradient,) = torch.autograd.grad(found, pred)
            assert gradient.isfinite().all()
            assert gradient[hidden] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_trees_under_transforms(draw):
    torch._dynamo.reset()
    solver = mapgrad.get_solver("networkx.spanning_tree", PROBLEMS["tree"])
    pred, z_true = draw(6, 5), solver(draw(6, 5, seed=1))
    loss = mapgrad.losses.LAVA(solver, reduction="none")
    expected = loss(pred, z_true)
    torch.testing.assert_close(torch.vmap(loss)(pred, z_true), expected)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pred, z_true), expected)
    z_true[1] = torch.tensor([1.0, 1, 0, 1, 0])  # a cycle, which nobody can see while it is traced
    assert torch.vmap(loss)(pred, z_true).isnan().tolist() == [False, True, False, False, False, False]
    torch._dynamo.reset()


def test_bad_input(polytope, draw):
    solver, states, _ = polytope
    loss = mapgrad.losses.LAVA(solver)
    pred = draw(3, states.shape[1])
    wrong = states[torch.zeros(3, dtype=torch.int64)].clone()
    wrong[2] = 1 - wrong[2]
    with pytest.raises(mapgrad.ProblemError, match=r"z_true must hold states of .* row 2"):
        loss(pred, wrong)
    pred[1, 0] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="pred") as caught:
        loss(pred, states[torch.zeros(3, dtype=torch.int64)])
    assert caught.value.rows == (1,)
