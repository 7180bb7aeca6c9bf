"""Routes on users, their tokens, invitations and the audit."""

from typing import Any

from flask import Response, current_app, g, jsonify, request

from reactorcide.accounts import audit, invitations, sessions, tokens, users
from reactorcide.domain.accounts import Role, Scope, Token, User
from reactorcide.domain.audit import AuditEntry, AuditFilter
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput
from reactorcide.lib.clock import from_rfc3339, rfc3339, rfc3339_or_none
from reactorcide.web.address import own_url, sign_in_url
from reactorcide.web.api.accounts.schemas import (
    AuditQuery,
    AuditResponse,
    InvitationRequest,
    InvitationResponse,
    LinkResponse,
    NewTokenResponse,
    RegisterRequest,
    RegisterResponse,
    TokenListResponse,
    TokenPath,
    TokenRequest,
    UserChange,
    UserListResponse,
    UserPath,
    UserRequest,
    UserResponse,
)
from reactorcide.web.api.resource import NO_TOKEN, resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

_MAX_DIGITS = 18
# The length of an id, so that `me` does not match: its OPTIONS would list the methods for other users.
_USER = "/users/<string(length=36):user_id>"

api = resource("accounts", __name__, tag="accounts")


@api.get("/users/me", responses={200: UserResponse})
def show_me(query: NoQuery) -> Response:
    """Show the caller."""
    return jsonify(_user_json(caller()))


@api.post("/tokens", responses={201: NewTokenResponse})
def create_token(body: TokenRequest, query: NoQuery) -> tuple[Response, int]:
    """Create a token for the caller. Its value is shown only in this answer."""
    token, value = tokens.create_own(
        services().accounts,
        caller(),
        body.name,
        expires_at_ms=_milliseconds(body.expires_at),
        scopes=None if body.scopes is None else [Scope(name) for name in body.scopes],
    )
    return jsonify(_new_token_json(token, value)), 201


@api.get("/tokens", responses={200: TokenListResponse})
def list_tokens(query: NoQuery) -> Response:
    """List the caller's tokens."""
    return jsonify(
        {"tokens": [_token_json(token) for token in tokens.of_user(services().accounts, caller())]}
    )


@api.delete("/tokens/<token_id>", responses={204: None})
def revoke_token(path: TokenPath, query: NoQuery) -> tuple[str, int]:
    """Revoke one of the caller's tokens."""
    tokens.revoke(services().accounts, caller(), path.token_id)
    return "", 204


@api.get("/users", responses={200: UserListResponse})
def list_users(query: NoQuery) -> Response:
    """List all users; for admins."""
    return jsonify({"users": [_user_json(user) for user in users.all_users(services().accounts)]})


@api.post("/users", responses={201: UserResponse, 409: ErrorResponse})
def create_user(body: UserRequest, query: NoQuery) -> tuple[Response, int]:
    """Create a user without a token; for admins."""
    user = users.create(
        services().accounts, body.username, email=body.email, role=Role(body.role), by=caller().actor
    )
    return jsonify(_user_json(user)), 201


@api.patch(_USER, responses={200: UserResponse, 409: ErrorResponse})
def change_user(path: UserPath, body: UserChange, query: NoQuery) -> Response:
    """Change the role of a user, or disable or enable them; for admins."""
    user = users.change(
        services().accounts,
        path.user_id,
        role=None if body.role is None else Role(body.role),
        is_active=body.is_active,
        by=caller().actor,
    )
    return jsonify(_user_json(user))


@api.delete(_USER, responses={204: None, 409: ErrorResponse})
def remove_user(path: UserPath, query: NoQuery) -> tuple[str, int]:
    """Remove a user without unfinished jobs, and their tokens; for admins."""
    users.remove(services().accounts, path.user_id, by=caller().actor)
    return "", 204


