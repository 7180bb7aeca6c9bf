"""Set, list and delete the named secrets of a project, or of the service."""

from collections.abc import Collection
from dataclasses import replace

from reactorcide.domain import named_secrets
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from reactorcide.domain.named_secrets import NamedSecret, SecretRules
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.store import Records

_MAX_SECRETS = 500
"""Maximum number of secrets of a project, or of the service: they are listed in one answer."""


def set_secret(
    context: StoredJobs,
    user: User,
    project_id: str | None,
    name: str,
    value: str | None,
    rules: SecretRules,
    projects: Collection[str] = (),
) -> NamedSecret:
    """Set a secret of a project, or (``None``) of the service, and return it; safe to repeat.

    The rules replace earlier ones; with ``None`` as the value the stored one stays. ``projects`` are names or
    ids of projects that can use a secret of the service. Raises ``InvalidInput``, ``NotFound`` and
    ``Forbidden``.
    """
    project_id = _owner(context, user, project_id)
    named_secrets.check_name(name)
    named_secrets.check_globs(rules.branches or ())
    if value is not None:
        named_secrets.check_value(value)
    project_ids = tuple(access.project(context, user, one).project_id for one in projects)
    at_ms = now_ms()
    secret = NamedSecret(
        project_id=project_id,
        name=name,
        rules=rules,
        projects=tuple(dict.fromkeys(project_ids)),
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
    )
    with context.store.transaction() as tx:
        before = tx.named_secrets.find(project_id, name)
        if before is None and tx.named_secrets.count(project_id) >= _MAX_SECRETS:
            raise Conflict(f"there are {_MAX_SECRETS} secrets already; delete one that is not used any more")
        if before is not None:
            secret = replace(secret, created_at_ms=before.created_at_ms)
        tx.named_secrets.set(secret, _value(tx, before) if value is None else value)
        tx.audit.add(_entry(user, Action.SECRET_SET, project_id, name))
    return secret


def listed(context: StoredJobs, user: User, project_id: str | None) -> list[NamedSecret]:
    """Return the secrets of a project, or (``None``) of the service, by name; for owners and admins."""
    return context.store.named_secrets.of(_owner(context, user, project_id))


def delete(context: StoredJobs, user: User, project_id: str | None, name: str) -> None:
    """Delete a secret; raises ``NotFound`` if there is none. Jobs that were created with it still have it."""
    project_id = _owner(context, user, project_id)
    with context.store.transaction() as tx:
        if not tx.named_secrets.remove(project_id, name):
            raise NotFound(f"there is no secret {name}")
        tx.audit.add(_entry(user, Action.SECRET_DELETE, project_id, name))


def project_names(context: StoredJobs, secret: NamedSecret) -> list[str]:
    """Return the names of the projects that may use a secret of the service."""
    return context.store.projects.names(secret.projects) if secret.projects else []


def _owner(context: StoredJobs, user: User, project_id: str | None) -> str | None:
    """Return the id of the project whose secrets ``user`` may change; ``None`` for the service's."""
    if project_id is not None:
        return access.project(context, user, project_id, ProjectRole.OWNER).project_id
    if not user.is_admin:
        raise Forbidden("only an admin may do this")
    return None


def _value(tx: Records, before: NamedSecret | None) -> str:
    if before is None:
        raise InvalidInput("there is no such secret yet, so it needs a value", "value")
    return tx.named_secrets.value(before)


def _entry(user: User, action: Action, project_id: str | None, name: str) -> AuditEntry:
    subject = name if project_id is None else f"{project_id} {name}"
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=subject)
