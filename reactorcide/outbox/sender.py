"""Sending what is owed, in threads beside the worker, until it has arrived."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Protocol

from reactorcide import crashpoints
from reactorcide.domain.errors import InfrastructureError
from reactorcide.domain.peers import Alone, Turns, turn
from reactorcide.duties import Duties, Duty
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import LOOK_EVERY_S, OUTBOX, Notifier
from reactorcide.lib.records import record
from reactorcide.metrics import Metrics
from reactorcide.store import Store
from reactorcide.store.outbox import Lane
from reactorcide.threads import ThreadsByKey, start_thread

log = logging.getLogger("reactorcide.outbox")

_ANNOUNCING = "announce"
_SENDING = "send"
_MAX_THREADS = 16
_TURN_S = 10.0
"""After so long another lane gets the thread."""
_PAUSE_S = 1.0
"""After a failure that could not be recorded."""
_MAX_REFUSED = 3
"""So many things that were refused in a row, and the whole lane waits."""
_SLOW_AFTER = 11
"""Attempts that are a second to ten minutes apart; from then on there is one an hour."""
_HOUR_MS = 3_600_000
_KEEP_MS = 30 * 24 * _HOUR_MS
"""How long something is tried, and how long it is listed."""
_TOO_OLD = "it could not be sent for 30 days"
ANY_TIME_MS = 1 << 60
"""After all that is owed, also after what a wrong clock has dated."""


@record(kw_only=True)
class Failure:
    """Why something did not arrive."""

    problem: str
    """One sentence."""
    reason: str
    """One of few, for the metrics."""
    is_of_lane: bool
    """Nothing else in its lane would arrive either."""
    wait_s: float | None = None
    """How long the other side asks to wait."""
    is_gone: bool = False
    """Nothing is to be sent in its lane any more."""


@record(kw_only=True)
class Arrived:
    """Something has arrived."""

    wait_s: float | None = None
    """As with ``Failure``."""


class Owed(Protocol):
    """Something that is to be sent."""

    @property
    def failures(self) -> int:
        """How often in a row it did not arrive."""

    def send(self) -> Arrived | Failure:
        """Send it, within a deadline."""

    def arrived(self, *, now_ms: int) -> None:
        """Record that it has arrived."""

    def failed(self, problem: str, *, next_at_ms: int) -> None:
        """Record that it did not arrive, and when it is sent again."""


class Line(Protocol):
    """A kind of things to send. What is in one lane is sent one after the other."""

    def next(self, owner_id: str, *, now_ms: int) -> Owed | None:
        """Return what has been due for longest in a lane; ``None`` if nothing is due."""

    def give_up(self, owner_id: str, problem: str, *, owed_up_to_ms: int) -> None:
        """Send no more what has been owed in a lane since then or longer."""


class Sender:
    """Sends what is due, each lane in a thread of its own, few at a time; see ``ThreadsByKey``.

    ``start`` once; ``stop`` any number of times. What is owed is in the database, so that it is sent after a
    restart; what was being sent when the service was killed is sent again.
    """

    def __init__(
        self,
        store: Store,
        lines: Mapping[str, Line],
        notifier: Notifier,
        metrics: Metrics,
        *,
        announce: Callable[[int], bool] = lambda now_ms: False,
        turns: Turns | None = None,
    ) -> None:
        """``announce`` writes what else is owed; it is called until it returns ``False``.

        ``turns`` are taken for each lane, if there may be other services.
        """
        self._turns = turns or Alone()
        self._announce = announce
        self._store = store
        self._lines = lines
        self._notifier = notifier
        self._metrics = metrics
        self._threads = ThreadsByKey(_MAX_THREADS, lambda: notifier.announce(OUTBOX))
        """By the owner of a lane."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        duties = (
            Duty("remove what was sent long ago", _HOUR_MS / 1000, self._remove_old, LOOK_EVERY_S),
            Duty("send what is owed", 0.0, self._start_due, LOOK_EVERY_S),
        )
        self._duties = Duties(duties, log)

    def start(self) -> None:
        """Start sending."""
        self._thread = start_thread(self._loop, "outbox")

    def stop(self, deadline_s: float) -> None:
        """Stop after what is being sent, or after ``deadline_s``; the next start sends the rest."""
        deadline = monotonic() + deadline_s
        self._stopping.set()
        self._notifier.announce(OUTBOX)
        self._threads.stop(deadline)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - monotonic()))

    def _loop(self) -> None:
        with self._notifier.watching(OUTBOX) as changed:
            while not self._stopping.is_set():
                changed.clear()
                self._duties.do_due()
                changed.wait(LOOK_EVERY_S)

    def _remove_old(self) -> None:
        self._store.outbox.remove_old(before_ms=now_ms() - _KEEP_MS)

    def _start_due(self) -> None:
        with turn(self._turns, _ANNOUNCING) as is_taken:
            while is_taken and self._announce(now_ms()) and not self._stopping.is_set():
                pass
        while not (self._stopping.is_set() or self._threads.is_full):
            lane = self._due(has_failed=False) or self._due(has_failed=True)
            if lane is None:
                return
            if not self._turns.take(_SENDING, lane.owner_id):
                # Another service was faster.
                continue
            is_retry = lane.failures > 0
            # Another service may have had it until a moment ago.
            current = self._store.outbox.due_lane(
                now_ms=now_ms(), has_failed=is_retry, owner_id=lane.owner_id
            )
            if current is None:
                self._turns.give_back(_SENDING, lane.owner_id)
                continue
            work = partial(self._work, current)
            if not self._threads.start(lane.owner_id, lane.user_id, work, "send", is_retry=is_retry):
                self._turns.give_back(_SENDING, lane.owner_id)
                # All others have failed as well.
                return

    def _due(self, *, has_failed: bool) -> Lane | None:
        """Return the lane that has waited longest and may have a thread."""
        return self._store.outbox.due_lane(
            now_ms=now_ms(),
            has_failed=has_failed,
            # These may be due, too.
            besides=[*self._threads.keys(), *self._turns.others(_SENDING)],
            besides_users=self._threads.full_users(is_retry=has_failed),
        )

    def _work(self, lane: Lane) -> None:
        try:
            try:
                self._send_due(lane)
            finally:
                self._turns.give_back(_SENDING, lane.owner_id)
            return
        except InfrastructureError as exc:
            log.warning("what is owed is sent later: %s", exc)
        except Exception:
            log.exception("sending failed unexpectedly")
            self._pause_after_error(lane)
        # The database may take no writes; then the lane would send the same again and again.
        self._stopping.wait(_PAUSE_S)

    def _pause_after_error(self, lane: Lane) -> None:
        """Keep an error that nobody has thought of from coming again every moment."""
        problem = "an unexpected error, which the service's log has"
        failed = replace(lane, failures=lane.failures + 1, problem=problem)
        with suppress(InfrastructureError):
            self._store.outbox.pause(failed, until_ms=_in(_delay_s(failed.failures)))

    def _send_due(self, lane: Lane) -> None:
        line, outbox = self._lines[lane.kind], self._store.outbox
        until, refused = monotonic() + _TURN_S, 0
        while not self._stopping.is_set():
            owed = line.next(lane.owner_id, now_ms=now_ms())
            if owed is None:
                outbox.rest(lane)
                return
            if monotonic() > until:
                outbox.queue_up(lane, now_ms=now_ms())
                return
            crashpoints.reached("outbox-sending")
            outcome = owed.send()
            crashpoints.reached("outbox-sent")
            if isinstance(outcome, Arrived):
                self._metrics.observe_sent(lane.kind)
                owed.arrived(now_ms=now_ms())
                crashpoints.reached("outbox-marked")
                if lane.failures or lane.problem is not None:
                    outbox.works(lane)
                lane, refused = replace(lane, failures=0, problem=None), 0
                if outcome.wait_s is not None:
                    outbox.pause(lane, until_ms=_in(outcome.wait_s))
                    return
                continue
            self._metrics.observe_not_sent(lane.kind, outcome.reason)
            lane, refused = replace(lane, problem=outcome.problem), refused + 1
            if outcome.is_gone:
                outbox.save_problem(lane)
                line.give_up(lane.owner_id, outcome.problem, owed_up_to_ms=ANY_TIME_MS)
                continue
            if outcome.is_of_lane or refused >= _MAX_REFUSED:
                lane = replace(lane, failures=lane.failures + 1)
                delay_s = _delay_s(lane.failures) if outcome.wait_s is None else outcome.wait_s
                # When the lane goes on, another one is tried first.
                owed.failed(outcome.problem, next_at_ms=now_ms())
                line.give_up(lane.owner_id, _TOO_OLD, owed_up_to_ms=now_ms() - _KEEP_MS)
                outbox.pause(lane, until_ms=_in(delay_s))
                return
            owed.failed(outcome.problem, next_at_ms=_in(_delay_s(owed.failures + 1)))
            outbox.save_problem(lane)


def _delay_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: 1 s to 10 min, then an hour."""
    return min(2.0 ** (failures - 1), 600.0) if failures <= _SLOW_AFTER else _HOUR_MS / 1000


def _in(seconds: float) -> int:
    return now_ms() + round(seconds * 1000)
