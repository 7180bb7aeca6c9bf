"""Ending the attempts of workers on other machines that were not heard of for too long."""

import logging
from collections.abc import Callable

from reactorcide.jobs import JobContext
from reactorcide.jobs.remote.attempts import Key, LeasedAttempts
from reactorcide.lib.clock import boottime

log = logging.getLogger("reactorcide.jobs")

_MARGIN_S = 30.0
"""Beyond the time after which the worker ends its container: for the engine to kill it."""
_MIN_UNTOUCHED_S = 30.0
"""Leases may be shorter, and a line slow."""


class LostAttempts:
    """Watches the heartbeats of leased attempts. For one thread.

    An attempt that its worker has not touched for a whole lease is given back: the worker was gone before it
    could get it, or will find that it may not begin any more. Another one is lost when its heartbeat has not
    changed for as long as its worker goes on without the service, with the grace period and a margin. These
    times are measured here, so that neither clock counts, and each start of the service begins anew.
    """

    def __init__(
        self,
        context: JobContext,
        attempts: LeasedAttempts,
        *,
        grace_s: float,
        lease_s: float,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._context = context
        self._attempts = attempts
        self._grace_s = grace_s
        self._untouched_s = max(lease_s, _MIN_UNTOUCHED_S)
        self._clock = clock
        self._seen: dict[Key, tuple[int, float]] = {}
        """The heartbeat of each attempt, and when it was seen first."""

    def look(self) -> None:
        """End the attempts that are lost."""
        now = self._clock()
        seen: dict[Key, tuple[int, float]] = {}
        lost: set[Key] = set()
        untouched: set[Key] = set()
        for heartbeat in self._context.store.leases.heartbeats():
            key = heartbeat.job_id, heartbeat.attempt
            before = self._seen.get(key)
            first_at = before[1] if before is not None and before[0] == heartbeat.at_ms else now
            seen[key] = heartbeat.at_ms, first_at
            if now - first_at > heartbeat.lost_after_s + self._grace_s + _MARGIN_S:
                lost.add(key)
            elif heartbeat.is_untouched and now - first_at > self._untouched_s:
                untouched.add(key)
        self._seen = seen
        if lost or untouched:
            self._end(lost, untouched)

    def _end(self, lost: set[Key], untouched: set[Key]) -> None:
        for leased in self._context.store.leases.unfinished():
            worker_id, lost_after_s = leased.attempt.worker_id, leased.lease.lost_after_s
            if leased.key in untouched:
                reason = f"worker {worker_id} did not take it within {self._untouched_s:g} s"
            elif leased.key in lost:
                reason = (
                    f"worker {worker_id} was not heard of for more than {lost_after_s:g} s (--lost-after)"
                )
            else:
                continue
            log.warning("%s", reason, extra={"job_id": leased.job.job_id})
            self._attempts.lose(leased, reason, was_taken=leased.key in lost)
