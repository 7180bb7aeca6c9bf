"""Projects with their members and credentials: added, changed, read and listed."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.errors import Conflict, NotFound
from reactorcide.domain.forges import ForgeKind
from reactorcide.domain.projects import (
    Credential,
    CredentialKind,
    Member,
    Project,
    ProjectRole,
    PullRequests,
    Visibility,
)
from reactorcide.domain.secrets import redacted_url
from reactorcide.store import approvals, named_secrets, schedules
from reactorcide.store.connection import Connection
from reactorcide.store.pages import marks, matching, newest_first
from reactorcide.store.sealed import SealedFields

_COLUMNS = tuple(item.name for item in fields(Project))
_LIST = ", ".join(f"project.{name}" for name in _COLUMNS)
_SELECT = f"SELECT {_LIST} FROM project"  # noqa: S608  # names of ours only
_INSERT = (
    f"INSERT INTO project ({', '.join(_COLUMNS)}, last_run_number, sealed, created_by) "  # noqa: S608  # as above
    f"VALUES ({', '.join('?' * len(_COLUMNS))}, 0, ?, ?)"
)
_CHANGED = tuple(name for name in _COLUMNS if name not in ("project_id", "git_url", "created_at_ms"))
_UPDATE = f"UPDATE project SET {', '.join(f'{name} = ?' for name in _CHANGED)} WHERE project_id = ?"  # noqa: S608  # as above
_SET_URL = "UPDATE project SET git_url = ?, sealed = ? WHERE project_id = ?"
_NEXT_NUMBER = (
    "UPDATE project SET last_run_number = last_run_number + 1 WHERE project_id = ? RETURNING last_run_number"
)
_ROLE = "SELECT role FROM project_member WHERE project_id = ? AND user_id = ?"
_MEMBERS = (
    'SELECT user_id, username, project_member.role FROM project_member JOIN "user" USING (user_id) '
    "WHERE project_id = ? ORDER BY username"
)
_SET_MEMBER = (
    "INSERT INTO project_member (project_id, user_id, role) VALUES (?, ?, ?) "
    "ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role"
)
_SET_CREDENTIAL = (
    "INSERT INTO project_credential (project_id, kind, public, created_at_ms, sealed) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (project_id, kind) DO UPDATE SET public = excluded.public, "
    "created_at_ms = excluded.created_at_ms, sealed = excluded.sealed"
)
OF_MEMBER = "SELECT project_id FROM project_member WHERE user_id = ?"
"""The ids of the projects that a user is a member of."""
_MAY_SEE = f"(visibility IN ('internal', 'public') OR project_id IN ({OF_MEMBER}))"


def next_number(db: Any, project_id: str) -> int:
    """Return the number of the project's next run, and count that run, in the transaction that adds it.

    Raises ``NotFound``.
    """
    row = db.execute_sql(_NEXT_NUMBER, (project_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no project {project_id}")
    return int(row[0])


class Projects:
    """Projects. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(self, project: Project, git_url: str, owner_id: str) -> None:
        """Insert a project with its first owner; raises ``Conflict`` if the name is taken.

        ``git_url`` is the URL with its credentials.
        """
        values = [_column(project, name) for name in _COLUMNS]
        sealed = self._sealed.seal_text(git_url, owner_of(project.project_id))

        def work(db: Any) -> None:
            db.execute_sql(_INSERT, (*values, sealed, owner_id))
            db.execute_sql(_SET_MEMBER, (project.project_id, owner_id, ProjectRole.OWNER))

        self._write_named(work, project.name)

    def save(self, project: Project, git_url: str | None) -> None:
        """Write the changes of a project, and its URL unless that is ``None``.

        Raises ``Conflict`` if the name is taken.
        """
        values = [*(_column(project, name) for name in _CHANGED), project.project_id]

        def work(db: Any) -> None:
            db.execute_sql(_UPDATE, values)
            if git_url is not None:
                sealed = self._sealed.seal_text(git_url, owner_of(project.project_id))
                db.execute_sql(_SET_URL, (redacted_url(git_url), sealed, project.project_id))

        self._write_named(work, project.name)

    def _write_named(self, work: Any, name: str) -> None:
        try:
            self._db.write(work)
        except IntegrityError as exc:
            raise Conflict(f"there is a project {name!r} already; choose another name") from exc

    def remove(self, project_id: str) -> None:
        """Remove a project with its members, credentials, secrets, schedules and deliveries.

        Raises ``Conflict`` while one of its runs is unfinished.
        """

        def work(db: Any) -> None:
            sql = "SELECT COUNT(*) FROM run WHERE project_id = ? AND completed_at_ms IS NULL"
            (active,) = db.execute_sql(sql, (project_id,)).fetchone()
            if active:
                raise Conflict(f"the project has {active} unfinished runs; cancel them, or wait")
            named_secrets.remove_of_project(db, project_id)
            schedules.remove_of_project(db, project_id)
            approvals.remove_of_project(db, project_id)
            for table in ("project_member", "project_credential", "delivery", "project"):
                db.execute_sql(f"DELETE FROM {table} WHERE project_id = ?", (project_id,))  # noqa: S608  # as above

        self._db.write(work)

    def find(self, project_id: str) -> Project | None:
        """Return a project by its id; ``None`` if there is none."""
        return self._one(f"{_SELECT} WHERE project_id = ?", project_id)

    def get(self, project_id: str) -> Project:
        """Return a project; raises ``NotFound``."""
        project = self.find(project_id)
        if project is None:
            raise NotFound(f"there is no project {project_id}")
        return project

    def find_by_name(self, name: str) -> Project | None:
        """Return a project by its name; ``None`` if there is none."""
        return self._one(f"{_SELECT} WHERE name = ?", name)

    def _one(self, sql: str, value: str) -> Project | None:
        with self._db.read() as db:
            row = db.execute_sql(sql, (value,)).fetchone()
        return None if row is None else _project(row)

    def names(self, project_ids: Sequence[str]) -> list[str]:
        """Return the names of the existing projects among these ids, sorted."""
        sql = f"SELECT name FROM project WHERE project_id IN ({marks(project_ids)}) ORDER BY name"  # noqa: S608  # as above
        with self._db.read() as db:
            return [name for (name,) in db.execute_sql(sql, project_ids)]

    def git_url(self, project_id: str) -> str:
        """Return the URL of a project's repository, with its credentials; raises ``NotFound``."""
        with self._db.read() as db:
            row = db.execute_sql("SELECT sealed FROM project WHERE project_id = ?", (project_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no project {project_id}")
        return self._sealed.open_text(bytes(row[0]), owner_of(project_id))

    def creator(self, project_id: str) -> str:
        """Return the id of the user who has created a project; empty if there is none."""
        with self._db.read() as db:
            sql = "SELECT created_by FROM project WHERE project_id = ?"
            row = db.execute_sql(sql, (project_id,)).fetchone()
        return "" if row is None else str(row[0])

    def set_credential(
        self, project_id: str, kind: CredentialKind, value: str, *, now_ms: int, public: str | None = None
    ) -> None:
        """Store a credential of a project; replaces an earlier one of the kind."""
        sealed = self._sealed.seal_text(value, owner_of_credential(project_id, kind))
        values = (project_id, kind, public, now_ms, sealed)
        self._db.write(lambda db: db.execute_sql(_SET_CREDENTIAL, values))

    def remove_credential(self, project_id: str, kind: CredentialKind) -> None:
        """Remove a credential of a project; safe to repeat."""
        sql = "DELETE FROM project_credential WHERE project_id = ? AND kind = ?"
        self._db.write(lambda db: db.execute_sql(sql, (project_id, kind)))

    def credential(self, project_id: str, kind: CredentialKind) -> str | None:
        """Return the value of a credential of a project; ``None`` if it has none."""
        sql = "SELECT sealed FROM project_credential WHERE project_id = ? AND kind = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id, kind)).fetchone()
        if row is None:
            return None
        return self._sealed.open_text(bytes(row[0]), owner_of_credential(project_id, kind))

    def credentials(self, project_id: str) -> dict[CredentialKind, Credential]:
        """Return the credentials that a project has, without their values."""
        sql = "SELECT kind, public, created_at_ms FROM project_credential WHERE project_id = ?"
        with self._db.read() as db:
            rows = db.execute_sql(sql, (project_id,)).fetchall()
        return {
            CredentialKind(kind): Credential(
                kind=CredentialKind(kind), public=public, created_at_ms=created_at_ms
            )
            for kind, public, created_at_ms in rows
        }

    def role(self, project_id: str, user_id: str) -> ProjectRole | None:
        """Return the role of a user in a project; ``None`` if the user is no member."""
        with self._db.read() as db:
            row = db.execute_sql(_ROLE, (project_id, user_id)).fetchone()
        return None if row is None else ProjectRole(row[0])

    def members(self, project_id: str) -> list[Member]:
        """Return the members of a project by name."""
        with self._db.read() as db:
            return [
                Member(user_id=user_id, username=username, role=ProjectRole(role))
                for user_id, username, role in db.execute_sql(_MEMBERS, (project_id,))
            ]

    def set_member(self, project_id: str, user_id: str, role: ProjectRole) -> None:
        """Give a user a role in a project; replaces an earlier one."""
        self._db.write(lambda db: db.execute_sql(_SET_MEMBER, (project_id, user_id, role)))

    def remove_member(self, project_id: str, user_id: str) -> None:
        """Remove a user from a project; safe to repeat."""
        sql = "DELETE FROM project_member WHERE project_id = ? AND user_id = ?"
        self._db.write(lambda db: db.execute_sql(sql, (project_id, user_id)))

    def page(
        self, user_id: str | None, *, name: str | None, limit: int, after: tuple[int, str] | None
    ) -> tuple[list[Project], int]:
        """Return a page of the projects that a user (``None``: an admin) may see, newest first, and a total.

        ``name`` is the whole name; ``after`` is (created_at_ms, project_id) of the last one of the page
        before.
        """
        where: list[str] = []
        values: list[object] = []
        if user_id is not None:
            where.append(_MAY_SEE)
            values.append(user_id)
        if name is not None:
            where.append("name = ?")
            values.append(name)
        query = newest_first(_SELECT, where, values, "project_id", limit=limit, after=after)
        with self._db.read() as db:
            (total,) = db.execute_sql(matching("SELECT COUNT(*) FROM project", where), values).fetchone()
            return [_project(row) for row in db.execute_sql(*query)], total


def owner_of(project_id: str) -> str:
    """Return the owner that the encryption binds the URL of a project to."""
    return f"project {project_id}"


def owner_of_credential(project_id: str, kind: str) -> str:
    """Return the owner that the encryption binds the value of a credential to."""
    return f"credential {project_id} {kind}"


def _column(project: Project, name: str) -> object:
    value = getattr(project, name)
    return json.dumps(value) if isinstance(value, tuple) else value


def _project(row: Sequence[Any]) -> Project:
    values = dict(zip(_COLUMNS, row, strict=True))
    events = values["allowed_events"]
    return Project(
        **values
        | {
            "visibility": Visibility(values["visibility"]),
            "disabled": bool(values["disabled"]),
            "builder": bool(values["builder"]),
            "forge": ForgeKind(values["forge"]),
            "pull_requests": PullRequests(values["pull_requests"]),
            "allowed_events": None if events is None else tuple(json.loads(events)),
        }
    )
