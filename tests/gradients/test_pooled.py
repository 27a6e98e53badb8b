"""The estimators that ask a pool: `Pooled` and `MultiFidelity`."""

import copy
import io
import math
import pickle
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import mapgrad
from mapgrad.exact import enumerate_states, topk_marginals
from mapgrad.gradients import _parts
from mapgrad.gradients.estimators import _with_pool
from mapgrad.gradients.estimators._with_pool import Snapshot
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)
PROBLEMS = [SUBSET, mapgrad.Assignment(3), mapgrad.Knapsack([[3, 2, 4, 1]], [5])]
ESTIMATORS = {
    "pooled": mapgrad.Pooled,
    "derivative": partial(mapgrad.Pooled, derivative=True, draws=64),
    "multi-fidelity": mapgrad.MultiFidelity,
}


def pool_of(problem, states=None):
    pool = StatePool(problem)
    pool.add(enumerate_states(problem) if states is None else states)
    return pool


def layer_of(estimator, problem=SUBSET, **how):
    return mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), estimator, **{"seed": 3, **how})


def gradient_of(layer, theta, slope, **how):
    leaf = theta.clone().requires_grad_()
    (layer(leaf, **how) * slope).sum().backward()
    return leaf.grad


def exact_gradient(theta, slope, law):
    """∇ ⟨slope, E MAP(θ + ε)⟩ by central differences of the quadrature."""
    rows = theta + 1e-4 * torch.cat([torch.eye(6), -torch.eye(6)]).double()
    values = topk_marginals(rows, 2, law) @ slope
    return (values[:6] - values[6:]) / 2e-4


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("has_own", [False, True])
@pytest.mark.parametrize("forbids", [False, True])
@pytest.mark.parametrize("share", [0, 1, 3])
def test_the_best_of_pool_and_own_states_is_that_of_enumeration(problem, has_own, forbids, share):
    states = enumerate_states(problem).double()
    pool = StatePool(problem)
    pool.add(states[:: max(share, 1)][: share * 4])
    rows = normal(5, 7, *problem.shape)
    if forbids:
        rows.view(5, 7, -1)[..., 0] = -torch.inf
    own = None
    if has_own:  # which never have a forbidden entry
        allowed = states[states.flatten(1)[:, 0] == 0] if forbids else states
        own = allowed[torch.arange(14).reshape(2, 7) % len(allowed)]
    found = Snapshot(pool, pool.states, 0.0).best(rows, own)
    for place in range(7):
        mine = [*pool.states.double(), *([] if own is None else own[:, place])]
        for row, z in zip(rows[:, place], found[:, place], strict=True):
            values = [float(torch.where(state == 0, 0, row * state).sum()) for state in mine]
            best = max(values, default=-torch.inf)
            if best > -torch.inf:
                assert float(torch.where(z == 0, 0, row * z).sum()) == pytest.approx(best)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("forbids", [False, True])
@pytest.mark.parametrize("share", [0, 3])
@pytest.mark.parametrize("draws", [None, 3])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_the_difference_is_that_of_the_best_states(problem, forbids, share, draws, block, monkeypatch):
    monkeypatch.setattr(_with_pool, "_BLOCK", block)
    states = enumerate_states(problem).double()
    snapshot = Snapshot(pool := pool_of(problem, states[: share * 4 : max(share, 1)]), pool.states, 0.0)
    sides, noise = normal(2, 4, 7, *problem.shape), normal(3, 7, *problem.shape, seed=1)
    if forbids:
        sides.view(2, 4, 7, -1)[..., 0] = -torch.inf
    allowed = states[states.flatten(1)[:, 0] == 0] if forbids else states
    own = allowed[torch.arange(14).reshape(2, 7) % len(allowed)]
    found = snapshot.difference(sides, None if draws is None else noise, own)
    rows = sides.unsqueeze(2) + (torch.zeros_like(noise[:1]) if draws is None else noise)
    one, other = snapshot.best(rows, own)
    assert found.any()
    torch.testing.assert_close(found, (one - other).mean(dim=1))


