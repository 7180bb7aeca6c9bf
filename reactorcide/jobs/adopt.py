"""Adopting an attempt: its worker was killed, and itself or another one goes on with it."""

from collections.abc import Iterable

from reactorcide.domain.jobs import Job, OpenAttempt
from reactorcide.jobs import JobContext
from reactorcide.lib.clock import now_ms

_LOST_AFTER_LEASES = 2
"""A worker that lives stamps its attempts three times in a lease."""


def stamp(context: JobContext, jobs: Iterable[Job]) -> None:
    """Record that a worker runs the current attempts of these jobs just now."""
    context.store.attempts.heartbeat([(job.job_id, job.attempt) for job in jobs], now_ms=now_ms())


def unfinished(
    context: JobContext, worker_id: str, *, lease_s: float
) -> tuple[list[OpenAttempt], list[OpenAttempt]]:
    """Return the attempts that a worker may adopt, and those that it must leave to others.

    It may adopt its own, for it knows which of them it runs; one of another worker only when that has not
    stamped it for long.
    """
    at_ms, lost_after_ms = now_ms(), _LOST_AFTER_LEASES * lease_s * 1000
    ours: list[OpenAttempt] = []
    of_others: list[OpenAttempt] = []
    for attempt in context.store.attempts.unfinished():
        # A clock that was put back must not make anybody wait for as long.
        is_lost = abs(at_ms - attempt.heartbeat_at_ms) > lost_after_ms
        (ours if attempt.worker_id == worker_id or is_lost else of_others).append(attempt)
    return ours, of_others


def adopt(context: JobContext, attempt: OpenAttempt, worker_id: str) -> bool:
    """Make an attempt that was ``unfinished`` that worker's; returns whether nobody was quicker."""
    return context.store.attempts.adopt(
        attempt.job.job_id,
        attempt.job.attempt,
        worker_id,
        from_worker_id=attempt.worker_id,
        heartbeat_at_ms=attempt.heartbeat_at_ms,
        now_ms=now_ms(),
    )
