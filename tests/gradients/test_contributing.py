"""The estimator that CONTRIBUTING.md shows works as it stands there."""

import re
from pathlib import Path

import torch

import mapgrad

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_estimator_of_the_guide():
    _, section = GUIDE.read_text(encoding="utf-8").split("\n## Write an estimator\n")
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    names = {}
    exec(compile(code, GUIDE.name, "exec"), names)
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), names["Antithetic"](3.0), seed=0)
    theta = torch.randn(200, 2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cost = torch.arange(5.0)
    z = layer(theta)
    assert torch.equal(z.sum(-1), torch.full((200, 2), 2.0))
    assert (z == 0.5).any()
    (z @ cost).sum().backward()
    slope = theta.grad.mean((0, 1))
    assert slope[:2].max() < 0 < slope[2:].min()  # what costs more is wanted less
    assert slope.sum().abs() < 1e-5
