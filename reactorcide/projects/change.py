"""Create a project, change it, or remove it."""

from dataclasses import replace

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.projects import MAX_NAME_CHARS, Project, ProjectRole, Visibility, is_name
from reactorcide.domain.secrets import check_not_redacted, redacted_url
from reactorcide.jobs import JobContext, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import is_id, new_id


def create(context: JobContext, user: User, name: str, git_url: str, visibility: Visibility) -> Project:
    """Create a project with ``user`` as its owner and return it.

    Raises ``InvalidInput`` for a name or a URL that cannot be, and ``Conflict`` for a name that is taken.
    """
    _check_name(name)
    _check_url(context, git_url)
    created_at_ms = now_ms()
    project = Project(
        project_id=new_id(),
        name=name,
        git_url=redacted_url(git_url),
        visibility=visibility,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )
    with context.store.transaction() as tx:
        tx.projects.add(project, git_url, user.user_id)
        tx.audit.add(_entry(user, Action.PROJECT_CREATE, project))
    return project


def change(
    context: JobContext,
    user: User,
    project_id: str,
    *,
    name: str | None = None,
    git_url: str | None = None,
    visibility: Visibility | None = None,
) -> Project:
    """Change what is not ``None`` and return the project; for its owners. Raises as ``create``."""
    before = access.project(context, user, project_id, ProjectRole.OWNER)
    if name is not None:
        _check_name(name)
    if git_url is not None:
        _check_url(context, git_url)
    after = replace(
        before,
        name=before.name if name is None else name,
        git_url=before.git_url if git_url is None else redacted_url(git_url),
        visibility=before.visibility if visibility is None else visibility,
        updated_at_ms=now_ms(),
    )
    with context.store.transaction() as tx:
        tx.projects.save(after, git_url)
        tx.audit.add(_entry(user, Action.PROJECT_CHANGE, after))
    return after


def remove(context: JobContext, user: User, project_id: str) -> None:
    """Remove a project; for its owners. Its ended runs are then seen by admins alone, until retention.

    Raises ``Conflict`` while one of its runs is not over.
    """
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    with context.store.transaction() as tx:
        tx.projects.remove(project.project_id)
        tx.audit.add(_entry(user, Action.PROJECT_DELETE, project))


def _check_name(name: str) -> None:
    if not is_name(name) or is_id(name):
        raise InvalidInput(
            f"a project's name has 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', in parts that a "
            "'/' separates, like acme/site, and is no id",
            "name",
        )


def _check_url(context: JobContext, git_url: str) -> None:
    check_not_redacted(git_url)
    context.rules.check_git_url(git_url)


def _entry(user: User, action: Action, project: Project) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=project.project_id)
