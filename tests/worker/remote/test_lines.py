"""Workers on other machines, over lines that are slow or break in the middle of something."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import Client, Job
from tests.support.line import Break, Line
from tests.support.service import Service
from tests.support.tars import member, tar_gz
from tests.worker.remote.conftest import NewWorker

LINES = 12_000
"""More than the largest piece of a log that is sent at once, 1 MiB."""
LINE = "x" * 90
COMMAND = f"i=0; while [ $i -lt {LINES} ]; do echo {LINE} $i; i=$((i+1)); done; cp data /job/artifacts/data"
PRINTED = b"".join(b"%s %d\n" % (LINE.encode(), i) for i in range(LINES))
DATA = bytes(range(256)) * 1500


@pytest.fixture
def line(hub: Service) -> Iterator[Line]:
    """A line to the service."""
    line = Line(hub.port)
    yield line
    line.close()


def submitted(api: Client, queue: str) -> Job:
    """Submit a job with a source, a log and an artifact, each larger than what is sent at once."""
    headers = {"Content-Type": "application/gzip"}
    noise = DATA[::-1] + DATA
    response = api.request("POST", "sources", data=tar_gz(member("data", noise)), headers=headers)
    return api.submit(COMMAND, source_id=response.json()["source_id"], queue_name=queue)


def check(api: Client, job: Job, **expected: Any) -> None:
    """See that a job has ended well, with each line and each byte once."""
    ended = api.wait(job, deadline_s=90)
    assert (ended["status"], ended["error"]) == ("completed", None)
    assert {name: ended[name] for name in expected} == expected
    assert api.log(job) == PRINTED
    assert api.request("GET", f"jobs/{job['job_id']}/artifacts/data").content == DATA[::-1] + DATA


@pytest.mark.slow
def test_jobs_run_over_a_slow_line(hub: Service, line: Line, new_worker: NewWorker) -> None:
    new_worker(hub, "slow", server=line.url)
    # Two seconds for each question and its answer.
    line.delay_s, line.bytes_per_s = 1.0, 250_000
    job = submitted(hub.admin, "slow")
    check(hub.admin, job, attempt=1)
    line.delay_s, line.bytes_per_s = 0.0, None


def test_a_line_that_breaks_in_the_middle_costs_no_attempt(
    hub: Service, line: Line, new_worker: NewWorker
) -> None:
    new_worker(hub, "breaks", server=line.url)
    line.breaks = [
        # The answers are lost, and the questions repeated.
        *(Break(rb"POST \S+/%s " % call, 0, is_of_answer=True) for call in (b"handing-over", b"started")),
        Break(rb"PUT \S+/log\?offset=0", 20_000),
        Break(rb"PUT \S+/log\?offset=[1-9]", 0, is_of_answer=True),
        Break(rb"PUT \S+/artifacts/data ", 50_000),
        Break(rb"PUT \S+/listing ", 0, is_of_answer=True),
        Break(rb"POST \S+/finish ", 0, is_of_answer=True),
    ]
    check(hub.admin, submitted(hub.admin, "breaks"), attempt=1)
    assert [each.pattern for each in line.breaks if not each.has_happened] == []


def test_a_source_that_breaks_off_is_fetched_again(hub: Service, line: Line, new_worker: NewWorker) -> None:
    new_worker(hub, "source", server=line.url)
    line.breaks = [Break(rb"GET \S+/source ", 50_000, is_of_answer=True)]
    # By the next attempt: the half of it may be in the container.
    job = submitted(hub.admin, "source")
    check(hub.admin, job, attempt=2)
    first = hub.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"][0]
    assert "did not arrive whole" in first["error"] or "does not answer" in first["error"], first
