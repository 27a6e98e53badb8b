"""Data sets of others, which tests use where a machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("MAPGRAD_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def data():
    """Return a function from a data set's name to its folder."""

    def folder(name):
        path = FOLDER / name
        if not path.is_dir():
            pytest.skip(f"no folder {path}: MAPGRAD_DATA names the folder of data sets")
        return path

    return folder
