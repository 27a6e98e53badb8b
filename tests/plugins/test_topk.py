"""What is particular to top-k: ties go by index, in every dtype, for whole batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad_topk import _topk
from mapgrad_topk._topk import TopK

FEW_VALUES = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])


def test_the_k_largest_are_chosen() -> None:
    theta = torch.tensor([[0.1, 3.0, -2.0, 0.5], [-1.0, -2.0, -3.0, -4.0]])
    z = TopK(mapgrad.KSubset(4, 2)).solve(theta)
    assert z.tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]


def test_ranks_count_up_with_theta() -> None:
    z = TopK(mapgrad.Ranking(4)).solve(torch.tensor([[0.1, 3.0, -2.0, 0.5]]))
    assert z.tolist() == [[1, 3, 0, 2]]


def test_a_tie_at_the_kth_place_goes_to_the_first_index() -> None:
    theta = torch.tensor([[1.0, 0.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    z = TopK(mapgrad.KSubset(5, 3)).solve(theta)
    assert z.tolist() == [[1, 0, 1, 0, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_of_equal_entries_the_first_has_the_higher_rank() -> None:
    z = TopK(mapgrad.Ranking(4)).solve(torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, -0.0, 0.0, -0.0]]))
    assert z.tolist() == [[1, 3, 0, 2], [3, 2, 1, 0]]


@pytest.mark.parametrize("k", [1, 10, 99, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_ties_leave_exactly_k(k: int, dtype: torch.dtype) -> None:
    values = torch.randint(-3, 4, (200, 100), generator=torch.Generator().manual_seed(0))
    theta = values.to(dtype)
    z = TopK(mapgrad.KSubset(100, k)).solve(theta)
    order = theta.argsort(dim=1, descending=True, stable=True)[:, :k]
    assert z.dtype is dtype
    assert torch.equal(z, torch.zeros_like(theta).scatter(1, order, 1.0))


@settings(deadline=None, derandomize=True)
@given(st.lists(FEW_VALUES, min_size=1, max_size=8), st.data())
def test_a_k_subset_holds_the_entries_of_the_k_highest_ranks(row: list[float], data: st.DataObject) -> None:
    n, k = len(row), data.draw(st.integers(1, len(row)))
    theta = torch.tensor([row])
    subset = TopK(mapgrad.KSubset(n, k)).solve(theta)
    ranks = TopK(mapgrad.Ranking(n)).solve(theta)
    assert torch.equal(subset == 1, ranks >= n - k)


@pytest.mark.parametrize("problem", [mapgrad.KSubset(6, 2), mapgrad.Ranking(6)])
def test_a_row_is_answered_alike_alone_and_in_company(problem: mapgrad.Problem) -> None:
    theta = torch.randint(-2, 3, (50, 6), generator=torch.Generator().manual_seed(1)).double()
    kept = theta.clone()
    together = TopK(problem).solve(theta)
    assert torch.equal(together, torch.cat([TopK(problem).solve(row[None]) for row in theta]))
    assert torch.equal(theta, kept)


@pytest.mark.parametrize("problem", [mapgrad.KSubset(6, 2), mapgrad.Ranking(6)])
@pytest.mark.parametrize("chunk", [1, 20])
def test_rows_are_sorted_a_few_at_a_time(problem: mapgrad.Problem, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theta = torch.randint(-2, 3, (50, 6), generator=torch.Generator().manual_seed(1)).double()
    together = TopK(problem).solve(theta)
    monkeypatch.setattr(_topk, "_CHUNK", chunk)
    assert torch.equal(TopK(problem).solve(theta), together)


@pytest.mark.parametrize("problem", [mapgrad.KSubset(6, 2), mapgrad.Ranking(6)])
def test_an_empty_batch_has_no_answers(problem: mapgrad.Problem) -> None:
    assert TopK(problem).solve(torch.zeros(0, 6)).shape == (0, 6)


def test_threads_help_and_no_option_is_known() -> None:
    assert TopK.traits == mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)
    with pytest.raises(TypeError, match="TopK has no option 'sorted'"):
        TopK(mapgrad.KSubset(4, 2), sorted=True)


def test_declared_costs_are_listed_beside_the_solvers_of_a_problem() -> None:
    problem = mapgrad.KSubset(6, 3)
    costs = {info.name: info.cost for info in mapgrad.list_solvers(problem) if info.status == "ok"}
    assert mapgrad.get_solver("auto", problem).name == min(costs, key=lambda name: costs[name])
    assert all(math.isnan(info.cost) for info in mapgrad.list_solvers())
