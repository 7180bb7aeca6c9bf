"""Create a project, change it, or remove it."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.deliveries import object_prefix
from reactorcide.domain.errors import Forbidden, InvalidInput
from reactorcide.domain.forges import ForgeKind
from reactorcide.domain.images import is_image_reference
from reactorcide.domain.projects import (
    MAX_KNOWN_HOSTS_CHARS,
    MAX_NAME_CHARS,
    CredentialKind,
    Project,
    ProjectRole,
    PullRequests,
    Visibility,
    is_forge_url,
    is_known_hosts,
    is_name,
)
from reactorcide.domain.secrets import check_not_redacted, redacted_url
from reactorcide.jobs import JobContext, access, leftovers
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import is_id, new_id
from reactorcide.outbox import commit_statuses
from reactorcide.store import Records
from reactorcide.store.deploy_keys import new_key
from reactorcide.store.outbox import STATUSES

_PUBLIC_FORGES = {
    "github.com": ForgeKind.GITHUB,
    "gitlab.com": ForgeKind.GITLAB,
    "codeberg.org": ForgeKind.GITEA,
}


def create(
    context: JobContext,
    user: User,
    name: str,
    git_url: str,
    fields: Mapping[str, Any],
    *,
    token: str | None = None,
) -> tuple[Project, str]:
    """Create a project with ``user`` as its owner; returns it and the secret of its webhook.

    ``fields`` are those of ``Project`` that a client can set, with an empty value for none; the default of
    ``forge`` depends on the host of the URL. ``token`` is a token of the forge. Raises ``InvalidInput`` for
    invalid values, and ``Conflict`` for a name in use.
    """
    created_at_ms = now_ms()
    _check_url(context, git_url)
    _check_grant(user, fields)
    project = Project(
        project_id=new_id(),
        name=name,
        git_url=redacted_url(git_url),
        visibility=Visibility.PRIVATE,
        forge=_forge_of(git_url),
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )
    project = _checked(context, _changed(project, fields))
    secret = _new_secret()
    with context.store.transaction() as tx:
        tx.projects.add(project, git_url, user.user_id)
        _set_token(tx, project, token)
        kind = CredentialKind.WEBHOOK_SECRET
        tx.projects.set_credential(project.project_id, kind, secret, now_ms=created_at_ms)
        tx.audit.add(_entry(user, Action.PROJECT_CREATE, project))
    return project, secret


def change(
    context: JobContext,
    user: User,
    project_id: str,
    fields: Mapping[str, Any],
    *,
    git_url: str | None = None,
    token: str | None = None,
    known_hosts: str | None = None,
) -> Project:
    """Change a project and return it; for its owners. See ``create``; an empty ``token`` removes it.

    The token is also removed if the project moves to another server without a new token.
    ``known_hosts`` replaces the known keys of SSH servers; an empty value removes them.
    """
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    _check_grant(user, fields)
    if git_url is not None:
        _check_url(context, git_url)
        fields = {**fields, "git_url": redacted_url(git_url)}
    with context.store.transaction() as tx:
        before = tx.projects.get(project_id)
        changed = replace(_changed(before, fields), updated_at_ms=now_ms())
        _checked(context, changed)
        if token is None and _servers(changed) != _servers(before):
            # The token was meant for another server.
            token = ""
        tx.projects.save(changed, git_url)
        _set_token(tx, changed, token)
        # Failed statuses may succeed now.
        tx.outbox.resume(STATUSES, project_id, now_ms=changed.updated_at_ms)
        if known_hosts is not None:
            _set_known_hosts(tx, changed, known_hosts)
        tx.audit.add(_entry(user, Action.PROJECT_CHANGE, changed))
    return changed


def renew_webhook_secret(context: JobContext, user: User, project_id: str) -> str:
    """Return a new secret for the webhook of a project; for its owners.

    The previous secret stays valid until the next renewal or ``forget_previous_webhook_secret``.
    """
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    secret, at_ms = _new_secret(), now_ms()
    with context.store.transaction() as tx:
        before = tx.projects.credential(project.project_id, CredentialKind.WEBHOOK_SECRET)
        for kind, value in (
            (CredentialKind.PREVIOUS_WEBHOOK_SECRET, before),
            (CredentialKind.WEBHOOK_SECRET, secret),
        ):
            if value is not None:
                tx.projects.set_credential(project.project_id, kind, value, now_ms=at_ms)
        tx.audit.add(_entry(user, Action.PROJECT_RENEW_WEBHOOK_SECRET, project))
    return secret


def forget_previous_webhook_secret(context: JobContext, user: User, project_id: str) -> None:
    """Revoke the secret from before the last renewal; for owners. Safe to repeat."""
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    with context.store.transaction() as tx:
        tx.projects.remove_credential(project.project_id, CredentialKind.PREVIOUS_WEBHOOK_SECRET)
        tx.audit.add(_entry(user, Action.PROJECT_FORGET_WEBHOOK_SECRET, project))


def renew_deploy_key(context: JobContext, user: User, project_id: str) -> str:
    """Create a new SSH key for a project, and return its public half; for owners. Replaces an earlier one."""
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    private, public = new_key(f"reactorcide {project.name}")
    kind = CredentialKind.DEPLOY_KEY
    with context.store.transaction() as tx:
        tx.projects.set_credential(project.project_id, kind, private, now_ms=now_ms(), public=public)
        tx.audit.add(_entry(user, Action.PROJECT_RENEW_DEPLOY_KEY, project))
    return public


def remove_deploy_key(context: JobContext, user: User, project_id: str) -> None:
    """Remove the SSH key of a project; for owners. Safe to repeat."""
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    with context.store.transaction() as tx:
        tx.projects.remove_credential(project.project_id, CredentialKind.DEPLOY_KEY)
        tx.audit.add(_entry(user, Action.PROJECT_REMOVE_DEPLOY_KEY, project))


def remove(context: JobContext, user: User, project_id: str) -> None:
    """Remove a project with everything it owns; for its owners.

    Its unsent commit statuses are sent as errors. Raises ``Conflict`` while one of its runs is unfinished.
    """
    project = access.project(context, user, project_id, ProjectRole.OWNER)
    with context.store.transaction() as tx:
        deliveries = tx.deliveries.ids(project.project_id)
        commit_statuses.close(tx, project, now_ms=now_ms())
        tx.projects.remove(project.project_id)
        tx.audit.add(_entry(user, Action.PROJECT_DELETE, project))
    crashpoints.reached("project-delete-written")
    for delivery_id in deliveries:
        # After an interruption the objects are orphans, which the next start removes.
        context.objects.delete(object_prefix(delivery_id))
    leftovers.remove_caches(context, project.project_id)
    leftovers.remove_leftovers(context)


def _check_grant(user: User, fields: Mapping[str, Any]) -> None:
    """Raise ``Forbidden`` if a user who is not an admin grants a privilege."""
    if fields.get("builder") and not user.is_admin:
        raise Forbidden("only an admin may grant the builder to a project")


def _changed(project: Project, fields: Mapping[str, Any]) -> Project:
    """Return a project with changed values, in a client's format."""
    # An empty value means none.
    optional = ("forge_url", "default_branch", "default_image", "queue", "allowed_events", "max_running")
    kinds: dict[str, Any] = {
        "visibility": Visibility,
        "forge": ForgeKind,
        "pull_requests": PullRequests,
        "allowed_events": lambda events: tuple(dict.fromkeys(events)),
    }
    values: dict[str, Any] = {}
    for name, value in fields.items():
        converted = kinds[name](value) if name in kinds else value
        values[name] = (converted or None) if name in optional else converted
    return replace(project, **values)


