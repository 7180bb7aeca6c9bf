"""What each signal does that gunicorn would handle in its own way, and a log that cannot be written."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import NewService
from tests.support.ports import free_port
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until


def worker_of(service: Service) -> int:
    """Return the process that serves."""
    [worker] = service.pids() - {service.process_id}
    return worker


@pytest.mark.parametrize("whole_group", [False, True], ids=["master", "group"])
@pytest.mark.parametrize("drains", [False, True], ids=["plain", "drain"])
def test_sighup_stops_the_service_like_sigterm(
    new_service: NewService, whole_group: bool, drains: bool
) -> None:
    service = new_service({}, **({"drain": None} if drains else {}))
    job = service.admin.submit("echo begun; sleep 2; echo done")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 20, "its command runs")
    service.stop(signal.SIGHUP, whole_group=whole_group)
    service.start()
    ended = service.admin.wait(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)


def test_sighup_to_the_gunicorn_worker_alone_starts_a_new_one(new_service: NewService) -> None:
    service = new_service()
    worker = worker_of(service)
    os.kill(worker, signal.SIGHUP)
    wait_until(lambda: service.log_text().count("Reactorcide listens on") == 2, 20, "another one listens")
    assert not Path(f"/proc/{worker}").exists()
    # It stopped by itself, and was not ended in the middle of something.
    assert "was sent SIGHUP" not in service.log_text()


@pytest.mark.parametrize(
    "number", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH]
)
def test_other_signals_are_ignored(new_service: NewService, number: signal.Signals) -> None:
    service = new_service()
    before = service.pids()
    for process in before:
        os.kill(process, number)
        os.kill(process, number)
    # It handles signals one after the other: when the job is over it has done whatever it does.
    assert service.admin.run("sleep 1")["status"] == "completed"
    assert service.pids() == before
    assert service.log_text().count("Reactorcide listens on") == 1


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored(new_service: NewService) -> None:
    service = new_service()
    service.stop()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        # As nohup does it.
        service.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    processes = service.pids()
    service.signal(signal.SIGHUP, whole_group=True)
    assert service.admin.run("sleep 1")["status"] == "completed"
    assert service.pids() == processes


@pytest.mark.parametrize("streams", ["</dev/null >/dev/full 2>&1", "<&- >&- 2>&-"])
def test_service_runs_with_closed_output(tmp_path: Path, streams: str) -> None:
    port = free_port()
    options = {"port": port, "data_dir": tmp_path / "data", "concurrency": 0}
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", *command_line("serve", options)],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
    )
    try:

        def answered() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    return client.recv(100).startswith(b"HTTP/1.1 200 ")
            except ConnectionRefusedError:
                return False

        wait_until(answered, 40, "it answers")
        # None of its files or sockets is a standard stream of a program that it starts.
        opened = {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)}
        assert opened <= {"/dev/null", "/dev/full"}
        process.terminate()
        # 120 is Python's own: what it printed last is lost.
        assert process.wait(10) in (0, 120)
    finally:
        process.kill()
        process.wait()


def test_messages_of_gunicorn_are_json(new_service: NewService) -> None:
    service = new_service(log_format="json", concurrency=0)
    os.kill(worker_of(service), signal.SIGKILL)
    wait_until(lambda: service.log_text().count("Reactorcide listens on") == 2, 20, "another one listens")
    lines = [line for line in service.log_text().splitlines() if "was sent SIGKILL" in line]
    assert [json.loads(line)["logger"] for line in lines] == ["gunicorn.error"]
