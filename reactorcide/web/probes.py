"""Whether the parts of the service work, found out by threads of their own: whoever asks waits for none."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from reactorcide.domain.errors import ReactorcideError

log = logging.getLogger("reactorcide.web")

_FRESH_S = 0.5
"""For so long what was found is not asked for again."""
_PATIENCE_S = 0.5
"""What a request waits for a probe that has just begun; of one that hangs only the first requests wait."""
_SILENT_S = 5.0
"""A part that takes longer to tell is one that does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe last found: ``ok``, or a sentence, and how long ago."""

    text: str
    age_s: float | None
    """``None`` where it has found nothing yet."""


class Probes:
    """Probes by name, of each of which at most one runs at a time. Thread-safe."""

    def __init__(self, probes: Mapping[str, Callable[[], None]]) -> None:
        """Each of ``probes`` raises a sentence where its part does not work."""
        self._probes = [_Probe(name, probe) for name, probe in probes.items()]

    def look(self) -> dict[str, Finding]:
        """Return what was last found, after having had a look taken where that is a while ago."""
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
        self._found_at = 0.0
        self._began_at: float | None = None

    def begin(self) -> None:
        with self._changed:
            if self._began_at is None and (self._text is None or monotonic() - self._found_at > _FRESH_S):
                self._began_at = monotonic()
                threading.Thread(target=self._run, name=f"probe-{self.name}", daemon=True).start()

    def finding(self, deadline: float) -> Finding:
        with self._changed:
            if self._began_at is not None:
                until = min(deadline, self._began_at + _PATIENCE_S)
                self._changed.wait_for(lambda: self._began_at is None, max(0.0, until - monotonic()))
            now = monotonic()
            age_s = None if self._text is None else round(now - self._found_at, 1)
            if self._began_at is not None and now - self._began_at > _SILENT_S:
                return Finding(f"it has not answered for {now - self._began_at:.0f} s", age_s)
            return Finding(self._text or "nothing is known of it yet; ask again in a moment", age_s)

    def _run(self) -> None:
        try:
            self._probe()
            text = "ok"
        except ReactorcideError as exc:
            text = str(exc)
        except Exception:
            log.exception("the probe of %s failed unexpectedly", self.name)
            text = "it could not be looked at; the service's log says why"
        with self._changed:
            self._text, self._found_at, self._began_at = text, monotonic(), None
            self._changed.notify_all()
