"""The fair lock: one at a time, in the order of asking."""

import threading
from functools import partial

from reactorcide.lib.locks import FairLock
from tests.support.waiting import wait_until


def test_threads_acquire_the_lock_in_order_of_request() -> None:
    lock = FairLock()
    order: list[int] = []
    threads = []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    def queued(threads: int) -> bool:
        return len(lock._waiting) == threads

    with lock:
        for number in range(20):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            wait_until(partial(queued, number + 1), 20, "the thread to queue up")
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_lock_excludes_other_threads() -> None:
    lock = FairLock()
    total = 0

    def add() -> None:
        nonlocal total
        for _ in range(2000):
            with lock:
                before = total
                total = before + 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 16_000


def test_error_in_the_body_releases_the_lock() -> None:
    lock = FairLock()
    for _ in range(2):
        try:
            with lock:
                raise KeyError
        except KeyError:
            pass


def test_non_blocking_acquire_succeeds_only_on_a_free_lock() -> None:
    lock = FairLock()
    assert lock.enter_if_free()
    assert not lock.enter_if_free()
    lock.__exit__()
    with lock:
        assert not lock.enter_if_free()
    assert lock.enter_if_free()
