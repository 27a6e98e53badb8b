"""The layer under torch.compile, torch.vmap, torch.func and autocast, and second derivatives refused."""

import os
import shutil

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(3, 3)

ESTIMATORS = {
    "imle": lambda: mapgrad.IMLE(samples=3),
    "central": lambda: mapgrad.IMLE(target=mapgrad.Step(5.0), samples=2, symmetric=True),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(samples=2),
    "blackbox": lambda: mapgrad.Blackbox(5.0),
    "straight-through": lambda: mapgrad.StraightThrough(mapgrad.Gumbel(), samples=2),
}


def make_layer(estimator, **options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=3, **options)


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl"))
INDUCTOR = pytest.mark.skipif(not HAS_COMPILER, reason="inductor compiles C++, and no C++ compiler is installed")


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "aot_eager") for name in ESTIMATORS), pytest.param("adaptive", "inductor", marks=INDUCTOR)],
)
def test_compiled_training_equals_eager(name, backend):
    def train(compiled):
        torch.manual_seed(0)
        head = torch.nn.Linear(4, 6)
        layer = make_layer(ESTIMATORS[name]())

        def step(x):
            return ((layer(head(x)) - 0.3) ** 2).mean()

        run = torch.compile(step, fullgraph=True, backend=backend) if compiled else step
        optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
        losses, gradients = [], []
        for seed in range(4):
            loss = run(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            gradients.append(head.weight.grad.clone())
        return torch.stack(losses), torch.stack(gradients), layer.stats

    losses, gradients, stats = train(compiled=False)
    compiled_losses, compiled_gradients, compiled_stats = train(compiled=True)
    assert gradients.abs().sum() > 0
    torch.testing.assert_close(compiled_losses, losses)
    torch.testing.assert_close(compiled_gradients, gradients)
    for key in ("rows", "solves", "dead", "improvable"):
        assert compiled_stats[key] == stats[key]
    assert compiled_stats.get("beta") == stats.get("beta")


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_instance_solver_and_eval_mode():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("networkx.shortest_path", GRID), minimize=True)
    costs = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        layer.train(training)
        z = layer(costs)
        (expected,) = torch.autograd.grad((z * costs.detach() ** 2).sum(), costs)
        compiled_z = compiled(costs)
        (gradient,) = torch.autograd.grad((compiled_z * costs.detach() ** 2).sum(), costs)
        assert torch.equal(compiled_z, z)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("name", ["central", "imle", "blackbox"])
@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_vmap_equals_a_loop(name, in_dim):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS[name]())
    layer.estimator.noise = None
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), layer.estimator)
    theta = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1))

    def loss(rows):
        return ((layer(rows) - 0.3) ** 2).sum()

    gradient = torch.func.grad(loss)
    expected = torch.stack([gradient(rows) for rows in theta])
    assert expected.abs().sum() > 0
    moved = theta.movedim(0, in_dim)
    assert torch.equal(torch.vmap(gradient, in_dims=in_dim)(moved), expected)
    assert torch.equal(torch.vmap(layer, in_dims=in_dim)(moved), torch.stack([layer(rows) for rows in theta]))
    leaf = theta.clone().requires_grad_()
    torch.vmap(loss)(leaf).sum().backward()
    assert torch.equal(leaf.grad, expected)


def test_vmap_draws_other_noise_for_every_element():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=4), reduction="none", seed=0)
    z = torch.vmap(layer, randomness="different")(torch.zeros(20, 6))
    assert z.shape == (20, 4, 6)
    assert len(z.reshape(-1, 6).unique(dim=0)) > 8


def test_nested_vmap():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("networkx.shortest_path", GRID), minimize=True)
    theta = torch.rand(2, 3, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    gradient = torch.func.grad(lambda rows: (layer(rows) * rows).sum())
    assert torch.equal(
        torch.vmap(torch.vmap(gradient))(theta), torch.stack([torch.stack([gradient(r) for r in rs]) for rs in theta])
    )


def test_vmap_over_a_function_calls_it_batch_by_batch():
    seen = []

    def choose(theta):
        seen.append(tuple(theta.shape))
        return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)

    layer = mapgrad.MAPLayer(choose, mapgrad.Blackbox(1.0))
    theta = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.vmap(layer)(theta), mapgrad.get_solver("topk", SUBSET)(theta))
    assert seen == [(4, 6)] * 3


def test_func_grad_equals_autograd():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def loss(rows, layer):
        return (layer(rows) * torch.arange(6.0)).sum()

    expected = torch.func.grad(loss)(theta, make_layer(mapgrad.IMLE(samples=3)))
    leaf = theta.clone().requires_grad_()
    loss(leaf, make_layer(mapgrad.IMLE(samples=3))).backward()
    assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_second_derivatives_are_refused(name):
    layer = make_layer(ESTIMATORS[name]())
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss(rows):
        return ((layer(rows) - 0.3) ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.pow(2).sum().backward()
    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.pow(2).sum() + theta.sum(), theta)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.func.grad(lambda rows: torch.func.grad(loss)(rows).pow(2).sum())(theta.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_dtype_of_output_and_gradient(dtype, reduction):
    layer = make_layer(mapgrad.IMLE(samples=3), reduction=reduction)
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    z = layer(theta)
    assert z.dtype == dtype
    z.pow(2).sum().backward()
    assert theta.grad.dtype == dtype
    assert theta.grad.abs().sum() > 0


def test_noise_in_bfloat16_does_not_tie():
    # Perturbed in bfloat16, half of these rows would tie at the k-th place.
    problem = mapgrad.KSubset(1000, 100)
    rows = []

    def spy(theta):
        rows.append(theta)
        return torch.zeros_like(theta)

    spy.problem = problem
    mapgrad.MAPLayer(spy, mapgrad.IMLE(noise=mapgrad.Gumbel()))(torch.zeros(50, 1000, dtype=torch.bfloat16))
    assert rows[0].dtype == torch.float32
    ordered = rows[0].sort(descending=True).values
    assert (ordered[..., 99] > ordered[..., 100]).all()


def test_autocast():
    layer = make_layer(mapgrad.IMLE(noise=None))
    head = torch.nn.Linear(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layer(head(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))))
        assert z.dtype == torch.bfloat16
    (z.float() - 0.3).pow(2).mean().backward()
    assert head.weight.grad.dtype == torch.float32
    assert head.weight.grad.abs().sum() > 0
