"""CaVE: the projection against least squares over all faces, and what it says of optimality."""

import copy
import itertools
import pickle
import sys

import numpy as np
import pytest
import torch

import mapgrad
import mapgrad.losses

SUBSET = mapgrad.KSubset(5, 2)
DAG = mapgrad.ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)], 0, 3)
TREE = mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)])
COVER = mapgrad.IntegerProgram(A_ub=[[-2.0, -2, 0, 0], [0, -1, -1, -1]], b_ub=[-2.0, -1])
SMALL = {
    "k-subset": ("topk", SUBSET),
    "knapsack": ("highs", mapgrad.Knapsack([[3.0, 4.0, 2.0, 5.0]], [8.0])),
    "assignment": ("scipy.assignment", mapgrad.Assignment(2, 2)),
    "path": ("scipy.shortest_path", DAG),
    "cover": ("highs", COVER),
}
TIGHT = {
    "k-subset": SMALL["k-subset"],
    "assignment": ("scipy.assignment", mapgrad.Assignment(3)),
    "path": SMALL["path"],
    "tree": ("networkx.spanning_tree", TREE),
    "grid": ("scipy.shortest_path", mapgrad.GridShortestPath(3, 3)),
}
"""Problems of whose program the relaxation has whole vertices."""


def cone_of(problem, z):
    """Normals of what binds at z in a program that prices all variables, equations both ways."""
    program, x = problem.to_ilp(), z.flatten().numpy()
    less, equal, unit = program.A_ub.toarray(), program.A_eq.toarray(), np.eye(len(x))
    binding = less[np.isclose(less @ x, program.b_ub)]
    return np.concatenate((binding, equal, -equal, unit[x == program.upper], -unit[x == program.lower]))


def nearest_by_faces(theta, normals):
    """The nearest point of the cone, by least squares on the span of every few normals."""
    best = np.zeros_like(theta)
    for size in range(1, len(theta) + 1):
        for chosen in itertools.combinations(normals, size):
            weights = np.linalg.lstsq(np.transpose(chosen), theta, rcond=None)[0]
            point = weights @ np.array(chosen)
            if weights.min() >= -1e-12 and np.linalg.norm(theta - point) < np.linalg.norm(theta - best):
                best = point
    return best


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_the_projection_is_the_nearest_point_of_all_faces(name, draw, minimize):
    solver_name, problem = SMALL[name]
    solver = mapgrad.get_solver(solver_name, problem)
    pred = draw(3, 2, *problem.shape).requires_grad_()
    z_true = solver(-draw(3, 2, *problem.shape, seed=1).abs())
    sign, split = -1 if minimize else 1, 2
    theta = sign * pred.detach()
    points = [
        nearest_by_faces(row.flatten().numpy(), cone_of(problem, z))
        for row, z in zip(theta.flatten(0, 1), z_true.flatten(0, 1), strict=True)
    ]
    p = torch.tensor(np.array(points)).reshape(theta.shape)
    rows = 1 - torch.cosine_similarity(sign * pred.flatten(split), p.flatten(split), dim=-1)
    for reduction, reduced in {"sum": rows.sum(), "mean": rows.mean(), "none": rows}.items():
        found = mapgrad.losses.CaVE(solver, minimize=minimize, reduction=reduction)(pred, z_true)
        torch.testing.assert_close(found, reduced)
    weights = draw(3, 2, seed=2)
    expected, gradient = (torch.autograd.grad((each * weights).sum(), pred)[0] for each in (rows, found))
    torch.testing.assert_close(gradient, expected)
    assert expected.any()


@pytest.mark.parametrize("name", TIGHT)
def test_it_is_zero_where_the_true_state_is_optimal_and_nowhere_else(name, draw):
    solver_name, problem = TIGHT[name]
    solver = mapgrad.get_solver(solver_name, problem, domain="raise")
    states = problem.states()
    theta = -draw(6, *problem.shape).abs()
    worth = theta.flatten(1) @ states.flatten(1).T
    loss = mapgrad.losses.CaVE(solver, reduction="none")
    for place, z in enumerate(states):
        value = loss(theta, z.expand_as(theta))
        assert (value >= 0).all()
        assert (value <= 1).all()
        torch.testing.assert_close(value < 1e-12, worth[:, place] >= worth.amax(1) - 1e-9)
    found = loss(theta.requires_grad_(), solver(theta.detach()))
    (gradient,) = torch.autograd.grad(found.sum(), theta)
    assert gradient.abs().max() < 1e-12


