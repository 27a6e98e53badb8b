"""What a plugin says of a kind of executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


@dataclass(frozen=True)
class ExecutorSpec:
    """What a plugin says of a kind of executor before anything heavy is imported.

    Users name it, and what it is to know after a colon: ``workers="ray:8"``; or they give what stands for it, such as a
    cluster's client. It is started when there are rows, and shut down with the solver or the `Workers` that named it.

    Attributes:
        name: Name within the plugin. The full name is ``plugin.name``, or ``plugin`` where both are the same.
        factory: What makes the executor, as ``"module:name"``, imported on first use, or itself: it gets the text after
            the colon, or an object of `takes`, and returns a `concurrent.futures.Executor`. That one's `_max_workers`,
            which may change, says how many workers there are. Where it has a method ``share``, which takes bytes and
            returns a function, picklable and small, that returns them in each worker, solvers with their problems go
            that way.
        takes: Classes, as ``"module.Class"``, whose objects users may give in place of a name; they stay the users'.
        requires: Importable packages that must be there.
        install: The command that installs them.
        usage: What users write, such as ``"ray:8"``, for messages.
    """

    name: str
    factory: str | Callable[[Any], Executor]
    takes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    install: str = ""
    usage: str = ""
