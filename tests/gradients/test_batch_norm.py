"""AdaptiveStep(norm="batch"): the published step, also where norms are extreme."""

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient_of(theta, upstream, **options):
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", SUBSET), mapgrad.AdaptiveIMLE(None, norm="batch", **options), seed=0
    )
    leaf = theta.clone().requires_grad_()
    layer(leaf).backward(upstream)
    return leaf.grad


def expected_gradient(theta, upstream):
    """The published rule, in float64, on the entries that aren't masked."""
    theta, upstream = theta.double(), upstream.double()
    is_masked = theta == -torch.inf
    step = theta.masked_fill(is_masked, 0).norm() / upstream.masked_fill(is_masked, 0).norm()

    def top(values):
        return torch.zeros_like(values).scatter_(1, values.topk(2).indices, 1)

    difference = top(theta) - top((theta - step * upstream).masked_fill(is_masked, -torch.inf))
    return (difference / step).float()


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-38, 1e-40])
@pytest.mark.parametrize("masked", [0, 2])
def test_masks_count_in_no_norm_and_tiny_gradients_are_fine(size, masked):
    theta, upstream = rows(4, 6), size * rows(4, 6, seed=1)
    theta[:, :masked] = -torch.inf
    expected = expected_gradient(theta, upstream)
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(gradient_of(theta, upstream), expected)


@pytest.mark.parametrize("size", [1e-45, 1.0, 1e30])
@pytest.mark.parametrize("low", [-1e9, torch.finfo(torch.float32).min])
def test_extreme_entries_are_finite(size, low):
    theta = rows(4, 6)
    theta[:, 0] = low
    assert gradient_of(theta, (size * rows(4, 6, seed=1)).clamp(-3e38, 3e38)).isfinite().all()


@pytest.mark.parametrize(("theta", "upstream"), [(torch.zeros(4, 6), rows(4, 6)), (rows(4, 6), torch.zeros(4, 6))])
def test_zeros(theta, upstream):
    found = gradient_of(theta, upstream)
    assert found.isfinite().all()
    assert (found.abs().sum() > 0) == (upstream.abs().sum() > 0)
