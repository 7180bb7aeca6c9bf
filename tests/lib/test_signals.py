"""Wake-ups by key."""

import threading

from reactorcide.lib.signals import Signals


def test_only_those_who_watch_the_key_are_woken() -> None:
    signals = Signals()
    with signals.watching("a") as first, signals.watching("a") as second, signals.watching("b") as other:
        signals.announce("a")
        assert first.is_set()
        assert second.is_set()
        assert not other.is_set()


def test_several_keys_are_watched_at_once() -> None:
    signals = Signals()
    with signals.watching("a", "b") as event:
        for key in ("a", "b"):
            signals.announce(key)
            assert event.is_set()
            event.clear()
    assert signals._watchers == {}


def test_announcing_to_nobody_is_nothing_and_nobody_is_remembered() -> None:
    signals = Signals()
    signals.announce("a")
    with signals.watching("a") as event:
        assert not event.is_set()
    assert signals._watchers == {}


def test_closing_wakes_everybody_now_and_later() -> None:
    signals = Signals()
    woken = threading.Event()

    def watch() -> None:
        with signals.watching("a") as event:
            watching.set()
            event.wait(30)
            woken.set()

    watching = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    watching.wait(30)
    signals.close()
    thread.join()
    assert woken.is_set()
    assert signals.closed
    with signals.watching("b") as event:
        assert event.is_set()
