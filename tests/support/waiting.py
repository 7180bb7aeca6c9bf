"""Waiting for what happens in another thread or process: never for a fixed time."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], deadline_s: float, what: str) -> None:
    """Return once ``condition`` holds; fail, saying ``what`` did not happen, after ``deadline_s``."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
