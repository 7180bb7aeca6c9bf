"""Start the runs of a schedule: when they are due, or manually."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, InvalidInput, NotFound, RefNotFound
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run, RunSource
from reactorcide.domain.schedules import Occurrence, Schedule, WhenRunning
from reactorcide.jobs import access
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext
from reactorcide.runs.request import Start
from reactorcide.runs.start import start_for_project
from reactorcide.schedules.cron import Times
from reactorcide.store import Records

log = logging.getLogger("reactorcide.schedules")

STARTED = "started"
BY_HAND = "started by hand"
NOTHING_TO_START = "no workflow names the event schedule"


class Due:
    """Decides on due times, and starts the runs of schedules. Thread-safe.

    Each due time is decided once, for any number of services: the transaction that commits the runs writes a
    unique row for it.
    """

    def __init__(self, context: RunContext, clock: Callable[[], int] = now_ms) -> None:
        """``clock`` returns the time in Unix milliseconds."""
        self._context = context
        self._store = context.jobs.store
        self._clock = clock

    def decide(self) -> list[Schedule]:
        """Decide on all due times, and return the schedules whose runs have to start now."""
        to_start = []
        for schedule in self._store.schedules.due(now_ms=self._clock()):
            try:
                if self._starts(schedule):
                    to_start.append(schedule)
            except NotFound:
                # It was just removed with its project.
                continue
            except InvalidInput as exc:
                # A time zone that the system does not know any more.
                self._fail(schedule, exc)
        return to_start

    def creator(self, schedule: Schedule) -> str:
        """Return the id of the user who has created the project of a schedule; empty if it is gone."""
        return self._store.projects.creator(schedule.project_id)

    def start(self, schedule: Schedule, *, gives_up: bool) -> None:
        """Start the runs of a schedule that is due.

        Does nothing if its due time has been decided meanwhile, or the schedule was changed. A missing branch
        is a failed run, and so is, if the caller ``gives_up``, an unreachable repository; otherwise this
        raises as ``start_for_project``.
        """
        crashpoints.reached("schedule-due")
        occurrence = Occurrence(
            schedule_id=schedule.schedule_id,
            due_at_ms=schedule.next_due_at_ms or 0,
            at_ms=self._clock(),
            outcome=STARTED,
        )

        def also(tx: Records, runs: Sequence[Run]) -> None:
            self._write(tx, schedule, _with_runs(occurrence, runs))
            crashpoints.reached("schedule-written")

        try:
            _start(self._context, schedule, also, gives_up=gives_up)
        except (NotFound, Conflict):
            # Or its project was disabled, which the next check records.
            log.info("the schedule %s was decided on elsewhere, changed or removed", schedule.name)

    def _starts(self, schedule: Schedule) -> bool:
        """Return whether the runs of a schedule have to start; otherwise record the result of the due
        time."""
        at_ms, due_at_ms = self._clock(), schedule.next_due_at_ms
        following_ms = self._next(schedule)
        if due_at_ms is None or due_at_ms > at_ms or self._is_decided(schedule):
            self._store.schedules.reckon(schedule, following_ms, now_ms=at_ms)
            return False
        reason = "the project is disabled"
        if not self._store.projects.get(schedule.project_id).disabled:
            number = self._store.schedules.open_run(schedule.schedule_id)
            if number is None:
                return True
            if schedule.when_running is WhenRunning.QUEUE:
                return False
            reason = f"#{number} was not over"
        occurrence = Occurrence(
            schedule_id=schedule.schedule_id, due_at_ms=due_at_ms, at_ms=at_ms, outcome=f"skipped: {reason}"
        )
        # Another service that decides at the same time gets the same result.
        with suppress(_Decided), self._store.transaction() as tx:
            self._write(tx, schedule, occurrence)
        return False

    def _fail(self, schedule: Schedule, problem: InvalidInput) -> None:
        """Record, once, that a schedule has no next due time."""
        occurrence = Occurrence(
            schedule_id=schedule.schedule_id,
            due_at_ms=schedule.next_due_at_ms or 0,
            at_ms=self._clock(),
            outcome=f"failed: {problem}",
        )
        if self._store.schedules.decide(occurrence):
            log.warning("the schedule %s of project %s: %s", schedule.name, schedule.project_id, problem)

    def _is_decided(self, schedule: Schedule) -> bool:
        """Return whether the next due time is already decided, because the clock was set back since."""
        decided = self._store.schedules.occurrences(schedule.schedule_id)
        return any(item.due_at_ms == schedule.next_due_at_ms for item in decided)

    def _write(self, tx: Records, schedule: Schedule, occurrence: Occurrence) -> None:
        """Record the result of a due time, and write the next one; raises ``_Decided``."""
        if not tx.schedules.reckon(schedule, self._next(schedule), now_ms=occurrence.at_ms):
            raise _Decided
        if not tx.schedules.decide(occurrence):
            raise _Decided

    def _next(self, schedule: Schedule) -> int | None:
        """Return the first due time from now on: all missed due times together start one run."""
        return Times(schedule.cron, schedule.timezone).first_after(self._clock())


def start_by_hand(context: RunContext, user: User, project_id: str, schedule_id: str) -> None:
    """Start the runs of a schedule now, regardless of its due times; for those who may start runs."""
    project_id = access.project(context.jobs, user, project_id, ProjectRole.WRITE).project_id
    schedule = context.jobs.store.schedules.get(project_id, schedule_id)
    at_ms = now_ms()
    occurrence = Occurrence(schedule_id=schedule_id, due_at_ms=at_ms, at_ms=at_ms, outcome=BY_HAND)

    def also(tx: Records, runs: Sequence[Run]) -> None:
        if not tx.schedules.decide(_with_runs(occurrence, runs)):
            raise Conflict("the schedule was already started in this millisecond; try again")
        entry = AuditEntry(at_ms=at_ms, by=user.actor, action=Action.SCHEDULE_RUN, subject=schedule_id)
        tx.audit.add(entry)

    _start(context, schedule, also, gives_up=True)


class _Decided(Conflict):
    """The due time was decided by another service, or the schedule was changed: nothing is written."""


def _with_runs(occurrence: Occurrence, runs: Sequence[Run]) -> Occurrence:
    outcome = occurrence.outcome if runs else NOTHING_TO_START
    return replace(occurrence, outcome=outcome, run_ids=tuple(run.run_id for run in runs))


def _start(
    context: RunContext,
    schedule: Schedule,
    also: Callable[[Records, Sequence[Run]], None],
    *,
    gives_up: bool,
) -> None:
    ref = None if schedule.branch is None else f"refs/heads/{schedule.branch}"
    request = Start(
        source=RunSource(git_ref=ref),
        workflow=schedule.workflow,
        event={"name": "schedule", "branch": schedule.branch or ""},
        variables=schedule.variables,
    )
    try:
        start_for_project(context, schedule.project_id, request, also, gives_up=gives_up)
    except RefNotFound:
        # A later attempt would fail in the same way.
        start_for_project(context, schedule.project_id, request, also, gives_up=True)
