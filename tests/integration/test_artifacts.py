"""The artifacts of a job are stored and can be downloaded."""

import hashlib
import io
import shlex
import tarfile
import time
from typing import Any
from urllib.parse import quote

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until


def test_artifacts_are_listed_with_size_and_digest(api: Client) -> None:
    job = api.run(
        "cd /job/artifacts; printf hello >a.txt; mkdir -p deep/er; : >deep/er/empty; printf x >'ä b#?%.txt'"
    )
    assert job["artifacts_object_key"]
    assert api.artifacts(job) == [
        {
            "path": path,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "executable": False,
        }
        for path, data in (("a.txt", b"hello"), ("deep/er/empty", b""), ("ä b#?%.txt", b"x"))
    ]


def test_downloaded_artifact_has_the_same_bytes(api: Client) -> None:
    job = api.run("cd /job/artifacts; head -c 3000000 /dev/urandom >big; mkdir d; printf x >'d/ä b#?%.txt'")
    base = f"jobs/{job['job_id']}/artifacts"
    (nested, big) = sorted(api.artifacts(job), key=lambda item: int(item["size"]))
    answer = api.request("GET", f"{base}/big")
    assert hashlib.sha256(answer.content).hexdigest() == big["sha256"]
    assert answer.headers["Content-Length"] == "3000000"
    assert nested["path"] == "d/ä b#?%.txt"
    assert api.request("GET", f"{base}/d/%C3%A4%20b%23%3F%25.txt").content == b"x"
    for missing in ("nothing", "d", "../log", "..%2flog", "d//x"):
        assert api.request("GET", f"{base}/{missing}").status_code == 404


ODD = (
    "new\nline",
    "ends in one\n",
    "\n",
    "a\tb",
    "a\\b",
    "..a",
    "~",
    "%2e%2e",
    "%0a",
    "?x=1",
    "#",
    "a;b",
    "*",
    "\x01",
)
LONGEST = "/".join(["é" * 100] * 5) + "/" + "é" * 9 + "x"


