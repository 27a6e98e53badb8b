"""I-MLE against an independent reference that loops over rows, samples and all states."""

import itertools

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(5, 2)
ROWS = 4


class Given:
    """Noise that is always the same given tensor."""

    def __init__(self, noise):
        self.noise = noise

    def sample(self, shape, *, generator, dtype, device):
        assert tuple(shape) == self.noise.shape
        return self.noise.to(device, dtype)


def draws(samples, seed=0, shape=(5,)):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(ROWS, *shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(samples, ROWS, *shape, generator=generator, dtype=torch.float64)
    aim = torch.rand(ROWS, *shape, generator=generator, dtype=torch.float64)
    return theta, noise, aim


def layer_gradient(theta, estimator, aim, *, minimize=False, reduction="mean", problem=SUBSET):
    """The gradient of Σ (z − aim)², averaged over the samples where the layer returns them all."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, problem), estimator, minimize=minimize, reduction=reduction)
    theta = theta.clone().requires_grad_()
    z = layer(theta)
    loss = ((z - aim) ** 2).sum()
    if reduction == "none":
        loss = loss / len(z)
    loss.backward()
    return theta.grad, z.detach()


def best_state(row, states):
    return states[np.argmax(states @ row)]


def relative_move(theta, gradient, noise, lam, *, ones=2):
    """The step λ · scale · d of one row of a k-subset, and the factor of the gradient that this is."""
    n, spread = len(theta), np.std(noise)
    order = np.sort(theta)[::-1]
    distance = np.abs(theta - (order[ones - 1] + order[ones]) / 2)
    typical = np.sort(distance)[int(0.3 * n)] + spread
    weight = np.maximum(1 - (distance / (12 * typical)) ** 2, 0) ** 2
    scale = np.sqrt((weight * distance**2).sum() / weight.sum() + spread**2)
    direction = weight * (gradient - (weight * gradient).sum() / weight.sum())
    size = max(np.sqrt((direction**2).sum() / weight.sum()), np.abs(direction).max() / 3)
    return lam * scale * direction / size, lam * scale / size


def reference(
    theta,
    noise,
    aim,
    *,
    lam=None,
    relative=None,
    combinatorial=False,
    alpha=1.0,
    symmetric=False,
    scaled=True,
    temperature=1.0,
    target_temperature=None,
    reduction="mean",
    problem=SUBSET,
):
    """Formulas (10) and (14) of the paper, with the loss's gradient 2 (z − aim) put in by hand."""
    theta, noise, aim = (tensor.numpy() for tensor in (theta, noise, aim))
    target_temperature = temperature if target_temperature is None else target_temperature
    states = problem.states().numpy()
    samples, rows = noise.shape[:2]
    gradient = np.zeros_like(theta)
    for row in range(rows):
        forward = [best_state(theta[row] + temperature * noise[s, row], states) for s in range(samples)]
        for s in range(samples):
            g = 2 * ((np.mean(forward, axis=0) if reduction == "mean" else forward[s]) - aim[row])
            move, step = lam and lam * g, lam
            if relative is not None:
                move, step = relative_move(theta[row], g, noise[:, row], relative)

            def aimed(sign, g=g, move=move, row=row, s=s):
                goal = np.where(g == 0, theta[row], -sign * g) if combinatorial else alpha * theta[row] - sign * move
                return best_state(goal + target_temperature * noise[s, row], states)

            difference = (aimed(-1) - aimed(+1)) / 2 if symmetric else forward[s] - aimed(+1)
            divisor = step if scaled and not combinatorial else 1.0
            gradient[row] += difference / divisor / samples
    return torch.from_numpy(gradient)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("target", "rule"),
    [
        (mapgrad.Step(2.0), {"lam": 2.0}),
        (mapgrad.Step(0.7, alpha=0.0), {"lam": 0.7, "alpha": 0.0}),
        (mapgrad.RelativeStep(0.8), {"relative": 0.8}),
        (None, {"relative": 0.5}),
        (mapgrad.Combinatorial(), {"combinatorial": True}),
    ],
    ids=["step", "alpha0", "relative", "default", "combinatorial"],
)
def test_equals_the_reference(target, rule, reduction, samples, scaled, symmetric):
    theta, noise, aim = draws(samples)
    estimator = mapgrad.IMLE(Given(noise), target, samples=samples, symmetric=symmetric, scaled=scaled)
    gradient, _ = layer_gradient(theta, estimator, aim, reduction=reduction)
    expected = reference(theta, noise, aim, reduction=reduction, scaled=scaled, symmetric=symmetric, **rule)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("tau", "target_tau"), [(0.0, None), (1.0, None), (2.0, None), (1.0, 0.0), (0.0, 1.0), (0.5, 2.0)]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_temperatures(tau, target_tau, symmetric):
    theta, noise, aim = draws(3, seed=1)
    estimator = mapgrad.IMLE(
        Given(noise), mapgrad.Step(1.5), samples=3, symmetric=symmetric, temperature=tau, target_temperature=target_tau
    )
    gradient, _ = layer_gradient(theta, estimator, aim)
    expected = reference(
        theta, noise, aim, lam=1.5, temperature=tau, target_temperature=target_tau, symmetric=symmetric
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_a_hand_computed_step():
    # Top-1 of (1, 0): z = (1, 0). Loss 3 z_0 has gradient (3, 0), so θ′ = (1, 0) − λ (3, 0): for λ = ½ it is (−½, 0),
    # z′ = (0, 1), and the gradient is (z − z′) / λ = (2, −2).
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(2, 1))
    theta = torch.tensor([1.0, 0.0], requires_grad=True)
    for scaled, expected in ((True, [2.0, -2.0]), (False, [1.0, -1.0])):
        theta.grad = None
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None, mapgrad.Step(0.5), scaled=scaled, symmetric=False))
        (3 * layer(theta)[0]).backward()
        assert theta.grad.tolist() == expected


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_none_followed_by_a_mean_equals_mean(samples, symmetric):
    theta, noise, aim = draws(samples, seed=2)
    gradients = []
    for reduction in ("mean", "none"):
        estimator = mapgrad.IMLE(Given(noise), mapgrad.Step(1.0), samples=samples, symmetric=symmetric)
        layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, SUBSET), estimator, reduction=reduction)
        leaf = theta.clone().requires_grad_()
        z = layer(leaf)
        z = z if reduction == "mean" else z.mean(0)
        ((z - aim) ** 2).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_minimising_negates_theta_and_its_gradient():
    theta, noise, aim = draws(3, seed=3)
    estimator = mapgrad.IMLE(Given(noise), mapgrad.Step(1.0), samples=3)
    gradient, z = layer_gradient(theta, estimator, aim)
    costs_gradient, costs_z = layer_gradient(-theta, estimator, aim, minimize=True)
    assert torch.equal(z, costs_z)
    assert torch.equal(gradient, -costs_gradient)


