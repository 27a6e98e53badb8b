"""The estimators' door: what a user's own estimator may do, and what a layer does around it."""

from itertools import product

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.gradients import _parts, _sampler
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)
UNREPEATABLE = mapgrad.SumOfGamma(2.0, terms=5)
COMPILED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def random_theta(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(layer, theta, run_by=lambda function: function):
    """Output and gradient of one step, whose loss has another slope for each entry."""
    leaf = theta.clone().requires_grad_()
    z = run_by(layer)(leaf)
    ((z - 0.1 * torch.arange(z[..., 0].numel()).reshape(z[..., 0].shape).unsqueeze(-1)) ** 2).sum().backward()
    return z.detach(), leaf.grad


class Curious(mapgrad.Estimator):
    """Solves antithetic pairs and 2θ, remembers much, and looks at its values with NumPy."""

    def __init__(self, noise=None, *, drops_rows=False):
        super().__init__(mapgrad.Gumbel() if noise is None else noise, samples=2, temperature=1.0)
        self.drops_rows = drops_rows

    def forward(self, theta, sampler, solve):
        noise = sampler.perturb(torch.zeros_like(theta), 1.0)
        if float(noise.abs().max()) < 1e-6:
            raise AssertionError("the noise is drawn")
        plus, minus = theta + noise, theta - noise
        pair = solve(torch.stack([plus, minus]))
        doubled = solve(2 * theta)
        spread = torch.from_numpy(np.ptp(theta.flatten(1).numpy(), axis=1))
        state = (
            doubled.z,  # an entry a row
            pair.z[1].movedim(0, 1),  # a view, not contiguous
            theta.abs().mean(),  # of this batch
            spread,
            (spread > spread.mean()).long(),
        )
        return mapgrad.Forward(pair.z[0], pair.status[0], None if self.drops_rows else plus, state)

    def gradient(self, forward, gradient):
        doubled, other, size, spread, is_wide = forward.state
        theta, shape = forward.theta, (len(forward.theta), *[1] * (forward.theta.ndim - 1))
        assert doubled.shape == theta.shape
        assert other.movedim(0, 1).shape == forward.z.shape
        assert size.shape == ()
        assert spread.shape == is_wide.shape == (len(theta),)
        assert is_wide.dtype == torch.int64
        assert torch.equal(size, theta.abs().mean())
        assert torch.equal(spread, torch.from_numpy(np.ptp(theta.flatten(1).numpy(), axis=1)))
        noise = forward.sampler.perturb(torch.zeros_like(theta), 1.0)
        again = forward.solve(torch.stack([theta + noise, theta - noise])).z
        assert torch.equal(again, torch.stack([forward.z, other.movedim(0, 1)]))
        moved = forward.solve(theta - 9 * size * gradient + noise).z
        found = (forward.z + other.movedim(0, 1) - moved).mean(0) - doubled
        return found * (spread + is_wide).reshape(shape) * size

    def state_like(self, theta):
        count = len(theta)
        return (
            torch.empty_like(theta),
            theta.new_empty(count, 2, *theta.shape[1:]),
            theta.new_empty(()),
            theta.new_empty(count),
            theta.new_empty(count, dtype=torch.int64),
        )


SOLVERS = {
    "batch": (lambda: mapgrad.get_solver("topk", SUBSET), (6,)),
    "host": (lambda: mapgrad.get_solver(BruteForce, GRID, domain="clip"), (2, 3)),
    "function": (lambda: lambda theta: torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1), (6,)),
}


def curious(solver, noise=None, *, drops_rows=False):
    return mapgrad.MAPLayer(SOLVERS[solver][0](), Curious(noise, drops_rows=drops_rows), seed=1)


