"""The Corndogs inside the service: who can reach it, and who cannot."""

import os
import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from tests.conftest import NewService
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_until


def listening_ports(service: Service) -> set[int]:
    """Return the TCP ports that any process of the service listens on."""
    inodes = set()
    for pid in service.pids():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                socket_link = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
            except FileNotFoundError:
                continue  # closed meanwhile
            if socket_link:
                inodes.add(socket_link[1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_embedded_corndogs_does_not_listen_by_default(new_service: NewService) -> None:
    service = new_service()
    assert service.admin.run("true")["status"] == "completed"
    assert listening_ports(service) == {service.port}


def test_embedded_corndogs_listens_on_the_given_address_or_loopback(
    new_service: NewService,
) -> None:
    port = free_port()
    service = new_service(corndogs_listen=port)
    assert listening_ports(service) == {service.port, port}
    assert f"Corndogs listens on 127.0.0.1:{port}" in service.log_text()
    job = service.admin.run("true")
    with closing(GrpcCorndogs(f"127.0.0.1:{port}")) as client:

        def state() -> str:
            task = client.get_task(job["corndogs_task_id"], "default")
            assert task is not None
            return task.current_state

        wait_until(lambda: state() == "completed", 10, "its task is closed")
        # What another program puts there stays there.
        theirs = client.submit_task("default", payload=b"[" * 100_000, priority=9)
        assert service.admin.run("true")["status"] == "completed"
        stored = client.get_task(theirs.uuid, "default")
        assert stored is not None
        assert stored.current_state == "submitted"


def test_port_in_use_ends_the_start_with_a_clear_error(new_service: NewService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AssertionError, match=f"Corndogs cannot listen on 127.0.0.1:{port}"):
            new_service(corndogs_listen=f"127.0.0.1:{port}")


def test_listen_option_with_an_external_corndogs_is_refused(new_service: NewService) -> None:
    with pytest.raises(AssertionError, match="leave out one of the two"):
        new_service(corndogs_listen=5080, corndogs_address="127.0.0.1:5080")