def test_without_states_multi_fidelity_is_symmetric_imle():
    theta, slope = normal(4, 6), normal(4, 6, seed=1)
    noise = mapgrad.Gaussian()
    found = gradient_of(layer_of(mapgrad.MultiFidelity(SUBSET, samples=3)), theta, slope)
    expected = gradient_of(layer_of(mapgrad.IMLE(noise, samples=3, symmetric=True)), theta, slope)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["derivative", "multi-fidelity"])
@pytest.mark.parametrize("law", [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Laplace()])
def test_with_all_states_the_mean_is_the_exact_gradient(kind, law):
    theta, slope = normal(6), normal(6, seed=1)
    count = 4000
    estimator = ESTIMATORS[kind](SUBSET, law, pool=pool_of(SUBSET), draws=32)
    found = gradient_of(layer_of(estimator), theta.expand(count, 6), slope.expand(count, 6))
    error = found.std(dim=0) / count**0.5
    assert ((found.mean(dim=0) - exact_gradient(theta, slope, law)).abs() < 4.5 * error).all()


def test_what_a_pool_lacks_adds_no_bias_to_multi_fidelity():
    theta, slope, count = normal(6), normal(6, seed=1), 6000
    states = enumerate_states(SUBSET)
    estimator = mapgrad.MultiFidelity(SUBSET, pool=pool_of(SUBSET, states[::3]), target=mapgrad.RelativeStep(0.2))
    found = gradient_of(layer_of(estimator), theta.expand(count, 6), slope.expand(count, 6))
    mean, truth = found.mean(dim=0), exact_gradient(theta, slope, mapgrad.Gaussian())
    assert torch.cosine_similarity(mean, truth, dim=0) > 0.98
    assert 0.9 < mean.norm() / truth.norm() < 1.1


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_half_steps_over_all_states_point_along_the_exact_gradient(problem):
    theta, slope, count = normal(*problem.shape), normal(*problem.shape, seed=1), 2000
    estimator = mapgrad.Pooled(problem, pool=pool_of(problem), sides=(0.25, 0.25), gate=0.0)
    many = (count, *[1] * theta.ndim)
    found = gradient_of(layer_of(estimator, problem), theta.repeat(many), slope.repeat(many)).mean(dim=0)
    exact = mapgrad.MultiFidelity(problem, pool=pool_of(problem))
    truth = gradient_of(layer_of(exact, problem), theta.repeat(many), slope.repeat(many)).mean(dim=0)
    assert torch.cosine_similarity(found.flatten(), truth.flatten(), dim=0) > 0.97


def test_it_is_the_formula():
    theta, slope = normal(1, 6), normal(1, 6, seed=1)
    states = enumerate_states(SUBSET).double()
    estimator = mapgrad.Pooled(SUBSET, None, pool=pool_of(SUBSET), step=0.8, sides=(0.5, 2.0), gate=0.0)
    found = gradient_of(layer_of(estimator), theta, slope)
    context = mapgrad.gradients.Context(1, SUBSET)
    toward, divisor = mapgrad.RelativeStep(0.8)(theta[None], slope[None], context)
    step = theta - toward[0]
    away, toward = (states[(states @ side[0]).argmax()] for side in (theta + 0.5 * step, theta - 2.0 * step))
    torch.testing.assert_close(found[0], (away - toward) / (2.5 * divisor[0, 0]))
    assert found.any()


def test_a_derivative_takes_no_backward_solves_and_sees_the_row_s_own_states():
    theta, slope = normal(5, 6), normal(5, 6, seed=1)
    layer = layer_of(mapgrad.Pooled(SUBSET, samples=8, draws=512, derivative=True, gate=1.0))
    found = gradient_of(layer, theta, slope)  # the pool is empty yet
    assert found.flatten(1).any(dim=1).all()
    assert layer.stats["rows"] == 40


def test_a_derivative_of_one_sample_begins_with_the_second_step():
    layer = layer_of(mapgrad.Pooled(SUBSET, draws=512, derivative=True))
    first, second = (gradient_of(layer, normal(5, 6), normal(5, 6, seed=1)) for _ in range(2))
    assert not first.any()
    assert second.flatten(1).any(dim=1).all()


