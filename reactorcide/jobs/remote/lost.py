"""Ending the attempts of workers on other machines, and of other services, that were not heard of."""

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
    """Watches the heartbeats of attempts that run elsewhere. For one thread.

    An attempt is lost when its heartbeat has not changed for as long as its worker goes on without the
    service, with the grace period and a margin. That time is measured here, so that neither clock counts, and
    each start of the service begins anew, as does each outage of the database: nobody was heard of in it.
    """

    def __init__(
        self,
        context: JobContext,
        attempts: LeasedAttempts,
        *,
        grace_s: float,
        own_worker_id: Callable[[], str] | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """``own_worker_id`` returns the worker of this service, which knows itself what it runs."""
        self._own_worker_id = own_worker_id
        self._context = context
        self._attempts = attempts
        self._grace_s = grace_s
        self._clock = clock
        self._is_blind = False
        """Whether the last look failed."""
        self._seen: dict[Key, tuple[int, float]] = {}
        """The heartbeat of each attempt, and when it was seen first."""

    def look(self) -> None:
        """End the attempts that are lost."""
        own = None if self._own_worker_id is None else self._own_worker_id()
        seen: dict[Key, tuple[int, float]] = {}
        lost: list[tuple[str, int, str, float]] = []
        was_blind, self._is_blind = self._is_blind, True
        found = self._context.store.leases.heartbeats()
        self._is_blind = False
        now = self._clock()
        for job_id, attempt, worker_id, heartbeat_at_ms, lost_after_s in found:
            if worker_id == own:
                continue
            key = job_id, attempt
            before = self._seen.get(key)
            is_same = before is not None and before[0] == heartbeat_at_ms and not was_blind
            first_at = before[1] if before is not None and is_same else now
            seen[key] = heartbeat_at_ms, first_at
            if now - first_at > lost_after_s + self._grace_s + _MARGIN_S:
                lost.append((job_id, attempt, worker_id, lost_after_s))
        self._seen = seen
        self._attempts.keep_open(seen)
        for job_id, attempt, worker_id, lost_after_s in lost:
            reason = f"worker {worker_id} was not heard of for more than {lost_after_s:g} s (--lost-after)"
            log.warning("%s", reason, extra={"job_id": job_id})
            self._attempts.lose((job_id, attempt), worker_id, reason, max_preparations=_MAX_PREPARATIONS)
