"""Sessions of the web page: random, stored as hashes only, and limited by the token that opened them."""

import hashlib
import secrets

from reactorcide.accounts import AccountContext, tokens
from reactorcide.domain.accounts import Caller
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Forbidden, Unauthorized
from reactorcide.lib.clock import now_ms

SESSION_MS = 14 * 86_400_000
_LINK_MS = 10 * 60_000


def authenticate(
    context: AccountContext, value: str, *, address: str | None = None, request_id: str | None = None
) -> Caller:
    """Return the caller with this session, limited by its token; raises ``Unauthorized``."""
    stored = context.store.accounts.authenticate_session(tokens.sha256(value), now_ms=now_ms())
    if stored is None:
        raise Unauthorized("your session has ended; sign in again")
    return tokens.checked(context, *stored, address=address, request_id=request_id)


def open_session(context: AccountContext, caller: Caller) -> str:
    """Open a session with the rights of the caller's token, for 14 days, and return its value."""
    value = _new_value()
    created_at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.accounts.add_session(
            tokens.sha256(value),
            caller.token.token_id,
            is_link=False,
            now_ms=created_at_ms,
            expires_at_ms=created_at_ms + SESSION_MS,
        )
        tx.audit.add(_entry(caller, Action.SESSION_OPEN, created_at_ms))
    return value


def create_link(context: AccountContext, caller: Caller) -> tuple[str, int]:
    """Create a one-time link; return its value, and the time in ms until which it opens a session."""
    value = _new_value()
    created_at_ms = now_ms()
    expires_at_ms = created_at_ms + _LINK_MS
    context.store.accounts.add_session(
        tokens.sha256(value),
        caller.token.token_id,
        is_link=True,
        now_ms=created_at_ms,
        expires_at_ms=expires_at_ms,
    )
    return value, expires_at_ms


def redeem_link(
    context: AccountContext, link: str, *, address: str | None = None, request_id: str | None = None
) -> str:
    """Open the session of a one-time link and return its value.

    Raises ``Forbidden`` if the link was used or has expired, or its token is not valid any more.
    """
    value = _new_value()
    used_at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.accounts.use_link(
            tokens.sha256(link),
            tokens.sha256(value),
            now_ms=used_at_ms,
            expires_at_ms=used_at_ms + SESSION_MS,
        )
    try:
        caller = authenticate(context, value, address=address, request_id=request_id)
    except Unauthorized as exc:
        raise Forbidden(str(exc)) from exc
    context.store.audit.add(_entry(caller, Action.SESSION_OPEN, used_at_ms))
    return value


def close_session(context: AccountContext, caller: Caller, value: str) -> None:
    """End a session at once; safe to repeat."""
    with context.store.transaction() as tx:
        tx.accounts.remove_session(tokens.sha256(value))
        tx.audit.add(_entry(caller, Action.SESSION_CLOSE, now_ms()))


def csrf_token(value: str) -> str:
    """Return what a request that changes something by this session must bring, beside the cookie."""
    return hashlib.sha256(b"csrf:" + value.encode("utf-8", "surrogateescape")).hexdigest()


def _new_value() -> str:
    return f"rcs_{secrets.token_hex(32)}"


def _entry(caller: Caller, action: Action, at_ms: int) -> AuditEntry:
    return AuditEntry(at_ms=at_ms, by=caller.actor, action=action, subject=caller.token.token_id)
