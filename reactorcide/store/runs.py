"""Runs and their nodes: added, locked, changed, read and listed.

Every change of a node first locks its run's row; otherwise two needs that end together would each see the
other running. Longer than 400 lines, because it has all queries on the tables of runs and nodes.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from reactorcide.domain.errors import NotFound
from reactorcide.domain.outputs import Outputs
from reactorcide.domain.runs import JobTemplate, Node, NodeState, Run, RunFilter
from reactorcide.store import events, projects
from reactorcide.store.connection import Connection
from reactorcide.store.models.runs import RunRow
from reactorcide.store.pages import matching, newest_first
from reactorcide.store.run_rows import (
    NODE_COLUMNS,
    RUN_COLUMNS,
    cache_scope_of,
    node_of_row,
    row_of_run,
    run_of_row,
)
from reactorcide.store.sealed import SealedFields

_SELECT = f"SELECT {', '.join(RUN_COLUMNS)} FROM run"  # noqa: S608  # names of ours only
_SAVED = (
    *("user_id", "status", "reason", "attempt", "turn", "is_held", "waits_for_room"),
    *("updated_at_ms", "completed_at_ms"),
)
_SAVE = f"UPDATE run SET {', '.join(f'{name} = ?' for name in _SAVED)} WHERE run_id = ?"  # noqa: S608  # as above
_NODES = (
    f"SELECT {', '.join(f'node.{name}' for name in NODE_COLUMNS)}, job.status, job.error, "  # noqa: S608  # as above
    # Of a job that was cancelled no artifact counts.
    "CASE WHEN job.artifacts_object_key IS NOT NULL THEN job.tests END FROM node "
    "LEFT JOIN job ON job.job_id = node.job_id AND NOT job.deleted "
    "WHERE node.run_id = ? ORDER BY node.position"
)
_SAVE_NODE = (
    "UPDATE node SET state = ?, reason = ?, job_id = ?, jobs = ?, is_held = ? WHERE run_id = ? AND name = ?"
)
_NEXT_TURN = "SELECT COALESCE(MAX(turn), 0) + 1 FROM run"
_OUTPUTS = "FROM node JOIN job ON job.job_id = node.job_id WHERE node.run_id = ? AND job.outputs IS NOT NULL"
_OPEN = (
    "SELECT run_id FROM run WHERE completed_at_ms IS NULL AND updated_at_ms <= ? AND run_id > ? "
    "ORDER BY run_id LIMIT ?"
)

_SKIPPED = 1000
"""At least this many numbers are skipped after a restore."""
_REMOVE_ENDED = (
    "DELETE FROM run WHERE completed_at_ms <= ? AND NOT pinned "
    "AND NOT EXISTS (SELECT 1 FROM job WHERE job.run_id = run.run_id) RETURNING run_id"
)


class Runs:
    """Runs of workflows. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(
        self,
        run: Run,
        files: Mapping[str, str],
        nodes: Sequence[tuple[Node, JobTemplate]] = (),
        *,
        variables: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Run:
        """Insert a run with its nodes, in the order of the graph; returns it with its number and turn.

        ``files`` are those that the workflow was read from, ``variables`` the values of its ``vars``, and
        ``secrets`` what the run was started with.
        """

        def work(db: Any) -> Run:
            (turn,) = db.execute_sql(_NEXT_TURN).fetchone()
            numbered = replace(run, number=self._next_number(db, run), turn=turn)
            secret = json.dumps(
                {
                    "git_url": run.source.git_url,
                    "files": dict(files),
                    "vars": dict(variables or {}),
                    "secrets": dict(secrets or {}),
                }
            )
            row = {
                **row_of_run(numbered),
                "event": RunRow.event.db_value(dict(run.event)),
                "warnings": RunRow.warnings.db_value(run.warnings or None),
                "cache_scope": None if run.cache_scope is None else json.dumps(asdict(run.cache_scope)),
                "sealed": self._sealed.seal_text(secret, run.run_id),
            }
            _insert(db, "run", row)
            for position, (node, template) in enumerate(nodes):
                owner = owner_of(run.run_id, node.name)
                row = {
                    "run_id": run.run_id,
                    "position": position,
                    "sealed": self._sealed.seal_text(json.dumps(dict(template)), owner),
                    **{name: getattr(node, name) for name in NODE_COLUMNS},
                    "needs": json.dumps(node.needs),
                    "combination": json.dumps(dict(node.combination)),
                }
                _insert(db, "node", row)
            events.insert_of_run(db, numbered, None)
            return numbered

        return self._db.write(work)

    def _next_number(self, db: Any, run: Run) -> int:
        if run.project_id is not None:
            return projects.next_number(db, run.project_id)
        sql = "SELECT COALESCE(MAX(number), 0) FROM run WHERE user_id = ? AND project_id IS NULL"
        (last,) = db.execute_sql(sql, (run.user_id,)).fetchone()
        return 1 + max(int(last), _skipped_up_to(db))

    def skip_numbers(self) -> None:
        """Skip run numbers that runs after a restored backup may have had."""

        def work(db: Any) -> None:
            sql = "SELECT COALESCE(MAX(number), 0) FROM run WHERE project_id IS NULL"
            (last,) = db.execute_sql(sql).fetchone()
            up_to = (max(int(last), _skipped_up_to(db)) // _SKIPPED + 2) * _SKIPPED
            db.execute_sql("UPDATE instance SET run_numbers_skipped_up_to = ?", (up_to,))
            db.execute_sql(
                "UPDATE project SET last_run_number = (last_run_number / ? + 2) * ?", 2 * (_SKIPPED,)
            )

        self._db.write(work)

    def lock(self, run_id: str) -> Run | None:
        """Lock a run until the end of the transaction and return it; ``None`` if it was deleted.

        Call it first in a transaction, before any job or node of the run is read or written.
        """

        def work(db: Any) -> Run | None:
            row = db.execute_sql(f"{_SELECT} WHERE run_id = ?", (run_id,)).fetchone()
            return None if row is None else run_of_row(row)

        return self._db.write(work)

    def save(self, before: Run, after: Run) -> None:
        """Write the state of a run, with an event if its status changed."""

        def work(db: Any) -> None:
            values = [getattr(after, name) for name in _SAVED]
            db.execute_sql(_SAVE, (*values, after.run_id))
            if (before.status, before.attempt) != (after.status, after.attempt):
                events.insert_of_run(db, after, before.status)

        self._db.write(work)

    def save_nodes(self, run: Run, changed: Iterable[tuple[Node, Node]]) -> None:
        """Write the states of nodes, given before and after the change.

        Each change without a job event gets an event.
        """
        # Nodes that release a concurrency group come before the one that gets it.
        pairs = sorted(changed, key=lambda pair: pair[1].state is NodeState.ACTIVE)

        def work(db: Any) -> None:
            for before, node in pairs:
                values = (node.state, node.reason, node.job_id, node.jobs, node.is_held)
                db.execute_sql(_SAVE_NODE, (*values, run.run_id, node.name))
                if node.job_id == before.job_id and before.state not in (NodeState.ACTIVE, node.state):
                    events.insert_of_node(db, run, node, before)

        self._db.write(work)

    def next_turn(self) -> int:
        """Return the turn for a run that starts or is repeated now."""
        with self._db.read() as db:
            (turn,) = db.execute_sql(_NEXT_TURN).fetchone()
        return int(turn)

    def beginning_with(self, text: str, *, limit: int) -> list[str]:
        """Return ids of runs that begin with ``text``, hexadecimal digits and ``-``."""
        sql = "SELECT run_id FROM run WHERE run_id >= ? AND run_id < ? ORDER BY run_id LIMIT ?"
        with self._db.read() as db:
            return [run_id for (run_id,) in db.execute_sql(sql, (text, f"{text}g", limit))]

    def find(self, run_id: str) -> Run | None:
        """Return a run; ``None`` if there is none."""
        with self._db.read() as db:
            row = db.execute_sql(f"{_SELECT} WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else run_of_row(row)

    def get(self, run_id: str) -> Run:
        """Return a run; raises ``NotFound``."""
        run = self.find(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return run

    def nodes(self, run_id: str) -> list[Node]:
        """Return the nodes of a run, each after those that it needs."""
        with self._db.read() as db:
            return [node_of_row(row) for row in db.execute_sql(_NODES, (run_id,))]

    def template(self, run_id: str, node: str) -> JobTemplate:
        """Return the definition of a node's job."""
        sql = "SELECT sealed FROM node WHERE run_id = ? AND name = ?"
        with self._db.read() as db:
            (data,) = db.execute_sql(sql, (run_id, node)).fetchone()
        template: JobTemplate = json.loads(self._sealed.open_text(bytes(data), owner_of(run_id, node)))
        return template

    def outputs(self, run_id: str, job_names: Collection[str]) -> dict[str, Outputs]:
        """Return the outputs of the newest jobs of some nodes, by the name of the node.

        The nodes are those of the workflow's jobs with these names, in the order of the graph.
        """
        sql = f"SELECT node.name, job.job_id, job.outputs {_of(job_names)} ORDER BY node.position"
        with self._db.read() as db:
            rows = db.execute_sql(sql, (run_id, *job_names)).fetchall()
        return {name: self._sealed.open_outputs(bytes(data), job_id) for name, job_id, data in rows}

    def outputs_bytes(self, run_id: str, job_names: Collection[str]) -> int:
        """Return about how much memory ``outputs`` takes with the same arguments."""
        sql = f"SELECT COALESCE(SUM(LENGTH(job.outputs)), 0) {_of(job_names)}"
        with self._db.read() as db:
            (size_bytes,) = db.execute_sql(sql, (run_id, *job_names)).fetchone()
        return int(size_bytes)

    def files(self, run_id: str) -> dict[str, str]:
        """Return the files that a run's workflow was read from, by path."""
        files: dict[str, str] = self._opened(run_id)["files"]
        return files

    def variables(self, run_id: str) -> dict[str, str]:
        """Return the values of the ``vars`` of a run."""
        # A run that an older version has started has none.
        variables: dict[str, str] = self._opened(run_id).get("vars", {})
        return variables

    def git_url(self, run_id: str) -> str | None:
        """Return the URL of a run's repository, with its credentials."""
        url: str | None = self._opened(run_id)["git_url"]
        return url

    def secrets_of_start(self, run_id: str) -> dict[str, str]:
        """Return the secrets that a run was started with, by name."""
        secrets: dict[str, str] = self._opened(run_id).get("secrets", {})
        return secrets

    def _opened(self, run_id: str) -> dict[str, Any]:
        with self._db.read() as db:
            row = db.execute_sql("SELECT sealed FROM run WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no run {run_id}")
        opened: dict[str, Any] = json.loads(self._sealed.open_text(bytes(row[0]), run_id))
        return opened

    def held(self, project_id: str, sha: str) -> list[str]:
        """Return the ids of the runs of a commit that wait for approval, in the order of their start."""
        sql = "SELECT run_id FROM run WHERE is_held AND project_id = ? AND sha = ? ORDER BY turn, run_id"
        with self._db.read() as db:
            return [run_id for (run_id,) in db.execute_sql(sql, (project_id, sha))]

    def of_no_project(self, *, limit: int) -> list[str]:
        """Return ids of runs that are over and whose project was removed."""
        sql = (
            "SELECT run_id FROM run WHERE project_id IS NOT NULL AND completed_at_ms IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM project WHERE project.project_id = run.project_id) LIMIT ?"
        )
        with self._db.read() as db:
            return [run_id for (run_id,) in db.execute_sql(sql, (limit,))]

    def newest_of_branch(self, project_id: str, branch: str, *, limit: int) -> list[Run]:
        """Return the newest trusted runs of a branch, without those of pull requests."""
        sql = (
            f"{_SELECT} WHERE project_id = ? AND branch = ? AND is_trusted "
            "AND event_name NOT LIKE 'pull_request%' ORDER BY created_at_ms DESC, run_id DESC LIMIT ?"
        )
        with self._db.read() as db:
            return [run_of_row(row) for row in db.execute_sql(sql, (project_id, branch, limit))]

    def default_branch(self, project_id: str) -> str | None:
        """Return the default branch of a project's repository, from its newest run."""
        sql = (
            "SELECT cache_scope FROM run WHERE project_id = ? AND cache_scope IS NOT NULL "
            "ORDER BY created_at_ms DESC, run_id DESC LIMIT 1"
        )
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id,)).fetchone()
        scope = None if row is None else cache_scope_of(row[0])
        return scope.branches[-1] if scope and scope.branches else None

    def last_workflow_id(self, project_id: str, file: str) -> str | None:
        """Return the id of the workflow of the newest run of a file; ``None`` if it has had none."""
        sql = (
            "SELECT workflow_id FROM run WHERE project_id = ? AND file = ? "
            "ORDER BY created_at_ms DESC, run_id DESC LIMIT 1"
        )
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id, file)).fetchone()
        return None if row is None else row[0]

    def project_of(self, run_id: str) -> str | None:
        """Return the id of the project that a run belongs to; ``None`` if it belongs to its user."""
        with self._db.read() as db:
            row = db.execute_sql("SELECT project_id FROM run WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else row[0]

    def page(
        self, criteria: RunFilter, *, limit: int, after: tuple[int, str] | None = None
    ) -> tuple[list[Run], int]:
        """Return a page of runs, newest first, and the number of matching runs.

        ``after`` is (created_at_ms, run_id) of the last run of the page before.
        """
        conditions = {
            "user_id = ?": criteria.user_id,
            "project_id = ?": criteria.project_id,
            "workflow_id = ?": criteria.workflow_id,
            "branch = ?": criteria.branch,
            "event_name = ?": criteria.event,
            "status = ?": criteria.status,
        }
        set_conditions = {sql: value for sql, value in conditions.items() if value is not None}
        where = [*set_conditions]
        values: list[object] = [*set_conditions.values()]
        if criteria.member_id is not None:
            where.append(f"(project_id IS NULL OR project_id IN ({projects.OF_MEMBER}))")
            values.append(criteria.member_id)
        query = newest_first(_SELECT, where, values, "run_id", limit=limit, after=after)
        with self._db.read() as db:
            (total,) = db.execute_sql(matching("SELECT COUNT(*) FROM run", where), values).fetchone()
            if total == 0:
                return [], 0
            return [run_of_row(row) for row in db.execute_sql(*query)], total

    def remove_ended(self, *, up_to_ms: int) -> list[str]:
        """Remove the runs that ended up to then and have no job left; returns their ids."""

        def work(db: Any) -> list[str]:
            run_ids = [run_id for (run_id,) in db.execute_sql(_REMOVE_ENDED, (up_to_ms,)).fetchall()]
            for run_id in run_ids:
                _delete_rest(db, run_id)
            return run_ids

        return self._db.write(work)

    def jobs(self, run_id: str) -> list[str]:
        """Return the ids of all jobs of a run, in the order of their creation."""
        sql = "SELECT job_id FROM job WHERE run_id = ? AND NOT deleted ORDER BY created_at_ms, job_id"
        with self._db.read() as db:
            return [job_id for (job_id,) in db.execute_sql(sql, (run_id,))]

    def pin(self, run_id: str, pinned: bool) -> None:
        """Pin a run, or take its pin away."""
        self._db.write(
            lambda db: db.execute_sql("UPDATE run SET pinned = ? WHERE run_id = ?", (pinned, run_id))
        )

    def delete(self, run_id: str) -> None:
        """Remove a run with its nodes and events, but not its jobs."""

        def work(db: Any) -> None:
            db.execute_sql("DELETE FROM run WHERE run_id = ?", (run_id,))
            _delete_rest(db, run_id)

        self._db.write(work)

    def open(self, *, before_ms: int, after: str, limit: int) -> list[str]:
        """Return the ids of runs that are not over and have not changed since then, in their order.

        ``after`` is the last id of the page before.
        """
        with self._db.read() as db:
            return [run_id for (run_id,) in db.execute_sql(_OPEN, (before_ms, after, limit))]


def _delete_rest(db: Any, run_id: str) -> None:
    """Remove what belongs to a run that was removed."""
    db.execute_sql("DELETE FROM node WHERE run_id = ?", (run_id,))
    db.execute_sql("DELETE FROM job_event WHERE run_id = ?", (run_id,))


def _insert(db: Any, table: str, row: Mapping[str, object]) -> None:
    sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608  # names of ours only
    db.execute_sql(sql, [*row.values()])


def _of(job_names: Collection[str]) -> str:
    return f"{_OUTPUTS} AND node.job_name IN ({', '.join('?' * len(job_names))})"


def owner_of(run_id: str, node: str) -> str:
    """Return whom the sealed definition of a node belongs to."""
    return f"{run_id} {node}"


def _skipped_up_to(db: Any) -> int:
    """Return the number that those of the runs of no project are above."""
    row = db.execute_sql("SELECT run_numbers_skipped_up_to FROM instance").fetchone()
    return 0 if row is None else int(row[0])
