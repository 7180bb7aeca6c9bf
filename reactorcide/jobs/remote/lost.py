"""Ending the attempts of workers on other machines, and of other services, that were not heard of."""

import logging
from collections.abc import Callable

from reactorcide.domain.workers import Key
from reactorcide.jobs import JobContext
from reactorcide.jobs.remote.attempts import LeasedAttempts
from reactorcide.lib.clock import boottime
from reactorcide.lib.silence import Silence
from reactorcide.store.leases import Heartbeat

log = logging.getLogger("reactorcide.jobs")

_MARGIN_S = 30.0
"""Beyond the time after which the worker ends its container: for the engine to kill it."""
_MIN_UNTOUCHED_S = 30.0
"""Leases may be shorter, and a line slow."""


class LostAttempts:
    """Watches the heartbeats of attempts that run elsewhere. For one thread.

    An attempt that its worker on another machine has not touched for a whole lease is given back: the worker
    was gone before it could get it, or will find that it may not begin any more. Another one is lost when its
    heartbeat has not changed for as long as its worker goes on without the service, with the grace period and
    a margin. These times are measured here, so that neither clock counts; each start of the service begins
    anew, and so does each outage of the database: nobody was heard of in it.
    """

    def __init__(
        self,
        context: JobContext,
        attempts: LeasedAttempts,
        *,
        grace_s: float,
        lease_s: float,
        own_worker_id: Callable[[], str] | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """``own_worker_id`` returns the worker of this service, which knows itself what it runs."""
        self._own_worker_id = own_worker_id
        self._context = context
        self._attempts = attempts
        self._grace_s = grace_s
        self._untouched_s = max(lease_s, _MIN_UNTOUCHED_S)
        self._silence: Silence[Key] = Silence(clock)

    def look(self) -> None:
        """End the attempts that are lost."""
        own = None if self._own_worker_id is None else self._own_worker_id()
        found: dict[Key, Heartbeat] = {}

        def beats() -> dict[Key, int]:
            for heartbeat in self._context.store.leases.heartbeats():
                if heartbeat.worker_id != own:
                    found[heartbeat.job_id, heartbeat.attempt] = heartbeat
            return {key: heartbeat.at_ms for key, heartbeat in found.items()}

        silent_s = self._silence.look(beats)
        self._attempts.keep_open(found)
        for key, heartbeat in found.items():
            if silent_s[key] > heartbeat.lost_after_s + self._grace_s + _MARGIN_S:
                self._end(heartbeat, was_taken=True)
            elif heartbeat.is_untouched and silent_s[key] > self._untouched_s:
                self._end(heartbeat, was_taken=False)

    def _end(self, heartbeat: Heartbeat, *, was_taken: bool) -> None:
        worker_id, lost_after_s = heartbeat.worker_id, heartbeat.lost_after_s
        reason = f"worker {worker_id} was not heard of for more than {lost_after_s:g} s (--lost-after)"
        if not was_taken:
            reason = f"worker {worker_id} did not take it within {self._untouched_s:g} s"
        log.warning("%s", reason, extra={"job_id": heartbeat.job_id})
        key = heartbeat.job_id, heartbeat.attempt
        self._attempts.lose(key, worker_id, reason, was_taken=was_taken)
