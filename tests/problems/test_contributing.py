"""The problem that CONTRIBUTING.md shows works as it stands there, and is that of the example."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mapgrad

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"


def blocks() -> list[str]:
    _, section = GUIDE.read_text(encoding="utf-8").split("\n## Write a problem in 30 lines\n")
    return re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)


def test_the_problem_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, usage, solver, usage_of_solver = blocks()
    tmp_path.joinpath("independent_set.py").write_text(f"{problem}\n\n{solver}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    try:
        exec(compile(usage, GUIDE.name, "exec"), names)
        exec(compile(usage_of_solver, GUIDE.name, "exec"), names)
    finally:
        sys.modules.pop("independent_set", None)
        with contextlib.suppress(mapgrad.UnknownSolverError):  # the guide may have failed before it registers this
            mapgrad.unregister("independent_set")


def test_the_problem_of_the_guide_is_short_and_the_example_s() -> None:
    problem, _, solver, _ = blocks()
    assert len([line for line in problem.splitlines() if line.strip()]) <= 31
    example = (ROOT / "examples" / "own_problem.py").read_text(encoding="utf-8")
    for block in (problem, solver):
        assert block[block.index("class ") :] in example
