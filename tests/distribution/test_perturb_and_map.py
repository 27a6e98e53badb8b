"""`PerturbAndMAP` keeps the manners of torch.distributions."""

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(5, 2)


def make(theta, *, samples=1, **options):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=samples), **options)
    return layer.distribution(theta)


def random_theta(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("sample_shape", [(), (4,), (2, 3), torch.Size([4])])
def test_shapes(batch, sample_shape):
    theta = random_theta(*batch, 5).requires_grad_()
    law = make(theta)
    assert law.batch_shape == batch
    assert law.event_shape == (5,)
    draws = law.rsample(sample_shape)
    assert draws.shape == (*sample_shape, *batch, 5)
    assert SUBSET.contains(draws).all()
    assert draws.requires_grad
    assert law.sample(sample_shape).shape == draws.shape
    assert not law.sample(sample_shape).requires_grad
    assert repr(law).startswith("PerturbAndMAP(")


def test_mode_is_map():
    theta = random_theta(3, 5)
    assert torch.equal(make(theta).mode, mapgrad.get_solver("topk", SUBSET)(theta))
    assert torch.equal(make(theta, minimize=True).mode, mapgrad.get_solver("topk", SUBSET)(-theta))


def test_mean_estimates_the_marginals_with_a_gradient():
    theta = random_theta(3, 5).requires_grad_()
    law = make(theta, samples=4000, seed=0)
    mean = law.mean
    exact = mapgrad.exact.topk_marginals(theta.detach(), 2, mapgrad.SumOfGamma(2))
    torch.testing.assert_close(mean.detach(), exact.float(), atol=5 * 0.5 / 4000**0.5, rtol=0)
    (mean * torch.arange(5.0)).sum().backward()
    assert theta.grad.abs().sum() > 0


def test_rsample_has_the_gradient_of_the_layer():
    theta = random_theta(3, 5)
    gradients = []
    for run in (
        lambda layer, leaf: layer(leaf),
        lambda layer, leaf: layer.distribution(leaf).rsample((6,)).mean(0),
    ):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=6), seed=3)
        leaf = theta.clone().requires_grad_()
        run(layer, leaf).pow(2).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_half_precision():
    law = make(random_theta(3, 5).bfloat16())
    assert law.sample((2,)).dtype == law.mode.dtype == law.mean.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda law: law.log_prob(law.sample()), r"no closed form: estimate it .*law.sample\(\(1000,\)\).*exact.prob"),
        (lambda law: law.entropy(), r"no closed form.*mapgrad.exact.probabilities\(problem, theta\)"),
        (lambda law: law.perplexity(), r"no closed form"),
        (lambda law: law.variance, r"no closed form: take law.sample\(\(1000,\)\).var\(0\)"),
        (lambda law: law.stddev, r"no closed form: take law.sample\(\(1000,\)\).var\(0\)"),
        (lambda law: law.cdf(law.sample()), r"no order: law.mean gives marginals, law.mode the best state"),
        (lambda law: law.icdf(torch.zeros(5)), r"no order"),
    ],
)
def test_n11_methods_that_are_missing_say_why_and_what_to_do(call, message):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", mapgrad.Knapsack([3, 2, 4, 1, 5], 7)))
    with pytest.raises(NotImplementedError, match=message):
        call(layer.distribution(random_theta(3, 5)))


@pytest.mark.parametrize("call", [lambda law: law.support, lambda law: law.enumerate_support()])
def test_a_function_that_does_not_say_what_it_solves_has_no_support(call):
    law = mapgrad.MAPLayer(lambda theta: (theta > 0).to(theta)).distribution(random_theta(3, 5))
    with pytest.raises(NotImplementedError, match="give the function an attribute problem"):
        call(law)


def test_what_these_messages_recommend_works():
    theta = random_theta(3, 5)
    law = make(theta)
    assert law.sample((1000,)).var(0).shape == (3, 5)
    assert mapgrad.exact.probabilities(law.layer.problem, theta).log().shape == (3, len(law.layer.problem.states()))
    assert law.layer.problem.contains(law.sample()).all()


def test_a_larger_batch():
    theta = random_theta(5).requires_grad_()
    law = make(theta).expand((4, 3))
    assert law.batch_shape == (4, 3)
    assert law.event_shape == (5,)
    draws = law.rsample((2,))
    assert draws.shape == (2, 4, 3, 5)
    assert len(draws.reshape(-1, 5).unique(dim=0)) > 1
    draws.sum().backward()
    assert theta.grad.shape == (5,)
