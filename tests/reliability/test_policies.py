"""What becomes of rows that fail, as ``on_error`` says: their answers, gradients and counts; the others stay exact."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status

PROBLEM = mapgrad.KSubset(4, 1)
FILLS = {"nan": torch.nan, "zero_grad": 0.0}
STATUSES = {0: Status.ERROR, 1: Status.INFEASIBLE, 2: Status.TIME_LIMIT}


class Moody(mapgrad.InstanceSolver):
    """The largest entry of each row, but for the first three, each of which fails in its own way."""

    def solve(self, state, theta, request):
        best = int(theta.argmax())
        if best == 0:
            raise RuntimeError("out of sorts")
        if best == 1:
            return mapgrad.Solution(None, Status.INFEASIBLE)
        if best == 2:
            return mapgrad.Solution(np.eye(4)[3], Status.TIME_LIMIT)
        return np.eye(4)[best]


KILLED = """
import os

import numpy as np

import mapgrad


class Killed(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        if theta.argmax() == 0:
            os._exit(3)
        return np.eye(4)[theta.argmax()]
"""


def rows(*best):
    """Return θ whose rows have their largest entries at these places, by far."""
    theta = torch.rand(len(best), 4, generator=torch.Generator().manual_seed(0))
    theta[range(len(best)), list(best)] += 5.0
    return theta


def quiet(make, *arguments, **named):
    """Call something whose first failing rows warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make(*arguments, **named)


def layer_of(solver=Moody, on_error="nan", estimator=None, **named):
    estimator = mapgrad.Blackbox(1.0) if estimator is None else estimator
    return mapgrad.MAPLayer(mapgrad.get_solver(solver, PROBLEM, **named), estimator, on_error=on_error)


@pytest.mark.parametrize("policy", FILLS)
@pytest.mark.parametrize("workers", [None, 2])
def test_rows_that_fail_are_filled_in_and_the_others_exact(policy, workers):
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error=policy, workers=workers)
    theta = rows(3, 0, 1, 3, 2)
    solutions = quiet(solver.solve, theta.reshape(5, 1, 4))
    expected = torch.eye(4)[[3, 0, 0, 3, 0]]
    expected[[1, 2, 4]] = FILLS[policy]
    torch.testing.assert_close(solutions.z[:, 0], expected, rtol=0, atol=0, equal_nan=True)
    assert solutions.status.flatten().tolist() == [Status.OPTIMAL, *(STATUSES[best] for best in (0, 1)), 1, 5]
    assert solutions.mask.tolist() == [[True], [False], [False], [True], [False]]
    assert solutions.objective.isnan().flatten().tolist() == [False, True, True, False, True]
    assert "out of sorts" in str(solutions.causes[1])
    assert solutions.stats["failed"] == solver.stats["failed"] == 3
    by_status = {name: count for name, count in solver.stats.items() if name.startswith("failed_") and count}
    assert by_status == {"failed_error": 1, "failed_infeasible": 1, "failed_time_limit": 1}


def test_one_warning_that_names_row_and_cause_then_counts():
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="nan")
    with pytest.warns(UserWarning, match=r"Moody .* 2 of 3 rows: under on_error=\"nan\" .*row 1: ERROR.*out of sorts"):
        solver(rows(3, 0, 1))
    solver(rows(0, 3))  # silently
    mapgrad.MAPLayer(solver, mapgrad.IMLE(None), on_error="zero_grad")(rows(0, 3))
    assert solver.stats["failed"] == 4


def test_the_warning_is_right_of_rows_that_fail_in_backward_alone():
    theta = rows(3).requires_grad_()
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Moody, PROBLEM), mapgrad.Blackbox(100.0), on_error="zero_grad")
    z = layer(theta)
    with pytest.warns(
        UserWarning, match=r"1 of 1 rows: .* or in a backward pass their gradient 0\. .* count as rows\) is row 0"
    ):
        (z * torch.tensor([-1.0, 0.0, 0.0, 1.0])).sum().backward()
    assert layer.last.mask.tolist() == [True]
    assert not theta.grad.any()


