"""Where a solver averages the states of S samples itself, a layer's answers and gradients stay what they are."""

import pytest
import torch

import mapgrad
from mapgrad.batching._perturbed import NoiseAdder
from mapgrad.gradients._counter import counter_noise
from mapgrad.gradients._laws import Gumbel

PROBLEM = mapgrad.KSubset(6, 2)
THETA = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Plain(mapgrad.BatchSolver):
    """Chooses k of n like topk."""

    traits = mapgrad.Traits(scale_free=True, masks=True)

    def solve(self, theta):
        order = theta.argsort(dim=-1, descending=True, stable=True)
        return torch.zeros_like(theta).scatter_(-1, order[..., : self.problem.k], 1.0)


class Averages(Plain):
    """Makes its noise by the core's own function, as only the numbers of states are at stake here."""

    asked = 0

    def mean_perturbed(self, theta, noise, less=None):
        type(self).asked += 1
        drawn = noise.temperature * noise_of(noise, theta)
        found = self.solve(theta + drawn)
        return (found if less is None else found - self.solve(less + drawn)).mean(dim=0)


def noise_of(noise, theta):
    rows = torch.arange(len(theta)) + noise.first if noise.rows is None else noise.rows
    shape = (noise.samples, *theta.shape)
    return counter_noise(Gumbel(), noise.key, shape, event_ndim=1, dtype=theta.dtype, device=theta.device, rows=rows)


@pytest.fixture(autouse=True)
def _on_the_cpu_too(monkeypatch):
    monkeypatch.setattr(NoiseAdder, "averages_on", lambda adder, _: adder._averages)
    monkeypatch.setattr("mapgrad.gradients._solver_noise._MANY", 0)
    monkeypatch.setattr(Averages, "asked", 0)


def twins(estimator=None, **options):
    estimator = mapgrad.IMLE(Gumbel(), samples=3) if estimator is None else estimator
    return [
        mapgrad.MAPLayer(mapgrad.get_solver(kind, PROBLEM), estimator, seed=1, **options) for kind in (Averages, Plain)
    ]


