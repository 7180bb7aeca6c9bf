"""Bearer tokens: shown once, and stored as hashes only."""

import hashlib
import logging
import secrets
from collections.abc import Collection
from dataclasses import fields

from reactorcide.accounts import AccountContext
from reactorcide.domain.accounts import Caller, Role, Scope, Token, User
from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.errors import Forbidden, InvalidInput, StoreError, Unauthorized
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id

log = logging.getLogger("reactorcide.accounts")

MIN_VALUE_CHARS = 16
_TOUCH_EVERY_MS = 60_000
_USER_FIELDS = tuple(item.name for item in fields(User))
_MAX_TOKENS = 1000
"""The most tokens of one user: they are listed in one answer."""


def authenticate(
    context: AccountContext, value: str, *, address: str | None = None, request_id: str | None = None
) -> Caller:
    """Return the caller with this token; raises ``Unauthorized``.

    Only the hash counts, not the form of the token: the operator may choose its value.
    """
    stored = context.store.accounts.authenticate(sha256(value))
    if stored is None:
        raise Unauthorized("this token is not known; check it, or ask for another one")
    return checked(context, *stored, address=address, request_id=request_id)


def checked(
    context: AccountContext, token: Token, user: User, *, address: str | None, request_id: str | None
) -> Caller:
    """Return the caller of a stored token, and record its use; raises ``Unauthorized`` if it is not valid."""
    used_at_ms = now_ms()
    if token.expires_at_ms is not None and token.expires_at_ms <= used_at_ms:
        raise Unauthorized("this token has expired; ask for another one")
    if not (token.is_active and user.is_active):
        raise Unauthorized("this token or its user is disabled")
    if token.last_used_at_ms is None or used_at_ms - token.last_used_at_ms > _TOUCH_EVERY_MS:
        # Not at every request: that would make each one wait for the disk.
        try:
            context.store.accounts.touch_token(token.token_id, now_ms=used_at_ms)
        except StoreError as exc:
            # A request that only reads must not fail because nothing can be written.
            log.warning("the last use of token %s is not recorded: %s", token.token_id, exc)
    return Caller(
        **{name: getattr(user, name) for name in _USER_FIELDS},
        token=token,
        address=address,
        request_id=request_id,
    )


def create(
    context: AccountContext,
    user: User,
    name: str,
    *,
    by: Actor | None = None,
    expires_at_ms: int | None = None,
    value: str | None = None,
    scopes: Collection[Scope] | None = None,
) -> tuple[Token, str]:
    """Create a token for ``user`` and return it with its value, which cannot be read again.

    ``by`` is its creator, by default the user. ``value`` is for a token with a given value. Without
    ``scopes`` the token permits all that its user may do. Raises ``InvalidInput`` if the value is shorter
    than 16 characters, ``Conflict`` if it is in use.
    """
    token, value = new(user, name, expires_at_ms=expires_at_ms, value=value, scopes=scopes)
    entry = AuditEntry(
        at_ms=token.created_at_ms, by=by or user.actor, action=Action.TOKEN_CREATE, subject=token.token_id
    )
    with context.store.transaction() as tx:
        tx.accounts.add_token(token, sha256(value))
        tx.audit.add(entry)
    return token, value


def create_own(
    context: AccountContext,
    caller: Caller,
    name: str,
    *,
    expires_at_ms: int | None = None,
    scopes: Collection[Scope] | None = None,
) -> tuple[Token, str]:
    """Create a token by a request with another token, whose scopes and expiry are the defaults.

    Raises ``Forbidden`` if the new token would permit more or last longer, or if the caller has too many
    tokens; and the errors of ``create``.
    """
    if context.store.accounts.count_tokens(caller.user_id) >= _MAX_TOKENS:
        raise Forbidden(f"you have {_MAX_TOKENS} tokens; revoke those that are no longer used")
    own = caller.token
    if scopes is None:
        scopes = own.scopes
    elif missing := set(scopes) - caller.scopes:
        raise Forbidden(
            f"a token cannot have more scopes than the token that creates it, which lacks {_names(missing)}"
        )
    if own.expires_at_ms is not None:
        if expires_at_ms is None:
            expires_at_ms = own.expires_at_ms
        elif expires_at_ms > own.expires_at_ms:
            raise Forbidden("a token cannot outlive the token that creates it")
    return create(context, caller, name, expires_at_ms=expires_at_ms, scopes=scopes)


def check_scopes(caller: Caller, needed: Collection[Scope]) -> None:
    """Raise ``Forbidden``, with the missing scopes, unless the caller has all that are ``needed``."""
    missing = set(needed) - caller.scopes
    if not missing:
        return
    if Scope.ADMIN in missing and caller.role is not Role.ADMIN:
        raise Forbidden("only an admin may do this")
    raise Forbidden(f"this token lacks the scope {_names(missing)}; use one that has it")


def new(
    user: User,
    name: str,
    *,
    expires_at_ms: int | None = None,
    value: str | None = None,
    scopes: Collection[Scope] | None = None,
) -> tuple[Token, str]:
    """Return a token that is not stored yet, with its value; raises ``InvalidInput``."""
    if value is None:
        value = new_value()
    elif len(value) < MIN_VALUE_CHARS or not value.isprintable() or " " in value:
        raise InvalidInput(
            f"a token has at least {MIN_VALUE_CHARS} characters, all of them printable, and no space",
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
        scopes=None if scopes is None else frozenset(scopes),
    )
    return token, value


def new_value() -> str:
    """Return the value of a new token: 256 random bits."""
    return f"rct_{secrets.token_hex(32)}"


def of_user(context: AccountContext, user: User) -> list[Token]:
    """Return the user's own tokens, oldest first."""
    return context.store.accounts.tokens(user.user_id)


def of_all_users(context: AccountContext) -> list[Token]:
    """Return the tokens of all users, oldest first; for the operator."""
    return context.store.accounts.tokens(None)


def revoke(context: AccountContext, user: User, token_id: str) -> None:
    """Remove one of the user's own tokens, at once; raises ``NotFound``."""
    _remove(context, token_id, user.user_id, by=user.actor)


def revoke_of_any_user(context: AccountContext, token_id: str, *, by: Actor) -> None:
    """Remove a token of any user, at once; for the operator. Raises ``NotFound``."""
    _remove(context, token_id, None, by=by)


def sha256(value: str) -> bytes:
    """Return the hash that is stored of a token or an invitation."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


def _remove(context: AccountContext, token_id: str, user_id: str | None, *, by: Actor) -> None:
    with context.store.transaction() as tx:
        tx.accounts.remove_token(token_id, user_id)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=by, action=Action.TOKEN_REVOKE, subject=token_id))


def _names(scopes: Collection[Scope]) -> str:
    return ", ".join(sorted(scopes))
