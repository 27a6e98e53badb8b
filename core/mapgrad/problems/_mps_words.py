"""The words in a section of an MPS file, and what is said of wrong ones."""

from __future__ import annotations

import math
from math import isfinite
from typing import TYPE_CHECKING

from mapgrad.problems._file_model import INFINITE

if TYPE_CHECKING:
    from mapgrad.errors import ProblemError
    from mapgrad.problems._text_file import TextFile


def shown(name: bytes) -> str:
    """Return a name as messages show it."""
    return repr(name.decode(errors="backslashreplace"))


class MpsWords:
    """Where the reader of a file is, for messages to say it.

    Attributes:
        file: What is read.
        sections: Those that were opened, with the name of the set in them.
        section: The last one.
    """

    def __init__(self, file: TextFile) -> None:
        self.file = file
        self.sections: dict[bytes, bytes | None] = {}
        self.section = b""

    def number(self, word: bytes, may_be_infinite: bool = False) -> float:
        """Return the number that a word is; in MPS files numbers from 1e20 on stand for infinity.

        Raises:
            ProblemError: it isn't a number, or is infinite where it mustn't be.
        """
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if math.isnan(value) or b"_" in word or not (may_be_infinite or isfinite(value)):
            raise self.file.error(f"expected a {'' if may_be_infinite else 'finite '}number, got {shown(word)}")
        return math.copysign(math.inf, value) if may_be_infinite and abs(value) >= INFINITE else value

    def known(self, names: dict[bytes, int], kind: str, name: bytes) -> int:
        """Return the number of a row or column.

        Raises:
            ProblemError: there is none of this name.
        """
        try:
            return names[name]
        except KeyError:
            raise self.file.error(f"there is no {kind} {shown(name)}") from None

    def check_set(self, name: bytes) -> None:
        """Raise ProblemError if another set has begun in this section."""
        first = self.sections[self.section]
        if first is None:
            self.sections[self.section] = name
        elif first != name:
            raise self.file.error(
                f"{self.section.decode()} has a second set, {shown(name)} after {shown(first)}: one can be read"
            )

    def twice(self, what: str, name: bytes) -> ProblemError:
        """Return the error about what is there already."""
        return self.file.error(f"{what} {shown(name)} is given a second time")

    def miscounted(self, words: list[bytes], expected: str) -> ProblemError:
        """Return the error about a line of another length than expected."""
        return self.file.error(
            f"{self.section.decode()} expects {expected}, got {len(words)} words; names with spaces aren't read"
        )
