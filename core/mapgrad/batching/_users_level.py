"""Where a user's code is, to which warnings point."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import torch

_PASSED_OVER: Final = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))
"""Where code lies that a warning isn't about."""


def users_level() -> int:
    """Return which frame is the first outside of mapgrad and torch, counted from the caller, as `stacklevel` does."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] (what warnings' skip_file_prefixes does, from Python 3.12 on)
    while frame.f_code.co_filename.startswith(_PASSED_OVER) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level
