"""Services that see each other in the database, take turns, and hear of each other."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.peers import Peer
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs.peers import Peers
from reactorcide.store import Store
from reactorcide.store.hints import HintLine
from reactorcide.store.vault import Vault
from tests.integration.test_postgresql import allow, cut
from tests.support.postgresql import PostgreSQL, cluster
from tests.support.store import opened_again
from tests.support.waiting import wait_until

NOW_MS = 1_800_000_000_000


class Member(Peers):
    """A service among others, with connections of its own and a clock that the test sets."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.now = 1000.0 * number
        me = Peer(
            service_id=f"0000000{number}",
            session_id=f"session {number}",
            host=f"host-{number}",
            version="1",
            corndogs_address="csil://q",
            beat=0,
            worker="",
        )
        super().__init__(store, me, lambda: view(self.service_id), clock=lambda: self.now)

    def after(self, seconds: float) -> None:
        """Look after a time."""
        self.now += seconds
        self.look()

    def seen(self) -> list[str]:
        """Return the workers of the others."""
        return [item.worker_id for item in self.views()]


def view(service_id: str) -> WorkerView:
    return WorkerView(f"embedded-{service_id}", "host", 2, ("j",), NOW_MS, ("q",), 0, None)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgreSQL]:
    with closing(cluster().database(tmp_path / "x.db")) as database:
        yield database


@pytest.fixture
def members(database: PostgreSQL) -> Iterator[tuple[Member, Member]]:
    with closing(opened_again(database)) as other:
        vault = Vault.beside(database.path)
        members = Member(Store(database, vault), 1), Member(Store(other, vault), 2)
        for member in members:
            member.join()
        for member in members:
            member.look()
        yield members


def test_one_that_is_silent_loses_its_turns_and_comes_back(members: tuple[Member, Member]) -> None:
    first, second = members
    assert (first.seen(), second.seen()) == (["embedded-00000002"], ["embedded-00000001"])
    assert first.take("send", "a")
    assert first.take("send", "a")
    assert not second.take("send", "a")
    assert second.take("send", "b")
    assert (first.others("send"), second.others("send")) == (["b"], ["a"])
    second.after(19)
    first.look()
    second.after(19)
    second.after(19)
    assert second.others("send") == ["a"]
    second.after(2)
    assert (second.others("send"), second.are_there) == ([], False)
    assert second.take("send", "a")
    # It was paused, and finds itself removed.
    first.look()
    assert set(first.others("send")) == {"a", "b"}
    second.look()
    assert second.seen() == ["embedded-00000001"]
    second.give_back("send", "a")
    assert first.take("send", "a")


def test_an_outage_of_the_database_is_nobodys_silence(
    members: tuple[Member, Member], database: PostgreSQL
) -> None:
    first, second = members
    first.take("send", "a")
    second.after(15)
    allow(database.url, is_allowed=False)
    cut(database.url)
    try:
        with pytest.raises(StoreError):
            second.after(1)
    finally:
        allow(database.url, is_allowed=True)
    second.after(300)
    assert second.others("send") == ["a"]
    second.after(19)
    assert second.others("send") == ["a"]


def test_a_restart_gives_up_the_turns_of_the_process_before(members: tuple[Member, Member]) -> None:
    first, second = members
    first.take("send", "a")
    again = Member(first.store, 1)
    again.join()
    assert second.others("send") == []
    assert second.take("send", "a")


def test_of_many_that_want_a_turn_one_gets_it(members: tuple[Member, Member]) -> None:
    for key in map(str, range(20)):
        got: list[str] = []
        barrier = threading.Barrier(2)

        def take(member: Member, key: str = key, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            if member.take("send", key):
                got.append(member.service_id)  # noqa: B023  # the threads end within the loop

        threads = [threading.Thread(target=take, args=(member,)) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(got) == 1


def test_bad_tokens_are_counted_over_all(members: tuple[Member, Member]) -> None:
    stores = [member.store.bad_tokens for member in members]
    counts = [stores[n % 2].count("10.0.0.1", 3, now_ms=NOW_MS) for n in range(4)]
    assert counts == [3, 2, 1, 0]
    # A clock that is behind gives nobody more.
    assert stores[0].count("10.0.0.1", 3, now_ms=NOW_MS - 60_000) == 0
    assert stores[0].count("10.0.0.1", 3, now_ms=NOW_MS + 20_000) == 1
    assert stores[1].count("10.0.0.2", 3, now_ms=NOW_MS) == 3
    stores[0].forget_old(now_ms=NOW_MS + 80_001)
    assert stores[1].count("10.0.0.1", 3, now_ms=NOW_MS + 20_000) == 3


class Ear:
    """The hints that a service hears."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self.line = HintLine(url, self.heard.append, patience_s=0.2)

    def hears(self, hint: str) -> bool:
        """Return whether a hint has come."""
        return hint in self.heard


@pytest.fixture
def ears(database: PostgreSQL) -> Iterator[list[Ear]]:
    ears = [Ear(database.url) for _ in range(2)]
    for number, ear in enumerate(ears):
        ear.line.start(f"0000000{number}")
    yield ears
    for ear in ears:
        ear.line.stop(10)


def test_hints_come_to_the_others_also_after_an_outage(ears: list[Ear], database: PostgreSQL) -> None:
    one, other = ears
    many = [f"key {number} " + "x" * 200 for number in range(200)]
    for hint in many:
        one.line.send(hint)
    wait_until(lambda: all(map(other.hears, many)), 20, "all are heard")
    assert one.heard == []
    assert one.line.running() == {0, 1}
    cut(database.url)

    def comes_again() -> bool:
        # What is sent meanwhile may be lost.
        one.line.send("again")
        return other.hears("again")

    wait_until(comes_again, 20, "hints come again")
    wait_until(lambda: one.line.running() == {0, 1}, 20, "both hold their locks again")


def test_no_two_have_one_id(ears: list[Ear], database: PostgreSQL) -> None:
    twin = Ear(database.url)
    with pytest.raises(ConfigurationError, match="its data directory was copied; remove the file service-id"):
        twin.line.start("00000001")
    ears[1].line.stop(10)
    twin.line.start("00000001")
    twin.line.stop(10)
    twin.line.stop(10)
