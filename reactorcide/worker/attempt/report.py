"""Telling the service how an attempt has ended, and clearing up after it."""

import logging
from collections.abc import Mapping

from reactorcide import crashpoints
from reactorcide.domain.errors import EngineBusy, InfrastructureError
from reactorcide.domain.jobs import Job, Outcome
from reactorcide.worker.attempt.container import Container, Progress
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.interrupt import Interrupt, Reason
from reactorcide.worker.port import WorkerPort

log = logging.getLogger("reactorcide.worker")

MAX_PREPARATION_FAILURES = 2
"""How often a job is prepared again after that failed through no fault of its own."""
MAX_BUSY_PREPARATIONS = 8
"""The same where the engine was busy, which passes: the pauses alone take a quarter of an hour."""
MAX_KILLED_PREPARATIONS = 20
"""How often a job is prepared again after the service was killed meanwhile."""
_FIRST_RETRY_DELAY_S = 5.0
_LONGEST_RETRY_DELAY_S = 300.0
_LONGEST_KILLED_DELAY_S = 10.0
_RETRY_DELAY_S = 1.0


class Report:
    """How one attempt has ended, for its job: over, to be tried again, or left to the next start."""

    def __init__(
        self,
        port: WorkerPort,
        job: Job,
        container: Container,
        patiently: Patience,
        log_fields: Mapping[str, object],
        *,
        is_adopted: bool,
    ) -> None:
        self._port = port
        self._job = job
        self._container = container
        self._patiently = patiently
        self._log_fields = log_fields
        self._is_adopted = is_adopted
        self.log_truncated = False
        """Whether something was left out of the attempt's log for its size."""

    def ended(self, outcome: Outcome) -> None:
        """Tell the service how the attempt ended, then clear up."""
        crashpoints.reached("log-closed")
        self._patiently(lambda: self._tell(outcome))
        self._container.remove()

    def interrupted(self, interrupt: Interrupt) -> None:
        """End an attempt that was told to stop before its command had started."""
        if interrupt.reason is Reason.CANCELLED:
            self.ended(Outcome(exit_code=None, error="cancelled"))
        elif not self._may_have_run():
            reason = "the service stopped before the command had started"
            self._port.try_again(self._job, reason, delay_s=0)
            self._container.remove()
        # Otherwise the container goes on by itself, and the next start adopts it: or finds that the
        # hand-over, which ended with this connection, was not whole.

    def infrastructure_failed(self, problem: InfrastructureError) -> None:
        """End an attempt that failed through a fault of ours: try again, as long as nothing has run."""
        job = self._job
        if self._is_adopted:
            # The end of the service mostly has other causes. But what it was preparing may be one.
            failures, max_failures = job.killed_preparations, MAX_KILLED_PREPARATIONS
            delay_s = min(2.0**failures - 1, _LONGEST_KILLED_DELAY_S)
            counter = {"killed_preparations": failures + 1}
        else:
            is_busy = isinstance(problem, EngineBusy)
            failures = job.preparation_failures
            max_failures = MAX_BUSY_PREPARATIONS if is_busy else MAX_PREPARATION_FAILURES
            delay_s = min(_FIRST_RETRY_DELAY_S * 2**failures, _LONGEST_RETRY_DELAY_S)
            counter = {"preparation_failures": failures + 1}
        if self._may_have_run() or failures >= max_failures:
            tried = f"; it was tried {failures + 1} times" if isinstance(problem, EngineBusy) else ""
            self.ended(Outcome(exit_code=None, error=f"{problem}{tried}"))
            return
        log.warning("trying again in %g s: %s", delay_s, problem, extra=self._log_fields)
        crashpoints.reached("retry-decided")
        self._patiently(
            lambda: self._port.try_again(
                job, str(problem), delay_s=delay_s, log_truncated=self.log_truncated, **counter
            )
        )
        # Only now: while the row says that the command was handed over, its container is the one proof that
        # it was not.
        self._container.remove()

    def _tell(self, outcome: Outcome) -> None:
        job = self._job
        has_retries = self._may_have_run() and job.retries_used < job.definition.retries
        if outcome.error is None or not has_retries:
            self._port.finish(job, outcome, log_truncated=self.log_truncated)
            return
        # What failed once mostly fails at once again, so a moment's rest; the log of each attempt is kept.
        self._port.try_again(
            job,
            outcome.error,
            delay_s=_RETRY_DELAY_S,
            exit_code=outcome.exit_code,
            log_truncated=self.log_truncated,
            retries_used=job.retries_used + 1,
        )

    def _may_have_run(self) -> bool:
        return self._container.progress is not Progress.PREPARING
