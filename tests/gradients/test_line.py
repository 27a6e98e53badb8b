"""The estimator `Line`: unbiased at full depth under any law with a density, of the right length at depth 0."""

import copy
import math
import pickle

import pytest
import torch

import mapgrad
from mapgrad import exact
from mapgrad.gradients import Line
from mapgrad.gradients._line_law import line_law

LAWS = [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(2)]
SUBSET = mapgrad.KSubset(4, 2)
THETA = torch.tensor([0.8, -0.3, 0.1, 0.5], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)


def estimates(estimator, count, *, slope=SLOPE, reduction="mean", minimize=False, seed=0, dtype=torch.float64):
    """Gradients [count, n] of ⟨slope, z̄⟩."""
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", SUBSET), estimator, reduction=reduction, minimize=minimize, seed=seed
    )
    leaf = THETA.to(dtype).expand(count, -1).clone().mul_(-1 if minimize else 1).requires_grad_()
    (layer(leaf) * (slope if reduction == "mean" else slope / estimator.samples)).sum().backward()
    return leaf.grad


def exact_gradient(law, temperature, slope=SLOPE):
    leaf = THETA.clone().requires_grad_()
    (exact.topk_marginals(leaf, 2, law, temperature) @ slope).backward()
    return leaf.grad


def scores(found, expected):
    return (found.mean(dim=0) - expected).abs() / (found.std(dim=0) / math.sqrt(len(found)))


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_full_depth_is_unbiased(law):
    found = estimates(Line(law, depth=None, temperature=0.7), 3000)
    assert (scores(found, exact_gradient(law, 0.7)) < 4).all()


def test_full_depth_is_unbiased_along_a_single_entry_and_on_other_problems():
    one = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    found = estimates(Line(mapgrad.Laplace(), depth=None), 3000, slope=one)
    assert (scores(found, exact_gradient(mapgrad.Laplace(), 1.0, one)) < 4).all()

    problem = mapgrad.Assignment(3)
    generator = torch.Generator().manual_seed(0)
    theta, slope = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("scipy.assignment", problem), Line(depth=None), seed=1)
    leaf = theta.expand(6000, 3, 3).clone().requires_grad_()
    (layer(leaf) * slope).sum().backward()
    # the score function's mean over all states' probabilities, by many draws
    noise = torch.randn(400_000, 3, 3, generator=generator, dtype=torch.float64)
    values = (exact.map_state(problem, theta + noise) * slope).sum(dim=(1, 2))
    drawn = ((values - values.mean())[:, None, None] * noise).flatten(1)
    error = leaf.grad.flatten(1).mean(dim=0) - drawn.mean(dim=0)
    spread = (leaf.grad.flatten(1).var(dim=0) / 6000 + drawn.var(dim=0) / 400_000).sqrt()
    assert (error.abs() < 4 * spread + 1e-12).all()


@pytest.mark.parametrize("law", [mapgrad.Gaussian(), mapgrad.Gumbel()], ids=repr)
def test_depth_zero_has_about_the_right_length_for_three_solves(law):
    estimator = Line(law, temperature=0.7)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), estimator, seed=0)
    leaf = THETA.expand(3000, -1).clone().requires_grad_()
    (layer(leaf) * SLOPE).sum().backward()
    assert layer.stats["solves"] == 9000
    expected, mean = exact_gradient(law, 0.7), leaf.grad.mean(dim=0)
    assert float(mean @ expected / expected.square().sum()) == pytest.approx(1, abs=0.1)
    assert torch.cosine_similarity(mean, expected, dim=0) > 0.98


