"""Reading projects: one with its members, and lists."""

from collections.abc import Mapping, Sequence

from reactorcide.domain.accounts import User
from reactorcide.domain.projects import Credential, CredentialKind, Member, Project, ProjectRole
from reactorcide.domain.statuses import StatusRecord
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.records import record
from reactorcide.store.outbox import STATUSES


@record
class ProjectView:
    """A project as it is visible to one user."""

    project: Project
    role: ProjectRole | None
    """The role of that user; ``None`` if the user is not a member."""
    members: Sequence[Member]
    """Empty unless the user is a member or an admin."""
    credentials: Mapping[CredentialKind, Credential] | None
    """``None`` for users who are neither owner nor admin."""
    status_problem: str | None
    """Why the forge did not accept the last commit status; ``None`` if it did."""


def view(context: StoredJobs, user: User, project_id: str) -> ProjectView:
    """Return a project that ``user`` may see; raises ``NotFound``."""
    project = access.project(context, user, project_id)
    role = context.store.projects.role(project.project_id, user.user_id)
    sees_members = role is not None or user.is_admin
    members = context.store.projects.members(project.project_id) if sees_members else []
    is_owner = role is ProjectRole.OWNER or user.is_admin
    credentials = context.store.projects.credentials(project.project_id) if is_owner else None
    status_problem = context.store.outbox.problem(STATUSES, project.project_id)
    return ProjectView(project, role, members, credentials, status_problem)


def statuses(
    context: StoredJobs, user: User, project_id: str, *, limit: int, after: tuple[int, str] | None
) -> list[StatusRecord]:
    """Return a page of the commit statuses of a project that ``user`` may see, newest first."""
    project = access.project(context, user, project_id)
    return context.store.outbox.statuses(project.project_id, limit=limit, after=after)


def page(
    context: StoredJobs, user: User, *, name: str | None, limit: int, after: tuple[int, str] | None
) -> tuple[list[Project], int]:
    """Return a page of the projects that ``user`` may see, and the total."""
    user_id = None if user.is_admin else user.user_id
    return context.store.projects.page(user_id, name=name, limit=limit, after=after)
