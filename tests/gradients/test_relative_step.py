"""What the length and the direction of a relative step depend on, and how far its gradient is from the exact one."""

import math
from itertools import combinations

import pytest
import torch

import mapgrad
from mapgrad.gradients import Context
from mapgrad.gradients._scale import relative_step

SUBSET = mapgrad.KSubset(12, 4)
ONE_HOT = mapgrad.KSubset(8, 1)
ASSIGNMENT = mapgrad.Assignment(4)
TREE = mapgrad.SpanningTree(4, [(i, j) for i in range(4) for j in range(i)])
KNAPSACK = mapgrad.Knapsack([[3.0, 5, 2, 7, 4, 6, 3, 5]], [17.0])
PATHS = mapgrad.ShortestPath(
    9, [(n, n + d) for n in range(9) for d in (1, 3) if n + d < 9 and (d > 1 or n % 3 < 2)], 0, 8
)
RANKING = mapgrad.Ranking(4)
TOURS = mapgrad.TravelingSalesman(5)
BLIND = [SUBSET, ONE_HOT, ASSIGNMENT]
ROWS = 3000


def solver_of(problem):
    """A quick solver: top-k, or a function that scores all states."""
    if isinstance(problem, mapgrad.KSubset):
        return mapgrad.get_solver("topk", problem)
    states = problem.states()

    def choose(theta):
        flat = states.flatten(1).to(theta)
        return flat[(theta.flatten(1) @ flat.T).argmax(1)].reshape(theta.shape)

    choose.problem = problem
    return choose


def random_pair(problem, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *problem.shape, generator=generator, dtype=torch.float64).unbind()


def mean_gradient(problem, theta, slope, *, rows=ROWS, noise=None, **options):
    """The mean gradient of ⟨slope, z⟩ over rows with the same θ and common noise, and the share of rows without one."""
    noise = mapgrad.Gaussian() if noise is None else noise
    layer = mapgrad.MAPLayer(solver_of(problem), mapgrad.IMLE(noise, **options), seed=0)
    leaf = theta.expand(rows, *theta.shape).clone().requires_grad_()
    (layer(leaf) * slope).sum().backward()
    return leaf.grad.mean(0), (leaf.grad == 0).flatten(1).all(1).double().mean().item()


def exact_gradient(problem, theta, slope, temperature, draws=3000):
    """The gradient of E⟨slope, MAP(θ + τε)⟩ with Gaussian noise, by enumeration.

    Given the noise of all other entries, what the best state is worth is the highest of some lines over an entry's own
    noise, one for each value that z has there, and the state changes where two of them meet at the top: so one
    dimension is integrated exactly and the others are sampled.
    """
    states, theta, slope = problem.states().flatten(1), theta.flatten(), slope.flatten()
    generator = torch.Generator().manual_seed(1)
    perturbed = theta + temperature * torch.randn(draws, len(theta), generator=generator, dtype=torch.float64)
    values, scores, found = states @ slope, perturbed @ states.T, torch.zeros_like(theta)
    for entry in range(len(theta)):
        lines = []
        for level in states[:, entry].unique():
            taken = states[:, entry] == level
            best = (scores[:, taken] - level * perturbed[:, entry, None]).max(1)
            lines.append((level, best.values, values[taken][best.indices]))
        for (low, below, before), (high, above, after) in combinations(lines, 2):
            meeting = (below - above) / (high - low)
            top = below + low * meeting
            at_top = torch.stack(
                [height + at * meeting <= top for at, height, _ in lines if at not in (low, high)] or [top == top]
            ).all(0)
            density = (
                (-((meeting - theta[entry]) / temperature).square() / 2).exp() / (2 * math.pi) ** 0.5 / temperature
            )
            found[entry] += (density * (after - before) * at_top).mean()
    return found.reshape(problem.shape)


def visible(problem, gradient):
    """A gradient less what the problem can't see, as estimates may have any of that."""
    for _ in range(30):
        for axes in problem.constant_sums:
            gradient = gradient - gradient.mean(axes, keepdim=True)
    return gradient


