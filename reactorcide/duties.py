"""Periodic work of a thread."""

import logging
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from reactorcide.domain.errors import InfrastructureError
from reactorcide.lib.records import record


@record
class Duty:
    """Work that is done every ``every_s`` seconds; after a failure, after ``retry_s``."""

    name: str
    every_s: float
    call: Callable[[], object]
    retry_s: float


class Duties:
    """Does duties when they are due; at first all of them are. For one thread; ``trouble`` from any.

    A failure of a part that a duty depends on is logged once, and does not prevent other duties.
    """

    def __init__(self, duties: Sequence[Duty], log: logging.Logger) -> None:
        self.duties = tuple(duties)
        self._log = log
        self._due_at = dict.fromkeys((duty.name for duty in duties), float("-inf"))
        self._trouble: dict[str, str] = {}

    def do_due(self) -> None:
        """Do the duties that are due."""
        for duty in self.duties:
            if monotonic() >= self._due_at[duty.name]:
                self._due_at[duty.name] = monotonic() + duty.retry_s
                if self.guard(duty.name, duty.call):
                    self._due_at[duty.name] = monotonic() + duty.every_s

    def guard(self, name: str, call: Callable[[], object]) -> bool:
        """Call other work in the same way, and return whether it succeeded."""
        try:
            call()
        except InfrastructureError as exc:
            if self._trouble.get(name) != str(exc):
                self._trouble[name] = str(exc)
                self._log.warning("%s: %s", name, exc)
            return False
        except Exception:
            self._log.exception("%s failed unexpectedly", name)
            return False
        if self._trouble.pop(name, None) is not None:
            self._log.info("%s: works again", name)
        return True

    def trouble(self, names: Collection[str]) -> str | None:
        """Return the failure of the first of these duties that has one."""
        return next(filter(None, map(self._trouble.get, names)), None)
