"""Every estimator under all that PyTorch does with a module: what it gives there is what it gives in a plain loop."""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import mapgrad
from mapgrad.gradients import Exact, FrankWolfe, Identity, Line, MultiFidelity, Perturbed, Pooled, Relative

SUBSET = mapgrad.KSubset(6, 2)
GUMBEL = mapgrad.Gumbel()
ESTIMATORS = {
    "IMLE": lambda: mapgrad.IMLE(samples=2),
    "IMLE, relative noise": lambda: mapgrad.IMLE(GUMBEL, samples=2, temperature=Relative(0.5)),
    "AdaptiveIMLE": lambda: mapgrad.AdaptiveIMLE(GUMBEL, samples=2, step=0.25),
    "Blackbox": lambda: mapgrad.Blackbox(5.0),
    "Identity": lambda: Identity("both", GUMBEL),
    "StraightThrough": lambda: mapgrad.StraightThrough(GUMBEL, samples=2),
    "Perturbed": lambda: Perturbed(samples=3),
    "Perturbed, multiplicative": lambda: Perturbed(samples=3, multiplicative=True),
    "FrankWolfe": lambda: FrankWolfe(2.0),
    "Line": lambda: Line(depth=1),
    "Pooled": lambda: Pooled(SUBSET),
    "MultiFidelity": lambda: MultiFidelity(SUBSET),
    "TwoSided": lambda: mapgrad.TwoSided(samples=2),
    "TwoSided, fresh noise": lambda: mapgrad.TwoSided(draws=3),
    "Exact": lambda: Exact(SUBSET),
}
CASES = [
    *((name, {}) for name in ESTIMATORS),
    *((name, {"normalize": True}) for name in ("IMLE", "Exact", "MultiFidelity")),
    *((name, {"reduction": "none", "minimize": True}) for name in ("AdaptiveIMLE", "Line")),
]
THETA = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0))
WISHES = torch.randn(6, generator=torch.Generator().manual_seed(5))
NO_SECOND = pytest.raises(RuntimeError, match="no second derivative")


def squares(run):
    return lambda theta: ((run(theta) - WISHES) ** 2).sum()


def weighted(run):
    return lambda theta: (run(theta) * WISHES).sum()


def gradient(run, theta):
    leaf = theta.clone().requires_grad_()
    squares(run)(leaf).backward()
    return leaf.grad


def steps(run, count=4):
    """Losses and gradients of some steps, over which what adapts adapts."""
    found = []
    for theta in THETA[:count]:
        leaf = theta.clone().requires_grad_()
        loss = squares(run)(leaf)
        loss.backward()
        found += [loss.detach(), leaf.grad]
    return found


def by_loop(make, function):
    return torch.stack([function(make(), theta) for theta in THETA])


def same(found, expected):
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def in_autocast(make):
    one, other, head = make(), make(), torch.nn.Linear(6, 6)
    for theta in THETA:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = head(theta)
            narrow.retain_grad()
            z = one(narrow)
            found = gradient(one, theta)
        leaf = narrow.detach().requires_grad_()
        expected = other(leaf)
        assert z.dtype == expected.dtype == torch.bfloat16
        assert torch.equal(z, expected)
        torch.testing.assert_close(found, gradient(other, theta))
        for answers in (z, expected):
            (answers.float() - WISHES).pow(2).sum().backward()
        assert torch.equal(narrow.grad, leaf.grad)
    assert head.weight.grad.dtype == torch.float32
    assert head.weight.grad.any()


def compiled(make, **options):
    compile_ = partial(torch.compile, fullgraph=True, backend="aot_eager", **options)
    one, other = make(), make()
    torch.testing.assert_close(steps(compile_(one)), steps(other))
    assert one.stats["rows"] == other.stats["rows"]


def differentiated_and_compiled(make):
    run = torch.compile(torch.func.grad(squares(make())), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(THETA[0]), gradient(make(), THETA[0]))


