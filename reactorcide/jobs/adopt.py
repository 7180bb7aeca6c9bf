"""Adopting an attempt whose worker was killed: the restarted worker or another one continues it."""

import math
from collections.abc import Iterable

from reactorcide.domain.jobs import Job, OpenAttempt
from reactorcide.jobs import JobContext
from reactorcide.lib.clock import now_ms

_LOST_AFTER_LEASES = 2
"""A running worker writes a heartbeat for its attempts three times per lease."""


def stamp(context: JobContext, jobs: Iterable[Job]) -> None:
    """Write the heartbeat of a worker for the current attempts of these jobs."""
    context.store.attempts.heartbeat([(job.job_id, job.attempt) for job in jobs], now_ms=now_ms())


def unfinished(
    context: JobContext, worker_id: str, *, lease_s: float | None
) -> tuple[list[OpenAttempt], list[OpenAttempt]]:
    """Return the attempts that a worker may adopt, and those that belong to other workers.

    It may adopt its own, because it knows which of them it runs; another worker's only if their heartbeat is
    old; never with ``None``.
    """
    at_ms = now_ms()
    lost_after_ms = math.inf if lease_s is None else _LOST_AFTER_LEASES * lease_s * 1000
    ours: list[OpenAttempt] = []
    of_others: list[OpenAttempt] = []
    for attempt in context.store.attempts.unfinished():
        # A heartbeat in the future counts as old, so that a clock that was set back delays no adoption.
        is_lost = abs(at_ms - attempt.heartbeat_at_ms) > lost_after_ms
        (ours if attempt.worker_id == worker_id or is_lost else of_others).append(attempt)
    return ours, of_others


def ended_elsewhere(
    context: JobContext, worker_id: str, attempts: Iterable[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Return those of some attempts that have ended by now, or belong to another worker."""
    open_ones = context.store.attempts.unfinished()
    own = {(item.job.job_id, item.job.attempt) for item in open_ones if item.worker_id == worker_id}
    return set(attempts) - own


def adopt(context: JobContext, attempt: OpenAttempt, worker_id: str) -> bool:
    """Make a worker the owner of an ``unfinished`` attempt; returns whether no other worker was faster."""
    return context.store.attempts.adopt(
        attempt.job.job_id,
        attempt.job.attempt,
        worker_id,
        from_worker_id=attempt.worker_id,
        heartbeat_at_ms=attempt.heartbeat_at_ms,
        now_ms=now_ms(),
    )
