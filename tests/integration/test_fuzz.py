"""What nobody would send on purpose: by Schemathesis, and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.fuzz import fuzz

JSON = {"Content-Type": "application/json"}
_JOB: dict[str, Any] = {"name": "n", "job_command": "true", "source_type": "copy"}


@pytest.mark.timeout(900)  # some thousand requests, of which each start of a run takes a process of its own
def test_every_answer_to_generated_requests_conforms_to_the_document(
    new_service: NewService, tmp_path: Path
) -> None:
    assert fuzz(new_service(concurrency=0), tmp_path, max_examples=2, seed=1) >= 300


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b'{"name": "n", "name": "m"}', 400, "name"),
        (b'{"job_env_vars": {"A": "1", "A": "2"}}', 400, "A"),
        (b'{"job_env_vars":' * 50_000, 400, None),
        (json.dumps(_JOB | {"job_env_vars": [[[[]]]]}).encode(), 400, "job_env_vars"),
        (json.dumps(_JOB | {"name": "\ud800"}).encode(), 400, None),
        (json.dumps(_JOB | {"name": "a\0b"}).encode(), 400, "name"),
        (json.dumps(_JOB | {"description": "a\0b"}).encode(), 201, None),
        (json.dumps(_JOB | {"queue_name": "default\n"}).encode(), 400, "queue_name"),
        (json.dumps(_JOB | {"priority": 10**4000}).encode(), 400, "priority"),
        (json.dumps(_JOB | {"priority": 2**31}).encode(), 400, "priority"),
        (json.dumps(_JOB | {"memory_limit": 2**63}).encode(), 400, "memory_limit"),
        (json.dumps(_JOB | {"memory_limit": "9" * 4000 + "g"}).encode(), 400, "memory_limit"),
        (json.dumps(_JOB)[:-1].encode() + b', "cpu_limit": 1e999}', 400, "cpu_limit"),
        (json.dumps(_JOB)[:-1].encode() + b', "priority": 1' + b"0" * 5000 + b"}", 400, None),
        (b'{"name": "' + b"x" * (10 << 20) + b'"}', 413, None),
        (json.dumps(_JOB).encode("utf-16"), 400, None),
    ],
    ids=range(17),
)
def test_hostile_body_is_refused(idle: Client, body: bytes, status: int, field: str | None) -> None:
    response = idle.request("POST", "jobs", data=body, headers=JSON)
    assert response.status_code == status, response.text
    if field is not None:
        assert field in [item["field"] for item in response.json()["details"]]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "multipart/form-data; boundary=x", "a", "json/\xff"]
)
def test_other_content_type_is_refused(idle: Client, content_type: str) -> None:
    headers = {"Content-Type": content_type.encode("latin-1")}
    for path in ("jobs", "tokens"):
        response = idle.request("POST", path, data=json.dumps(_JOB), headers=headers)
        assert response.status_code == 415, response.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "QUERY", "BREW"])
def test_other_method_is_refused(idle: Client, method: str) -> None:
    response = idle.request(method, "jobs")
    assert response.status_code == 405, response.text
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))


@pytest.mark.parametrize(
    "address",
    [
        "jobs/%00",
        "jobs/%ff%fe/logs",
        "jobs/..%2f..%2fetc%2fpasswd",
        "jobs/{job_id}/artifacts/%00",
        "jobs/{job_id}/artifacts/..%2f..%2f..%2freactorcide.db",
        "jobs/{job_id}/artifacts//etc/passwd",
        "jobs/{job_id}/logs?attempt=2&follow=true",
        "jobs/{job_id}/logs?attempt=99999999999999999999",
        "jobs/" + "x" * 3000,
    ],
)
def test_unknown_path_is_refused(idle: Client, address: str) -> None:
    assert idle.request("GET", address.format(**idle.submit())).status_code == 404


@pytest.mark.parametrize("query", ["name=%00", "name=%ff", "queue_name=%ed%a0%80", "name=%25_%27;--"])
def test_filter_without_matches_gives_an_empty_list(idle: Client, query: str) -> None:
    assert idle.get(f"jobs?{query}")["jobs"] == []


def test_unknown_field_is_refused_even_if_null(idle: Client) -> None:
    job = {"name": "test", "job_command": "true", "source_type": "copy", "nofield": None}
    response = idle.request("POST", "jobs", json=job)
    assert response.status_code == 400
    assert "nofield" in response.text


def test_first_unknown_fields_are_named(idle: Client) -> None:
    response = idle.request("POST", "jobs", json=_JOB | {f"field-{number}": 1 for number in range(100_000)})
    assert response.status_code == 400
    assert (len(response.json()["details"]), len(response.content) < 20_000) == (20, True)


def test_too_long_path_is_refused(idle: Client) -> None:
    response = idle.request("GET", "jobs?name=" + "x" * 5000)
    assert (response.status_code, response.json()["error"]) == (414, "invalid_input")
