"""Ending the attempts of workers on other machines that were not heard of for too long."""

import logging
from collections.abc import Callable

from reactorcide.jobs import JobContext
from reactorcide.jobs.remote.attempts import Key, LeasedAttempts
from reactorcide.lib.clock import boottime

log = logging.getLogger("reactorcide.jobs")

_MARGIN_S = 30.0
"""Beyond the time after which the worker ends its container: for the engine to kill it."""
_MAX_PREPARATIONS = 2


class LostAttempts:
    """Watches the heartbeats of leased attempts. For one thread.

    An attempt is lost when its heartbeat has not changed for as long as its worker goes on without the
    service, with the grace period and a margin. That time is measured here, so that neither clock counts, and
    each start of the service begins anew.
    """

    def __init__(
        self,
        context: JobContext,
        attempts: LeasedAttempts,
        *,
        grace_s: float,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._context = context
        self._attempts = attempts
        self._grace_s = grace_s
        self._clock = clock
        self._seen: dict[Key, tuple[int, float]] = {}
        """The heartbeat of each attempt, and when it was seen first."""

    def look(self) -> None:
        """End the attempts that are lost."""
        now = self._clock()
        seen: dict[Key, tuple[int, float]] = {}
        lost: set[Key] = set()
        for job_id, attempt, heartbeat_at_ms, lost_after_s in self._context.store.leases.heartbeats():
            key = job_id, attempt
            before = self._seen.get(key)
            first_at = before[1] if before is not None and before[0] == heartbeat_at_ms else now
            seen[key] = heartbeat_at_ms, first_at
            if now - first_at > lost_after_s + self._grace_s + _MARGIN_S:
                lost.add(key)
        self._seen = seen
        if lost:
            self._end(lost)

    def _end(self, lost: set[Key]) -> None:
        for leased in self._context.store.leases.unfinished():
            if leased.key not in lost:
                continue
            worker_id, lost_after_s = leased.attempt.worker_id, leased.lease.lost_after_s
            reason = f"worker {worker_id} was not heard of for more than {lost_after_s:g} s (--lost-after)"
            log.warning("%s", reason, extra={"job_id": leased.job.job_id})
            self._attempts.lose(leased, reason, max_preparations=_MAX_PREPARATIONS)
