"""Context: what a function in place of a solver takes beside θ."""

import functools

import pytest
import torch

import mapgrad

CAPACITIES = [1, 3, 2, 4]


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def choose(theta, capacities):
    """Choose as many entries of each row as its capacity says."""
    ranks = theta.argsort(dim=-1, descending=True).argsort(dim=-1)
    return (ranks < torch.as_tensor(capacities).reshape(-1, 1)).to(theta)


class Recorder:
    def __init__(self):
        self.calls = []

    def __call__(self, theta, *context, **named):
        self.calls.append((tuple(theta.shape), context, named))
        return choose(theta, CAPACITIES)


@pytest.mark.parametrize(("samples", "symmetric"), [(1, False), (3, False), (2, True)])
def test_a_function_gets_the_same_objects_in_both_directions(samples, symmetric):
    record = Recorder()
    layer = mapgrad.MAPLayer(record, mapgrad.IMLE(mapgrad.Gumbel(), samples=samples, symmetric=symmetric))
    theta = random_theta(4, 6).requires_grad_()
    graph, mask = object(), torch.ones(4, 6, requires_grad=True)
    layer(theta, graph, mask=mask, names=["a", None]).pow(2).sum().backward()
    assert len(record.calls) == samples * (2 + symmetric)
    for shape, context, named in record.calls:
        assert shape == (4, 6)
        assert context[0] is graph
        assert named["mask"] is mask
        assert named["names"] == ["a", None]
    assert mask.grad is None
    record.calls.clear()
    layer.eval()(theta)
    assert record.calls == [((4, 6), (), {})]


def test_capacities_of_rows():
    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(5.0)), seed=0)
    theta = random_theta(4, 6).requires_grad_()
    one = layer(theta, CAPACITIES)
    other = layer(theta, capacities=torch.tensor([5, 5, 5, 5]))
    assert one.sum(1).tolist() == CAPACITIES
    assert other.sum(1).tolist() == [5] * 4
    (one * random_theta(4, 6, seed=1)).sum().backward()  # goes on with its own capacities
    assert (theta.grad != 0).any()
    assert theta.grad.sum(1).abs().max() < 1e-6  # as many entries come as go


def test_n5_a_decorated_function_with_an_argument():
    @mapgrad.differentiable(mapgrad.IMLE(mapgrad.Gumbel(), samples=4))
    def f(theta, k, *, largest=True):
        return torch.zeros_like(theta).scatter_(-1, theta.topk(k, largest=largest).indices, 1)

    theta = random_theta(3, 5).requires_grad_()
    z = f(theta, 2)
    torch.testing.assert_close(z.sum(1), torch.full((3,), 2.0))
    (z * random_theta(3, 5, seed=1)).sum().backward()
    assert theta.grad.abs().sum() > 0
    f.eval()
    assert torch.equal(f(theta, k=1, largest=False).argmax(1), theta.argmin(1))


def test_a_decorated_method_with_an_argument():
    class Shop:
        prices = torch.arange(5.0)

        @mapgrad.differentiable(mapgrad.IMLE(None))
        def buy(self, theta, k):
            return torch.zeros_like(theta).scatter_(-1, (theta - self.prices).topk(k).indices, 1)

    assert Shop().buy(torch.zeros(2, 5), 2).tolist() == [[1, 1, 0, 0, 0]] * 2


def test_a_solver_made_by_get_solver_of_a_function_takes_it_too():
    problem = mapgrad.IntegerProgram(A_ub=torch.ones(1, 6).numpy(), b_ub=[6])
    layer = mapgrad.MAPLayer(mapgrad.get_solver(choose, problem), mapgrad.IMLE(None))
    assert layer(random_theta(2, 2, 6), CAPACITIES).sum(-1).tolist() == [[1, 3], [2, 4]]
    assert layer.stats["rows"] == 4


