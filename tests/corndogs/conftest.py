from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.proto.corndogs_pb2_grpc import CorndogsServiceStub
from reactorcide.corndogs.server import EmbeddedCorndogs


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    return tmp_path / "corndogs.db"


@pytest.fixture
def server(database_path: Path) -> Iterator[EmbeddedCorndogs]:
    embedded = EmbeddedCorndogs(database_path)
    embedded.start()
    yield embedded
    embedded.stop()


@pytest.fixture
def client(server: EmbeddedCorndogs) -> Iterator[GrpcCorndogs]:
    corndogs = GrpcCorndogs(server.address)
    yield corndogs
    corndogs.close()


@pytest.fixture
def channel(server: EmbeddedCorndogs) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)]) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> CorndogsServiceStub:
    return CorndogsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


@pytest.fixture
def csil_server(database_path: Path) -> Iterator[EmbeddedCorndogs]:
    embedded = EmbeddedCorndogs(database_path, csil_port=0)
    embedded.start()
    yield embedded
    embedded.stop()
