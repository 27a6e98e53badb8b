"""Compiled diagrams on disk, so that what took long isn't computed again in each process.

A file is one array file of NumPy without pickled objects, whose every index is checked before it is used. A file that
is damaged, foreign or of another version counts as missing.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.exact._compiler import Nodes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_logger = logging.getLogger("mapgrad")

_VERSION: Final = 1
"""Of the file's contents, and of the way in which a program becomes a diagram."""

_LARGEST: Final = 512 * 2**20
"""Bytes that all files may have together; the ones used longest ago are removed beyond."""


def cache_folder() -> Path | None:
    """Return where diagrams are kept: `MAPGRAD_CACHE_DIR`, else the user's cache folder; None if that is empty."""
    named = os.environ.get("MAPGRAD_CACHE_DIR")
    if named is not None:
        return Path(named).expanduser() / "diagrams" if named else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mapgrad" / "diagrams"


def load(key: str, num_priced: int) -> Nodes | None:
    """Return a diagram that was kept under a key, and has so many layers; None if there is none that can be used."""
    path = _path(key)
    if path is None:
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than any that is kept")  # noqa: TRY301 (told like all that may be wrong)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            nodes = _checked(file, key, num_priced)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # noqa: BLE001 (whatever a damaged file makes of its reader)
        _logger.warning("%s isn't used and will be written anew: %s: %s", path, type(error).__name__, error)
        return None
    with suppress(OSError):  # the folder may be others'
        os.utime(path)
    return nodes


def save(key: str, nodes: Nodes) -> None:
    """Keep a diagram under a key, as far as there is a folder that can be written to."""
    path = _path(key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, version=_VERSION, key=key, **nodes._asdict())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _remove_oldest(path.parent)
    except OSError as error:
        _logger.info("a diagram isn't kept on disk: %s; MAPGRAD_CACHE_DIR names another folder", error)


def _path(key: str) -> Path | None:
    try:
        folder = cache_folder()
    except RuntimeError:  # no home
        return None
    return None if folder is None else folder / f"{key}.npz"


def _checked(file: Mapping[str, NDArray[Any]], key: str, num_priced: int) -> Nodes:
    """Return the diagram in a file, if it is one.

    Raises:
        ValueError: it isn't.
        KeyError: an array is missing.
    """
    if file["version"] != _VERSION or str(file["key"]) != key:
        raise ValueError("it was written for another diagram")
    order, ends = (_array(file, name, np.int64) for name in ("order", "ends"))
    low, high = (_array(file, name, np.int32) for name in ("low", "high"))
    leaf_values = _array(file, "leaf_values", np.float64)
    sizes = len(order) == num_priced and len(ends) == num_priced + 1 and len(low) == len(high) == ends[0]
    if not sizes or not np.array_equal(np.sort(order), np.arange(num_priced)) or len(leaf_values) != ends[-1]:
        raise ValueError("its arrays don't fit together")
    firsts = [*ends.tolist(), 1]
    if firsts != sorted(firsts, reverse=True) or not np.isfinite(leaf_values[1:]).all() or leaf_values[0] != -np.inf:
        raise ValueError("its layers don't follow each other")
    for layer in range(num_priced):
        part, below = slice(firsts[layer + 1], firsts[layer]), (firsts[layer + 2], firsts[layer + 1])
        for children in (low[part], high[part]):
            if not ((children == 0) | ((children >= below[0]) & (children < below[1]))).all():
                raise ValueError("a node leads out of its next layer")
    if len(low) > 1 and firsts[0] - firsts[1] != 1:
        raise ValueError("it hasn't one root")
    return Nodes(order, ends, low, high, leaf_values)


def _array(file: Mapping[str, NDArray[Any]], name: str, dtype: type) -> NDArray[Any]:
    array = file[name]
    if array.ndim != 1 or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    return array


def _remove_oldest(folder: Path) -> None:
    files: list[tuple[float, int, Path]] = []
    for path in (*folder.glob("*.npz"), *folder.glob("*.part")):  # what a killed process left, too
        with suppress(FileNotFoundError):  # another process may have removed it
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    size = sum(each for _, each, _ in files)
    for _, each, path in sorted(files):
        if size <= _LARGEST:
            return
        path.unlink(missing_ok=True)
        size -= each