@COMPILED
@pytest.mark.parametrize(
    ("solver", "batch"), [*product(["batch"], [(), (1,), (4,), (3, 2)]), ("host", (3, 2)), ("function", (4,))]
)
def test_a_users_estimator_compiled(solver, batch):
    theta = -random_theta(*batch, *SOLVERS[solver][1], seed=1).abs()
    expected = step(curious(solver), theta)
    assert expected[1].abs().sum() > 0
    for drops_rows in (False, True):
        z, gradient = step(curious(solver, drops_rows=drops_rows), theta, compiled)
        assert torch.equal(z, expected[0])
        assert torch.equal(gradient, expected[1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch", [(), (1,), (3,)])
@pytest.mark.parametrize("noise", [None, UNREPEATABLE])
def test_a_users_estimator_in_a_map(solver, batch, noise):
    theta = random_theta(4, 2, *batch, *SOLVERS[solver][1])
    layers = []

    def loss(rows):
        layers.append(curious(solver, noise))
        z = layers[-1](rows)
        return ((z - 0.1 * torch.arange(z.shape[-1])) ** 2).sum()

    gradient = torch.func.grad(loss)
    expected = torch.stack([torch.stack([gradient(rows) for rows in group]) for group in theta])
    assert expected.abs().sum() > 0
    found = torch.vmap(torch.vmap(gradient, randomness="same"), randomness="same")(theta)
    assert torch.equal(found, expected)
    leaf = theta.clone().requires_grad_()
    torch.vmap(torch.vmap(loss, randomness="same"), randomness="same")(leaf).sum().backward()
    assert torch.equal(leaf.grad, expected)
    assert torch.vmap(gradient, randomness="different")(theta[:, 0]).isfinite().all()


@COMPILED
def test_a_users_estimator_in_a_compiled_map():
    theta = random_theta(4, 3, 6)
    layers = [curious("batch") for _ in range(2)]
    eager, traced = (torch.vmap(lambda rows, layer=layer: layer(rows), randomness="different") for layer in layers)
    expected = step(eager, theta)
    assert expected[1].abs().sum() > 0
    z, gradient = step(traced, theta, compiled)
    assert torch.equal(z, expected[0])
    assert torch.equal(gradient, expected[1])


@pytest.mark.parametrize(
    ("solver", "mapped", "drops_rows"),
    [
        ("batch", (0, 1), False),
        ("batch", (0, 1), True),
        ("host", (0, 1), True),
        ("function", (0, 1), False),
        ("batch", (), True),
        ("host", (1,), False),
    ],
    ids=str,
)
def test_opcheck_of_a_users_estimator(solver, drops_rows, mapped):
    layer = curious(solver, UNREPEATABLE, drops_rows=drops_rows)
    theta = random_theta(*(2,) * len(mapped), 3, *SOLVERS[solver][1])
    rest = torch.tensor(5), None, list(mapped), 2, True, layer.handle, layer.solver.at_work().handle
    torch.library.opcheck(torch.ops.mapgrad.forward.default, (theta, *rest))
    output, *found = torch.ops.mapgrad.forward(theta, *rest)
    torch.library.opcheck(torch.ops.mapgrad.gradient.default, (torch.ones_like(output), theta, *found, *rest))


def test_jacobian_of_a_users_estimator():
    layers = [curious("host") for _ in range(2)]
    theta = random_theta(2, 2, 3).requires_grad_()
    z = layers[0](theta)
    rows = [torch.autograd.grad(entry, theta, retain_graph=True)[0] for entry in z.flatten()]
    expected = torch.stack(rows).reshape(*z.shape, *theta.shape)
    assert torch.equal(torch.func.jacrev(layers[1])(theta.detach()), expected)


class Slow(mapgrad.InstanceSolver):
    """Proves nothing where the first entry is positive."""

    def solve(self, state, theta, request):
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        status = mapgrad.Status.OPTIMAL if theta[0] <= 0 else self.status
        return mapgrad.Solution(z, status)

    status = mapgrad.Status.FEASIBLE


class OutOfTime(Slow):
    status = mapgrad.Status.TIME_LIMIT


class Wary(mapgrad.Estimator):
    """Gives rows without a proof in the forward pass 1, in the backward pass 2, in both 3."""

    def __init__(self):
        super().__init__(None, samples=1, temperature=1.0)

    def gradient(self, forward, gradient):
        there = forward.solve(forward.theta - gradient).status != mapgrad.Status.OPTIMAL
        here = forward.status != mapgrad.Status.OPTIMAL
        assert here.shape == there.shape == forward.z.shape[:2]
        return (here + 2 * there)[0].unsqueeze(-1) * torch.ones_like(forward.theta)


@COMPILED
@pytest.mark.parametrize("solver", [Slow, OutOfTime])
@pytest.mark.parametrize("run_by", [lambda function: function, compiled, torch.vmap], ids=["eager", "compile", "vmap"])
@pytest.mark.parametrize("merge", [True, False])
def test_a_rows_status_reaches_the_backward_pass(solver, run_by, merge):
    layer = mapgrad.MAPLayer(mapgrad.get_solver(solver, SUBSET, on_error="incumbent", merge=merge), Wary())
    theta = random_theta(2, 3, 6)
    theta[..., 0] = torch.tensor([[-1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])
    leaf = theta.clone().requires_grad_()
    z = run_by(lambda rows: layer(rows))(leaf)
    slope = torch.zeros_like(theta)
    slope[..., 0] = torch.tensor([[0.0, 9.0, -9.0], [9.0, 0.0, -9.0]])
    z.backward(slope)
    assert leaf.grad[..., 0].tolist() == [[0, 1, 2], [0, 3, 3]]


def test_an_incumbent_without_consent_is_an_error():
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Slow, SUBSET), Wary())
    with pytest.raises(mapgrad.SolveTimeoutError, match="row 1"):
        layer(torch.tensor([[-1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]]))


class CountedDraws:
    """Gumbel noise that counts how many numbers it gives."""

    std = mapgrad.Gumbel().std

    def __init__(self):
        self.given = 0

    def sample(self, shape, *, generator, dtype, device):
        self.given += torch.Size(shape).numel()
        return mapgrad.Gumbel().sample(shape, generator=generator, dtype=dtype, device=device)


class CountedQuantiles(CountedDraws):
    def icdf(self, uniform):
        self.given += uniform.numel()
        return mapgrad.Gumbel().icdf(uniform)


WIDE = mapgrad.KSubset(700, 20)


@pytest.mark.parametrize("law", [CountedQuantiles, CountedDraws])
@pytest.mark.parametrize("kept", [1 << 16, 0])
def test_noise_is_made_again_where_a_batch_is_large(monkeypatch, law, kept):
    monkeypatch.setattr(_sampler, "_KEPT", kept)
    noise = law()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", WIDE), mapgrad.IMLE(noise, samples=3), seed=0)
    for rows in (8, 64):
        noise.given = 0
        entries = 3 * rows * 700
        gradient = step(layer, random_theta(rows, 700))[1]
        assert gradient.abs().sum() > 0
        is_again = law is CountedQuantiles and entries > _sampler._KEPT
        assert noise.given == entries * (2 if is_again else 1)


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), mapgrad.SumOfGamma(20), UNREPEATABLE])
def test_a_large_batch_has_the_gradient_of_its_rows(monkeypatch, noise):
    theta = random_theta(64, 700)

    def run(rows):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", WIDE), mapgrad.IMLE(noise, samples=3), seed=5)
        return step(layer, theta[:rows])

    monkeypatch.setattr(_sampler, "_KEPT", 1 << 16)
    z, gradient = run(64)
    assert 3 * z.numel() > _sampler._KEPT > 3 * 8 * 700
    monkeypatch.setattr(_sampler, "_KEPT", 1 << 40)
    kept_z, kept_gradient = run(64)
    assert torch.equal(z, kept_z)
    assert torch.equal(gradient, kept_gradient)
    if noise is not UNREPEATABLE:
        few_z, few_gradient = run(8)
        assert torch.equal(few_z, z[:8])
        assert torch.equal(few_gradient, gradient[:8])


