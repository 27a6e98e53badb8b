"""Bad input is refused with the numbers of its rows, by what the user passed."""

import pytest
import torch

import mapgrad
import mapgrad.losses

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(3, 3)
LOSSES = {
    "SPO+": mapgrad.losses.SPOPlus,
    "PG": mapgrad.losses.DirectionalGradient,
    "SSVM": mapgrad.losses.StructuredSVM,
    "Fenchel-Young": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, seed=0, samples=2, **how),
    "quadratic": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Quadratic(), **how),
    "Gibbs": lambda solver, **how: mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Gibbs(), **how),
    "NCE": mapgrad.losses.NoiseContrastive,
    "contrastive MAP": mapgrad.losses.MAPContrastive,
    "pointwise": mapgrad.losses.PointwiseRanking,
    "pairwise": mapgrad.losses.PairwiseRanking,
    "listwise": mapgrad.losses.ListwiseRanking,
}


class Fussy(mapgrad.InstanceSolver):
    """Finds nothing where the first entry is the largest."""

    def solve(self, state, theta, request):
        if theta.argmax() == 0:
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        return z


@pytest.fixture
def solver():
    return mapgrad.get_solver("topk", SUBSET)


@pytest.fixture(params=LOSSES)
def make(request):
    return LOSSES[request.param]


def states(*batch):
    z = torch.zeros(*batch, 6)
    z[..., 1:3] = 1
    return z


def test_failing_rows_are_named(make, draw):
    if make is LOSSES["Gibbs"]:
        pytest.skip("Gibbs' law asks an oracle, not the solver")
    pred = draw(2, 3, 6)
    pred[..., 0] = -50
    pred[1, 0, 0] = 50
    loss = make(mapgrad.get_solver(Fussy, SUBSET))
    with pytest.raises(mapgrad.InfeasibleError) as caught:
        loss(pred, states(2, 3))
    assert caught.value.rows == (3,)
    assert not isinstance(loss, mapgrad.losses.SPOPlus) or caught.value.solutions.z.isfinite().sum() == 5 * 6


def test_nan_is_named(make, solver, draw):
    pred = draw(4, 6)
    pred[2, 1] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="pred") as caught:
        make(solver)(pred, states(4))
    assert caught.value.rows == (2,)
    target = states(4)
    target[3, 1] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="true") as caught:
        make(solver)(draw(4, 6), target)
    assert caught.value.rows == (3,)


def test_shapes_and_types(make, solver, draw):
    loss = make(solver)
    with pytest.raises(mapgrad.ShapeError, match=r"prediction's shape \(4, 6\)"):
        loss(draw(4, 6), states(3))
    with pytest.raises(mapgrad.ShapeError, match="prediction's shape"):
        loss(draw(4, 6), states())
    with pytest.raises(mapgrad.ShapeError, match="needs"):
        loss(draw(4, 5), states(4)[:, :5])
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        loss(draw(4, 6), states(4).tolist())
    with pytest.raises(mapgrad.ShapeError, match="floating-point"):
        loss(torch.ones(4, 6, dtype=torch.int64), states(4))
    with pytest.raises(ValueError, match="device"):
        loss(draw(4, 6), states(4).to("meta"))


