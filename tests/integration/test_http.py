"""The conventions that every address keeps to."""

import json
import uuid
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.service import Service

JSON = {"Content-Type": "application/json"}
UNKNOWN = "3f2b8c0a-5d1e-4c7b-9a6f-0e1d2c3b4a59"


def assert_error(response: Any, status: int, code: str) -> None:
    """The answer is an error in the shape that all have."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-ID"]
    error = response.json()
    assert error["error"] == code
    assert error["message"]
    assert error.keys() <= {"error", "message", "details"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "not_found"),
        ("GET", "nothing", {}, 404, "not_found"),
        ("GET", "jobs/", {}, 404, "not_found"),
        ("GET", f"jobs/{UNKNOWN}", {}, 404, "not_found"),
        ("GET", "jobs/not-a-uuid", {}, 404, "not_found"),
        ("GET", f"jobs/{UNKNOWN}/logs", {}, 404, "not_found"),
        ("GET", f"jobs/{UNKNOWN}/artifacts", {}, 404, "not_found"),
        ("GET", f"jobs/{UNKNOWN}/artifacts.tar.gz", {}, 404, "not_found"),
        ("PUT", f"jobs/{UNKNOWN}/cancel", {}, 404, "not_found"),
        ("POST", f"jobs/{UNKNOWN}/rerun", {}, 404, "not_found"),
        ("DELETE", f"jobs/{UNKNOWN}", {}, 404, "not_found"),
        ("DELETE", f"tokens/{UNKNOWN}", {}, 404, "not_found"),
        ("PATCH", "jobs", {}, 405, "method_not_allowed"),
        ("DELETE", "/api/v1/health", {}, 405, "method_not_allowed"),
        ("POST", "jobs", {"data": "{", "headers": JSON}, 400, "invalid_input"),
        ("POST", "jobs", {"data": b"\xff", "headers": JSON}, 400, "invalid_input"),
        ("POST", "jobs", {"data": "", "headers": JSON}, 400, "invalid_input"),
        ("POST", "jobs", {"json": []}, 400, "invalid_input"),
        ("POST", "jobs", {"json": "text"}, 400, "invalid_input"),
        ("POST", "jobs", {"data": "null", "headers": JSON}, 400, "invalid_input"),
        ("POST", "jobs", {"data": "[" * 100_000, "headers": JSON}, 400, "invalid_input"),
        ("POST", "jobs", {"data": "name=test"}, 415, "unsupported_media_type"),
        ("POST", "jobs", {"data": {"name": "test"}}, 415, "unsupported_media_type"),
        ("POST", "tokens", {"json": {}}, 400, "invalid_input"),
        ("POST", "tokens", {"json": {"name": "n", "scope": "all"}}, 400, "invalid_input"),
    ],
)
def test_every_error_has_one_shape(
    idle: Client, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    assert_error(idle.request(method, path, **options), status, code)


def test_a_body_that_is_too_large_is_refused_and_the_connection_stays_usable(idle_service: Service) -> None:
    client = idle_service.anonymous()
    client.token = idle_service.admin.token
    for _ in range(5):
        response = client.request("POST", "jobs", json={"name": "x" * (3 << 20)})
        assert_error(response, 413, "payload_too_large")
        assert client.request("GET", "jobs").status_code == 200


def test_unsupported_method_is_answered_with_the_allowed_ones(idle: Client) -> None:
    assert {"GET", "POST"} <= set(idle.request("PATCH", "jobs").headers["Allow"].split(", "))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "jobs"),
        ("GET", "jobs"),
        ("GET", "jobs/{job_id}"),
        ("DELETE", "jobs/{job_id}"),
        ("PUT", "jobs/{job_id}/cancel"),
        ("POST", "jobs/{job_id}/cancel"),
        ("POST", "jobs/{job_id}/rerun"),
        ("GET", "jobs/{job_id}/logs"),
        ("GET", "jobs/{job_id}/artifacts"),
        ("GET", "jobs/{job_id}/artifacts/a"),
        ("GET", "jobs/{job_id}/artifacts.tar.gz"),
        ("GET", "sources/{job_id}"),
        ("GET", "queues"),
        ("GET", "workers"),
        ("GET", "tokens"),
        ("POST", "tokens"),
        ("DELETE", f"tokens/{UNKNOWN}"),
        ("GET", "users/me"),
        ("GET", "health"),
        ("GET", "ready"),
        ("GET", "metrics"),
    ],
)
def test_an_unknown_query_parameter_is_refused_by_name(idle: Client, method: str, path: str) -> None:
    job = idle.submit()
    body = {"name": "test", "job_command": "true", "source_type": "copy"} if path == "jobs" else {"name": "n"}
    options = {"json": body} if method == "POST" and path in ("jobs", "tokens") else {}
    response = idle.request(method, path.format(**job), params={"colour": "red"}, **options)
    assert_error(response, 400, "invalid_input")
    assert [item["field"] for item in response.json()["details"]] == ["colour"]


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("jobs", "limit", "0"),
        ("jobs", "limit", "1001"),
        ("jobs", "limit", "many"),
        ("jobs", "offset", "-1"),
        ("jobs", "cursor", "nonsense"),
        ("jobs", "cursor", "MTIz"),
        ("jobs", "status", "done"),
        ("jobs", "source_type", "svn"),
        ("jobs/{job_id}", "wait", "-1"),
        ("jobs/{job_id}", "wait", "61"),
        ("jobs/{job_id}", "wait", "nan"),
        ("jobs/{job_id}/logs", "tail", "-1"),
        ("jobs/{job_id}/logs", "tail", "all"),
        ("jobs/{job_id}/logs", "attempt", "0"),
        ("jobs/{job_id}/logs", "follow", "perhaps"),
    ],
)
def test_a_bad_query_parameter_is_refused_by_name(
    idle: Client, path: str, parameter: str, value: str
) -> None:
    response = idle.request("GET", path.format(**idle.submit()), params={parameter: value})
    assert_error(response, 400, "invalid_input")
    assert {item["field"].split(".")[0] for item in response.json()["details"]} == {parameter}


def test_request_id_of_a_client_is_returned_and_logged(idle_service: Service) -> None:
    mine = f"test-{uuid.uuid4()}"
    response = idle_service.admin.request("GET", "jobs", headers={"X-Request-ID": mine})
    assert response.headers["X-Request-ID"] == mine
    lines = [json.loads(line) for line in idle_service.log_text().splitlines() if mine in line]
    assert [line["path"] for line in lines if line["request_id"] == mine] == ["/api/v1/jobs"]


@pytest.mark.parametrize("sent", ["", "a b", "x" * 1000, "<script>"])
def test_malformed_request_id_is_replaced(idle: Client, sent: str) -> None:
    answered = idle.request("GET", "jobs", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    assert answered != sent
    assert uuid.UUID(answered)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "jobs/{job_id}/cancel", 200),
        ("POST", "jobs/{job_id}/cancel", 200),
        ("POST", "jobs/{job_id}/rerun", 201),
        ("DELETE", "jobs/{job_id}", 204),
    ],
)
def test_empty_body_with_a_json_content_type_is_accepted(
    idle: Client, method: str, path: str, status: int
) -> None:
    job = idle.submit()
    assert idle.request(method, path.format(**job), headers=JSON).status_code == status


def test_times_and_ids_have_the_documented_format(idle: Client) -> None:
    job = idle.submit()
    for name in ("created_at", "updated_at", "queued_at"):
        assert len(job[name]) == len("2026-01-31T12:00:00.000Z")
        assert job[name].endswith("Z")
    assert uuid.UUID(job["job_id"]).version == 7
