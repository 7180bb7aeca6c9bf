"""Waiting for an unavailable dependency."""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from reactorcide.domain.errors import InfrastructureError, JobInterrupted, LogLost, LogTaken
from reactorcide.worker.interrupt import Interrupt, Reason

T = TypeVar("T")

log = logging.getLogger("reactorcide.worker")

_RETRY_S = 1.0


class Patience:
    """Repeats a call while a dependency of the service fails."""

    def __init__(self, interrupt: Interrupt, log_fields: Mapping[str, object]) -> None:
        self._interrupt = interrupt
        self._log_fields = log_fields

    def __call__(self, call: Callable[[], T], of: type[InfrastructureError] = InfrastructureError) -> T:
        """Return the result of ``call``; raises ``JobInterrupted`` when the service stops meanwhile.

        Only errors ``of`` a kind are waited for; others are raised at once.
        ``LogTaken`` is raised at once: another service has ended the attempt, and its log stays as it is.
        So is ``LogLost``, which waiting does not mend.
        """
        while True:
            try:
                return call()
            except (LogLost, LogTaken):
                raise
            except of as exc:
                log.warning("waiting: %s", exc, extra=self._log_fields)
                if self._interrupt.reason is Reason.STOPPING:
                    raise JobInterrupted("stopping") from exc
                self._interrupt.pause(_RETRY_S)

    def rest(self, timeout_s: float | None = None) -> None:
        """Wait before the next try, shorter after a cancel; raises ``JobInterrupted`` for a stop."""
        self._interrupt.pause(_RETRY_S if timeout_s is None else timeout_s)
        if self._interrupt.reason is Reason.STOPPING:
            raise JobInterrupted("stopping")
