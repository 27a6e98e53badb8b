"""Noise by numba: the same bits as by NumPy, and only where numba is at work anyway."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.gradients._counter import counter_noise
from mapgrad.gradients._noise_kernel import NOISE
from mapgrad.solvers import Shortcut, _kernels

pytest.importorskip("numba")


def draw(kappa, shape, dtype, **options):
    return counter_noise(
        mapgrad.SumOfGamma(kappa), 2**63 + 5, shape, event_ndim=1, dtype=dtype, device=torch.device("cpu"), **options
    )


@pytest.mark.parametrize("kappa", [0.3, 1, 5, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 0, 4), (1, 3, 1024), (1, 2, 40_000), (2, 300, 200)])
def test_the_bits_are_the_same(kappa, dtype, shape, monkeypatch):
    ids = torch.arange(-(2**62), -(2**62) + shape[1])
    made = [draw(kappa, shape, dtype), draw(kappa, shape, dtype, rows=ids, first_sample=2)]
    monkeypatch.setattr(Shortcut, "ready", lambda _: None)
    expected = [draw(kappa, shape, dtype), draw(kappa, shape, dtype, rows=ids, first_sample=2)]
    for one, other in zip(made, expected, strict=True):
        assert torch.equal(one, other)


def test_ids_needn_t_be_contiguous():
    ids = torch.tensor(7).expand(3)  # as where all elements of a map have the same noise
    assert torch.equal(draw(2, (2, 3, 4), torch.float64, rows=ids), draw(2, (2, 3, 4), torch.float64, rows=ids.clone()))


def test_numba_is_not_imported_for_noise(run_program):
    code = """
import sys, torch, mapgrad
from mapgrad.gradients._noise_kernel import NOISE
layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(6, 2)), mapgrad.IMLE())
layer(torch.zeros(4, 6))
assert "numba" not in sys.modules
import numba
layer(torch.zeros(4, 6))
assert [kernel._compiled is not None for kernel in NOISE.values()] == [True, False]
"""
    done = run_program(code)
    assert done.returncode == 0, done.stderr


def test_where_it_cannot_be_compiled_numpy_makes_it(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no compiler")

    expected = draw(5, (2, 3, 4), torch.float64)
    dtype = np.dtype(np.float64)
    fresh = Shortcut(NOISE[dtype]._function, NOISE[dtype]._signature)
    monkeypatch.setitem(NOISE, dtype, fresh)
    monkeypatch.setattr(_kernels, "kernel", broken)
    caplog.set_level("INFO", "mapgrad")
    assert torch.equal(draw(5, (2, 3, 4), torch.float64), expected)
    assert fresh.ready() is None
    assert len(caplog.records) == 1, "said once"
