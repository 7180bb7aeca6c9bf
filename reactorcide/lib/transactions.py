"""Transactions of an SQLite database, and group commit over any database."""

import logging
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar, cast

from reactorcide.lib.locks import FairLock
from reactorcide.lib.sizes import format_size

log = logging.getLogger("reactorcide.lib.transactions")

T = TypeVar("T")

Execute = Callable[..., sqlite3.Cursor]
"""Runs one SQL statement on the connection for writing, and returns its cursor."""


def reason(exc: Exception) -> str:
    """Return SQLite's error message, with what may be the cause of it, or what to do."""
    if "not a database" in str(exc) or "disk image is malformed" in str(exc):
        return f"{exc}; put back a copy of it, as from a backup"
    max_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if "disk I/O error" not in str(exc) or max_bytes == resource.RLIM_INFINITY:
        return str(exc)
    return f"{exc} (this process may write no file of more than {format_size(max_bytes)}: see ulimit -f)"


@contextmanager
def transaction(execute: Execute) -> Iterator[Execute]:
    """Run the body as one transaction, which has ended when this returns.

    Not peewee's own: if SQLite has rolled back by itself, as on a full disk, peewee's rollback fails and
    hides the reason.
    """
    execute("BEGIN IMMEDIATE")
    try:
        yield execute
        execute("COMMIT")
    except BaseException:
        with suppress(Exception):
            execute("ROLLBACK")
        raise


class OutcomeUnknownError(Exception):
    """Whether a transaction was committed is not known, so that it must not be tried again."""


class GroupCommit:
    """Group commit: one waiting writer commits for all, first come first served.

    A durable transaction waits for the disk and for Python's lock. Writers that arrive meanwhile share the
    next transaction. ``lock`` is held during a commit. ``begin`` runs its body as one transaction; by default
    one of SQLite, by ``execute``.
    """

    def __init__(
        self,
        lock: FairLock,
        execute: Execute,
        begin: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self._lock = lock
        self._begin = begin or (lambda: transaction(execute))
        self._guard = threading.Lock()
        self._waiting: list[_Waiter[Any]] = []
        self._has_leader = False

    def run(self, statement: Callable[[], T]) -> T:
        """Return or raise what ``statement`` does; its writes are on disk when this returns.

        ``statement`` runs one SQL statement. It may be called on another thread, and twice: if a group fails,
        each of its statements is tried alone, so that none fails because of another.
        """
        return self._run(_Waiter(statement))

    def run_transaction(self, work: Callable[[], T]) -> T:
        """Do the same as ``run`` for several SQL statements: all of them take effect, or none."""

        def alone() -> T:
            return self._alone(work)

        return self._run(_Waiter(work, alone))

    def _alone(self, work: Callable[[], T]) -> T:
        with self._begin():
            return work()

    def _run(self, waiter: "_Waiter[T]") -> T:
        with self._guard:
            self._waiting.append(waiter)
            leads, self._has_leader = not self._has_leader, True
        if not leads:
            waiter.turn.acquire()
        if not waiter.is_done:
            self._lead()
        if waiter.error is not None:
            raise waiter.error
        return cast(T, waiter.result)

    def _lead(self) -> None:
        with self._lock:
            # Only now: more writers have arrived during the wait for the lock.
            with self._guard:
                group, self._waiting = self._waiting, []
            self._commit(group)
        with self._guard:
            self._has_leader = bool(self._waiting)
            if self._has_leader:
                self._waiting[0].turn.release()
        for waiter in group:
            waiter.is_done = True
            waiter.turn.release()

    def _commit(self, group: list["_Waiter[Any]"]) -> None:
        if len(group) > 1:
            try:
                with self._begin():
                    for waiter in group:
                        waiter.result = waiter.work()
                return
            except OutcomeUnknownError as exc:
                for waiter in group:
                    waiter.error = exc
                return
            except Exception as exc:
                log.debug("%s writes failed together: %s", len(group), exc)
        for waiter in group:
            try:
                waiter.result = waiter.alone()
            except Exception as exc:
                waiter.error = exc


class _Waiter(Generic[T]):
    """A waiting writer; it is woken when its work is done, or to lead the next group."""

    def __init__(self, work: Callable[[], T], alone: Callable[[], T] | None = None) -> None:
        self.work = work
        self.alone = alone or work
        """The call that does the work without a shared transaction."""
        self.is_done = False
        self.result: T | None = None
        self.error: Exception | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
