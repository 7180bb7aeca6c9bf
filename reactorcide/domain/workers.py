"""Workers: what they report, and those on other machines. Times are Unix milliseconds in UTC."""

from reactorcide.domain.errors import Conflict
from reactorcide.domain.jobs import Job, OpenAttempt
from reactorcide.lib.records import record

Key = tuple[str, int]
"""An attempt: the id of its job, and its number."""

PROTOCOL = 1
"""The newest version of the calls below ``/api/v1/worker``; a session uses the older one of both sides."""

SERVICE_LIMITS = ("cancel_grace", "max_artifact_bytes", "max_artifacts", "max_log_bytes", "max_cache_bytes")
"""What the service sets to workers on other machines, by its name in the answer to a new session."""
INSTANCE_HEADER = "X-Reactorcide-Instance"
LEASE_HEADER = "X-Lease-Token"
LOG_ENDS_HEADER = "X-Log-Ends"
"""Headers of the calls of workers: the installation, an attempt's lease, and the bytes of log and index."""


@record
class WorkerView:
    """The state that a worker reports."""

    worker_id: str
    host: str
    concurrency: int
    running_job_ids: tuple[str, ...]
    last_seen_ms: int
    queues: tuple[str, ...]
    """The queues that it takes jobs from; empty for any."""
    warm_containers: int
    """Containers that have started and wait for its next jobs."""
    trouble: str | None
    """Why it cannot claim a job at the moment."""
    version: str | None = None
    """The version of its program, if that may differ from the service's."""
    is_draining: bool = False
    """Whether it takes no more jobs."""
    away_lost_after_s: float | None = None
    """Of one on another machine that is not connected: when its attempts count as lost, at the earliest."""


@record(kw_only=True)
class RemoteWorker:
    """A worker on another machine, from the database."""

    worker_id: str
    name: str
    queues: tuple[str, ...]
    """The queues that it is bound to; empty for all."""
    is_registered: bool
    is_draining: bool
    created_at_ms: int
    session_id: str | None
    host: str
    version: str
    concurrency: int
    served_queues: tuple[str, ...]
    """The queues that it asks for; empty for all that it is bound to."""
    trouble: str | None
    warm_containers: int
    last_seen_at_ms: int | None
    lost_after_s: float

    @property
    def taken_queues(self) -> tuple[str, ...] | None:
        """The queues that it takes jobs from; empty for any, ``None`` for none at all."""
        if not self.queues or not self.served_queues:
            return self.queues or self.served_queues
        return tuple(queue for queue in self.served_queues if queue in self.queues) or None

    def takes(self, queue: str) -> bool:
        """Return whether it takes jobs from a queue."""
        queues = self.taken_queues
        return queues is not None and (not queues or queue in queues)


@record(kw_only=True)
class WorkerSession:
    """What a worker says of itself when it connects."""

    session_id: str
    host: str
    version: str
    protocol: int
    concurrency: int
    queues: tuple[str, ...]
    lost_after_s: float


@record
class AttemptLease:
    """The lease of an attempt of a worker on another machine."""

    token: str
    lost_after_s: float
    """How long the worker goes on without the service; both sides measure it themselves."""


@record
class LeasedAttempt:
    """An attempt of a worker on another machine."""

    attempt: OpenAttempt
    lease: AttemptLease
    claimed_at_ms: int
    """When it was claimed; at the worker, when it was told of it."""

    @property
    def job(self) -> Job:
        """Return the job, which represents this attempt."""
        return self.attempt.job

    @property
    def key(self) -> tuple[str, int]:
        """Return the id of the job and the number of the attempt."""
        return self.attempt.job.job_id, self.attempt.job.attempt


def agreed_protocol(theirs: int) -> int:
    """Return the version to use with the other side, whose newest one is ``theirs``.

    Versions one apart understand each other, so that service and workers can be upgraded one after the other.
    What a later version adds to a call is sent only once the other side is known to have that version. Raises
    ``Conflict``.
    """
    if abs(theirs - PROTOCOL) > 1:
        raise Conflict(
            f"the worker and its service are of versions too far apart (protocol {theirs} and {PROTOCOL}): "
            "upgrade the older one of the two"
        )
    return min(PROTOCOL, theirs)