def test_a_distribution_takes_it_as_a_layer_does():
    theta = random_theta(4, 6).requires_grad_()
    found = {}
    for draw in (lambda layer: layer(theta, CAPACITIES), lambda layer: layer.distribution(theta, CAPACITIES).mean):
        layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(5.0), samples=3), seed=0)
        z = draw(layer)
        (z * random_theta(4, 6, seed=1)).sum().backward()
        found[draw] = z.detach(), theta.grad
        theta.grad = None
    for one, other in zip(*found.values(), strict=True):
        assert torch.equal(one, other)
    law = layer.distribution(theta, capacities=CAPACITIES)
    assert law.mode.sum(-1).tolist() == CAPACITIES
    assert law.rsample((5, 2)).sum(-1).tolist() == [[CAPACITIES] * 2] * 5
    assert not law.sample().requires_grad
    assert law.expand((1, 4)).sample().sum(-1).tolist() == [CAPACITIES]


def test_a_missing_argument_is_a_failure_of_the_function():
    with pytest.raises(mapgrad.SolverCrashError, match=r"choose has no .*missing 1 required positional argument"):
        mapgrad.MAPLayer(choose)(random_theta(4, 6))


@pytest.mark.parametrize(
    "call",
    [
        lambda layer, theta: layer(theta, 3),
        lambda layer, theta: layer(theta, mask=3),
        lambda layer, theta: layer.distribution(theta, mask=3),
    ],
)
@pytest.mark.parametrize("given", ["topk", "highs"])
def test_a_plugin_solver_refuses_it(call, given):
    layer = mapgrad.MAPLayer(mapgrad.get_solver(given, mapgrad.KSubset(6, 2)))
    with pytest.raises(TypeError, match=r"only a function in place of a solver takes context.*got .*problems=\[…\]"):
        call(layer, random_theta(4, 6))
    with pytest.raises(TypeError, match="takes context"):
        mapgrad.MAPLayer(mapgrad.get_solver("topk", None))(random_theta(2, 6), 3, problems=[mapgrad.KSubset(6, 2)] * 2)


@pytest.mark.parametrize("word", ["problems", "rows", "deadline"])
def test_reserved_words(word):
    scope = {}
    exec(f"def taken(theta, {word}): return theta\ndef method(self, theta, k=1, *, {word}=None): return theta", scope)
    for make in (
        lambda: mapgrad.MAPLayer(scope["taken"]),
        lambda: mapgrad.differentiable()(scope["taken"]),
        lambda: mapgrad.differentiable()(scope["method"]),
    ):
        with pytest.raises(TypeError, match=f"own words, so .* named {word}$"):
            make()
    scope = {}
    exec(f"def fine({word}, k): return {word}", scope)
    assert mapgrad.MAPLayer(scope["fine"], mapgrad.IMLE(None))(torch.zeros(2, 3), 1).shape == (2, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize(
    "transform",
    [
        functools.partial(torch.compile, fullgraph=True, backend="aot_eager"),
        torch.vmap,
        lambda call: torch.func.vjp(call, random_theta(4, 6)),
    ],
    ids=["compile", "vmap", "func"],
)
def test_traced_calls_refuse_it_with_a_reason(transform):
    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(None))
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"can't take context where .* see tensors only"):
        transform(lambda theta: layer(theta, [2]))(random_theta(4, 6))


def test_a_function_takes_context_but_no_problems():
    with pytest.raises(TypeError, match=r"problems= needs a solver from mapgrad\.get_solver"):
        mapgrad.MAPLayer(choose)(random_theta(2, 6), [1, 2], problems=[mapgrad.KSubset(6, 2)] * 2)


def test_non_finite_gradients_keep_the_context():
    layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(5.0)))
    theta = random_theta(4, 6).requires_grad_()
    upstream = random_theta(4, 6, seed=1)
    upstream[2, 0] = torch.nan
    layer(theta, CAPACITIES).backward(upstream)
    assert theta.grad[2].isnan().all()
    assert theta.grad[[0, 1, 3]].sum(1).abs().max() < 1e-6
