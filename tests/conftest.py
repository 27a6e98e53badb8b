"""Data sets of others, which tests use where a machine has them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("MAPGRAD_DATA", Path(__file__).parents[2] / "shared" / "data"))

# a shell that runs the tests in the background has them, and the programs that they start, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def data():
    """Return a function from a data set's name to its folder."""

    def folder(name):
        path = FOLDER / name
        if not path.is_dir():
            pytest.skip(f"no folder {path}: MAPGRAD_DATA names the folder of data sets")
        return path

    return folder
