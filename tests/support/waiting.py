"""Waiting for what happens in another thread or process: never for a fixed time."""

import select
import socket
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], deadline_s: float, what: str) -> None:
    """Return once ``condition`` holds; fail, saying ``what`` did not happen, after ``deadline_s``."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


def is_readable(source: socket.socket | int, timeout_s: float) -> bool:
    """Return whether there is something to read within a time; for descriptors of any number."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
