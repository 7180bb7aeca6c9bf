"""Looking at jobs: lists and waiting for a change."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import Client, Job
from tests.support.service import Service, peak_kib


@pytest.fixture(scope="module")
def user(idle_service: Service) -> Client:
    """A user who has submitted ten jobs."""
    return idle_service.add_user("lists")


@pytest.fixture(scope="module")
def jobs(user: Client) -> list[Job]:
    """The user's jobs, newest first."""
    submitted = [user.submit(name=f"job {i % 3}", queue_name=f"lists.{i % 2}") for i in range(9)]
    submitted.append(user.submit(name="Job_0%", source_type="git", git_url="https://example.test/x"))
    submitted[4] = user.cancel(submitted[4])
    return [user.job(job) for job in reversed(submitted)]


def test_page_is_newest_first_and_has_the_total(user: Client, jobs: list[Job]) -> None:
    assert user.get("jobs") == {"jobs": jobs, "total": 10, "limit": 20, "offset": 0, "next_cursor": None}
    page = user.get("jobs", limit=3, offset=2)
    assert (page["jobs"], page["total"], page["limit"], page["offset"]) == (jobs[2:5], 10, 3, 2)
    beyond = user.get("jobs", offset=50)
    assert (beyond["jobs"], beyond["total"], beyond["next_cursor"]) == ([], 10, None)


@pytest.mark.parametrize("limit", [1, 3, 5, 10])
def test_cursor_pages_have_no_gaps_or_duplicates(user: Client, jobs: list[Job], limit: int) -> None:
    page = user.get("jobs", limit=limit)
    listed = page["jobs"]
    while page["next_cursor"] is not None:
        page = user.get("jobs", limit=limit, cursor=page["next_cursor"])
        assert page["total"] == 10
        listed += page["jobs"]
    assert listed == jobs


def test_new_jobs_do_not_change_following_pages(idle_service: Service) -> None:
    user = idle_service.add_user("pages")
    submitted = [user.submit() for _ in range(6)]
    page = user.get("jobs", limit=3)
    user.submit()
    rest = user.get("jobs", limit=3, cursor=page["next_cursor"])
    assert page["jobs"] + rest["jobs"] == submitted[::-1]


def test_cursor_with_offset_is_refused(user: Client, jobs: list[Job]) -> None:
    cursor = user.get("jobs", limit=1)["next_cursor"]
    assert user.request("GET", "jobs", params={"cursor": cursor, "offset": 0}).status_code == 400


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"status": "cancelled"}, lambda job: job["status"] == "cancelled"),
        ({"status": ["cancelled", "queued"]}, lambda job: True),
        ({"status": "running"}, lambda job: False),
        ({"queue_name": "lists.1"}, lambda job: job["queue_name"] == "lists.1"),
        ({"queue_name": "lists"}, lambda job: False),
        ({"source_type": "git"}, lambda job: job["source_type"] == "git"),
        ({"name": "job"}, lambda job: job["name"].startswith("job")),
        (
            {"name": "job 1", "status": "queued"},
            lambda job: job["name"] == "job 1" and job["status"] == "queued",
        ),
        ({"name": "Job_0%"}, lambda job: job["name"] == "Job_0%"),
        ({"name": "%"}, lambda job: False),
    ],
)
def test_filters_return_matching_jobs(
    user: Client, jobs: list[Job], query: dict[str, Any], matches: Any
) -> None:
    expected = [job for job in jobs if matches(job)]
    page = user.get("jobs", **query)
    assert (page["jobs"], page["total"]) == (expected, len(expected))


def test_admin_can_filter_by_user(idle: Client, user: Client, jobs: list[Job]) -> None:
    user_id = user.get("users/me")["user_id"]
    assert idle.get("jobs", user_id=user_id)["jobs"] == jobs
    assert user.get("jobs", user_id=user_id)["jobs"] == jobs
    admin_id = idle.get("users/me")["user_id"]
    assert user.request("GET", "jobs", params={"user_id": admin_id}).status_code == 403


def test_wait_answers_when_the_status_changes(idle: Client, idle_service: Service) -> None:
    job = idle.submit()
    other = idle_service.client(idle.token or "")
    with ThreadPoolExecutor(1) as pool:
        start_s = time.monotonic()
        waiting = pool.submit(other.job, job, wait=30)
        # The answer comes at once, whether the cancel precedes the wait or not.
        idle.cancel(job)
        assert waiting.result(10)["status"] == "cancelled"
        assert time.monotonic() - start_s < 5


def test_wait_answers_at_its_timeout(idle: Client) -> None:
    start_s = time.monotonic()
    assert idle.job(idle.submit(), wait=0.5)["status"] == "queued"
    assert 0.5 <= time.monotonic() - start_s < 5


def test_wait_for_an_ended_job_answers_at_once(idle: Client) -> None:
    job = idle.cancel(idle.submit())
    start_s = time.monotonic()
    assert idle.job(job, wait=30) == job
    assert time.monotonic() - start_s < 5


def test_wait_sees_each_change_of_a_short_job(api: Client) -> None:
    job = api.submit()
    statuses = [job["status"]]
    while statuses[-1] != "completed":
        statuses.append(api.job(job, wait=20)["status"])
        assert len(statuses) < 10
    assert set(statuses) <= {"queued", "running", "completed"}


def test_list_is_limited_in_bytes_and_marks_cut_fields(idle_service: Service) -> None:
    user = idle_service.add_user("large")
    # As JSON each takes six times as much.
    command, text = "\x01" * (100 << 10), "\x01" * (32 << 10)
    variables = {f"NAME_{number}": text for number in range(5)}
    large = [user.submit(command, job_env_vars=variables, artifacts=["x" * 999] * 99) for _ in range(40)]
    small = user.submit("echo small", job_env_vars={"A_TOKEN": "very secret"})
    before_kib = peak_kib(idle_service)
    for limit in (1000, 50):
        answer = user.request("GET", "jobs", params={"limit": limit})
        assert (answer.status_code, len(answer.content) <= 8 << 20) == (200, True)
        page = answer.json()
        # What is small is whole, and has no flag.
        assert page["jobs"][0] == small
        assert [job["job_id"] for job in page["jobs"][1:]] == [job["job_id"] for job in reversed(large)]
        for job in page["jobs"][1:]:
            assert job["truncated"] is True
            assert 0 < len(job["job_command"]) < len(command)
            assert command.startswith(job["job_command"])
            # The database cuts it, to the share that each of ``limit`` jobs may have.
            assert len(job["job_command"]) <= (8 << 20) // limit
    # All of them take 64 MB as JSON.
    assert peak_kib(idle_service) - before_kib < 64 << 10
    assert user.job(large[0]) == large[0]
    for job in (*large, small):
        user.cancel(job)


def test_list_within_the_limit_is_complete(idle_service: Service) -> None:
    user = idle_service.add_user("middling")
    submitted = [user.submit("é" * 40_000, description="x" * 60_000) for _ in range(20)]
    assert user.get("jobs")["jobs"] == submitted[::-1]
    for job in submitted:
        user.cancel(job)
