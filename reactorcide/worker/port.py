"""What a worker needs of its service."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.caches import CacheAnswer, CacheSpec, Check, ExpectedCache
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import Job, OpenAttempt, Outcome
from reactorcide.domain.reports import JobReport
from reactorcide.domain.runs import RunFiles
from reactorcide.lib.tar import Entry
from reactorcide.logs.writer import LogWriter


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that runs at a worker, and for how long its worker is to have it."""

    job: Job
    lease_s: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The attempts that have not ended."""

    ours: Sequence[OpenAttempt]
    """Those of this worker, and those of others that went away; some of them run."""
    of_others: frozenset[tuple[str, int]]
    """Job's id and number of those that others look after: their containers are not to be touched."""
    container_ids: frozenset[str]
    """The containers that all of them name."""


class WorkerPort(Protocol):
    """The service, as one worker sees it. It may be in the same process, or on another machine.

    Call order for an attempt: ``claim`` or ``adopt``, ``open_log``, ``handing_over``, ``started``, the
    artifacts, then ``finish`` or ``try_again``, once; ``renew`` from time to time as long as it runs. A job
    comes with its secrets, and stands for its current attempt. Every call may be repeated, and raises
    ``InfrastructureError`` if the service does not do its work. Thread-safe.
    """

    @property
    def worker_id(self) -> str:
        """Who this worker is; the same after a restart."""

    @property
    def instance_id(self) -> str:
        """Which installation the service is; containers bear it."""

    @property
    def lease_s(self) -> float:
        """For how long a worker has an attempt that it does not renew."""

    def listen(self, wake: Callable[[], None], cancelled: Callable[[str], None]) -> None:
        """Have hints called, from any thread: there may be a job to claim; a job, by its id, is cancelled.

        One that is lost costs time alone: ``claim`` and ``renew`` look at what is true.
        """

    def close(self) -> None:
        """Let ``claim`` end soon; safe to repeat."""

    # --- which attempts are this worker's ------------------------------------------------------

    def claim(self, queues: Sequence[str], check_ready: Callable[[], None]) -> Generator[Job, None, None]:
        """Yield jobs that are now running at this worker, until none waits; to be closed by the caller.

        ``queues`` are those that it takes jobs from; none stands for all. ``check_ready`` is called before
        each claim, and raises where a job could not be run.
        """

    def renew(self, held: Collection[Held]) -> None:
        """Go on having attempts; tells of those that are cancelled, as ``listen`` does."""

    def is_cancelled(self, job: Job) -> bool:
        """Return whether a job was cancelled since it was claimed."""

    def unfinished(self) -> Unfinished:
        """Return the attempts that have not ended."""

    def adopt(self, attempt: OpenAttempt) -> bool:
        """Make this worker the owner of an attempt from ``unfinished``; return whether it still could."""

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
        """Return which caches the attempt saves if its command succeeds, and that are not stored by now."""

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
        """Return whether a job is not of the code of a stranger, as that of a pull request of a fork is."""

    def git_access(self, job: Job) -> GitAccess | None:
        """Return what the project of a job has for its repository; ``None`` if it is of no project."""

    def run_files(self, job: Job) -> RunFiles | None:
        """Return what a job gets of its run; ``None`` if it is of none.

        Raises ``JobFailed``, also while it is read, for artifacts that cannot be had.
        """

    def image_pulled(self, image: str, image_id: str) -> None:
        """Record an image, named with its tag, that was pulled for a job."""

    def open_log(self, job: Job, *, max_bytes: int) -> LogWriter:
        """Open the log of an attempt at its end."""

    def handing_over(
        self, job: Job, container_id: str, *, container_started_at: str, at_ms: int, log_offset: int
    ) -> None:
        """Record durably that the command is about to be handed over to its container.

        Raises ``IllegalTransition`` if the attempt has ended: then its command must not run.
        """

    def started(self, job: Job, *, at_ms: int) -> None:
        """Record that the command runs."""

    def put_artifact(self, job: Job, path: str, chunks: Iterable[bytes]) -> int:
        """Store a file that the command left; returns its size."""

    def copy_artifact(self, job: Job, path: str, new_path: str) -> None:
        """Store a file that was stored before under another name, too."""

    def drop_artifacts(self, job: Job) -> None:
        """Remove the files that were stored for the attempt, which are not listed; safe to repeat."""

    def put_report(self, job: Job, report: JobReport) -> None:
        """Store what the files that the command left report."""

    def put_service_log(self, job: Job, service: str, data: bytes) -> None:
        """Store the log of one of the job's services; replaces an earlier one of the same attempt."""

    def list_artifacts(self, job: Job, artifacts: Sequence[Artifact], *, truncated: bool) -> str:
        """Store which files the command left, and if there were more; returns the key prefix of all."""

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
        """End the attempt, and have the job wait for the next one; ``counters`` are those it has raised."""
