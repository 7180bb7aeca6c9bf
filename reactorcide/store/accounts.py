"""Queries on users, their tokens, and invitations."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.accounts import Invitation, Role, Scope, Token, User
from reactorcide.domain.errors import Conflict, Forbidden, NotFound
from reactorcide.domain.jobs import ACTIVE
from reactorcide.store.connection import Connection
from reactorcide.store.models.accounts import IdempotencyRow, InvitationRow, SessionRow, TokenRow, UserRow
from reactorcide.store.models.jobs import JobRow
from reactorcide.store.models.projects import ProjectMemberRow

_TOKEN_COLUMNS = tuple(item.name for item in fields(Token))
_USER_COLUMNS = tuple(item.name for item in fields(User))
_TOKEN_FIELDS = [getattr(TokenRow, name) for name in _TOKEN_COLUMNS]
_USER_FIELDS = [getattr(UserRow, name) for name in _USER_COLUMNS]

# Run at every request, so written as SQL: peewee takes longer to build it than SQLite to answer.
_AUTHENTICATE = (
    f"SELECT {', '.join('token.' + name for name in _TOKEN_COLUMNS)}, "  # noqa: S608  # names of ours only
    f"{', '.join('owner.' + name for name in _USER_COLUMNS)} "
    'FROM token JOIN "user" AS owner ON owner.user_id = token.user_id '
    "WHERE token.token_sha256 = ?"
)
_AUTHENTICATE_SESSION = _AUTHENTICATE.replace(
    "WHERE token.token_sha256 = ?",
    "JOIN session ON session.token_id = token.token_id "
    "WHERE session.session_sha256 = ? AND NOT session.is_link AND session.expires_at_ms > ?",
)
_TOUCH = "UPDATE token SET last_used_at_ms = ? WHERE token_id = ?"
# Its creator must still be an admin, so that an invitation is no back door.
_USE_INVITATION = """
    UPDATE invitation SET used_at_ms = ?, used_by = ?
    WHERE invitation_sha256 = ? AND used_at_ms IS NULL AND expires_at_ms > ? AND (
        created_by IS NULL
        OR EXISTS (SELECT 1 FROM "user" WHERE user_id = created_by AND is_active AND role = 'admin')
    )
    RETURNING role, email
    """
_USE_LINK = """
    UPDATE session SET session_sha256 = ?, is_link = ?, created_at_ms = ?, expires_at_ms = ?
    WHERE session_sha256 = ? AND is_link AND expires_at_ms > ?
    """
_MAX_SESSIONS = 100
"""The most sessions and links of one token; a further one ends the oldest."""


def _token(row: Sequence[Any]) -> Token:
    values = dict(zip(_TOKEN_COLUMNS, row, strict=True))
    scopes = values["scopes"]
    return Token(
        **values
        | {
            "is_active": bool(values["is_active"]),
            "scopes": None if scopes is None else frozenset(map(Scope, scopes.split())),
        }
    )


def _user(row: Sequence[Any]) -> User:
    values = dict(zip(_USER_COLUMNS, row, strict=True))
    return User(**values | {"role": Role(values["role"]), "is_active": bool(values["is_active"])})


class Accounts:
    """Users, tokens and invitations. Thread-safe; each write is one transaction, or part of the one this
    belongs to.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add_user(self, user: User) -> None:
        """Insert a user; raises ``Conflict`` if the name is taken."""
        values = {name: getattr(user, name) for name in _USER_COLUMNS}
        try:
            self._db.write(UserRow.insert(**values).execute)
        except IntegrityError as exc:
            raise Conflict(f"there is a user {user.username!r} already") from exc

    def user(self, user_id: str) -> User:
        """Return a user; raises ``NotFound``."""
        return self._one_user(UserRow.user_id == user_id, f"there is no user {user_id}")

    def user_by_name(self, username: str) -> User:
        """Return a user; raises ``NotFound``."""
        return self._one_user(UserRow.username == username, f"there is no user {username!r}")

    def users(self) -> list[User]:
        """Return all users by name."""
        with self._db.read() as db:
            rows = UserRow.select(*_USER_FIELDS).order_by(UserRow.username).tuples().execute(db)
            return [_user(row) for row in rows]

    def update_user(self, user: User) -> None:
        """Change role and activity of a user; raises ``Conflict`` if no active admin would be left."""

        def work(db: Any) -> None:
            if not (user.is_active and user.is_admin):
                self._check_last_admin(self.user(user.user_id))
            UserRow.update(role=user.role, is_active=user.is_active).where(
                UserRow.user_id == user.user_id
            ).execute(db)
            if not user.is_active:
                self._end_sessions(TokenRow.user_id == user.user_id, db)

        self._db.write(work)

    def remove_user(self, user_id: str) -> None:
        """Remove a user with their tokens; their jobs stay.

        Raises ``NotFound``, and ``Conflict`` while one of their jobs is not over or where no active admin
        would be left.
        """

        def work(db: Any) -> None:
            self._check_last_admin(self.user(user_id))
            unfinished = (
                JobRow.select().where((JobRow.user_id == user_id) & JobRow.status.in_(list(ACTIVE))).count(db)
            )
            if unfinished:
                raise Conflict(
                    f"the user has {unfinished} unfinished jobs; disable the user, and cancel them or wait"
                )
            self._end_sessions(TokenRow.user_id == user_id, db)
            for model in (TokenRow, IdempotencyRow, ProjectMemberRow, UserRow):
                model.delete().where(model.user_id == user_id).execute(db)

        self._db.write(work)

    def add_invitation(self, invitation: Invitation, invitation_sha256: bytes) -> None:
        """Insert an invitation."""
        values = {item.name: getattr(invitation, item.name) for item in fields(Invitation)}
        self._db.write(InvitationRow.insert(invitation_sha256=invitation_sha256, **values).execute)

    def use_invitation(
        self, invitation_sha256: bytes, user_id: str, *, now_ms: int
    ) -> tuple[Role, str | None]:
        """Use up an invitation for a new user, and return the role and the email that it is for.

        Succeeds once, also under concurrent use. Raises ``Forbidden`` if the invitation is invalid.
        """
        values = (now_ms, user_id, invitation_sha256, now_ms)
        row = self._db.write(lambda db: db.execute_sql(_USE_INVITATION, values).fetchone())
        if row is None:
            raise Forbidden("this invitation is not known, was used or has expired; ask for another one")
        role, email = row
        return Role(role), email

    def add_token(self, token: Token, token_sha256: bytes) -> None:
        """Insert a token; raises ``Conflict`` if the value is in use."""
        values = {name: getattr(token, name) for name in _TOKEN_COLUMNS}
        values["scopes"] = None if token.scopes is None else " ".join(sorted(token.scopes))
        try:
            self._db.write(TokenRow.insert(token_sha256=token_sha256, **values).execute)
        except IntegrityError as exc:
            raise Conflict("this token value is in use already; choose another") from exc

    def authenticate(self, token_sha256: bytes) -> tuple[Token, User] | None:
        """Return the token with this hash and its user, also if expired or disabled."""
        return self._token_and_user(_AUTHENTICATE, (token_sha256,))

    def authenticate_session(self, session_sha256: bytes, *, now_ms: int) -> tuple[Token, User] | None:
        """Return the token of the open session with this hash and its user, also if expired or disabled."""
        return self._token_and_user(_AUTHENTICATE_SESSION, (session_sha256, now_ms))

    def add_session(
        self, session_sha256: bytes, token_id: str, *, is_link: bool, now_ms: int, expires_at_ms: int
    ) -> None:
        """Insert a session or a one-time link, and remove those that have expired."""

        def work(db: Any) -> None:
            of_token = SessionRow.select(SessionRow.session_sha256).where(SessionRow.token_id == token_id)
            newest = of_token.order_by(SessionRow.created_at_ms.desc()).limit(_MAX_SESSIONS - 1)
            SessionRow.delete().where(
                (SessionRow.expires_at_ms <= now_ms)
                | ((SessionRow.token_id == token_id) & SessionRow.session_sha256.not_in(newest))
            ).execute(db)
            SessionRow.insert(
                session_sha256=session_sha256,
                token_id=token_id,
                is_link=is_link,
                created_at_ms=now_ms,
                expires_at_ms=expires_at_ms,
            ).execute(db)

        self._db.write(work)

    def use_link(self, link_sha256: bytes, session_sha256: bytes, *, now_ms: int, expires_at_ms: int) -> None:
        """Turn a one-time link into a session; succeeds once, also under concurrent use.

        Raises ``Forbidden`` if the link is invalid.
        """
        values = (session_sha256, False, now_ms, expires_at_ms, link_sha256, now_ms)
        if not self._db.write(lambda db: db.execute_sql(_USE_LINK, values).rowcount):
            raise Forbidden("this link is not known, was used or has expired; ask for another one")

    def remove_session(self, session_sha256: bytes) -> None:
        """Remove a session; safe to repeat."""
        self._db.write(SessionRow.delete().where(SessionRow.session_sha256 == session_sha256).execute)

    def touch_token(self, token_id: str, *, now_ms: int) -> None:
        """Record the use of a token, unless another write is running, because no request waits for this."""
        self._db.write_if_free(_TOUCH, (now_ms, token_id))

    def count_tokens(self, user_id: str) -> int:
        """Return how many tokens a user has."""
        with self._db.read() as db:
            return int(TokenRow.select().where(TokenRow.user_id == user_id).count(db))

    def tokens(self, user_id: str | None) -> list[Token]:
        """Return the tokens of one user, or (``None``) of all, oldest first."""
        query = TokenRow.select(*_TOKEN_FIELDS).order_by(TokenRow.created_at_ms, TokenRow.token_id)
        if user_id is not None:
            query = query.where(TokenRow.user_id == user_id)
        with self._db.read() as db:
            return [_token(row) for row in query.tuples().execute(db)]

    def remove_token(self, token_id: str, user_id: str | None) -> None:
        """Remove a token, of one user or (``None``) of any; raises ``NotFound``."""
        where = TokenRow.token_id == token_id
        if user_id is not None:
            where &= TokenRow.user_id == user_id

        def work(db: Any) -> None:
            self._end_sessions(where, db)
            if not TokenRow.delete().where(where).execute(db):
                raise NotFound(f"there is no token {token_id}")

        self._db.write(work)

    def _token_and_user(self, sql: str, values: tuple[object, ...]) -> tuple[Token, User] | None:
        with self._db.read() as db:
            for row in db.execute_sql(sql, values):
                return _token(row[: len(_TOKEN_COLUMNS)]), _user(row[len(_TOKEN_COLUMNS) :])
        return None

    @staticmethod
    def _end_sessions(of_tokens: Any, db: Any) -> None:
        """Remove the sessions and links of the tokens that a condition selects."""
        tokens = TokenRow.select(TokenRow.token_id).where(of_tokens)
        SessionRow.delete().where(SessionRow.token_id.in_(tokens)).execute(db)

    def _check_last_admin(self, user: User) -> None:
        """Raise ``Conflict`` if ``user`` is an active admin and nobody else is."""
        if not (user.is_active and user.is_admin):
            return
        if not any(
            other.is_active and other.is_admin and other.user_id != user.user_id for other in self.users()
        ):
            raise Conflict(f"{user.username} is the last active admin; make another one first")

    def _one_user(self, where: Any, otherwise: str) -> User:
        with self._db.read() as db:
            for row in UserRow.select(*_USER_FIELDS).where(where).tuples().execute(db):
                return _user(row)
        raise NotFound(otherwise)
