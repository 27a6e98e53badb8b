"""Activation checkpointing: a repeated forward pass has the noise and the step of the one that it repeats."""

import os
import pickle
import shutil
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import mapgrad
from mapgrad.gradients import _steps

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)
PROBLEMS = [mapgrad.KSubset(6, k) for k in (1, 2, 3)]

ESTIMATORS = {
    "imle": lambda: mapgrad.IMLE(samples=3),
    "drawn": lambda: mapgrad.IMLE(mapgrad.SumOfGamma(2.0, terms=5), samples=2),
    "late": lambda: mapgrad.IMLE(
        mapgrad.Gumbel(), mapgrad.Step(3.0), symmetric=False, temperature=0.0, target_temperature=1.0
    ),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, step=0.25, target=0.5),
    "adaptive, no noise": lambda: mapgrad.AdaptiveIMLE(None, step=0.25, norm="batch"),
}
COMPILED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl"))
INDUCTOR = pytest.mark.skipif(not HAS_COMPILER, reason="inductor compiles C++, and no C++ compiler is installed")


def plain(function, x):
    return function(x)


def selective(function, x):
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)


RUNS = {
    "reentrant": partial(checkpoint, use_reentrant=True),
    "not reentrant": partial(checkpoint, use_reentrant=False),
    "selective": selective,
}


def train(estimator, run, seed, arrange, *, wrap=lambda function: function, noisy=True):
    """All that three steps of a network leave behind: answers, gradients, state, and torch's generator."""
    torch.manual_seed(0)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator(), seed=seed)
    heads = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(4))  # a shared one's gradient has no fixed order
    optimizer = torch.optim.SGD(heads.parameters(), lr=0.5)

    def first(x):
        z = layer(heads[0](x)) + 2 * layer(heads[1](x))
        return z + torch.rand(6) if noisy else z

    def second(x):
        z = layer(heads[2](x)) * layer(heads[3](x))
        return z * torch.rand(6) if noisy else z

    call = wrap(lambda x: arrange(first, second, run, x))
    found = []
    for number in range(3):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number)).requires_grad_()
        z = call(x)
        ((z - 0.1 * torch.arange(6.0)) ** 2).sum().backward()
        found += [z.detach(), x.grad, *(head.weight.grad.clone() for head in heads)]
        optimizer.step()
        optimizer.zero_grad()
    assert all(gradient.abs().sum() > 0 for gradient in found[1:6])
    return [*found, torch.rand(3), *layer.state_dict().values()]


ARRANGEMENTS = {
    "one region": lambda first, second, run, x: run(lambda y: second(first(y)), x),
    "two regions": lambda first, second, run, x: run(second, run(first, x)),
    "nested": lambda first, second, run, x: run(lambda y: run(second, run(first, y)), x),
}


def assert_equal(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad"
)  # torch's, of the inner one of reentrant ones
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_a_checkpoint_changes_nothing(name, seed, arrangement):
    arrange = ARRANGEMENTS[arrangement]
    expected = train(ESTIMATORS[name], plain, seed, arrange)
    if "adaptive" in name:
        assert float(expected[-3]) != 1.0
    for run in RUNS.values():
        assert_equal(train(ESTIMATORS[name], run, seed, arrange), expected)


CHOSEN = [("imle", 3), ("drawn", None), ("adaptive", 3), ("adaptive, no noise", None)]
OTHERS = [("imle", None), ("drawn", 3), ("adaptive", None), ("adaptive, no noise", 3)]


@COMPILED
@pytest.mark.parametrize(
    ("name", "seed"), [*CHOSEN, *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS)]
)
def test_a_compiled_checkpoint_changes_nothing(name, seed):
    torch._dynamo.reset()
    arrange = ARRANGEMENTS["one region"]
    expected = train(ESTIMATORS[name], plain, seed, arrange)
    compiled = partial(torch.compile, fullgraph=True, backend="aot_eager_decomp_partition")
    assert_equal(train(ESTIMATORS[name], RUNS["not reentrant"], seed, arrange, wrap=compiled), expected)


