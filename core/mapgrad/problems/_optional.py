"""Packages that only some functions need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mapgrad.errors import MissingDependencyError


def optional_module(name: str, purpose: str, extra: str) -> Any:
    """Return a module of a package that may be missing.

    Args:
        name: Of the module.
        purpose: What needs it, as the beginning of a sentence.
        extra: Which extra of mapgrad installs it.

    Raises:
        MissingDependencyError: it can't be imported; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingDependencyError(f"{purpose} needs {package}: pip install 'mapgrad[{extra}]'") from error
