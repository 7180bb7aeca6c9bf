"""Users, and the first one."""

import os
from dataclasses import replace
from pathlib import Path

from reactorcide.accounts import AccountContext, tokens
from reactorcide.domain.accounts import SERVICE_USER, Role, User
from reactorcide.domain.audit import Action, Actor, AuditEntry, operator
from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id

ADMIN_NAME = "admin"
_MAX_NAME_CHARS = 128
_MAX_EMAIL_CHARS = 254


def new(username: str, *, email: str | None = None, role: Role = Role.USER) -> User:
    """Return a user that is not stored yet; raises ``InvalidInput`` for a bad name or email."""
    if not (0 < len(username) <= _MAX_NAME_CHARS and username.isprintable() and " " not in username):
        raise InvalidInput(
            f"a user name has 1 to {_MAX_NAME_CHARS} printable characters and no space", field="username"
        )
    if username == SERVICE_USER.username:
        raise InvalidInput(
            f"{username} is the name of the service itself; choose another name",
            field="username",
        )
    return User(
        user_id=new_id(),
        username=username,
        email=checked_email(email),
        role=role,
        is_active=True,
        created_at_ms=now_ms(),
    )


def checked_email(email: str | None) -> str | None:
    """Return an email if it looks valid; raises ``InvalidInput`` otherwise. No mail is sent."""
    if email is not None and not (
        len(email) <= _MAX_EMAIL_CHARS and email.isprintable() and " " not in email and "@" in email[1:-1]
    ):
        raise InvalidInput(
            f"an email has at most {_MAX_EMAIL_CHARS} characters, like ann@example.com", field="email"
        )
    return email


def create(
    context: AccountContext,
    username: str,
    *,
    by: Actor,
    email: str | None = None,
    role: Role = Role.USER,
) -> User:
    """Create a user; raises ``InvalidInput`` for a bad name or email, ``Conflict`` for a name in use."""
    user = new(username, email=email, role=role)
    with context.store.transaction() as tx:
        tx.accounts.add_user(user)
        tx.audit.add(_entry(by, Action.USER_CREATE, user.user_id))
    return user


def by_name(context: AccountContext, username: str) -> User:
    """Return a user; raises ``NotFound``."""
    return context.store.accounts.user_by_name(username)


def all_users(context: AccountContext) -> list[User]:
    """Return all users by name."""
    return context.store.accounts.users()


def change(
    context: AccountContext,
    user_id: str,
    *,
    by: Actor,
    role: Role | None = None,
    is_active: bool | None = None,
) -> User:
    """Change the fields that are not ``None``, and return the user; takes effect on the next request.

    Tokens of a user that is not active are refused. Raises ``NotFound``, and ``Conflict`` if no active
    admin would be left.
    """
    with context.store.transaction() as tx:
        before = tx.accounts.user(user_id)
        after = replace(
            before,
            role=before.role if role is None else role,
            is_active=before.is_active if is_active is None else is_active,
        )
        tx.accounts.update_user(after)
        if after.role is not before.role:
            action = Action.USER_MAKE_ADMIN if after.is_admin else Action.USER_MAKE_USER
            tx.audit.add(_entry(by, action, user_id))
        if after.is_active is not before.is_active:
            action = Action.USER_ENABLE if after.is_active else Action.USER_DISABLE
            tx.audit.add(_entry(by, action, user_id))
    return after


def remove(context: AccountContext, user_id: str, *, by: Actor) -> None:
    """Remove a user and their tokens, at once; their jobs stay, visible to admins.

    Raises ``NotFound``, and ``Conflict`` while one of their jobs has not ended or if no active admin would
    be left.
    """
    with context.store.transaction() as tx:
        tx.accounts.remove_user(user_id)
        tx.audit.add(_entry(by, Action.USER_REMOVE, user_id))


def bootstrap(context: AccountContext, token_path: Path) -> str | None:
    """Create the admin of a new installation and return their token; ``None`` if there are users.

    The token is in ``token_path``, which only the service's own user can read. The file is written first:
    an unusable file is better than an admin without a token.
    """
    if context.store.accounts.users():
        return None
    value = tokens.new_value()
    descriptor = os.open(token_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    admin = create(context, ADMIN_NAME, by=operator(), role=Role.ADMIN)
    tokens.create(context, admin, "bootstrap", by=operator(), value=value)
    return value


def _entry(by: Actor, action: Action, user_id: str) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=by, action=action, subject=user_id)
