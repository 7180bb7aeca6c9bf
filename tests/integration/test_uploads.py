"""Sources that are uploaded, and artifacts of one job as the source of the next."""

import gzip
import hashlib
import random
import tarfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.client import Client
from tests.support.image import Images
from tests.support.service import Service, peak_kib
from tests.support.tars import chunked, header, member, tar_gz
from tests.support.waiting import wait_until

GZIP = {"Content-Type": "application/gzip"}
NOISE = random.Random(7).randbytes(1 << 20)  # noqa: S311  # a test's
UNKNOWN = "0" * 64


def upload(client: Client, data: Any, **headers: str) -> requests.Response:
    return client.request("POST", "sources", data=data, headers=GZIP | headers)


def project() -> bytes:
    return tar_gz(
        member("./", kind=tarfile.DIRTYPE),
        member("./Makefile", b"all:\n", mtime=1_600_000_000),
        member("./bin/run", b"#!/bin/sh\necho ran\n", mode=0o755),
        member("./way-out", kind=tarfile.SYMTYPE, target="/etc/hostname"),
    )


@pytest.fixture(scope="session")
def source_id(service: Service) -> str:
    """A source that the shared service's admin has uploaded."""
    return str(upload(service.admin, project()).json()["source_id"])


def test_upload_is_identified_by_its_digest(service: Service) -> None:
    data = tar_gz(member(f"file-{uuid.uuid4()}", b"x"))
    ann, bob = service.add_user(f"ann-{uuid.uuid4()}"), service.add_user(f"bob-{uuid.uuid4()}")
    answer = {"source_id": hashlib.sha256(data).hexdigest(), "size": len(data), "files": 1}
    first = upload(ann, data)
    assert (first.status_code, first.json()) == (201, answer)
    path = first.headers["Location"]
    assert path == f"/api/v1/sources/{answer['source_id']}"
    assert (ann.request("GET", path).json(), ann.request("HEAD", path).status_code) == (answer, 200)
    assert bob.request("GET", path).status_code == 404
    refused = bob.post_job(source_id=answer["source_id"])
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (400, "source_id")
    # To Bob it is new, whoever else has the same.
    for client, status in ((ann, 200), (bob, 201), (bob, 200), (ann, 200)):
        # In pieces, of which nobody knows beforehand how many there are.
        again = upload(client, chunked(data, 100))
        assert (again.status_code, again.json()) == (status, answer)
        assert client.request("GET", path).json() == answer
    assert bob.post_job(source_id=answer["source_id"], queue_name="none").status_code == 201
    for job in bob.get("jobs")["jobs"]:
        bob.cancel(job)


def test_job_works_on_an_uploaded_source(api: Client, source_id: str) -> None:
    job = api.run("bin/run; readlink way-out; stat -c %Y Makefile; find . | sort", source_id=source_id)
    assert job["source_id"] == source_id
    assert api.log(job).decode().splitlines() == [
        *("ran", "/etc/hostname", "1600000000"),
        *(".", "./Makefile", "./bin", "./bin/run", "./way-out"),
    ]


def test_user_of_an_image_can_write_to_the_source(api: Client, images: Images, source_id: str) -> None:
    job = api.run(
        "id -u; echo x >>Makefile; touch new bin/new; stat -c %u . bin Makefile",
        source_id=source_id,
        runner_image=images.user_1000,
        code_dir="/job/deep/er",
    )
    assert (job["status"], api.log(job)) == ("completed", b"1000\n" * 4)


def test_upload_can_exceed_other_bodies_and_takes_little_memory(service: Service) -> None:
    megabytes = 64

    def body() -> Iterator[bytes]:
        # What cannot be compressed is stored by gzip as it is.
        data = header("noise", size=megabytes << 20) + NOISE * megabytes + bytes(1024)
        yield gzip.compress(data, 0)

    before_kib = peak_kib(service)
    response = upload(service.admin, body())
    assert (response.status_code, response.json()["size"] > megabytes << 20) == (201, True), response.text
    assert peak_kib(service) - before_kib < 24 << 10
    assert service.admin.request("POST", "jobs", json={"name": "x" * (3 << 20)}).status_code == 413


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Iterator[Service]:
    """A service that takes sources of a mebibyte and runs nothing."""
    home = tmp_path_factory.mktemp("narrow")
    service = Service(home, images.default, concurrency=0, max_source_bytes="1m", stream_slots=4)
    yield service.start()
    service.stop()


@pytest.mark.parametrize("megabytes", [2, 50])
def test_too_large_upload_is_refused_with_a_readable_answer(narrow: Service, megabytes: int) -> None:
    data = gzip.compress(NOISE * 2, 0) + bytes((megabytes - 2) << 20)
    for body in (data, chunked(data, 1 << 16)):
        response = upload(narrow.admin, body)
        assert (response.status_code, response.json()["error"]) == (413, "payload_too_large")
        assert "larger than 1 MiB (--max-source-bytes)" in response.json()["message"]
    bomb = upload(narrow.admin, tar_gz(member("bomb", bytes(4 << 20))))
    assert (bomb.status_code, "when unpacked" in bomb.json()["message"]) == (413, True)
    assert not any((narrow.data_dir / "objects" / ".tmp").iterdir())
    assert list((narrow.data_dir / "objects" / "sources").iterdir()) == []


