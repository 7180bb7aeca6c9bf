"""Who is calling: the bearer token of a request."""

from flask import g, request

from reactorcide.accounts import AccountContext, tokens
from reactorcide.domain.accounts import User
from reactorcide.domain.errors import Unauthorized


def authenticate(context: AccountContext) -> None:
    """Remember the caller, or raise ``Unauthorized``."""
    g.user = tokens.authenticate(context, bearer_token())


def bearer_token() -> str:
    """Return the request's token; raises ``Unauthorized`` where it has none."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise Unauthorized("send a token: Authorization: Bearer <token>")
    return value.strip()


def caller() -> User:
    """Return who is calling, on routes that need a token."""
    user: User = g.user
    return user
