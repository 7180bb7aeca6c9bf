"""Another process that holds the job database: the service waits, says so, and goes on."""

import sqlite3
from contextlib import closing

from tests.conftest import NewService


def test_a_locked_database_loses_nothing(new_service: NewService) -> None:
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
        assert (
            "database is locked" in service.admin.request("GET", "/api/v1/ready").json()["checks"]["database"]
        )
        other.execute("ROLLBACK")
    ended = service.admin.wait(runs)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert service.admin.log(ended) == b"begun\ndone\n"
    assert service.admin.run("true")["status"] == "completed"
    assert service.admin.get("jobs")["total"] == 2
