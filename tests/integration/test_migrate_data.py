"""A service's data directory taken over to PostgreSQL and a bucket by ``reactorcide migrate-data``."""

import signal
import subprocess
from pathlib import Path

from reactorcide.crashpoints import VARIABLE
from tests.conftest import NewService
from tests.support.postgresql import cluster
from tests.support.s3 import S3Server
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until


def migrate(service: Service, crash: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    """Take a data directory over; it dies at a crash point if one is named."""
    more = {VARIABLE: crash} if crash else {}
    return subprocess.run(
        command_line("migrate-data", {"data_dir": service.data_dir} | options),
        env=clean_environment(service.home, **service.environment, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def objects_of(service: Service) -> list[Path]:
    return sorted(path for path in (service.data_dir / "objects").rglob("*") if path.is_file())


def test_a_service_goes_on_with_everything_at_new_places(s3: S3Server, new_service: NewService) -> None:
    url, database = f"s3://{s3.new_bucket()}/ci", cluster().new_url()
    service = new_service(s3.environment())
    api = service.admin
    ended = api.run("seq 10000; echo kept > /job/artifacts/kept", job_env_vars={"TOKEN": "open sesame"})
    log, ann = api.log(ended), service.add_user("ann")
    refused = migrate(service, objects=url, database=database)
    assert refused.returncode != 0
    assert "uses the data directory" in refused.stderr
    service.stop()
    idle = new_service(s3.environment(), data_dir=service.data_dir, concurrency=0)
    waiting = idle.admin.submit(
        'test "$TOKEN" = secret-value && echo known', job_env_vars={"TOKEN": "secret-value"}
    )
    wait_until(lambda: idle.admin.job(waiting)["status"] == "queued", 20, "it is queued")
    idle.stop()
    objects = {path: path.read_bytes() for path in objects_of(service)}
    assert objects

    # Killed between any two steps it is repeated.
    file = service.home / "crash"
    for point in ("migrate-objects-copied", "migrate-rows-copied"):
        file.touch()
        died = migrate(service, f"{point}={file}", objects=url, database=database)
        assert died.returncode == -signal.SIGKILL, died.stderr
    for _ in range(2):
        done = migrate(service, objects=url, database=database)
        assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in objects_of(service)} == objects

    for path in objects:
        path.unlink()
    environment = s3.environment() | {"REACTORCIDE_DATABASE": database}
    moved = new_service(environment, data_dir=service.data_dir, objects=url)
    again = moved.admin
    assert again.job(ended) == ended
    assert again.log(ended) == log
    assert again.request("GET", f"jobs/{ended['job_id']}/artifacts/kept").content == b"kept\n"
    done_job = again.wait(waiting)
    assert done_job["status"] == "completed"
    assert again.log(done_job) == b"known\n"
    # Tokens are the same.
    assert moved.client(ann.token or "").get("users/me")["username"] == "ann"
