"""Reporting the end of an attempt to the service, and cleaning up."""

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
"""Maximum number of repeated preparations after failures that are not the job's fault."""
MAX_BUSY_PREPARATIONS = 8
"""The same for a busy engine, which is temporary: the pauses alone take a quarter of an hour."""
MAX_KILLED_PREPARATIONS = 20
"""Maximum number of repeated preparations after the service was killed during one."""
_FIRST_RETRY_DELAY_S = 5.0
_LONGEST_RETRY_DELAY_S = 300.0
_LONGEST_KILLED_DELAY_S = 10.0
_RETRY_DELAY_S = 1.0


class Report:
    """The end of one attempt: final, to be retried, or left to the next start."""

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
        """Report the end of the attempt to the service, then clean up."""
        crashpoints.reached("log-closed")
        self._patiently(lambda: self._finish_or_retry(outcome))
        self._container.remove()

    def interrupted(self, interrupt: Interrupt) -> None:
        """End an attempt that was told to stop before its command had started."""
        if interrupt.reason is Reason.CANCELLED:
            self.ended(Outcome(exit_code=None, error=interrupt.why))
        elif not self._may_have_run():
            reason = "the service stopped before the command had started"
            try:
                self._port.try_again(self._job, reason, delay_s=0)
            except InfrastructureError as exc:
                # The next start sees that the command has not run.
                log.warning("left to the next start of the service: %s", exc, extra=self._log_fields)
                return
            self._container.remove()
        # Otherwise the container continues, and the next start adopts it, or detects that the handover was
        # incomplete, because it ended with this connection.

    def infrastructure_failed(self, problem: InfrastructureError) -> None:
        """End an attempt that failed through no fault of the job: retry it, as long as nothing has run."""
        job = self._job
        if self._is_adopted:
            # The service is usually killed for other reasons, but the preparation of this job may be the
            # cause.
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
        # Only now: while the row records a handover, the container is the only proof that it did not
        # complete.
        self._container.remove()

    def _finish_or_retry(self, outcome: Outcome) -> None:
        job = self._job
        has_retries = self._may_have_run() and job.retries_used < job.definition.retries
        if outcome.error is None or not has_retries:
            self._port.finish(job, outcome, log_truncated=self.log_truncated)
            return
        # A failure mostly repeats at once, so pause for a moment; the log of each attempt is stored.
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
