"""What a layer remembers: seeds, steps, adaptive state, counts; across processes too."""

import copy
import math
import pickle
import re
import warnings

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import mapgrad
from mapgrad.gradients._counter import counter_noise, mix
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(6, 2)

TRAINING = """
import torch
import mapgrad

def make():
    torch.manual_seed(0)
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)), mapgrad.AdaptiveIMLE(samples=2, step=0.1), seed=7
    )
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), layer)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)

def train(model, optimizer, steps):
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = ((model(x) - 0.3) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


@pytest.fixture(scope="module")
def training():
    names = {}
    exec(TRAINING, names)
    return names


def test_training_continues_bit_for_bit_in_another_process(training, tmp_path, run_program):
    model, optimizer = training["make"]()
    training["train"](model, optimizer, range(5))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    script = TRAINING + (
        "import sys\n"
        "saved = torch.load(sys.argv[1])\n"
        "model, optimizer = make()\n"
        "model.load_state_dict(saved['model'])\n"
        "optimizer.load_state_dict(saved['optimizer'])\n"
        "train(model, optimizer, range(5, 10))\n"
        "torch.save(model.state_dict(), sys.argv[2])\n"
    )
    done = run_program(script, tmp_path / "checkpoint.pt", tmp_path / "continued.pt")
    assert done.returncode == 0, done.stderr
    continued = torch.load(tmp_path / "continued.pt")
    training["train"](model, optimizer, range(5, 10))
    expected = model.state_dict()
    assert continued.keys() == expected.keys()
    assert all(torch.equal(continued[name], expected[name]) for name in expected)
    assert expected["1._extra_state"].tolist() == [7, 10]
    assert float(expected["1.estimator.target.beta"]) != 1.0


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_by_itself(training, twin_of):
    model, optimizer = training["make"]()
    training["train"](model, optimizer, range(3))
    twin = twin_of(model)
    assert twin[1].handle != model[1].handle
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    expected = [model(x) for _ in range(3)]
    assert not torch.equal(expected[0], expected[1])
    assert all(torch.equal(twin(x), z) for z in expected)


def test_moving_average_models():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(), seed=0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), layer)
    average = AveragedModel(model, use_buffers=True)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        model(x).pow(2).sum().backward()
        average.update_parameters(model)
    assert torch.equal(average.eval()(x), model.eval()(x))


def test_seeded_noise_is_a_function_of_seed_step_row_and_sample():
    def draw(seed=1, step=2, shape=(3, 4, 5), event_ndim=1):
        return counter_noise(
            mapgrad.Gumbel(),
            mix(seed, step),
            shape,
            event_ndim=event_ndim,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )

    base = draw()
    assert torch.equal(base, draw())
    assert torch.equal(base[:2], draw(shape=(2, 4, 5)))
    assert torch.equal(base[:, :2], draw(shape=(3, 2, 5)))
    assert torch.equal(base.reshape(3, 2, 2, 5), draw(shape=(3, 2, 2, 5)))
    assert len(base.unique()) == base.numel()
    for other in (draw(seed=2), draw(step=3), draw(seed=-1), draw(seed=2**63 + 5)):
        assert not torch.isin(base, other).any()


def test_seeded_uniforms_are_uniform_and_independent():
    class Uniform:
        @staticmethod
        def icdf(u):
            return u

    u = counter_noise(
        Uniform(), mix(0, 0), (20, 100, 50), event_ndim=1, dtype=torch.float64, device=torch.device("cpu")
    )
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert 60 < chi_square < 150  # 99 degrees of freedom: outside with probability 2e-3
    flat = (u - 0.5) * 12**0.5
    for one, other in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat[..., 1:], flat[..., :-1])):
        assert abs(float((one * other).mean())) < 4 / one.numel() ** 0.5


def test_seeded_noise_without_quantiles_uses_a_generator():
    def draw(step):
        return counter_noise(
            mapgrad.SumOfGamma(2.0, terms=5),
            mix(1, step),
            (3, 4, 5),
            event_ndim=1,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    assert torch.equal(draw(0), draw(0))
    assert not torch.isin(draw(0), draw(1)).any()


def test_unseeded_noise_follows_torch_manual_seed():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE())
    theta = torch.zeros(4, 6)
    torch.manual_seed(5)
    first = layer(theta)
    assert not torch.equal(first, layer(theta))
    torch.manual_seed(5)
    assert torch.equal(first, layer(theta))
    assert layer.state_dict()["_extra_state"].numel() == 0


def test_loading_forgets_what_was_recorded_before():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(step=0.25), seed=0)
    saved = copy.deepcopy(layer.state_dict())
    layer(torch.zeros(2, 6, requires_grad=True)).pow(2).sum().backward()
    layer.load_state_dict(saved)
    assert layer.stats["beta"] == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", torch.tensor(math.nan)),
        ("beta", torch.tensor(-0.5)),
        ("beta", torch.tensor(1e300, dtype=torch.float64)),
        ("beta", torch.tensor(1j)),
        ("beta", torch.ones(2)),
        ("beta", 1.0),
        ("beta", torch.tensor(1.0, device="meta")),
        ("nonzeros", torch.tensor(math.inf)),
        ("nonzeros", torch.tensor(-1.0)),
        ("change", torch.tensor(-math.inf)),
        ("recorded", torch.tensor([3, 0])),
        ("recorded", torch.tensor([0, -1])),
        ("recorded", torch.tensor([-1, 5])),
        ("recorded", torch.tensor([1.0, 2.0])),
        ("recorded", torch.tensor(3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("strict", [True, False])
def test_an_adaptive_step_that_cannot_be_is_refused(name, value, strict):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(step=0.25), seed=0)
    (layer(torch.zeros(2, 6, requires_grad=True)) * torch.arange(6)).sum().backward()
    before = layer.state_dict()
    saved = mapgrad.MAPLayer(layer.solver, mapgrad.AdaptiveIMLE(), seed=0).state_dict()
    saved |= {"estimator.target.change": torch.tensor(-0.5), f"estimator.target.{name}": value}
    with pytest.raises(RuntimeError, match=rf"estimator\.target\.{name}: a saved AdaptiveStep has .*, got .*damaged"):
        layer.load_state_dict(saved, strict=strict)
    after = layer.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if "target" in key)
    assert layer.stats["beta"] != 1.0


def test_a_state_without_a_step_leaves_it_as_it_is():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(step=0.25), seed=0)
    (layer(torch.zeros(2, 6, requires_grad=True)) * torch.arange(6)).sum().backward()
    beta = layer.stats["beta"]
    layer.load_state_dict({}, strict=False)
    assert layer.stats["beta"] == beta != 1.0


def test_a_step_that_is_saved_half_way_goes_on_as_if_it_were_not():
    def train(save):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(step=0.25, decay=0.5), seed=0)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            halves = [torch.randn(size, 6, generator=generator).requires_grad_() for size in (1, 5)]
            losses = [layer(half).pow(2).sum() for half in halves]
            losses[0].backward()
            if save:
                layer.state_dict()
            losses[1].backward()
        return layer.state_dict()

    assert all(
        torch.equal(value, saved) for value, saved in zip(train(False).values(), train(True).values(), strict=True)
    )


def test_a_layer_that_is_gone_says_so():
    handle = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET)).handle
    with pytest.raises(RuntimeError, match=f"what stood behind handle {handle} is gone: keep a reference to the layer"):
        torch.ops.mapgrad.key(torch.empty((), dtype=torch.int64), [], handle)


def test_backward_keeps_a_temporary_layer_alive():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None))(theta)
    z.pow(2).sum().backward()
    assert theta.grad.abs().sum() > 0


def _steps(layer, loss_scale, count):
    theta = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    aim = torch.rand(16, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(count):
        (loss_scale * ((layer(theta) - aim) ** 2)).sum().backward()


def test_one_warning_when_most_rows_are_dead():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None, target=mapgrad.Step(1.0)))
    with pytest.warns(UserWarning, match=r"last 100 backward passes 100% of the rows .*RelativeStep\(1.0\)") as caught:
        _steps(layer, 1e-4, 350)
    assert len(caught) == 1
    assert layer.stats["dead"] == layer.stats["improvable"] == 350 * 16


def test_no_warning_for_live_rows_or_rows_that_are_right():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None))
        _steps(layer, 1e-4, 110)
        assert layer.stats["improvable"] > 110
        assert layer.stats["dead"] < layer.stats["improvable"] / 2
        theta = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None, symmetric=False))
        truth = layer(theta).detach()
        for _ in range(110):
            z = layer(theta)
            (z + truth - 2 * z * truth).sum().backward()
        assert layer.stats["improvable"] == 0
        assert theta.grad.abs().sum() == 0


def _train(problem, estimator, solver="auto", *, theta, slope):
    """A hundred steps with a linear loss, and the layer."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver(solver, problem), estimator)
    for _ in range(100):
        leaf = theta.clone().requires_grad_()
        (layer(leaf) * slope).sum().backward()
    return layer


