"""The fields of a job: accepted values, defaults, and refused values."""

import json
from typing import Any

import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.image import Images
from tests.support.service import Service

KIB = 1 << 10
GIT = {"source_type": "git", "git_url": "https://example.test/project.git"}

DEFAULTS: dict[str, Any] = {
    "description": "",
    "git_url": None,
    "git_ref": None,
    "source_path": None,
    "job_env_vars": {},
    "secret_env_vars": [],
    "queue_name": "default",
    "timeout_seconds": 3600,
    "priority": 0,
    "code_dir": "/job/src",
    "job_dir": "/job/src",
    "cpu_limit": None,
    "memory_limit": None,
    "retries": 0,
    "artifacts": None,
    "services": None,
    "source_id": None,
    "source_job_id": None,
    "git_submodules": None,
    "git_depth": None,
    "git_tags": None,
}
BODY = {"name": "test", "job_command": "true", "source_type": "copy"}
NOT_YET = {
    "started_at": None,
    "completed_at": None,
    "exit_code": None,
    "error": None,
    "worker_id": None,
    "logs_object_key": None,
    "artifacts_object_key": None,
    "rerun_of": None,
    "run_id": None,
    "node": None,
    "pinned": False,
    "log_truncated": False,
}
OTHERS = {"job_id", "user_id", "status", "created_at", "updated_at", "queued_at", "corndogs_task_id"}


def test_missing_fields_have_defaults(idle: Client, images: Images) -> None:
    job = idle.submit()
    expected = BODY | DEFAULTS | NOT_YET | {"runner_image": images.default, "attempt": 1, "status": "queued"}
    assert {name: job[name] for name in expected} == expected
    assert job.keys() == expected.keys() | OTHERS
    assert idle.job(job) == job


def test_answer_has_the_location_of_the_job(idle: Client) -> None:
    response = idle.post_job()
    assert response.headers["Location"] == f"/api/v1/jobs/{response.json()['job_id']}"
    assert idle.request("GET", response.headers["Location"]).json() == response.json()


def test_null_means_absent(idle: Client) -> None:
    nulls = dict.fromkeys(DEFAULTS | {"runner_image": None})
    response = idle.request("POST", "jobs", json=BODY | nulls)
    assert response.status_code == 201, response.text
    assert response.json()["timeout_seconds"] == 3600


def test_job_dir_defaults_to_code_dir(idle: Client) -> None:
    job = idle.submit(code_dir="/elsewhere")
    assert (job["code_dir"], job["job_dir"]) == ("/elsewhere", "/elsewhere")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n"),
        ("name", "ü" * 255),
        ("job_command", "x" * 100 * KIB),
        ("description", "x" * 64 * KIB),
        ("runner_image", "localhost:5000/team/image@sha256:" + "a" * 64),
        ("job_env_vars", {"_a1": "", "B": "x" * 32 * KIB}),
        ("job_env_vars", {f"N{i}": "" for i in range(1000)}),
        ("queue_name", "A.b_c-1"),
        ("queue_name", "q" * 128),
        ("timeout_seconds", 1),
        ("timeout_seconds", 604800),
        ("priority", -(2**31)),
        ("priority", 2**31 - 1),
        ("retries", 10),
        ("code_dir", "/a/b c"),
        ("job_dir", "/"),
        ("cpu_limit", 0.5),
        ("cpu_limit", 2),
    ],
)
def test_values_within_the_limits_are_accepted(idle: Client, field: str, value: Any) -> None:
    assert idle.submit(**{field: value})[field] == value


@pytest.mark.parametrize(
    ("limit", "size_bytes"), [(64 << 20, 64 << 20), ("512m", 512 << 20), ("2g", 2 << 30), ("8192K", 8 << 20)]
)
def test_memory_is_given_in_bytes_or_with_a_unit(idle: Client, limit: Any, size_bytes: int) -> None:
    assert idle.submit(memory_limit=limit)["memory_limit"] == size_bytes


@pytest.mark.parametrize(
    "git_url",
    [
        "https://user:password@example.test/project.git",
        "http://example.test/project",
        "ssh://git@example.test:22/project",
        "git://example.test/project",
        "git@example.test:team/project.git",
    ],
)
def test_every_form_of_git_url_is_accepted(idle: Client, git_url: str) -> None:
    job = idle.submit(source_type="git", git_url=git_url, git_ref="refs/heads/a/b")
    expected = git_url.replace("user:password", "[REDACTED]")
    assert (job["git_url"], job["git_ref"]) == (expected, "refs/heads/a/b")