def test_depth_solves_only_where_answers_differ():
    deep, deepest = (estimates(Line(depth=depth), 300) for depth in (8, None))
    torch.testing.assert_close(deep, deepest, rtol=0, atol=0.05)
    errors = [
        float((estimates(Line(depth=depth), 3000).mean(dim=0) - exact_gradient(mapgrad.Gaussian(), 1.0)).norm())
        for depth in (0, 2)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("depth", [0, None])
def test_samples_outputs_costs_and_dtypes_agree(depth):
    mean = estimates(Line(depth=depth, samples=4), 50)
    torch.testing.assert_close(estimates(Line(depth=depth, samples=4), 50, reduction="none"), mean)
    torch.testing.assert_close(estimates(Line(depth=depth, samples=4), 50, minimize=True, slope=SLOPE), -mean)
    single = estimates(Line(depth=depth, samples=4), 50, dtype=torch.float32)
    torch.testing.assert_close(single.double(), mean, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_linear_in_its_length_and_zero_at_zero():
    one, many = (estimates(Line(), 50, slope=factor * SLOPE) for factor in (1.0, 1e200))
    torch.testing.assert_close(many / 1e200, one)
    assert not estimates(Line(mapgrad.Gumbel()), 5, slope=0 * SLOPE).any()


@pytest.mark.parametrize("law", [*LAWS, mapgrad.SumOfGamma(20)], ids=repr)
def test_the_law_along_a_line_is_in_proportion_to_the_density(law):
    generator = torch.Generator().manual_seed(0)
    noise = law.sample((50, 3), generator=generator, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator, dtype=torch.float64))
    direction[:10] = torch.tensor([0.0, 1.0, 0.0])
    start = (noise * direction).sum(dim=1)
    along = line_law(law, noise - start[:, None] * direction, direction, start)
    s = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    for line in (0, 5, 20, 49):
        values = along.density(s, torch.full((len(s),), line))
        assert float(torch.trapezoid(values, s)) == pytest.approx(1, abs=5e-3)
        cumulative = torch.cumulative_trapezoid(values, s)
        for share in (0.2, 0.9):
            at = float(along.quantile(share)[line])
            assert float(cumulative[torch.searchsorted(s, at) - 1]) == pytest.approx(share, abs=0.2)
        rest = noise[line] - start[line] * direction[line]
        logs = law.log_prob(rest + s[30_000:30_500:100, None] * direction[line]).sum(dim=1)
        found = values[30_000:30_500:100].log()
        torch.testing.assert_close(found - found[0], logs - logs[0])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
def test_forbidden_entries_and_transforms():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Line(depth=None), seed=0)
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * SLOPE).sum().backward()

    def again(run):
        layer.keys.restore(torch.tensor([0, 0]), "MAP layer")
        return run()

    slope = again(lambda: torch.func.grad(lambda t: (layer(t) * SLOPE).sum())(theta))
    torch.testing.assert_close(slope, leaf.grad)
    compiled, other = torch.compile(layer, fullgraph=True, backend="aot_eager"), theta.clone().requires_grad_()
    again(lambda: (compiled(other) * SLOPE).sum().backward())
    torch.testing.assert_close(other.grad, leaf.grad)
    mapped = torch.func.vmap(torch.func.grad(lambda t: (layer(t) * SLOPE).sum()), randomness="different")(theta)
    assert mapped.isfinite().all()
    theta[:, 1] = -torch.inf
    leaf = theta.clone().requires_grad_()
    (layer(leaf) * SLOPE).sum().backward()
    assert not leaf.grad[:, 1].any()
    assert leaf.grad.isfinite().all()


def test_eval_mode_copies_and_states():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Line(depth=2), seed=3)
    layer(THETA)
    other = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Line(depth=2), seed=3)
    other.load_state_dict(layer.state_dict())
    gradients = []
    for each in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other, layer):
        leaf = THETA.clone().requires_grad_()
        (each(leaf) * SLOPE).sum().backward()
        gradients.append(leaf.grad)
    assert all(torch.equal(each, gradients[0]) for each in gradients)
    leaf = THETA.clone().requires_grad_()
    z = layer.eval()(leaf)
    assert torch.equal(z, exact.map_state(SUBSET, THETA))
    (z * SLOPE).sum().backward()
    assert leaf.grad.any()


def test_a_row_without_a_finite_gradient_leaves_the_others_theirs():
    found = []
    for bad in (False, True):
        slope = SLOPE.expand(4, -1).clone()
        if bad:
            slope[2, 0] = torch.nan
        found.append(estimates(Line(depth=None), 4, slope=slope))
    assert found[1][2].isnan().all()
    torch.testing.assert_close(found[1][[0, 1, 3]], found[0][[0, 1, 3]])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        Line(temperature=0.0)
    for depth in (-1, 1.5, True):
        with pytest.raises((TypeError, ValueError), match="depth must be an int of at least 0, or None"):
            Line(depth=depth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_depth_ends_where_states_differ_in_their_sum(dtype):
    problem = mapgrad.Knapsack([2, 3, 4], [6])
    for seed in range(4):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), mapgrad.Line(depth=None), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        leaf = torch.rand(100, 3, generator=generator, dtype=dtype).requires_grad_()
        for _ in range(3):
            (layer(leaf) * torch.randn(100, 3, generator=generator, dtype=dtype)).sum().backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 6), (2, 0, 6)])
