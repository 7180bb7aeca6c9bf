"""Ending a command: SIGTERM, a grace period, SIGKILL."""

import math
from time import monotonic

from reactorcide.domain.errors import JobInterrupted
from reactorcide.lib.clock import now_ms
from reactorcide.lib.sizes import format_size
from reactorcide.worker.attempt.container import Container
from reactorcide.worker.attempt.limits import Limits
from reactorcide.worker.interrupt import Interrupt, Reason

_KILL_AGAIN_S = 1.0


class Ending:
    """Ends the command of one attempt after a cancel, a timeout, or above its disk limit."""

    def __init__(
        self, container: Container, interrupt: Interrupt, limits: Limits, timeout_seconds: int
    ) -> None:
        self._container = container
        self._interrupt = interrupt
        self._limits = limits
        self._timeout_seconds = timeout_seconds
        self._kill_at: float | None = None
        self._takes_too_much_disk = False
        self._service_problem: str | None = None
        self.deadline: float | None = None
        """The deadline of the command, by ``time.monotonic``; ``None`` before it runs."""
        self.reason: str | None = None
        """A phrase that says why the command was ended; ``None`` if it was not."""

    def command_started(self, started_at_ms: int) -> None:
        """Start the command's time limit at ``started_at_ms``."""
        ran_s = (now_ms() - started_at_ms) / 1000
        self.deadline = monotonic() + self._timeout_seconds - max(0.0, ran_s)

    def disk_exceeded(self) -> None:
        """End the command because it exceeds its disk limit; from any thread."""
        self._takes_too_much_disk = True

    def service_ended(self, problem: str) -> None:
        """End the command because a service of its job has ended, as ``problem`` says; from any thread."""
        self._service_problem = problem

    @property
    def disk_problem(self) -> str | None:
        """Return the phrase about the exceeded disk limit, after ``disk_exceeded``."""
        if not self._takes_too_much_disk:
            return None
        return f"killed: used more than {format_size(self._limits.max_disk_bytes)} of disk (--max-disk)"

    def begin(self) -> None:
        """Start watching a newly opened output.

        Whether a signal that was sent before a lost connection has arrived is unknown: if the command still
        runs it gets another one, and its grace period.
        """
        self._kill_at = None

    def step(self) -> float:
        """Send the signal that is due, if one is; returns the seconds until the next one may be.

        Raises ``JobInterrupted`` when the service stops: the container continues.
        """
        now = monotonic()
        if self._kill_at is None:
            self._end_if_necessary(now)
        elif now >= self._kill_at:
            self._container.signal("KILL")
            self._kill_at = now + _KILL_AGAIN_S
        return (self._deadline() if self._kill_at is None else self._kill_at) - now

    def _end_if_necessary(self, now: float) -> None:
        if self._interrupt.reason is Reason.CANCELLED:
            reason = self._interrupt.why
        elif self.disk_problem is not None:
            reason = self.disk_problem
        elif self._service_problem is not None:
            reason = self._service_problem
        elif now >= self._deadline():
            reason = f"timed out after {self._timeout_seconds} s"
        elif self._interrupt.reason is Reason.STOPPING:
            raise JobInterrupted("stopping")
        else:
            return
        self.reason = reason
        self._container.signal("TERM")
        # During a grace period it would continue to fill the disk.
        # From now on: an engine may take seconds to send the signal.
        self._kill_at = monotonic() + (0.0 if self._takes_too_much_disk else self._limits.cancel_grace_s)

    def _deadline(self) -> float:
        # A command that ended by itself is not a timeout, even if its end is noticed late.
        if self._container.exit is not None:
            return math.inf
        return self.deadline or 0.0