def test_rows_that_fail_in_several_ways_are_an_error_of_no_one_kind():
    solver = mapgrad.get_solver(Moody, PROBLEM)
    for ask in (solver, mapgrad.MAPLayer(solver, mapgrad.IMLE(None)), lambda theta: solver(theta, [PROBLEM] * 5)):
        for best, kind in ((1, mapgrad.InfeasibleError), (2, mapgrad.SolveTimeoutError), (0, mapgrad.SolverCrashError)):
            with pytest.raises(kind):
                ask(rows(3, best, best, 3, 3))
        with pytest.raises(mapgrad.RowsError, match=r"row 1: TIME_LIMIT.*row 2: ERROR.*out of sorts") as caught:
            ask(rows(3, 2, 0, 2, 3))
        assert type(caught.value) is mapgrad.RowsError
        assert caught.value.rows == (1, 2, 3)
        assert caught.value.solutions.status.tolist() == [1, 5, 0, 5, 1]


LATE = ('"incumbent" is for', '"fallback:…" asks', '"zero_grad" leaves')


@pytest.mark.parametrize("policy", ["nan", "nan:any", "zero_grad", "zero_grad:any", "fallback:topk"])
def test_a_warning_of_late_rows_advises_what_is_not_tried(policy):
    with pytest.warns(UserWarning, match="TIME_LIMIT.*raise time_limit") as caught:
        mapgrad.get_solver(Moody, PROBLEM, on_error=policy)(rows(3, 2))
    message = str(caught[0].message)
    is_fallback = policy == "fallback:topk"
    assert is_fallback or f"their z is {'NaN' if policy.startswith('nan') else '0'}," in message
    assert [advice in message for advice in LATE] == [True, not is_fallback, is_fallback]


@pytest.mark.parametrize("policy", ["raise", "incumbent"])
@pytest.mark.parametrize("is_layer", [False, True])
def test_an_error_of_late_rows_advises_what_is_not_tried(policy, is_layer):
    class Late(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            return mapgrad.Solution(None, Status.TIME_LIMIT)

    solver = mapgrad.get_solver(Late, PROBLEM, on_error=policy)
    with pytest.raises(mapgrad.SolveTimeoutError, match="raise time_limit") as caught:
        (mapgrad.MAPLayer(solver) if is_layer else solver)(rows(3, 2))
    assert [advice in str(caught.value) for advice in LATE] == [policy == "raise", True, True]


def test_a_process_that_dies_costs_its_row(import_source):
    solver = import_source("killed_by_its_row", KILLED).Killed
    with mapgrad.get_solver(solver, PROBLEM, on_error="zero_grad", workers="processes:2") as made:
        solutions = quiet(made.solve, rows(3, 1, 0, 2, 3))
    assert solutions.mask.tolist() == [True, True, False, True, True]
    assert solutions.z.argmax(dim=1)[solutions.mask].tolist() == [3, 1, 2, 3]


@pytest.mark.parametrize("policy", FILLS)
def test_problems_of_their_own(policy):
    solver = mapgrad.get_solver(Moody, None, on_error=policy)
    problems = [PROBLEM, mapgrad.KSubset(4, 2), PROBLEM]
    solutions = quiet(solver.solve, rows(0, 3, 3), problems)
    assert solutions.mask.tolist() == [False, True, True]
    layer = mapgrad.MAPLayer(solver, mapgrad.Blackbox(1.0))
    theta = rows(3, 0, 3).requires_grad_()
    z = layer(theta, problems=problems)
    z.nan_to_num(0.0).square().sum().backward()
    assert layer.last.mask.tolist() == [True, False, True]
    assert theta.grad is not None
    assert not theta.grad[1].any()


def test_theta_that_is_not_finite_is_refused_under_any_policy():
    for policy in (*FILLS, "fallback:topk"):
        with pytest.raises(mapgrad.NonFiniteError):
            mapgrad.get_solver(Moody, PROBLEM, on_error=policy)(torch.full((2, 4), torch.nan))


def test_incumbents_are_counted():
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="incumbent")
    assert solver(rows(3, 2, 2)).argmax(dim=1).tolist() == [3, 3, 3]
    assert (solver.stats["incumbent"], solver.stats["failed"]) == (2, 0)


ESTIMATORS = {
    "blackbox": lambda: mapgrad.Blackbox(1.0),
    "I-MLE": lambda: mapgrad.IMLE(mapgrad.Gumbel(), samples=3, temperature=0.1),
    "two-sided": lambda: mapgrad.TwoSided(mapgrad.Gumbel(), samples=3, temperature=0.1),
    "Perturbed": lambda: mapgrad.Perturbed(mapgrad.Gaussian(), samples=3, temperature=0.1),
    "pooled": lambda: mapgrad.Pooled(PROBLEM, samples=2, temperature=0.1),
    "Frank-Wolfe": lambda: mapgrad.FrankWolfe(),
    "identity": lambda: mapgrad.Identity(),
}


