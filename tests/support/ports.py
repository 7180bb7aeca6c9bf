"""Ports of this host."""

import socket


def free_port() -> int:
    """Return a port that nobody listens on, for programs that do not tell which one they got."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