def test_where_a_relaxation_is_not_tight_zero_is_still_optimal(draw):
    solver_name, problem = SMALL["knapsack"]
    solver, states = mapgrad.get_solver(solver_name, problem), problem.states()
    theta = draw(200, 4)
    worth = theta @ states.T
    loss = mapgrad.losses.CaVE(solver, reduction="none")
    in_cone = torch.stack([loss(theta, z.expand_as(theta)) < 1e-12 for z in states], dim=1)
    is_best = worth >= worth.amax(1, keepdim=True) - 1e-12
    assert not (in_cone & ~is_best).any()
    assert 0 < (in_cone & is_best).sum() < is_best.sum()


def test_lengths_do_not_matter(draw):
    theta, z_true = draw(8, 5), SUBSET.states()[:8]
    solver = mapgrad.get_solver("topk", SUBSET)
    loss = mapgrad.losses.CaVE(solver, reduction="none")
    value = loss(theta, z_true)
    for scale in (1e-300, 1e-20, 1e20, 1e300):
        torch.testing.assert_close(loss(scale * theta, z_true), value)
    scaled = COVER.to_ilp()
    scaled = mapgrad.IntegerProgram(A_ub=scaled.A_ub.toarray() * [[7.0], [1e-3]], b_ub=scaled.b_ub * [7.0, 1e-3])
    theta, z_true = draw(8, 4), COVER.states()[:8]
    found = [
        mapgrad.losses.CaVE(mapgrad.get_solver("highs", each), reduction="none")(theta, z_true)
        for each in (COVER, scaled)
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_align_is_one_without_a_gradient(dtype):
    solver = mapgrad.get_solver("highs", COVER)
    pred = torch.zeros(2, 4, dtype=dtype)
    z_true = torch.tensor([[1.0, 0, 0, 1]] * 2, dtype=dtype)
    pred[1] = torch.tensor([-1.0, 1, 1, -1])  # away from all that binds, so that the nearest point is 0
    pred.requires_grad_()
    value = mapgrad.losses.CaVE(solver, reduction="none")(pred, z_true)
    assert value.dtype == dtype
    assert value[0] == 1
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    free = mapgrad.get_solver("highs", mapgrad.IntegerProgram(A_ub=[[1.0, 1]], b_ub=[5.0]))
    pred = torch.tensor([-1.0, -2.0], dtype=dtype, requires_grad=True)
    value = mapgrad.losses.CaVE(free)(pred, torch.ones(2, dtype=dtype))
    assert value == 1
    assert not torch.autograd.grad(value, pred)[0].any()


def test_forbidden_entries_have_no_say(draw):
    kept = [0, 1, 3, 4]
    smaller = mapgrad.KSubset(4, 2)
    pred = draw(6, 5)
    pred[:, 2] = -torch.inf
    z = torch.zeros(6, 5, dtype=pred.dtype)
    z[:, kept] = smaller.states()
    loss = mapgrad.losses.CaVE(mapgrad.get_solver("topk", SUBSET), reduction="none")
    found = loss(pred.requires_grad_(), z)
    expected = mapgrad.losses.CaVE(mapgrad.get_solver("topk", smaller), reduction="none")(
        pred[:, kept].detach(), smaller.states()
    )
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), pred)
    assert gradient.isfinite().all()
    assert not gradient[:, 2].any()
    z[4] = SUBSET.states()[SUBSET.states()[:, 2] == 1][0]
    with pytest.raises(mapgrad.ProblemError, match="pred forbids in row 4"):
        loss(pred.detach(), z)


def test_variables_that_theta_does_not_price_complete_the_true_state(draw):
    # each x_i ≤ y_j needs one of two switches y, of which one is on
    switches = [[1.0, 0, 0, 0, -1, 0], [0, 1, 0, 0, -1, 0], [0, 0, 1, 0, 0, -1], [0, 0, 0, 1, 0, -1]]
    program = mapgrad.IntegerProgram(
        A_ub=switches, b_ub=np.zeros(4), A_eq=[[0, 0, 0, 0, 1, 1]], b_eq=[1], decision=range(4)
    )
    solver = mapgrad.get_solver("highs", program)
    theta = draw(20, 4)
    value = mapgrad.losses.CaVE(solver, reduction="none")(theta, solver(theta))
    torch.testing.assert_close(value, torch.zeros_like(value))  # this relaxation has whole vertices
    assert (mapgrad.losses.CaVE(solver, reduction="none")(theta, solver(-theta)) > 1e-6).any()


