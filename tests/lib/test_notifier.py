"""Wake-ups by key."""

import threading

from reactorcide.lib.notifier import LocalNotifier


def test_only_watchers_of_the_key_are_woken() -> None:
    notifier = LocalNotifier()
    with notifier.watching("a") as first, notifier.watching("a") as second, notifier.watching("b") as other:
        notifier.announce("a")
        assert first.is_set()
        assert second.is_set()
        assert not other.is_set()


def test_watcher_can_watch_several_keys() -> None:
    notifier = LocalNotifier()
    with notifier.watching("a", "b") as event:
        for key in ("a", "b"):
            notifier.announce(key)
            assert event.is_set()
            event.clear()
    assert notifier._watchers == {}


def test_announcing_without_watchers_stores_nothing() -> None:
    notifier = LocalNotifier()
    notifier.announce("a")
    with notifier.watching("a") as event:
        assert not event.is_set()
    assert notifier._watchers == {}


def test_close_wakes_all_present_and_later_watchers() -> None:
    notifier = LocalNotifier()
    woken = threading.Event()

    def watch() -> None:
        with notifier.watching("a") as event:
            watching.set()
            event.wait(30)
            woken.set()

    watching = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    watching.wait(30)
    notifier.close()
    thread.join()
    assert woken.is_set()
    assert notifier.closed
    with notifier.watching("b") as event:
        assert event.is_set()
