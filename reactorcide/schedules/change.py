"""Create a schedule of a project, change it, or remove it; for the project's owners."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, InvalidInput
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.schedules import MAX_NAME_CHARS, MAX_SCHEDULES, Schedule, is_name
from reactorcide.jobs import JobContext, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import is_id, new_id
from reactorcide.schedules.cron import Times


def create(context: JobContext, user: User, project_id: str, fields: Mapping[str, Any]) -> Schedule:
    """Create a schedule of a project and return it; ``fields`` are those of ``Schedule`` that a client can
    set.

    Raises ``InvalidInput`` for an invalid name, cron expression or time zone, and ``Conflict`` for a name in
    use.
    """
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    at_ms = now_ms()
    schedule = Schedule(
        schedule_id=new_id(),
        project_id=project_id,
        next_due_at_ms=None,
        reckoned_at_ms=at_ms,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        **fields,
    )
    schedule = _checked(context, schedule, at_ms)
    with context.store.transaction() as tx:
        if len(tx.schedules.of(project_id)) >= MAX_SCHEDULES:
            raise Conflict(f"the project has {MAX_SCHEDULES} schedules already; remove one")
        tx.schedules.add(schedule)
        tx.audit.add(_entry(user, Action.SCHEDULE_CREATE, schedule))
    return schedule


def change(
    context: JobContext, user: User, project_id: str, schedule_id: str, fields: Mapping[str, Any]
) -> Schedule:
    """Change fields of a schedule and return it. Its next due time is the first one from now on.

    Raises as ``create``, and ``NotFound``.
    """
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    with context.store.transaction() as tx:
        at_ms = now_ms()
        changed = replace(tx.schedules.get(project_id, schedule_id), updated_at_ms=at_ms, **fields)
        changed = _checked(context, changed, at_ms)
        tx.schedules.save(changed)
        tx.audit.add(_entry(user, Action.SCHEDULE_CHANGE, changed))
    return changed


def remove(context: JobContext, user: User, project_id: str, schedule_id: str) -> None:
    """Remove a schedule; its runs stay. Raises ``NotFound``."""
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    with context.store.transaction() as tx:
        schedule = tx.schedules.get(project_id, schedule_id)
        tx.schedules.remove(schedule_id)
        tx.audit.add(_entry(user, Action.SCHEDULE_DELETE, schedule))


def _checked(context: JobContext, schedule: Schedule, at_ms: int) -> Schedule:
    """Return a valid schedule with its next due time."""
    if not is_name(schedule.name) or is_id(schedule.name):
        raise InvalidInput(
            f"a schedule's name has 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', in words that a "
            "space separates, and is not an id",
            "name",
        )
    if schedule.branch is not None:
        try:
            context.rules.check_git_ref(schedule.branch)
        except InvalidInput as exc:
            raise InvalidInput(f"{schedule.branch[:100]!r} is not a branch name", "branch") from exc
    if schedule.variables and schedule.workflow is None:
        raise InvalidInput("vars belong to a workflow: name it, or leave them out", "vars")
    due_at_ms = Times(schedule.cron, schedule.timezone).first_after(at_ms)
    return replace(schedule, next_due_at_ms=due_at_ms, reckoned_at_ms=at_ms)


def _entry(user: User, action: Action, schedule: Schedule) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=schedule.schedule_id)