@pytest.mark.parametrize(("sent", "expected"), [(None, True), (True, True), (False, False)])
def test_submodules_are_fetched_by_default(idle: Client, sent: bool | None, expected: bool) -> None:
    job = idle.submit(**GIT, git_submodules=sent)
    assert job["git_submodules"] is expected
    again = idle.request("POST", f"jobs/{job['job_id']}/rerun").json()
    assert (again["rerun_of"], again["git_submodules"]) == (job["job_id"], expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1, False)),
        ({"git_depth": None, "git_tags": None}, (1, False)),
        ({"git_depth": 0, "git_tags": True}, (0, True)),
        ({"git_depth": 2**31 - 1, "git_tags": False}, (2**31 - 1, False)),
    ],
)
def test_one_commit_without_tags_is_fetched_by_default(
    idle: Client, fields: dict[str, Any], expected: tuple[int, bool]
) -> None:
    job = idle.submit(**GIT, **fields)
    assert (job["git_depth"], job["git_tags"]) == expected
    again = idle.request("POST", f"jobs/{job['job_id']}/rerun").json()
    assert (again["rerun_of"], again["git_depth"], again["git_tags"]) == (job["job_id"], *expected)


BAD: list[tuple[str, Any]] = [
    ("name", None),
    ("name", ""),
    ("name", "n" * 256),
    ("name", "a\0b"),
    ("name", 5),
    ("name", ["n"]),
    ("job_command", None),
    ("job_command", ""),
    ("job_command", "echo \0"),
    ("job_command", "x" * (100 * KIB + 1)),
    ("job_command", "é" * 60 * KIB),
    ("job_command", ["true"]),
    ("source_type", None),
    ("source_type", "svn"),
    ("source_type", True),
    ("description", "x" * (64 * KIB + 1)),
    ("description", "é" * 33 * KIB),
    ("description", 5),
    ("git_url", "https://example.test/project.git"),
    ("git_ref", "main"),
    ("git_submodules", True),
    ("git_submodules", False),
    ("git_depth", 1),
    ("git_tags", False),
    ("source_path", "/etc"),
    ("source_path", "../.."),
    ("source_path", "nothing-there"),
    ("source_path", "a\0b"),
    ("source_path", ""),
    ("source_path", 5),
    ("runner_image", ""),
    ("runner_image", "x" * 256),
    ("runner_image", "a b"),
    ("runner_image", "-v"),
    ("runner_image", "a\nb"),
    ("runner_image", 5),
    ("job_env_vars", ["A"]),
    ("job_env_vars", {"1A": ""}),
    ("job_env_vars", {"A-B": ""}),
    ("job_env_vars", {"A=B": ""}),
    ("job_env_vars", {"": ""}),
    ("job_env_vars", {"Ä": ""}),
    ("job_env_vars", {"A\n": ""}),
    ("job_env_vars", {"A": "\0"}),
    ("job_env_vars", {"A": "x" * (32 * KIB + 1)}),
    ("job_env_vars", {f"N{i}": "" for i in range(1001)}),
    ("job_env_vars", {f"N{i}": "x" * 32 * KIB for i in range(32)}),
    ("queue_name", ""),
    ("queue_name", "a b"),
    ("queue_name", "a/b"),
    ("queue_name", "a\n"),
    ("queue_name", "q" * 129),
    ("queue_name", 5),
    ("timeout_seconds", 0),
    ("timeout_seconds", -1),
    ("timeout_seconds", 604801),
    ("timeout_seconds", "5"),
    ("timeout_seconds", 5.5),
    ("timeout_seconds", True),
    ("priority", 2**31),
    ("priority", -(2**31) - 1),
    ("priority", "1"),
    ("priority", True),
    ("retries", -1),
    ("retries", 11),
    ("retries", "1"),
    ("retries", True),
    ("code_dir", "src"),
    ("code_dir", ""),
    ("code_dir", "/a/../b"),
    ("code_dir", "/a\0b"),
    ("code_dir", 5),
    ("job_dir", "src"),
    ("job_dir", "/.."),
    ("cpu_limit", 0),
    ("cpu_limit", -1),
    ("cpu_limit", "1"),
    ("cpu_limit", True),
    ("memory_limit", 0),
    ("memory_limit", -1),
    ("memory_limit", "12x"),
    ("memory_limit", "1.5g"),
    ("memory_limit", ""),
    ("memory_limit", True),
    ("memory_limit", [1]),
    ("memory_limit", 2**63),
    ("timeout_second", 5),
    ("status", "queued"),
]


