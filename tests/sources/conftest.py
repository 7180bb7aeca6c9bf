"""What the tests of checkouts share."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import Client


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "repositories"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def hanging() -> Iterator[socket.socket]:
    """A server that never answers, nor accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener
