"""Parts of a log, over HTTP: bytes, lines, one stream, times, and what of them goes together."""

import re
from typing import Any

import pytest

from tests.conftest import NewService
from tests.support.client import Client, Job

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


@pytest.fixture(scope="module")
def job(service: Any) -> Job:
    """A job that has printed a hundred lines of each stream."""
    api: Client = service.admin
    ended = api.run("for i in $(seq 100); do echo out $i; echo err $i >&2; done; echo end")
    assert ended["status"] == "completed"
    return ended


def ranged(api: Client, job: Job, value: str, **params: object) -> Any:
    return api.request("GET", f"jobs/{job['job_id']}/logs", headers={"Range": value}, params=params)


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, None),
        ("bytes=-5", -5, None),
        ("bytes=3-99999999", 3, None),
        # There are not as many.
        ("bytes=-99999999999", 0, None),
    ],
)
def test_byte_range_is_answered(api: Client, job: Job, value: str, start: int, end: int | None) -> None:
    whole = api.log(job)
    response = ranged(api, job, value)
    expected = whole[start:end]
    begin = start % len(whole)
    assert (response.status_code, response.content) == (206, expected)
    content_range = f"bytes {begin}-{begin + len(expected) - 1}/{len(whole)}"
    assert response.headers["Content-Range"] == content_range
    assert response.headers["Content-Length"] == str(len(expected))


def test_range_of_another_method_is_ignored(api: Client, job: Job) -> None:
    response = api.request("HEAD", f"jobs/{job['job_id']}/logs", headers={"Range": "bytes=0-9"})
    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(len(api.log(job)))


def test_range_of_last_lines_is_answered(api: Client, job: Job) -> None:
    response = ranged(api, job, "bytes=0-3", tail=2)
    assert (response.status_code, response.content) == (206, api.log(job, tail=2)[:4])


@pytest.mark.parametrize("value", ["bytes=1000000-", "bytes=-0"])
def test_unsatisfiable_range_is_refused(api: Client, job: Job, value: str) -> None:
    response = ranged(api, job, value)
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(api.log(job))}"
    assert response.json()["error"] == "range_not_satisfiable"


@pytest.mark.parametrize("value", ["bytes=0-1,3-4", "lines=0-1", "bytes=x", "bytes=5-3"])
def test_unknown_range_unit_gets_the_whole_log(api: Client, job: Job, value: str) -> None:
    response = ranged(api, job, value)
    assert (response.status_code, response.content) == (200, api.log(job))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Length"] == str(len(response.content))


def test_lines_from_the_middle_are_answered(api: Client, job: Job) -> None:
    lines = api.log(job).splitlines(keepends=True)
    assert len(lines) == 201
    assert api.log(job, from_line=50, lines=3) == b"".join(lines[49:52])
    assert api.log(job, from_line=200) == b"".join(lines[199:])
    assert api.log(job, lines=2) == b"".join(lines[:2])
    assert api.log(job, from_line=202) == api.log(job, lines=0) == b""


def test_single_stream_is_answered(api: Client, job: Job) -> None:
    out = [b"out %d\n" % i for i in range(1, 101)] + [b"end\n"]
    err = [b"err %d\n" % i for i in range(1, 101)]
    assert api.log(job, stream="stdout") == b"".join(out)
    assert api.log(job, stream="stderr") == b"".join(err)
    assert api.log(job, stream="stdout", tail=2) == b"".join(out[-2:])
    assert api.log(job, stream="stderr", tail=2) == b"".join(err[-2:])
    assert api.log(job, stream="stderr", from_line=7, lines=2) == b"".join(err[6:8])


