"""A service whose jobs are in PostgreSQL: killed, restarted, and without its server for a while."""

import subprocess
from pathlib import Path

import docker
import psycopg
import pytest

from tests.conftest import NewService
from tests.support.postgresql import cluster
from tests.support.service import clean_environment, command_line
from tests.support.waiting import wait_until

COUNTED = b"".join(b"%d\n" % i for i in range(1, 31))
PASSWORD = "not-to-be-told"  # of a test


def new_url() -> str:
    """Return the URL of a new database, with a password that the server does not ask for."""
    return cluster().new_url().replace("reactorcide@", f"reactorcide:{PASSWORD}@")


def cut(url: str) -> None:
    """End all connections to a database."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    cluster().execute(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608  # a name of ours
    )


def allow(url: str, *, is_allowed: bool) -> None:
    """Let the database take connections, or not."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    cluster().execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_allowed}")


def test_killed_service_adopts_its_job(new_service: NewService) -> None:
    service = new_service(environment={"REACTORCIDE_DATABASE": new_url()})
    api = service.admin
    job = api.submit("for i in $(seq 30); do echo $i; sleep 0.1; done")
    wait_until(lambda: bool(api.log(job)), 20, "it prints")
    service.kill()
    service.start()
    with api.follow(job) as lines:
        assert list(lines) == COUNTED.splitlines()
    job = api.wait(job)
    assert (job["status"], job["exit_code"], job["attempt"]) == ("completed", 0, 1)
    assert api.log(job) == COUNTED
    # Nothing of it is in the data directory, and the password is nowhere.
    assert not (service.data_dir / "reactorcide.db").exists()
    assert PASSWORD not in service.log_text()


def test_jobs_go_on_while_the_database_is_away(new_service: NewService, engine: docker.APIClient) -> None:
    url = new_url()
    service = new_service({"REACTORCIDE_DATABASE": url})
    api = service.admin
    job = api.submit("for i in $(seq 30); do echo $i; sleep 0.1; done")
    wait_until(lambda: bool(api.log(job)), 20, "it prints")
    allow(url, is_allowed=False)
    cut(url)
    try:
        response = service.anonymous().request("GET", "/api/v1/ready")
        assert response.status_code == 503
        assert "not currently accepting connections" in response.json()["checks"]["database"]
        labelled = {"label": f"reactorcide.job={job['job_id']}"}
        wait_until(
            lambda: engine.containers(all=True, filters=labelled)[0]["State"] == "exited",
            20,
            "its command ends",
        )
    finally:
        allow(url, is_allowed=True)
    job = api.wait(job)
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert api.log(job) == COUNTED
    service.until_ready()


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_job_that_ends_while_the_database_is_away(
    new_service: NewService, engine: docker.APIClient, exit_code: int, stops: bool
) -> None:
    url = new_url()
    service = new_service({"REACTORCIDE_DATABASE": url})
    api = service.admin
    # One that succeeds adds nothing to its log: then closing that is the first that misses the database.
    link = "ln -s file /job/artifacts/link; " if exit_code else ""
    job = api.submit(
        f"echo a; echo kept > /job/artifacts/file; {link}"
        f"until [ -e /tmp/go ]; do sleep 0.05; done; exit {exit_code}",
        retries=0 if exit_code else 1,
    )
    wait_until(lambda: bool(api.log(job)), 20, "it prints")
    labelled = {"label": f"reactorcide.job={job['job_id']}"}
    [container] = engine.containers(all=True, filters=labelled)
    allow(url, is_allowed=False)
    try:
        cut(url)
        # Nothing is printed any more, so that the end of the attempt is the first that misses the database.
        engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108  # there
        wait_until(lambda: "waiting: jobs/" in service.log_text(), 20, "its log waits to be written")
        if stops:
            service.stop()
    finally:
        allow(url, is_allowed=True)
    if stops:
        service.start()
    job = api.wait(job)
    status = "failed" if exit_code else "completed"
    assert (job["status"], job["exit_code"], job["attempt"]) == (status, exit_code, 1), job
    assert job["error"] == ("exit code 3" if exit_code else None)
    assert api.artifact_paths(job) == ["file"]
    told = ["exit code 3", "artifact 'link' is not stored: it is not a regular file"]
    lines = ["a", *told] if exit_code else ["a"]
    assert api.log(job).decode().replace("[reactorcide] ", "").splitlines() == lines


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_database_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    url = f"postgresql://ann:{PASSWORD}@127.0.0.1:1/ci"
    file = tmp_path / "database-url"
    file.write_text(f"{url}\n")
    options = {"data-dir": tmp_path / "data", "database": f"@{file}"}
    ended = subprocess.run(
        command_line(command, options),
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert "127.0.0.1" in said
    assert "onnection refused" in said
    assert "--database" in said
    assert PASSWORD not in said
    assert "Traceback" not in said