WEIGHTS = [[3.0, 2.0, 4.0, 1.0, 5.0]]
SOLVED = [
    mapgrad.KSubset(10, 3),
    mapgrad.KSubset(5, 5),
    mapgrad.Knapsack(WEIGHTS, [7.0]),
    mapgrad.Assignment(4),
    mapgrad.SpanningTree(5, [(i, j) for i in range(5) for j in range(i)]),
    mapgrad.ShortestPath(4, [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)], 0, 3),
    mapgrad.TravelingSalesman(5),
]


@pytest.mark.parametrize("problem", SOLVED, ids=lambda problem: repr(problem)[:24])
def test_rows_that_are_right_are_never_called_dead(problem):
    values = torch.rand(16, *problem.shape, generator=torch.Generator().manual_seed(0))
    if problem.domain is not mapgrad.Domain.REAL:
        values = -values
    estimator = mapgrad.IMLE(None, mapgrad.RelativeStep(0.01))
    layer = _train(problem, estimator, BruteForce, theta=values, slope=-values)
    assert layer.stats["improvable"] == layer.stats["dead"] == 0


def test_rows_that_could_do_better_count_as_dead_whatever_the_feasible_set():
    problem = mapgrad.Knapsack(WEIGHTS, [7.0])
    values, slope = torch.rand(2, 16, 5, generator=torch.Generator().manual_seed(0))
    states = problem.states().float()
    taken = states[(values @ states.T).argmax(1)]
    better = ((taken @ -slope.T).diagonal() > (states @ -slope.T).amin(0) + 1e-6).sum().item()
    with pytest.warns(UserWarning, match="zero gradient"):
        layer = _train(problem, mapgrad.IMLE(None, mapgrad.Step(1e-6)), BruteForce, theta=values, slope=-slope)
    assert 0.6 * better <= layer.stats["improvable"] / 100 <= better  # states that never came up aren't known
    assert layer.stats["dead"] == layer.stats["improvable"]