def test_without_noise_it_is_black_box_differentiation():
    # Vlastelica et al. in their own words, for costs w: −(1/λ) (y(w) − y(w + λ dL/dy)), y the minimiser.
    costs, _, aim = draws(1, seed=4)
    states = SUBSET.states()
    lam = 1.7
    y = states[(costs @ states.T).argmin(1)]
    moved = states[((costs + lam * 2 * (y - aim)) @ states.T).argmin(1)]
    expected = -(y - moved) / lam
    assert expected.abs().sum() > 0
    for estimator in (mapgrad.Blackbox(lam), mapgrad.IMLE(None, mapgrad.Step(lam), symmetric=False)):
        gradient, z = layer_gradient(costs, estimator, aim, minimize=True)
        assert torch.equal(z, y)
        torch.testing.assert_close(gradient, expected)


def test_combinatorial_target_with_hamming_loss_is_the_structured_perceptron():
    theta, _, _ = draws(1, seed=5)
    states = SUBSET.states()
    best = states[(theta @ states.T).argmax(1)]
    truth = states[[0, 3, 5, 9]]
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver(BruteForce, SUBSET), mapgrad.IMLE(None, mapgrad.Combinatorial(), symmetric=False)
    )
    leaf = theta.clone().requires_grad_()
    z = layer(leaf)
    (z + truth - 2 * z * truth).sum().backward()
    assert torch.equal(leaf.grad, best - truth)


def test_combinatorial_target_with_regret_moves_to_the_true_costs():
    costs, _, truth = draws(1, seed=6)
    states = SUBSET.states()
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver(BruteForce, SUBSET),
        mapgrad.IMLE(None, mapgrad.Combinatorial(), symmetric=False),
        minimize=True,
    )
    leaf = costs.clone().requires_grad_()
    (truth * layer(leaf)).sum().backward()
    learnt, optimal = (states[(c @ states.T).argmin(1)] for c in (costs, truth))
    assert torch.equal(leaf.grad, -(learnt - optimal))


