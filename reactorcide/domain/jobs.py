"""Jobs: what was asked for (the definition), and what became of it (the job and its attempts).

All times are Unix milliseconds in UTC; ``None`` means that it has not happened.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.outputs import Outputs

ARTIFACTS_DIR = "/job/artifacts"
"""Where a job leaves what is to be kept, in its container."""
OUTPUT_FILE = "/job/workflow-output"
"""Where a job of a run writes what those get that need it."""
NEEDS_DIR = "/job/needs"
"""Below it a job of a run is given artifacts of jobs that it needs."""
CI_DIR = "/job/ci"
"""Where a job of a run is given the commit that its workflow file came from."""
VARIABLES_FILE = "/job/workflow-vars.json"
"""What a job of a run is given of the run's vars, as a JSON object."""


class JobStatus(StrEnum):
    """Where a job stands."""

    SUBMITTED = "submitted"
    """Committed here, not yet known to Corndogs."""
    QUEUED = "queued"
    """Waiting in Corndogs for a worker."""
    RUNNING = "running"
    """Claimed by a worker: being prepared, or its container runs."""
    COMPLETED = "completed"
    """The command ended with exit code 0. Final."""
    FAILED = "failed"
    """The command ended otherwise, ran out of time, or could not be run. Final."""
    CANCELLED = "cancelled"
    """Somebody asked for it to end. Final."""
    SUBMIT_FAILED = "submit_failed"
    """Corndogs did not take it; it will be submitted again."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as the database has it."""

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
    """Times that the command was run again after it had failed."""
    killed_preparations: int = 0
    """Attempts during whose preparation the service was killed, perhaps by what the job made it do."""
    preparation_failures: int = 0
    """Attempts that failed through no fault of the job before its command had started."""
    log_truncated: bool = False
    """The log of its last attempt was longer than it may be, and says itself what is missing."""
    deleted: bool = False
    """A tombstone: to clients the job is gone, its container may not be yet."""
    pinned: bool = False
    """Kept until somebody deletes it, whatever the retention says."""
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


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt that has not ended, as far as the database knows."""

    job: Job
    worker_id: str
    heartbeat_at_ms: int
    """When its worker has last said that it runs."""
    container_id: str | None
    container_started_at: str | None
    """When its container started, in the engine's own words: tells one life of a container from the next."""
    handing_over_at_ms: int | None
    """When the hand-over of its command began; before, nothing of it can have run."""
    started_at_ms: int | None
    """When its command was acknowledged by the container; ``None`` if nobody has seen that yet."""
    log_offset: int
    """Bytes of its log that were written before the container's output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended: completed (exit code 0), or failed with the reason in a sentence."""

    exit_code: int | None
    error: str | None
    artifacts_object_key: str | None = None
    outputs: Outputs | None = None

    @property
    def status(self) -> JobStatus:
        """The status that the job gets from this outcome."""
        return JobStatus.COMPLETED if self.error is None else JobStatus.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What retention has to know of a job that is over and may be removed."""

    job_id: str
    completed_at_ms: int
    stored_bytes: int | None
    """Of its logs and artifacts; ``None`` until they are measured."""
    run_id: str | None = None
    """The run that it belongs to, if to any; then ``completed_at_ms`` is that of the run."""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that this installation has fetched."""

    image: str
    image_id: str
    """The engine's id of what was fetched: under its name there may be another one by now."""
    last_used_at_ms: int


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What a client names a submission by, so that sending it again makes no second job."""

    key: str
    body_sha256: bytes
    """Tells a repetition from another submission."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """What one queue holds."""

    name: str
    waiting: int
    running: int
    oldest_waiting_ms: int | None
    """When the job that waits longest was created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt of a job, as the database has it."""

    attempt: int
    worker_id: str
    container_id: str | None
    claimed_at_ms: int
    started_at_ms: int | None
    completed_at_ms: int | None
    exit_code: int | None
    error: str | None
    log_truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A status change of a job; ``event_id`` grows from one to the next."""

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
    """Return the object key prefix, with its final slash, below which a job keeps everything."""
    return f"jobs/{job_id}/"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Return the object key prefix, with its final slash, below which one attempt keeps everything."""
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