@pytest.mark.parametrize(
    ("estimator", "advised", "in_use"),
    [
        (mapgrad.IMLE(None, mapgrad.Step(1e-6)), r"RelativeStep\(1.0\).* larger λ than 1e-06", "symmetric=True"),
        (mapgrad.IMLE(None, mapgrad.Step(1e-6), symmetric=False), r"RelativeStep\(1.0\).*symmetric=True", None),
        (
            mapgrad.IMLE(None, mapgrad.RelativeStep(1e-4), symmetric=True),
            "larger λ than 0.0001",
            "RelativeStep|symmetric=True",
        ),
        (mapgrad.AdaptiveIMLE(None, initial=0.0, step=1e-9), "larger step than 1e-09", "RelativeStep|symmetric=True"),
    ],
)
def test_advice_is_never_what_is_in_use(estimator, advised, in_use):
    theta, slope = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=advised) as caught:
        _train(SUBSET, estimator, "topk", theta=theta, slope=slope)
    assert in_use is None or not re.search(in_use, str(caught[0].message))


def test_a_solver_that_answers_in_one_buffer():
    buffer = torch.zeros(4, 6)

    def choose(theta):
        return buffer.zero_().scatter_(-1, theta.topk(2).indices, 1)

    class Buffered(mapgrad.BatchSolver):
        def solve(self, theta):
            return choose(theta)

    def gradient(solver):
        theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (mapgrad.MAPLayer(solver, mapgrad.Blackbox(5.0))(theta) * torch.arange(6.0)).sum().backward()
        return theta.grad

    expected = gradient(mapgrad.get_solver("topk", SUBSET))
    assert expected.abs().sum() > 0
    assert torch.equal(gradient(choose), expected)
    with pytest.raises(mapgrad.SolverCrashError, match="let it return a tensor of its own"):
        gradient(mapgrad.get_solver(Buffered, SUBSET))


def test_a_function_that_answers_in_one_buffer_gives_each_sample_its_own_states():
    buffer = torch.zeros(4, 6)

    def choose(theta):
        return buffer.zero_().scatter_(-1, theta.topk(2).indices, 1)

    def states(solver):
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), samples=3), reduction="none", seed=0)
        return layer(torch.zeros(4, 6))

    z = states(choose)
    assert torch.equal(z, states(mapgrad.get_solver("topk", SUBSET)))
    assert not torch.equal(z[0], z[1])


def test_a_linear_loss_has_no_second_derivative_either():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None))
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = (layer(theta) * torch.arange(6.0)).sum() + theta.square().sum()
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_counts_of_a_pass_whose_graph_is_kept():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None))
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.autograd.grad(layer(theta).square().sum(), theta, create_graph=True)
    assert layer.stats["improvable"] == 4


