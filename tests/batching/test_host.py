"""Rows on their way to a block and back: exact scaling, and the same with numba as without it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import mapgrad
from mapgrad.batching._host import scale_rows
from mapgrad.batching._host_kernels import NARROW, SCALE
from mapgrad.solvers import Shortcut

WAYS = [pytest.param(False, id="numpy"), pytest.param(True, id="numba")]


@pytest.fixture(params=WAYS)
def _way(request, monkeypatch):
    if request.param:
        pytest.importorskip("numba")
        assert all(kernel.ready() for kernel in (*SCALE.values(), NARROW))
    else:
        monkeypatch.setattr(Shortcut, "ready", lambda _: None)


def rows(dtype):
    width = 8 * np.dtype(dtype).itemsize
    shapes = array_shapes(min_dims=2, max_dims=2, max_side=5)
    return arrays(dtype, shapes, elements=st.floats(width=width, allow_nan=False, allow_infinity=False))


@pytest.mark.usefixtures("_way")
@given(st.one_of(rows(np.float32), rows(np.float64)))
def test_scaled_rows_are_exact_and_below_one(values):
    scaled, exponents = scale_rows(values)
    largest = np.abs(scaled).max(axis=1)
    assert ((largest >= 0.5) & (largest < 1) | (np.abs(values).max(axis=1) == 0)).all()
    assert not np.signbit(scaled[scaled == 0]).any()
    exact = np.ldexp(values.astype(np.float64), -exponents[:, None])
    assert (scaled == exact).all()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_states_come_back_in_the_rows_dtype(dtype):
    solver = mapgrad.get_solver("networkx", mapgrad.SpanningTree(4, [[0, 1], [1, 2], [2, 3], [3, 0]]))
    theta = torch.tensor([[3.0, 1.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]], dtype=dtype)
    z = solver(theta)
    assert z.dtype == dtype
    assert z.tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]
    assert not np.shares_memory(solver(theta).float().numpy(), z.float().numpy())


class Odd(mapgrad.InstanceSolver[mapgrad.KSubset, None]):
    """Fails in another way in each row but the first."""

    def solve_rows(self, state, block):
        block.z[:] = [1, 0, 0]
        block.z[1] = np.nan
        block.z[2, 1] = np.inf
        block.status[3] = 99
        block.status[4] = mapgrad.Status.TIME_LIMIT
        block.z[4] = np.nan


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_row_without_an_answer_is_found(dtype):
    solver = mapgrad.get_solver(Odd, mapgrad.KSubset(3, 1), merge=False)
    with pytest.raises(mapgrad.RowsError) as caught:
        solver(torch.rand(6, 3, dtype=dtype))
    assert caught.value.rows == (1, 2, 3, 4)
    assert caught.value.solutions.z[[0, 5]].tolist() == [[1, 0, 0]] * 2