def test_malformed_source_is_refused(narrow: Service) -> None:
    for data in (b"", b"no gzip", tar_gz(member("../x")), tar_gz(member("x", kind=tarfile.CHRTYPE))):
        response = upload(narrow.admin, data)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_input"), data
    other = narrow.admin.request("POST", "sources", json={})
    assert (other.status_code, other.json()["error"]) == (415, "unsupported_media_type")
    assert "application/gzip" in other.json()["message"]
    assert upload(narrow.anonymous(), project()).status_code == 401
    assert narrow.admin.request("POST", "sources?x=1", data=project(), headers=GZIP).status_code == 400
    assert narrow.admin.request("GET", f"sources/{UNKNOWN}").status_code == 404


def test_upload_uses_a_slot_of_long_requests(narrow: Service) -> None:
    # More than there are places, of every kind that ends in an error.
    for _ in range(3):
        assert upload(narrow.admin, b"no gzip").status_code == 400
        assert upload(narrow.admin, NOISE * 2).status_code == 413
    ann = narrow.add_user("ann")
    with narrow.admin.follow(narrow.admin.submit()), narrow.admin.follow(narrow.admin.submit()):
        busy = upload(narrow.admin, project())
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "5")
        # One user takes no more than half of them.
        assert upload(ann, project()).status_code == 201
        with ann.follow(ann.submit()), ann.follow(ann.submit()):
            assert upload(ann, project()).status_code == 503
    wait_until(lambda: upload(narrow.admin, project()).ok, 10, "the places are free again")


def test_partial_uploads_are_removed_at_start(narrow: Service) -> None:
    objects = narrow.data_dir / "objects"
    stored_id = upload(narrow.admin, project()).json()["source_id"]
    (objects / ".tmp" / "half").write_bytes(b"x")
    (objects / "sources" / "orphan").mkdir()
    (objects / "sources" / "orphan" / "source.tar.gz").write_bytes(b"x")
    narrow.stop()
    narrow.start()
    assert not (objects / ".tmp" / "half").exists()
    assert not (objects / "sources" / "orphan").exists()
    assert narrow.admin.get(f"sources/{stored_id}")["source_id"] == stored_id


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source_id": "x"}, "source_id"),
        ({"source_id": UNKNOWN}, "source_id"),
        ({"source_id": UNKNOWN.upper() + "A"}, "source_id"),
        ({"source_job_id": "x"}, "source_job_id"),
        ({"source_id": UNKNOWN, "source_path": "."}, "source_id"),
        ({"source_job_id": str(uuid.uuid4()), "source_path": "."}, "source_job_id"),
        ({"source_job_id": str(uuid.uuid4()), "source_id": UNKNOWN}, "source_job_id"),
        ({"source_id": UNKNOWN, "source_type": "git", "git_url": "https://example.test/x"}, "source_id"),
    ],
)
def test_job_with_conflicting_source_fields_is_refused(
    idle: Client, fields: dict[str, str], field: str
) -> None:
    response = idle.post_job(**fields)
    assert response.status_code == 400
    assert [item["field"] for item in response.json()["details"]] == [field]


def test_the_artifacts_of_one_job_are_the_source_of_the_next(service: Service) -> None:
    api = service.admin
    build = api.run(
        "cd /job/artifacts; mkdir bin; echo 'echo built' >bin/tool; chmod +x bin/tool; echo x >text"
    )
    job = api.run("bin/tool; find . -type f | sort; test ! -x text", source_job_id=build["job_id"])
    assert (job["status"], api.log(job)) == ("completed", b"built\n./bin/tool\n./text\n"), api.log(job)
    assert job["source_job_id"] == build["job_id"]
    again = api.wait(api.request("POST", f"jobs/{job['job_id']}/rerun").json())
    assert again["status"] == "completed"

    other = service.add_user(f"other-{uuid.uuid4()}")
    assert other.post_job(source_job_id=build["job_id"]).status_code == 403
    assert other.post_job(source_job_id=str(uuid.uuid4())).status_code == 404

    assert api.request("DELETE", f"jobs/{build['job_id']}").status_code == 204
    assert api.request("POST", f"jobs/{job['job_id']}/rerun").status_code == 404

    nothing = api.run("true")
    failed = api.run(source_job_id=nothing["job_id"])
    assert (failed["status"], failed["error"]) == (
        "failed",
        f"job {nothing['job_id']}, whose artifacts are the source, has no artifacts",
    )
    assert failed["error"].encode() in api.log(failed)