def difference(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("problem", BLIND, ids=repr)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_what_a_problem_cant_see_changes_no_gradient(problem, symmetric, seed):
    theta, slope = random_pair(problem, seed)
    expected, _ = mean_gradient(problem, theta, slope, symmetric=symmetric)
    for theta_shift, slope_shift in ((1000, 0), (-3e4, 0), (0, 10), (0, -1e3), (1000, 10)):
        found, _ = mean_gradient(problem, theta + theta_shift, slope + slope_shift, symmetric=symmetric)
        assert difference(found, expected) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_nor_do_constants_of_rows_and_columns(seed):
    theta, slope = random_pair(ASSIGNMENT, seed)
    expected, _ = mean_gradient(ASSIGNMENT, theta, slope)
    steps = torch.tensor([0.0, 700, -300, 50], dtype=torch.float64)
    found, _ = mean_gradient(ASSIGNMENT, theta, slope + steps + 3 * steps.unsqueeze(1))
    assert difference(found, expected) < 0.02
    found, _ = mean_gradient(ASSIGNMENT, theta + steps + 3 * steps.unsqueeze(1), slope)
    assert difference(found, expected) < 0.15  # the boundary of rows and columns is found by two sweeps only


def test_a_rectangular_assignment_sees_a_column_but_not_a_row():
    wide = mapgrad.Assignment(2, 4)
    theta, slope = random_pair(wide, 0)
    rows = torch.tensor([[300.0], [-200.0]], dtype=torch.float64)
    expected, _ = mean_gradient(wide, theta, slope)
    assert difference(mean_gradient(wide, theta + rows, slope + rows)[0], expected) < 0.02
    columns = torch.tensor([0.0, 5, 0, 0], dtype=torch.float64)
    assert difference(mean_gradient(wide, theta, slope + columns)[0], expected) > 0.2


MASKS = [-50.0, -1e4, -1e9, torch.finfo(torch.float32).min, torch.finfo(torch.float64).min / 16]


def padded(values, count, value):
    return torch.cat([values, torch.full((count,), value, dtype=values.dtype)])


@pytest.mark.parametrize("problem", [SUBSET, ONE_HOT], ids=repr)
@pytest.mark.parametrize("slope_there", [0.0, -3.0, 1e6])
def test_a_third_of_masked_entries_changes_no_gradient(problem, slope_there):
    n = problem.n
    wide = mapgrad.KSubset(n + n // 2, problem.k)
    for seed in range(3):
        theta, slope = random_pair(problem, seed)
        expected, _ = mean_gradient(problem, theta, slope)
        for value in MASKS:
            found, _ = mean_gradient(wide, padded(theta, n // 2, value), padded(slope, n // 2, slope_there))
            assert difference(found[:n], expected) < 0.05
            assert (found[n:] == 0).all()


@pytest.mark.parametrize("problem", [mapgrad.KSubset(8, 3), mapgrad.KSubset(6, 1)], ids=repr)
def test_the_size_of_a_gradient_holds_with_three_fifths_masked(problem):
    n = problem.n
    wide = mapgrad.KSubset(n + round(1.5 * n), problem.k)
    for seed in range(6):
        theta, slope = random_pair(problem, seed)
        expected, _ = mean_gradient(problem, theta, slope)
        for value in MASKS:
            found, _ = mean_gradient(wide, padded(theta, wide.n - n, value), padded(slope, wide.n - n, 1.0))
            assert 0.25 < (found[:n].norm() / expected.norm()).item() < 4


def test_masked_cells_of_an_assignment():
    allowed = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    allowed[0, 0] = False
    theta, slope = random_pair(ASSIGNMENT, 3)
    found = [mean_gradient(ASSIGNMENT, torch.where(allowed, theta, value), slope)[0] for value in MASKS]
    exact = visible(ASSIGNMENT, exact_gradient(ASSIGNMENT, torch.where(allowed, theta, -1e4), slope, 1.0))
    for gradient in found:
        assert difference(gradient, found[2]) < 0.05
        assert torch.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.9
        assert 0.5 < (gradient.norm() / exact.norm()).item() < 1.5


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize(("n", "most"), [(40, 1e-9), (900, 0.3)])  # of a long row, some entries are looked at
def test_forbidden_entries_count_nowhere(n, most, share):
    forbidden = torch.rand(4, n, generator=torch.Generator().manual_seed(0)) < share
    theta, slope = torch.randn(2, 4, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta, slope = theta.masked_fill(forbidden, -math.inf), slope.masked_fill(forbidden, 0.0)
    step, divisor = relative_step(theta[None], slope[None], 1.0, Context(1, mapgrad.KSubset(n, 1), 0.5))
    assert (step[0][forbidden] == 0).all()
    assert (theta - step[0]).isneginf().equal(forbidden)
    for row in range(4):
        rest = ~forbidden[row]
        alone = mapgrad.KSubset(int(rest.sum()), 1)
        expected, its_divisor = relative_step(
            theta[row, rest][None, None], slope[row, rest][None, None], 1.0, Context(1, alone, 0.5)
        )
        assert difference(step[0, row, rest], expected[0, 0]) < most
        assert divisor[0, row].item() == pytest.approx(its_divisor.item(), rel=most)


def random_case(problem, number):
    """A θ of any size, offset and masks, a slope, and a temperature of at least .3 of θ's spread."""
    theta, slope = random_pair(problem, number)
    generator = torch.Generator().manual_seed(100 + number)
    u, v, w = torch.rand(3, generator=generator).tolist()
    spread = 0.0 if number % 8 == 0 else 10.0 ** (12 * u - 6)
    temperature = spread * (0.3 + 2 * v) if number % 2 and spread else max(spread, 1.0)
    theta = theta * spread
    if problem.domain is not mapgrad.Domain.REAL:
        theta = -theta.abs()
    if problem.constant_sums and number % 3 == 0:
        theta, slope = theta + 1000 * temperature * w, slope + 10
    if number % 4 == 1:
        states = problem.states().flatten(1)
        order = torch.randperm(states.shape[1], generator=generator)
        masked = order[: states.shape[1] // 4]
        if (states[:, masked].sum(1) == 0).sum() >= 4:
            theta.view(-1)[masked] = theta.min() - 1e4 * temperature
    return theta, slope, temperature


@pytest.mark.parametrize(("count", "least"), [(16, 15), pytest.param(40, 38, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "problem", [*BLIND, RANKING, TOURS, TREE, KNAPSACK, PATHS], ids=lambda problem: type(problem).__name__
)
def test_random_rows_have_nearly_the_exact_gradient(problem, count, least):
    good = 0
    for number in range(count):
        theta, slope, temperature = random_case(problem, number)
        exact = visible(problem, exact_gradient(problem, theta, slope, temperature)).flatten()
        options = {"target": mapgrad.RelativeStep(0.5), "symmetric": True, "temperature": temperature}
        found = visible(problem, mean_gradient(problem, theta, slope, **options)[0]).flatten()
        ratio = (found.norm() / exact.norm()).item()
        good += torch.cosine_similarity(found, exact, dim=0).item() >= 0.8 and 0.25 <= ratio <= 4
    assert good >= least


def test_subsets_against_quadrature():
    theta, slope = random_pair(mapgrad.KSubset(9, 4), 5)
    leaf = theta.clone().requires_grad_()
    (mapgrad.exact.topk_marginals(leaf, 4, mapgrad.SumOfGamma(4)) @ slope).backward()
    found, _ = mean_gradient(mapgrad.KSubset(9, 4), theta, slope, noise="auto")
    assert torch.cosine_similarity(found, leaf.grad, dim=0) > 0.95
    assert 0.4 < (found.norm() / leaf.grad.norm()).item() < 1.2


@pytest.mark.parametrize("ratio", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize(
    ("problem", "lam", "most"),
    [
        (SUBSET, 0.5, 0.1),
        (mapgrad.KSubset(16, 5), 0.5, 0.1),
        (ASSIGNMENT, 1.0, 0.1),
        (ONE_HOT, 1.0, 0.1),
        (ASSIGNMENT, 0.5, 0.35),
        (ONE_HOT, 0.5, 0.45),
    ],
    ids=repr,
)
def test_few_rows_are_dead_however_large_the_noise(problem, lam, most, ratio):
    """Where states have few neighbours, a step of .5 moves fewer rows than one of 1, for the sake of a small bias."""
    for seed in range(3):
        theta, slope = random_pair(problem, seed)
        _, dead = mean_gradient(
            problem, theta / theta.square().mean().sqrt() / ratio, slope, target=mapgrad.RelativeStep(lam)
        )
        assert dead <= most


@pytest.mark.parametrize("problem", [*BLIND, KNAPSACK], ids=repr)
def test_no_jump_where_theta_is_zero(problem):
    theta, slope = random_pair(problem, 0)
    expected, _ = mean_gradient(problem, torch.zeros_like(theta), slope)
    assert expected.norm() > 0.1
    for size in (1e-300, 1e-9, 1e-4, 1e-2):
        assert difference(mean_gradient(problem, size * theta, slope)[0], expected) < 0.05


SHAPES = [mapgrad.KSubset(1, 1), mapgrad.KSubset(2, 1), mapgrad.KSubset(2, 2), mapgrad.KSubset(13, 4)]
SHAPES += [
    ASSIGNMENT,
    mapgrad.Assignment(1, 3),
    mapgrad.Assignment(1),
    KNAPSACK,
    mapgrad.Ranking(1),
    mapgrad.Ranking(5),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", SHAPES, ids=repr)
def test_gradients_are_finite_whatever_the_sizes(problem, dtype):
    limits = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(0)
    z = torch.ones(32, *problem.shape, dtype=dtype)
    for size in (0.0, limits.smallest_normal / 4, 1e-30, 1e-5, 1.0, 1e6, 1e30, limits.max):
        for slope_size in (limits.smallest_normal / 2**20, 1e-40, 1.0, 1e20, 1e30):
            for noise in (0.0, 0.5):
                theta, slope = (2 * torch.rand(2, 32, *problem.shape, generator=generator, dtype=dtype) - 1).unbind()
                theta, slope = theta * size, slope * slope_size
                theta[:8, ..., 0] = limits.min
                theta[4:12, ..., -1] = -math.inf
                slope[theta == -math.inf] = 0
                slope[-1] = 0
                context = Context(len(problem.shape), problem, noise)
                toward, away, divisor = mapgrad.RelativeStep(2.0).both_sides(theta[None], slope[None], context)
                for goal in (toward[0], away[0]):
                    assert goal.isneginf().equal(theta.isneginf())
                    assert goal[theta != -math.inf].isfinite().all()
                    assert goal[-1].equal(theta[-1])
                scaled = mapgrad.gradients._division.divided(z[None], divisor)
                assert scaled.dtype == dtype
                assert scaled.isfinite().all()


@pytest.mark.parametrize("size", [1e-44, 1e-40, 1e-20, 1e20, 1e30])
def test_the_gradient_is_in_proportion_to_the_loss(size):
    theta = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    slope = torch.randn(12, generator=torch.Generator().manual_seed(1)) if size > 1e-44 else torch.arange(12.0).sub(5)

    def gradient(factor):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), seed=0)
        leaf = theta.clone().requires_grad_()
        layer(leaf).backward((slope.double() * factor).float().expand(64, 12))
        return leaf.grad.double()

    assert difference(gradient(size) / size, gradient(1.0)) < (0.3 if size < 1e-42 else 1e-3)


def step_of(problem):
    def step(theta, slope):
        return relative_step(theta[None], slope[None], 0.5, Context(len(problem.shape), problem, 0.7))

    return step, torch.randn(2, 6, *problem.shape, generator=torch.Generator().manual_seed(0))


LONG = mapgrad.KSubset(500, 20)


@pytest.mark.parametrize("problem", [SUBSET, ASSIGNMENT, KNAPSACK, LONG], ids=repr)
def test_a_rows_step_is_its_own(problem):
    step, (theta, slope) = step_of(problem)
    expected = step(theta, slope)
    rows = [step(theta[row, None], slope[row, None]) for row in range(6)]
    for place in (0, 1):
        torch.testing.assert_close(torch.cat([row[place] for row in rows], dim=1), expected[place])


@pytest.mark.parametrize(
    "problem",
    [SUBSET, *(pytest.param(each, marks=pytest.mark.slow) for each in (ASSIGNMENT, KNAPSACK, LONG))],
    ids=repr,
)
def test_a_step_is_the_same_compiled(problem):
    step, (theta, slope) = step_of(problem)
    expected = step(theta, slope)  # first: Python 3.11's cached_property has a lock, which dynamo doesn't know
    traced = torch.compile(step, fullgraph=True, backend="aot_eager")(theta, slope)
    torch.testing.assert_close(traced, expected)


class Unsaid:
    """Gaussian noise whose author doesn't say its standard deviation."""

    def sample(self, shape, *, generator, dtype, device):
        return 3 * torch.randn(shape, generator=generator, dtype=dtype, device=device)


def test_the_noise_of_a_law_that_doesnt_say_its_spread_is_measured():
    class Said(Unsaid):
        std = 3.0

    theta, slope = random_pair(SUBSET, 0)
    for scale in (0.0, 1e-6):
        found, expected = (mean_gradient(SUBSET, scale * theta, slope, noise=law())[0] for law in (Unsaid, Said))
        assert difference(found, expected) < 0.1
        assert 0.5 < (found.norm() / visible(SUBSET, exact_gradient(SUBSET, scale * theta, slope, 3.0)).norm()) < 1.5


@pytest.mark.parametrize(
    ("target", "times"),
    [
        (mapgrad.Step(1.0), 0),
        (mapgrad.Combinatorial(), 0),
        (mapgrad.AdaptiveStep(norm="batch"), 0),
        (mapgrad.RelativeStep(), 1),
        (mapgrad.AdaptiveStep(), 1),
    ],
)
def test_a_spread_is_asked_for_where_a_target_needs_it(target, times):
    class Asked(Unsaid):
        times = 0

        @property
        def std(self):
            self.times += 1
            return 3.0

    law = Asked()
    theta, slope = random_pair(SUBSET, 0)
    layer = mapgrad.MAPLayer(solver_of(SUBSET), mapgrad.IMLE(law, target))
    (layer(theta.requires_grad_()) * slope).sum().backward()
    assert law.times == times


@pytest.mark.parametrize(("value", "upper"), [(-0.5, 10), (-1.0, 6), (0.3, 4)])
def test_auto_noise_leaves_integers_where_they_were(value, upper):
    program = mapgrad.IntegerProgram(A_ub=[[1.0, 1, 1]], b_ub=[3.0 * upper], upper=upper)
    theta = torch.full((4000, 3), value)
    layer = mapgrad.MAPLayer(solver_of(program), mapgrad.IMLE(), seed=0)
    law = layer.estimator.noise_for(program)
    assert law.mean == 0
    taken = upper * (1 - law.cdf(torch.tensor(-value)).item())  # at its upper end is an integer whose noise exceeds −θ
    assert abs(layer(theta).mean().item() - taken) < 0.15
    biased = mapgrad.MAPLayer(solver_of(program), mapgrad.IMLE(law.noise), seed=0)
    assert biased(theta).mean() > layer(theta).mean() + 0.3


@pytest.mark.parametrize("terms", [None, 10])
def test_centred_noise_is_its_law_less_the_mean(terms):
    law = mapgrad.SumOfGamma(3.0, terms)
    centred = mapgrad.Centred(law)
    assert (centred.mean, centred.variance, centred.std) == (0, law.variance, law.variance**0.5)
    one, other = (noise.sample((50,), generator=torch.Generator().manual_seed(0)) for noise in (centred, law))
    torch.testing.assert_close(one, other - law.mean)
    if terms is None:
        u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
        torch.testing.assert_close(centred.cdf(centred.icdf(u)), u)
        torch.testing.assert_close(centred.log_prob(centred.icdf(u)), law.log_prob(law.icdf(u)))
        in_place = u.numpy().copy()
        centred.icdf_(in_place)
        torch.testing.assert_close(torch.from_numpy(in_place), centred.icdf(u))
    else:
        assert not centred.invertible