def test_without_noise_steps_take_the_derivative_s_place():
    theta, slope = normal(5, 6), normal(5, 6, seed=1)
    pools = pool_of(SUBSET), pool_of(SUBSET)
    one, other = (
        layer_of(mapgrad.Pooled(SUBSET, pool=pool, derivative=derivative)).eval()
        for pool, derivative in zip(pools, (True, False), strict=True)
    )
    assert torch.equal(gradient_of(one, theta, slope), gradient_of(other, theta, slope))


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_s_gradient_depends_on_that_row_alone(kind, reduction, problem, dtype, monkeypatch):
    theta, slope = normal(3, 2, *problem.shape, dtype=dtype), normal(3, 2, *problem.shape, seed=1, dtype=dtype)
    ids = torch.arange(6).reshape(3, 2)

    def train(cut):
        layer = layer_of(ESTIMATORS[kind](problem, samples=2), problem, reduction=reduction)
        whole = gradient_of(layer, theta, slope, rows=ids)  # fills the pool
        if not cut:
            return [whole, gradient_of(layer, theta, slope, rows=ids)]
        layer.keys.step, found = 1, []
        for row in range(3):  # what is found waits, as the same step begins
            layer.keys.step = 1
            found.append(gradient_of(layer, theta[row : row + 1], slope[row : row + 1], rows=ids[row : row + 1]))
            layer.estimator._answers.clear()
            layer.estimator._others.clear()
        return [whole, torch.cat(found)]

    together = train(cut=False)
    assert all(gradient.any() for gradient in together)
    apart = train(cut=True)
    torch.testing.assert_close(together, apart)
    monkeypatch.setattr(_parts, "_SMALL", 1)
    monkeypatch.setattr(_parts, "_PART_BYTES", 300)
    torch.testing.assert_close(train(cut=False), together)


def test_solves_end_once_the_pool_holds_most_answers():
    theta, slope = normal(40, 6), normal(40, 6, seed=1)
    layer = layer_of(mapgrad.Pooled(SUBSET))
    solves = []
    for _ in range(12):
        before = layer.stats["solves"]
        gradient_of(layer, theta, slope)
        solves.append(layer.stats["solves"] - before)
    assert solves[0] == 120
    assert solves[-1] == 40
    layer(theta)
    assert layer.stats["seen"] > 0.7
    assert layer.stats["pool"] == 15


@pytest.mark.parametrize(("gate", "expected"), [(0.0, 10), (1.0, 30)])
def test_the_gate_decides_on_backward_solves(gate, expected):
    layer = layer_of(mapgrad.Pooled(SUBSET, gate=gate))
    for _ in range(3):
        before = layer.stats["solves"]
        gradient_of(layer, normal(10, 6), normal(10, 6, seed=1))
        assert layer.stats["solves"] - before == expected


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_what_a_step_finds_is_used_from_the_next_one_on(kind):
    estimator = ESTIMATORS[kind](SUBSET)
    layer = layer_of(estimator)
    gradient_of(layer, normal(4, 6), normal(4, 6, seed=1))
    assert len(estimator.pool) == 0
    layer.eval()
    gradient_of(layer, normal(9, 6, seed=2), normal(9, 6, seed=1))  # not of training
    layer.train()
    layer(normal(4, 6))
    after = len(estimator.pool)
    assert 0 < after <= 12
    layer(normal(4, 6))  # no backward pass, nothing found
    assert len(estimator.pool) == after


