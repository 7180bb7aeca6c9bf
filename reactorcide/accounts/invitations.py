"""Invitations: created by an admin, shown once, usable for one registration."""

import secrets
from dataclasses import replace

from reactorcide.accounts import AccountContext, tokens, users
from reactorcide.domain.accounts import Invitation, Role, Token, User
from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id

_VALID_FOR_MS = 7 * 86_400_000
FIRST_TOKEN_NAME = "registration"  # noqa: S105  # no password


def create(
    context: AccountContext,
    creator: User | None,
    *,
    by: Actor,
    role: Role = Role.USER,
    email: str | None = None,
    expires_at_ms: int | None = None,
) -> tuple[Invitation, str]:
    """Create an invitation, by default for seven days.

    Returns the invitation with its value, which cannot be read again. It becomes invalid when its
    ``creator`` is no longer an active admin; ``None`` is the operator. Raises ``InvalidInput``.
    """
    created_at_ms = now_ms()
    if expires_at_ms is not None and expires_at_ms <= created_at_ms:
        raise InvalidInput("expires_at is in the past", field="expires_at")
    invitation = Invitation(
        invitation_id=new_id(),
        role=role,
        email=users.checked_email(email),
        created_by=None if creator is None else creator.user_id,
        created_at_ms=created_at_ms,
        expires_at_ms=expires_at_ms or created_at_ms + _VALID_FOR_MS,
    )
    value = f"rci_{secrets.token_hex(32)}"
    entry = AuditEntry(
        at_ms=created_at_ms, by=by, action=Action.INVITATION_CREATE, subject=invitation.invitation_id
    )
    with context.store.transaction() as tx:
        tx.accounts.add_invitation(invitation, tokens.sha256(value))
        tx.audit.add(entry)
    return invitation, value


def register(
    context: AccountContext,
    value: str,
    username: str,
    email: str | None = None,
    *,
    address: str | None = None,
    request_id: str | None = None,
) -> tuple[User, Token, str]:
    """Create the user of an invitation; returns the user, the first token and its value.

    Raises ``Forbidden`` if the invitation is invalid, ``InvalidInput`` for a bad name or email,
    ``Conflict`` for a name in use; after the last two the invitation can be used again.
    """
    user = users.new(username, email=email, role=Role.USER)
    token, token_value = tokens.new(user, FIRST_TOKEN_NAME)
    by = Actor(user_id=user.user_id, token_id=token.token_id, address=address, request_id=request_id)
    at_ms = user.created_at_ms
    # All or nothing: after an error the invitation can be used again.
    with context.store.transaction() as tx:
        role, invited_email = tx.accounts.use_invitation(tokens.sha256(value), user.user_id, now_ms=at_ms)
        user = replace(user, role=role, email=user.email or invited_email)
        tx.accounts.add_user(user)
        tx.accounts.add_token(token, tokens.sha256(token_value))
        tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.USER_REGISTER, subject=user.user_id))
    return user, token, token_value