PARTS = {
    "imle": lambda: mapgrad.IMLE(mapgrad.Gumbel(), samples=3),
    "unrepeatable": lambda: mapgrad.IMLE(UNREPEATABLE, samples=3),
    "symmetric": lambda: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(5.0), samples=2, symmetric=True),
    "late": lambda: mapgrad.IMLE(UNREPEATABLE, samples=2, temperature=0.0, target_temperature=1.0),
    "adaptive": lambda: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, step=0.1),
    "adaptive-batch": lambda: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, step=0.1, norm="batch"),
}


def cut(monkeypatch, byte_count):
    monkeypatch.setattr(_parts, "_SMALL", 0)
    monkeypatch.setattr(_parts, "_PART_BYTES", byte_count)


@COMPILED
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("run_by", "kept"),
    [(lambda function: function, 0), (lambda function: function, 1 << 16), (compiled, 0)],
    ids=["again", "kept", "compile"],
)
def test_parts_change_nothing(monkeypatch, name, reduction, kept, run_by):
    monkeypatch.setattr(_sampler, "_KEPT", kept)
    sizes = []

    def train():
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), PARTS[name](), reduction=reduction, seed=2)
        plain = layer.estimator.gradient
        layer.estimator.gradient = lambda forward, gradient: (
            sizes.append(len(forward.theta)) or plain(forward, gradient)
        )
        run = run_by(layer)
        found = [value for seed in range(3) for value in step(run, random_theta(5, 2, 6, seed=seed))]
        return [*found, torch.tensor(layer.stats.get("beta", 0.0)), torch.tensor(layer.stats["dead"])]

    expected = train()
    assert set(sizes) == {10}
    sizes.clear()
    cut(monkeypatch, 3 * 24 * PARTS[name]().samples)  # three rows of six float32 for each sample
    found = train()
    assert set(sizes) == ({10} if name == "adaptive-batch" else {2, 3})
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


