"""Locks that survive a fork: a child starts with all of them free, whoever held them in the parent."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class _Forkable(Protocol):
    def after_fork(self) -> None: ...


_locks: Final[WeakSet[Any]] = WeakSet()
_forkables: Final[WeakSet[_Forkable]] = WeakSet()
_inherited: Final[list[object]] = []


def new_lock() -> AbstractContextManager[bool]:
    """Return a free lock that is free in every forked child, too.

    It is reentrant, since a finalizer or a signal handler may run in the thread that holds it.
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def new_condition() -> threading.Condition:
    """Return a condition whose lock is one of `new_lock`'s kind; in a forked child nobody waits for it."""
    condition = threading.Condition()
    _locks.add(condition)
    return condition


def without_forks() -> AbstractContextManager[bool]:
    """Return a lock for which forks of this process wait.

    Hold it, briefly, where descriptors are open that must not be open in a child as well: whoever waits for the end of
    a process at the other end of one would wait for the end of the child, too.
    """
    return _no_forks


def call_after_fork(owner: _Forkable) -> None:
    """Have ``owner.after_fork()`` called in every forked child, once all locks are free; `owner` isn't kept alive."""
    _forkables.add(owner)


def keep_inherited(value: object) -> None:
    """Keep what a forked child must neither use nor free, as it belongs to the parent, for the child's whole life."""
    _inherited.append(value)


def _after_fork() -> None:
    for lock in _locks:
        lock._at_fork_reinit()  # noqa: SLF001 (there is no public way; the standard library's locks rely on it, too)
    for owner in list(_forkables):
        owner.after_fork()


_no_forks: Final = threading.RLock()
_locks.add(_no_forks)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_no_forks.acquire, after_in_parent=_no_forks.release, after_in_child=_after_fork)
