"""Jobs: the requested definition, and the state of the job and of its attempts.

All times are Unix milliseconds in UTC; ``None`` means that it has not happened.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.outputs import Outputs
from reactorcide.lib.records import record

ARTIFACTS_DIR = "/job/artifacts"
"""The directory in the container whose files are stored as artifacts."""
OUTPUT_FILE = "/job/workflow-output"
"""The file in which a job of a run writes outputs for the jobs that need it."""
NEEDS_DIR = "/job/needs"
"""The directory in which a job of a run gets artifacts of the jobs that it needs."""
CI_DIR = "/job/ci"
"""The directory in which a job of a run gets the commit of its workflow file."""
VARIABLES_FILE = "/job/workflow-vars.json"
"""The file with the run's vars, a JSON object, for a job of a run."""


class JobStatus(StrEnum):
    """The status of a job."""

    SUBMITTED = "submitted"
    """Committed to the database, not yet in Corndogs."""
    QUEUED = "queued"
    """Waiting in Corndogs for a worker."""
    RUNNING = "running"
    """Claimed by a worker: being prepared, or its container runs."""
    COMPLETED = "completed"
    """The command ended with exit code 0. Final."""
    FAILED = "failed"
    """The command failed, timed out, or could not be run. Final."""
    CANCELLED = "cancelled"
    """Cancelled by a user. Final."""
    SUBMIT_FAILED = "submit_failed"
    """Submitting to Corndogs failed; it will be submitted again."""


FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
WAITING = frozenset({JobStatus.SUBMITTED, JobStatus.QUEUED, JobStatus.SUBMIT_FAILED})
ACTIVE = WAITING | {JobStatus.RUNNING}

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        JobStatus.SUBMITTED: frozenset(
            {JobStatus.QUEUED, JobStatus.SUBMIT_FAILED, JobStatus.RUNNING, JobStatus.CANCELLED}
        ),
        JobStatus.SUBMIT_FAILED: frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLED}),
        JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.SUBMITTED}),
        JobStatus.RUNNING: frozenset(
            {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SUBMITTED}
        ),
        JobStatus.COMPLETED: frozenset(),
        JobStatus.FAILED: frozenset(),
        JobStatus.CANCELLED: frozenset(),
    }
)
"""Which status may follow which. A worker can claim a task before its submitter has written the
task's id to the row, so every waiting status may become ``running``; ``running`` goes back to
``submitted`` when an attempt is tried again, ``queued`` when Corndogs has lost the task."""


def allowed_from(target: JobStatus) -> frozenset[JobStatus]:
    """Return the statuses that may become ``target``."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)


@record(kw_only=True)
class Job:
    """A job, from the database."""

    job_id: str
    user_id: str
    definition: JobDefinition
    status: JobStatus
    created_at_ms: int
    updated_at_ms: int
    queued_at_ms: int | None = None
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    exit_code: int | None = None
    error: str | None = None
    attempt: int = 1
    worker_id: str | None = None
    corndogs_task_id: str | None = None
    logs_object_key: str | None = None
    artifacts_object_key: str | None = None
    rerun_of: str | None = None
    retries_used: int = 0
    """Number of times that the command was repeated after a failure."""
    killed_preparations: int = 0
    """Attempts during whose preparation the service was killed, perhaps because of the job."""
    preparation_failures: int = 0
    """Attempts that failed through no fault of the job before its command had started."""
    log_truncated: bool = False
    """The log of its last attempt exceeded the limit; the log says how much is missing."""
    deleted: bool = False
    """A tombstone: the job is deleted for clients, and its container may still exist."""
    pinned: bool = False
    """Pinned: retention does not remove it."""
    run_id: str | None = None
    """The run that it belongs to, if to any."""
    node: str | None = None
    """The node of that run."""
    is_cut: bool = False
    """Long texts of the definition are cut, and long collections left out, as lists have them."""

    @property
    def is_final(self) -> bool:
        """Return whether the status can never change again."""
        return self.status in FINAL


@record
class OpenAttempt:
    """An attempt that has not ended, as far as the database knows."""

    job: Job
    worker_id: str
    heartbeat_at_ms: int
    """The time of the last heartbeat of its worker."""
    container_id: str | None
    container_started_at: str | None
    """The container's start time as the engine formats it; it changes when the container is restarted."""
    handing_over_at_ms: int | None
    """When the handover of its command began; before that, nothing of it can have run."""
    started_at_ms: int | None
    """When the container acknowledged the command; ``None`` if no acknowledgement was seen yet."""
    log_offset: int
    """Bytes of its log that were written before the container's output."""