def test_a_wrong_answer_of_nnls_is_noticed(draw, monkeypatch):
    optimize = pytest.importorskip("scipy.optimize")
    solver = mapgrad.get_solver("networkx.spanning_tree", TREE)
    theta, z_true = draw(5, 5), solver(draw(5, 5, seed=1))
    expected = mapgrad.losses.CaVE(solver)(theta, z_true)

    def wrong(matrix, point, **options):
        return np.full(matrix.shape[1], 0.1), 0.0

    def endless(matrix, point, **options):
        raise RuntimeError("Maximum number of iterations reached.")

    for each in (wrong, endless):
        monkeypatch.setattr(optimize, "nnls", each)
        torch.testing.assert_close(mapgrad.losses.CaVE(solver)(theta, z_true), expected)


def test_what_binds_is_kept_for_a_while(draw, monkeypatch):
    solver = mapgrad.get_solver("networkx.spanning_tree", TREE)
    theta, z_true = draw(5, 5), solver(draw(5, 5, seed=1))
    loss = mapgrad.losses.CaVE(solver)
    expected = loss(theta, z_true)
    monkeypatch.setattr(loss.cones, "_completed", None)  # nothing is completed a second time
    assert loss(theta, z_true) == expected
    monkeypatch.undo()
    monkeypatch.setattr("mapgrad.losses._cones._MAX_BYTES", 1)
    for each in (loss, mapgrad.losses.CaVE(solver), copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert each(theta, z_true) == expected


def test_the_interior_point_method(draw):
    pytest.importorskip("clarabel")
    solver = mapgrad.get_solver("topk", SUBSET)
    theta, z_true = draw(20, 5), SUBSET.states()[torch.arange(20) % 10]
    exact, early, late = (
        mapgrad.losses.CaVE(solver, iterations=each, reduction="none")(theta, z_true) for each in (None, 3, 50)
    )
    torch.testing.assert_close(late, exact, atol=1e-6, rtol=1e-6)
    assert (early >= exact - 1e-12).all()
    assert not torch.allclose(early, exact)


def test_missing_packages(draw, monkeypatch):
    solver = mapgrad.get_solver("topk", SUBSET)
    arguments = draw(5), SUBSET.states()[0]
    monkeypatch.setitem(sys.modules, "clarabel", None)
    with pytest.raises(mapgrad.MissingDependencyError, match=r"pip install 'mapgrad\[cave\]'"):
        mapgrad.losses.CaVE(solver, iterations=3)(*arguments)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(mapgrad.MissingDependencyError, match=r"CaVE's projection needs scipy.*mapgrad\[scipy\]"):
        mapgrad.losses.CaVE(solver)(*arguments)


BATCHES = {
    "one shape": [SUBSET, mapgrad.KSubset(5, 1), TREE, SUBSET, DAG],
    "siblings": [mapgrad.Knapsack([[3.0, 4, 2, 5, 1]], [side]) for side in (8.0, 5.0, 8.0, 11.0, 3.0)],
}


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("iterations", [None, 3])
@pytest.mark.parametrize("problems", BATCHES.values(), ids=BATCHES)
def test_one_problem_a_row(problems, iterations, minimize, draw):
    if iterations is not None:
        pytest.importorskip("clarabel")
    pred = draw(5, 5).requires_grad_()
    z_true = mapgrad.get_solver("auto", None)(-draw(5, 5, seed=1).abs(), problems)
    how = {"iterations": iterations, "minimize": minimize}
    loss = mapgrad.losses.CaVE(mapgrad.get_solver("highs", None), reduction="none", **how)
    value = loss(pred, z_true, problems=problems)
    alone = [
        mapgrad.losses.CaVE(mapgrad.get_solver("highs", problem), **how)(row, z)
        for problem, row, z in zip(problems, pred, z_true, strict=True)
    ]
    torch.testing.assert_close(value, torch.stack(alone))
    found, expected = (torch.autograd.grad(each, pred)[0] for each in (value.sum(), torch.stack(alone).sum()))
    torch.testing.assert_close(found, expected)
    assert expected.any()
    same = mapgrad.losses.CaVE(mapgrad.get_solver("highs", problems[0]), reduction="none", **how)
    torch.testing.assert_close(same(pred, z_true, problems=problems), value)


def test_what_is_wrong_with_problems_of_rows_is_said(draw):
    problems = BATCHES["one shape"]
    loss = mapgrad.losses.CaVE(mapgrad.get_solver("auto", None))
    pred, z_true = draw(5, 5), mapgrad.get_solver("auto", None)(draw(5, 5), problems)
    with pytest.raises(TypeError, match="pass problems="):
        loss(pred, z_true)
    with pytest.raises(mapgrad.ShapeError, match="4 problems for 5 rows"):
        loss(pred, z_true, problems=problems[:4])
    with pytest.raises(RuntimeError, match="can't be traced"):
        torch.func.grad(lambda each: loss(each, z_true, problems=problems))(pred)
    mixed = [*problems[:4], mapgrad.Ranking(5)]
    with pytest.raises(mapgrad.UnsupportedProblemError, match="zeros and ones"):
        loss(pred, mapgrad.get_solver("auto", None)(pred, mixed), problems=mixed)
    wrong = z_true.clone()
    wrong[1] = 1.0
    with pytest.raises(mapgrad.ProblemError, match=r"states of KSubset\(n=5, k=1\), but row 1"):
        loss(pred, wrong, problems=problems)
    bad = pred.clone()
    bad[2, 0], bad[4, 1] = torch.nan, torch.inf
    with pytest.raises(mapgrad.NonFiniteError, match="pred") as caught:
        loss(bad, z_true, problems=problems)
    assert caught.value.rows == (2, 4)
    empty = mapgrad.losses.CaVE(mapgrad.get_solver("auto", None), reduction="none")
    assert empty(pred[:0], z_true[:0], problems=[]).shape == (0,)


def test_problems_without_a_cone_are_refused():
    for problem in (
        mapgrad.Ranking(4),
        mapgrad.IntegerProgram(A_ub=[[1.0, 1.0]], b_ub=[3.0], upper=2),
        mapgrad.IntegerProgram(A_ub=[[1.0, 1.0]], b_ub=[1.5], integrality=0),
    ):
        with pytest.raises(mapgrad.UnsupportedProblemError, match="zeros and ones"):
            mapgrad.losses.CaVE(mapgrad.get_solver("highs", problem))
    with pytest.raises(ValueError, match="needs to know the problem"):
        mapgrad.losses.CaVE(lambda theta: theta)
    for iterations in (0, 2.5, True):
        with pytest.raises((TypeError, ValueError), match="iterations must be an int of at least 1 or None"):
            mapgrad.losses.CaVE(mapgrad.get_solver("topk", SUBSET), iterations=iterations)


def test_bad_rows_are_named(draw):
    loss = mapgrad.losses.CaVE(mapgrad.get_solver("topk", SUBSET))
    pred, z_true = draw(3, 5), SUBSET.states()[:3].clone()
    z_true[1] = 0.4
    with pytest.raises(mapgrad.ProblemError, match=r"z_true must hold states of KSubset\(n=5, k=2\), but row 1"):
        loss(pred, z_true)
    pred[2, 0] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="pred") as caught:
        loss(pred, SUBSET.states()[:3])
    assert caught.value.rows == (2,)
    assert mapgrad.losses.CaVE(mapgrad.get_solver("topk", SUBSET), reduction="none")(pred[:0], z_true[:0]).shape == (0,)


@pytest.mark.parametrize("iterations", [None, 3])
def test_any_row_is_in_the_cone_of_the_only_state(iterations):
    for problem, forbidden in ((mapgrad.KSubset(1, 1), []), (mapgrad.Assignment(2), [1])):
        loss = mapgrad.losses.CaVE(mapgrad.get_solver("auto", problem), iterations=iterations)
        theta = torch.randn(3, *problem.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        theta.view(3, -1)[:, forbidden] = -torch.inf
        theta.requires_grad_()
        z = mapgrad.get_solver("auto", problem)(theta)
        value = loss(theta, z)
        value.backward()
        torch.testing.assert_close(value.item(), 0.0, atol=1e-9, rtol=0)
        torch.testing.assert_close(theta.grad, torch.zeros_like(theta), atol=1e-9, rtol=0)