def step(layer, theta=THETA, weight=None, **how):
    theta = theta.clone().requires_grad_()
    z = layer(theta, **how)
    z.backward(torch.linspace(-1, 1, z.numel()).reshape(z.shape).to(z) if weight is None else weight)
    return z.detach(), theta.grad


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize(("symmetric", "minimize"), [(False, True), (True, False)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("target", [mapgrad.Step(2.0), mapgrad.RelativeStep(), mapgrad.Combinatorial()], ids=str)
def test_a_step_is_the_same(symmetric, minimize, dtype, target):
    layers = twins(mapgrad.IMLE(Gumbel(), target, samples=3, symmetric=symmetric), minimize=minimize)
    theta = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = torch.tensor([[3, 1, -4, 1], [5, 9, 2**40, 6]])
    for _ in range(2):
        assert_same(*(step(layer, theta, rows=ids) for layer in layers))
    assert Averages.asked == 4
    counts = [{name: layer.stats[name] for name in ("rows", "solves", "failed", "clipped")} for layer in layers]
    assert counts[0] == counts[1]
    last, expected = (layer.last for layer in layers)
    assert torch.equal(last.z, expected.z)
    assert last.z.shape == (3, 2, 4, 6)
    assert torch.equal(last.status, expected.status)
    assert torch.equal(layers[0].last.z, expected.z)


def test_one_sample_is_no_mean():
    found = [step(layer) for layer in twins(mapgrad.IMLE(Gumbel()))]
    assert_same(*found)
    assert Averages.asked == 0


@pytest.mark.parametrize(
    ("estimator", "asked"),
    [
        (lambda: mapgrad.IMLE(Gumbel(), samples=3, temperature=0.5, target_temperature=2.0), 2),
        (lambda: mapgrad.IMLE(Gumbel(), samples=3, target_temperature=0.0), 1),
        (lambda: mapgrad.StraightThrough(Gumbel(), samples=3), 1),
        (lambda: mapgrad.AdaptiveIMLE(Gumbel(), samples=3), 0),
        (lambda: mapgrad.IMLE(None, samples=3), 0),
    ],
)
def test_estimators_find_the_same(estimator, asked):
    layers = [mapgrad.MAPLayer(mapgrad.get_solver(kind, PROBLEM), estimator(), seed=0) for kind in (Averages, Plain)]
    for number in range(1, 3):
        assert_same(*(step(layer) for layer in layers))
        assert Averages.asked == number * asked


def test_who_needs_states_gets_them():
    class Own(mapgrad.IMLE):
        def gradient(self, forward, gradient):
            assert len(forward.z) == 3
            return super().gradient(forward, gradient)

    assert_same(*(step(layer) for layer in twins(Own(Gumbel(), samples=3))))
    found = [step(layer) for layer in twins(reduction="none")]
    assert found[0][0].shape == (3, 4, 6)
    assert_same(*found)

    class Many(mapgrad.Step):
        def forward(self, theta, gradient, context):
            return theta - self.lam * gradient.expand(3, *gradient.shape[1:]), self.lam

    assert Averages.asked == 0
    assert_same(*(step(layer) for layer in twins(mapgrad.IMLE(Gumbel(), Many(2.0), samples=3))))
    assert Averages.asked == 1  # forward, as targets see no states


def test_small_batches_keep_their_states(monkeypatch):
    monkeypatch.setattr("mapgrad.gradients._solver_noise._MANY", 3 * THETA.numel())
    assert_same(*(step(layer) for layer in twins()))
    assert Averages.asked == 0


def test_batches_in_parts_are_the_same(monkeypatch):
    monkeypatch.setattr("mapgrad.gradients._parts._SMALL", 0)
    monkeypatch.setattr("mapgrad.gradients._parts._PART_BYTES", 50)
    assert_same(*(step(layer) for layer in twins()))
    assert Averages.asked > 2


def test_forbidden_entries_stay_so():
    theta = THETA.masked_fill(torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) < 0.4, -torch.inf)
    layers = twins()
    found = [step(layer, theta) for layer in layers]
    assert Averages.asked == 2
    assert_same(*found)
    assert torch.equal(*(layer.last.forbidden for layer in layers))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_fail_fail_alike(bad):
    theta = torch.zeros(3, 6)
    theta[1, :5] = bad
    messages = []
    for layer in twins():
        with pytest.raises(mapgrad.RowsError) as error:
            layer(theta)
        assert error.value.rows == (1,)
        messages.append(str(error.value).replace("Averages", "Plain"))
    assert messages[0] == messages[1]


def test_a_step_that_overflows_fails_alike():
    messages = []
    for layer in twins(mapgrad.IMLE(Gumbel(), mapgrad.Step(1e30), samples=3)):
        theta = torch.zeros(3, 6, requires_grad=True)
        with pytest.raises(mapgrad.NonFiniteError) as error:
            layer(theta).backward(torch.full((3, 6), 1e30))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_gradient_that_is_not_finite_fails_its_row_alone():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    weight[3, 1] = torch.nan
    for ids in (None, torch.tensor([4, 8, 1, 1])):
        found = [step(layer, THETA, weight, rows=ids) for layer in twins()]
        assert_same(*found)
        assert found[0][1].isnan().any(dim=1).tolist() == [False, False, False, True]
    assert Averages.asked == 4


@pytest.mark.parametrize("symmetric", [False, True])
def test_users_may_write_to_the_output(symmetric):
    found = []
    for layer in twins(mapgrad.IMLE(Gumbel(), samples=3, symmetric=symmetric)):
        theta = THETA.clone().requires_grad_()
        layer(theta).mul_(2).square().sum().backward()
        found.append([theta.grad])
    assert_same(*found)


def test_states_are_found_again_from_the_same_theta_or_not_at_all():
    layer, _ = twins()
    theta = THETA.clone()
    layer(theta)
    theta.add_(1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="θ was written to since"):
            layer.last  # noqa: B018
    with torch.inference_mode():
        theta = THETA.clone()
        z = layer(theta)
        theta.zero_()
        torch.testing.assert_close(layer.last.z.mean(dim=0), z)


def test_submitted_and_separate_problems_are_the_same():
    found = []
    for layer in twins():
        theta = THETA.clone().requires_grad_()
        layer.submit(theta).result().square().sum().backward()
        other = THETA.clone().requires_grad_()
        layer(other, problems=[PROBLEM, mapgrad.KSubset(6, 3), PROBLEM, PROBLEM]).square().sum().backward()
        found.append([theta.grad, other.grad, layer.last.z])
    assert_same(*found)
    assert Averages.asked == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_who_traces_gets_states():
    theta = torch.stack([THETA, THETA + 1])
    found = [torch.vmap(layer, randomness="different")(theta) for layer in twins()]
    assert torch.equal(*found)
    layers = [torch.compile(layer, backend="aot_eager", fullgraph=True) for layer in twins()]
    assert_same(*(step(layer) for layer in layers))
    assert Averages.asked == 0


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda theta: theta.tolist(), TypeError, "mean_perturbed returned list where a tensor or None was expected"),
        (lambda theta: theta[0], ValueError, r"returned torch.float32 \(6,\) on cpu where .* \(4, 6\)"),
        (lambda theta: theta.mul_(2), ValueError, "wrote to θ"),
    ],
)
def test_answers_of_another_kind_are_refused(wrong, error, message):
    class Wrong(Plain):
        def mean_perturbed(self, theta, noise, less=None):
            return wrong(theta)

    layer = mapgrad.MAPLayer(mapgrad.get_solver(Wrong, PROBLEM), mapgrad.IMLE(samples=2))
    with pytest.raises(error, match=message):
        layer(THETA)