def adaptive_reference(theta, noises, aim, *, symmetric, norm, initial, step, momentum, decay, target):
    """β, the running mean of non-zeros and the gradient over several steps, sample by sample."""
    states = SUBSET.states().numpy()
    beta, nonzeros, change, history = initial, 1.0, 0.0, []
    theta, aim = theta.numpy(), aim.numpy()
    for noise in (tensor.numpy() for tensor in noises):
        samples, rows = noise.shape[:2]
        forward = np.stack([[best_state(theta[b] + noise[s, b], states) for b in range(rows)] for s in range(samples)])
        g = 2 * (forward.mean(0) - aim)
        if norm == "instance":
            moves, steps = zip(*(relative_move(theta[b], g[b], noise[:, b], beta) for b in range(rows)), strict=True)
        else:
            steps = [beta * np.linalg.norm(theta) / np.linalg.norm(g)] * rows
            moves = [steps[b] * g[b] for b in range(rows)]
        gradient, counts = np.zeros_like(theta), []
        for s, b in itertools.product(range(samples), range(rows)):
            right = best_state(theta[b] - moves[b] + noise[s, b], states)
            left = best_state(theta[b] + moves[b] + noise[s, b], states) if symmetric else forward[s, b]
            counts.append(np.count_nonzero(left - right))
            if steps[b] > 0:
                gradient[b] += (left - right) / (2 if symmetric else 1) / steps[b] / samples
        history.append((beta, torch.from_numpy(gradient)))
        nonzeros = decay * nonzeros + (1 - decay) * np.mean(counts)
        change = momentum * change + (step if nonzeros < target else -step)
        beta = max(beta + change, 0.0)
    return history, beta


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("initial", [0.0, 1.0])
def test_adaptive_over_six_steps(initial, samples, symmetric, norm):
    theta, _, aim = draws(1, seed=7)
    noises = [draws(samples, seed=8 + step)[1] for step in range(6)]
    options = {"initial": initial, "step": 0.3, "momentum": 0.5, "decay": 0.6, "target": 2.0, "norm": norm}
    history, beta = adaptive_reference(theta, noises, aim, symmetric=symmetric, **options)
    noise = Given(noises[0])
    estimator = mapgrad.AdaptiveIMLE(noise, samples=samples, symmetric=symmetric, **options)
    layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, SUBSET), estimator)
    for draw, (expected_beta, expected) in zip(noises, history, strict=True):
        noise.noise = draw
        leaf = theta.clone().requires_grad_()
        z = layer(leaf)
        assert float(estimator.target.beta) == pytest.approx(expected_beta, abs=1e-6)
        ((z - aim) ** 2).sum().backward()
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-6, atol=1e-6)
    assert layer.stats["beta"] == pytest.approx(beta, abs=1e-6)
    assert len({round(value, 6) for value, _ in history}) > 2


def test_adaptive_state_changes_only_in_the_next_training_forward():
    theta, noise, aim = draws(1, seed=20)
    estimator = mapgrad.AdaptiveIMLE(Given(noise), step=0.25)
    layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, SUBSET), estimator)
    leaf = theta.clone().requires_grad_()
    loss = ((layer(leaf) - aim) ** 2).sum()
    loss.backward()
    assert float(estimator.target.beta) == 1.0
    layer(leaf)
    assert float(estimator.target.beta) in (0.75, 1.25)


@pytest.mark.parametrize("target", [None, mapgrad.Step(2.0)])
def test_both_sides_by_default_where_there_is_noise(target):
    theta, noise, aim = draws(2, seed=11)
    for law, sides in ((Given(noise), True), (None, False)):
        default, explicit = (
            layer_gradient(theta, mapgrad.IMLE(law, target, samples=2, **options), aim)[0]
            for options in ({}, {"symmetric": sides})
        )
        assert torch.equal(default, explicit)
        assert not torch.equal(
            default, layer_gradient(theta, mapgrad.IMLE(law, target, samples=2, symmetric=not sides), aim)[0]
        )
    lam = mapgrad.RelativeStep(1.0)
    one, other = (layer_gradient(theta, mapgrad.IMLE(None, rule), aim)[0] for rule in (None, lam))
    assert torch.equal(one, other)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_a_relative_step_ignores_the_scale_of_loss_and_theta(scale):
    theta, _, aim = draws(1, seed=9)
    solver = mapgrad.get_solver(BruteForce, SUBSET)

    def gradient(theta_scale, loss_scale):
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(noise=None, scaled=False))
        leaf = (theta * theta_scale).requires_grad_()
        (loss_scale * ((layer(leaf) - aim) ** 2).sum()).backward()
        return leaf.grad

    expected = gradient(1.0, 1.0)
    assert expected.abs().sum() > 0
    assert torch.equal(gradient(scale, 1.0), expected)
    assert torch.equal(gradient(1.0, scale), expected)