@pytest.mark.slow
@COMPILED
@INDUCTOR
def test_a_checkpoint_compiled_by_inductor_changes_nothing():
    torch._dynamo.reset()
    arrange, compiled = ARRANGEMENTS["one region"], partial(torch.compile, fullgraph=True)
    expected, found = (
        train(ESTIMATORS["adaptive"], run, 3, arrange, wrap=compiled, noisy=False)
        for run in (plain, RUNS["not reentrant"])
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(8, 10, 3), (5, 4, 1)])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_second_step_of_a_seeded_layer(shape, use_reentrant):
    count, n, k = shape

    def second_gradient(run):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(n, k)), mapgrad.IMLE(), seed=0)
        x = torch.randn(count, n, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for _ in range(2):
            x.grad = None
            (run(layer, x) * torch.arange(float(n))).sum().backward()
        assert layer.keys.step == 2
        return x.grad

    expected = second_gradient(plain)
    assert expected.abs().sum() > 0
    assert torch.equal(second_gradient(partial(checkpoint, use_reentrant=use_reentrant)), expected)


@pytest.mark.parametrize("name", ["imle", "adaptive"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_checkpoint_with_problems_changes_nothing(name, kind):
    def steps(run):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), ESTIMATORS[name](), seed=2)
        found = []
        for number in range(3):
            x = torch.randn(6, 6, generator=torch.Generator().manual_seed(number)).requires_grad_()
            z = run(lambda theta: layer(theta, problems=PROBLEMS * 2, rows=range(5, 11)), x)
            (z * torch.arange(6.0)).sum().backward()
            found += [z.detach(), x.grad]
        return [*found, *layer.state_dict().values()]

    assert_equal(steps(RUNS[kind]), steps(plain))


@pytest.mark.parametrize("kind", RUNS)
def test_a_generator_that_is_reseeded_each_step(kind):
    def steps(run):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=4), seed=2)
        found = []
        for _ in range(3):
            torch.manual_seed(0)
            x = torch.zeros(4, 6, requires_grad=True)
            (run(layer, x) * torch.arange(6.0)).sum().backward()
            found.append(x.grad)
        return found

    expected = steps(plain)
    assert not torch.equal(expected[0], expected[1])
    assert_equal(steps(RUNS[kind]), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize(("name", "seed"), [("imle", 3), ("imle", None), ("adaptive, no noise", None)])
def test_a_generator_that_is_not_restored(use_reentrant, name, seed):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS[name](), seed=seed)
    x = torch.zeros(4, 6, requires_grad=True)
    z = checkpoint(layer, x, use_reentrant=use_reentrant, preserve_rng_state=False)
    with pytest.raises(RuntimeError, match="leave preserve_rng_state=True"):
        z.square().sum().backward()


def test_without_noise_no_generator_is_asked():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None), seed=3)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.manual_seed(1)
    z = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
    (z * torch.arange(6.0)).sum().backward()
    assert x.grad.abs().sum() > 0
    assert layer.keys.step == 0
    found = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(2))


def test_a_pass_that_is_too_long_ago(monkeypatch):
    monkeypatch.setattr(_steps, "_REMEMBERED", 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(), seed=3)

    def gradient(calls):
        x = torch.zeros(4, 6, requires_grad=True)
        z = checkpoint(layer, x, use_reentrant=False)
        for _ in range(calls):
            checkpoint(layer, x, use_reentrant=False)
        z.square().sum().backward()
        return x.grad

    assert gradient(1).shape == (4, 6)
    with pytest.raises(RuntimeError, match="one of its last"):
        gradient(2)


