"""A service whose objects are in a bucket, which goes away and comes back."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from time import monotonic

import docker
import pytest

from reactorcide.objects import MAX_READS_AT_ONCE
from reactorcide.web.objects import NO_SLOT
from tests.conftest import NewService
from tests.support.engine_proxy import TcpProxy
from tests.support.s3 import S3Server
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until


@pytest.fixture
def line(s3: S3Server) -> Iterator[TcpProxy]:
    """What the service reaches the server by."""
    line = TcpProxy(int(s3.url.rpartition(":")[2]))
    line.on()
    yield line
    line.off()


def run(service: Service, command: str, *arguments: object, **environment: str) -> tuple[int, str]:
    """Run one of the program's commands on a service's data directory; returns its exit code and output."""
    done = subprocess.run(
        [*command_line(command, {}), *map(str, arguments)],
        env=clean_environment(service.home, **(service.environment | environment)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def go(service: Service, engine: docker.APIClient) -> None:
    """Let the running job go on."""
    [container] = service.containers(engine)
    engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108


def test_jobs_wait_for_an_unreachable_bucket_and_lose_nothing(
    s3: S3Server, line: TcpProxy, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    url = f"s3://{s3.new_bucket()}/ci"
    service = new_service(s3.environment(line.url), objects=url)
    api = service.admin
    first = api.run("echo hello; echo kept > /job/artifacts/a")
    assert first["status"] == "completed", first
    assert api.log(first) == b"hello\n"
    assert [item["path"] for item in api.artifacts(first)] == ["a"]
    assert service.until_ready()["checks"]["object_store"] == "ok"

    job = api.submit(
        "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done; echo late > /job/artifacts/b"
    )
    wait_until(lambda: api.log(job) == b"begun\n", 30, "the command runs")
    line.off()
    waits = api.submit("echo waited")
    go(service, engine)
    wait_until(lambda: "trying again to store the artifacts" in service.log_text(), 60, "it is tried again")
    assert api.job(job)["status"] == "running"
    assert api.log(job) == b"begun\ndone\n"
    problem = f"the object store {url} could not write a test object: Could not connect"
    wait_until(
        lambda: problem in api.request("GET", "ready").json()["checks"]["object_store"], 20, "it is not ready"
    )
    unread = api.request("GET", f"jobs/{first['job_id']}/artifacts")
    assert (unread.status_code, unread.json()["error"]) == (503, "unavailable"), unread.text
    assert url in unread.json()["message"]
    assert api.job(waits)["status"] == "queued"
    # Another start meanwhile goes on with the running job.
    service.kill()
    service.start()
    assert "its objects are missing until it is back" in service.log_text()

    line.on()
    ended = api.wait(job, deadline_s=60)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, 1)
    assert [item["path"] for item in api.artifacts(ended)] == ["b"]
    assert api.log(ended) == b"begun\ndone\n"
    assert api.wait(waits, deadline_s=60)["status"] == "completed"
    assert not any(path.is_file() for path in (service.data_dir / "objects").rglob("*"))
    service.until_sealed()
    bucket = s3.client.list_objects_v2(Bucket=url.split("/")[2], Prefix="ci/jobs/")
    assert f"ci/jobs/{job['job_id']}/1/log" in [item["Key"] for item in bucket["Contents"]]

    # The commands that work on the data directory know the bucket from the database.
    code, said = run(service, "backup", tmp_path / "b.tar.gz", "--data-dir", service.data_dir)
    assert (code, f"are in {url} and not in this file" in said) == (0, True), said
    code, said = run(service, "doctor", "--data-dir", service.data_dir)
    assert f"objects         {url} takes them" in said
    code, said = run(
        service, "gc", "--data-dir", service.data_dir, "--keep-jobs", 1, "--keep-days", 0, "--keep-bytes", 0
    )
    assert code == 0, said
    kept = s3.client.list_objects_v2(Bucket=url.split("/")[2], Prefix="ci/jobs/")
    assert {item["Key"].split("/")[2] for item in kept["Contents"]} == {waits["job_id"]}

    # A start that cannot be says what to do.
    options = ["--port", 0, "--data-dir", tmp_path / "other", "--objects", "s3://nowhere"]
    code, said = run(service, "serve", *options)
    assert (code, "Traceback" in said) == (3, False), said
    assert "NoSuchBucket" in said
    assert "create the bucket" in said


def test_a_bucket_that_hangs_leaves_threads_for_other_requests(s3: S3Server, new_service: NewService) -> None:
    service = new_service(s3.environment(), objects=f"s3://{s3.new_bucket()}/ci")
    api = service.admin
    job, unwanted = (api.run("echo hello; echo kept > /job/artifacts/a") for _ in range(2))
    path = f"jobs/{job['job_id']}"

    def read(what: str) -> tuple[int, str, float]:
        began_at = monotonic()
        response = service.client(api.token or "").request("GET", f"{path}/{what}")
        return response.status_code, response.text, monotonic() - began_at

    service.until_sealed()
    whats = ["artifacts", "artifacts/a", "artifacts.tar.gz", "logs"] * 8
    os.kill(s3.process_id, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(whats)) as pool:
            reads = [pool.submit(read, what) for what in whats]
            # One that was refused shows that all slots are taken.
            first = next(as_completed(reads)).result()
            assert (first[0], NO_SLOT in first[1]) == (503, True), first
            began_at = monotonic()
            assert api.job(job)["status"] == "completed"
            assert api.get("jobs", limit=1)["jobs"]
            assert api.request("DELETE", f"jobs/{unwanted['job_id']}").status_code == 204
            # Its probe may still be under way.
            assert service.anonymous().request("GET", "ready").status_code in (200, 503)
            assert monotonic() - began_at < 5
            assert not all(item.done() for item in reads)
            answers = [item.result() for item in reads]
    finally:
        os.kill(s3.process_id, signal.SIGCONT)
    assert {code for code, _, _ in answers} == {503}, answers
    assert max(took_s for _, _, took_s in answers) < 14, answers
    waited = [text for _, text, _ in answers if NO_SLOT not in text]
    assert len(waited) >= MAX_READS_AT_ONCE // 2
    assert all("could not read" in text for text in waited), waited
    # All slots are free again.
    with ThreadPoolExecutor(8) as pool:
        assert {code for code, _, _ in pool.map(read, whats)} == {200}
    gone = f"jobs/{unwanted['job_id']}/"
    wait_until(lambda: not service.object_keys(gone), 60, "the deleted job's objects to go")
