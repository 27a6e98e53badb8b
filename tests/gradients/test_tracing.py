"""The layer under torch.vmap, torch.func, torch.compile and torch.export: the same steps everywhere."""

import os
import shutil

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)


def top2(theta):
    return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)


class Drawn:
    """A law without quantiles, as a user writes one."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


UNREPEATABLE = mapgrad.SumOfGamma(2.0, terms=5)
SOLVERS = {
    "batch": lambda: mapgrad.get_solver("topk", SUBSET),
    "host": lambda: mapgrad.get_solver("networkx.shortest_path", GRID),
    "function": lambda: top2,
}
ESTIMATORS = {
    "imle": lambda: mapgrad.IMLE(samples=3),
    "unrepeatable": lambda: mapgrad.IMLE(UNREPEATABLE, mapgrad.Step(5.0), samples=2),
    "late": lambda: mapgrad.IMLE(Drawn(), mapgrad.Step(3.0), temperature=0.0, target_temperature=1.0),
    "central": lambda: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(5.0), samples=2, symmetric=True),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, step=0.1),
    "adaptive-batch": lambda: mapgrad.AdaptiveIMLE(None, norm="batch"),
    "blackbox": lambda: mapgrad.Blackbox(5.0),
    "straight-through": lambda: mapgrad.StraightThrough(mapgrad.Gumbel(), samples=2),
}
QUIET = {
    "central": lambda: mapgrad.IMLE(None, mapgrad.Step(5.0), symmetric=True),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(None),
    "adaptive-batch": lambda: mapgrad.AdaptiveIMLE(None, norm="batch"),
    "blackbox": lambda: mapgrad.Blackbox(5.0),
    "straight-through": lambda: mapgrad.StraightThrough(),
}
CASES = [
    *(("batch", name, {}) for name in ESTIMATORS),
    ("host", "imle", {"minimize": True}),
    ("host", "adaptive", {"reduction": "none"}),
    ("function", "central", {}),
    ("batch", "adaptive", {"reduction": "none", "minimize": True}),
]
COMPILED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl"))
INDUCTOR = pytest.mark.skipif(not HAS_COMPILER, reason="inductor compiles C++, and no C++ compiler is installed")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def make_layer(estimator, solver="batch", *, seed=3, **options):
    return mapgrad.MAPLayer(SOLVERS[solver](), estimator, seed=seed, **options)


def theta_for(solver, *batch, seed=0):
    shape = GRID.shape if solver == "host" else SUBSET.shape
    return torch.randn(*batch, *shape, generator=torch.Generator().manual_seed(seed))


def squares(layer):
    """A loss that a user writes, with another slope for each entry."""

    def loss(theta):
        z = layer(theta)
        return ((z - 0.1 * torch.arange(theta.numel()).reshape(theta.shape)) ** 2).mean() * theta.shape[0]

    return loss


def compiled(function, **options):
    return torch.compile(function, **{"fullgraph": True, "backend": "aot_eager", **options})


def steps(run, theta, count=3):
    """Losses and gradients of a few steps of descent."""
    found = []
    for _ in range(count):
        leaf = theta.clone().requires_grad_()
        loss = run(leaf)
        loss.backward()
        found += [loss.detach(), leaf.grad]
        theta = theta - leaf.grad
    return found


def assert_equal(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@COMPILED
@pytest.mark.parametrize(("solver", "name", "options"), CASES)
def test_compiled_steps_equal_eager_ones(solver, name, options):
    theta = theta_for(solver, 4, 3)
    eager, traced = (make_layer(ESTIMATORS[name](), solver, **options) for _ in range(2))
    expected = steps(squares(eager), theta)
    assert expected[1].abs().sum() > 0
    assert_equal(steps(compiled(squares(traced)), theta), expected)
    counts, traced_counts = eager.stats, traced.stats
    assert counts.pop("seconds") > 0
    assert traced_counts.pop("seconds") > 0
    assert traced_counts == counts
    assert traced.get_extra_state().tolist() == eager.get_extra_state().tolist()


@COMPILED
@INDUCTOR
def test_compiled_by_inductor():
    theta = theta_for("host", 4)
    expected = steps(squares(make_layer(ESTIMATORS["adaptive"](), "host")), theta)
    layer = make_layer(ESTIMATORS["adaptive"](), "host")
    for found, wanted in zip(steps(compiled(squares(layer), backend="inductor"), theta), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@COMPILED
@pytest.mark.parametrize("name", ["imle", "adaptive"])
def test_compiled_with_a_batch_of_any_size(name):
    eager, traced = (squares(make_layer(ESTIMATORS[name]())) for _ in range(2))
    run = compiled(traced, dynamic=True)
    for batch in ((4,), (7,), (2, 3)):
        assert_equal(steps(run, theta_for("batch", *batch), 1), steps(eager, theta_for("batch", *batch), 1))


@COMPILED
@pytest.mark.parametrize(
    "make", [*QUIET.values(), ESTIMATORS["imle"], lambda: mapgrad.FrankWolfe(2.0)], ids=[*QUIET, "imle", "frank-wolfe"]
)
def test_compiled_gradient_of_theta_itself(make):
    eager, traced = (torch.func.grad(squares(make_layer(make()))) for _ in range(2))
    theta = theta_for("batch", 3)
    expected = eager(theta)
    assert expected.abs().sum() > 0
    assert torch.equal(compiled(traced)(theta), expected)


@COMPILED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes(dtype):
    theta = theta_for("batch", 5, 3).to(dtype)
    gradient = torch.func.grad(squares(make_layer(QUIET["central"]())))
    expected = torch.stack([gradient(rows) for rows in theta])
    assert expected.dtype == dtype
    assert expected.abs().sum() > 0
    assert torch.equal(torch.vmap(gradient)(theta), expected)
    assert torch.equal(compiled(gradient)(theta[0]), expected[0])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", QUIET)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_vmap_of_grad_equals_a_loop(solver, name, reduction):
    layers = []

    def loss(theta):
        layers.append(make_layer(QUIET[name](), solver, reduction=reduction))  # another would adapt from call to call
        return squares(layers[-1])(theta)

    theta = theta_for(solver, 2, 3, 4)
    gradient = torch.func.grad(loss)
    expected = torch.stack([torch.stack([gradient(rows) for rows in group]) for group in theta])
    assert expected.abs().sum() > 0
    assert torch.equal(torch.vmap(torch.vmap(gradient))(theta), expected)
    assert torch.equal(torch.vmap(torch.vmap(gradient), in_dims=-1)(theta.movedim(0, -1)), expected)
    assert torch.equal(
        torch.vmap(torch.vmap(gradient, in_dims=1), in_dims=-1)(theta.movedim((0, 1), (-1, 1))), expected
    )
    leaf = theta.clone().requires_grad_()
    torch.vmap(torch.vmap(loss))(leaf).sum().backward()
    assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize(("name", "solves"), [("central", 3), ("adaptive", 3), ("adaptive-batch", 2)])  # by noise
def test_a_function_gets_whole_batches_of_an_element_at_a_time(name, solves):
    seen = []

    def choose(theta):
        seen.append(tuple(theta.shape))
        return top2(theta)

    layer = mapgrad.MAPLayer(choose, ESTIMATORS[name]())
    leaf = theta_for("function", 3, 4).requires_grad_()
    torch.vmap(squares(layer), randomness="different")(leaf).sum().backward()
    samples = layer.estimator.samples
    assert seen == [(4, 6)] * (3 * samples * solves)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_map_of_nothing(name):
    layer = make_layer(ESTIMATORS[name]())
    leaf = torch.zeros(0, 3, 6, requires_grad=True)
    torch.vmap(layer, randomness="different")(leaf).sum().backward()
    assert leaf.grad.shape == (0, 3, 6)


def by_loop(layer, theta):
    """∂z/∂θ, one row of the Jacobian after the other."""
    leaf = theta.clone().requires_grad_()
    z = layer(leaf)
    rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in z.flatten()]
    return torch.stack(rows).reshape(*z.shape, *theta.shape)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_jacobians_equal_a_loop(solver, name, reduction):
    layers = [make_layer(ESTIMATORS[name](), solver, reduction=reduction) for _ in range(5)]
    theta = theta_for(solver, 2)
    expected = by_loop(layers[0], theta)
    assert expected.abs().sum() > 0
    assert torch.equal(torch.func.jacrev(layers[1])(theta), expected)
    assert torch.equal(torch.autograd.functional.jacobian(layers[2], theta), expected)
    z, pull_back = torch.func.vjp(layers[3], theta)
    slope = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    leaf = theta.clone().requires_grad_()
    assert torch.equal(pull_back(slope)[0], torch.autograd.grad(layers[4](leaf), leaf, slope)[0])


@COMPILED
def test_compiled_jacobian():
    layer = make_layer(QUIET["blackbox"]())
    theta = theta_for("batch", 2)
    assert torch.equal(compiled(torch.func.jacrev(layer))(theta), by_loop(layer, theta))


class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer(QUIET["blackbox"](), "host", minimize=True)

    def forward(self, theta):
        return self.layer(theta) + self.layer.solver(theta)


@COMPILED
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_export(strict, training):
    model = Both().train(training)
    theta = theta_for("host", 4)
    expected = model(theta.flip(0))
    program = torch.export.export(model, (theta,), strict=strict)
    assert torch.equal(program.module()(theta.flip(0)), expected)


def test_make_fx():
    layer = make_layer(QUIET["central"]())
    gradient = torch.func.grad(squares(layer))
    theta = theta_for("batch", 4)
    expected = gradient(theta.flip(0))
    assert expected.abs().sum() > 0
    traced = make_fx(gradient)(theta)
    assert torch.equal(traced(theta.flip(0)), expected)
    assert "mapgrad.gradient" in traced.code


MAPPED = [(), (1,), (0, 1)]


@pytest.mark.parametrize(
    ("solver", "name", "options", "mapped"),
    [(*case, MAPPED[number % 3]) for number, case in enumerate(CASES)]
    + [("host", "imle", {}, each) for each in MAPPED],
)
def test_opcheck(solver, name, options, mapped):
    layer = make_layer(ESTIMATORS[name](), solver, **options).eval()  # in training, one that adapts isn't pure
    work = layer.solver.at_work()
    theta = theta_for(solver, *(2,) * len(mapped), 3)
    key = None if layer.estimator.noise_for(work.problem) is None else torch.tensor(5)
    layer.estimator.begin(5)
    rest = key, None, list(mapped), layer.estimator.samples, layer.reduction == "mean", layer.handle, work.handle
    output, *found = torch.ops.mapgrad.forward(theta, *rest)
    slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    torch.library.opcheck(torch.ops.mapgrad.gradient.default, (slope, theta, *found, *rest))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.ops.mapgrad.gradient(slope.requires_grad_(), theta, *found, *rest).sum().backward()
    torch.library.opcheck(torch.ops.mapgrad.forward.default, (theta, *rest))
    torch.library.opcheck(torch.ops.mapgrad.forward.default, (theta.requires_grad_(), *rest))


def test_opcheck_of_a_key():
    layer = make_layer(mapgrad.IMLE(), seed=None)  # with a seed, it counts steps
    torch.library.opcheck(
        torch.ops.mapgrad.key.default, (torch.empty((), dtype=torch.int64), [torch.randn(4, 6)], layer.handle)
    )


NOISY = {
    "imle": lambda: mapgrad.IMLE(mapgrad.Gumbel(), samples=4),
    "unrepeatable": lambda: mapgrad.IMLE(UNREPEATABLE, samples=4),
    "drawn": lambda: mapgrad.AdaptiveIMLE(Drawn(), samples=4),
    "late": lambda: mapgrad.IMLE(Drawn(), samples=4, temperature=0.0, target_temperature=1.0),
}
EQUAL_ROWS = theta_for("batch", 1, 1, 3).expand(5, 4, 3, 6)


@pytest.mark.parametrize("name", NOISY)
def test_vmap_says_what_to_do_about_noise(name):
    layer = make_layer(NOISY[name]())
    message = r"draws noise.*randomness='error': pass randomness='different' .* or 'same'"
    for function in (layer, torch.func.grad(squares(layer))):
        with pytest.raises(RuntimeError, match=message):
            torch.vmap(function)(EQUAL_ROWS[0])
        with pytest.raises(RuntimeError, match=message):
            torch.vmap(torch.vmap(function), randomness="different")(EQUAL_ROWS)
    assert torch.vmap(layer.eval())(EQUAL_ROWS[0]).shape == (4, 3, 6)


def is_same(values, dim):
    return torch.equal(values, values.narrow(dim, 0, 1).expand_as(values))


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("seed", [3, None])
def test_randomness_of_nested_maps(name, seed):
    for outer in ("same", "different"):
        for inner in ("same", "different"):
            torch.manual_seed(0)
            layer = make_layer(NOISY[name](), seed=seed)
            gradient = torch.func.grad(squares(layer))
            found = torch.vmap(torch.vmap(gradient, randomness=inner), randomness=outer)(EQUAL_ROWS)
            assert found.abs().sum() > 0
            assert is_same(found, 0) == (outer == "same")
            assert is_same(found, 1) == (inner == "same")


@pytest.mark.parametrize("name", NOISY)
def test_rows_that_share_their_noise_have_the_values_of_one_call(name):
    theta = theta_for("batch", 5, 3)
    found = torch.vmap(torch.func.grad_and_value(squares(make_layer(NOISY[name]()))), randomness="same")(theta)
    gradient, loss = torch.func.grad_and_value(squares(make_layer(NOISY[name]())))(theta[0])
    assert torch.equal(found[0][0], gradient)
    assert torch.equal(found[1][0], loss)


@pytest.mark.parametrize("name", ["imle", "unrepeatable"])
def test_samples_under_each_randomness(name):
    def draw(randomness):
        layer = make_layer(NOISY[name](), reduction="none")
        return torch.vmap(layer, randomness=randomness)(torch.zeros(40, 2, 6))

    different, same = draw("different"), draw("same")
    assert same.shape == different.shape == (40, 4, 2, 6)
    assert is_same(same, 0)
    assert not torch.equal(same[:, :, 0], same[:, :, 1])
    assert len(same[0].flatten(0, 1).unique(dim=0)) > 3
    assert len(different.flatten(0, 2).unique(dim=0)) == 15


@COMPILED
@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize("name", ["adaptive", "unrepeatable", "straight-through"])
def test_compiled_map_of_a_layer(name, randomness):
    def train(run_by):
        layer = make_layer(ESTIMATORS[name](), reduction="none")
        mapped = torch.vmap(lambda rows: layer(rows), randomness=randomness)
        return steps(run_by(squares(lambda theta: mapped(theta).mean(1))), theta_for("batch", 4, 3))

    expected = train(lambda loss: loss)
    assert expected[1].abs().sum() > 0
    assert_equal(train(compiled), expected)


@COMPILED
def test_compiled_calls_draw_other_noise_that_a_seed_brings_back():
    layer = make_layer(mapgrad.IMLE(mapgrad.Gumbel()), seed=None)
    theta = torch.zeros(20, 6)
    difference = compiled(lambda rows: layer(rows) - layer(rows))
    torch.manual_seed(1)
    first, second = difference(theta), difference(theta)
    assert first.abs().sum() > 0
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(difference(theta), first)
    torch.manual_seed(1)
    assert torch.equal(layer(theta) - layer(theta), first)


@COMPILED
def test_a_compiled_map_without_randomness_says_what_to_do():
    layer = make_layer(mapgrad.IMLE())
    with pytest.raises(Exception, match="pass randomness='different'"):
        compiled(torch.vmap(lambda rows: layer(rows)))(EQUAL_ROWS[0])


@COMPILED
def test_a_gradient_in_a_compiled_map_is_refused():
    loss = squares(make_layer(QUIET["blackbox"]()))
    message = r"torch.compile can't take the gradient of a MAP layer inside torch.vmap.*Leave out"
    with pytest.raises(Exception, match=message):
        compiled(torch.vmap(torch.func.grad(loss)))(EQUAL_ROWS[0])
    with pytest.raises(Exception, match=message):
        compiled(torch.func.grad(lambda theta: torch.vmap(loss)(theta).sum()))(EQUAL_ROWS[0])


@pytest.mark.parametrize("name", ["central", "straight-through"])
def test_batched_gradients_of_the_old_kind_are_refused(name):
    layer = make_layer(QUIET[name]())
    theta = theta_for("batch", 2).requires_grad_()
    z = layer(theta)
    message = r"can't take is_grads_batched=True.*take torch.func.jacrev"
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(z, theta, torch.eye(12).reshape(12, 2, 6), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.functional.jacobian(layer, theta, vectorize=True)


@COMPILED
def test_forward_mode_is_refused():
    layer = make_layer(QUIET["blackbox"]())
    theta = theta_for("batch", 2)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(layer, (theta,), (theta,))
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.hessian(squares(layer))(theta)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp"):
        layer(torch.autograd.forward_ad.make_dual(theta, theta))


class Fussy(mapgrad.InstanceSolver):
    """Finds nothing where the first entry is positive."""

    def solve(self, state, theta, request):
        if theta[0] > 0:
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        return z


@COMPILED
@pytest.mark.parametrize("transform", [compiled, torch.vmap], ids=["compile", "vmap"])
def test_errors_of_a_solver_reach_the_caller(transform):
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Fussy, SUBSET), mapgrad.Blackbox(5.0))
    run = transform(lambda rows: layer(rows))
    theta = -theta_for("batch", 3, 2).abs()
    assert torch.equal(run(theta), layer(theta))
    leaf = theta.clone().requires_grad_()
    z = run(leaf)
    with pytest.raises(mapgrad.InfeasibleError, match=r"row 3 \(index \(1, 1\)\) \(1 of 6\)"):
        (z * torch.tensor([0.0, 0, 0, -9, 0, 0]).reshape(3, 2, 1)).sum().backward()
    for value, error in ((1.0, mapgrad.InfeasibleError), (torch.nan, mapgrad.NonFiniteError)):
        theta[1, 0, 0] = value
        with pytest.raises(error, match=r"row 2 \(index \(1, 0\)\) \(1 of 6\)"):
            run(theta)


@COMPILED
def test_many_layers_through_one_compiled_function_want_a_higher_limit():
    layers = [
        mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(20, k + 1)), mapgrad.IMLE(None)) for k in range(12)
    ]
    run = torch.compile(lambda layer, theta: layer(theta), fullgraph=True, backend="aot_eager")
    theta = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    with torch._dynamo.config.patch(recompile_limit=len(layers)):
        assert [run(layer, theta).sum(-1).tolist() for layer in layers] == [[k + 1] * 2 for k in range(12)]


@COMPILED
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, too
@pytest.mark.parametrize("problems", [None, [mapgrad.KSubset(6, k) for k in (1, 2, 1, 3)]], ids=["one", "each"])
@pytest.mark.parametrize("estimator", [mapgrad.IMLE, mapgrad.AdaptiveIMLE])
def test_compiled_autograd_goes_back_through_an_eager_layer(estimator, problems):
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def gradient(back):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)), estimator(), seed=3)
        found = []
        for _ in range(2):
            leaf = theta.clone().requires_grad_()
            back((layer(leaf, problems=problems) * torch.arange(6.0)).sum())
            found.append(leaf.grad)
        return torch.stack(found)

    torch._dynamo.reset()
    expected = gradient(torch.Tensor.backward)
    assert expected.abs().sum() > 0
    with torch._dynamo.config.patch(compiled_autograd=True):
        assert torch.equal(gradient(torch.compile(torch.Tensor.backward, backend="eager")), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_mapped_layer_compiles_by_itself():
    torch._dynamo.reset()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)), mapgrad.IMLE(None))
    theta = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(torch.vmap(layer, randomness="different"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(theta), layer(theta))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_problems_break_a_compiled_graph_for_a_reason():
    problems = [mapgrad.KSubset(6, k) for k in (1, 2)] * 2
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(None))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="problems= can't be compiled, as problems aren't tensors"):
        torch.compile(layer, fullgraph=True, backend="aot_eager")(theta, problems=problems)
    torch._dynamo.reset()
    assert torch.equal(
        torch.compile(layer, backend="aot_eager")(theta, problems=problems), layer(theta, problems=problems)
    )