def _checked(context: JobContext, project: Project) -> Project:
    """Return the project if it is valid; raises ``InvalidInput`` with the wrong field."""
    if not is_name(project.name) or is_id(project.name):
        raise InvalidInput(
            f"a project's name has 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', in parts that a "
            "'/' separates, like acme/site, and is not an id",
            "name",
        )
    if project.forge_url is not None and not is_forge_url(project.forge_url):
        raise InvalidInput(
            "forge_url is the start page of a forge, like https://git.example.com, without credentials",
            "forge_url",
        )
    if project.default_branch is not None:
        try:
            context.rules.check_git_ref(project.default_branch)
        except InvalidInput as exc:
            raise InvalidInput(str(exc).replace("git_ref", "default_branch"), "default_branch") from exc
    if project.default_image is not None:
        if not is_image_reference(project.default_image):
            raise InvalidInput("default_image is not an image reference, like alpine:3.20", "default_image")
        try:
            context.rules.check_images(project.default_image, {})
        except InvalidInput as exc:
            raise InvalidInput(str(exc), "default_image") from exc
    return project


def _forge_of(git_url: str) -> ForgeKind:
    """Return the kind of forge by the host of a URL."""
    return _PUBLIC_FORGES.get(_server_of(git_url).partition(":")[0], ForgeKind.NONE)


def _server_of(git_url: str) -> str:
    """Return the host of a URL in lower case, with its port if it names one."""
    server = git_url.partition("://")[2].partition("/")[0] or git_url.partition(":")[0]
    return server.rpartition("@")[2].lower()


def _servers(project: Project) -> tuple[str | None, str]:
    """Return the server that a project's token is sent to."""
    return project.forge_url, _server_of(project.git_url)


def _set_token(tx: Records, project: Project, token: str | None) -> None:
    if token is None:
        return
    if token == "":
        tx.projects.remove_credential(project.project_id, CredentialKind.TOKEN)
    else:
        kind = CredentialKind.TOKEN
        tx.projects.set_credential(project.project_id, kind, token, now_ms=project.updated_at_ms)


def _set_known_hosts(tx: Records, project: Project, text: str) -> None:
    kind = CredentialKind.KNOWN_HOSTS
    if text.strip() == "":
        tx.projects.remove_credential(project.project_id, kind)
        return
    if not is_known_hosts(text):
        raise InvalidInput(
            "known_hosts has to be lines of a known_hosts file, each the name of a server, the kind of its "
            f"key and the key, like those of ssh-keyscan; at most {MAX_KNOWN_HOSTS_CHARS >> 10} KiB",
            "known_hosts",
        )
    text = text.rstrip("\n") + "\n"
    tx.projects.set_credential(project.project_id, kind, text, now_ms=project.updated_at_ms, public=text)


def _new_secret() -> str:
    # The format of GitLab's signing tokens; other forges accept any text.
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _check_url(context: JobContext, git_url: str) -> None:
    check_not_redacted(git_url)
    context.rules.check_git_url(git_url)


def _entry(user: User, action: Action, project: Project) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=project.project_id)