class Rowwise(mapgrad.Estimator):
    """Remembers a number for each row, and one for all."""

    is_rowwise = True

    def __init__(self):
        super().__init__(mapgrad.Gumbel(), samples=2, temperature=1.0)

    def forward(self, theta, sampler, solve):
        rows = sampler.perturb(theta, self.temperature)
        answers = solve(rows)
        return mapgrad.Forward(answers.z, answers.status, rows, (theta.amax(-1), torch.tensor(3)))

    def gradient(self, forward, gradient):
        peak, factor = forward.state
        assert peak.shape == forward.theta.shape[:1]
        assert factor.shape == ()
        moved = forward.sampler.perturb(forward.theta - gradient, self.temperature)
        return (forward.z - forward.solve(moved).z).mean(0) * peak.unsqueeze(-1) * factor

    def state_like(self, theta):
        return theta.new_empty(len(theta)), theta.new_empty((), dtype=torch.int64)


@COMPILED
@pytest.mark.parametrize("kept", [0, 1 << 16])
def test_a_users_rowwise_estimator_in_parts(monkeypatch, kept):
    monkeypatch.setattr(_sampler, "_KEPT", kept)
    theta = random_theta(5, 2, 6)
    runs = {
        "eager": lambda layer: layer,
        "compile": compiled,
        "vmap": lambda layer: torch.vmap(layer, randomness="different"),
        "compiled vmap": lambda layer: compiled(torch.vmap(lambda rows: layer(rows), randomness="different")),
    }

    def train():
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Rowwise(), seed=2)
        return {name: [step(layer, theta, run_by) for _ in range(2)] for name, run_by in runs.items()}

    expected = train()
    assert all(gradient.abs().sum() > 0 for found in expected.values() for _, gradient in found)
    cut(monkeypatch, 3 * 24 * 2)
    found = train()
    for name in runs:
        for one, other in zip(found[name], expected[name], strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


PROBLEMS = [mapgrad.KSubset(6, k) for k in (1, 2, 3, 4)]


def test_an_adaptive_step_adapts_once_whatever_the_number_of_problems():
    def betas(problems):
        layer = mapgrad.MAPLayer(
            mapgrad.get_solver("topk", None), mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), step=0.25), seed=0
        )
        theta = random_theta(4, 6)
        found = []
        for _ in range(3):
            leaf = theta.clone().requires_grad_()
            layer(leaf, problems=problems).pow(2).sum().backward()
            found.append(float(layer.estimator.target.beta))
            assert layer.keys.step == len(found)
        return found

    for problems in ([SUBSET] * 4, PROBLEMS, PROBLEMS[:2] * 2):
        one, two, three = betas(problems)
        assert one == 1.0
        assert abs(two - one) == abs(three - two) == 0.25


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), UNREPEATABLE])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_rows_noise_is_its_own_whatever_shares_its_problem(noise, reduction):
    theta = random_theta(1, 6).expand(8, 6)

    def draw(problems, run_by=lambda function: function):
        estimator = mapgrad.IMLE(noise, mapgrad.Step(2.0), samples=5)
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), estimator, reduction=reduction, seed=4)
        return step(run_by(lambda rows: layer(rows, problems=problems)), theta)

    alone = draw([SUBSET] * 8)
    assert len(alone[1].unique(dim=0)) > 4  # no two rows share their noise
    others = [mapgrad.KSubset(6, k) for k in (1, 3, 4)]
    for places in ([0, 3, 5], [1, 2, 7], [6]):
        problems = [SUBSET if row in places else others[row % 3] for row in range(8)]
        z, gradient = draw(problems)
        assert torch.equal(z[..., places, :], alone[0][..., places, :])
        if reduction == "mean":
            continue
        assert torch.equal(gradient[places], alone[1][places])


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), UNREPEATABLE])
def test_problems_in_a_map(noise):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(noise, samples=5), reduction="none", seed=4)
    theta = torch.zeros(3, 4, 6)
    same, different = (
        torch.vmap(lambda rows: layer(rows, problems=PROBLEMS), randomness=randomness)(theta)
        for randomness in ("same", "different")
    )
    assert same.sum(-1).eq(torch.tensor([1.0, 2, 3, 4])).all()
    assert different.sum(-1).eq(torch.tensor([1.0, 2, 3, 4])).all()
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])


