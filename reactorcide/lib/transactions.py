"""Transactions of an SQLite database: one at a time, and one for all who wait."""

import logging
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar, cast

from reactorcide.lib.locks import FairLock
from reactorcide.lib.sizes import format_size

log = logging.getLogger("reactorcide.lib.transactions")

T = TypeVar("T")

Execute = Callable[..., sqlite3.Cursor]
"""Runs one statement of SQL on the connection that is written by, and returns its cursor."""


def reason(exc: Exception) -> str:
    """Return why SQLite failed: in its own words, with the limit of this process that may be the cause."""
    max_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if "disk I/O error" not in str(exc) or max_bytes == resource.RLIM_INFINITY:
        return str(exc)
    return f"{exc} (this process may write no file of more than {format_size(max_bytes)}: see ulimit -f)"


@contextmanager
def transaction(execute: Execute) -> Iterator[Execute]:
    """Run the body as one transaction, which is over when this returns.

    Not peewee's own: where SQLite has rolled back by itself, as on a full disk, that one fails at rolling
    back and so hides the reason.
    """
    execute("BEGIN IMMEDIATE")
    try:
        yield execute
        execute("COMMIT")
    except BaseException:
        with suppress(Exception):
            execute("ROLLBACK")
        raise


class GroupCommit:
    """Has one of the threads that wait to write do so for all of them, first come first served.

    A durable transaction takes a wait for the disk, and a wait for Python's lock: those who come while
    one is under way share the next. ``lock`` is held meanwhile.
    """

    def __init__(self, lock: FairLock, execute: Execute) -> None:
        self._lock = lock
        self._execute = execute
        self._guard = threading.Lock()
        self._waiting: list[_Waiter[Any]] = []
        self._is_led = False

    def run(self, statement: Callable[[], T]) -> T:
        """Return, or raise, what ``statement`` does; what it has written is on disk then.

        It is to run one statement of SQL, maybe on another thread, and maybe twice: what fails together
        is tried one by one, so that nobody fails for somebody else.
        """
        return self._run(_Waiter(statement))

    def run_transaction(self, work: Callable[[], T]) -> T:
        """Do as ``run`` with several statements of SQL, all of which count or none."""

        def alone() -> T:
            with transaction(self._execute):
                return work()

        return self._run(_Waiter(work, alone))

    def _run(self, waiter: "_Waiter[T]") -> T:
        with self._guard:
            self._waiting.append(waiter)
            leads, self._is_led = not self._is_led, True
        if not leads:
            waiter.turn.acquire()
        if not waiter.is_done:
            self._lead()
        if waiter.error is not None:
            raise waiter.error
        return cast(T, waiter.result)

    def _lead(self) -> None:
        with self._lock:
            # Not before: more have come while the lock was waited for.
            with self._guard:
                group, self._waiting = self._waiting, []
            self._commit(group)
        with self._guard:
            self._is_led = bool(self._waiting)
            if self._is_led:
                self._waiting[0].turn.release()
        for waiter in group:
            waiter.is_done = True
            waiter.turn.release()

    def _commit(self, group: list["_Waiter[Any]"]) -> None:
        if len(group) > 1:
            try:
                with transaction(self._execute):
                    for waiter in group:
                        waiter.result = waiter.work()
                return
            except Exception as exc:
                log.debug("%s writes failed together: %s", len(group), exc)
        for waiter in group:
            try:
                waiter.result = waiter.alone()
            except Exception as exc:
                waiter.error = exc


class _Waiter(Generic[T]):
    """One who waits, and is woken when it is done or is to lead."""

    def __init__(self, work: Callable[[], T], alone: Callable[[], T] | None = None) -> None:
        self.work = work
        self.alone = alone or work
        """What to do where there is no transaction with others."""
        self.is_done = False
        self.result: T | None = None
        self.error: Exception | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
