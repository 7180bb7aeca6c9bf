"""Starting threads."""

import threading
from collections.abc import Callable

from reactorcide.domain.errors import InfrastructureError


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
