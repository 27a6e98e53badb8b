"""The command line: ``mapgrad solvers``, ``check``, ``demo``, ``bench``, ``lab``, ``tune`` and ``replay``."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line: the entry point of ``mapgrad`` and of ``python -m mapgrad``.

    Raises:
        SystemExit: With the command's exit code; 2 where the packages that it needs aren't installed.
    """
    missing = [package for package in ("typer", "rich") if find_spec(package) is None]
    if missing:
        sys.stderr.write(f"mapgrad's command line needs {' and '.join(missing)}: pip install 'mapgrad[cli]'\n")
        raise SystemExit(2)
    from mapgrad.cli._app import app

    app(prog_name="mapgrad")
