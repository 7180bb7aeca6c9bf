"""Facts about a worker. Times are Unix milliseconds in UTC."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
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
