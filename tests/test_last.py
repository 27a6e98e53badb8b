"""`MAPLayer.last`: the answers of the last call."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch

import mapgrad
from mapgrad import Status

SUBSET = mapgrad.KSubset(6, 2)


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(**options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(mapgrad.Gumbel(), **options), seed=0)


class Lazy(mapgrad.InstanceSolver):
    """Has no time where the first entry is positive; if it is larger than one, it has an incumbent."""

    def solve(self, state, theta, request):
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        if theta[0] <= 0:
            return z
        return mapgrad.Solution(z, Status.TIME_LIMIT)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes(batch, dtype):
    layer = layer_of()
    assert layer.last is None
    theta = random_theta(*batch, 6).to(dtype)
    z = layer(theta)
    last = layer.last
    assert isinstance(last, mapgrad.Solutions)
    assert torch.equal(last.z, z)
    assert last.z.dtype == dtype
    assert last.status.shape == last.mask.shape == batch
    assert last.mask.dtype == torch.bool
    assert last.mask.all()
    assert (last.status == Status.OPTIMAL).all()


def test_samples_come_first():
    layer = layer_of(samples=5)
    theta = random_theta(2, 3, 6)
    z = layer(theta)
    last = layer.last
    assert last.z.shape == (5, 2, 3, 6)
    assert last.status.shape == (5, 2, 3)
    assert last.mask.shape == (2, 3)
    torch.testing.assert_close(last.z.mean(0), z)
    layer.eval()(theta)
    assert layer.last.z.shape == theta.shape


def test_a_mask_of_incumbents():
    solver = mapgrad.get_solver(Lazy, SUBSET, on_error="incumbent")
    theta = -random_theta(4, 6).abs()
    theta[1, 0] = 5.0
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None))
    layer(theta)
    assert layer.last.status.tolist() == [1, 5, 1, 1]
    assert layer.last.mask.tolist() == [True] * 4


class Refusing(mapgrad.InstanceSolver):
    """Raises where an entry is positive."""

    def solve(self, state, theta, request):
        if theta.max() > 0:
            raise ArithmeticError(f"entry {theta.argmax()}")
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        return z


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("on_error", ["nan", "zero_grad:any"])
@pytest.mark.filterwarnings("ignore:.*has no acceptable answer")
def test_causes_and_counts(samples, on_error):
    solver = mapgrad.get_solver(Refusing, SUBSET, on_error=on_error, merge=False)
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gaussian(), temperature=1e-3, samples=samples))
    theta = -random_theta(2, 2, 6).abs() - 1
    theta[0, 1, 0], theta[1, 1, 4] = 7.0, 9.0
    layer(theta)
    last = layer.last
    assert {row: str(cause) for row, cause in last.causes.items()} == {1: "entry 0", 3: "entry 4"}
    assert last.stats == solver.stats
    assert (last.stats["rows"], last.stats["failed"]) == (4 * samples, 2 * samples)
    assert last.seconds == last.stats["seconds"] > 0
    layer(theta[0, 0])
    assert not layer.last.causes
    assert (layer.last.stats["rows"], layer.last.stats["failed"]) == (samples, 0)


def test_causes_of_rows_with_problems_of_their_own():
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Refusing, None), mapgrad.IMLE(None), on_error="nan")
    theta = -random_theta(3, 6).abs() - 1
    theta[2, 0] = 7.0
    with pytest.warns(UserWarning, match="has no acceptable answer"):
        layer(theta, problems=[SUBSET, mapgrad.Knapsack([[1.0] * 6], [2.0]), SUBSET])
    assert [*layer.last.causes] == [2]
    assert (layer.last.stats["rows"], layer.last.stats["failed"]) == (3, 1)


def test_the_error_of_a_layer_has_the_counts_of_all_solves():
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Refusing, None), mapgrad.IMLE(None))
    theta = -random_theta(3, 6).abs() - 1
    theta[2, 0] = 7.0
    with pytest.raises(mapgrad.SolverCrashError) as caught:
        layer(theta, problems=[SUBSET, mapgrad.Knapsack([[1.0] * 6], [2.0]), SUBSET])
    assert [*caught.value.solutions.causes] == [2]
    assert (caught.value.solutions.stats["rows"], caught.value.solutions.stats["failed"]) == (3, 1)


def test_a_row_counts_as_solved_if_all_its_samples_are():
    z = torch.ones(3, 2, 4)
    z[1, 0, 2] = torch.nan
    solutions = mapgrad.Solutions(z, torch.ones(3, 2, dtype=torch.int64), samples=3)
    assert solutions.mask.tolist() == [False, True]
    assert mapgrad.Solutions(z[1], torch.ones(2, dtype=torch.int64)).mask.tolist() == [False, True]
    rows = [torch.tensor([1.0]), torch.tensor([torch.nan, 1.0])]
    assert mapgrad.Solutions(rows, torch.ones(2, dtype=torch.int64)).mask.tolist() == [True, False]


@pytest.mark.parametrize("samples", [1, 3])
def test_problems_of_different_shapes(samples):
    problems = [mapgrad.KSubset(5, 2), mapgrad.KSubset(8, 3), mapgrad.KSubset(5, 2)]
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(mapgrad.Gumbel(), samples=samples))
    theta = [random_theta(*problem.shape) for problem in problems]
    z = layer(theta, problems=problems)
    last = layer.last
    for found, answer in zip(last.z, z, strict=True):
        torch.testing.assert_close(found.mean(0) if samples > 1 else found, answer)
    assert last.mask.tolist() == [True] * 3
    whole = random_theta(3, 5)
    z = layer(whole, problems=[mapgrad.KSubset(5, k) for k in (1, 2, 1)])
    torch.testing.assert_close(layer.last.z.reshape(samples, 3, 5).mean(0), z)


def test_it_is_gone_after_a_call_that_failed_or_was_traced():
    layer = layer_of()
    theta = random_theta(4, 6)

    def fail():
        with pytest.raises(mapgrad.NonFiniteError):
            layer(theta * torch.nan)

    for call in (
        lambda: torch.vmap(layer, randomness="different")(theta),
        lambda: torch.func.vjp(layer, theta),
        fail,
    ):
        layer(theta)
        assert layer.last is not None
        call()
        assert layer.last is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_compiled_call_keeps_nothing():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None))
    theta = random_theta(4, 6)
    layer(theta)
    torch.compiler.reset()
    torch.compile(layer, fullgraph=True, backend="aot_eager")(theta)
    assert layer.last is None


def test_it_lives_no_longer_than_the_next_call_and_isnt_saved():
    layer = layer_of()
    theta = random_theta(4, 6)
    layer(theta)
    _, z, *_ = layer.monitor.last._pieces[0]
    kept = weakref.ref(z)
    del z, _
    before = io.BytesIO()
    torch.save(layer.state_dict(), before)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.last is None
    layer(theta)
    gc.collect()
    assert kept() is None
    after = io.BytesIO()
    torch.save(layer.state_dict(), after)
    assert len(after.getvalue()) == len(before.getvalue())


def test_it_holds_no_graph():
    layer = layer_of()
    layer(random_theta(4, 6).requires_grad_())
    assert not layer.last.z.requires_grad


def test_a_loss_over_the_rows_that_have_an_answer():
    layer = layer_of(samples=2)
    theta = random_theta(4, 6).requires_grad_()
    z = layer(theta)
    z[layer.last.mask].square().sum().backward()
    assert theta.grad.isfinite().all()


CHOICE = mapgrad.IntegerProgram(
    # two of six items; y_0 and y_1, which θ doesn't price, say whether an item of each half is among them
    A_ub=[[1, 1, 1, 0, 0, 0, -2, 0], [0, 0, 0, 1, 1, 1, 0, -2]],
    b_ub=[0, 0],
    A_eq=[[1, 1, 1, 1, 1, 1, 0, 0]],
    b_eq=[2],
    decision=range(6),
    fixed=[-0.01, -0.01],
)


def completed(z):
    """Return all variables of `CHOICE` for its states z [..., 6]."""
    z = z.double()
    return torch.cat([z, z.unflatten(-1, (2, 3)).amax(-1)], dim=-1)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("estimator", [mapgrad.IMLE, mapgrad.AdaptiveIMLE])
def test_variables_of_the_program(batch, samples, estimator):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", CHOICE), estimator(samples=samples), seed=0)
    theta = random_theta(*batch, 6).requires_grad_()
    layer(theta).sum().backward()  # a backward pass leaves them as they are
    last = layer.last
    assert last.variables.dtype == torch.float64
    assert last.variables.shape == (*last.z.shape[:-1], 8)
    assert torch.equal(last.variables, completed(last.z))
    layer.eval()(theta)
    assert torch.equal(layer.last.variables, completed(layer.last.z))
    assert torch.equal(layer.last.variables, layer.solver.solve(theta).variables)


def test_equal_rows_have_their_variables():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", CHOICE)).eval()
    layer(random_theta(2, 6)[[0, 1, 0, 0, 1]])
    assert layer.last.variables.shape == (5, 8)
    assert torch.equal(layer.last.variables, completed(layer.last.z))


def test_variables_of_a_batch_in_parts(monkeypatch):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", CHOICE, merge=False), mapgrad.IMLE(samples=2), seed=0)
    monkeypatch.setattr("mapgrad.gradients._parts._SMALL", 0)
    monkeypatch.setattr("mapgrad.gradients._parts._PART_BYTES", 100)
    layer(random_theta(7, 6))
    assert layer.last.variables.shape == (2, 7, 8)
    assert torch.equal(layer.last.variables, completed(layer.last.z))


def test_where_no_program_was_solved_there_are_no_variables():
    layer = layer_of()
    layer(random_theta(4, 6))
    assert layer.last.variables is None


@pytest.mark.parametrize("samples", [1, 3])
def test_variables_of_rows_with_problems_of_their_own(samples):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", None), mapgrad.IMLE(samples=samples), seed=0)
    other = mapgrad.IntegerProgram(A_eq=[[1] * 6], b_eq=[2])
    layer(random_theta(3, 6), problems=[CHOICE, mapgrad.KSubset(6, 2), other])
    first, second, third = layer.last.variables
    assert second is None  # "topk" solves it
    z = layer.last.z.reshape(samples, 3, 6)
    assert torch.equal(first.reshape(samples, 8), completed(z[:, 0]))
    assert torch.equal(third.reshape(samples, 6), z[:, 2].double())
    layer(
        random_theta(3, 6),
        problems=[CHOICE, CHOICE, mapgrad.IntegerProgram(A_eq=[[1] * 8], b_eq=[2], decision=range(6))],
    )
    assert layer.last.variables.shape[-2:] == (3, 8)
    z = layer.last.z.reshape(samples, 3, 6)
    assert torch.equal(layer.last.variables.reshape(samples, 3, 8)[:, :2], completed(z[:, :2]))


def test_variables_beside_rows_that_failed():
    never = mapgrad.IntegerProgram(A_eq=[[1, 1]], b_eq=[5])
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", None)).eval()
    with pytest.raises(mapgrad.RowsError) as caught:
        layer([random_theta(2), random_theta(6)], problems=[never, CHOICE])
    found = caught.value.solutions
    assert found.variables[0].isnan().all()
    assert torch.equal(found.variables[1], completed(found.z[1]))


class Averaging(mapgrad.IMLE):
    """States that are those of two solves, and so of no program."""

    def forward(self, theta, sampler, solve):
        rows = sampler.perturb(theta, self.temperature)
        answers = solve(torch.stack([rows, rows]))
        return mapgrad.Forward(answers.z.mean(0), answers.status[0])


class Careless(Averaging):
    def forward(self, theta, sampler, solve):
        rows = sampler.perturb(theta, self.temperature)
        answers = solve(torch.stack([rows, rows]))
        return mapgrad.Forward(answers.z[0], answers.status[0], variables=answers.variables)


def test_an_estimator_of_ones_own_says_whether_there_are_variables():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", CHOICE), Averaging(None))
    layer(random_theta(4, 6))
    assert layer.last.variables is None
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", CHOICE), Careless(None))
    with pytest.raises(mapgrad.ShapeError, match=r"as variables, where None or \[S · B, num_vars\] = \[4, num_vars\]"):
        layer(random_theta(4, 6))