def test_arguments(make, solver):
    with pytest.raises(ValueError, match="reduction"):
        make(solver, reduction="max")
    with pytest.raises(TypeError, match="get_solver"):
        make("topk")
    with pytest.raises(TypeError, match="pass its attribute solver"):
        make(mapgrad.MAPLayer(solver))
    with pytest.raises(ValueError, match="must be positive"):
        mapgrad.losses.DirectionalGradient(solver, width=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        mapgrad.losses.StructuredSVM(solver, weight=-1.0)


@pytest.mark.parametrize("value", [-1, 1, 0, None, "max"])
def test_the_sense_is_a_bool(make, solver, draw, value):
    said = rf"minimize must be True or False, got {value!r}: True for costs, False for utilities"
    with pytest.raises(TypeError, match=said):
        make(solver, minimize=value)
    with pytest.raises(TypeError, match=said):
        mapgrad.losses.Regret(solver, minimize=value)
    for judge in (mapgrad.losses.regret, mapgrad.losses.normalized_regret):
        with pytest.raises(TypeError, match=said):
            judge(solver, draw(2, 6), draw(2, 6), minimize=value)


def test_other_switches_are_bools(solver, draw):
    losses = mapgrad.losses
    for name, make in {
        "return_solution": losses.SPOPlus,
        "central": losses.DirectionalGradient,
        "multiplicative": losses.FenchelYoung,
        "normalize": losses.Regret,
        "unambiguous": losses.Regret,
    }.items():
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 1"):
            make(solver, **{name: 1})
    with pytest.raises(TypeError, match="unambiguous must be True or False, got 1"):
        losses.regret(solver, draw(2, 6), draw(2, 6), unambiguous=1)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_rows_outside_of_the_domain_are_refused(reduction, draw):
    with mapgrad.get_solver("networkx.shortest_path", GRID) as solver:
        pred, true = draw(4, 3, 3).abs() + 1, draw(4, 3, 3, seed=1).abs()
        z_true = solver(-true)
        pred[2] = 0.01
        true[2] = 5.0
        how = {"minimize": True, "reduction": reduction}
        for loss, target in (
            (mapgrad.losses.SPOPlus(solver, **how), true),
            (mapgrad.losses.DirectionalGradient(solver, width=0.1, **how), true),
            (mapgrad.losses.StructuredSVM(solver, **how), z_true),
        ):
            with pytest.raises(mapgrad.DomainError, match=r"row[s 0-9,]*2.*clipping would") as caught:
                loss(pred, target)
            assert 2 in caught.value.rows
        assert solver.stats["clipped"] == 0
        with pytest.raises(mapgrad.DomainError, match="SPOPlus solves true"):
            mapgrad.losses.SPOPlus(solver, **how)(pred, -true)
        with pytest.raises(mapgrad.DomainError, match="solves pred"):
            mapgrad.losses.FenchelYoung(solver, **how)(-pred, z_true)
        assert solver(pred).shape == pred.shape  # its own policy is still to clip
        assert solver.stats["clipped"] == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_the_domain_under_compilers_and_maps(draw):
    torch._dynamo.reset()
    with mapgrad.get_solver("networkx.shortest_path", GRID) as solver:
        pred, true = torch.rand(3, 3, 3), torch.rand(3, 3, 3) + 3
        loss = mapgrad.losses.SPOPlus(solver, minimize=True)
        z_true = solver(-true)
        for run in (torch.vmap(loss), torch.func.grad(loss)):
            with pytest.raises(mapgrad.DomainError):
                run(pred, true, z_true)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        assert compiled(pred + 3, true, z_true).isfinite()
        with pytest.raises(mapgrad.DomainError):
            compiled(pred, true, z_true)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["SSVM", "Fenchel-Young", "quadratic", "Gibbs", "SPO+"])
def test_true_states_that_are_none(name, solver, draw):
    pred = draw(2, 2, 6).abs()
    wrong = states(2, 2)
    wrong[1, 0] = 5
    arguments = (pred, pred, wrong) if name == "SPO+" else (pred, wrong)
    with pytest.raises(mapgrad.ProblemError, match=r"z_true must hold states .*row 2 \(index \(1, 0\)\)"):
        LOSSES[name](solver)(*arguments)


def test_an_inexact_solver_may_find_less_than_the_true_state(draw):
    def first_two(theta):
        return states(len(theta)).to(theta)

    pred = draw(5, 6)
    z_true = mapgrad.exact.map_state(SUBSET, pred)
    loss = mapgrad.losses.FenchelYoung(mapgrad.get_solver(first_two, SUBSET), None, reduction="none")
    torch.testing.assert_close(loss(pred, z_true), (pred * (states(5) - z_true)).sum(1))


def test_hamming_margins_need_states_of_zeros_and_ones(draw):
    solver = mapgrad.get_solver("auto", mapgrad.Ranking(4))
    loss = mapgrad.losses.StructuredSVM(solver)
    pred = draw(2, 4)
    z_true = solver(draw(2, 4, seed=1))
    with pytest.raises(mapgrad.UnsupportedProblemError, match="margin="):
        loss(pred, z_true)
    assert loss(pred, z_true, torch.ones_like(pred)) > 0


