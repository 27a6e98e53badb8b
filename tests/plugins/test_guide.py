"""The block of rows that CONTRIBUTING.md shows is solved as it stands there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mapgrad

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_solver_of_blocks() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = (block for block in blocks if "class Partition" in block and "def solve_rows" in block)
    names: dict[str, Any] = {"np": np, "mapgrad": mapgrad}
    exec(compile(example, GUIDE.name, "exec"), names)
    problem = mapgrad.KSubset(6, 3)
    theta = np.random.default_rng(0).standard_normal((20, 6))
    theta.flags.writeable = False
    block = mapgrad.Block(theta)
    names["Partition"](problem).solve_rows(None, block)
    best = (theta @ np.asarray(problem.states()).T).max(axis=1)
    assert problem.contains(torch.as_tensor(block.z)).all()
    np.testing.assert_allclose((theta * block.z).sum(axis=1), best, rtol=0, atol=1e-12)