@pytest.mark.parametrize("target", [mapgrad.RelativeStep(1.0), mapgrad.AdaptiveStep()])
def test_a_relative_step_survives_zeros(target):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None, target=target))
    theta = torch.zeros(2, 5, requires_grad=True)
    (layer(theta) * torch.tensor([[5.0, 4, 3, 2, 1], [0, 0, 0, 0, 0]])).sum().backward()
    assert theta.grad[0].abs().sum() > 0
    assert theta.grad[1].abs().sum() == 0
    assert theta.grad.isfinite().all()


def test_a_zero_initialised_head_learns():
    torch.manual_seed(0)
    head = torch.nn.Linear(3, 5)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(noise=None))
    x = torch.randn(32, 3)
    truth = mapgrad.get_solver("topk", SUBSET)(x @ torch.randn(3, 5))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        z = layer(head(x))
        loss = (z + truth - 2 * z * truth).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_samples_that_come_back_one_by_one_may_have_different_gradients():
    theta, noise, _ = draws(3, seed=10)
    estimator = mapgrad.IMLE(Given(noise), mapgrad.Step(1.0), samples=3, symmetric=False)
    layer = mapgrad.MAPLayer(mapgrad.get_solver(BruteForce, SUBSET), estimator, reduction="none")
    leaf = theta.clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).reshape(3, 1, 1)
    slopes = torch.arange(5.0, dtype=torch.float64)
    z = layer(leaf)
    assert z.shape == (3, ROWS, 5)
    (weights * slopes * z).sum().backward()
    states = SUBSET.states()
    perturbed = theta + noise
    moved = perturbed - 3 * weights * slopes
    expected = (states[(perturbed @ states.T).argmax(-1)] - states[(moved @ states.T).argmax(-1)]).mean(0)
    torch.testing.assert_close(leaf.grad, expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mapgrad.IMLE(samples=0), ValueError, "samples must be an int of at least 1, got 0"),
        (lambda: mapgrad.IMLE(samples=2.0), TypeError, "samples must be an int of at least 1, got 2.0"),
        (lambda: mapgrad.IMLE(noise="gumbel"), TypeError, "sample.*got 'gumbel'"),
        (lambda: mapgrad.IMLE(temperature=-1), ValueError, "temperature must be at least 0, got -1"),
        (lambda: mapgrad.IMLE(target_temperature=float("nan")), ValueError, "target_temperature must be at least 0"),
        (lambda: mapgrad.IMLE(target=10.0), TypeError, r"Step\(10.0\).*got 10.0"),
        (lambda: mapgrad.Step(0.0), ValueError, "lam must be positive, got 0.0"),
        (lambda: mapgrad.Blackbox(-1.0), ValueError, "lam must be positive, got -1.0"),
        (lambda: mapgrad.RelativeStep(float("nan")), ValueError, "lam must be positive, got nan"),
        (lambda: mapgrad.AdaptiveStep(initial=-0.1), ValueError, "initial must be at least 0"),
        (lambda: mapgrad.AdaptiveStep(decay=1.0), ValueError, r"decay must be in \[0, 1\)"),
        (lambda: mapgrad.AdaptiveStep(norm="row"), ValueError, 'norm must be "instance" or "batch"'),
        (lambda: mapgrad.AdaptiveStep(step=0), ValueError, "step must be positive"),
        (lambda: mapgrad.AdaptiveIMLE(lam=3.0), TypeError, "lam"),
        (lambda: mapgrad.Step(float("inf")), ValueError, "lam must be finite, got inf"),
        (lambda: mapgrad.Step(1.0, alpha=float("nan")), ValueError, "alpha must be finite, got nan"),
        (lambda: mapgrad.Blackbox(float("inf")), ValueError, "lam must be finite, got inf"),
        (lambda: mapgrad.RelativeStep(float("inf")), ValueError, "lam must be finite, got inf"),
        (lambda: mapgrad.AdaptiveStep(initial=float("inf")), ValueError, "initial must be finite, got inf"),
        (lambda: mapgrad.AdaptiveStep(step=float("inf")), ValueError, "step must be finite, got inf"),
        (lambda: mapgrad.AdaptiveStep(momentum=float("nan")), ValueError, "momentum must be finite, got nan"),
        (lambda: mapgrad.IMLE(temperature=float("inf")), ValueError, "temperature must be finite, got inf"),
        (lambda: mapgrad.IMLE(target_temperature=float("inf")), ValueError, "target_temperature must be finite"),
        (lambda: mapgrad.StraightThrough(temperature=float("inf")), ValueError, "temperature must be finite, got inf"),
        (lambda: mapgrad.StraightThrough(temperature=float("nan")), ValueError, "temperature must be at least 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
