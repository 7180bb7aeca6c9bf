"""A service that is allowed no further thread."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from tests.cli.conftest import Service, program_of
from tests.support.waiting import wait_until

_LESS_THAN_A_STACK_BYTES = 7 << 20
# What is built at its first use takes some of it.


@contextmanager
def no_more_threads(pid: int) -> Iterator[None]:
    """Leave a process too little address space for another thread's stack."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    limit_bytes = pages * resource.getpagesize() + _LESS_THAN_A_STACK_BYTES
    resource.prlimit(pid, resource.RLIMIT_AS, (limit_bytes, before[1]))
    try:
        yield
    finally:
        # It may have been stopped.
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_thread_limit_leaves_the_service_answering_and_jobs_waiting(tmp_path: Path, image: str) -> None:
    service = Service(tmp_path, image)
    try:
        [worker_pid] = map(int, Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split())
        program = program_of(service)
        assert requests.get(f"{service.url}/api/v1/health", timeout=10).ok
        token = (service.data_dir / "admin-token").read_text().strip()
        with no_more_threads(worker_pid):
            job_id = program.fine("submit", "hello", "--", "true").text
            why_url = f"{service.url}/api/v1/jobs/{job_id}/why"
            wait_until(
                lambda: (
                    "no thread can be started"
                    in requests.get(why_url, headers={"Authorization": f"Bearer {token}"}, timeout=10).text
                ),
                20,
                "the job tells why it waits",
            )
            ready = requests.get(f"{service.url}/api/v1/ready", timeout=10)
            assert ready.status_code == 503
            assert "no thread can be started" in ready.text
        wait_until(
            lambda: program.fine("jobs", "show", job_id, "--json").json["status"] == "completed",
            30,
            "the job has run",
        )
    except BaseException:
        service.stop()
        raise
    with no_more_threads(worker_pid):
        service.stop()
    # Python's own error, which would be there with a traceback. A lack of memory is not the subject.
    assert "can't start new thread" not in (tmp_path / "service.log").read_text()