def steps(layer, count, first=0):
    theta = normal(5, 6) + torch.arange(first, first + count)[:, None, None] % 3
    return [gradient_of(layer, each * normal(5, 6, seed=4), normal(5, 6, seed=1)) for each in theta]


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_a_saved_layer_goes_on_as_the_unsaved_one(kind, how):
    layer = layer_of(ESTIMATORS[kind](SUBSET))
    steps(layer, 4)
    if how == "state_dict":
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = layer_of(ESTIMATORS[kind](SUBSET))
        other.load_state_dict(torch.load(file, weights_only=True))
    elif how == "deepcopy":
        other = copy.deepcopy(layer)
    else:
        other = pickle.loads(pickle.dumps(layer))
    expected = steps(layer, 4, first=4)
    assert all(map(torch.equal, steps(other, 4, first=4), expected))
    assert other.stats["seen"] == layer.stats["seen"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_saved_layer_that_is_cast_has_its_states(dtype):
    layer, other = (layer_of(mapgrad.Pooled(SUBSET)) for _ in range(2))
    steps(layer, 4)
    steps(other, 2)
    state = layer.state_dict()
    other.load_state_dict({name: each.to(dtype) if each.is_floating_point() else each for name, each in state.items()})
    assert torch.equal(other.estimator.pool.states, layer.estimator.pool.states)
    assert other.stats["seen"] == 0
    steps(other, 2)


def test_a_foreign_state_is_refused():
    layer = layer_of(mapgrad.Pooled(SUBSET))
    state = layer.state_dict()
    rows = torch.zeros(3, 7)
    for each in (rows[:, :5], rows[0], rows.int(), rows * 1j, rows.to_sparse(), rows.to("meta"), rows.numpy()):
        with pytest.raises(TypeError, match=r"a saved pool has the age and the .*a tensor of floats \[P, 7\], got"):
            layer.load_state_dict({**state, "estimator.pool._extra_state": each})
    own, wrong = state["estimator._extra_state"], [torch.zeros(2), torch.zeros(3, 3, dtype=torch.float64)]
    waiting = torch.cat([own[:2], torch.ones(1), torch.ones(6)])
    wrong += [torch.cat([own, torch.ones(5)]), own + torch.tensor([2, 0, 0])]
    wrong += ["text", own.to("meta"), own.to_sparse(), own.long(), own.float() * math.nan]
    wrong += [own.index_fill(0, torch.tensor(place), bad) for place in (0, 1, 2) for bad in (math.nan, math.inf, -1.0)]
    wrong += [own + torch.tensor([0, 0.5, 0])]
    wrong += [waiting.index_fill(0, torch.tensor(5), bad) for bad in (math.nan, math.inf, 1e300)]
    layer.load_state_dict({**state, "estimator._extra_state": waiting})
    for each in wrong:
        with pytest.raises(
            ValueError, match=r"a saved Pooled has three numbers .*float64 tensor of one dimension, got"
        ):
            layer.load_state_dict({**state, "estimator._extra_state": each})
        assert torch.equal(layer.estimator.get_extra_state(), waiting)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_to_save_changes_nothing(kind):
    def train(saves):
        pool = StatePool(SUBSET)
        one, other = (layer_of(ESTIMATORS[kind](SUBSET, pool=pool)) for _ in range(2))
        found = []
        for number in range(4):
            theta = normal(5, 6, seed=number)
            found.append(gradient_of(one, theta, normal(5, 6, seed=9)))
            if saves:
                one.state_dict()
            found.append(gradient_of(other, -theta, normal(5, 6, seed=8)))
        return [*found, pool.states]

    assert all(map(torch.equal, train(saves=True), train(saves=False)))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_answers_that_wait_are_saved(kind):
    layer, other = (layer_of(ESTIMATORS[kind](SUBSET)) for _ in range(2))
    gradient_of(layer, normal(5, 6), normal(5, 6, seed=1))
    other.load_state_dict(layer.state_dict())
    assert len(other.estimator.pool) == 0
    for each in (layer, other):
        each(normal(1, 6))
    assert len(other.estimator.pool) > 0
    assert torch.equal(other.estimator.pool.states, layer.estimator.pool.states)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpointing_the_same_comes_out(kind, reentrant):
    def train(run):
        torch.manual_seed(0)
        layer = layer_of(ESTIMATORS[kind](SUBSET))
        found = []
        for number in range(4):
            leaf = normal(5, 6, seed=number).requires_grad_()
            one, other = run(layer, leaf), run(layer, 2 * leaf)
            ((one + other) * normal(5, 6, seed=9)).sum().backward()
            found.append(leaf.grad)
        return [*found, layer.estimator.pool.states, torch.tensor(layer.stats["seen"])]

    plain = train(lambda layer, x: layer(x))
    repeated = train(lambda layer, x: checkpoint(layer, x, use_reentrant=reentrant))
    for one, other in zip(plain, repeated, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_transforms(kind):
    theta, slope = normal(4, 6), normal(6, seed=1)

    def filled():
        layer = layer_of(ESTIMATORS[kind](SUBSET, pool=pool_of(SUBSET)))
        layer.estimator.seen = 0.9
        return layer

    expected = gradient_of(filled(), theta, slope)
    layer = filled()
    found = torch.func.grad(lambda t: (layer(t) * slope).sum())(theta)
    torch.testing.assert_close(found, expected)
    layer = filled()
    by_row = torch.func.vmap(torch.func.grad(lambda t, i: (layer(t, rows=i) * slope).sum()), randomness="same")
    torch.testing.assert_close(by_row(theta[:, None], torch.arange(4)[:, None])[:, 0], expected)
    compiled = torch.compile(filled(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient_of(compiled, theta, slope), expected)


@pytest.mark.parametrize("minimize", [False, True])
def test_without_noise_and_in_eval_mode(minimize):
    costs = normal(3, 2, 3).abs()
    layer = layer_of(mapgrad.Pooled(GRID), GRID, minimize=minimize)
    theta = costs if minimize else -costs
    for _ in range(3):  # without noise, which would push costs below 0
        assert torch.isfinite(gradient_of(layer, theta, normal(3, 2, 3, seed=1))).all()
    layer.eval()
    assert torch.equal(layer(theta), mapgrad.exact.map_state(GRID, -costs))
    assert torch.isfinite(gradient_of(layer, theta, normal(3, 2, 3, seed=1))).all()


@pytest.mark.parametrize("target", [mapgrad.RelativeStep(2.0), mapgrad.Step(2.0)])
@pytest.mark.parametrize("correction", [0.0, 1.0])
def test_in_eval_mode_multi_fidelity_is_the_solver_s_difference(target, correction):
    theta, slope = normal(5, 6), normal(5, 6, seed=1)
    estimator = mapgrad.MultiFidelity(SUBSET, pool=pool_of(SUBSET), target=target, correction=correction)
    found = gradient_of(layer_of(estimator).eval(), theta, slope)
    assert found.any()
    torch.testing.assert_close(found, gradient_of(layer_of(mapgrad.IMLE(None, target, symmetric=True)), theta, slope))


def test_forbidden_entries_have_no_gradient():
    theta = normal(4, 6)
    theta[:, 2] = -torch.inf
    layer = layer_of(mapgrad.Pooled(SUBSET, pool=pool_of(SUBSET)))
    found = gradient_of(layer, theta, normal(4, 6, seed=1))
    assert found.isfinite().all()
    assert found.any()
    assert not found[:, 2].any()


def test_a_bad_gradient_spoils_its_own_row_alone():
    theta, slope = normal(4, 6), normal(4, 6, seed=1)
    slope[1, 3] = torch.nan
    found = gradient_of(layer_of(mapgrad.Pooled(SUBSET, pool=pool_of(SUBSET))), theta, slope)
    expected = gradient_of(layer_of(mapgrad.Pooled(SUBSET, pool=pool_of(SUBSET))), theta, slope.nan_to_num())
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]])


