"""Ray actors as an executor."""

# its package isn't among the extra `all`, so that it is often not there
# pyright: reportMissingImports=false

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakSet

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE: Final = 1.0
"""Seconds that a call has to end which nobody waits for, before its actor is killed."""

_PAUSE: Final = 0.1
"""Seconds before an actor that isn't there is asked again."""

_LOOK: Final = 0.5
"""Seconds between looks at Ray while calls are open: none of them gets an answer once the program has shut it down."""

_LONG: Final = 60.0
"""Seconds without any actor after which calls that wait are told of."""

_logger = logging.getLogger("mapgrad")


class _Actor:
    """Calls functions one by one, in a process of its own."""

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def answer(self) -> None:
        """Show that it is there."""


class _Call(Future[Any]):
    """A call; one that runs is ended with its actor if it is cancelled and doesn't end by itself."""

    end: Callable[[], None]

    def cancel(self) -> bool:
        if super().cancel():
            return True
        if self.running():
            timer = threading.Timer(_GRACE, self._kill)
            timer.daemon = True
            timer.start()
        return False

    def _kill(self) -> None:
        if self.running():
            self.end()


class RayExecutor(Executor):
    """Calls of this program in Ray actors; see `mapgrad_ray.executor`.

    An actor has one call at a time, so that no other is lost when it dies, and Ray starts it anew each time. Whatever
    happens is an event, and one thread attends to all.
    """

    def __init__(self, actors: int, **options: Any) -> None:
        with _lock:
            if not ray.is_initialized():
                _connect(actors * options.get("num_cpus", 1))
            self.session = _session()
            _all.add(self)
        # in a Ray that is started here, actors of a second executor would wait for the CPUs of the first one's for ever
        started = _started.get(self.session)
        cpus = 0 if started is not None and started.is_local else 1
        kind: Any = ray.remote(max_restarts=-1, max_task_retries=0)(_Actor)
        self._needs = {"num_cpus": cpus} | options
        self._actors: list[Any] = [kind.options(**self._needs).remote() for _ in range(actors)]
        self._expected: float | None = time.monotonic() + _LONG
        self._idle: list[Any] = []
        self._alive = actors
        self._there = 0
        self._waiting: deque[tuple[_Call, Any]] = deque()
        self._open: set[_Call] = set()
        self._lock = threading.Lock()
        self._is_shut = False
        self._loss: BaseException | None = None
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="mapgrad_ray", daemon=True)
        for actor in self._actors:
            self._ask(actor)
        self._thread.start()

    @property
    def _max_workers(self) -> int:
        """How many actors Ray has started and not lost."""
        return max(1, self._there)

    @property
    def _broken(self) -> bool:
        """Whether all actors are lost for good, as they are with a Ray that the program shuts down."""
        if self._loss is None and _session() != self.session:
            self._loss = BrokenExecutor("Ray was shut down, and the actors of this executor with it")
        return self._loss is not None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have an actor call a function; what is large among its arguments goes through Ray's object store.

        Raises:
            BrokenExecutor: All actors are lost for good.
            RuntimeError: After `shutdown`.
        """
        call = _Call()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._require_actors()
            self._open.add(call)
        call.add_done_callback(self._open.discard)
        self._events.put(partial(self._take, call, (fn, args, kwargs)))
        return call

    def share(self, data: bytes) -> Callable[[], bytes]:
        """Return what returns these bytes in each actor, from the object store, which has them once a machine.

        Raises:
            BrokenExecutor: All actors are lost for good.
        """
        self._require_actors()  # what Ray is asked after its end starts it anew
        return partial(ray.get, ray.put(data))

    def _require_actors(self) -> None:
        if self._broken:
            raise BrokenExecutor("this executor takes no calls: its Ray actors are lost for good") from self._loss

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the actors once those are done that were taken."""
        with self._lock:
            if self._is_shut:
                return
            self._is_shut = True
            calls = list(self._open)
        if cancel_futures:
            for call in calls:
                Future.cancel(call)
        end = threading.Thread(target=self._end, args=(calls,), daemon=True)
        end.start()
        if wait:
            end.join()

    def _end(self, calls: list[_Call]) -> None:
        wait(calls)
        self.end()
        with _lock:
            _all.discard(self)
            if all(other.session != self.session for other in _all):
                _disconnect(self.session)

    def end(self) -> None:
        """Take no more calls, and end the actors, whatever they are at."""
        with self._lock:
            self._is_shut = True
        self._events.put(None)
        self._thread.join()
        for actor in self._actors:
            self._kill(actor)

    def _kill(self, actor: Any, *, no_restart: bool = True) -> None:
        if _session() == self.session:
            ray.kill(actor, no_restart=no_restart)

    def _serve(self) -> None:
        while True:
            event = _nothing
            with suppress(Empty):
                event = self._events.get(timeout=_LOOK if self._open else None)
            if event is None:
                return
            if self._broken:
                self._fail_all()
                continue
            try:
                event()
                if self._expected is not None and time.monotonic() > self._expected:
                    self._tell_of_no_actor()
            except Exception as error:  # noqa: BLE001 (Ray is shut down at this moment; nobody may wait for ever)
                self._loss = error
                self._fail_all()

    def _tell_of_no_actor(self) -> None:
        self._expected = None
        _logger.warning(
            "none of %d Ray actors has started within %g s, so that rows wait: has the cluster room for them? Each "
            "needs %s, and %s is free",
            len(self._actors),
            _LONG,
            self._needs,
            ray.available_resources(),
        )

    def _take(self, call: _Call, what: Any) -> None:
        self._waiting.append((call, what))
        self._match()

    def _match(self) -> None:
        """Give calls to idle actors."""
        while self._waiting and self._idle:
            call, what = self._waiting.popleft()
            if not call.set_running_or_notify_cancel():
                continue
            actor = self._idle.pop()
            call.end = partial(self._kill, actor, no_restart=False)
            try:
                answer = actor.call.remote(*what)
            except Exception as error:  # noqa: BLE001 (the call can't be pickled, or Ray is gone)
                call.set_exception(error)
                self._idle.append(actor)
                continue
            self._watch(answer, partial(self._finish, call, actor))

    def _watch(self, answer: Any, then: Callable[[Future[Any]], None]) -> None:
        answer.future().add_done_callback(lambda done: self._events.put(partial(then, done)))

    def _finish(self, call: _Call, actor: Any, done: Future[Any]) -> None:
        error = done.exception()
        if isinstance(error, RayActorError):
            self._there -= 1
            self._ask(actor)
        else:
            self._idle.append(actor)
        if error is None:
            call.set_result(done.result())
        else:
            call.set_exception(getattr(error, "cause", error) if isinstance(error, RayTaskError) else error)
        self._match()

    def _ask(self, actor: Any) -> None:
        """Wait until an actor is there."""
        self._watch(actor.answer.remote(), partial(self._greet, actor))

    def _greet(self, actor: Any, done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            self._there += 1
            self._expected = None
            self._idle.append(actor)
        elif isinstance(error, ActorDiedError):  # for good: this package isn't there, for one
            self._alive -= 1
            if self._alive == 0:
                self._loss = error
                self._fail_all()
        else:
            timer = threading.Timer(_PAUSE, self._events.put, [partial(self._ask, actor)])
            timer.daemon = True
            timer.start()
        self._match()

    def _fail_all(self) -> None:
        """Fail all calls, as no actor is left."""
        self._waiting.clear()
        for call in list(self._open):
            if call.running() or call.set_running_or_notify_cancel():
                call.set_exception(self._loss)


class _Started(NamedTuple):
    """A connection to Ray that was made here.

    Attributes:
        is_local: Whether Ray itself was started, too.
        is_over: Set once it is cut.
    """

    is_local: bool
    is_over: threading.Event


_all: Final[WeakSet[RayExecutor]] = WeakSet()
"""Those that aren't shut down."""

_started: Final[dict[tuple[str, str] | None, _Started]] = {}
"""By session; the last executor of one cuts it."""

_lock: Final = threading.Lock()
"""Held while a connection is made or cut."""


@atexit.register  # after Ray, whose own end comes later therefore
def _end_all() -> None:
    """End all actors while Ray is there, which a call after its end would start again."""
    for executor in list(_all):
        executor.end()


def _nothing() -> None:
    """Do nothing: it was time for a look at Ray."""


def _session() -> tuple[str, str] | None:
    """Return what tells the Ray that this program is connected to from others; None where it is to none."""
    with suppress(Exception):  # it is shut down at this moment
        if ray.is_initialized():
            context = ray.get_runtime_context()
            return context.get_job_id(), context.get_node_id()
    return None


def _connect(cpus: float) -> None:
    """Connect to Ray, in a thread that stays: on Linux, what is started ends with the thread that has started it."""
    if threading.current_thread() is threading.main_thread():
        _start(cpus)
        return
    done: Future[None] = Future()
    threading.Thread(target=_start_and_stay, args=(cpus, done), name="mapgrad_ray_start", daemon=True).start()
    done.result()


def _start_and_stay(cpus: float, done: Future[None]) -> None:
    try:
        started = _start(cpus)
    except BaseException as error:  # noqa: BLE001 (raised by who waits)
        done.set_exception(error)
        return
    done.set_result(None)
    started.is_over.wait()


def _start(cpus: float) -> _Started:
    is_local = False
    try:
        ray.init(address="auto")
    except ConnectionError:
        ray.init(address="local", num_cpus=math.ceil(cpus), include_dashboard=False)
        is_local = True
    started = _started[_session()] = _Started(is_local, threading.Event())
    return started


def _disconnect(session: tuple[str, str] | None) -> None:
    started = _started.pop(session, None)
    if started is not None:
        if _session() == session:
            ray.shutdown()
        started.is_over.set()


def from_text(text: str) -> RayExecutor:
    """Return the executor that users name as ``"ray:8"``.

    Raises:
        ValueError: There is no number of actors.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise ValueError(f'expected a number of actors, as in "ray:8", got "ray:{text}"')
    return RayExecutor(int(text))