@pytest.mark.parametrize("policy", FILLS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_other_rows_have_the_gradients_of_a_batch_without_it(name, policy):
    weight = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))

    def run(chosen):
        layer = mapgrad.MAPLayer(mapgrad.get_solver(Moody, PROBLEM), ESTIMATORS[name](), on_error=policy, seed=0)
        theta = rows(3, 3, 0)[chosen].requires_grad_()
        z = quiet(layer, theta, rows=torch.arange(3)[chosen])
        mask = layer.last.mask
        quiet(((z[mask] - weight[chosen][mask]) ** 2).sum().backward)
        return layer, z, theta.grad

    layer, z, gradient = run([0, 1, 2])
    assert layer.last.mask.tolist() == [True, True, False]
    torch.testing.assert_close(z[2], torch.full((4,), FILLS[policy]), equal_nan=True)
    assert not gradient[2].any()
    assert layer.stats["unsolved"] == 1
    _, alone, expected = run([0, 1])
    torch.testing.assert_close(z[:2], alone)
    torch.testing.assert_close(gradient[:2], expected)


@pytest.mark.parametrize(("policy", "is_nan"), [("nan", True), ("zero_grad", False)])
def test_a_loss_that_still_counts_the_row(policy, is_nan):
    layer = layer_of(on_error=policy)
    theta = rows(3, 0).requires_grad_()
    (quiet(layer, theta) * torch.arange(8.0).reshape(2, 4)).sum().backward()
    assert theta.grad[0].isfinite().all()
    assert theta.grad[1].isnan().all() if is_nan else not theta.grad[1].any()


def test_nothing_is_solved_in_backward_for_a_row_that_failed():
    for policy in FILLS:
        layer = layer_of(on_error=policy, merge=False)
        theta = rows(3, 0, 3).requires_grad_()
        z = quiet(layer, theta)
        before = layer.stats["solves"]
        z.nan_to_num(0.0).square().sum().backward()
        assert layer.stats["solves"] - before == 2


def test_a_row_that_fails_in_backward_alone_gets_no_gradient():
    layer = layer_of(estimator=mapgrad.Blackbox(100.0))
    theta = rows(3, 3).requires_grad_()
    z = layer(theta)
    pull = torch.tensor([[-1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]])
    quiet((z * pull).sum().backward)
    assert theta.grad is not None
    assert not theta.grad[0].any()
    assert theta.grad.isfinite().all()
    assert layer.stats["unsolved_backward"] == 1
    assert layer.stats["unsolved"] == 0
    assert layer.last.mask.all()


def test_all_samples_must_have_an_answer():
    """Noise that is larger than the gap lets some samples of each row fail, and z is then none of their means."""
    layer = layer_of(on_error="nan", estimator=mapgrad.IMLE(mapgrad.Gumbel(), samples=8, symmetric=False))
    theta = torch.tensor([[0.0, -9.0, -9.0, 0.0], [-99.0, -99.0, -99.0, 0.0]])
    z = quiet(layer, theta)
    last = layer.last
    assert last.status.shape == (8, 2)
    assert 0 < int(last.failed[:, 0].sum()) < 8
    assert last.mask.tolist() == [False, True]
    assert z.isnan().all(dim=1).tolist() == [True, False]


class Halves(mapgrad.InstanceSolver):
    """The largest entry, if that isn't one of the first two."""

    def solve(self, state, theta, request):
        best = int(theta.argmax())
        if best == 0:
            raise RuntimeError("not that one")
        return np.eye(4)[best] if best > 1 else mapgrad.Solution(None, Status.INFEASIBLE)


class Given:
    """Noise that is given: [S, B, 4]."""

    std = 1.0

    def __init__(self, noise):
        self.noise = noise

    def sample(self, shape, *, generator, dtype, device):
        return self.noise.to(dtype) if shape == self.noise.shape else torch.zeros(shape, dtype=dtype)

    def log_prob(self, noise):
        return -0.5 * noise.square()


# the second row loses samples 0 and 2, the third one all, and the first one none
PUSHED = torch.zeros(4, 3, 4)
PUSHED[[0, 2], 1, [0, 1]] = 9.0
PUSHED[:, 2, 0] = 99.0
PUSHED[1, 1, 2] = 2.0
PUSHED += 0.1 * torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(2))
SPARED = PUSHED.clone()
SPARED[[0, 2], 1] = PUSHED[[1, 3], 1]  # by the next samples

