"""Queries on users, their tokens, and invitations."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.accounts import Invitation, Role, Scope, Token, User
from reactorcide.domain.audit import Action, Actor, Deed
from reactorcide.domain.errors import Conflict, Forbidden, NotFound
from reactorcide.domain.jobs import ACTIVE
from reactorcide.store import audit
from reactorcide.store.database import Database
from reactorcide.store.models import IdempotencyRow, InvitationRow, JobRow, TokenRow, UserRow

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
_TOUCH = "UPDATE token SET last_used_at_ms = ? WHERE token_id = ?"
# Whoever has made it must still be an admin: nobody leaves a back door behind.
_USE_INVITATION = """
    UPDATE invitation SET used_at_ms = ?, used_by = ?
    WHERE invitation_sha256 = ? AND used_at_ms IS NULL AND expires_at_ms > ? AND (
        created_by IS NULL
        OR EXISTS (SELECT 1 FROM user WHERE user_id = created_by AND is_active AND role = 'admin')
    )
    RETURNING role, email
    """


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


class AccountStore:
    """Users and tokens in the database. Thread-safe; every method is one transaction.

    All methods raise ``StoreError`` where the database does not do its work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_user(self, user: User, deed: Deed) -> None:
        """Insert a user; raises ``Conflict`` if the name is taken."""
        with self._database.write() as db:
            self._insert_user(db, user)
            audit.record(db, deed)

    def user(self, user_id: str) -> User:
        """Return a user; raises ``NotFound``."""
        return self._one_user(UserRow.user_id == user_id, f"there is no user {user_id}")

    def user_by_name(self, username: str) -> User:
        """Return a user; raises ``NotFound``."""
        return self._one_user(UserRow.username == username, f"there is no user {username!r}")

    def users(self) -> list[User]:
        """Return all users by name."""
        with self._database.read() as db:
            rows = UserRow.select(*_USER_FIELDS).order_by(UserRow.username).tuples().execute(db)
            return [_user(row) for row in rows]

    def change_user(
        self, user_id: str, *, role: Role | None, is_active: bool | None, by: Actor, now_ms: int
    ) -> User:
        """Change what is not ``None``, and return the user as they then are.

        Raises ``NotFound``, and ``Conflict`` where no active admin would be left.
        """
        with self._database.write() as db:
            before = self.user(user_id)
            after = replace(
                before,
                role=before.role if role is None else role,
                is_active=before.is_active if is_active is None else is_active,
            )
            if not (after.is_active and after.is_admin):
                self._check_last_admin(before)
            UserRow.update(role=after.role, is_active=after.is_active).where(
                UserRow.user_id == user_id
            ).execute(db)
            actions = []
            if after.role is not before.role:
                actions.append(Action.USER_MAKE_ADMIN if after.is_admin else Action.USER_MAKE_USER)
            if after.is_active is not before.is_active:
                actions.append(Action.USER_ENABLE if after.is_active else Action.USER_DISABLE)
            for action in actions:
                audit.record(db, Deed(at_ms=now_ms, by=by, action=action, subject=user_id))
            return after

    def remove_user(self, user_id: str, deed: Deed) -> None:
        """Remove a user with their tokens; what jobs they had stay.

        Raises ``NotFound``, and ``Conflict`` while one of their jobs is not over or where no active admin
        would be left.
        """
        with self._database.write() as db:
            self._check_last_admin(self.user(user_id))
            unfinished = (
                JobRow.select().where((JobRow.user_id == user_id) & JobRow.status.in_(list(ACTIVE))).count(db)
            )
            if unfinished:
                raise Conflict(
                    f"the user has {unfinished} unfinished jobs; disable the user, and cancel them or wait"
                )
            for model in (TokenRow, IdempotencyRow, UserRow):
                model.delete().where(model.user_id == user_id).execute(db)
            audit.record(db, deed)

    def add_invitation(self, invitation: Invitation, invitation_sha256: bytes, deed: Deed) -> None:
        """Insert an invitation."""
        with self._database.write() as db:
            InvitationRow.insert(
                invitation_sha256=invitation_sha256,
                **{item.name: getattr(invitation, item.name) for item in fields(Invitation)},
            ).execute(db)
            audit.record(db, deed)

    def register(
        self, invitation_sha256: bytes, user: User, token: Token, token_sha256: bytes, deed: Deed
    ) -> User:
        """Turn an invitation into a user with a token, and return that user as the invitation makes them.

        All or nothing, and once, however many try at the same time. Raises ``Forbidden`` where the
        invitation is none (any more), ``Conflict`` if the name is taken; then it stays good.
        """
        with self._database.write() as db:
            values = (deed.at_ms, user.user_id, invitation_sha256, deed.at_ms)
            rows = db.execute_sql(_USE_INVITATION, values).fetchall()
            if not rows:
                raise Forbidden("this invitation is not known, was used or has expired; ask for another one")
            ((role, email),) = rows
            made = replace(user, role=Role(role), email=user.email or email)
            self._insert_user(db, made)
            self._insert_token(db, token, token_sha256)
            audit.record(db, deed)
            return made

    def add_token(self, token: Token, token_sha256: bytes, deed: Deed) -> None:
        """Insert a token; raises ``Conflict`` if the value is in use."""
        with self._database.write() as db:
            self._insert_token(db, token, token_sha256)
            audit.record(db, deed)

    def authenticate(self, token_sha256: bytes) -> tuple[Token, User] | None:
        """Return the token with this hash and its user, in whatever state they are."""
        with self._database.read() as db:
            for row in db.execute_sql(_AUTHENTICATE, (token_sha256,)):
                return _token(row[: len(_TOKEN_COLUMNS)]), _user(row[len(_TOKEN_COLUMNS) :])
        return None

    def touch_token(self, token_id: str, *, now_ms: int) -> None:
        """Record that a token was used, unless somebody else writes just now: no request waits for this."""
        self._database.write_if_free(_TOUCH, (now_ms, token_id))

    def count_tokens(self, user_id: str) -> int:
        """Return how many tokens a user has."""
        with self._database.read() as db:
            return int(TokenRow.select().where(TokenRow.user_id == user_id).count(db))

    def tokens(self, user_id: str | None) -> list[Token]:
        """Return the tokens of one user, or (``None``) of all, oldest first."""
        query = TokenRow.select(*_TOKEN_FIELDS).order_by(TokenRow.created_at_ms, TokenRow.token_id)
        if user_id is not None:
            query = query.where(TokenRow.user_id == user_id)
        with self._database.read() as db:
            return [_token(row) for row in query.tuples().execute(db)]

    def revoke_token(self, token_id: str, user_id: str | None, deed: Deed) -> None:
        """Remove a token, of one user or (``None``) of any; raises ``NotFound``."""
        where = TokenRow.token_id == token_id
        if user_id is not None:
            where &= TokenRow.user_id == user_id
        with self._database.write() as db:
            if not TokenRow.delete().where(where).execute(db):
                raise NotFound(f"there is no token {token_id}")
            audit.record(db, deed)

    def _insert_user(self, db: Any, user: User) -> None:
        try:
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

    def _insert_token(self, db: Any, token: Token, token_sha256: bytes) -> None:
        try:
            TokenRow.insert(
                token_id=token.token_id,
                user_id=token.user_id,
                name=token.name,
                token_sha256=token_sha256,
                created_at_ms=token.created_at_ms,
                expires_at_ms=token.expires_at_ms,
                is_active=token.is_active,
                scopes=None if token.scopes is None else " ".join(sorted(token.scopes)),
            ).execute(db)
        except IntegrityError as exc:
            raise Conflict("this token value is in use already; choose another") from exc

    def _check_last_admin(self, user: User) -> None:
        """Raise ``Conflict`` if ``user`` is an active admin and nobody else is."""
        if not (user.is_active and user.is_admin):
            return
        if not any(
            other.is_active and other.is_admin and other.user_id != user.user_id for other in self.users()
        ):
            raise Conflict(f"{user.username} is the last active admin; make another one first")

    def _one_user(self, where: Any, otherwise: str) -> User:
        with self._database.read() as db:
            for row in UserRow.select(*_USER_FIELDS).where(where).tuples().execute(db):
                return _user(row)
        raise NotFound(otherwise)
