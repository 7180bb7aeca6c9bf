"""Starting threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from reactorcide.domain.errors import InfrastructureError

T = TypeVar("T")


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start and return a daemon thread; raises ``InfrastructureError`` if the system allows no more."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        raise InfrastructureError(
            "no thread can be started: the system allows no more, or no more memory (ulimit -u, ulimit -v)"
        ) from exc
    return thread


def call_in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Make a call that cannot be interrupted in a daemon thread, and return the future of its result.

    Whoever no longer waits for the result leaves the thread to end by itself. Raises as ``start_thread``.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as exc:
            future.set_exception(exc)

    start_thread(run, name)
    return future
