"""A solver of batches that adds the noise itself gets what it needs, and a layer's answers stay the same."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.batching._perturbed import NoiseAdder
from mapgrad.gradients._counter import counter_noise, mix
from mapgrad.gradients._quantiles import quantiles

CPU = torch.device("cpu")
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
LAWS = [
    mapgrad.Gumbel(),
    mapgrad.Gaussian(),
    mapgrad.Logistic(),
    mapgrad.Laplace(),
    mapgrad.SumOfGamma(1e-4),
    mapgrad.SumOfGamma(5.0),
    mapgrad.SumOfGamma(1e3),
    pytest.param(mapgrad.SumOfGamma(1e4), marks=pytest.mark.slow),  # four seconds for its table
    mapgrad.Centred(mapgrad.SumOfGamma(0.7)),
]


def finalised(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def bits_of(key, sample, row, entry):
    start = finalised((key + (sample + 1) * 0xD1342543DE82EF95 + (row + 1) * GOLDEN) & MASK)
    return finalised((start + (entry + 1) * GOLDEN) & MASK)


def noise_of(bits, table):
    """ε of 64 bits, as the docstring of `CounterNoise` has it, in float64 but for v."""
    u = ((bits >> 12) + 0.5) * 2.0**-52
    is_high = bits >> 63
    v = np.float32(1 - u if is_high else u).view(np.uint32).item()
    a, b, c, d = table[(v | is_high << 31) >> 19].tolist()
    t = (v & 0x7FFFFF) * 2.0**-23 - 0.5
    return a + t * (b + t * (c + t * d))


class Adds(mapgrad.BatchSolver):
    """Chooses k of n like topk, with noise that it makes from numbers, one by one."""

    traits = mapgrad.Traits(scale_free=True, masks=True)
    asked = 0

    def solve(self, theta):
        order = theta.argsort(dim=-1, descending=True, stable=True)
        return torch.zeros_like(theta).scatter_(-1, order[..., : self.problem.k], 1.0)

    def solve_perturbed(self, theta, noise):
        type(self).asked += 1
        *_, rows, n = theta.shape
        names = range(noise.first, noise.first + rows) if noise.rows is None else noise.rows.tolist()
        drawn = [
            [[noise_of(bits_of(noise.key, s, b, i), noise.quantiles) for i in range(n)] for b in names]
            for s in range(noise.samples)
        ]
        return self.solve(theta + noise.temperature * torch.tensor(drawn, dtype=theta.dtype))


class Plain(Adds):
    solve_perturbed = mapgrad.BatchSolver.solve_perturbed


@pytest.fixture(autouse=True)
def _on_the_cpu_too(monkeypatch):
    monkeypatch.setattr(NoiseAdder, "adds_on", lambda adder, _: adder._adds)
    monkeypatch.setattr(Adds, "asked", 0)


def twins(*arguments, **options):
    problem = mapgrad.KSubset(6, 2)
    return [mapgrad.MAPLayer(mapgrad.get_solver(kind, problem), *arguments, **options) for kind in (Adds, Plain)]


def step(layer, theta, weight=None, **how):
    theta = theta.clone().requires_grad_()
    z = layer(theta, **how)
    z.backward(torch.linspace(-1, 1, z.numel()).reshape(z.shape).to(z) if weight is None else weight)
    return z.detach(), theta.grad


def assert_same(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, **tolerance)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_cubics_are_right_to_a_few_roundings(law):
    table = quantiles(law, CPU)
    generator = np.random.default_rng(0)
    exponents = generator.uniform(0, 51, 300)
    small = [*map(int, 2**exponents), *range(20)]
    words = [*generator.integers(0, 1 << 52, 300).tolist(), *small, *((1 << 52) - 1 - word for word in small)]
    expected = law.icdf((torch.tensor(words, dtype=torch.float64) + 0.5) * 2.0**-52)
    found = torch.tensor([noise_of(word << 12, table) for word in words], dtype=torch.float64)
    error = (found - expected).abs() / expected.abs().clamp(min=law.std)
    assert error.max() < 4 * torch.finfo(torch.float32).eps


def test_bits_are_those_of_the_counter():
    key, rows = mix(3, 5), torch.tensor([0, -7, 2**62])

    class Uniform(mapgrad.Gumbel):
        def icdf(self, u):
            return u

    u = counter_noise(Uniform(), key, (2, 3, 4), event_ndim=1, dtype=torch.float64, device=CPU, rows=rows)
    found = [[[bits_of(key, s, b, i) for i in range(4)] for b in rows.tolist()] for s in range(2)]
    assert (np.array(found, np.uint64) >> np.uint64(12)).tolist() == (u * 2**52 - 0.5).long().tolist()


def test_laws_that_a_table_may_miss_have_none():
    class Coin(mapgrad.Gumbel):
        def icdf(self, u):
            return u.round()

    assert quantiles(Coin(), CPU) is None
    assert quantiles(mapgrad.SumOfGamma(5.0, terms=10), CPU) is None
    assert quantiles(None, CPU) is None
    layers = twins(mapgrad.IMLE(Coin()), seed=0)
    assert_same(*(step(layer, torch.zeros(3, 6)) for layer in layers))
    assert Adds.asked == 0


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_step_is_the_same(samples, symmetric, reduction, minimize, dtype):
    estimator = mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0), samples=samples, symmetric=symmetric)
    layers = twins(estimator, seed=1, reduction=reduction, minimize=minimize)
    theta = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = torch.tensor([[3, 1, -4, 1], [5, 9, 2**40, 6]])
    for _ in range(2):
        assert_same(*(step(layer, theta, rows=ids) for layer in layers))
    assert Adds.asked == 4
    stats, expected = (layer.stats for layer in layers)
    assert stats.keys() == expected.keys()
    assert {name: stats[name] for name in stats if name != "seconds"} == {
        name: expected[name] for name in stats if name != "seconds"
    }
    solutions, expected = (layer.last for layer in layers)
    assert torch.equal(solutions.z, expected.z)
    assert torch.equal(solutions.status, expected.status)


@pytest.mark.parametrize(
    "estimator",
    [
        mapgrad.IMLE,
        lambda: mapgrad.IMLE(samples=2, temperature=0.5, target_temperature=2.0),
        lambda: mapgrad.IMLE(target_temperature=0.0),
        lambda: mapgrad.IMLE(target=mapgrad.Combinatorial()),
        mapgrad.AdaptiveIMLE,
        lambda: mapgrad.Blackbox(3.0),
        lambda: mapgrad.StraightThrough(mapgrad.Laplace(), samples=2),
    ],
)
def test_estimators_find_the_same(estimator):
    layers = [
        mapgrad.MAPLayer(mapgrad.get_solver(kind, mapgrad.KSubset(6, 2)), estimator(), seed=0) for kind in (Adds, Plain)
    ]
    theta = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        assert_same(*(step(layer, theta) for layer in layers))
    for layer in layers:
        layer.eval()
    assert_same(*(step(layer, theta) for layer in layers))


def test_without_a_seed_the_generator_is_asked_as_often():
    found = []
    for layer in twins():
        torch.manual_seed(0)
        found.append([*step(layer, torch.zeros(4, 6)), torch.rand(3)])
    assert_same(*found)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_needed(context):
    with context():
        theta = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
        assert torch.equal(*(layer(theta) for layer in twins(seed=0)))
    assert Adds.asked == 1


def test_forbidden_entries_stay_so():
    theta = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    theta[torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) < 0.4] = -torch.inf
    layers = twins(mapgrad.IMLE(samples=2), seed=0)
    found = [step(layer, theta) for layer in layers]
    assert Adds.asked == 2
    assert_same(*found)
    assert not found[0][0][theta.isneginf()].any()
    assert torch.equal(*(layer.last.forbidden for layer in layers))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_fail_fail_alike(bad):
    theta = torch.zeros(3, 6)
    theta[1, :5] = bad
    messages = []
    for layer in twins(mapgrad.IMLE(samples=2), seed=0):
        with pytest.raises(mapgrad.RowsError) as error:
            layer(theta)
        assert error.value.rows == (1,)
        messages.append(str(error.value).replace("Adds", "Plain"))
    assert messages[0] == messages[1]


def test_a_step_that_overflows_fails_alike():
    messages = []
    for layer in twins(mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(1e30), symmetric=False), seed=0):
        theta = torch.zeros(3, 6, requires_grad=True)
        with pytest.raises(mapgrad.NonFiniteError) as error:
            layer(theta).backward(torch.full((3, 6), 1e30))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_sums_beyond_the_range_are_left_to_the_core():
    layers = twins(mapgrad.IMLE(mapgrad.Gumbel(), temperature=3e38, samples=20), seed=0)
    for layer in layers:
        with pytest.raises(mapgrad.NonFiniteError, match="overflows"):
            layer(torch.full((3, 6), 3e38))
    assert Adds.asked == 0


def test_a_gradient_that_is_not_finite_fails_its_row_alone():
    weight = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    weight[3, 1] = torch.nan
    theta = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for ids in (None, torch.tensor([4, 8, 1, 1, 3])):
        found = [step(layer, theta, weight, rows=ids) for layer in twins(mapgrad.IMLE(samples=2), seed=0)]
        assert_same(*found)
        assert found[0][1].isnan().any(dim=1).tolist() == [False, False, False, True, False]
    assert Adds.asked == 4


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_maps_find_the_same(randomness):
    theta = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = []
    for layer in twins(mapgrad.IMLE(samples=2), seed=0):

        def gradient(each, layer=layer):
            return torch.func.grad(lambda x: (layer(x) * torch.arange(6.0)).sum())(each)

        found.append([torch.vmap(gradient, randomness=randomness)(theta)])
    assert Adds.asked
    assert_same(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_compiled_step_is_the_same():
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    layers = [torch.compile(layer, backend="aot_eager", fullgraph=True) for layer in twins(seed=0)]
    assert_same(*(step(layer, theta) for layer in layers))
    assert Adds.asked == 2


def test_batches_in_parts_are_the_same(monkeypatch):
    monkeypatch.setattr("mapgrad.gradients._parts._PART_BYTES", 100)
    monkeypatch.setattr("mapgrad.gradients._parts._SMALL", 0)
    theta = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    assert_same(*(step(layer, theta) for layer in twins(mapgrad.IMLE(samples=2), seed=0)))
    assert Adds.asked > 4


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda theta: theta.tolist(), TypeError, "solve_perturbed returned list where a tensor or None was expected"),
        (lambda theta: theta[0], ValueError, r"returned torch.float32 \(1, 3, 6\) on cpu where .* \(1, 1, 3, 6\)"),
        (lambda theta: theta.double(), ValueError, "returned torch.float64"),
        (lambda theta: theta.mul_(2), ValueError, "wrote to θ"),
    ],
)
def test_answers_of_another_kind_are_refused(wrong, error, message):
    class Wrong(Adds):
        def solve_perturbed(self, theta, noise):
            return wrong(theta)

    layer = mapgrad.MAPLayer(mapgrad.get_solver(Wrong, mapgrad.KSubset(6, 2)))
    with pytest.raises(error, match=message):
        layer(torch.zeros(3, 6))


def test_an_answer_with_nan_is_asked_for_again():
    class Nan(Adds):
        def solve_perturbed(self, theta, noise):
            return torch.full_like(theta, torch.nan)

    layer = mapgrad.MAPLayer(mapgrad.get_solver(Nan, mapgrad.KSubset(6, 2)))
    assert (layer(torch.zeros(3, 6)).sum(dim=1) == 2).all()
