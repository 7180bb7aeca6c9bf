"""What the rest of the store asks of a database, whichever it is.

SQL is written once, in the words that SQLite and PostgreSQL share, with ``?`` for values. What only one of
them understands is in ``database`` (SQLite) or ``postgresql``.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from peewee import IntegrityError, PeeweeException

from reactorcide.domain.errors import StoreError
from reactorcide.lib.transactions import OutcomeUnknownError, reason

MIGRATIONS_DIR = Path(__file__).parent / "migrations"

T = TypeVar("T")


def indexed_by(index: str) -> str:
    """Return the SQL after a table's name that selects an index, because SQLite has no statistics here.

    PostgreSQL has, and leaves it out.
    """
    return f"INDEXED BY {index}"


def migration_names() -> list[str]:
    """Return the names of all migrations of this version, in their order."""
    return sorted(path.stem for path in MIGRATIONS_DIR.glob("[0-9]*.py"))


class Connection(ABC):
    """The target of reads and writes: a database, or an open transaction on one."""

    def __init__(self, peewee: Any) -> None:
        self._peewee = peewee

    @contextmanager
    def read(self) -> Iterator[Any]:
        """Run the body's queries on this thread's connection.

        Raises ``StoreError`` if the database cannot answer.
        """
        try:
            yield self._peewee
        except (PeeweeException, sqlite3.Error) as exc:
            raise StoreError(f"the job database could not be read: {reason(exc)}") from exc

    @abstractmethod
    def write(self, work: Callable[[Any], T]) -> T:
        """Call ``work`` with the target of its writes, and return its result."""

    @abstractmethod
    def write_apart(self, work: Callable[[Any], T], *, is_durable: bool = True) -> T:
        """Do the same as ``write`` where ``work`` locks all that it depends on: other writers do not wait.

        Unless it is to be durable, a crash of the database server may lose it and those after it, until one
        that is durable; a crash of this process loses nothing.
        """

    @abstractmethod
    def write_if_free(self, sql: str, values: Sequence[object]) -> bool:
        """Run one statement unless it would have to wait; returns whether it was run."""


class OpenTransaction(Connection):
    """The open transaction of this thread. Its writes are durable after the commit."""

    def __init__(self, peewee: Any, is_open: Callable[[], bool]) -> None:
        super().__init__(peewee)
        self._is_open = is_open

    def write(self, work: Callable[[Any], T]) -> T:
        """Return the result of ``work``, which is part of this transaction."""
        if not self._is_open():
            raise RuntimeError("the transaction is over: nothing can be written on its tx any more")
        return work(self._peewee)

    def write_apart(self, work: Callable[[Any], T], *, is_durable: bool = True) -> T:
        """Return the result of ``work``, which is part of this transaction."""
        return self.write(work)

    def write_if_free(self, sql: str, values: Sequence[object]) -> bool:
        """Run one statement as part of this transaction."""
        self.execute(sql, values)
        return True

    def execute(self, sql: str, values: Sequence[object] = ()) -> Any:
        """Run one statement as part of this transaction, and return its cursor."""
        return self.write(lambda db: db.execute_sql(sql, values))


class JobDatabase(Connection):
    """A job database. Thread-safe. One transaction at a time writes, on all connections together.

    So what a transaction has read stays true until it commits, and the numbers of rows, such as those of
    status changes, are in the order of the commits.
    """

    open_transaction: OpenTransaction
    """The open transaction of the calling thread."""

    @abstractmethod
    def migrate(self) -> list[str]:
        """Create the schema, or apply the missing migrations, and return their names; safe to repeat.

        Raises ``ConfigurationError`` if the database cannot be used, or is one of a newer version.
        """

    @abstractmethod
    def transaction(self) -> AbstractContextManager[OpenTransaction]:
        """Run the body as one transaction that is durable when this returns.

        Raises ``StoreError`` if the database cannot do it; then nothing of the body has happened.
        """

    @abstractmethod
    def continue_numbers(self, last: Mapping[tuple[str, str], int]) -> None:
        """Number further rows from after these on, by table and column; part of the open transaction."""

    @abstractmethod
    def shrink(self) -> None:
        """Remove overwritten and deleted data from the files. Raises as ``write``."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``StoreError`` unless the database takes a write (rolled back at once)."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; safe to repeat. No query may be running."""

    @staticmethod
    def migrations() -> set[str]:
        """Return the names of the migrations that this version can apply."""
        return set(migration_names())


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of a write into ``StoreError``, except those that callers expect."""
    try:
        yield
    except IntegrityError:
        raise
    except OutcomeUnknownError as exc:
        raise StoreError(str(exc)) from exc
    except (PeeweeException, sqlite3.Error) as exc:
        raise StoreError(f"the job database could not be written: {reason(exc)}") from exc