def test_a_constant_loss_and_an_empty_batch():
    layer = layer_of(mapgrad.Pooled(SUBSET))
    for _ in range(3):
        assert not gradient_of(layer, normal(4, 6), torch.zeros(4, 6)).any()
        assert gradient_of(layer, normal(0, 6), torch.zeros(0, 6)).shape == (0, 6)


def test_one_problem_alone():
    for make in (mapgrad.Pooled, mapgrad.MultiFidelity, mapgrad.Exact):
        with pytest.raises(
            mapgrad.UnsupportedProblemError, match=f"this {make.__name__} is for KSubset.*solver.problem"
        ):
            layer_of(make(mapgrad.KSubset(6, 3)))
    with pytest.raises(mapgrad.UnsupportedProblemError, match=r"this MultiFidelity is for KSubset.*serve one problem"):
        layer_of(mapgrad.MultiFidelity(SUBSET))(normal(1, 6), problems=[mapgrad.KSubset(6, 3)])
    with pytest.raises(mapgrad.UnsupportedProblemError, match="solves a function"):
        mapgrad.MAPLayer(lambda theta: theta, mapgrad.MultiFidelity(SUBSET))(normal(2, 6))
    with pytest.raises(ValueError, match="pool must be a StatePool of KSubset"):
        mapgrad.Pooled(SUBSET, pool=StatePool(mapgrad.KSubset(6, 3)))


