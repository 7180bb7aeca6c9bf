"""SIGKILL for a Corndogs in a separate process, under waiting and running jobs."""

import contextlib
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from tests.conftest import NewService
from tests.support.service import clean_environment, command_line
from tests.support.waiting import wait_until


class Corndogs:
    """``reactorcide corndogs`` on one port and one data directory, any number of times over."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe, socket.create_server(("127.0.0.1", 0)) as other:
            self._port, self._csil_port = probe.getsockname()[1], other.getsockname()[1]
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{self._port}"
        self.csil_address = f"csil://127.0.0.1:{self._csil_port}"
        self.client = GrpcCorndogs(self.address)

    def start(self) -> None:
        """Start it and return when it answers."""
        options = {
            "port": self._port,
            "csil_port": self._csil_port,
            "data_dir": self._home / "corndogs",
        }
        with (self._home / "corndogs.log").open("ab") as log:
            self._process = subprocess.Popen(
                command_line("corndogs", options),
                env=clean_environment(self._home),
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, 20, "Corndogs answers")

    def kill(self) -> None:
        """End it at once; safe to repeat."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Leave nothing of it."""
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.client.check_health()
            return True
        return False


@pytest.fixture
def corndogs(tmp_path: Path) -> Iterator[Corndogs]:
    with contextlib.closing(Corndogs(tmp_path)) as corndogs:
        corndogs.start()
        yield corndogs


def test_waiting_and_running_jobs_end_after_corndogs_was_killed(
    corndogs: Corndogs, new_service: NewService
) -> None:
    service = new_service(corndogs_address=corndogs.address, lease=2, concurrency=1)
    api = service.admin
    runs = api.wait(api.submit("echo begun; sleep 3; echo done", priority=1), "running")
    wait_until(lambda: api.log(runs) == b"begun\n", 20, "the command runs")
    waits = [api.submit(f"echo {number}") for number in range(3)]
    cancelled = api.submit("echo never")
    for _ in range(3):
        corndogs.kill()
        late = api.submit("echo late")
        assert late["status"] == "submit_failed"
        waits.append(late)
        ready = api.request("GET", "ready")
        assert ready.status_code == 503
        assert "Corndogs" in ready.json()["checks"]["corndogs"]
        corndogs.start()
    assert api.cancel(cancelled)["status"] == "cancelled"
    for job in [runs, *waits]:
        ended = api.wait(job, deadline_s=60)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
    assert api.log(runs) == b"begun\ndone\n"
    assert api.log(cancelled) == b""
    wait_until(lambda: corndogs.client.task_state_counts("default") == {}, 30, "every task is closed")


def test_running_jobs_end_during_a_long_outage_of_corndogs(
    corndogs: Corndogs, new_service: NewService
) -> None:
    api = new_service(corndogs_address=corndogs.csil_address, lease=1).admin
    short, long = api.submit("echo begun; sleep 4; echo done"), api.submit("echo begun; sleep 6; echo done")
    for job in (short, long):
        wait_until(lambda job=job: api.log(job) == b"begun\n", 30, "the command runs")  # type: ignore[misc]  # bound at once
    corndogs.kill()
    ended = api.wait(short, deadline_s=60)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    corndogs.start()
    ended = api.wait(long, deadline_s=60)
    assert (ended["status"], ended["attempt"], api.log(long)) == ("completed", 1, b"begun\ndone\n")
    wait_until(lambda: corndogs.client.task_state_counts("default") == {}, 30, "every task is closed")


def test_jobs_run_after_corndogs_lost_its_database(
    corndogs: Corndogs, new_service: NewService, tmp_path: Path
) -> None:
    service = new_service(corndogs_address=corndogs.csil_address, concurrency=1)
    api = service.admin
    runs = api.submit("echo begun; sleep 3; echo done", priority=1)
    wait_until(lambda: api.log(runs) == b"begun\n", 30, "the command runs")
    waits = [api.submit(f"echo {number}") for number in range(3)]
    corndogs.kill()
    for file in (tmp_path / "corndogs").glob("corndogs.db*"):
        file.unlink()
    corndogs.start()
    for job in [runs, *waits]:
        ended = api.wait(job, deadline_s=60)
        assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
    with contextlib.closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as db:
        rows = db.execute(
            "SELECT job_id FROM job_event WHERE status_from = 'queued' AND reason LIKE '%lost%'"
        )
        assert {job_id for (job_id,) in rows} == {job["job_id"] for job in waits}
    wait_until(lambda: corndogs.client.task_state_counts("default") == {}, 30, "every task is closed")
