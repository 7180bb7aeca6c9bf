"""The interface between a worker and its service."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.caches import CacheAnswer, CacheSpec, Check, ExpectedCache
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import Job, OpenAttempt, Outcome
from reactorcide.domain.reports import JobReport
from reactorcide.domain.runs import RunFiles
from reactorcide.lib.records import record
from reactorcide.lib.tar import Entry
from reactorcide.logs.writer import LogWriter


@record
class Held:
    """An attempt that runs at a worker, and the duration of its lease."""

    job: Job
    lease_s: float


@record
class Unfinished:
    """The attempts that have not ended."""

    ours: Sequence[OpenAttempt]
    """Attempts of this worker, and of lost workers; some of them run here."""
    of_others: frozenset[tuple[str, int]]
    """Job id and number of attempts of other workers, whose containers must not be touched."""
    container_ids: frozenset[str]
    """The containers in the rows of all attempts."""


class Cancelled(Protocol):
    """Has the container of a job end, if it runs at this worker."""

    def __call__(self, job_id: str, why: str = "cancelled", /) -> None:
        """End the job with this id; ``why`` is a phrase."""


class WorkerPort(Protocol):
    """The service for one worker. It may be in the same process, or on another machine.

    Call order for an attempt: ``claim`` or ``adopt``, ``open_log``, ``handing_over``, ``started``, the
    artifacts, then ``finish`` or ``try_again``, once; ``renew`` from time to time as long as it runs. A job
    has its secrets, and represents its current attempt. Every call may be repeated, and raises
    ``InfrastructureError`` if the service fails. Thread-safe.
    """

    @property
    def worker_id(self) -> str:
        """The id of this worker, the same after a restart."""

    @property
    def instance_id(self) -> str:
        """The id of the service's installation, which is in the labels of containers."""

    @property
    def lease_s(self) -> float:
        """The duration of a lease without renewal."""

    def listen(self, wake: Callable[[], None], cancelled: Cancelled) -> None:
        """Subscribe to hints, called from any thread: there may be a job to claim; a job, by its id, is
        cancelled, or has to end for another reason.

        A lost hint costs only time: ``claim`` and ``renew`` read the true state.
        """

    def close(self) -> None:
        """End a running ``claim`` soon; safe to repeat."""

    # --- which attempts are this worker's ------------------------------------------------------

    def claim(self, queues: Sequence[str], check_ready: Callable[[], None]) -> Generator[Job, None, None]:
        """Claim waiting jobs for this worker and yield them, until none waits; the caller closes the
        iterator.

        ``queues`` are those of the worker; empty means all. ``check_ready`` is called before each claim, and
        raises if no job can run.
        """

    def claim_no_more(self) -> None:
        """Have no job claimed for this worker from now on, and give back those that it has not begun."""

    def renew(self, held: Collection[Held]) -> None:
        """Renew the leases of attempts; reports cancelled ones like ``listen``."""

    def is_cancelled(self, job: Job) -> bool:
        """Return whether a job was cancelled since it was claimed."""

    def unfinished(self) -> Unfinished:
        """Return the attempts that have not ended."""

    def adopt(self, attempt: OpenAttempt) -> bool:
        """Make this worker the owner of an attempt from ``unfinished``; return whether it still could."""

    def adopted(self) -> None:
        """Hear that the attempts of an earlier process are adopted; safe to repeat."""

    # --- what happens to an attempt ------------------------------------------------------------

    def caches(self, job: Job) -> tuple[CacheSpec, ...]:
        """Return the caches that a job names."""

    def find_cache(self, job: Job, spec: CacheSpec, key: str, check: Check) -> CacheAnswer:
        """Return the cache to restore for one that a job names; ``check`` raises to give up."""

    def drop_cache(self, job: Job, cache_id: str) -> None:
        """Remove a cache that could not be restored; safe to repeat."""

    def expect_caches(self, job: Job, expected: Sequence[ExpectedCache]) -> bool:
        """Record which caches the attempt saves if its command succeeds; ``False`` if it may save none."""

    def expected_caches(self, job: Job) -> list[ExpectedCache]:
        """Return the caches that the attempt saves if its command succeeds and that are not stored yet."""

    def put_cache(
        self, job: Job, item: ExpectedCache, chunks: Iterable[bytes], *, max_bytes: int
    ) -> int | None:
        """Store a cache, and return its bytes; ``None`` if there is one with its key by now.

        ``max_bytes`` is for all caches of the run's project or user. Raises ``TooLarge``, and what ``chunks``
        raises.
        """

    def source(self, job: Job) -> Iterator[Entry] | None:
        """Return the files of an uploaded source, or of another job's artifacts; ``None`` without either.

        Raises ``JobFailed``, also while they are read, where they cannot be had.
        """

    def is_trusted(self, job: Job) -> bool:
        """Return whether a job's code is trusted; that of a fork's pull request is not."""

    def git_access(self, job: Job) -> GitAccess | None:
        """Return the credentials of a job's project for its repository; ``None`` without a project."""

    def run_files(self, job: Job) -> RunFiles | None:
        """Return the files that a job gets from its run; ``None`` for a job without a run.

        Raises ``JobFailed``, also while they are read, for artifacts that are not available.
        """

    def image_pulled(self, image: str, image_id: str) -> None:
        """Record an image, named with its tag, that was pulled for a job."""

    def open_log(self, job: Job, *, max_bytes: int) -> LogWriter:
        """Open the log of an attempt at its end."""

    def handing_over(
        self, job: Job, container_id: str, *, container_started_at: str, at_ms: int, log_offset: int
    ) -> None:
        """Record durably that the handover of the command begins.

        Raises ``IllegalTransition`` if the attempt has ended: then its command must not run.
        """

    def started(self, job: Job, *, at_ms: int) -> None:
        """Record that the command runs."""

    def put_artifact(self, job: Job, path: str, chunks: Iterable[bytes]) -> int:
        """Store an artifact; returns its size. Raises ``TooLarge``, and what ``chunks`` raises."""

    def copy_artifact(self, job: Job, path: str, new_path: str) -> None:
        """Store a copy of a stored artifact under another name."""

    def drop_artifacts(self, job: Job) -> None:
        """Remove the stored artifacts of the attempt, before they are listed; safe to repeat."""

    def put_report(self, job: Job, report: JobReport) -> None:
        """Store the report from the artifacts."""

    def put_service_log(self, job: Job, service: str, data: bytes) -> None:
        """Store the log of one of the job's services; replaces an earlier one of the same attempt."""

    def list_artifacts(self, job: Job, artifacts: Sequence[Artifact], *, truncated: bool) -> str:
        """Store the listing of the artifacts, and whether there were more; returns their key prefix."""

    def finish(self, job: Job, outcome: Outcome, *, log_truncated: bool) -> None:
        """End the attempt and its job; a job that was cancelled meanwhile stays cancelled."""

    def try_again(
        self,
        job: Job,
        reason: str,
        *,
        delay_s: float,
        exit_code: int | None = None,
        log_truncated: bool = False,
        **counters: int,
    ) -> None:
        """End the attempt and let the job wait for the next one; ``counters`` are the increased ones."""
