"""Another process that locks the job database: the service waits, reports it, and continues."""

import sqlite3
from contextlib import closing
from time import monotonic

from tests.conftest import NewService
from tests.support.service import Service
from tests.support.waiting import wait_until


def test_locked_database_loses_no_job(new_service: NewService) -> None:
    service = new_service()
    runs = service.admin.wait(service.admin.submit("echo begun; sleep 1; echo done"), "running")
    path = service.data_dir / "reactorcide.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        # Reading goes on; what has to be written is refused in a sentence, after a while.
        assert service.admin.job(runs)["status"] == "running"
        response = service.admin.post_job(job_command="true")
        assert response.status_code == 503
        assert "database is locked" in response.json()["message"]

        def database_check() -> str:
            return str(service.admin.request("GET", "/api/v1/ready").json()["checks"]["database"])

        wait_until(lambda: "database is locked" in database_check(), 20, "readiness tells of it")
        other.execute("ROLLBACK")
    ended = service.admin.wait(runs)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert service.admin.log(ended) == b"begun\ndone\n"
    assert service.admin.run("true")["status"] == "completed"
    assert service.admin.get("jobs")["total"] == 2


def test_reads_do_not_wait_for_the_last_use_of_a_token(idle_service: Service) -> None:
    user = idle_service.add_user("reads")
    with closing(sqlite3.connect(idle_service.data_dir / "reactorcide.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = monotonic()
        (token,) = user.get("tokens")["tokens"]
        assert token["last_used_at"] is None
        assert user.get("jobs")["total"] == 0
        assert monotonic() - started < 3
        other.execute("ROLLBACK")
    wait_until(
        lambda: user.get("tokens")["tokens"][0]["last_used_at"] is not None, 5, "the use is written down"
    )
