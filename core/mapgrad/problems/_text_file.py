"""Text files of others, read line by line: plain or packed, and never more of them than a limit allows."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mapgrad.errors import ProblemError
from mapgrad.problems._checks import integer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

_OPENERS: Final = {".gz": gzip.open, ".bz2": bz2.open}
_BLOCK: Final = 2**18
_LONGEST: Final = 2**20  # of the lines, in bytes
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def path_with_suffix(path: str | PathLike[str], suffix: str) -> Path:
    """Return a path whose name ends in suffix, or in suffix and .gz or .bz2.

    Raises:
        ProblemError: it ends otherwise.
    """
    path = Path(path)
    if not path.name.endswith((suffix, *(suffix + packed for packed in _OPENERS))):
        kind = suffix[1:].upper()
        raise ProblemError(
            f"the name of an {kind} file must end in {suffix}, {suffix}.gz or {suffix}.bz2, got {path.name!r}"
        )
    return path


class TextFile:
    """The lines of a file, without the newline that ends them.

    Args:
        path: Of the file; .gz and .bz2 are unpacked.
        max_bytes: What the file may unpack to.

    Attributes:
        number: Of the line that came last, from 1.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.number = 0
        self._max_bytes = integer("max_bytes", max_bytes, 1)

    def error(self, message: str, line: int | None = None) -> ProblemError:
        """Return an error that names the file and a line, the last one that came by default."""
        return ProblemError(f"{self.path}, line {max(1, self.number) if line is None else line}: {message}")

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines.

        Raises:
            FileNotFoundError: there is no such file.
            ProblemError: the file is too large, a line too long, or what is packed is broken.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"there is no file {self.path} to read a program from")
        rest = b""
        for block in self._blocks():
            lines = (rest + block).split(b"\n")
            if len(lines[0]) > _LONGEST:  # the others lie within a block, which is shorter
                raise self.error(f"a line of more than {_LONGEST} bytes isn't read", self.number + 1)
            rest = lines.pop()
            for line in lines:
                self.number += 1
                yield line
        if rest:
            self.number += 1
            yield rest

    def _blocks(self) -> Iterator[bytes]:
        size, opener = 0, _OPENERS.get(self.path.suffix)
        with self.path.open("rb") as plain:
            file = opener(plain, "rb") if opener else plain
            while True:
                try:
                    block = file.read(_BLOCK)
                except (EOFError, OSError, zlib.error) as error:
                    if opener is None:
                        raise
                    raise self.error(f"the file can't be unpacked beyond this line: {error}") from error
                if not block:
                    return
                if size == 0:
                    block = block.removeprefix(_BYTE_ORDER_MARK)
                size += len(block)
                if size > self._max_bytes:
                    raise self.error(
                        f"the file unpacks to more than max_bytes={self._max_bytes}; allow more if you trust it"
                    )
                yield block
