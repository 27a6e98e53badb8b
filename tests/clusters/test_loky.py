"""Rows on loky's workers, the executor that joblib has."""

import os
from importlib.util import find_spec

import pytest
import torch

import mapgrad

if find_spec("loky") is None:
    pytest.skip("loky isn't installed: pip install loky", allow_module_level=True)

from loky import ProcessPoolExecutor

THETA = torch.rand(20, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
THETA[:, 0] = 9.0
BEST = torch.nn.functional.one_hot(THETA.argmax(dim=1), 9).to(THETA)


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_answers_and_rows_that_kill_their_worker(fragile, caplog, deadline):
    deadly = THETA.clone()
    deadly[7, 1] = -9.0
    with ProcessPoolExecutor(2) as executor:
        options = {"workers": executor, "merge": False, "on_error": "nan"}
        with mapgrad.get_solver(fragile.Fragile, mapgrad.KSubset(9, 1), **options) as solver:
            assert torch.equal(solver(THETA, deadline=deadline), BEST)
            assert executor.submit(os.getpid).result() != os.getpid()
            with pytest.warns(UserWarning, match="1 of 20 rows"):
                solutions = solver.solve(deadly, deadline=deadline)
            assert (~solutions.mask).nonzero().flatten().tolist() == [7]
            assert torch.equal(solutions.z[solutions.mask], BEST[solutions.mask])
            assert torch.equal(solver(THETA), BEST)
    assert "ProcessPoolExecutor, given as workers, is broken for good" in caplog.text