@pytest.mark.parametrize("make", [mapgrad.Line, mapgrad.FrankWolfe])
def test_an_empty_batch(make, shape):
    leaf = torch.randn(shape, requires_grad=True)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)), make())
    layer(leaf).sum().backward()
    assert leaf.grad.shape == shape
    loss = mapgrad.losses.FenchelYoung(layer.solver, mapgrad.losses.Quadratic(), temperature=0.7, reduction="sum")
    assert loss(leaf, torch.zeros(shape)) == 0


@pytest.mark.timeout(30)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_jump_where_all_that_changes_is_next_to_nothing(dtype):
    """There the objectives at a crossing are 0 but for what rounding leaves of two large numbers."""
    problem, tau = mapgrad.Knapsack([[1.0]], [1.0]), 0.7
    theta = torch.linspace(-2, 2, 1001, dtype=dtype)[:, None].requires_grad_()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), mapgrad.Line(depth=None, temperature=tau))
    layer(theta).sum().backward()
    expected = mapgrad.Gaussian().log_prob(theta.detach() / tau).exp() / tau
    torch.testing.assert_close(theta.grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_masks", [False, True])
@pytest.mark.parametrize("depth", [0, 2, None])
@pytest.mark.parametrize(
    "problem",
    [
        SUBSET,
        mapgrad.Assignment(3),
        mapgrad.Assignment(2, 3),
        mapgrad.SpanningTree(4, [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)]),
    ],
    ids=repr,
)
def test_what_moves_no_answer_changes_nothing(problem, depth, has_masks):
    generator = torch.Generator().manual_seed(0)
    theta, slope = torch.randn(2, 40, *problem.shape, generator=generator, dtype=torch.float64)
    shift = torch.zeros_like(slope)
    for axes in problem.constant_sums:
        shape = [1 if axis in axes else size for axis, size in enumerate(problem.shape)]
        shift += 10 * torch.randn(40, *shape, generator=generator, dtype=torch.float64)
    if has_masks:
        theta.flatten(1)[:, 0] = -torch.inf
    found = []
    for each in (slope, slope + shift, 0 * slope, 0 * slope + shift):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), Line(depth=depth), seed=0)
        leaf = theta.clone().requires_grad_()
        (layer(leaf) * each).sum().backward()
        found.append(leaf.grad)
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)
    assert not found[2].any()
    assert not found[3].any()


class Scaled:
    """A user's normal law of some standard deviation."""

    def __init__(self, size):
        self.size = size

    def sample(self, shape, *, generator=None, dtype=None, device=None):
        return self.size * torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def log_prob(self, x):
        return -0.5 * (x / self.size) ** 2


@pytest.mark.parametrize("size", [1e-6, 1e-3, 100.0, 1e6])
def test_the_scale_of_a_law_is_that_of_its_gradient(size):
    def gradient(law, temperature):
        layer = mapgrad.MAPLayer(
            mapgrad.get_solver("topk", SUBSET), Line(law, depth=None, temperature=temperature), seed=1
        )
        leaf = (THETA * size).expand(50, -1).clone().requires_grad_()
        (layer(leaf) * SLOPE).sum().backward()
        return leaf.grad * size

    torch.testing.assert_close(gradient(Scaled(size), 1.0), gradient(Scaled(1.0), size), rtol=1e-6, atol=1e-9)


def test_a_constant_in_theta_costs_float32_no_length():
    def mean(dtype, offset):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(20, 5)), Line(depth=None), seed=1)
        theta = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        leaf = (theta + offset).to(dtype).expand(1000, -1).clone().requires_grad_()
        (layer(leaf) * torch.linspace(-1, 1, 20, dtype=dtype)).sum().backward()
        return leaf.grad.double().mean(dim=0)

    exactly, roughly = mean(torch.float64, 0.0), mean(torch.float32, 1e4)
    assert float(roughly @ exactly / exactly.square().sum()) == pytest.approx(1, abs=0.05)
