"""The members of a project: adding, changing and removing them."""

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, NotFound
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import JobContext, access
from reactorcide.lib.clock import now_ms
from reactorcide.store import Records


def set_role(context: JobContext, user: User, project_id: str, username: str, role: ProjectRole) -> None:
    """Give a user a role in a project, which replaces an earlier one; for its owners.

    Raises ``NotFound`` if there is no such user, and ``Conflict`` if no owner would be left.
    """
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    with context.store.transaction() as tx:
        member_id = tx.accounts.user_by_name(username).user_id
        if role is not ProjectRole.OWNER:
            _check_last_owner(tx, project_id, member_id)
        tx.projects.set_member(project_id, member_id, role)
        tx.audit.add(_entry(user, Action.PROJECT_SET_MEMBER, project_id, member_id))


def remove(context: JobContext, user: User, project_id: str, member_id: str) -> None:
    """Remove a user from a project; for its owners, and for the members themselves.

    Raises ``NotFound`` if the user is no member, and ``Conflict`` if no owner would be left.
    """
    needed = ProjectRole.READ if member_id == user.user_id else ProjectRole.OWNER
    project_id = access.project(context, user, project_id, needed).project_id
    with context.store.transaction() as tx:
        if tx.projects.role(project_id, member_id) is None:
            raise NotFound(f"there is no member {member_id} in the project")
        _check_last_owner(tx, project_id, member_id)
        tx.projects.remove_member(project_id, member_id)
        tx.audit.add(_entry(user, Action.PROJECT_REMOVE_MEMBER, project_id, member_id))


def _check_last_owner(tx: Records, project_id: str, member_id: str) -> None:
    owners = {item.user_id for item in tx.projects.members(project_id) if item.role is ProjectRole.OWNER}
    if owners == {member_id}:
        raise Conflict("the project would have no owner left; make somebody else an owner first")


def _entry(user: User, action: Action, project_id: str, member_id: str) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=f"{project_id} {member_id}")