@record(kw_only=True)
class Outcome:
    """The result of an attempt: completed (exit code 0), or failed with a reason."""

    exit_code: int | None
    error: str | None
    artifacts_object_key: str | None = None
    outputs: Outputs | None = None

    @property
    def status(self) -> JobStatus:
        """The status that the job gets from this outcome."""
        return JobStatus.COMPLETED if self.error is None else JobStatus.FAILED


@record(kw_only=True)
class JobFilter:
    """Which jobs a list shows; ``None`` and empty mean any."""

    user_id: str | None = None
    member_id: str | None = None
    """Of the jobs of projects, only those of projects that this user is a member of."""
    statuses: Collection[JobStatus] = ()
    queue_name: str | None = None
    source_type: str | None = None
    name_prefix: str | None = None
    run_id: str | None = None
    pinned: bool | None = None


@record
class EndedJob:
    """The facts that retention needs about a removable job."""

    job_id: str
    completed_at_ms: int
    stored_bytes: int | None
    """The size of its logs and artifacts; ``None`` until measured."""
    run_id: str | None = None
    """The run that it belongs to, if to any; then ``completed_at_ms`` is that of the run."""


@record
class PulledImage:
    """An image that this installation has fetched."""

    image: str
    image_id: str
    """The engine's id of the pulled image; its name may refer to another image later."""
    last_used_at_ms: int
    engine: str = ""
    """The worker whose engine has it, if several services share the database; else empty."""


@record
class RequestKey:
    """The idempotency key of a submission, so that repeating it creates no second job."""

    key: str
    body_sha256: bytes
    """A hash of the request, to distinguish a repetition from another submission."""


@record
class QueueFigures:
    """The figures of one queue."""

    name: str
    waiting: int
    running: int
    oldest_waiting_ms: int | None
    """When the longest waiting job was created."""


@record(kw_only=True)
class AttemptRecord:
    """An attempt of a job, from the database."""

    attempt: int
    worker_id: str
    container_id: str | None
    claimed_at_ms: int
    started_at_ms: int | None
    completed_at_ms: int | None
    exit_code: int | None
    error: str | None
    log_truncated: bool


@record(kw_only=True)
class JobEvent:
    """A status change of a job; ``event_id`` increases."""

    event_id: int
    job_id: str
    name: str
    queue_name: str
    status_from: JobStatus | None
    status_to: JobStatus
    attempt: int
    reason: str | None
    at_ms: int
    run_id: str | None
    node: str | None


def job_prefix(job_id: str) -> str:
    """Return the object key prefix, with its final slash, of all objects of a job."""
    return f"jobs/{job_id}/"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Return the object key prefix, with its final slash, of all objects of an attempt."""
    return f"{job_prefix(job_id)}{attempt}/"


def log_key(job_id: str, attempt: int) -> str:
    """Return the object key of an attempt's log."""
    return attempt_prefix(job_id, attempt) + "log"


def service_log_key(job_id: str, attempt: int, service: str) -> str:
    """Return the object key of the log of a service of an attempt."""
    return attempt_prefix(job_id, attempt) + f"services/{service}"


def log_index_key(job_id: str, attempt: int) -> str:
    """Return the object key of the index of an attempt's log."""
    return log_key(job_id, attempt) + ".idx"


def attempt_of(key: str) -> tuple[str, int]:
    """Return the job id and the attempt of a key below ``attempt_prefix``."""
    _, job_id, attempt, _ = key.split("/", 3)
    return job_id, int(attempt)


def artifacts_prefix(job_id: str, attempt: int) -> str:
    """Return the object key prefix, with its final slash, of an attempt's artifacts."""
    return attempt_prefix(job_id, attempt) + "artifacts/"
