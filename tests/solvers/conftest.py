"""Folders on sys.path that look like site-packages, in place of all that is really installed."""

from __future__ import annotations

import sys
import textwrap
from importlib import metadata
from typing import TYPE_CHECKING, Protocol

import pytest

from mapgrad.solvers._registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Install(Protocol):
    """Writes a distribution's dist-info folder, and its modules beside it."""

    def __call__(
        self,
        distribution: str,
        entry_points: dict[str, str],
        *,
        version: str = "1.0",
        folder: str = "site",
        **modules: str,
    ) -> Path: ...


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test read entry points anew, under default settings."""
    monkeypatch.setattr(REGISTRY, "_table", None)
    monkeypatch.delenv("MAPGRAD_BLOCK", raising=False)
    monkeypatch.delenv("MAPGRAD_ONLY", raising=False)
    monkeypatch.delenv("MAPGRAD_STRICT", raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install fake distributions, and hide the real ones."""
    real = metadata.distributions
    monkeypatch.setattr(
        metadata, "distributions", lambda *, path: real(path=path) if path[0].startswith(str(tmp_path)) else []
    )
    known = set(sys.modules)

    def write(
        distribution: str,
        entry_points: dict[str, str],
        *,
        version: str = "1.0",
        folder: str = "site",
        **modules: str,
    ) -> Path:
        site = tmp_path / folder
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = (f"{name} = {value}\n" for name, value in entry_points.items())
        info.joinpath("entry_points.txt").write_text("[mapgrad]\n" + "".join(lines))
        for name, code in modules.items():
            site.joinpath(f"{name}.py").write_text(textwrap.dedent(code))
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        return info

    yield write
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