def short(value: Any) -> str:
    """Return a test id that is readable."""
    return repr(value)[:24].replace("\0", "")


@pytest.mark.parametrize(("field", "value"), BAD, ids=short)
def test_value_outside_of_the_limits_is_refused_by_name(idle: Client, field: str, value: Any) -> None:
    assert_blames(idle.post_job(**{field: value}), field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("git_url", None),
        ("git_url", ""),
        ("git_url", "--upload-pack=touch /tmp/x"),
        ("git_url", "ext::sh -c true"),
        ("git_url", "ftp://example.test/project"),
        ("git_url", "file:///etc"),
        ("git_url", "/etc"),
        ("git_url", "relative/path"),
        ("git_url", "https://example.test/a\nb"),
        ("git_url", "https://example.test/" + "a" * 5000),
        ("git_url", 5),
        ("git_ref", ""),
        ("git_ref", "-x"),
        ("git_ref", "a..b"),
        ("git_ref", "a b"),
        ("git_ref", "a\x07"),
        ("git_ref", "r" * 256),
        ("git_ref", 5),
        ("git_submodules", "yes"),
        ("git_submodules", 1),
        ("git_depth", -1),
        ("git_depth", 2**31),
        ("git_depth", True),
        ("git_depth", "1"),
        ("git_depth", 1.5),
        ("git_tags", "yes"),
        ("git_tags", 1),
        ("source_path", "sources"),
    ],
    ids=short,
)
def test_a_bad_git_source_is_refused_by_name(idle: Client, field: str, value: Any) -> None:
    assert_blames(idle.post_job(**GIT | {field: value}), field)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_malformed_number_is_refused(idle: Client, text: str) -> None:
    body = json.dumps(BODY)[:-1] + f', "cpu_limit": {text}}}'
    response = idle.request("POST", "jobs", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text


def test_invalid_unicode_is_refused(idle: Client) -> None:
    body = json.dumps(BODY | {"description": "?"}).replace("?", r"\ud800")
    response = idle.request("POST", "jobs", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text


def test_one_answer_names_all_bad_fields(idle: Client) -> None:
    details = idle.post_job(name=5, priority="high", colour="red").json()["details"]
    assert {item["field"] for item in details} == {"name", "priority", "colour"}


def test_refused_job_is_not_stored(idle: Client) -> None:
    before = idle.get("jobs")["total"]
    assert idle.post_job(source_path="/etc").status_code == 400
    assert idle.get("jobs")["total"] == before


def test_the_server_sets_limits_and_defaults(new_service: NewService) -> None:
    client = new_service(
        concurrency=0,
        max_cpu_limit=2,
        default_cpu_limit=0.5,
        max_memory_limit="1g",
        default_memory_limit="64m",
    ).admin
    job = client.submit()
    assert (job["cpu_limit"], job["memory_limit"]) == (0.5, 64 << 20)
    job = client.submit(cpu_limit=2, memory_limit="1g")
    assert (job["cpu_limit"], job["memory_limit"]) == (2, 1 << 30)
    assert_blames(client.post_job(cpu_limit=2.5), "cpu_limit")
    assert_blames(client.post_job(memory_limit="1025m"), "memory_limit")


def test_maximum_is_the_default_if_no_default_is_set(new_service: NewService) -> None:
    job = new_service(concurrency=0, max_cpu_limit=2, max_memory_limit="1g").admin.submit()
    assert (job["cpu_limit"], job["memory_limit"]) == (2, 1 << 30)


def test_source_path_is_absolute_or_relative_to_the_first_root(idle_service: Service) -> None:
    project = idle_service.source_root / "named"
    project.mkdir()
    for path in ("named", str(project)):
        assert idle_service.admin.submit(source_path=path)["source_path"] == path


def assert_blames(response: Any, field: str) -> None:
    """The answer is a 400 whose details name ``field`` and no other."""
    assert response.status_code == 400, response.text
    error = response.json()
    assert error["error"] == "invalid_input"
    assert {item["field"] for item in error["details"]} == {field}
    assert all(item["message"] for item in error["details"])
