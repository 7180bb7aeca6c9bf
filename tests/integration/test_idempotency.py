"""``Idempotency-Key``: a submission that is sent again makes no second job."""

import contextlib
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from reactorcide import crashpoints
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until

JOB = {"name": "test", "job_command": "true", "source_type": "copy"}


def submit(client: Client, key: str, **fields: Any) -> requests.Response:
    return client.request("POST", "jobs", json=JOB | fields, headers={"Idempotency-Key": key})


@pytest.fixture
def user(idle_service: Service) -> Client:
    """A user whose jobs can be counted."""
    return idle_service.add_user(f"user-{uuid.uuid4()}")


def test_repeated_request_returns_the_same_job(user: Client) -> None:
    first = submit(user, "build 17/4", priority=3)
    assert (first.status_code, first.headers["Location"]) == (201, f"/api/v1/jobs/{first.json()['job_id']}")
    # However the JSON is written.
    again = user.request(
        "POST",
        "jobs",
        data=b'{"source_type":"copy", "priority":3, "description":null, "job_command":"true", "name":"test"}',
        headers={"Idempotency-Key": "build 17/4", "Content-Type": "application/json"},
    )
    assert again.status_code == 200, again.text
    assert again.json() == user.job(first.json())
    # The answer is the job as it is by now.
    user.cancel(first.json())
    assert submit(user, "build 17/4", priority=3).json()["status"] == "cancelled"
    assert user.get("jobs")["total"] == 1


def test_a_key_is_for_one_body_and_for_one_user(idle_service: Service, user: Client) -> None:
    first = submit(user, "key")
    other = submit(user, "key", priority=1)
    assert (other.status_code, other.json()["error"]) == (409, "conflict")
    assert "Idempotency-Key" in other.json()["message"]
    elsewhere = submit(idle_service.admin, "key")
    assert elsewhere.status_code == 201
    assert elsewhere.json()["job_id"] != first.json()["job_id"]
    assert submit(user, "another key").status_code == 201
    assert user.get("jobs")["total"] == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside", "ü".encode("latin-1")])
def test_a_bad_key_is_refused_by_name(user: Client, key: str) -> None:
    response = submit(user, key)
    assert response.status_code == 400, response.text
    assert [item["field"] for item in response.json()["details"]] == ["Idempotency-Key"]
    assert user.get("jobs")["total"] == 0


def test_deleted_job_is_not_submitted_again(user: Client) -> None:
    job = submit(user, "key").json()
    assert user.request("DELETE", f"jobs/{job['job_id']}").status_code == 204
    again = submit(user, "key")
    assert (again.status_code, "deleted" in again.json()["message"]) == (409, True)
    assert user.get("jobs")["total"] == 0


def test_refused_request_does_not_use_the_key(user: Client) -> None:
    assert submit(user, "key", source_path="not-there").status_code == 400
    assert submit(user, "key").status_code == 201


def test_concurrent_requests_create_one_job(idle_service: Service, user: Client) -> None:
    answers: list[requests.Response] = []
    ready = threading.Barrier(12)

    def send() -> None:
        client = Client(idle_service.base_url, user.token)
        ready.wait()
        answers.append(submit(client, "key"))
        client.close()

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert user.get("jobs")["total"] == 1


def test_crash_before_the_answer_creates_no_second_job(new_service: NewService, tmp_path: Path) -> None:
    marker = tmp_path / "armed"
    service = new_service({crashpoints.VARIABLE: f"submit-committed={marker}"}, concurrency=0)
    marker.touch()
    with contextlib.suppress(requests.ConnectionError):
        submit(service.admin, "key")
    wait_until(lambda: not marker.exists(), 20, "the service dies with the job committed")
    service.kill()
    service.start()
    again = submit(service.admin, "key")
    assert again.status_code == 200, again.text
    assert [job["job_id"] for job in service.admin.get("jobs")["jobs"]] == [again.json()["job_id"]]
    wait_until(lambda: service.admin.job(again.json())["status"] == "queued", 20, "it is queued after all")
