"""A service that is allowed no further thread."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from tests.cli.conftest import Service, program_of
from tests.support.waiting import wait_until

# Far more than the service needs for anything else, and less than a thread's stack.
_STACK_BYTES = 512 << 20
_SPARE_BYTES = 384 << 20


@contextmanager
def large_stacks() -> Iterator[None]:
    """Give the threads of processes that are started meanwhile a large stack, which is only address space."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)


@contextmanager
def no_more_threads(pid: int) -> Iterator[None]:
    """Leave a process too little address space for another thread's stack."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    limit_bytes = pages * resource.getpagesize() + _SPARE_BYTES
    resource.prlimit(pid, resource.RLIMIT_AS, (limit_bytes, before[1]))
    try:
        yield
    finally:
        # It may have been stopped.
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_thread_limit_leaves_the_service_answering_and_jobs_waiting(tmp_path: Path, image: str) -> None:
    with large_stacks():
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
    # Python's own error, which would be there with a traceback.
    assert "can't start new thread" not in (tmp_path / "service.log").read_text()
