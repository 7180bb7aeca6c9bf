"""The scheduler: starts the runs of schedules that are due, in threads beside the worker."""

import logging
import threading
from functools import partial
from time import monotonic

from reactorcide.domain.errors import Busy, InfrastructureError, JobFailed
from reactorcide.domain.schedules import Schedule
from reactorcide.duties import Duties, Duty
from reactorcide.schedules.start import Due
from reactorcide.threads import ThreadsByKey, start_thread

log = logging.getLogger("reactorcide.schedules")

_LOOK_EVERY_S = 1.0
_MAX_AT_ONCE = 8
"""Schedules whose commits are fetched at once."""
_TRY_FOR_S = 600.0
_RETRY_S = 20.0


class Scheduler:
    """Checks for due schedules every second, and starts their runs, each in a separate thread.

    Only one of a project at a time, and users share the threads (see ``ThreadsByKey``), so that slow servers
    do not delay the schedules of others. ``start`` once; ``stop`` is idempotent. All is recorded in the
    database, so that a restart loses nothing.
    """

    def __init__(self, due: Due) -> None:
        self._due = due
        self._stopping = threading.Event()
        self._threads = ThreadsByKey(_MAX_AT_ONCE)
        """The threads that start runs, by the id of the project."""
        self._failing: dict[str, tuple[float, float]] = {}
        """The times of the first failure and of the next try, by the id of the schedule."""
        self._lock = threading.Lock()
        self._duties = Duties([Duty("start schedules", _LOOK_EVERY_S, self.look, _LOOK_EVERY_S)], log)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start checking."""
        self._thread = start_thread(self._loop, "scheduler")

    def stop(self, deadline_s: float) -> None:
        """Stop checking, and wait up to ``deadline_s`` for runs that are being started."""
        deadline = monotonic() + deadline_s
        self._stopping.set()
        self._threads.stop(deadline)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - monotonic()))

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._duties.do_due()
            self._stopping.wait(_LOOK_EVERY_S)

    def look(self) -> None:
        """Decide on the schedules that are due, and start threads for the runs of some of them."""
        due = self._due.decide()
        with self._lock:
            ids = {schedule.schedule_id for schedule in due}
            self._failing = {key: times for key, times in self._failing.items() if key in ids}
            # With the lock: a thread records a failure before it ends.
            for schedule in due:
                _, next_at = self._failing.get(schedule.schedule_id, (0.0, 0.0))
                if monotonic() >= next_at:
                    name = f"schedule-{schedule.schedule_id}"
                    work, user_id = partial(self._start, schedule), self._due.creator(schedule)
                    self._threads.start(schedule.project_id, user_id, work, name, is_retry=next_at > 0)

    def _start(self, schedule: Schedule) -> None:
        first_at, _ = self._failing.get(schedule.schedule_id, (monotonic(), 0.0))
        try:
            self._due.start(schedule, gives_up=monotonic() - first_at > _TRY_FOR_S)
        except (JobFailed, InfrastructureError, Busy) as exc:
            log.warning("the schedule %s: %s; it is tried again", schedule.name, exc)
        except Exception:
            log.exception("the schedule %s failed unexpectedly", schedule.name)
        else:
            return
        with self._lock:
            self._failing[schedule.schedule_id] = first_at, monotonic() + _RETRY_S
