"""Gradients where θ = −inf forbids entries: those of a problem that lacks them, and 0 there."""

import pytest
import torch

import mapgrad
from mapgrad import IMLE, Blackbox, Combinatorial, KSubset, MAPLayer, Step, StraightThrough, get_solver

INF = torch.inf
WHOLE, PART = KSubset(7, 2), KSubset(4, 2)
KEPT = [0, 2, 3, 6]
BARRED = [1, 4, 5]


class Given:
    """The same noise for both problems: the entries of the smaller one have theirs in the larger one."""

    def __init__(self, entries):
        self.entries = entries

    def sample(self, shape, *, generator, dtype, device):
        noise = torch.randn(*shape[:-1], 7, generator=torch.Generator().manual_seed(3), dtype=dtype)
        return noise[..., self.entries]


ESTIMATORS = {
    "step": lambda noise: IMLE(noise, Step(2.0), samples=3),
    "two sides": lambda noise: IMLE(noise, Step(2.0), samples=3, symmetric=True),
    "α = 0": lambda noise: IMLE(noise, Step(2.0, alpha=0.0), samples=3),
    "unscaled": lambda noise: IMLE(noise, Step(2.0), scaled=False, target_temperature=0.5),
    "eq. 14": lambda noise: IMLE(noise, Combinatorial(), samples=2),
    "black box": lambda noise: Blackbox(1.5),
    "straight through": lambda noise: StraightThrough(noise, samples=2),
}


def pass_through(layer, theta, weights):
    leaf = theta.clone().requires_grad_()
    z = layer(leaf)
    (z * weights).sum().backward()
    return z.detach(), leaf.grad


