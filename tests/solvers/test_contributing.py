"""The plugin that CONTRIBUTING.md shows works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mapgrad

if TYPE_CHECKING:
    import pytest

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_plugin_in_30_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plugin, usage, *_ = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(plugin.splitlines()) <= 30
    tmp_path.joinpath("mapgrad_partition.py").write_text(plugin, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        exec(compile(usage, GUIDE.name, "exec"), {})
        assert "partition" in [info.name for info in mapgrad.list_solvers(mapgrad.KSubset(6, 3))]
    finally:
        sys.modules.pop("mapgrad_partition", None)
