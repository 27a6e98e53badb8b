"""What a solver raised, without what it holds on to: no frames, no endless text."""

from __future__ import annotations

import pickle
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_OURS: Final = ("mapgrad.batching.", "mapgrad.workers.", "mapgrad.solvers.")
_HEADING: Final = "Traceback (most recent call last):\n"
_FRAMES_SHOWN: Final = 8
_CHARACTERS: Final = 1_000
_BYTES: Final = 4_000
"""To which an error's texts are cut, and above which it isn't sent to another process."""


def frames_of(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Return the frames that an error went through, each with its line, from the caller inwards."""
    return traceback.walk_tb(error.__traceback__)


def detach(error: BaseException) -> None:
    """Take the frames and long texts from an error and those behind it, and note in words where they were raised.

    A traceback holds its frames, they hold all frames that called them, and these hold whatever the error is going to
    be kept in: a circle that only the garbage collector would free, with the batch in it. What the caller itself
    handles at this moment isn't touched, and no longer stands behind the error.
    """
    outer = sys.exc_info()[1]
    outer = None if outer is error else outer
    seen: set[int] = {id(None), id(outer)}
    rest: list[BaseException | None] = [error]
    while rest:
        each = rest.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if each.__context__ is outer:
            _set(each, "__context__", None)
        rest += [each.__cause__, each.__context__]
        is_group = isinstance(cast("object", each), BaseExceptionGroup)
        rest += getattr(each, "exceptions", ()) if is_group else ()
        with suppress(Exception):  # an error's class may forbid it
            _cut_texts(each)
            _note_frames(each)
        _set(each, "__traceback__", None)


_set: Final = BaseException.__setattr__  # a class of errors may have one of its own that refuses, as frozen ones do


def _cut_texts(error: BaseException) -> None:
    """Cut long texts: each of many rows may bring one, such as an engine's whole log."""
    if any(isinstance(text, str | bytes) and len(text) > _BYTES for text in error.args):
        _set(error, "args", tuple(_cut(argument, _BYTES) for argument in error.args))
    notes = getattr(error, "__notes__", None)
    if notes:
        notes[:] = [_cut(note, _BYTES) for note in notes]


def _cut(text: Any, length: int) -> Any:
    if not isinstance(text, str | bytes) or len(text) <= length:
        return text
    return text[:length] + " …" if isinstance(text, str) else text[:length] + b" ..."


def _note_frames(error: BaseException) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        trace = trace.tb_next
    notes = getattr(error, "__notes__", [])
    if trace is None or any(isinstance(note, str) and note.startswith(_HEADING) for note in notes):
        return
    error.add_note(_HEADING + "".join(traceback.format_tb(trace, limit=-_FRAMES_SHOWN)).rstrip())


def text_of(error: BaseException) -> str:
    """Return an error's class and message, the latter cut to 1,000 characters; never raises."""
    try:
        message = str(error)
    except BaseException as wrong:  # noqa: BLE001 (a solver's own class of errors)
        message = f"(its message can't be read: {type(wrong).__name__})"
    return f"{type(error).__name__}: {_cut(message, _CHARACTERS)}"


class Portable(NamedTuple):
    """An error on its way to another process.

    Attributes:
        data: Itself, pickled; empty where pickle refuses, makes something else of it, or it is long.
        text: Its class and message, for a process that can't make it.
        notes: Its notes, likewise.
    """

    data: bytes
    text: str
    notes: tuple[str, ...]

    def opened(self) -> BaseException:
        """Return the error, or its text where its class has no place in this process."""
        with suppress(Exception):  # unpickling runs the error class's own code
            error: Any = pickle.loads(self.data)
            if isinstance(error, BaseException):
                return error
        plain = RuntimeError(self.text)
        for note in self.notes:
            plain.add_note(note)
        return plain


def portable(error: BaseException) -> Portable:
    """Return what stands for an error on its way to another process."""
    detach(error)
    data = b""
    with suppress(BaseException):  # pickling runs the error class's own code, which had better fail here than there
        pickled = pickle.dumps(error)
        if len(pickled) <= _BYTES and isinstance(pickle.loads(pickled), BaseException):
            data = pickled
    notes = tuple(note for note in getattr(error, "__notes__", ()) if isinstance(note, str))
    return Portable(data, text_of(error), notes)