def masked(count=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    theta, weights = torch.randn(2, count, 7, generator=generator, dtype=dtype)
    theta[:, BARRED] = -INF
    return theta, weights


@pytest.mark.parametrize("solver", ["topk", "highs"])
@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_gradient_is_that_of_the_allowed_entries(estimator, minimize, solver):
    theta, weights = masked()
    theta = -theta if minimize else theta
    layer = MAPLayer(get_solver(solver, WHOLE), estimator(Given(range(7))), minimize=minimize)
    other = MAPLayer(get_solver(solver, PART), estimator(Given(KEPT)), minimize=minimize)
    z, gradient = pass_through(layer, theta, weights)
    expected_z, expected = pass_through(other, theta[:, KEPT], weights[:, KEPT])
    assert torch.equal(z[:, KEPT], expected_z)
    assert torch.equal(gradient[:, KEPT], expected)
    assert not z[:, BARRED].any()
    assert not gradient[:, BARRED].any()
    assert gradient.any()


@pytest.mark.parametrize("value", [torch.nan, INF, -INF])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_what_a_loss_says_of_forbidden_entries_does_not_matter(estimator, value):
    theta, weights = masked()
    layer = MAPLayer(get_solver("topk", WHOLE), estimator(Given(range(7))))
    _, expected = pass_through(layer, theta, weights)
    leaf = theta.clone().requires_grad_()
    layer(leaf).backward(weights.index_fill(1, torch.tensor(BARRED), value))
    assert torch.equal(leaf.grad, expected)


def test_rows_have_masks_of_their_own():
    generator = torch.Generator().manual_seed(1)
    theta, weights = torch.randn(2, 3, 4, 7, generator=generator)
    barred = torch.rand(3, 4, 7, generator=generator) < 0.3
    layer = MAPLayer(get_solver("topk", WHOLE), Blackbox(2.0))
    z, gradient = pass_through(layer, theta.masked_fill(barred, -INF), weights)
    for index in ((0, 0), (1, 3), (2, 2)):
        alone = pass_through(layer, theta[index].masked_fill(barred[index], -INF), weights[index])
        assert torch.equal(alone[0], z[index])
        assert torch.equal(alone[1], gradient[index])
    assert not gradient[barred].any()


def test_a_row_without_a_state_is_named():
    theta, _ = masked()
    theta[4, :6] = -INF
    with pytest.raises(mapgrad.InfeasibleError, match="row 4") as refused:
        MAPLayer(get_solver("topk", WHOLE), Blackbox(2.0))(theta.requires_grad_())
    assert refused.value.rows == (4,)


NOISES = [
    mapgrad.Gumbel(),
    mapgrad.Gaussian(),
    mapgrad.Logistic(),
    mapgrad.Laplace(),
    mapgrad.SumOfGamma(2.0),
    mapgrad.SumOfGamma(2.0, terms=10),
    "auto",
    None,
]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_noise_leaves_what_is_forbidden(noise, seed, temperature):
    theta, weights = masked(count=40, dtype=torch.float32)
    estimator = IMLE(noise, Step(3.0), samples=4, temperature=temperature)
    layer = MAPLayer(get_solver("topk", WHOLE), estimator, seed=seed)
    z, gradient = pass_through(layer, theta, weights)
    assert not z[:, BARRED].any()
    torch.testing.assert_close(z.sum(1), torch.full((40,), 2.0))
    assert not gradient[:, BARRED].any()
    assert gradient.isfinite().all()
    if noise is not None and temperature == 1:
        assert not torch.equal(z, z.round())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_traced_layers_do_the_same(estimator, reduction):
    theta, weights = masked(count=4, dtype=torch.float32)

    eager, functional, compiled = (
        MAPLayer(get_solver("topk", WHOLE), estimator(mapgrad.Gumbel()), seed=2, reduction=reduction) for _ in range(3)
    )
    z, gradient = pass_through(eager, theta, weights)

    def loss(layer, rows, weights):
        return (layer(rows) * weights).sum()

    assert torch.equal(torch.func.grad(lambda rows: loss(functional, rows, weights))(theta), gradient)
    torch.compiler.reset()
    found = pass_through(torch.compile(compiled, fullgraph=True, backend="aot_eager"), theta, weights)
    assert torch.equal(found[0], z)
    assert torch.equal(found[1], gradient)
    plain = MAPLayer(get_solver("topk", WHOLE), estimator(None), reduction=reduction)
    each = torch.func.vmap(torch.func.grad(lambda row, weight: loss(plain, row, weight)), randomness="different")
    if reduction == "mean":
        assert torch.equal(each(theta, weights), pass_through(plain, theta, weights)[1])
    assert not each(theta, weights)[:, BARRED].any()


def test_large_batches_in_parts():
    problem = KSubset(200, 20)
    generator = torch.Generator().manual_seed(0)
    theta, weights = torch.randn(2, 2000, 200, generator=generator)
    barred = torch.rand(2000, 200, generator=generator) < 0.5
    layer = MAPLayer(get_solver("topk", problem), IMLE(mapgrad.Gumbel(), Step(5.0, alpha=0.0)), seed=1)
    z, gradient = pass_through(layer, theta.masked_fill(barred, -INF), weights)
    assert not z[barred].any()
    assert not gradient[barred].any()
    assert gradient.isfinite().all()
    assert gradient.any()


def test_walls_cost_infinitely_much():
    problem = mapgrad.GridShortestPath(5, 5)
    generator = torch.Generator().manual_seed(2)
    costs, weights = torch.rand(2, 8, 5, 5, generator=generator, dtype=torch.float64)
    costs[:, 2, :4] = INF  # each path goes through (2, 4)
    for name in ("scipy.shortest_path", "networkx.shortest_path", "highs"):
        layer = MAPLayer(get_solver(name, problem), Blackbox(3.0), minimize=True)
        z, gradient = pass_through(layer, costs, weights)
        assert not z[:, 2, :4].any()
        assert (z[:, 2, 4] == 1).all()
        assert not gradient[:, 2, :4].any()
        assert problem.contains(z).all()
        window = costs[:, :3, 1:], weights[:, :3, 1:]
        reference = MAPLayer(get_solver(mapgrad.testing.BruteForce(SMALL), SMALL), Blackbox(3.0), minimize=True)
        own = MAPLayer(get_solver(name, SMALL), Blackbox(3.0), minimize=True)
        for found, expected in zip(pass_through(own, *window), pass_through(reference, *window), strict=True):
            assert torch.equal(found, expected)


SMALL = mapgrad.GridShortestPath(3, 4)


def test_one_problem_a_row():
    theta, weights = masked(count=4)
    layer = MAPLayer(get_solver("topk", None), Blackbox(2.0))
    leaf = theta.clone().requires_grad_()
    z = layer(leaf, problems=[WHOLE, KSubset(7, 1), WHOLE, KSubset(7, 3)])
    (z * weights).sum().backward()
    whole = pass_through(MAPLayer(get_solver("topk", WHOLE), Blackbox(2.0)), theta, weights)[1]
    assert torch.equal(leaf.grad[[0, 2]], whole[[0, 2]])
    assert z.sum(1).tolist() == [2, 1, 2, 3]
    assert not leaf.grad[:, BARRED].any()


def test_an_estimator_of_a_user_need_not_care():
    class Halved(mapgrad.Target):
        """θ′ = θ / 2 + 0 · θ − g, which is NaN where θ = −inf."""

        is_rowwise = True

        def forward(self, theta, gradient, context):
            return theta / 2 + 0 * theta - gradient, 1.0

    theta, weights = masked()
    _, gradient = pass_through(MAPLayer(get_solver("topk", WHOLE), IMLE(None, Halved())), theta, weights)
    expected = pass_through(MAPLayer(get_solver("topk", PART), IMLE(None, Halved())), theta[:, KEPT], weights[:, KEPT])
    assert torch.equal(gradient[:, KEPT], expected[1])
    assert not gradient[:, BARRED].any()


class Reflected(IMLE):
    """Solves θ − τε too, as 2θ less the other rows, which is NaN where θ = −inf."""

    def forward(self, theta, sampler, solve):
        rows = sampler.perturb(theta, self.temperature)
        forward = mapgrad.Forward(solve(rows).z, solve(2 * theta - rows).status)
        forward.z = (forward.z + solve(2 * theta - rows).z) / 2
        return forward


class Clamped(IMLE):
    """Solves finite rows, of which forbidden entries are the largest."""

    def forward(self, theta, sampler, solve):
        answers = solve(sampler.perturb(theta, self.temperature).nan_to_num(neginf=9.0))
        return mapgrad.Forward(answers.z, answers.status)


@pytest.mark.parametrize("transform", [lambda layer: layer, torch.func.vmap], ids=["eager", "vmap"])
@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("kind", [Reflected, Clamped])
def test_a_forward_pass_of_a_user_need_not_care(kind, minimize, transform):
    theta, weights = masked()
    theta = -theta if minimize else theta

    def layer_of(problem, noise):
        layer = MAPLayer(get_solver("topk", problem), kind(noise, Step(2.0), samples=3), minimize=minimize)
        return transform(layer) if noise is None else layer

    noises = [(None, None)] if transform is torch.func.vmap else [(None, None), (Given(range(7)), Given(KEPT))]
    for whole, part in noises:
        z, gradient = pass_through(layer_of(WHOLE, whole), theta, weights)
        expected = pass_through(layer_of(PART, part), theta[:, KEPT], weights[:, KEPT])
        assert torch.equal(z[:, KEPT], expected[0])
        assert torch.equal(gradient[:, KEPT], expected[1])
        assert not z[:, BARRED].any()
        assert not gradient[:, BARRED].any()
        assert gradient.any()


def test_a_row_without_a_state_is_named_whatever_a_user_makes_of_it():
    theta, _ = masked()
    theta[4, :6] = -INF
    with pytest.raises(mapgrad.InfeasibleError, match="row 4"):
        MAPLayer(get_solver("topk", WHOLE), Clamped(None))(theta)


class Downward:
    """Noise that is −3e38 in the first two entries, and 0 elsewhere."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.zeros(shape, dtype=dtype).index_fill(-1, torch.tensor([0, 1]), -3e38)


@pytest.mark.parametrize(
    "transform", [lambda layer: layer, lambda layer: torch.func.vmap(layer, randomness="same")], ids=["eager", "vmap"]
)
@pytest.mark.parametrize("solver", ["topk", "highs"])
def test_what_noise_makes_infinite_forbids_nothing(solver, transform):
    theta = torch.zeros(2, 2, 7)
    theta[:, :, 3] = -INF  # which does
    for estimator in (IMLE(Downward()), IMLE(Downward(), samples=2)):
        layer = transform(MAPLayer(get_solver(solver, WHOLE), estimator))
        assert not layer(theta)[..., [0, 1, 3]].any()
        overflown = theta.clone()
        overflown[1, 0, 0] = -3e38
        told = r"^θ itself is fine, but .* in row 2 \(index \(1, 0\)\).*smaller temperature"
        with pytest.raises(mapgrad.NonFiniteError, match=told) as refused:
            layer(overflown)
        assert refused.value.rows == (2,)
        overflown[0, 1, 5] = torch.nan
        with pytest.raises(mapgrad.NonFiniteError, match=r"^θ has NaN or infinite entries in row 1 .*\(1 of 4\)"):
            layer(overflown)


@pytest.mark.parametrize("estimator", [Blackbox(20.0), IMLE(mapgrad.SumOfGamma(3.0), Step(20.0), samples=2)])
def test_a_network_learns_beside_masked_entries(estimator):
    torch.manual_seed(0)
    truth, images = torch.randn(6), torch.randn(128, 15, 6)
    barred = torch.rand(128, 15).argsort(1) < 5  # ten of fifteen are there
    wanted = (images @ truth).masked_fill(barred, -INF)
    best = get_solver("topk", KSubset(15, 3))(wanted)
    model = torch.nn.Linear(6, 1, bias=False)
    layer = MAPLayer(get_solver("topk", KSubset(15, 3)), estimator, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(80):
        z = layer(model(images).squeeze(-1).masked_fill(barred, -INF))
        assert not z[barred].any()
        optimizer.zero_grad()
        (z - best).square().mean().backward()
        optimizer.step()
    layer.eval()
    chosen = layer(model(images).squeeze(-1).masked_fill(barred, -INF))
    assert (chosen * best).sum() / best.sum() > 0.93
