"""Masks meet rows whose ∂L/∂z isn't finite, steps that overflow, the last answers and context."""

import pytest
import torch

import mapgrad

INF = torch.inf
SUBSET = mapgrad.KSubset(7, 2)


def masked(*batch):
    theta = torch.randn(*batch, 7, generator=torch.Generator().manual_seed(0))
    theta[..., 1] = -INF
    return theta


def test_a_bad_row_is_nan_where_its_entries_are_allowed():
    upstream = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.Blackbox(2.0))
    leaf = masked(4).requires_grad_()
    layer(leaf).backward(upstream)
    expected = leaf.grad.clone()
    leaf.grad = None
    upstream[0, 1], upstream[2, 3] = torch.nan, INF
    layer(leaf).backward(upstream)
    assert torch.equal(leaf.grad[[0, 1, 3]], expected[[0, 1, 3]])
    assert leaf.grad[2].isnan().tolist() == [True, False, *[True] * 5]
    assert leaf.grad[2, 1] == 0


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("solver", ["topk", "highs"])
def test_a_step_that_overflows_forbids_nothing(solver, is_masked):
    layer = mapgrad.MAPLayer(mapgrad.get_solver(solver, SUBSET), mapgrad.Blackbox(1e30))
    theta = masked(2, 3)
    theta = theta if is_masked else theta.nan_to_num(neginf=0)
    upstream = torch.zeros(2, 3, 7)
    upstream[1, 0, 4] = 1e30
    z = layer(theta.requires_grad_())
    with pytest.raises(mapgrad.NonFiniteError, match=r"row 3 \(index \(1, 0\)\) \(1 of 6\).*step overflows") as refused:
        z.backward(upstream)
    assert refused.value.rows == (3,)


def test_the_last_answers_tell_forbidden_entries():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=3))
    theta = masked(2, 2)
    layer(theta)
    assert torch.equal(layer.last.forbidden, theta.isneginf().expand(3, 2, 2, 7))
    layer.eval()
    layer(theta)
    assert torch.equal(layer.last.forbidden, theta.isneginf())
    layer(theta.nan_to_num(neginf=0))
    assert layer.last.forbidden is None


def test_the_last_answers_to_rows_of_several_problems_tell_them():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None), mapgrad.IMLE(None))
    rows = [torch.tensor([1.0, -INF, 0.0]), torch.tensor([0.0, 1.0])]
    layer(rows, problems=[mapgrad.KSubset(3, 2), mapgrad.KSubset(2, 1)])
    assert [each.tolist() for each in layer.last.forbidden] == [[False, True, False], [False, False]]


def test_an_error_tells_forbidden_entries():
    theta = masked(3)
    theta[1, 1:] = -INF
    with pytest.raises(mapgrad.InfeasibleError, match="row 1") as refused:
        mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(None))(theta)
    assert torch.equal(refused.value.solutions.forbidden, theta.isneginf())


def test_a_function_gets_context_and_no_ids():
    def choose(theta, ks):
        return torch.stack(
            [torch.zeros(7).scatter_(0, row.topk(k).indices, 1) for row, k in zip(theta, ks, strict=True)]
        )

    def drawn(order):
        layer = mapgrad.MAPLayer(choose, mapgrad.IMLE(mapgrad.Gumbel(), samples=4), seed=0)
        theta = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
        return layer(theta[order], [[1, 2, 3, 4][row] for row in order], rows=order)

    order = [2, 0, 3, 1]
    assert torch.equal(drawn(order), drawn([0, 1, 2, 3])[order])
