"""The fair lock: one at a time, in the order of asking."""

import threading
from functools import partial

from reactorcide.lib.locks import FairLock
from tests.support.waiting import wait_until


def test_threads_get_it_one_by_one_in_the_order_in_which_they_asked() -> None:
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


def test_it_excludes() -> None:
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


def test_an_error_in_the_body_gives_it_back() -> None:
    lock = FairLock()
    for _ in range(2):
        try:
            with lock:
                raise KeyError
        except KeyError:
            pass


def test_whoever_will_not_wait_gets_it_only_when_it_is_free() -> None:
    lock = FairLock()
    assert lock.enter_if_free()
    assert not lock.enter_if_free()
    lock.__exit__()
    with lock:
        assert not lock.enter_if_free()
    assert lock.enter_if_free()