def test_reading_stats_changes_nothing():
    def train(read):
        solver = mapgrad.get_solver("topk", SUBSET)
        layer = mapgrad.MAPLayer(solver, mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), step=0.25, momentum=0.5), seed=0)
        theta = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        for scale in (1.0, 2.0, 3.0):
            z = layer(theta)
            for _ in range(2):  # what is recorded between the two would else be taken in twice
                z.sub(scale).square().sum().backward(retain_graph=True)
                seen = read(layer)
                assert read(layer) == seen
        return theta.grad, layer.state_dict(), layer.stats["dead"], layer.stats["beta"]

    gradient, state, *counts = train(lambda layer: None)
    other, other_state, *other_counts = train(lambda layer: {**layer.stats, "seconds": 0})
    assert torch.equal(gradient, other)
    assert all(torch.equal(state[name], other_state[name]) for name in state)
    assert counts == other_counts
    assert counts[1] == float(state["estimator.target.beta"]) != 1.0


def test_reading_stats_changes_no_warning():
    def warned(read):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None, target=mapgrad.Step(1.0)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _steps(layer, 10.0, 99)  # live
            read(layer)
            _steps(layer, 1e-4, 1)
        return [str(each.message) for each in caught]

    assert warned(lambda layer: None) == warned(lambda layer: layer.stats) == []


@pytest.mark.parametrize("scaled", [True, False])
def test_what_users_write_to_later_changes_no_count(scaled):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None, mapgrad.Step(5.0), scaled=scaled))
    theta = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = layer(theta)
    (z * torch.arange(6.0)).sum().backward()
    moved = (theta.grad != 0).any(1).sum().item()
    with torch.no_grad():
        z.zero_()
        theta.grad.zero_()
    assert layer.stats["improvable"] - layer.stats["dead"] <= moved
    assert layer.stats["improvable"] > 40


def test_evaluation_between_two_steps_changes_no_noise():
    problems = [SUBSET, mapgrad.KSubset(6, 3)] * 3
    theta = torch.zeros(6, 6)

    def second_step(evaluate):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(mapgrad.Gumbel()), seed=0)
        layer(theta, problems=problems)
        if evaluate:
            layer.eval()(theta, problems=problems)
            layer.train()
        return layer(theta, problems=problems)

    assert torch.equal(second_step(evaluate=True), second_step(evaluate=False))


def test_training_after_evaluation_in_inference_mode():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 4)), mapgrad.IMLE(None))
    theta = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        layer.eval()(theta)
    layer.train()
    gradient = torch.func.grad(lambda rows: (layer(rows) * torch.arange(6.0)).sum())(theta)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    "state",
    [
        torch.tensor([1, 2, 3]),
        torch.tensor([1.5, 2]),
        torch.tensor([1, -2]),
        torch.tensor([1, 2**63 - 1]),
        "x",
        None,
        torch.tensor([1, 2]).to("meta"),
        torch.tensor([1, 2]).to_sparse(),
    ],
)
def test_extra_state_that_is_not_a_layers(state):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), seed=1)
    with pytest.raises(ValueError, match=r"has \(seed, step\) as its extra state, an int64 tensor"):
        layer.load_state_dict({"_extra_state": state})
    assert (layer.keys.seed, layer.keys.step) == (1, 0)


@pytest.mark.parametrize("samples", [1, 2])
def test_an_output_that_is_written_to(samples):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=samples), seed=1)
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def gradient(write):
        layer.keys = mapgrad.gradients.KeyStream(1)
        leaf = theta.clone().requires_grad_()
        z = layer(leaf)
        if write == "before":
            z *= 2
        (z * torch.arange(6.0) / (2 if write == "before" else 1)).sum().backward()
        if write == "after":
            z.detach().mul_(2)
        return leaf.grad

    assert torch.equal(gradient("after"), gradient("never"))
    if samples == 1:  # as for torch.relu, whose output backward needs
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradient("before")
    else:
        torch.testing.assert_close(gradient("before"), gradient("never"))


def test_advice_that_a_black_box_can_follow():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.Blackbox(1e-6))
    with pytest.warns(UserWarning, match=r"Take IMLE\(None, RelativeStep\(1.0\)\).* larger λ than 1e-06") as caught:
        _steps(layer, 1e-3, 100)
    assert not re.search("target=|symmetric", str(caught[0].message))
    assert caught[0].filename == __file__


def test_advice_on_the_default_step_tells_its_length():
    assert re.search(r"With noise λ = 0.5: pass target=RelativeStep\(1.0\)", mapgrad.IMLE().advice)
