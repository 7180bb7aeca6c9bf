"""Health probes, each in a thread of its own, so that no request waits for a part that hangs."""

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic

from reactorcide.domain.errors import InfrastructureError, ReactorcideError
from reactorcide.lib.records import record
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.web")

_FRESH_S = 0.5
"""A result is reused for this long."""
_PATIENCE_S = 0.5
"""How long a request waits for a probe that has just started; a probe that hangs delays no later request."""
_SILENT_S = 5.0
"""A part whose probe takes longer counts as broken."""


@record
class Finding:
    """The last result of a probe: ``ok``, or a sentence, and its age."""

    text: str
    age_s: float | None
    """``None`` if there is no result yet."""


class Probes:
    """Probes by name; each runs at most once at a time. Thread-safe."""

    def __init__(self, probes: Mapping[str, Callable[[], None]]) -> None:
        """Each of ``probes`` raises an error with a sentence if its part does not work."""
        self._probes = [_Probe(name, probe) for name, probe in probes.items()]

    def results(self) -> dict[str, Finding]:
        """Return the last results, and start the probes whose result is old."""
        deadline = monotonic() + _PATIENCE_S
        for probe in self._probes:
            probe.begin()
        return {probe.name: probe.finding(deadline) for probe in self._probes}


class _Probe:
    def __init__(self, name: str, probe: Callable[[], None]) -> None:
        self.name = name
        self._probe = probe
        self._changed = threading.Condition()
        self._text: str | None = None
        self._result_at = 0.0
        self._began_at: float | None = None

    def begin(self) -> None:
        with self._changed:
            if self._began_at is None and (self._text is None or monotonic() - self._result_at > _FRESH_S):
                try:
                    start_thread(self._run, f"probe-{self.name}")
                    self._began_at = monotonic()
                except InfrastructureError as exc:
                    self._text, self._result_at = str(exc), monotonic()

    def finding(self, deadline: float) -> Finding:
        with self._changed:
            if self._began_at is not None:
                until = min(deadline, self._began_at + _PATIENCE_S)
                self._changed.wait_for(lambda: self._began_at is None, max(0.0, until - monotonic()))
            now = monotonic()
            age_s = None if self._text is None else round(now - self._result_at, 1)
            if self._began_at is not None and now - self._began_at > _SILENT_S:
                return Finding(f"it has not answered for {now - self._began_at:.0f} s", age_s)
            return Finding(self._text or "it has not been checked yet; ask again in a moment", age_s)

    def _run(self) -> None:
        try:
            self._probe()
            text = "ok"
        except ReactorcideError as exc:
            text = str(exc)
        except Exception:
            log.exception("the probe of %s failed unexpectedly", self.name)
            text = "its probe failed unexpectedly; the service's log says why"
        with self._changed:
            self._text, self._result_at, self._began_at = text, monotonic(), None
            self._changed.notify_all()
