"""`log_prob`, `entropy` and KL where the law is exact, and what else makes a torch distribution of it."""

import itertools
import math
import pickle

import pytest
import torch
from torch.distributions import Categorical, Independent, kl_divergence

import mapgrad

LAWS = [mapgrad.Gaussian(), mapgrad.Gumbel(), mapgrad.Logistic(), mapgrad.Laplace(), mapgrad.SumOfGamma(2)]


def make(theta, problem, *, noise=LAWS[0], temperature=1.0, minimize=False, validate_args=None):
    estimator = mapgrad.IMLE(noise=noise, temperature=temperature)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), estimator, minimize=minimize)
    return mapgrad.PerturbAndMAP(layer, theta, validate_args=validate_args)


def random_theta(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("noise", LAWS, ids=lambda law: type(law).__name__)
def test_probabilities_are_those_of_the_marginals_and_of_draws(noise, k):
    problem, theta = mapgrad.KSubset(5, k), random_theta(3, 5).requires_grad_()
    law = make(theta, problem, noise=noise, temperature=0.8)
    states = law.enumerate_support()
    chances = law.log_prob(states).exp()
    assert chances.shape == (math.comb(5, k), 3)
    torch.testing.assert_close(chances.sum(0), torch.ones(3, dtype=torch.float64), atol=1e-7, rtol=0)
    marginals = mapgrad.exact.topk_marginals(theta, k, noise, 0.8)
    torch.testing.assert_close((chances.unsqueeze(-1) * states).sum(0), marginals, atol=1e-7, rtol=0)
    direction = random_theta(5)
    ours, theirs = (
        torch.autograd.grad((each @ direction).sum(), theta, retain_graph=True)[0]
        for each in ((chances.unsqueeze(-1) * states).sum(0), marginals)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    draws = law.sample((4000,))
    shares = (draws == states.unsqueeze(1)).all(-1).double().mean(1)
    assert ((shares - chances).abs() <= 4.5 * (chances * (1 - chances) / 4000).sqrt() + 1e-3).all()
    entropy = -(chances * chances.log()).sum(0)
    torch.testing.assert_close(law.entropy(), entropy, atol=1e-6, rtol=0)
    torch.testing.assert_close(law.perplexity(), entropy.exp(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("noise", ["auto", mapgrad.Gumbel()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_of_n_under_gumbel_noise_is_a_softmax_at_any_size(noise, minimize, dtype):
    theta = 40 * random_theta(3, 6, dtype=dtype)
    law = make(theta, mapgrad.KSubset(6, 1), noise=noise, temperature=2.0, minimize=minimize)
    softmax = Categorical(logits=(-theta if minimize else theta) / 2)
    states = torch.eye(6, dtype=dtype).unsqueeze(1).expand(6, 3, 6)
    expected = softmax.log_prob(torch.arange(6).unsqueeze(1))
    assert expected.min() < -45
    torch.testing.assert_close(law.log_prob(states), expected)
    assert law.log_prob(states).dtype == dtype
    torch.testing.assert_close(law.entropy(), softmax.entropy(), atol=1e-5, rtol=1e-4)
    other = make(theta.flip(1), mapgrad.KSubset(6, 1), noise=noise, temperature=2.0, minimize=minimize)
    flipped = Categorical(logits=softmax.logits.flip(1))
    torch.testing.assert_close(kl_divergence(law, other), kl_divergence(softmax, flipped), atol=1e-4, rtol=1e-4)


def test_kl_of_subsets_is_that_of_their_probabilities():
    problem = mapgrad.KSubset(4, 2)
    p, q = (make(theta, problem) for theta in random_theta(2, 3, 4).requires_grad_())
    states = p.enumerate_support()
    log_p, log_q = p.log_prob(states), q.log_prob(states)
    torch.testing.assert_close(kl_divergence(p, q), (log_p.exp() * (log_p - log_q)).sum(0))
    assert (kl_divergence(p, q) > 0).all()
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(3, dtype=torch.float64))
    kl_divergence(p, q).sum().backward()
    with pytest.raises(mapgrad.UnsupportedProblemError, match="two laws over one feasible set"):
        kl_divergence(p, make(random_theta(3, 4), mapgrad.KSubset(4, 1)))


def test_score_gradients_agree_with_the_exact_law():
    problem, theta = mapgrad.KSubset(5, 2), random_theta(5).requires_grad_()
    law = make(theta, problem)
    cost = torch.linspace(0, 1, 10, dtype=torch.float64)
    exact = (law.log_prob(law.enumerate_support()).exp() * cost).sum()
    (truth,) = torch.autograd.grad(exact, theta)
    many = theta.detach().expand(1000, 5).clone().requires_grad_()
    states = mapgrad.exact.enumerate_states(problem)

    def f(z):
        return (z.unsqueeze(-2) == states).all(-1).double() @ cost

    make(many, problem).expectation(f, 8).sum().backward()
    z = (many.grad.mean(0) - truth) / (many.grad.std(0) / 1000**0.5)
    assert (z.abs() < 4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes_of_values(batch, dtype):
    law = make(random_theta(*batch, 5).to(dtype), mapgrad.KSubset(5, 2))
    for sample in ((), (4,), (2, 1)):
        found = law.log_prob(law.sample(sample))
        assert found.shape == (*sample, *batch)
        assert found.dtype == dtype
        assert (found < 0).all()
    assert law.log_prob(torch.tensor([1.0, 1, 0, 0, 0])).shape == batch
    assert law.entropy().shape == batch


def test_what_is_not_a_state_has_probability_zero():
    law = make(random_theta(3, 5), mapgrad.KSubset(5, 2))
    value = torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0.5, 0.5, 1, 0, 0]])
    assert law.log_prob(value).isneginf().tolist() == [False, True, True]
    for shape in ((4,), (2, 5)):
        with pytest.raises(mapgrad.ShapeError, match=r"\[\*sample, \*batch, \*shape\]"):
            law.log_prob(torch.ones(shape))
    checked = make(random_theta(3, 5), mapgrad.KSubset(5, 2), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        checked.log_prob(value.double())
    with pytest.raises(ValueError, match="theta"):
        make(torch.full((5,), math.nan), mapgrad.KSubset(5, 2), validate_args=True)


def test_a_forbidden_entry_is_in_no_likely_state():
    for k, noise in ((1, mapgrad.Gumbel()), (2, mapgrad.Gaussian())):
        theta = random_theta(4)
        theta[1] = -math.inf
        leaf = theta.requires_grad_()
        law = make(leaf, mapgrad.KSubset(4, k), noise=noise)
        states = law.enumerate_support()
        chances = law.log_prob(states).exp()
        assert ((chances > 0) == (states[:, 1] == 0)).all()
        torch.testing.assert_close(chances.sum(), torch.ones((), dtype=torch.float64))
        law.log_prob(states)[states[:, 1] == 0].sum().backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_support_and_its_enumeration(batch):
    law = make(random_theta(*batch, 5), mapgrad.KSubset(5, 2))
    assert law.has_enumerate_support
    assert law.support.is_discrete
    assert law.support.event_dim == 1
    assert law.support.check(law.sample((4,))).shape == (4, *batch)
    assert law.enumerate_support().shape == (10, *batch, 5)
    assert law.enumerate_support(expand=False).shape == (10, *(1 for _ in batch), 5)
    grid = mapgrad.MAPLayer(mapgrad.get_solver("auto", mapgrad.Assignment(2, 3)))
    law = grid.distribution(random_theta(*batch, 2, 3))
    assert law.support.event_dim == 2
    assert law.support.check(law.sample((4,))).all()
    assert law.enumerate_support().shape == (6, *batch, 2, 3)


def test_independent_takes_it():
    theta = random_theta(2, 3, 5)
    law = make(theta, mapgrad.KSubset(5, 2), validate_args=True)
    joint = Independent(law, 1, validate_args=True)
    assert (joint.batch_shape, joint.event_shape) == ((2,), (3, 5))
    z = joint.sample((4,))
    torch.testing.assert_close(joint.log_prob(z), law.log_prob(z).sum(-1))
    torch.testing.assert_close(joint.entropy(), law.entropy().sum(-1))
    other = Independent(make(theta + 1, mapgrad.KSubset(5, 2)), 1)
    torch.testing.assert_close(kl_divergence(joint, other), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert Independent(law, 1).expand((7, 2)).sample().shape == (7, 2, 3, 5)


def test_repr_and_pickle():
    law = make(random_theta(2, 5), mapgrad.KSubset(5, 2))
    assert repr(law) == "PerturbAndMAP(theta: torch.Size([2, 5]))"
    torch.testing.assert_close(pickle.loads(pickle.dumps(law)).entropy(), law.entropy())


@pytest.mark.parametrize("n", [2, 3, 6])
def test_topk_probabilities_by_integrals_of_orders(n):
    """Against Plackett–Luce, the order of Gumbel-perturbed utilities."""
    theta = random_theta(n)
    states = mapgrad.exact.enumerate_states(mapgrad.KSubset(n, 2))
    found = mapgrad.exact.topk_probabilities(theta, states, 2, mapgrad.Gumbel())
    weights = theta.exp()
    for z, chance in zip(states, found, strict=True):
        chosen = z.nonzero().flatten().tolist()
        orders = sum(
            weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a])
            for a, b in itertools.permutations(chosen)
        )
        torch.testing.assert_close(chance, orders, atol=1e-12, rtol=1e-9)


def test_topk_probabilities_within_a_budget_and_their_gradient():
    theta = random_theta(2, 3).requires_grad_()
    states = mapgrad.exact.enumerate_states(mapgrad.KSubset(3, 2)).unsqueeze(1).expand(3, 2, 3)
    found = [mapgrad.exact.topk_probabilities(theta, states, 2, LAWS[0], max_bytes=size) for size in (2**30, 200_000)]
    torch.testing.assert_close(*found)
    direction = random_theta(3, 2)
    slopes = [torch.autograd.grad((each * direction).sum(), theta)[0] for each in found]
    torch.testing.assert_close(*slopes)
    h = 1e-5
    for row, entry in ((0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            moved = theta.detach().clone()
            moved[row, entry] += sign * h
            ends.append((mapgrad.exact.topk_probabilities(moved, states, 2, LAWS[0]) * direction).sum())
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), slopes[0][row, entry], atol=1e-8, rtol=1e-6)
    with pytest.raises(mapgrad.ProblemError, match="max_bytes"):
        mapgrad.exact.topk_probabilities(theta, states, 2, LAWS[0], max_bytes=100)
    with pytest.raises(mapgrad.ShapeError, match=r"\[N, \*\(2, 3\)\]"):
        mapgrad.exact.topk_probabilities(theta, states[0], 2, LAWS[0])
    with pytest.raises(TypeError, match="icdf"):
        mapgrad.exact.topk_probabilities(theta, states, 2, object())


@pytest.mark.parametrize(
    "how", [{"estimator": mapgrad.IMLE(mapgrad.Gumbel(), temperature=mapgrad.Relative(0.8))}, {"normalize": True}]
)
@pytest.mark.parametrize("minimize", [False, True])
def test_the_law_is_that_of_rows_with_their_own_scale(how, minimize):
    theta = random_theta(2, 5) * torch.tensor([[1.0], [300.0]])
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(5, 2))
    layer = mapgrad.MAPLayer(solver, **{"estimator": mapgrad.IMLE(mapgrad.Gumbel()), **how}, minimize=minimize, seed=0)
    law = layer.distribution(theta)
    states = law.enumerate_support()
    chances = law.log_prob(states).exp()
    draws = law.sample((20_000,))
    shares = torch.stack([(draws == state).all(dim=-1).double().mean(dim=0) for state in states])
    torch.testing.assert_close(chances.sum(dim=0), torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (chances - shares).abs().max() < 4.5 * (0.25 / 20_000) ** 0.5
    torch.testing.assert_close(law.entropy(), torch.special.entr(chances).sum(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), mapgrad.Gaussian()], ids=lambda law: type(law).__name__)
def test_kl_has_a_gradient_beside_forbidden_entries(noise):
    problem = mapgrad.KSubset(4, 1)
    theta, other = random_theta(2, 4), random_theta(2, 4).flip(0)
    rows = []
    for values in (theta, other):
        values[0, 2] = -torch.inf
        rows.append(values.requires_grad_())
    kl_divergence(make(rows[0], problem, noise=noise), make(rows[1], problem, noise=noise)).sum().backward()
    allowed = [0, 1, 3]
    small = [values.detach()[:1, allowed].requires_grad_() for values in rows]
    less = mapgrad.KSubset(3, 1)
    kl_divergence(make(small[0], less, noise=noise), make(small[1], less, noise=noise)).sum().backward()
    for values, few in zip(rows, small, strict=True):
        torch.testing.assert_close(values.grad[:1, allowed], few.grad, atol=1e-8, rtol=1e-6)
        assert values.grad[0, 2] == 0
        assert values.grad.isfinite().all()


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("noise", [mapgrad.Gumbel(), mapgrad.Gaussian()], ids=lambda law: type(law).__name__)
def test_a_batch_of_no_rows_has_no_probabilities(noise, k):
    law = make(torch.zeros(0, 4), mapgrad.KSubset(4, k), noise=noise)
    assert law.log_prob(law.enumerate_support()).shape == (len(law.enumerate_support()), 0)
    assert law.entropy().shape == (0,)
    assert kl_divergence(law, law).shape == (0,)
