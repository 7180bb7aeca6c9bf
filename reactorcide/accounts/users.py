"""Users, and the first one."""

import os
from pathlib import Path

from reactorcide.accounts import AccountContext, tokens
from reactorcide.domain.accounts import Role, User
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.ids import new_id

ADMIN_NAME = "admin"
_LONGEST_NAME = 128


def create(
    context: AccountContext, username: str, *, email: str | None = None, role: Role = Role.USER
) -> User:
    """Make a user; raises ``InvalidInput`` for a bad name, ``Conflict`` for one that is taken."""
    if not (0 < len(username) <= _LONGEST_NAME and username.isprintable() and " " not in username):
        raise InvalidInput(
            f"a user name has 1 to {_LONGEST_NAME} printable characters and no space", field="username"
        )
    user = User(
        user_id=new_id(),
        username=username,
        email=email,
        role=role,
        is_active=True,
        created_at_ms=now_ms(),
    )
    context.store.add_user(user)
    return user


def by_name(context: AccountContext, username: str) -> User:
    """Return a user; raises ``NotFound``."""
    return context.store.user_by_name(username)


def everybody(context: AccountContext) -> list[User]:
    """Return all users by name."""
    return context.store.users()


def disable(context: AccountContext, username: str) -> None:
    """Let none of a user's tokens be accepted any more, from the next request on; raises ``NotFound``."""
    context.store.set_user_active(by_name(context, username).user_id, False)


def bootstrap(context: AccountContext, token_path: Path) -> str | None:
    """Make the admin of a fresh installation and return their token; ``None`` where there are users.

    The token is kept in ``token_path``, which only the service's own user can read. It is written first:
    an admin whose token nobody has would be worse than a file with a token of nobody.
    """
    if context.store.users():
        return None
    admin = User(
        user_id=new_id(),
        username=ADMIN_NAME,
        email=None,
        role=Role.ADMIN,
        is_active=True,
        created_at_ms=now_ms(),
    )
    value = tokens.new_value()
    descriptor = os.open(token_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    context.store.add_user(admin)
    tokens.create(context, admin, "bootstrap", value=value)
    return value
