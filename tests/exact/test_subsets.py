import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapgrad import KSubset, exact


def slow_marginals(theta, k):
    """Sums over all subsets, scaled by the best one."""
    subsets = list(combinations(range(len(theta)), k))
    totals = [math.fsum(theta[i] for i in chosen) for chosen in subsets]
    weights = [math.exp(total - max(totals)) for total in totals]
    marginals = [
        math.fsum(w for w, chosen in zip(weights, subsets, strict=True) if i in chosen) / math.fsum(weights)
        for i in range(len(theta))
    ]
    return marginals, max(totals) + math.log(math.fsum(weights))


@st.composite
def thetas(draw):
    scale = draw(st.sampled_from([1e-3, 1.0, 30.0, 500.0]))
    values = draw(st.lists(st.integers(-100, 100), min_size=1, max_size=8))
    return [scale * value / 100 for value in values], draw(st.integers(1, len(values)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(thetas())
def test_marginals_and_log_partition_are_the_sums_over_subsets(case):
    theta, k = case
    marginals, log_partition = slow_marginals(theta, k)
    row, problem = torch.tensor(theta, dtype=torch.float64), KSubset(len(theta), k)
    assert exact.marginals(problem, row).tolist() == pytest.approx(marginals, rel=1e-9, abs=1e-300)
    assert float(exact.log_partition(problem, row)) == pytest.approx(log_partition, rel=1e-12, abs=1e-12)


def test_one_of_n_is_softmax():
    theta = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
    torch.testing.assert_close(exact.marginals(KSubset(20, 1), theta, 2.0), (theta / 2).softmax(dim=1))
    torch.testing.assert_close(exact.log_partition(KSubset(20, 1), theta), theta.logsumexp(dim=1))


def test_derivatives_hold():
    theta = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    for k in (1, 3, 6):
        problem = KSubset(6, k)
        assert torch.autograd.gradcheck(lambda t, problem=problem: exact.marginals(problem, t, 0.5), theta)
        assert torch.autograd.gradcheck(lambda t, problem=problem: exact.log_partition(problem, t, 0.5), theta)


def test_many_items_with_extreme_weights():
    theta = torch.linspace(-800, 800, 1000, dtype=torch.float64).requires_grad_()
    marginals = exact.marginals(KSubset(1000, 300), theta)
    assert float(marginals.detach().sum()) == pytest.approx(300, rel=1e-12)
    assert bool((marginals.detach().diff() >= 0).all())
    assert float(marginals[700].detach()) == pytest.approx(1 - float(marginals[699].detach()), rel=1e-9)
    marginals[700].backward()
    assert bool(theta.grad.isfinite().all())
    uniform = exact.log_partition(KSubset(1000, 300), torch.zeros(1000, dtype=torch.float64))
    assert float(uniform) == pytest.approx(math.log(math.comb(1000, 300)), rel=1e-12)
