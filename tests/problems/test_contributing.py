"""The problem that CONTRIBUTING.md shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_problem_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, section = GUIDE.read_text(encoding="utf-8").split("\n## Write a problem\n")
    problem, usage = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    tmp_path.joinpath("interval_scheduling.py").write_text(problem, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        exec(compile(usage, GUIDE.name, "exec"), {})
    finally:
        sys.modules.pop("interval_scheduling", None)