def test_unpriced_utilities_are_refused(make):
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 1.0, 1.0]], b_ub=[2.0], decision=[0, 1], fixed=[0.5])
    solver = mapgrad.get_solver("highs", program)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="fixed"):
        make(solver)
    with pytest.raises(mapgrad.UnsupportedProblemError, match="fixed"):
        mapgrad.losses.regret(solver, torch.ones(2), torch.ones(2))


def test_forbidden_entries(make, solver, draw):
    pred, z_true = draw(4, 6), solver(draw(4, 6, seed=1))
    hidden = (torch.arange(6) == 3).expand(4, 6)
    pred = torch.where(hidden, -torch.inf, pred).requires_grad_()
    z_true[:, 3] = 0
    z_true[z_true.sum(1) < 2, :2] = torch.tensor([1.0, 1.0], dtype=z_true.dtype)
    z_true = solver(z_true)
    loss = make(solver, reduction="none", return_solution=True)
    value, z = loss(pred, z_true)
    assert value.isfinite().all()
    assert not z[hidden].any()
    value.sum().backward()
    assert pred.grad.isfinite().all()
    assert not pred.grad[hidden].any()


def test_both_may_forbid_an_entry(solver, draw):
    pred, true = draw(4, 6), draw(4, 6, seed=1)
    pred[:, 3], true[:, 3] = torch.inf, torch.inf
    found = mapgrad.losses.SPOPlus(solver, minimize=True)(pred, true)
    kept = [0, 1, 2, 4, 5]
    smaller = mapgrad.get_solver("topk", mapgrad.KSubset(5, 2))
    torch.testing.assert_close(found, mapgrad.losses.SPOPlus(smaller, minimize=True)(pred[:, kept], true[:, kept]))
    assert mapgrad.losses.regret(solver, pred, true, minimize=True).isfinite().all()


def test_empty_batches(make, solver):
    loss = make(solver, reduction="none")
    assert loss(torch.zeros(0, 6), states(0)).shape == (0,)
    assert make(solver, reduction="sum")(torch.zeros(0, 6), states(0)) == 0


def test_counts_are_the_solvers_own(make, solver, draw):
    if make is LOSSES["Gibbs"]:
        pytest.skip("Gibbs' law asks an oracle, not the solver")
    before = solver.stats["rows"]
    make(solver)(draw(4, 6), states(4))
    assert solver.stats["rows"] >= before + 4


@pytest.mark.parametrize("name", ["SPO+", "PG", "SSVM"])
def test_one_problem_a_row(name, draw):
    problems = [mapgrad.KSubset(6, 1 + row % 3) for row in range(5)]
    pred, true = draw(5, 6).requires_grad_(), draw(5, 6, seed=1)
    solver = mapgrad.get_solver("topk", None)
    z_true = solver(true, problems)
    loss = LOSSES[name](solver, reduction="none", return_solution=True)
    target = z_true if name == "SSVM" else true
    value, z = loss(pred, target, problems=problems)
    alone = [
        LOSSES[name](mapgrad.get_solver("topk", problem), return_solution=True)(row, goal)
        for problem, row, goal in zip(problems, pred, target, strict=True)
    ]
    torch.testing.assert_close(value, torch.stack([each for each, _ in alone]))
    assert torch.equal(z, torch.stack([each for _, each in alone]))
    lost = mapgrad.losses.regret(solver, pred, true, problems=problems)
    assert (lost >= 0).all()
    cycle = mapgrad.ShortestPath(6, [(node, (node + 1) % 6) for node in range(6)], 0, 3, directed=False)
    mixed = LOSSES[name](mapgrad.get_solver("auto", None))
    goal = torch.tensor([[1.0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    with pytest.raises(mapgrad.DomainError, match="row 1"):
        mixed(pred[:2].abs(), goal, problems=[mapgrad.KSubset(6, 2), cycle])