GIVEN = {
    "I-MLE": lambda noise: mapgrad.IMLE(noise, mapgrad.Step(2.0), samples=4),
    "one side": lambda noise: mapgrad.IMLE(noise, mapgrad.Step(2.0), samples=4, symmetric=False),
    "adaptive": lambda noise: mapgrad.AdaptiveIMLE(noise, samples=4),
    "Perturbed": lambda noise: mapgrad.Perturbed(noise, samples=4),
    "straight through": lambda noise: mapgrad.StraightThrough(noise, samples=4),
    "pooled": lambda noise: mapgrad.Pooled(PROBLEM, noise=noise, samples=4),
}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", GIVEN)
def test_any_sample_is_enough_where_that_is_asked_for(name, reduction, fill):
    def run(noise, policy):
        solver = mapgrad.get_solver(Halves, PROBLEM)
        layer = mapgrad.MAPLayer(solver, GIVEN[name](Given(noise)), on_error=policy, reduction=reduction)
        theta = torch.tensor([[-40.0, -40.0, -40.0, 5.0], [-4.0, -4.0, 0.5, 1.0], [-9.0, -9.0, -9.0, 0.0]])
        theta.requires_grad_()
        z = quiet(layer, theta)
        weight = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
        kept = z.masked_fill(~layer.last.mask[:, None], 0.0)
        quiet((kept * weight).sum().backward)
        return layer, z.detach(), theta.grad

    layer, z, gradient = run(PUSHED, f"{fill}:any")
    assert layer.last.mask.tolist() == [True, True, False]
    assert layer.last.failed[:, 1].tolist() == [True, False, True, False]
    assert layer.last.status[:, 1].tolist() == [Status.ERROR, Status.OPTIMAL, Status.INFEASIBLE, Status.OPTIMAL]
    assert layer.stats["unsolved"] == 1
    rows = z if reduction == "none" else z[None]
    assert rows[:, :2].isfinite().all()
    torch.testing.assert_close(rows[:, 2], torch.full_like(rows[:, 2], FILLS[fill]), equal_nan=True)
    assert not gradient[2].any()
    strict, expected, expected_gradient = run(SPARED, fill)
    assert strict.last.mask.tolist() == [True, True, False]
    torch.testing.assert_close(z, expected, equal_nan=True)
    torch.testing.assert_close(gradient, expected_gradient)
    if name != "adaptive":
        assert gradient[1].any()
    refusing, _, _ = run(PUSHED, fill)
    assert refusing.last.mask.tolist() == [True, False, False]


def test_a_sample_that_fails_in_backward_alone_adds_nothing():
    noise = torch.zeros(2, 1, 4)
    noise[1, 0, 0] = -1.5  # the first sample moves to where rows fail, the second one elsewhere
    for policy, moved in (("zero_grad", 0), ("zero_grad:any", 0.5)):
        estimator = mapgrad.IMLE(Given(noise), mapgrad.Step(1.0), samples=2, symmetric=False)
        layer = mapgrad.MAPLayer(mapgrad.get_solver(Largest, PROBLEM), estimator, on_error=policy)
        theta = torch.tensor([[0.0, -9.0, 0.1, 0.5]], requires_grad=True)
        quiet((layer(theta) * torch.tensor([[-1.0, 0.0, 0.0, 1.0]])).sum().backward)
        assert theta.grad.tolist() == [[0.0, 0.0, -moved, moved]]
        assert layer.stats["unsolved_backward"] == (not moved)


class Largest(mapgrad.InstanceSolver):
    """The largest entry; a row fails where that is the first one."""

    def solve(self, state, theta, request):
        if not theta.argmax():
            raise RuntimeError("not that one")
        return np.eye(4)[theta.argmax()]


