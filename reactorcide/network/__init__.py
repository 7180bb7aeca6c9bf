"""Connections to other hosts: the allowed addresses, and HTTP requests."""

from typing import Protocol

from reactorcide.domain.http import HttpAnswer, HttpRequest


class Http(Protocol):
    """Sends HTTP requests. Thread-safe."""

    def send(self, request: HttpRequest) -> HttpAnswer:
        """Send a request and return the answer, whatever its status; raises ``RequestFailed``."""
