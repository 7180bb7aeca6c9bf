"""A service that has hardly a file descriptor left for a moment."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program, Service
from tests.support.descriptors import few_descriptors
from tests.support.waiting import wait_until

JOBS = 2
COMMAND = "sleep 1; echo printed"
TROUBLE = (b"Too many open files", b"unable to open database file")


@pytest.mark.parametrize("left", range(3))
def test_jobs_outlive_a_lack_of_descriptors(service: Service, reactorcide: Program, left: int) -> None:
    [worker_pid] = map(int, Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split())
    log_path = service.home / "service.log"
    told = log_path.stat().st_size
    job_ids = [reactorcide.fine("submit", f"left-{left}", "--", COMMAND).text for _ in range(JOBS)]

    def shown() -> list[Any]:
        return [reactorcide.fine("jobs", "show", job_id, "--json").json for job_id in job_ids]

    def lacked_or_done() -> bool:
        # Not asked of the service, which may have no descriptor for a request.
        text = log_path.read_bytes()[told:]
        ended = [b"job is completed job_id=" + job_id.encode() in text for job_id in job_ids]
        return all(ended) or any(trouble in text for trouble in TROUBLE)

    with few_descriptors(left, worker_pid):
        wait_until(lacked_or_done, 30, "a descriptor to be missing")
    wait_until(lambda: all(job["completed_at"] for job in shown()), 60, "the jobs to end")
    assert [(job["status"], job["error"]) for job in shown()] == [("completed", None)] * JOBS
    for job_id in job_ids:
        assert reactorcide.fine("jobs", "logs", job_id).output.endswith(b"printed\n")
    assert b"Traceback" not in log_path.read_bytes()[told:]
