"""Results on disk, so that what took long isn't computed again in each process.

A file is one array file of NumPy without pickled objects, whose contents are checked before they are used. A file that
is damaged, foreign or of another version counts as missing.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

T = TypeVar("T")

_logger = logging.getLogger("mapgrad")

_LARGEST: Final = 512 * 2**20
"""Bytes that all files of a folder may have together; the ones used longest ago are removed beyond."""


def folder_of(kind: str) -> Path | None:
    """Return where results of a kind are kept.

    Args:
        kind: Name of a folder in that which `MAPGRAD_CACHE_DIR` names, else in the user's cache folder.

    Returns:
        None where `MAPGRAD_CACHE_DIR` is empty, so that nothing is kept.
    """
    named = os.environ.get("MAPGRAD_CACHE_DIR")
    if named is not None:
        return Path(named).expanduser() / kind if named else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mapgrad" / kind


def load(kind: str, key: str, read: Callable[[Mapping[str, NDArray[Any]]], T]) -> T | None:
    """Return what was kept under a key; None if there is nothing that can be used.

    Args:
        kind: As for `folder_of`.
        key: The name that the file has without its suffix.
        read: Makes the result of the file's arrays, which may be any; it raises where they aren't such a result.
    """
    path = _path(kind, key)
    if path is None:
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than any that is kept")  # noqa: TRY301 (told like all that may be wrong)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                raise ValueError("it was written under another key")  # noqa: TRY301 (as above)
            found = read(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # noqa: BLE001 (whatever a damaged file makes of its reader)
        _logger.warning("%s isn't used and will be written anew: %s: %s", path, type(error).__name__, error)
        return None
    with suppress(OSError):  # the folder may be others'
        os.utime(path)
    return found


def save(kind: str, key: str, arrays: Mapping[str, Any]) -> None:
    """Keep arrays under a key, as far as there is a folder that can be written to.

    Args:
        kind: As for `folder_of`.
        key: As for `load`.
        arrays: By their names, of which "key" is taken.
    """
    path = _path(kind, key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, key=key, **arrays)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _remove_oldest(path.parent)
    except OSError as error:
        _logger.info("nothing is kept on disk in %s: %s; MAPGRAD_CACHE_DIR names another folder", path.parent, error)


def _path(kind: str, key: str) -> Path | None:
    try:
        folder = folder_of(kind)
    except RuntimeError:  # no home
        return None
    return None if folder is None else folder / f"{key}.npz"


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
