"""Reading schedules: those of a project, and one with the results of its last due times."""

from collections.abc import Sequence

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.schedules import Occurrence, Schedule, WhenRunning
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record
from reactorcide.schedules.cron import Times

_NEXT_TIMES = 5


@record
class ScheduleView:
    """A schedule as it is shown to users."""

    schedule: Schedule
    next_due_at_ms: Sequence[int]
    """The next due times, in order; empty if the schedule is disabled."""
    waiting: str | None
    """A phrase that says what a due run waits for; ``None`` if no run waits."""
    occurrences: Sequence[Occurrence] = ()
    """The results of the last due times, newest first."""


def listed(context: StoredJobs, user: User, project_id: str) -> list[ScheduleView]:
    """Return the schedules of a project by name, each with one due time; for those who may start its runs.

    That due time is stored, because computing it takes milliseconds for some expressions.
    """
    project_id = access.project(context, user, project_id, ProjectRole.WRITE).project_id
    at_ms = now_ms()
    views = []
    for schedule in context.store.schedules.of(project_id):
        due_at_ms = schedule.next_due_at_ms
        is_coming = schedule.enabled and due_at_ms is not None and due_at_ms > at_ms
        next_due_at_ms = [due_at_ms] if is_coming and due_at_ms is not None else []
        views.append(ScheduleView(schedule, next_due_at_ms, _waiting(context, schedule, at_ms)))
    return views


def view(context: StoredJobs, user: User, project_id: str, schedule_id: str) -> ScheduleView:
    """Return a schedule with five due times, and the results of the last ones; for those who may start runs.

    Raises ``NotFound``.
    """
    project_id = access.project(context, user, project_id, ProjectRole.WRITE).project_id
    schedule = context.store.schedules.get(project_id, schedule_id)
    at_ms = now_ms()
    return ScheduleView(
        schedule,
        _next_times(schedule, at_ms),
        _waiting(context, schedule, at_ms),
        context.store.schedules.occurrences(schedule_id),
    )


def _next_times(schedule: Schedule, at_ms: int) -> list[int]:
    if not schedule.enabled:
        return []
    try:
        return Times(schedule.cron, schedule.timezone).some_after(at_ms, _NEXT_TIMES)
    except InvalidInput:
        # The system no longer has this time zone.
        return []


def _waiting(context: StoredJobs, schedule: Schedule, at_ms: int) -> str | None:
    queues = schedule.enabled and schedule.when_running is WhenRunning.QUEUE
    if not queues or schedule.next_due_at_ms is None or schedule.next_due_at_ms > at_ms:
        return None
    number = context.store.schedules.open_run(schedule.schedule_id)
    return None if number is None else f"#{number} is not over"