def test_artifact_with_any_name_can_be_downloaded_every_way(api: Client) -> None:
    """Listed, by its own address, in the archive, and as the source of another job."""
    names = [*ODD, "d\ne/f\ng", LONGEST]
    assert len(LONGEST.encode()) == 1024
    script = "cd /job/artifacts\n" + "\n".join(
        f"mkdir -p {shlex.quote('./' + name.rpartition('/')[0])}; printf x >{shlex.quote('./' + name)}"
        for name in names
    )
    job = api.run(script)
    assert sorted(api.artifact_paths(job)) == sorted(names), api.log(job)
    for name in names:
        answer = api.request("GET", f"jobs/{job['job_id']}/artifacts/{quote(name)}")
        assert (answer.status_code, answer.content) == (200, b"x"), name
    answer = api.request("GET", f"jobs/{job['job_id']}/artifacts.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        assert sorted(archive.getnames()) == sorted(names)
    again = api.run("cp -a . /job/artifacts", source_job_id=job["job_id"])
    assert sorted(api.artifact_paths(again)) == sorted(names)


def test_all_artifacts_are_downloaded_as_one_archive(api: Client) -> None:
    job = api.run("cd /job/artifacts; seq 100000 >numbers; mkdir d; printf x >'d/ä'")
    answer = api.request("GET", f"jobs/{job['job_id']}/artifacts.tar.gz")
    assert answer.headers["Content-Type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        read = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]  # files all
    assert read == {"numbers": "".join(f"{i}\n" for i in range(1, 100001)).encode(), "d/ä": b"x"}


@pytest.mark.parametrize(
    ("command", "error"),
    [("exit 3", "exit code 3"), ("sleep 60", "timed out after 1 s")],
)
def test_artifacts_of_a_failed_job_are_stored(api: Client, command: str, error: str) -> None:
    job = api.run(f"echo kept >/job/artifacts/kept; {command}", timeout_seconds=1)
    assert (job["status"], job["error"]) == ("failed", error)
    assert api.artifact_paths(job) == ["kept"]


def test_unused_artifacts_directory_stores_nothing(api: Client) -> None:
    job = api.run("ls /job/artifacts")
    assert job["artifacts_object_key"] is None
    assert api.artifacts(job) == []
    archive = api.request("GET", f"jobs/{job['job_id']}/artifacts.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(archive.content), mode="r:gz") as opened:
        assert opened.getnames() == []


@pytest.mark.parametrize(
    "command",
    [
        "mkdir /tmp/old; echo x >/tmp/old/file; touch -d '2001-01-01 00:00' /tmp/old/file /tmp/old;"
        " cp -a /tmp/old/. /job/artifacts/",
        "echo x >/job/artifacts/file; touch -d '2001-01-01 00:00' /job/artifacts/file /job/artifacts",
        "echo x >/job/artifacts/file; touch -d '2101-01-01 00:00' /job/artifacts/file /job/artifacts",
    ],
)
def test_any_modification_time_is_accepted(api: Client, command: str) -> None:
    assert api.artifact_paths(api.run(command)) == ["file"]


def test_replaced_artifacts_directory_is_collected(api: Client) -> None:
    job = api.run("rm -rf /job/artifacts/* && mkdir -p /job/artifacts/sub && echo x >/job/artifacts/sub/file")
    assert api.artifact_paths(job) == ["sub/file"]


def test_only_regular_files_are_stored_and_the_log_names_the_others(api: Client) -> None:
    job = api.run("cd /job/artifacts; echo x >file; ln -s /etc/passwd link; mkfifo fifo; mkdir empty")
    assert job["status"] == "completed"
    assert api.artifact_paths(job) == ["file"]
    assert b"link" in api.log(job)
    assert b"fifo" in api.log(job)


def test_files_that_match_the_globs_of_the_job_are_stored(api: Client) -> None:
    command = "cd /job/artifacts; mkdir -p r/s; touch a.xml a.txt r/b.xml r/s/c.xml"
    job = api.run(command, artifacts=["*.xml", "r/s/**"])
    assert api.artifact_paths(job) == ["a.xml", "r/s/c.xml"]
    assert api.job(job)["artifacts"] == ["*.xml", "r/s/**"]
    again = api.wait(api.request("POST", f"jobs/{job['job_id']}/rerun").json())
    assert api.artifact_paths(again) == ["a.xml", "r/s/c.xml"]


def test_each_hard_link_is_stored_under_its_name(api: Client) -> None:
    command = "cd /job/artifacts; mkdir d; echo x >a; ln a d/b; ln a c.txt; ln -s a s; ln s s.txt || true"
    job = api.run(command)
    assert api.artifact_paths(job) == ["a", "c.txt", "d/b"]
    job = api.run(command, artifacts=["*.txt"])
    assert api.artifact_paths(job) == ["c.txt"]
    assert api.request("GET", f"jobs/{job['job_id']}/artifacts/c.txt").content == b"x\n"


HOLE = "truncate -s 15000G /job/artifacts/hole; echo x >/job/artifacts/zz; echo made"


def test_skipped_sparse_file_takes_a_bounded_time(new_service: NewService) -> None:
    api = new_service(collect_timeout=2, concurrency=1, max_disk=0).admin
    start_s = time.monotonic()
    job = api.run(HOLE, artifacts=["nothing", "zz"])
    assert (job["status"], job["error"]) == ("completed", None)
    assert b"what comes after 'hole' is not stored: collecting them took longer than 2 s" in api.log(job)
    assert api.get(f"jobs/{job['job_id']}/artifacts") == {"artifacts": [], "artifacts_truncated": True}
    assert time.monotonic() - start_s < 15


def collecting(api: Client, service: Service) -> dict[str, Any]:
    """Return a job whose artifacts are just being read, and will be for a long time."""
    job = api.submit(HOLE, artifacts=["nothing"])
    wait_until(lambda: b"made" in api.log(job), 20, "the command has printed")
    engine = docker.APIClient()
    try:
        wait_until(
            lambda: all(container["State"] == "exited" for container in service.containers(engine, job)),
            20,
            "it has ended",
        )
    finally:
        engine.close()
    assert api.job(job)["status"] == "running"
    return job


def test_cancel_and_stop_interrupt_collecting(new_service: NewService) -> None:
    service = new_service(concurrency=1, max_disk=0)
    api = service.admin
    start_s = time.monotonic()
    collecting(api, service)
    service.stop()
    assert time.monotonic() - start_s < 20
    assert "has not ended in time" not in service.log_text()
    service.start()
    # The next service has adopted it and still collects.
    (job,) = api.get("jobs")["jobs"]
    assert job["status"] == "running"
    api.cancel(job)
    next_one = api.run("echo next")
    assert next_one["status"] == "completed"
    assert api.job(job)["status"] == "cancelled"


def test_hostile_globs_take_little_time(api: Client) -> None:
    globs = ["**/" * 340 + f"b{number}" for number in range(99)] + ["**/wanted"]
    command = "cd /job/artifacts; d=$(seq -s / 100); mkdir -p $d; cd $d; touch $(seq 300) wanted"
    start_s = time.monotonic()
    job = api.run(command, artifacts=globs)
    assert [path[-7:] for path in api.artifact_paths(job)] == ["/wanted"]
    assert time.monotonic() - start_s < 15


@pytest.mark.parametrize(
    "globs",
    [["/job/artifacts/*"], ["../x"], ["a\0"], ["dir/"], ["x**"], [""], ["x" * 1025], ["x"] * 101, "*", [1]],
)
def test_malformed_glob_is_refused(idle: Client, globs: object) -> None:
    response = idle.post_job(artifacts=globs)
    assert response.status_code == 400
    assert response.json()["details"][0]["field"].startswith("artifacts")


def test_artifacts_above_the_limits_do_not_fail_the_job(new_service: NewService) -> None:
    api = new_service(max_artifact_bytes="1m", max_artifacts=3).admin
    job = api.run("cd /job/artifacts; seq 9 >a; head -c 2000000 /dev/zero >b; seq 9 >c")
    assert (job["status"], job["exit_code"], job["error"]) == ("completed", 0, None)
    answer = api.get(f"jobs/{job['job_id']}/artifacts")
    assert [item["path"] for item in answer["artifacts"]] == ["a"]
    assert answer["artifacts_truncated"] is True
    assert b"--max-artifact-bytes" in api.log(job)
    job = api.run("cd /job/artifacts; for name in 1 2 3 4 5; do echo x >$name; done")
    assert (job["status"], api.artifact_paths(job)) == ("completed", ["1", "2", "3"])
    assert b"more than 3 (--max-artifacts)" in api.log(job)
    # No descriptor remains of a connection that was not read to its end.
    assert api.run("echo x >/job/artifacts/x")["status"] == "completed"


def test_download_is_an_attachment_and_supports_conditional_requests(api: Client) -> None:
    job = api.run(
        "cd /job/artifacts; echo '<script>' >page.html; echo x >'no type'; ln page.html 'x\"\n.svg'"
    )
    base = f"jobs/{job['job_id']}/artifacts"
    types = {}
    for item in api.artifacts(job):
        answer = api.request("GET", f"{base}/{quote(item['path'])}")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment;")
        assert answer.headers["Content-Security-Policy"].endswith("; sandbox")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["ETag"] == f'"{item["sha256"]}"'
        types[item["path"]] = answer.headers["Content-Type"]
        head = api.request("HEAD", f"{base}/{quote(item['path'])}")
        assert (head.headers["Content-Length"], head.content) == (str(item["size"]), b"")
        fresh = {"If-None-Match": answer.headers["ETag"]}
        unchanged = api.request("GET", f"{base}/{quote(item['path'])}", headers=fresh)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert types["page.html"] == "text/html; charset=utf-8"
    assert types["no type"] == "application/octet-stream"


def test_executable_bit_is_set_in_the_archive(api: Client) -> None:
    job = api.run("cd /job/artifacts; echo x >text; echo x >program; chmod 700 program")
    answer = api.request("GET", f"jobs/{job['job_id']}/artifacts.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        assert {member.name: member.mode for member in archive} == {"program": 0o755, "text": 0o644}


@pytest.mark.parametrize(
    ("field", "path"),
    [("code_dir", "/job/artifacts"), ("code_dir", "/job/artifacts/src"), ("job_dir", "/job/artifacts/x")],
)
def test_source_cannot_be_placed_in_the_artifacts_directory(service: Service, field: str, path: str) -> None:
    response = service.admin.post_job(**{field: path})
    assert response.status_code == 400
    assert [item["field"] for item in response.json()["details"]] == [field]
