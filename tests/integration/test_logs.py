"""The output of a job is stored byte for byte, and can be read and followed."""

import hashlib
import time

import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until


def test_binary_output_is_stored_byte_for_byte(api: Client) -> None:
    job = api.run(
        "head -c 5000000 /dev/urandom >/job/artifacts/printed; cat /job/artifacts/printed", timeout_seconds=60
    )
    printed = api.log(job)
    assert len(printed) == 5_000_000
    (artifact,) = api.artifacts(job)
    assert hashlib.sha256(printed).hexdigest() == artifact["sha256"]


def test_the_order_is_exact_within_each_stream(api: Client) -> None:
    job = api.run("for i in $(seq 2000); do echo out $i; echo err $i >&2; done")
    lines = api.log(job).splitlines()
    for stream in (b"out", b"err"):
        own = [line for line in lines if line.startswith(stream)]
        assert own == [b"%s %d" % (stream, i) for i in range(1, 2001)]
    assert len(lines) == 4000


def test_log_is_served_as_utf_8_text(api: Client) -> None:
    job = api.run("echo ü")
    response = api.request("GET", f"jobs/{job['job_id']}/logs")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert response.text == "ü\n"


def test_stored_log_equals_the_api_answer(service: Service) -> None:
    job = service.admin.run("seq 1000; exit 1")
    stored = service.object_path(job["logs_object_key"])
    wait_until(stored.exists, 20, "the log is in the object store")
    assert stored.read_bytes() == service.admin.log(job)


def test_log_is_readable_while_the_job_runs(api: Client) -> None:
    job = api.wait(api.submit("echo early; sleep 60"), "running")
    wait_until(lambda: api.log(job) == b"early\n", 20, "what is printed can be read")
    assert api.job(job)["status"] == "running"
    api.cancel(job)


def test_log_of_a_waiting_job_is_empty(idle: Client) -> None:
    assert idle.log(idle.submit()) == b""


def test_the_last_lines_of_a_log_can_be_requested(api: Client) -> None:
    ended = api.run("seq 100000")
    cut = api.run("printf 'one\\ntwo\\nthree'")
    silent = api.run("true")
    whole = api.log(ended)
    lines = whole.splitlines(keepends=True)
    for tail in (0, 1, 2, 99_999):
        assert api.log(ended, tail=tail) == b"".join(lines[len(lines) - tail :])
    assert api.log(ended, tail=100_000) == api.log(ended, tail=1_000_000) == whole
    assert [api.log(cut, tail=tail) for tail in (0, 1, 2, 3, 4)] == [
        b"",
        b"three",
        b"two\nthree",
        b"one\ntwo\nthree",
        b"one\ntwo\nthree",
    ]
    assert api.log(silent, tail=5) == b""


def test_each_attempt_has_its_own_log(api: Client) -> None:
    job = api.run("echo once")
    assert api.log(job, attempt=1) == b"once\n"
    assert api.request("GET", f"jobs/{job['job_id']}/logs", params={"attempt": 2}).status_code == 404


def test_follower_gets_lines_live(service: Service) -> None:
    source = service.source_root / "paced"
    source.mkdir()
    job = service.admin.submit("echo first; sleep 1; echo second; sleep 1; echo third", source_path="paced")
    with service.admin.follow(job) as lines:
        assert next(lines) == b"first"
        assert service.admin.job(job)["status"] == "running"
        assert next(lines) == b"second"
        assert service.admin.job(job)["status"] == "running"
        assert list(lines) == [b"third"]
    assert service.admin.wait(job, deadline_s=5)["status"] == "completed"


def test_follower_can_start_at_the_last_lines(api: Client) -> None:
    job = api.wait(api.submit("seq 10; sleep 2; echo end"), "running")
    wait_until(lambda: api.log(job).endswith(b"10\n"), 20, "the first lines are printed")
    with api.follow(job, tail=2) as lines:
        assert list(lines) == [b"9", b"10", b"end"]


def test_follower_of_a_waiting_job_starts_with_the_job(new_service: NewService) -> None:
    api = new_service().admin
    blocker = api.wait(api.submit("sleep 60"), "running")
    job = api.submit("echo at last")
    with api.follow(job) as lines:
        assert api.job(job)["status"] == "queued"
        api.cancel(blocker)
        assert list(lines) == [b"at last"]


def test_follower_ends_with_a_job_that_never_ran(idle: Client) -> None:
    job = idle.submit()
    with idle.follow(job) as lines:
        idle.cancel(job)
        assert list(lines) == []


def test_follower_of_an_ended_job_ends_at_once(api: Client) -> None:
    job = api.run("seq 5")
    start_s = time.monotonic()
    with api.follow(job) as lines:
        assert list(lines) == [b"1", b"2", b"3", b"4", b"5"]
    assert time.monotonic() - start_s < 1


@pytest.mark.parametrize("followers", [8])
def test_several_followers_see_the_same(api: Client, followers: int) -> None:
    job = api.submit("for i in $(seq 20); do echo $i; sleep 0.05; done")
    streams = [api.follow(job) for _ in range(followers)]
    opened = [stream.__enter__() for stream in streams]
    expected = [str(i).encode() for i in range(1, 21)]
    assert [list(lines) for lines in opened] == [expected] * followers
    for stream in streams:
        stream.__exit__(None, None, None)