@pytest.mark.parametrize("workers", [None, 2])
def test_a_layers_problems_share_the_solvers_native_models(workers):
    made, closed = [], []

    class Native(mapgrad.InstanceSolver):
        def init(self):
            made.append(self.problem)
            return self.problem

        def solve(self, state, theta, request):
            z = theta * 0
            z[theta.argsort()[-self.problem.k :]] = 1
            return z

        def close(self, state):
            closed.append(state)

    with mapgrad.get_solver(Native, SUBSET, workers=workers) as solver:
        layers = [mapgrad.MAPLayer(solver, mapgrad.IMLE(noise=None)) for _ in range(2)]
        for layer in layers * 2:
            theta = random_theta(8, 6).requires_grad_()
            layer(theta, problems=PROBLEMS * 2).pow(2).sum().backward()
            layer(theta).sum().backward()
            solver(theta.detach(), problems=PROBLEMS * 2)
        assert set(made) == set(PROBLEMS)
        assert len(made) <= len(PROBLEMS) * (workers or 1)
        assert not closed
        assert layers[0].solver is layers[1].solver is solver
    assert sorted(closed, key=made.index) == sorted(made, key=made.index)


@pytest.mark.parametrize("value", [True, "2", None])
def test_what_is_no_number_is_refused_by_name(value):
    for name, make in {
        "lam": lambda: mapgrad.Blackbox(value),
        "temperature": lambda: mapgrad.IMLE(temperature=value),
        "width": lambda: mapgrad.losses.DirectionalGradient(mapgrad.get_solver("topk", SUBSET), width=value),
    }.items():
        with pytest.raises(TypeError, match=f"{name} must be a number, got {value!r}"):
            make()
