"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import torch

import mapgrad

README = Path(__file__).parents[1] / "README.md"


def test_the_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    torch.manual_seed(0)
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["loss"] < 1
    assert names["solutions"].status.tolist() == [1] * 16
    best = (mapgrad.get_solver("scipy.milp", names["plan"])(names["prices"]) * names["prices"]).sum(1).mean()
    assert 0.8 * best < names["revenue"] <= best
    assert [state.sum() for state in names["states"]] == [2, 3, 3]
    assert names["theta"].grad.abs().sum() > 0


def test_the_first_example_is_short():
    first = re.search(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len([line for line in first[1].splitlines() if line.strip()]) <= 15


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (README.parent / target).exists(), target
