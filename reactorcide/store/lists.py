"""Lists of jobs: a page, newest first, and the total.

Totals come from the counts. A page is read from the index of the most selective condition. Each index has the
order of the list, so hardly more rows are read than shown, for any number of jobs.
"""

# ruff: noqa: S608  # What is put into the SQL is text of this file and names of indexes; all values are bound.

from collections.abc import Mapping, Sequence
from typing import Any

from reactorcide.domain.jobs import Job, JobFilter
from reactorcide.lib.records import record
from reactorcide.store.connection import Connection, indexed_by
from reactorcide.store.projects import OF_MEMBER
from reactorcide.store.rows import COLUMN_LIST, as_cut_dict, as_dict, cut_list
from reactorcide.store.sealed import SealedFields

_MAX_NAMES = 50
"""Maximum number of names with one prefix that are looked up one by one."""
_MAX_SORTED = 5_000
"""Maximum number of jobs that are read and sorted for a page, if there are more names."""


@record
class _Condition:
    sql: str
    values: tuple[object, ...] = ()


@record
class _Index:
    """An index from which a page can be read."""

    name: str
    jobs: int
    """The number of jobs in it."""
    ranges: Sequence[_Condition]
    """Parts of the index: each is in the order of the list, or is short enough to be sorted."""


_OF_MEMBER = (
    "(job.run_id IS NULL OR NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = job.run_id "
    f"AND project_id IS NOT NULL AND project_id NOT IN ({OF_MEMBER})))"
)


def _has_hidden(criteria: JobFilter) -> tuple[str, tuple[object, ...]]:
    """Return the query for runs of the user in projects that they are no longer a member of."""
    sql = (
        "SELECT 1 FROM run WHERE user_id = ? AND project_id IS NOT NULL "
        f"AND project_id NOT IN ({OF_MEMBER}) LIMIT 1"
    )
    return sql, (criteria.user_id, criteria.member_id)


