"""The embedded Corndogs called in this process: its errors, and the modules that it does not import."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reactorcide.corndogs.direct import DirectCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable

Calls = list[tuple[str, str]]


@pytest.fixture
def calls() -> Calls:
    return []


@pytest.fixture
def storage(database_path: Path) -> Iterator[TaskStorage]:
    opened = TaskStorage(database_path, time.time_ns)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def direct(storage: TaskStorage, calls: Calls) -> DirectCorndogs:
    return DirectCorndogs(storage, on_call=lambda rpc, status, seconds: calls.append((rpc, status)))


def test_every_call_is_reported(direct: DirectCorndogs, calls: Calls) -> None:
    direct.submit_task("q")
    direct.check_health()
    with pytest.raises(CorndogsError):
        direct.submit_task("q", priority=2**31)
    direct.close()
    with pytest.raises(CorndogsUnavailable):
        direct.queues()
    assert calls == [
        ("SubmitTask", "OK"),
        ("GetTaskStateByID", "OK"),
        ("SubmitTask", "INVALID_ARGUMENT"),
        ("GetQueues", "CANCELLED"),
    ]


def test_a_file_that_another_process_holds_is_unavailable(
    direct: DirectCorndogs, storage: TaskStorage, database_path: Path
) -> None:
    execute: Callable[..., object] = storage._writer.execute_sql
    execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CorndogsUnavailable, match="does not answer"):
            direct.submit_task("q")
        other.execute("ROLLBACK")
    direct.submit_task("q")


def test_a_full_disk_is_an_error_and_logged(
    direct: DirectCorndogs, storage: TaskStorage, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    execute: Callable[..., object] = storage._writer.execute_sql
    execute("PRAGMA max_page_count = 1")
    with caplog.at_level(logging.ERROR), pytest.raises(CorndogsError, match="refused SubmitTask") as caught:
        direct.submit_task("q", payload=b"x" * 100_000)
    assert not isinstance(caught.value, CorndogsUnavailable)
    assert calls == [("SubmitTask", "RESOURCE_EXHAUSTED")]
    assert "make room" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_bug_is_logged_and_not_sent_to_the_client(
    direct: DirectCorndogs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: TaskStorage, queue: str) -> dict[str, int]:
        raise ZeroDivisionError("the secret of it")

    monkeypatch.setattr(TaskStorage, "state_counts", broken)
    with pytest.raises(CorndogsError) as caught:
        direct.task_state_counts("q")
    assert "secret" not in str(caught.value)
    assert "the secret of it" in caplog.text


def test_concurrent_claims_return_different_tasks(direct: DirectCorndogs) -> None:
    submitted = {direct.submit_task("q").uuid for _ in range(200)}
    claimed: list[str] = []

    def claim() -> None:
        while task := direct.get_next_task("q"):
            claimed.append(task.uuid)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 200
    assert set(claimed) == submitted


_SERVE = """
import sys, pathlib
from reactorcide.app.service import Service
from reactorcide.settings import Settings

application = Service(Settings(data_dir=pathlib.Path(sys.argv[1]), concurrency=0), {})
application.start()
client = application.wsgi.test_client()
token = application.new_admin_token
job = client.post(
    "/api/v1/jobs",
    json={"name": "n", "job_command": "true", "source_type": "copy"},
    headers={"Authorization": f"Bearer {token}"},
)
assert job.json["status"] == "queued", job.json
application.stop()
loaded = [name for name in sys.modules if name == "grpc" or name.startswith(("grpc.", "google.protobuf"))]
assert loaded == [], loaded
"""


def test_service_without_a_corndogs_port_does_not_import_grpc(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", _SERVE, str(tmp_path)],
        check=True,
        cwd=tmp_path,
        env=os.environ | {},
        timeout=60,
    )
