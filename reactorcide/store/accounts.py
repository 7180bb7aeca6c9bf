"""Queries on users and tokens."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.accounts import Role, Token, User
from reactorcide.domain.errors import Conflict, NotFound
from reactorcide.store.database import Database
from reactorcide.store.models import TokenRow, UserRow

_TOKEN_COLUMNS = tuple(item.name for item in fields(Token))
_USER_COLUMNS = tuple(item.name for item in fields(User))
_TOKEN_FIELDS = [getattr(TokenRow, name) for name in _TOKEN_COLUMNS]
_USER_FIELDS = [getattr(UserRow, name) for name in _USER_COLUMNS]

# Asked at every request, so written as SQL: peewee takes longer to build it than SQLite to answer.
_AUTHENTICATE = (
    f"SELECT {', '.join('token.' + name for name in _TOKEN_COLUMNS)}, "  # noqa: S608  # names of ours only
    f"{', '.join('user.' + name for name in _USER_COLUMNS)} "
    "FROM token JOIN user ON user.user_id = token.user_id WHERE token.token_sha256 = ?"
)


def _token(row: Sequence[Any]) -> Token:
    values = dict(zip(_TOKEN_COLUMNS, row, strict=True))
    return Token(**values | {"is_active": bool(values["is_active"])})


def _user(row: Sequence[Any]) -> User:
    values = dict(zip(_USER_COLUMNS, row, strict=True))
    return User(**values | {"role": Role(values["role"]), "is_active": bool(values["is_active"])})


class AccountStore:
    """Users and tokens in the database. Thread-safe; every method is one transaction.

    All methods raise ``StoreError`` where the database does not do its work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_user(self, user: User) -> None:
        """Insert a user; raises ``Conflict`` if the name is taken."""
        try:
            with self._database.write() as db:
                UserRow.insert(
                    user_id=user.user_id,
                    username=user.username,
                    email=user.email,
                    role=user.role,
                    is_active=user.is_active,
                    created_at_ms=user.created_at_ms,
                ).execute(db)
        except IntegrityError as exc:
            raise Conflict(f"there is a user {user.username!r} already") from exc

    def user_by_name(self, username: str) -> User:
        """Return a user; raises ``NotFound``."""
        return self._one_user(UserRow.username == username, f"there is no user {username!r}")

    def users(self) -> list[User]:
        """Return all users by name."""
        with self._database.read() as db:
            rows = UserRow.select(*_USER_FIELDS).order_by(UserRow.username).tuples().execute(db)
            return [_user(row) for row in rows]

    def set_user_active(self, user_id: str, is_active: bool) -> None:
        """Enable or disable a user."""
        with self._database.write() as db:
            UserRow.update(is_active=is_active).where(UserRow.user_id == user_id).execute(db)

    def add_token(self, token: Token, token_sha256: bytes) -> None:
        """Insert a token; raises ``Conflict`` if the value is in use."""
        try:
            with self._database.write() as db:
                TokenRow.insert(
                    token_id=token.token_id,
                    user_id=token.user_id,
                    name=token.name,
                    token_sha256=token_sha256,
                    created_at_ms=token.created_at_ms,
                    expires_at_ms=token.expires_at_ms,
                    is_active=token.is_active,
                ).execute(db)
        except IntegrityError as exc:
            raise Conflict("this token value is in use already; choose another") from exc

    def authenticate(self, token_sha256: bytes) -> tuple[Token, User] | None:
        """Return the token with this hash and its user, in whatever state they are."""
        with self._database.read() as db:
            for row in db.execute_sql(_AUTHENTICATE, (token_sha256,)):
                return _token(row[: len(_TOKEN_COLUMNS)]), _user(row[len(_TOKEN_COLUMNS) :])
        return None

    def touch_token(self, token_id: str, *, now_ms: int) -> None:
        """Record that a token was used."""
        with self._database.write() as db:
            TokenRow.update(last_used_at_ms=now_ms).where(TokenRow.token_id == token_id).execute(db)

    def tokens(self, user_id: str | None) -> list[Token]:
        """Return the tokens of one user, or (``None``) of all, oldest first."""
        query = TokenRow.select(*_TOKEN_FIELDS).order_by(TokenRow.created_at_ms, TokenRow.token_id)
        if user_id is not None:
            query = query.where(TokenRow.user_id == user_id)
        with self._database.read() as db:
            return [_token(row) for row in query.tuples().execute(db)]

    def revoke_token(self, token_id: str, user_id: str | None) -> None:
        """Remove a token, of one user or (``None``) of any; raises ``NotFound``."""
        where = TokenRow.token_id == token_id
        if user_id is not None:
            where &= TokenRow.user_id == user_id
        with self._database.write() as db:
            if not TokenRow.delete().where(where).execute(db):
                raise NotFound(f"there is no token {token_id}")

    def _one_user(self, where: Any, otherwise: str) -> User:
        with self._database.read() as db:
            for row in UserRow.select(*_USER_FIELDS).where(where).tuples().execute(db):
                return _user(row)
        raise NotFound(otherwise)