def test_any_sample_under_torch_func_and_in_parts_and_with_problems():
    def layer_of(**named):
        estimator = mapgrad.IMLE(mapgrad.Gumbel(), samples=6, temperature=2.0)
        return mapgrad.MAPLayer(mapgrad.get_solver(Largest, None, **named), estimator, on_error="zero_grad:any", seed=0)

    theta = 2 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    problems = [PROBLEM] * 64

    def loss(layer, theta, **named):
        return (layer(theta, **named) * torch.arange(4.0)).square().sum()

    layer = layer_of()
    leaf = theta.clone().requires_grad_()
    quiet(loss, layer, leaf, problems=problems).backward()
    is_part = layer.last.failed.any(dim=0) & layer.last.mask
    assert is_part.sum() > 20
    assert leaf.grad[is_part].any(dim=1).sum() > 10
    single = mapgrad.MAPLayer(mapgrad.get_solver(Largest, PROBLEM), layer.estimator, on_error="zero_grad:any", seed=0)
    found = quiet(torch.func.grad(lambda theta: loss(single, theta)), theta)
    assert torch.equal(found, leaf.grad)


def test_estimators_that_ask_for_more_solves_need_all_of_them():
    layer = layer_of(on_error="nan:any", estimator=mapgrad.FrankWolfe())
    z = quiet(layer, rows(3, 0))
    assert layer.last.mask.tolist() == [True, False]
    assert z.isnan().any(dim=1).tolist() == [False, True]
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="zero_grad:any")
    assert quiet(solver.solve, rows(3, 0)).mask.tolist() == [True, False]


def test_a_layer_overrides_its_solver_and_shares_its_counts():
    solver = mapgrad.get_solver(Moody, PROBLEM)
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None), on_error="nan")
    assert quiet(layer, rows(0, 3)).isnan().any()
    assert solver.stats["failed"] == 1
    with pytest.raises(mapgrad.SolverCrashError):
        solver(rows(0, 3))


def test_a_function_that_fails():
    def sick(theta):
        raise RuntimeError("sick")

    layer = mapgrad.MAPLayer(sick, mapgrad.IMLE(None), on_error="zero_grad")
    theta = rows(1, 2).requires_grad_()
    quiet(layer, theta).sum().backward()
    assert not theta.grad.any()
    assert not layer.last.mask.any()


def test_under_torch_func_and_vmap():
    layer = layer_of(on_error="nan").eval()
    theta = rows(3, 0, 3)
    z = quiet(torch.func.vmap(layer), theta)
    assert z.isnan().all(dim=1).tolist() == [False, True, False]
    gradient = torch.func.grad(lambda rows: layer(rows).nan_to_num(0.0).square().sum())(theta)
    assert not gradient[1].any()
    assert layer.last is None


@pytest.fixture
def others():
    """Two solvers to fall back to: `policies.some`, which fails where the second entry is largest, and all."""
    asked = {"some": [], "all": []}

    class Some(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            asked["some"].append(int(theta.argmax()))
            if theta.argmax() == 1:
                raise RuntimeError("not that one")
            return np.eye(4)[theta.argmax()]

    class All(mapgrad.InstanceSolver):
        traits = mapgrad.Traits(exact=False)

        def solve(self, state, theta, request):
            asked["all"].append(int(theta.argmax()))
            return np.eye(4)[theta.argmax()]

    def solvers():
        return [
            mapgrad.SolverSpec("some", Some, (mapgrad.KSubset,)),
            mapgrad.SolverSpec("all", All, (mapgrad.KSubset,)),
        ]

    mapgrad.register(SimpleNamespace(mapgrad_solvers=mapgrad.hookimpl(solvers)), "policies")
    yield asked
    mapgrad.unregister("policies")


def test_a_fallback_answers_failing_rows_alone_and_the_next_what_it_fails(others):
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="fallback:policies.some, policies.all")
    theta = rows(3, 0, 1, 2)
    with pytest.warns(UserWarning, match=r"Moody .* 3 of 4 rows: policies\.some or policies\.all answered 3 of them"):
        solutions = solver.solve(theta)
    assert others == {"some": [0, 1, 2], "all": [1]}
    assert solutions.z.argmax(dim=1).tolist() == [3, 0, 1, 2]
    assert solutions.status.tolist() == [Status.OPTIMAL, Status.OPTIMAL, Status.FEASIBLE, Status.OPTIMAL]
    assert solutions.mask.all()
    assert not solutions.causes
    torch.testing.assert_close(solutions.objective, theta.amax(dim=1).double())
    assert (solutions.stats["fallback"], solutions.stats["failed"]) == (3, 0)


def test_rows_that_all_solvers_fail_raise_and_the_error_has_the_others(others):
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="fallback:policies.some")
    with pytest.raises(
        mapgrad.InfeasibleError, match=r"then policies\.some, has no acceptable answer to row 1"
    ) as failed:
        quiet(solver, rows(0, 1, 3))
    assert failed.value.rows == (1,)
    assert failed.value.solutions.z[[0, 2]].argmax(dim=1).tolist() == [0, 3]