class Lists:
    """Lists of jobs. Thread-safe; only reads."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def page(
        self,
        criteria: JobFilter,
        *,
        limit: int,
        offset: int = 0,
        after: tuple[int, str] | None = None,
        max_chars: int | None = None,
    ) -> tuple[list[Job], int]:
        """Return a page of jobs, newest first, and the number of matching jobs.

        ``after`` is (created_at_ms, job_id) of the last job of the page before. With ``max_chars``
        longer texts are cut, secrets are left out, and so are collections with more JSON.
        """
        conditions = _conditions(criteria)
        with self._db.read() as db:
            index, total = _plan(db, criteria, conditions)
            where = [*conditions.values(), _Condition("NOT deleted")]
            if criteria.member_id is not None and db.execute_sql(*_has_hidden(criteria)).fetchone():
                where.append(_Condition(_OF_MEMBER, (criteria.member_id,)))
                total = None
            if total is None:
                total = _count(db, index, where)
            if total == 0:
                return [], 0
            if after is not None:
                where.append(_Condition("(created_at_ms, job_id) < (?, ?)", after))
            job_ids = _job_ids(db, index, where, limit, offset)
            columns = COLUMN_LIST if max_chars is None else cut_list(max_chars)
            sql = f"SELECT {columns} FROM job WHERE job_id IN ({', '.join('?' * len(job_ids))})"
            rows = db.execute_sql(sql, job_ids).fetchall()
        named = map(as_dict if max_chars is None else as_cut_dict, rows)
        jobs = {row["job_id"]: self._sealed.job(row) for row in named}
        # One may have been purged in between.
        return [jobs[job_id] for job_id in job_ids if job_id in jobs], total


def _conditions(criteria: JobFilter) -> dict[str, _Condition]:
    """Return what the filter asks for, by column."""
    conditions = {}
    for column in ("user_id", "queue_name", "source_type"):
        value = getattr(criteria, column)
        if value is not None:
            conditions[column] = _Condition(f"{column} = ?", (value,))
    if criteria.run_id is not None:
        conditions["run_id"] = _Condition("run_id = ?", (criteria.run_id,))
    if criteria.pinned is not None:
        # Without a parameter: otherwise SQLite would not use the index of pinned jobs.
        conditions["pinned"] = _Condition("pinned" if criteria.pinned else "NOT pinned")
    if criteria.statuses:
        statuses = tuple(sorted(set(criteria.statuses)))
        conditions["status"] = _Condition(f"status IN ({', '.join('?' * len(statuses))})", statuses)
    if criteria.name_prefix:
        conditions["name"] = _prefixed(criteria.name_prefix)
    return conditions


def _prefixed(prefix: str) -> _Condition:
    """Return the condition on a name with a prefix, as a range in the order of code points."""
    rest = prefix.rstrip("\U0010ffff")
    if not rest:
        return _Condition("name >= ?", (prefix,))
    following = ord(rest[-1]) + 1
    # Surrogates are no characters.
    end = rest[:-1] + chr(0xE000 if following == 0xD800 else following)
    return _Condition("name >= ? AND name < ?", (prefix, end))


def _plan(db: Any, criteria: JobFilter, conditions: Mapping[str, _Condition]) -> tuple[_Index, int | None]:
    """Return the index to read, and the number of matching jobs; ``None`` if that has to be counted."""
    if "run_id" in conditions:
        # A run has few jobs.
        return _Index("job_run", 0, [conditions["run_id"]]), None
    counted = {column: item for column, item in conditions.items() if column != "name"}
    everything, total, *each = _sums(db, list(counted.values()))
    indexes = [_Index("jobrow_created_at_ms_job_id", everything, [_Condition("1 = 1")])]
    for (column, condition), jobs in zip(counted.items(), each, strict=True):
        ranges = [condition]
        if column == "status":
            ranges = [_Condition("status = ?", (status,)) for status in condition.values]
        if column != "pinned" or criteria.pinned:
            indexes.append(_Index(f"job_{column}", jobs, ranges))
    if "name" not in conditions:
        return min(indexes, key=lambda item: item.jobs), total
    prefixed = [conditions["name"]] + ([counted["user_id"]] if "user_id" in counted else [])
    sql, values = _and(prefixed)
    (named,) = db.execute_sql(
        f"SELECT COALESCE(SUM(jobs), 0) FROM job_name_count WHERE {sql}", values
    ).fetchone()
    names = db.execute_sql(
        f"SELECT DISTINCT name FROM job_name_count WHERE {sql} AND jobs > 0 LIMIT ?",
        (*values, _MAX_NAMES + 1),
    ).fetchall()
    if len(names) <= _MAX_NAMES:
        indexes.append(_Index("job_name", named, [_Condition("name = ?", name) for name in names]))
    elif named <= _MAX_SORTED:
        indexes.append(_Index("job_name", named, [conditions["name"]]))
    is_exact = set(counted) <= {"user_id"} or 0 in (named, total)
    return min(indexes, key=lambda item: item.jobs), min(named, total) if is_exact else None


def _sums(db: Any, conditions: Sequence[_Condition]) -> list[int]:
    """Return the number of all jobs, of those that match all conditions, and of those that match each one."""
    every, values = _and(conditions)
    sqls = [every, *(condition.sql for condition in conditions)]
    sums = ", ".join(f"COALESCE(SUM(CASE WHEN {sql} THEN jobs END), 0)" for sql in sqls)
    bound = [*values, *(value for condition in conditions for value in condition.values)]
    return list(db.execute_sql(f"SELECT COALESCE(SUM(jobs), 0), {sums} FROM job_count", bound).fetchone())


def _count(db: Any, index: _Index, where: Sequence[_Condition]) -> int:
    jobs = 0
    for part in index.ranges:
        sql, values = _and([part, *where])
        (count,) = db.execute_sql(
            f"SELECT COUNT(*) FROM job {indexed_by(index.name)} WHERE {sql}", values
        ).fetchone()
        jobs += count
    return jobs


def _job_ids(db: Any, index: _Index, where: Sequence[_Condition], limit: int, offset: int) -> list[str]:
    """Return the ids of a page, in order, merged from the first ids of each range of the index."""
    parts: list[str] = []
    bound: list[object] = []
    for part in index.ranges:
        sql, values = _and([part, *where])
        parts.append(
            f"SELECT * FROM (SELECT job_id, created_at_ms FROM job {indexed_by(index.name)} WHERE {sql} "
            "ORDER BY created_at_ms DESC, job_id DESC LIMIT ?) AS part"
        )
        bound += [*values, limit + offset]
    rows = db.execute_sql(
        f"SELECT job_id FROM ({' UNION ALL '.join(parts)}) AS parts "
        "ORDER BY created_at_ms DESC, job_id DESC LIMIT ? OFFSET ?",
        (*bound, limit, offset),
    )
    return [job_id for (job_id,) in rows]


def _and(conditions: Sequence[_Condition]) -> tuple[str, tuple[object, ...]]:
    sql = " AND ".join(condition.sql for condition in conditions) or "1 = 1"
    return sql, tuple(value for condition in conditions for value in condition.values)
