"""Starting threads, and threads that users share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from reactorcide.domain.errors import InfrastructureError
from reactorcide.threads import ThreadsByKey, start_thread


class Waiting(ThreadsByKey):
    """Threads that wait until they may end."""

    def __init__(self, max_threads: int) -> None:
        super().__init__(max_threads)
        self.goes_on = threading.Event()

    def started(self, user_id: str, *, is_retry: bool = False) -> int:
        """Start as many threads as a user gets, and return how many these are."""
        count = 0
        while self.start(f"{user_id} {count} {is_retry}", user_id, self._wait, "waits", is_retry=is_retry):
            count += 1
        return count

    def _wait(self) -> None:
        self.goes_on.wait(20)


@contextmanager
def waiting(max_threads: int) -> Iterator[Waiting]:
    threads = Waiting(max_threads)
    try:
        yield threads
    finally:
        threads.goes_on.set()
        threads.stop(monotonic() + 10)
    assert threads.keys() == []


def test_each_user_gets_at_most_half_of_the_free_threads() -> None:
    with waiting(16) as threads:
        assert [threads.started(user_id) for user_id in "abcdef"] == [8, 4, 2, 1, 1, 0]
        assert threads.is_full
        assert sorted(threads.full_users(is_retry=False)) == list("abcde")


def test_retries_of_a_user_leave_threads_to_first_tries_and_to_retries_of_others() -> None:
    with waiting(16) as threads:
        assert threads.started("a", is_retry=True) == 4
        assert (threads.full_users(is_retry=True), threads.full_users(is_retry=False)) == (["a"], [])
        assert threads.started("b", is_retry=True) == 2
        assert threads.started("a") == 3
        assert threads.started("c") == 4


def test_key_has_one_thread_and_a_few_threads_still_serve_one_user() -> None:
    with waiting(1) as threads:
        assert threads.start("k", "a", threads._wait, "waits")
        assert not threads.start("k", "a", threads._wait, "waits")
        assert not threads.start("l", "b", threads._wait, "waits")


def test_thread_that_dies_before_it_begins_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.threads._START_S", 0.2)
    with monkeypatch.context() as patch:
        # As if Python itself had failed in the new thread.
        patch.setattr(threading.Thread, "_bootstrap", lambda thread: None)
        with pytest.raises(InfrastructureError, match="no thread can be started"):
            start_thread(lambda: None, "test")
    begun = threading.Event()
    start_thread(begun.set, "test")
    assert begun.wait(20)


def test_thread_that_begins_after_it_was_given_up_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, calls = threading.Event(), []
    bootstrap, over = threading.Thread._bootstrap, threading.Event()  # type: ignore[attr-defined]  # Python's own

    def late(thread: threading.Thread) -> None:
        goes_on.wait(20)
        bootstrap(thread)
        over.set()

    monkeypatch.setattr("reactorcide.threads._START_S", 0.2)
    monkeypatch.setattr(threading.Thread, "_bootstrap", late)
    with pytest.raises(InfrastructureError):
        start_thread(lambda: calls.append("called"), "test")
    goes_on.set()
    assert over.wait(20)
    assert calls == []
