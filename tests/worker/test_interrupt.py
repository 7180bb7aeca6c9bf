"""Telling an attempt that it must end, while it waits for something else."""

import threading
from time import monotonic

from reactorcide.worker.interrupt import Interrupt, Reason

LONG_S = 60.0


def ends_early(interrupt: Interrupt, reason: Reason) -> bool:
    """Set the interrupt while an attempt pauses; tells whether the pause has ended by that."""
    waiting = threading.Event()

    def pause() -> None:
        waiting.set()
        interrupt.pause(LONG_S)

    thread = threading.Thread(target=pause)
    started_at = monotonic()
    thread.start()
    waiting.wait()
    # Repeated until the pause has noticed: it may begin a moment later.
    while thread.is_alive() and monotonic() < started_at + LONG_S:
        interrupt.set(reason)
        thread.join(0.01)
    thread.join()
    return monotonic() - started_at < LONG_S / 2


def test_interrupt_ends_a_pause() -> None:
    for reason in Reason:
        assert ends_early(Interrupt(), reason)


def test_cancelled_attempt_pauses_unless_the_service_stops() -> None:
    interrupt = Interrupt()
    interrupt.set(Reason.CANCELLED)
    start_s = monotonic()
    interrupt.pause(0.05)
    assert monotonic() - start_s >= 0.05
    stopping = Interrupt()
    stopping.set(Reason.STOPPING)
    start_s = monotonic()
    stopping.pause(LONG_S)
    assert monotonic() - start_s < LONG_S / 2
