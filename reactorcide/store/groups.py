"""Concurrency groups: which run or node holds a group, and which ones wait for it.

A run holds its group while it runs, a node while its job is active: nothing else is stored. Waiting ones get
it in the order of their runs' turns.
"""

from typing import Any

from reactorcide.domain.runs import GroupMember, Run
from reactorcide.store.connection import Connection

_ALL = (1 << 31) - 1
_OF_RUNS = (
    "SELECT run_id, number, turn, NULL, status = 'running' FROM run "
    "WHERE group_key = ? AND status IN ('running', 'waiting') AND NOT is_held AND run_id <> ? "
    # One that runs comes before those that wait.
    "ORDER BY status, turn, run_id LIMIT ?"
)
_OF_NODES = (
    "SELECT node.run_id, run.number, run.turn, node.name, node.state = 'active' "
    "FROM node JOIN run ON run.run_id = node.run_id WHERE node.group_key = ? AND node.run_id <> ? "
    "AND node.state IN ('active', 'waiting') AND (node.state = 'active' OR node.is_held) "
    "ORDER BY node.state, run.turn, node.run_id, node.position LIMIT ?"
)


class Groups:
    """Concurrency groups. Thread-safe; only reads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def runs(self, key: str, *, besides: str = "", limit: int = _ALL) -> list[GroupMember]:
        """Return the runs in a group without ``besides``: first the holder, then the waiting ones."""
        return self._members(_OF_RUNS, key, besides, limit)

    def nodes(self, key: str, *, besides: str = "", limit: int = _ALL) -> list[GroupMember]:
        """Return the nodes in a group without those of the run ``besides``, in the same order."""
        return self._members(_OF_NODES, key, besides, limit)

    def next_run(self, key: str) -> str | None:
        """Return the run that gets a group next; ``None`` if the group is in use, or no run waits."""
        return _next(self.runs(key, limit=1))

    def run_of_next_node(self, key: str) -> str | None:
        """Return the run whose node gets a group next; ``None`` as in ``next_run``."""
        return _next(self.nodes(key, limit=1))

    def is_full(self, key: str, run: Run) -> bool:
        """Return whether a node of another run holds a group, or comes before those of ``run``."""
        return any(
            first.has_place or (first.turn, first.run_id) < (run.turn, run.run_id)
            for first in self.nodes(key, besides=run.run_id, limit=1)
        )

    def _members(self, sql: str, key: str, besides: str, limit: int) -> list[GroupMember]:
        with self._db.read() as db:
            return [_member(row) for row in db.execute_sql(sql, (key, besides, limit))]


def _member(row: Any) -> GroupMember:
    run_id, number, turn, node, has_place = row
    return GroupMember(run_id=run_id, number=number, turn=turn, node=node, has_place=bool(has_place))


def _next(first: list[GroupMember]) -> str | None:
    return next((member.run_id for member in first if not member.has_place), None)