def test_times_of_lines_are_answered(api: Client, job: Job) -> None:
    stamped = api.log(job, timestamps="true")
    assert re.sub(rb"(?m)^" + STAMP, b"", stamped) == api.log(job)
    assert len(re.findall(rb"(?m)^" + STAMP, stamped)) == 201
    assert re.fullmatch(STAMP + b"err 100\n", api.log(job, timestamps="true", stream="stderr", tail=1))
    assert re.fullmatch(STAMP + b"end\n", api.log(job, timestamps="true", stream="stdout", from_line=101))


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"from_line": 1, "tail": 1}, "from_line"),
        ({"lines": 1, "follow": "true"}, "lines"),
        ({"from_line": 0}, "from_line"),
        ({"stream": "service"}, "stream"),
        ({"since": 1}, "since"),
    ],
)
def test_contradictory_parameters_are_refused_by_name(
    api: Client, job: Job, params: dict[str, object], field: str
) -> None:
    response = api.request("GET", f"jobs/{job['job_id']}/logs", params=params)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_input"
    assert [detail["field"] for detail in response.json()["details"]] == [field]


@pytest.mark.parametrize(
    "command",
    [
        r"printf '\033[31mred\033[0m\r1%%\r2%%\r\n'; printf '\377\376\000\n'; printf 'no newline'",
        "head -c 50000000 /dev/zero | tr '\\0' x",
    ],
)
def test_unusual_logs_are_returned_unchanged(api: Client, command: str) -> None:
    ended = api.run(f"({command}) | tee /job/artifacts/printed", timeout_seconds=60)
    artifact = api.request("GET", f"jobs/{ended['job_id']}/artifacts/printed").content
    assert api.log(ended) == artifact
    assert api.log(ended, stream="stdout") == artifact
    assert api.log(ended, tail=1) == artifact.splitlines(keepends=True)[-1] or b"\r" in artifact


def test_log_info_has_line_count_and_search_results(api: Client) -> None:
    ended = api.run("seq 2000; echo Odd Error here >&2; echo end")
    path = f"jobs/{ended['job_id']}/logs"
    for parts in ({}, {"stream": "stdout"}, {"stream": "stderr"}):
        response = api.request("GET", path, params={"lines": 0} | parts)
        assert response.headers["X-Log-Lines"] == str(len(api.log(ended, **parts).splitlines()))
    whole = api.log(ended).decode().splitlines()
    for params, text in (
        ({"text": "ODD ERROR"}, "Odd Error here"),
        ({}, "Odd Error here"),
        ({"text": "1999"}, "1999"),
    ):
        answer = api.get(f"{path}/search", **params)
        assert answer == {"matches": [{"line": whole.index(text) + 1, "text": text}], "next_line": None}
    assert api.get(f"{path}/search", text="Odd", stream="stderr")["matches"][0]["line"] == 1
    page = api.get(f"{path}/search", text="1", from_line=1500, limit=2)
    assert [match["line"] for match in page["matches"]] == [1500, 1501]
    assert page["next_line"] == 1502
    assert api.request("GET", f"{path}/search", params={"text": ""}).status_code == 400


def test_too_long_log_has_head_and_tail(new_service: NewService) -> None:
    api = new_service(max_log_bytes="4m").admin
    ended = api.run(
        "awk 'BEGIN { for (i = 0; i < 60000; i++) printf \"%099d\\n\", i }'; exit 3", timeout_seconds=60
    )
    assert (ended["exit_code"], ended["log_truncated"]) == (3, True)
    whole = b"".join(b"%099d\n" % i for i in range(60_000))
    log = api.log(ended)
    assert len(log) < (4 << 20) + 200
    match = re.search(rb"\n\[reactorcide\] (\d+) bytes \(.*\) are missing here: .*--max-log-bytes.*\n", log)
    assert match is not None
    head, tail = log[: match.start()], log[match.end() :].removesuffix(b"[reactorcide] exit code 3\n")
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) + int(match[1]) + len(tail) in (len(whole), len(whole) - 1)
    [attempt] = api.get(f"jobs/{ended['job_id']}/attempts")["attempts"]
    assert attempt["log_truncated"] is True
    short = api.run("seq 10")
    assert short["log_truncated"] is False


def test_a_limit_that_is_too_low_is_refused(new_service: NewService) -> None:
    with pytest.raises(AssertionError, match="--max-log-bytes must be at least 4 MiB"):
        new_service(max_log_bytes="1m")
