"""Bearer tokens: made, shown once, known by their hash alone."""

import hashlib
import secrets

from reactorcide.accounts import AccountContext
from reactorcide.domain.accounts import Token, User
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import InvalidInput, Unauthorized
from reactorcide.domain.ids import new_id

SHORTEST_VALUE = 16
_TOUCH_EVERY_MS = 60_000


def authenticate(context: AccountContext, value: str) -> User:
    """Return the user that a token belongs to; raises ``Unauthorized``.

    Only the hash is looked at, never the form: whatever was stored as a token is one.
    """
    found = context.store.authenticate(_sha256(value))
    if found is None:
        raise Unauthorized("this token is not known; check it, or ask for another one")
    token, user = found
    used_at_ms = now_ms()
    if token.expires_at_ms is not None and token.expires_at_ms <= used_at_ms:
        raise Unauthorized("this token has expired; ask for another one")
    if not (token.is_active and user.is_active):
        raise Unauthorized("this token or its user is disabled")
    if token.last_used_at_ms is None or used_at_ms - token.last_used_at_ms > _TOUCH_EVERY_MS:
        # Not at every request: that would make each one wait for the disk.
        context.store.touch_token(token.token_id, now_ms=used_at_ms)
    return user


def create(
    context: AccountContext,
    user: User,
    name: str,
    *,
    expires_at_ms: int | None = None,
    value: str | None = None,
) -> tuple[Token, str]:
    """Make a token for ``user`` and return it with its value, which is never to be had again.

    ``value`` is for a token that was made elsewhere. Raises ``InvalidInput`` where that is shorter
    than 16 characters, ``Conflict`` where it is in use.
    """
    if value is None:
        value = new_value()
    elif len(value) < SHORTEST_VALUE or not value.isprintable() or " " in value:
        raise InvalidInput(
            f"a token has at least {SHORTEST_VALUE} characters, all of them printable, and no space",
            field="value",
        )
    created_at_ms = now_ms()
    if expires_at_ms is not None and expires_at_ms <= created_at_ms:
        raise InvalidInput("expires_at is in the past", field="expires_at")
    token = Token(
        token_id=new_id(),
        user_id=user.user_id,
        name=name,
        created_at_ms=created_at_ms,
        expires_at_ms=expires_at_ms,
        last_used_at_ms=None,
        is_active=True,
    )
    context.store.add_token(token, _sha256(value))
    return token, value


def new_value() -> str:
    """Return the value of a new token: 256 random bits."""
    return f"rct_{secrets.token_hex(32)}"


def of_user(context: AccountContext, user: User) -> list[Token]:
    """Return the user's own tokens, oldest first."""
    return context.store.tokens(user.user_id)


def of_everybody(context: AccountContext) -> list[Token]:
    """Return the tokens of all users, oldest first; for the operator."""
    return context.store.tokens(None)


def revoke(context: AccountContext, user: User, token_id: str) -> None:
    """Remove one of the user's own tokens, at once; raises ``NotFound``."""
    context.store.revoke_token(token_id, user.user_id)


def revoke_of_anybody(context: AccountContext, token_id: str) -> None:
    """Remove a token, at once, whoever has it; for the operator. Raises ``NotFound``."""
    context.store.revoke_token(token_id, None)


def _sha256(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
