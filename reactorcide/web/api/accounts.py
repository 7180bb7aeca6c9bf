"""Routes on the caller and the caller's tokens."""

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from reactorcide.accounts import tokens
from reactorcide.domain.accounts import Token
from reactorcide.domain.clock import rfc3339
from reactorcide.domain.errors import InvalidInput
from reactorcide.web.api import PREFIX, operation_name
from reactorcide.web.api.models import (
    NewTokenResponse,
    NoQuery,
    TokenListResponse,
    TokenPath,
    TokenRequest,
    UserResponse,
)
from reactorcide.web.auth import authenticate, caller
from reactorcide.web.services import Services


def blueprint(services: Services) -> APIBlueprint:
    """Return the routes on users and tokens."""
    api = APIBlueprint(
        "accounts",
        __name__,
        url_prefix=PREFIX,
        abp_tags=[Tag(name="accounts")],
        operation_id_callback=operation_name,
    )
    context = services.accounts

    @api.before_request
    def know_the_caller() -> None:
        authenticate(context)

    @api.get("/users/me", responses={200: UserResponse})
    def show_me(query: NoQuery) -> Response:
        """Show the caller."""
        user = caller()
        return jsonify(
            {
                "user_id": user.user_id,
                "username": user.username,
                "email": user.email,
                "role": user.role,
                "is_active": user.is_active,
                "created_at": rfc3339(user.created_at_ms),
            }
        )

    @api.post("/tokens", responses={201: NewTokenResponse})
    def create_token(body: TokenRequest, query: NoQuery) -> tuple[Response, int]:
        """Make a token for the caller; its value is shown this once."""
        expires_at_ms = None if body.expires_at is None else _milliseconds(body.expires_at)
        token, value = tokens.create(context, caller(), body.name, expires_at_ms=expires_at_ms)
        shown = _token_json(token)
        return jsonify(
            {
                "token_id": token.token_id,
                "token": value,
                **{name: shown[name] for name in ("name", "created_at", "expires_at")},
            }
        ), 201

    @api.get("/tokens", responses={200: TokenListResponse})
    def list_tokens(query: NoQuery) -> Response:
        """List the caller's tokens."""
        return jsonify({"tokens": [_token_json(token) for token in tokens.of_user(context, caller())]})

    @api.delete("/tokens/<token_id>", responses={204: None})
    def revoke_token(path: TokenPath, query: NoQuery) -> tuple[str, int]:
        """Revoke one of the caller's tokens."""
        tokens.revoke(context, caller(), path.token_id)
        return "", 204

    return api


def _token_json(token: Token) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "created_at": rfc3339(token.created_at_ms),
        "expires_at": None if token.expires_at_ms is None else rfc3339(token.expires_at_ms),
        "last_used_at": None if token.last_used_at_ms is None else rfc3339(token.last_used_at_ms),
        "is_active": token.is_active,
    }


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return int(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(
            "expires_at must be a time with its zone, like 2030-01-31T12:00:00Z", "expires_at"
        ) from exc
