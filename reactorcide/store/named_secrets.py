"""Named secrets: set, decrypted, listed, removed, and their last uses."""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from reactorcide.domain.named_secrets import NamedSecret, SecretRules, SecretUse
from reactorcide.store.connection import Connection
from reactorcide.store.sealed import SealedFields

_SERVICE = ""
"""In place of the id of a project: a secret of the service."""
_COLUMNS = (
    *("project_id", "name", "events", "branches", "workflows", "projects", "created_at_ms", "updated_at_ms"),
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM named_secret"  # noqa: S608  # names of ours only
_RULES = "events = excluded.events, branches = excluded.branches, workflows = excluded.workflows"
_SET = (
    f"INSERT INTO named_secret ({', '.join(_COLUMNS)}, sealed) VALUES ({', '.join('?' * len(_COLUMNS))}, ?) "  # noqa: S608  # as above
    f"ON CONFLICT (project_id, name) DO UPDATE SET {_RULES}, projects = excluded.projects, "
    "updated_at_ms = excluded.updated_at_ms, sealed = excluded.sealed"
)
_USED = (
    "INSERT INTO secret_use (secret_of, name, project_id, workflow_id, run_id, used_at_ms) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (secret_of, name, project_id, workflow_id) "
    "DO UPDATE SET run_id = excluded.run_id, used_at_ms = excluded.used_at_ms"
)
_OF_ONE = "secret_of = ? AND name = ?"
_FORGET_OLD = (
    f"DELETE FROM secret_use WHERE {_OF_ONE} AND used_at_ms < "  # noqa: S608  # as above
    f"(SELECT used_at_ms FROM secret_use WHERE {_OF_ONE} ORDER BY used_at_ms DESC LIMIT 1 OFFSET {{}})"
)
_MAX_USES = 20
"""Maximum number of stored uses of a secret, because users can invent ids of workflows."""


class NamedSecrets:
    """Named secrets. Thread-safe; each write is one transaction, or part of the one this belongs to.

    Those of the service have ``None`` in place of the id of a project.
    """

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def set(self, secret: NamedSecret, value: str) -> None:
        """Write a secret with its value; replaces an earlier one of the same name."""
        project_id = secret.project_id or _SERVICE
        rules = secret.rules
        values = (
            project_id,
            secret.name,
            *map(_listed, (rules.events, rules.branches, rules.workflows, secret.projects or None)),
            secret.created_at_ms,
            secret.updated_at_ms,
            self._sealed.seal_text(value, owner_of(project_id, secret.name)),
        )
        self._db.write(lambda db: db.execute_sql(_SET, values))

    def find(self, project_id: str | None, name: str) -> NamedSecret | None:
        """Return a secret without its uses; ``None`` if there is none."""
        sql = f"{_SELECT} WHERE project_id = ? AND name = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id or _SERVICE, name)).fetchone()
        return None if row is None else _secret(row)

    def value(self, secret: NamedSecret) -> str:
        """Return the value of an existing secret."""
        project_id = secret.project_id or _SERVICE
        sql = "SELECT sealed FROM named_secret WHERE project_id = ? AND name = ?"
        with self._db.read() as db:
            (data,) = db.execute_sql(sql, (project_id, secret.name)).fetchone()
        return self._sealed.open_text(bytes(data), owner_of(project_id, secret.name))

    def of(self, project_id: str | None) -> list[NamedSecret]:
        """Return the secrets of a project or of the service, by name, with their last uses."""
        owner = project_id or _SERVICE
        uses: dict[str, list[SecretUse]] = {}
        sql = (
            "SELECT name, project_id, workflow_id, run_id, used_at_ms FROM secret_use "
            "WHERE secret_of = ? ORDER BY used_at_ms DESC"
        )
        with self._db.read() as db:
            for name, user, workflow_id, run_id, used_at_ms in db.execute_sql(sql, (owner,)):
                uses.setdefault(name, []).append(
                    SecretUse(project_id=user, workflow_id=workflow_id, run_id=run_id, used_at_ms=used_at_ms)
                )
            rows = db.execute_sql(f"{_SELECT} WHERE project_id = ? ORDER BY name", (owner,)).fetchall()
        return [_secret(row, uses.get(row[1], [])) for row in rows]

    def count(self, project_id: str | None) -> int:
        """Return how many secrets a project or the service has."""
        sql = "SELECT COUNT(*) FROM named_secret WHERE project_id = ?"
        with self._db.read() as db:
            return int(db.execute_sql(sql, (project_id or _SERVICE,)).fetchone()[0])

    def remove(self, project_id: str | None, name: str) -> bool:
        """Remove a secret; returns whether there was one."""
        values = (project_id or _SERVICE, name)

        def work(db: Any) -> bool:
            db.execute_sql(f"DELETE FROM secret_use WHERE {_OF_ONE}", values)  # noqa: S608  # as above
            sql = "DELETE FROM named_secret WHERE project_id = ? AND name = ? RETURNING 1"
            return db.execute_sql(sql, values).fetchone() is not None

        return self._db.write(work)

    def used(self, secret: NamedSecret, use: SecretUse) -> None:
        """Record the last use of a secret by a workflow."""
        secret_of = (secret.project_id or _SERVICE, secret.name)
        values = (*secret_of, use.project_id, use.workflow_id, use.run_id, use.used_at_ms)

        def work(db: Any) -> None:
            db.execute_sql(_USED, values)
            db.execute_sql(_FORGET_OLD.format(_MAX_USES - 1), (*secret_of, *secret_of))

        self._db.write(work)


def remove_of_project(db: Any, project_id: str) -> None:
    """Remove the secrets of a project, in the transaction that removes the project."""
    db.execute_sql("DELETE FROM named_secret WHERE project_id = ?", (project_id,))
    db.execute_sql("DELETE FROM secret_use WHERE secret_of = ? OR project_id = ?", (project_id, project_id))


def owner_of(project_id: str, name: str) -> str:
    """Return the owner that the encryption binds the value of a secret to."""
    return f"secret {project_id} {name}"


def _listed(values: Collection[str] | None) -> str | None:
    return None if values is None else json.dumps(list(values))


def _tuple(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _secret(row: Sequence[Any], uses: Iterable[SecretUse] = ()) -> NamedSecret:
    values = dict(zip(_COLUMNS, row, strict=True))
    return NamedSecret(
        project_id=values["project_id"] or None,
        name=values["name"],
        rules=SecretRules(**{name: _tuple(values[name]) for name in ("events", "branches", "workflows")}),
        projects=_tuple(values["projects"]) or (),
        created_at_ms=values["created_at_ms"],
        updated_at_ms=values["updated_at_ms"],
        uses=tuple(uses),
    )