def test_fallbacks_of_layers_problems_and_forbidden_entries(others):
    layer = layer_of(on_error="fallback:policies.all", estimator=mapgrad.IMLE(None))
    theta = rows(0, 3)
    theta[0, 3] = -torch.inf
    z = quiet(layer, theta.requires_grad_())
    assert z.argmax(dim=1).tolist() == [0, 3]
    (z * torch.rand(2, 4)).sum().backward()
    assert theta.grad.isfinite().all()
    problems = [PROBLEM, mapgrad.KSubset(4, 1), mapgrad.KSubset(4, 2)]
    assert layer(rows(0, 3, 3), problems=problems).argmax(dim=1).tolist() == [0, 3, 3]


def test_what_falls_back_is_looked_for_at_once():
    with pytest.raises(mapgrad.UnknownSolverError, match="nobody"):
        mapgrad.get_solver(Moody, PROBLEM, on_error="fallback:nobody")
    with pytest.raises(mapgrad.UnsupportedProblemError):
        mapgrad.get_solver(Moody, PROBLEM, on_error="fallback:scipy.assignment")
    with pytest.raises(ValueError, match=r"falls back to solvers alone.*'nan' in 'fallback:topk,nan' isn't one"):
        mapgrad.get_solver(Moody, PROBLEM, on_error="fallback:topk,nan")
    for wrong in ("fallback:", "fallback:topk,", "ignore", "raise:any", "any", None):
        with pytest.raises(ValueError, match="on_error must be"):
            mapgrad.get_solver(Moody, PROBLEM, on_error=wrong)
    with pytest.raises(ValueError, match="needs to know the problem"):
        mapgrad.MAPLayer(lambda theta: theta, on_error="fallback:topk")


LOSSES = {
    "SPO+": lambda solver: mapgrad.losses.SPOPlus(solver, reduction="none"),
    "structured SVM": lambda solver: mapgrad.losses.StructuredSVM(solver, reduction="none"),
    "Fenchel-Young": lambda solver: mapgrad.losses.FenchelYoung(solver, samples=3, temperature=0.1, reduction="none"),
    "no smoothing": lambda solver: mapgrad.losses.FenchelYoung(solver, None, reduction="none"),
    "direction": lambda solver: mapgrad.losses.DirectionalGradient(solver, width=0.1, reduction="none"),
}


@pytest.mark.parametrize("policy", FILLS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_rows_that_fail(name, policy):
    loss = LOSSES[name](mapgrad.get_solver(Moody, PROBLEM, on_error=policy))
    pred = (2 * rows(3, 0, 3)).requires_grad_()
    true = rows(3, 3, 3) if name in ("SPO+", "direction") else torch.eye(4)[[3, 3, 3]]
    values = quiet(loss, pred, true)
    values.sum().backward()
    assert pred.grad[[0, 2]].isfinite().all()
    assert values[[0, 2]].isfinite().all()
    if policy == "nan":
        assert values[1].isnan()
        assert pred.grad[1].isnan().all()
    else:
        assert values[1] == 0
        assert not pred.grad[1].any()


def test_losses_and_regrets_that_would_be_wrong_raise_or_are_nan():
    solver = mapgrad.get_solver(Moody, PROBLEM, on_error="zero_grad")
    regrets = quiet(mapgrad.losses.regret, solver, rows(3, 0), rows(3, 3))
    assert regrets.isnan().tolist() == [False, True]
    loss = mapgrad.losses.FenchelYoung(solver, mapgrad.losses.Quadratic())
    with pytest.raises(mapgrad.RowsError):
        loss(rows(0, 3), torch.eye(4)[:2])


@pytest.mark.parametrize("policy", ["zero_grad", "nan", "nan:any"])
def test_rows_that_fail_bring_no_state_to_the_pool_of_a_loss(policy):
    loss = mapgrad.losses.NoiseContrastive(mapgrad.get_solver(Moody, PROBLEM, on_error=policy), reduction="none")
    with pytest.warns(UserWarning, match=f'under on_error="{policy}" they go without a state') as caught:
        values = loss(rows(3, 0, 1), torch.eye(4)[[3, 2, 1]])
    assert len(caught) == 1
    assert sorted(loss.pool.states.tolist()) == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert values.isfinite().all()
