"""`PerturbAndMAP.expectation` and `atoms`: unbiased for any f, and no constant in f counts."""

import math

import numpy as np
import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(4, 2)
LAWS = [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(2)]


def make(theta, problem=SUBSET, *, noise=LAWS[0], temperature=1.0, multiplicative=False, **options):
    estimator = mapgrad.Perturbed(noise, temperature=temperature, multiplicative=multiplicative)
    return mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), estimator, **options).distribution(theta)


def random_theta(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def black_box(z):
    """A function that no gradient goes through: NumPy of the states, as integers."""
    assert not z.requires_grad
    bits = z.numpy().astype(int).reshape(*z.shape[: z.ndim - 1], -1)
    return np.sin(3.0 + (bits << np.arange(bits.shape[-1])).sum(-1))


def exact_mean(theta, noise, temperature, f=black_box, k=2):
    states = mapgrad.exact.enumerate_states(mapgrad.KSubset(theta.shape[-1], k))
    shared = states.reshape(len(states), *(1 for _ in theta.shape[:-1]), -1).expand(-1, *theta.shape)
    chances = mapgrad.exact.topk_probabilities(theta, shared, k, noise, temperature)
    values = torch.as_tensor(f(states))
    return (chances * values.reshape(-1, *(1 for _ in theta.shape[:-1]))).sum(0)


def gradients_of(law_of, theta, f, runs, samples=8, **options):
    """Return values and gradients of many runs, as rows of one batch: [runs], [runs, *theta.shape]."""
    many = theta.expand(runs, *theta.shape).clone().requires_grad_()
    values = law_of(many).expectation(f, samples, **options)
    values.sum().backward()
    return values.detach(), many.grad


@pytest.mark.parametrize("baseline", ["loo", None])
@pytest.mark.parametrize("noise", LAWS, ids=lambda law: type(law).__name__)
def test_values_and_gradients_are_unbiased(noise, baseline):
    temperature = 0.7
    theta = random_theta(4).requires_grad_()
    exact = exact_mean(theta, noise, temperature)
    (truth,) = torch.autograd.grad(exact, theta)
    values, found = gradients_of(
        lambda many: make(many, noise=noise, temperature=temperature, seed=1),
        theta.detach(),
        black_box,
        800,
        baseline=baseline,
    )
    assert abs(values.mean() - exact) / (values.std() / math.sqrt(len(values))) < 4
    z = (found.mean(0) - truth) / (found.std(0) / math.sqrt(len(found)))
    assert (z.abs() < 4).all()
    assert (truth.abs() > 0.02).any()


@pytest.mark.parametrize("minimize", [False, True])
def test_costs_have_the_gradient_of_costs(minimize):
    theta = random_theta(4)
    values, found = gradients_of(lambda many: make(many, minimize=minimize, seed=2), theta, black_box, 800)
    leaf = theta.clone().requires_grad_()
    exact = exact_mean(-leaf if minimize else leaf, LAWS[0], 1.0)
    (truth,) = torch.autograd.grad(exact, leaf)
    assert abs(values.mean() - exact) / (values.std() / math.sqrt(len(values))) < 4
    assert ((found.mean(0) - truth).abs() / (found.std(0) / math.sqrt(len(found))) < 4).all()


def test_multiplicative_noise():
    """Against a finite difference of the same large sample's mean, whose law is smooth."""
    problem = mapgrad.KSubset(3, 1)
    theta = torch.tensor([1.0, 1.3, 0.8], dtype=torch.float64)
    cost = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)

    def law(many):
        return make(many, problem, multiplicative=True, temperature=0.5, seed=3)

    _, found = gradients_of(law, theta, lambda z: z @ cost, 5000)
    h = 0.05
    truth = []
    for i in range(3):
        ends = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[i] += sign * h
            ends.append((law(moved.expand(100_000, 3)).sample((1,)) @ cost).mean())
        truth.append((ends[0] - ends[1]) / (2 * h))
    torch.testing.assert_close(found.mean(0), torch.stack(truth), atol=0.08, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_changes_nothing(dtype):
    theta = random_theta(5, 4, dtype=dtype)
    found = []
    for constant in (0.0, 1024.0):
        leaf = theta.clone().requires_grad_()
        values = make(leaf, seed=4).expectation(lambda z, c=constant: z[..., 0] * 0.5 + c, 6)
        values.sum().backward()
        found.append((values.detach() - constant, leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-5)
    leaf = theta.clone().requires_grad_()
    make(leaf, seed=4).expectation(lambda z: torch.full(z.shape[:-1], 7.25), 6).sum().backward()
    assert (leaf.grad == 0).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shapes_and_dtypes(batch, dtype):
    problem = mapgrad.Assignment(2, 3)
    theta = random_theta(*batch, 2, 3).to(dtype).requires_grad_()
    law = make(theta, problem)
    seen = []

    def f(z):
        seen.append((tuple(z.shape), z.dtype))
        return z[..., 0, 0]

    value = law.expectation(f, 5)
    assert value.shape == batch
    assert value.dtype == dtype
    assert seen == [((5, *batch, 2, 3), dtype)]
    value.sum().backward()
    assert theta.grad.shape == theta.shape
    assert law.expectation(lambda z: z[..., 0, 0] > 0, 5).dtype == dtype


def test_f_has_its_own_gradient():
    weight = torch.tensor(2.0, requires_grad=True, dtype=torch.float64)
    law = make(random_theta(3, 4))
    law.expectation(lambda z: weight * z.sum(-1), 4).sum().backward()
    assert weight.grad == 6  # three rows of two ones


def test_a_row_whose_value_is_not_finite_loses_nobody_else():
    theta = random_theta(3, 4).requires_grad_()

    def f(z):
        values = z[..., 0].clone()
        values[0, 1] = math.nan
        return values

    value = make(theta, seed=0).expectation(f, 4)
    value.sum().backward()
    assert value.isnan().tolist() == [False, True, False]
    assert theta.grad.isnan().any(1).tolist() == [False, True, False]


def test_seeds_and_ids_make_equal_draws():
    theta = random_theta(3, 4)
    grads = []
    for _ in range(2):
        leaf = theta.clone().requires_grad_()
        make(leaf, seed=5).expectation(black_box, 4).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda law: law.expectation(black_box, 1),
            ValueError,
            "samples must be an int of at least 2 with",
        ),
        (lambda law: law.expectation(black_box, 2.0), TypeError, "samples must be an int"),
        (lambda law: law.expectation(black_box, baseline="mean"), ValueError, "baseline must be 'loo' or None"),
        (lambda law: law.expectation(lambda z: z), mapgrad.ShapeError, r"\[S, \*batch\] = \(10, 3\)"),
        (lambda law: law.expectation(lambda z: z.mean()), mapgrad.ShapeError, r"got torch.float64 \(\)"),
        (lambda law: law.expectation(lambda z: "no"), TypeError, "f must return numbers, got str"),
        (lambda law: law.atoms(1), ValueError, "samples must be an int of at least 2"),
    ],
)
def test_what_is_wrong_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call(make(random_theta(3, 4)))