@api.post("/invitations", responses={201: InvitationResponse})
def invite(body: InvitationRequest, query: NoQuery) -> tuple[Response, int]:
    """Create an invitation. Its value is shown only in this answer; for admins."""
    invitation, value = invitations.create(
        services().accounts,
        caller(),
        role=Role(body.role),
        email=body.email,
        expires_at_ms=_milliseconds(body.expires_at),
        by=caller().actor,
    )
    return jsonify(
        {
            "invitation_id": invitation.invitation_id,
            "invitation": value,
            "role": invitation.role,
            "email": invitation.email,
            "created_at": rfc3339(invitation.created_at_ms),
            "expires_at": rfc3339(invitation.expires_at_ms),
        }
    ), 201


@api.post("/links", responses={201: LinkResponse, 409: ErrorResponse})
def create_link(query: NoQuery) -> tuple[Response, int]:
    """Create a link that signs the caller in to the web page, once, within ten minutes."""
    if "ui" not in current_app.blueprints:
        raise Conflict("this service has no web page: it was started with --no-ui")
    value, expires_at_ms = sessions.create_link(services().accounts, caller())
    return jsonify({"url": sign_in_url(own_url(), value), "expires_at": rfc3339(expires_at_ms)}), 201


@api.post(
    "/register",
    responses={
        201: RegisterResponse,
        403: ErrorResponse,
        409: ErrorResponse,
        429: ErrorResponse,
        503: ErrorResponse,
    },
    security=NO_TOKEN,
)
def register(body: RegisterRequest, query: NoQuery) -> tuple[Response, int]:
    """Register with an invitation and get the first token; needs no token."""
    try:
        user, token, value = invitations.register(
            services().accounts,
            body.invitation,
            body.username,
            body.email,
            address=request.remote_addr,
            request_id=g.request_id,
        )
    except Forbidden:
        services().bad_tokens.failed(request.remote_addr)
        raise
    return jsonify({**_new_token_json(token, value), "user": _user_json(user)}), 201


@api.get("/audit", responses={200: AuditResponse})
def show_audit(query: AuditQuery) -> Response:
    """List the audit entries, newest first; for admins."""
    criteria = AuditFilter(user_id=query.user_id, action=query.action, subject=query.subject)
    before = None if query.cursor is None else _from_cursor(query.cursor)
    # One more than requested shows whether there is a next page.
    entries, total = audit.page(services().accounts, criteria, limit=query.limit + 1, before=before)
    page = entries[: query.limit]
    return jsonify(
        {
            "deeds": [_entry_json(entry) for _, entry in page],
            "total": total,
            "limit": query.limit,
            "next_cursor": str(page[-1][0]) if len(entries) > len(page) else None,
        }
    )


def _user_json(user: User) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "username": user.username,
        "email": user.email,
        "role": user.role,
        "is_active": user.is_active,
        "created_at": rfc3339(user.created_at_ms),
    }


def _new_token_json(token: Token, value: str) -> dict[str, Any]:
    content = _token_json(token)
    return {
        "token_id": token.token_id,
        "token": value,
        **{name: content[name] for name in ("name", "created_at", "expires_at", "scopes")},
    }


def _entry_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": rfc3339(entry.at_ms),
        "user_id": entry.by.user_id,
        "token_id": entry.by.token_id,
        "address": entry.by.address,
        "request_id": entry.by.request_id,
        "action": entry.action,
        "subject": entry.subject,
    }


def _from_cursor(cursor: str) -> int:
    if len(cursor) > _MAX_DIGITS or not (cursor.isascii() and cursor.isdigit()):
        raise InvalidInput("invalid cursor: use the next_cursor of an earlier answer", "cursor")
    return int(cursor)


def _token_json(token: Token) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "created_at": rfc3339(token.created_at_ms),
        "expires_at": rfc3339_or_none(token.expires_at_ms),
        "last_used_at": rfc3339_or_none(token.last_used_at_ms),
        "is_active": token.is_active,
        "scopes": None if token.scopes is None else sorted(token.scopes),
    }


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_rfc3339(text)
    except ValueError as exc:
        raise InvalidInput(
            "expires_at must be a time with its zone, like 2030-01-31T12:00:00Z", "expires_at"
        ) from exc
