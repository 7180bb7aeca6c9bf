"""Looking at schedules: those of a project, and one with what became of its last due times."""

from collections.abc import Sequence

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.schedules import Occurrence, Schedule
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.schedules.cron import Times

_SHOWN = 5


def listed(context: StoredJobs, user: User, project_id: str) -> list[Schedule]:
    """Return the schedules of a project by name; for those who may start its runs."""
    project_id = access.project(context, user, project_id, ProjectRole.WRITE).project_id
    return context.store.schedules.of(project_id)


def view(
    context: StoredJobs, user: User, project_id: str, schedule_id: str
) -> tuple[Schedule, Sequence[Occurrence]]:
    """Return a schedule, and what became of its last due times; for those who may start runs.

    Raises ``NotFound``.
    """
    project_id = access.project(context, user, project_id, ProjectRole.WRITE).project_id
    schedule = context.store.schedules.get(project_id, schedule_id)
    return schedule, context.store.schedules.occurrences(schedule_id)


def next_times(schedule: Schedule) -> list[int]:
    """Return the next five due times; none where the schedule is not enabled."""
    if not schedule.enabled:
        return []
    try:
        return Times(schedule.cron, schedule.timezone).some_after(now_ms(), _SHOWN)
    except InvalidInput:
        # A time zone that the system does not know any more.
        return []
