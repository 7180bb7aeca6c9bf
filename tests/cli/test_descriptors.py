"""A service that for a moment may open hardly any file descriptor."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program, Service
from tests.support.descriptors import few_descriptors
from tests.support.waiting import wait_until

JOBS = 2
COMMAND = "sleep 1; echo printed"
TROUBLE = (b"Too many open files", b"unable to open database file")


@pytest.mark.parametrize("free", range(3))
def test_jobs_survive_a_shortage_of_descriptors(service: Service, reactorcide: Program, free: int) -> None:
    [worker_pid] = map(int, Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split())
    log_path = service.home / "service.log"
    log_start = log_path.stat().st_size
    job_ids = [reactorcide.fine("submit", f"free-{free}", "--", COMMAND).text for _ in range(JOBS)]

    def jobs() -> list[Any]:
        return [reactorcide.fine("jobs", "show", job_id, "--json").json for job_id in job_ids]

    def lacked_or_done() -> bool:
        # The log tells, because the service may have no descriptor for a request.
        text = log_path.read_bytes()[log_start:]
        ended = [b"job is completed job_id=" + job_id.encode() in text for job_id in job_ids]
        return all(ended) or any(trouble in text for trouble in TROUBLE)

    with few_descriptors(free, worker_pid):
        wait_until(lacked_or_done, 30, "a descriptor to be missing")
    wait_until(lambda: all(job["completed_at"] for job in jobs()), 60, "the jobs to end")
    assert [(job["status"], job["error"]) for job in jobs()] == [("completed", None)] * JOBS
    for job_id in job_ids:
        assert reactorcide.fine("jobs", "logs", job_id).output.endswith(b"printed\n")
    assert b"Traceback" not in log_path.read_bytes()[log_start:]