@pytest.mark.parametrize("estimator", [mapgrad.Blackbox(1.0), mapgrad.IMLE(noise=mapgrad.SumOfGamma(2, 10))])
def test_noise_without_a_density_is_refused(estimator):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", SUBSET), estimator)
    with pytest.raises(TypeError, match="needs noise with a log-density"):
        layer.distribution(random_theta(4)).expectation(black_box)


def test_a_second_derivative_is_refused():
    theta = random_theta(4).requires_grad_()
    (first,) = torch.autograd.grad(make(theta).expectation(black_box), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        first.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, in dynamo
def test_transforms():
    theta = random_theta(3, 4)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", SUBSET), mapgrad.Perturbed(), seed=6)
    prices = torch.arange(4.0, dtype=torch.float64)

    def loss(t):
        return layer.distribution(t).expectation(lambda z: (z @ prices).square(), 8).sum()

    def gradient(function):
        layer.set_extra_state(torch.tensor([6, 0]))
        leaf = theta.clone().requires_grad_()
        function(leaf).backward()
        return leaf.grad

    compiled = gradient(torch.compile(loss, fullgraph=True, backend="aot_eager"))  # before the layer has a copy
    plain = gradient(loss)
    assert plain.abs().sum() > 0
    torch.testing.assert_close(compiled, plain)
    layer.set_extra_state(torch.tensor([6, 0]))
    torch.testing.assert_close(torch.func.grad(loss)(theta), plain)
    each = torch.func.vmap(torch.func.grad(loss), randomness="different")(theta)
    assert each.shape == (3, 4)
    assert each.abs().sum() > 0


def test_the_layer_s_own_estimator_stays():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", SUBSET), mapgrad.IMLE(samples=2))
    theta = random_theta(3, 4).requires_grad_()
    law = layer.distribution(theta)
    law.expectation(black_box, 4).sum().backward()
    assert isinstance(layer.estimator, mapgrad.IMLE)
    assert [name for name, _ in layer.named_children()] == ["estimator"]
    assert law.sample((3,)).shape == (3, 3, 4)
    layer.estimator = mapgrad.Perturbed(mapgrad.Gumbel(), temperature=0.5)
    layer.eval()
    law.expectation(black_box, 4).sum().backward()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_atoms_are_the_distinct_states_and_their_shares(batch):
    theta = random_theta(*batch, 4).requires_grad_()
    atoms = make(theta, temperature=2.0, seed=7).atoms(50)
    draws = make(theta, temperature=2.0, seed=7)
    z, _ = draws._weighted(50, "loo")
    assert len(atoms.states) <= 6
    assert SUBSET.contains(atoms.states).all()
    torch.testing.assert_close(atoms.weights.sum(0), torch.ones(batch, dtype=torch.float64))
    for state in mapgrad.exact.enumerate_states(SUBSET):
        share = (z == state).all(-1).double().mean(0)
        mine = (atoms.states == state).all(-1) * atoms.weights
        torch.testing.assert_close(mine.sum(0), share)


def test_expectations_from_atoms_have_the_same_gradient():
    theta = random_theta(3, 4)
    grads = []
    for use in (
        lambda law: law.expectation(black_box, 30),
        lambda law: (lambda atoms: (atoms.weights * torch.as_tensor(black_box(atoms.states))).sum(0))(law.atoms(30)),
    ):
        leaf = theta.clone().requires_grad_()
        use(make(leaf, seed=8)).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads)


def test_an_expectation_is_that_of_the_layer_as_it_is_now():
    theta = random_theta(3, 4)
    layers = []
    for _ in range(2):
        solver = mapgrad.get_solver("topk", SUBSET)
        layers.append(mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gaussian()), seed=3))
    used, fresh = layers
    used.distribution(theta).expectation(lambda z: z.sum(-1))
    for layer in layers:
        mapgrad.seed_layers(layer, 7)
    first, second = (layer.distribution(theta).expectation(black_box) for layer in layers)
    assert torch.equal(first, second)
    used.solver = mapgrad.get_solver("topk", mapgrad.KSubset(4, 3))
    assert (used.distribution(theta).expectation(lambda z: z.sum(-1)).round() == 3).all()
    used.solver, used.normalize, fresh.normalize = fresh.solver, True, True
    for layer in layers:
        mapgrad.seed_layers(layer, 7)
    first, second = (layer.distribution(1e3 * theta).expectation(black_box) for layer in layers)
    assert torch.equal(first, second)
