"""A service's data directory taken over to a bucket by ``reactorcide migrate-data``."""

import subprocess
from pathlib import Path

from tests.conftest import NewService
from tests.support.s3 import S3Server
from tests.support.service import Service, clean_environment, command_line


def migrate(service: Service, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line("migrate-data", {"data_dir": service.data_dir} | options),
        env=clean_environment(service.home, **service.environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_service_goes_on_with_its_objects_in_a_bucket(s3: S3Server, new_service: NewService) -> None:
    url = f"s3://{s3.new_bucket()}/ci"
    service = new_service(s3.environment())
    api = service.admin
    ended = api.run("seq 10000; echo kept > /job/artifacts/kept", job_env_vars={"TOKEN": "open sesame"})
    log = api.log(ended)
    refused = migrate(service, objects=url)
    assert refused.returncode != 0
    assert "uses the data directory" in refused.stderr
    service.stop()
    objects = {path: path.read_bytes() for path in objects_of(service)}
    assert objects

    # Before the copy the start is refused, and afterwards it is not.
    done = migrate(service, objects=url)
    assert done.returncode == 0, done.stderr
    assert f"{len(objects)} objects" in done.stdout + done.stderr
    assert {path: path.read_bytes() for path in objects_of(service)} == objects
    assert migrate(service, objects=url).returncode == 0

    for path in objects:
        path.unlink()
    again = new_service(s3.environment(), data_dir=service.data_dir, objects=url).admin
    assert again.job(ended) == ended
    assert again.log(ended) == log
    assert again.request("GET", f"jobs/{ended['job_id']}/artifacts/kept").content == b"kept\n"
    assert again.run("echo hello")["status"] == "completed"


def objects_of(service: Service) -> list[Path]:
    return sorted(path for path in (service.data_dir / "objects").rglob("*") if path.is_file())