def test_rows_of_other_problems_have_no_pool():
    problems = [mapgrad.KSubset(6, 3), SUBSET, mapgrad.KSubset(6, 1)]
    theta, slope = normal(3, 6), normal(3, 6, seed=1)
    found = gradient_of(layer_of(mapgrad.Pooled(SUBSET)), theta, slope, problems=problems)
    expected = gradient_of(layer_of(mapgrad.TwoSided()), theta, slope, problems=problems)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
    assert found.any(dim=1).all()


def test_a_layer_may_be_called_often_before_its_backward_pass():
    layer = layer_of(mapgrad.Pooled(SUBSET))
    for _ in range(2):
        leaf = normal(2, 6).requires_grad_()
        sum(layer(leaf + number / 100).square().sum() for number in range(150)).backward()
        assert leaf.grad.any()


def test_a_pass_that_is_too_long_ago_is_refused():
    layer = layer_of(mapgrad.Pooled(SUBSET, pool=StatePool(SUBSET, max_bytes=24 * 3)))
    waiting = layer(normal(3, 6).requires_grad_())
    for number in range(70):
        gradient_of(layer, normal(3, 6, seed=number), normal(3, 6, seed=1))
    with pytest.raises(RuntimeError, match=r"needs the pool of KSubset\(n=6, k=2\) as it was in the forward pass"):
        waiting.sum().backward()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_counts_of_training_and_eval_mode_go_together(kind):
    layer = layer_of(ESTIMATORS[kind](SUBSET, samples=3))
    gradient_of(layer, normal(5, 6), normal(5, 6, seed=1))
    gradient_of(layer.eval(), normal(5, 6), normal(5, 6, seed=1))
    assert layer.stats["improvable"] > 0


def test_a_pool_of_another_problem_is_left_behind():
    layer, other = (
        layer_of(mapgrad.Pooled(SUBSET)),
        layer_of(mapgrad.Pooled(mapgrad.KSubset(6, 3)), mapgrad.KSubset(6, 3)),
    )
    for each in (layer, other):
        gradient_of(each, normal(4, 6), normal(4, 6, seed=1))
    with pytest.warns(UserWarning, match="states of another problem"):
        other.load_state_dict(layer.state_dict())
    assert len(other.estimator.pool) == 0
    assert gradient_of(other, normal(4, 6), normal(4, 6, seed=1)).any()


def test_what_a_layer_has_by_default():
    make = mapgrad.get_solver
    assert isinstance(mapgrad.MAPLayer(make("topk", SUBSET)).estimator, mapgrad.Pooled)
    assert isinstance(mapgrad.MAPLayer(make("topk", mapgrad.KSubset(513, 2))).estimator, mapgrad.TwoSided)
    assert isinstance(mapgrad.MAPLayer(make("topk", None)).estimator, mapgrad.TwoSided)
    assert isinstance(mapgrad.MAPLayer(lambda theta: theta).estimator, mapgrad.TwoSided)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"draws": 1}, "draws must be an int of at least 2"),
        ({"gate": 1.5}, "gate must be from 0 to 1"),
        ({"sides": (0.5, 0.0)}, "sides must be positive"),
        ({"sides": (-1.0, 1.0)}, "sides must be at least 0"),
        ({"step": 0.0}, "step must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        mapgrad.Pooled(SUBSET, **arguments)


@pytest.mark.parametrize("kind", ["derivative", "multi-fidelity"])
def test_a_derivative_needs_a_density(kind):
    with pytest.raises(TypeError, match="a law with log_prob"):
        ESTIMATORS[kind](SUBSET, mapgrad.SumOfGamma(2.0, terms=5))
    with pytest.raises(ValueError, match="temperature must be positive"):
        ESTIMATORS[kind](SUBSET, mapgrad.Gaussian(), temperature=0.0)
