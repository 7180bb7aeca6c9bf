"""``reactorcide corndogs``: only the queue, in the foreground."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.connect import connect
from tests.cli.conftest import Program, Service


@contextmanager
def running(program: Program, *arguments: object) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Start one, and yield it with its address; it must have ended when the body is done."""
    with program.start("corndogs", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        try:
            assert line.startswith("Corndogs listens on "), line
            yield process, line.split()[-1]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_runs_until_a_signal_and_stores_its_tasks(lone: Program, number: signal.Signals) -> None:
    with running(lone, "--port", 0) as (process, address):
        client = GrpcCorndogs(address)
        client.check_health()
        task = client.submit_task("queue", payload=b"x")
        client.close()
        process.send_signal(number)
        assert process.wait(10) == 0
    with running(lone, "--port", 0) as (process, address):
        client = GrpcCorndogs(address)
        stored = client.get_task(task.uuid, "queue")
        client.close()
        assert stored is not None
        assert stored.payload == b"x"
        process.send_signal(number)
        assert process.wait(10) == 0


def test_server_speaks_both_protocols(lone: Program) -> None:
    with running(lone, "--port", 0, "--csil-port", 0) as (process, address):
        assert process.stderr is not None
        csil_address = process.stderr.readline().decode().split()[-1]
        assert csil_address.startswith("csil://127.0.0.1:")
        with closing(connect(address)) as old, closing(connect(csil_address)) as new:
            task = old.submit_task("queue", payload=b"x")
            claimed = new.get_next_task("queue")
        assert claimed is not None
        assert (claimed.uuid, claimed.payload) == (task.uuid, b"x")
        problems = lone("doctor", "--json", "--port", 0, "--corndogs-address", csil_address[7:])
        assert b"0.7.1 and later have addresses with csil://" in problems.output
        process.terminate()
        assert process.wait(10) == 0


def test_default_address_differs_from_that_of_serve(lone: Program) -> None:
    program = lone.with_variables(REACTORCIDE_PORT="1", REACTORCIDE_HOST="0.0.0.0")  # noqa: S104  # not bound
    with running(program.with_variables(REACTORCIDE_CORNDOGS_PORT="0")) as (process, address):
        assert address.startswith("127.0.0.1:")
        process.terminate()
        assert process.wait(10) == 0


def test_port_in_use_is_a_clear_error(lone: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert str(port) in lone.refused("corndogs", "--port", port)


def test_data_directory_in_use_is_refused(lone: Program, service: Service, tmp_path: Path) -> None:
    message = lone.refused("corndogs", "--port", 0, "--data-dir", service.data_dir)
    assert f"process {service.pid}" in message
    with running(lone, "--port", 0) as (process, _):
        assert str(process.pid) in lone.refused("serve", "--port", 0, "--data-dir", tmp_path / "data")
        process.terminate()
        assert process.wait(10) == 0
