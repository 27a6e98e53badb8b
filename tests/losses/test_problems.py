"""Fenchel–Young losses of rows with problems of their own: each row as alone, with a layer's noise."""

import pytest
import torch

import mapgrad
import mapgrad.losses
from mapgrad.gradients import Relative
from mapgrad.losses import FenchelYoung, Gibbs, Quadratic

CYCLE = mapgrad.ShortestPath(6, [(node, (node + 1) % 6) for node in range(6)], 0, 3, directed=False)
WEIGHTS = [[3.0, 4.0, 2.0, 5.0, 1.0, 2.0]]
PROGRAM = mapgrad.IntegerProgram(A_ub=WEIGHTS, b_ub=[8.0])
SUBSETS = [mapgrad.KSubset(6, k) for k in (2, 1, 2, 3)]
MIXED = [*SUBSETS[:2], mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (1, 3)]), PROGRAM]
SIBLINGS = [PROGRAM, PROGRAM.replace(row_upper=[5.0]), PROGRAM, mapgrad.KSubset(6, 2)]
BATCHES = {"subsets": SUBSETS, "mixed": MIXED, "siblings": SIBLINGS}


class Drawn:
    """A law that must be drawn, and can't be given again from uniforms."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


SMOOTHINGS = {
    "auto": {"samples": 3, "seed": 4},
    "drawn": {"smoothing": Drawn(), "samples": 2, "seed": 4},
    "relative": {"samples": 2, "temperature": Relative(0.5), "seed": 4},
    "multiplicative": {"multiplicative": True, "samples": 2, "temperature": 0.5, "seed": 4},
    "none": {"smoothing": None},
    "quadratic": {"smoothing": Quadratic(), "temperature": 0.5},
    "Gibbs": {"smoothing": Gibbs(), "temperature": 0.7},
    "relative Gibbs": {"smoothing": Gibbs(), "temperature": Relative(0.7)},
}


def make(problem, name, **how):
    return FenchelYoung(mapgrad.get_solver("auto", problem), **SMOOTHINGS[name], **how)


def value_and_gradient(loss, pred, z_true, **how):
    leaf = pred.clone().requires_grad_()
    values, z = loss(leaf, z_true, **how)
    return values.detach(), z, torch.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("problems", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", SMOOTHINGS)
def test_each_row_is_as_alone(name, problems, minimize, draw):
    pred, how = draw(4, 6), {"return_solution": True, "minimize": minimize}
    z_true = mapgrad.get_solver("auto", None)(draw(4, 6, seed=1), problems)
    ids = torch.tensor([7, 3, 2**40, 5])
    found = value_and_gradient(make(None, name, reduction="none", **how), pred, z_true, rows=ids, problems=problems)
    for row, problem in enumerate(problems):
        part = slice(row, row + 1)
        alone = value_and_gradient(make(problem, name, **how), pred[part], z_true[part], rows=ids[part])
        for each, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(each[row], expected.reshape(each[row].shape))


@pytest.mark.parametrize("noise", ["auto", mapgrad.Gumbel(), Drawn()], ids=["auto", "Gumbel", "drawn"])
def test_the_noise_is_that_of_a_layer(noise, draw):
    solver = mapgrad.get_solver("auto", None)
    loss = FenchelYoung(solver, noise, samples=3, temperature=0.8, seed=4, return_solution=True)
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(noise, samples=3, temperature=0.8), seed=4)
    problems = [*MIXED[:3], CYCLE] if noise == "auto" else MIXED  # the cycle's domain takes no noise
    z_true = solver(-draw(4, 6, seed=9).abs(), problems)
    for step in range(3):
        pred = -draw(4, 6, seed=step).abs()
        assert torch.equal(loss(pred, z_true, problems=problems)[1], layer(pred, problems=problems))
    ids = [5, 2, 9, 1]
    assert torch.equal(loss(pred, z_true, problems=problems, rows=ids)[1], layer(pred, problems=problems, rows=ids))
    assert torch.equal(loss.get_extra_state(), layer.keys.saved())


def test_a_step_whose_problems_get_no_noise_is_one_as_for_a_layer():
    solver, pred = mapgrad.get_solver("auto", None), -torch.rand(2, 6)
    loss, layer = FenchelYoung(solver, seed=4), mapgrad.MAPLayer(solver, seed=4)
    loss(pred, solver(pred, [CYCLE] * 2), problems=[CYCLE] * 2)
    layer(pred, problems=[CYCLE] * 2)
    assert loss.get_extra_state().tolist() == layer.get_extra_state().tolist() == [4, 1]
    loss, layer = FenchelYoung(solver, None, seed=4), mapgrad.MAPLayer(solver, mapgrad.IMLE(None), seed=4)
    loss(pred, solver(pred, [CYCLE] * 2), problems=[CYCLE] * 2)
    layer(pred, problems=[CYCLE] * 2)
    assert loss.get_extra_state().tolist() == layer.get_extra_state().tolist() == [4, 0]


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_empty_batches(name):
    pred = torch.zeros(0, 6, requires_grad=True)
    assert make(None, name, reduction="none")(pred, torch.zeros(0, 6), problems=[]).shape == (0,)
    make(None, name, reduction="sum")(pred, torch.zeros(0, 6), problems=[]).backward()
    assert pred.grad.shape == (0, 6)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_bad_rows_are_named_by_their_number(name, draw):
    pred = draw(4, 6)
    z_true = mapgrad.get_solver("auto", None)(draw(4, 6, seed=1), SUBSETS)
    bad = pred.clone()
    bad[1, 2], bad[3, 0] = torch.nan, torch.inf
    loss = make(None, name)
    with pytest.raises(mapgrad.NonFiniteError, match=r"FenchelYoung solves pred.*rows 1, 3 \(2 of 4\)") as caught:
        loss(bad, z_true, problems=SUBSETS)
    assert caught.value.rows == (1, 3)
    wrong = z_true.clone()
    wrong[3] = 3 * pred[3].clamp(min=0) + 5
    with pytest.raises(mapgrad.ProblemError, match=r"states of KSubset\(n=6, k=3\), but row 3"):
        loss(pred.abs(), wrong.masked_fill(pred != pred, 0), problems=SUBSETS)
    for wrong_problems, error, message in (
        (SUBSETS[:3], mapgrad.ShapeError, "3 problems for 4 rows"),
        ([*SUBSETS[:3], mapgrad.KSubset(5, 2)], mapgrad.ShapeError, "row 3 of θ has shape"),
        ([*SUBSETS[:3], "topk"], TypeError, r"problems\[3\] must be a problem"),
        (SUBSETS[0], TypeError, "problems must be a list"),
    ):
        with pytest.raises(error, match=message):
            loss(pred, z_true, problems=wrong_problems)


@pytest.mark.parametrize("name", [name for name in SMOOTHINGS if "Gibbs" not in name])
def test_rows_that_fail_are_named_together(name, draw):
    class Fussy(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if self.problem.k != 2:
                return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
            return mapgrad.exact.map_state(self.problem, torch.from_numpy(theta.copy())).numpy()

    z_true = mapgrad.get_solver("topk", None)(draw(4, 6, seed=1), SUBSETS)
    loss = FenchelYoung(mapgrad.get_solver(Fussy, None), **SMOOTHINGS[name])
    with pytest.raises(mapgrad.InfeasibleError, match=r"rows 1, 3 \(2 of 4\)") as caught:
        loss(draw(4, 6), z_true, problems=SUBSETS)
    assert caught.value.rows == (1, 3)


def test_rows_outside_of_the_domain_are_named(draw):
    pred, problems = draw(3, 6).abs(), [SUBSETS[0], CYCLE, SUBSETS[1]]
    z_true = mapgrad.get_solver("auto", None)(-pred, problems)
    for name in ("auto", "none", "quadratic", "multiplicative"):
        with pytest.raises(mapgrad.DomainError, match=r"FenchelYoung solves pred.*ShortestPath.*row 1 \(1 of 3\)"):
            make(None, name)(pred, z_true, problems=problems)
    assert make(None, "Gibbs")(pred, z_true, problems=problems).isfinite()


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_tracers_and_functions_are_refused(name, draw):
    z_true = mapgrad.get_solver("auto", None)(draw(4, 6, seed=1), SUBSETS)
    loss = make(None, name)
    with pytest.raises(RuntimeError, match="can't be traced"):
        torch.func.grad(lambda pred: loss(pred, z_true, problems=SUBSETS))(draw(4, 6))
    with pytest.raises(TypeError, match=r"pass problems="):
        loss(draw(4, 6), z_true)


def test_gibbs_names_a_problem_without_an_oracle(draw):
    mixed = mapgrad.IntegerProgram(A_ub=WEIGHTS, b_ub=[8.0], integrality=[1, 1, 1, 1, 1, 0])
    loss = FenchelYoung(mapgrad.get_solver("highs", None), Gibbs())
    with pytest.raises(mapgrad.ProblemError, match=r"needs an exact oracle.*continuous"):
        loss(draw(2, 6), torch.zeros(2, 6), problems=[PROGRAM, mixed])
