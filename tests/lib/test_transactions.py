"""Transactions: whole or not at all, and shared by those who wait."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from reactorcide.lib.locks import FairLock
from reactorcide.lib.transactions import GroupCommit, transaction
from tests.support.waiting import wait_until


class Numbers:
    """A table of different numbers, and all that is done to it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.verbs: list[str] = []
        self.lock = FairLock()
        self.group = GroupCommit(self.lock, self.execute)
        self.execute("CREATE TABLE numbers (number INTEGER UNIQUE)")
        self.verbs.clear()

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        self.verbs.append(sql.partition(" ")[0])
        return self.connection.execute(sql, values)

    def insert(self, number: object) -> int:
        return self.execute("INSERT INTO numbers VALUES (?)", number).rowcount

    def all(self) -> list[int]:
        return [number for (number,) in self.connection.execute("SELECT number FROM numbers")]

    @contextmanager
    def together(self, *statements: Callable[[], int]) -> Iterator[list["Future[int]"]]:
        """Have each statement wait on a thread of its own, in this order, until the body ends."""
        with ThreadPoolExecutor(len(statements)) as pool, self.lock:
            futures = []
            for statement in statements:
                futures.append(pool.submit(self.group.run, statement))
                wait_until(lambda: len(self.group._waiting) == len(futures), 20, "it waits")
            yield futures


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[Numbers]:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)) as opened:
        yield Numbers(opened)


def test_transaction_is_atomic(numbers: Numbers) -> None:
    with transaction(numbers.execute) as execute:
        execute("INSERT INTO numbers VALUES (1), (2)")
    with pytest.raises(ZeroDivisionError), transaction(numbers.execute):
        numbers.insert(3 // (numbers.insert(3) - 1))
    assert numbers.all() == [1, 2]


def test_a_lost_transaction_raises_its_reason(numbers: Numbers) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"), transaction(numbers.execute) as execute:
        # As SQLite does by itself on a full disk.
        execute("INSERT OR ROLLBACK INTO numbers VALUES (1), (1)")


def test_single_write_is_its_own_transaction(numbers: Numbers) -> None:
    assert numbers.group.run(lambda: numbers.insert(1)) == 1
    assert numbers.verbs == ["INSERT"]
    with pytest.raises(sqlite3.IntegrityError):
        numbers.group.run(lambda: numbers.insert(1))
    assert numbers.group.run(lambda: numbers.insert(2)) == 1


def test_waiting_writes_share_a_transaction_in_order(numbers: Numbers) -> None:
    with numbers.together(*(partial(numbers.insert, number) for number in (3, 1, 2))) as futures:
        assert numbers.all() == []
    assert [future.result() for future in futures] == [1, 1, 1]
    assert numbers.all() == [3, 1, 2]
    assert numbers.verbs == ["BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("INSERT INTO numbers VALUES (1)", sqlite3.IntegrityError),
        ("INSERT OR ROLLBACK INTO numbers VALUES (1)", sqlite3.IntegrityError),
        ("nonsense", sqlite3.OperationalError),
    ],
)
def test_failing_write_does_not_fail_others(numbers: Numbers, bad: str, error: type[Exception]) -> None:
    numbers.insert(1)
    with numbers.together(
        lambda: numbers.insert(2), lambda: numbers.execute(bad).rowcount, lambda: numbers.insert(3)
    ) as futures:
        pass
    assert (futures[0].result(), futures[2].result()) == (1, 1)
    with pytest.raises(error):
        futures[1].result()
    assert numbers.all() == [1, 2, 3]


def test_several_statements_of_a_single_write_are_atomic(numbers: Numbers) -> None:
    def insert(*all_of: int) -> int:
        return sum(map(numbers.insert, all_of))

    assert numbers.group.run_transaction(lambda: insert(1, 2)) == 2
    assert numbers.verbs == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    with pytest.raises(sqlite3.IntegrityError):
        numbers.group.run_transaction(lambda: insert(3, 1))
    assert numbers.all() == [1, 2]


def test_failing_write_in_a_group_is_rolled_back_alone(numbers: Numbers) -> None:
    numbers.insert(1)

    def insert_two() -> int:
        return numbers.insert(4) + numbers.insert(1)

    with ThreadPoolExecutor(3) as pool, numbers.lock:
        futures = []
        for work in (partial(numbers.insert, 2), insert_two, partial(numbers.insert, 3)):
            futures.append(pool.submit(numbers.group.run_transaction, work))
            wait_until(lambda: len(numbers.group._waiting) == len(futures), 20, "it waits")
    assert (futures[0].result(), futures[2].result()) == (1, 1)
    with pytest.raises(sqlite3.IntegrityError):
        futures[1].result()
    assert numbers.all() == [1, 2, 3]


def test_writes_during_a_commit_join_the_next_transaction(numbers: Numbers) -> None:
    is_under_way, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        is_under_way.set()
        assert go_on.wait(20)
        return numbers.insert(1)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(numbers.group.run, slow)
        assert is_under_way.wait(20)
        rest = [pool.submit(numbers.group.run, partial(numbers.insert, number)) for number in (2, 3)]
        wait_until(lambda: len(numbers.group._waiting) == 2, 20, "both wait")
        go_on.set()
        assert [future.result() for future in (first, *rest)] == [1, 1, 1]
    assert numbers.verbs == ["INSERT", "BEGIN", "INSERT", "INSERT", "COMMIT"]


def test_concurrent_threads_lose_no_write(numbers: Numbers) -> None:
    def write(thread: int) -> int:
        return sum(numbers.group.run(partial(numbers.insert, number)) for number in range(thread, 2000, 8))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 2000
    assert sorted(numbers.all()) == list(range(2000))