def mapped(make):
    found = torch.vmap(make(), in_dims=1, randomness="same")(THETA.movedim(0, 1))
    torch.testing.assert_close(found, by_loop(make, lambda layer, theta: layer(theta)))
    found = torch.vmap(torch.func.grad(squares(make())), randomness="same")(THETA)
    expected = by_loop(make, gradient)
    torch.testing.assert_close(found, expected)
    assert expected.any()
    leaf, layer = THETA.clone().requires_grad_(), make()
    torch.vmap(squares(layer), randomness="same")(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, expected)
    for _ in range(2):  # its state goes on
        assert torch.vmap(torch.func.grad(squares(layer)), randomness="different")(THETA).isfinite().all()


def mapped_in_eval_mode(make):
    layer = make().eval()
    assert torch.equal(torch.vmap(layer)(THETA), layer(THETA))
    found = torch.vmap(torch.func.grad(squares(layer)))(THETA)
    torch.testing.assert_close(found, by_loop(lambda: layer, gradient))


def differentiated(make):
    one, other = make(), make()
    for theta in THETA:
        torch.testing.assert_close(torch.func.grad(squares(one))(theta), gradient(other, theta))


def jacobian(make):
    layer, row = make().eval(), THETA[0, 0]
    expected = torch.stack([torch.func.grad(lambda theta, entry=entry: layer(theta)[entry])(row) for entry in range(6)])
    torch.testing.assert_close(torch.func.jacrev(layer)(row), expected)


def checkpointed(make):
    def train(run):
        torch.manual_seed(0)
        layer, head = make(), torch.nn.Linear(6, 6)
        found = []
        for theta in THETA:
            leaf = theta.clone().requires_grad_()
            squares(partial(run, lambda rows: 2 * layer(head(rows))))(leaf).backward()
            found += [leaf.grad, head.weight.grad.clone()]
        return [*found, *layer.state_dict().values()]

    expected = train(lambda function, rows: function(rows))
    for is_reentrant in (True, False):
        same(train(partial(checkpoint, use_reentrant=is_reentrant)), expected)


def copied(make):
    layer = make()
    steps(layer)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    expected = steps(layer)
    for twin in twins:
        same(steps(twin), expected)


def saved(make):
    layer, other, file = make(), make(), io.BytesIO()
    steps(layer)
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    same(steps(other), steps(layer))


def differentiated_twice(make):
    for training in (True, False):
        layer = make().train(training)
        for loss in (squares(layer), weighted(layer)):
            leaf = THETA[0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
            for wanted in (slope.sum(), slope.pow(2).sum() + leaf.sum()):
                with NO_SECOND:
                    torch.autograd.grad(wanted, leaf, retain_graph=True, allow_unused=True)
            with NO_SECOND:
                slope.sum().backward()
            with NO_SECOND:
                torch.func.grad(lambda theta, loss=loss: torch.func.grad(loss)(theta).sum())(THETA[0])
            with NO_SECOND:
                torch.func.jacrev(torch.func.jacrev(loss))(THETA[0, 0])


def exported(make):
    layer = make().eval()
    program = torch.export.export(layer, (THETA[0],))
    assert torch.equal(program.module()(THETA[1]), layer(THETA[1]))


CHECKS = {
    "autocast": in_autocast,
    "compile": compiled,
    "compile, any shape": partial(compiled, dynamic=True),
    "compile, func.grad": differentiated_and_compiled,
    "vmap": mapped,
    "vmap in eval mode": mapped_in_eval_mode,
    "func.grad": differentiated,
    "func.jacrev": jacobian,
    "checkpoint": checkpointed,
    "copies": copied,
    "state_dict": saved,
    "second derivative": differentiated_twice,
    "export": exported,
}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.filterwarnings("ignore:Perturbed has a gradient of 0 in passes without noise:UserWarning")
@pytest.mark.parametrize(
    "check", [pytest.param(name, marks=[pytest.mark.slow] if "compile, " in name else []) for name in CHECKS]
)
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda each: each if isinstance(each, str) else "-".join(each))
def test_an_estimator(name, options, check):
    def make():
        return mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS[name](), seed=3, **options)

    CHECKS[check](make)