def test_a_number_that_is_noted_again_is_a_late_one(monkeypatch):
    monkeypatch.setattr(_steps, "_REMEMBERED", 2)
    recent = _steps.Recent()
    for number, value in ((1, "a"), (2, "b"), (1, "c"), (3, "d")):
        recent.note(number, value)
    assert (recent.find(1), recent.find(3)) == ("c", "d")
    with pytest.raises(RuntimeError, match="one of its last"):
        recent.find(2)


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("problems", [None, [GRID] * 3], ids=["one", "each"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", RUNS)
def test_a_repeated_pass_counts_once_and_leaves_the_last_answers(kind, training, problems, seed):
    def stats(run):
        torch.manual_seed(0)
        solver = mapgrad.get_solver("scipy.shortest_path", GRID)
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel()), seed=seed).train(training)
        x = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        z = run(lambda theta: layer(theta, problems=problems), x)
        other = layer(x[:2].detach() - 5, problems=problems and problems[:2])
        z.square().sum().backward()
        assert torch.equal(layer.last.z, other)
        return layer.stats["clipped"], layer.stats["clipped_backward"]

    clipped, backward = stats(plain)
    assert clipped >= 3
    assert stats(RUNS[kind]) == (clipped, backward)


@COMPILED
def test_a_repeated_pass_that_is_compiled_counts_once():
    def clipped(run):
        torch._dynamo.reset()
        layer = mapgrad.MAPLayer(mapgrad.get_solver("scipy.shortest_path", GRID), mapgrad.IMLE(None))
        x = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        call = torch.compile(lambda theta: run(layer, theta), fullgraph=True, backend="aot_eager_decomp_partition")
        call(x).square().sum().backward()
        return layer.stats["clipped"]

    assert clipped(RUNS["not reentrant"]) == clipped(plain) == 3


def test_evaluation_moves_no_adaptive_step():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS["adaptive"](), seed=3)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (layer(x) * torch.arange(6.0)).sum().backward()
    layer.eval()
    for run in (plain, *RUNS.values()):
        (run(layer, x) * torch.arange(6.0)).sum().backward()
        assert float(layer.estimator.target.beta) == 1.0
    layer.train()(x)
    assert float(layer.estimator.target.beta) != 1.0
    assert layer.keys.step == 2


def test_copies_remember_no_pass():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), ESTIMATORS["adaptive"](), seed=3)
    size = len(pickle.dumps(layer))
    for _ in range(50):
        layer(torch.zeros(4, 6))
    assert len(pickle.dumps(layer)) < size + 100


SEEDED = {
    "one side": lambda: mapgrad.IMLE(samples=3, symmetric=False),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, step=0.25, target=0.5, symmetric=False),
    "drawn": lambda: mapgrad.IMLE(mapgrad.SumOfGamma(2.0, terms=5), samples=2),
}


def branches(run, estimator, *, rows=None, order=(0, 1), steps=1, problems=None):
    """Gradients of two branches of a seeded layer, before each of which torch's generator is set back."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator(), seed=3)
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) if rows is None else rows
    leaves = [theta.clone().requires_grad_(), (theta.flip(0) if rows is None else theta.clone()).requires_grad_()]

    def branch(leaf):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return run(lambda y: layer(y, problems=problems), leaf)

    for _ in range(steps):
        answers = [branch(leaf) for leaf in leaves]
        for number in order:
            ((answers[number] - 0.1 * torch.arange(6.0)) ** 2).sum().backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_branches_between_which_the_generator_is_set_back(name, kind, order):
    expected = branches(plain, SEEDED[name], order=order, steps=2)
    assert expected[0].abs().sum() > 0
    assert_equal(branches(RUNS[kind], SEEDED[name], order=order, steps=2), expected)


@pytest.mark.parametrize("kind", RUNS)
def test_such_branches_with_problems(kind):
    found = branches(RUNS[kind], SEEDED["one side"], problems=PROBLEMS[:2] * 2)
    assert_equal(found, branches(plain, SEEDED["one side"], problems=PROBLEMS[:2] * 2))


@COMPILED
def test_such_branches_compiled():
    torch._dynamo.reset()
    expected = branches(plain, SEEDED["one side"], order=(1, 0))

    @partial(torch.compile, backend="aot_eager_decomp_partition")
    def run(layer, leaf):
        return checkpoint(layer, leaf, use_reentrant=False)

    assert_equal(branches(run, SEEDED["one side"], order=(1, 0)), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_branches_that_nothing_tells_apart_are_refused(use_reentrant):
    with pytest.raises(RuntimeError, match="which of several training passes"):
        branches(partial(checkpoint, use_reentrant=use_reentrant), SEEDED["one side"], rows=torch.zeros(4, 6))
