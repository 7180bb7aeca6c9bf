"""What the tests of checkouts share."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .support import Client, Repository, git_daemon, git_http


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "repositories"


@pytest.fixture
def origin(base: Path) -> Repository:
    repository = Repository(base / "origin")
    repository.commit("file", "content")
    return repository


@pytest.fixture(params=["path", "file", "daemon", "http", "old-http"])
def served(request: pytest.FixtureRequest, base: Path) -> Iterator[str]:
    """Where the repositories below ``base`` are to be had."""
    with ExitStack() as stack:
        if request.param in ("path", "file"):
            yield f"file://{base}" if request.param == "file" else str(base)
        elif request.param == "daemon":
            yield stack.enter_context(git_daemon(base))
        else:
            yield stack.enter_context(git_http(base, modern=request.param == "http")).url


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def hanging() -> Iterator[socket.socket]:
    """A server that never answers, nor accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener
