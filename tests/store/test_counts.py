"""The counts are always those of the jobs, and a list is what its filter asks for, whatever was written."""

import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import IllegalTransition, NotFound
from reactorcide.domain.jobs import Job, JobFilter, JobStatus, allowed_from
from reactorcide.store import Store
from reactorcide.store import lists as lists_module
from reactorcide.store.database import Database
from tests.store.test_jobs import add, clock, move
from tests.support.store import AnyDatabase, new_store, sqlite_only

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.SUBMITTED)
USERS, QUEUES, SOURCES = ("ann", "bob"), ("q", "urgent"), ("git", "copy")
NAMES = ("a", "ab", "abc", "b", "a\U0010ffff", "\U0010ffff", "\ud7ffx", "\ue000")


Jobs = list[Job]
"""``list`` is a rule of the machine."""


@cache
def migrated() -> Path:
    """Return a new database, to be copied: migrating one takes much longer."""
    path = Path(tempfile.mkdtemp(), "new.db")
    database = Database(path)
    database.migrate()
    new_store(database).instance.id("instance")
    new_store(database).instance.open_vault()
    database.close()
    return path


class RolledBack(Exception):
    """Rolls a transaction back."""


class Machine(RuleBasedStateMachine):
    """Writes of every kind, in any order, beside a model of what the jobs are."""

    job_ids: Bundle[str] = Bundle("job_ids")

    @initialize(target=job_ids)
    def open(self) -> MultipleResults[str]:
        self.directory = tempfile.TemporaryDirectory()
        for path in migrated().parent.iterdir():
            shutil.copy(path, self.directory.name)
        self.database = Database(Path(self.directory.name, "new.db"))
        self.store = new_store(self.database)
        self.store.instance.open_vault()
        return multiple(*(add(self.store, name=name).job_id for name in NAMES[:3]))

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    @rule(
        target=job_ids,
        user_id=st.sampled_from(USERS),
        queue_name=st.sampled_from(QUEUES),
        source_type=st.sampled_from(SOURCES),
        name=st.sampled_from(NAMES),
    )
    def add(self, **fields: Any) -> str:
        return add(self.store, **fields).job_id

    @rule(job_id=job_ids, status=st.sampled_from(JobStatus), error=st.sampled_from([None, "away", "full"]))
    def transition(self, job_id: str, status: JobStatus, error: str | None) -> None:
        # What runs has an attempt, which ends with it: by ``end``.
        allowed = allowed_from(status) - {JobStatus.RUNNING}
        if status is JobStatus.SUBMIT_FAILED:
            allowed |= {status}
        final = {"completed_at_ms": next(clock)} if status in ("completed", "failed", "cancelled") else {}
        changes = {"corndogs_task_id": "t", "error": error, **final}
        try:
            self.store.jobs.transition(job_id, status, now_ms=next(clock), only_from=allowed, **changes)
        except IllegalTransition:
            return

    @rule(job_id=job_ids)
    def claim(self, job_id: str) -> None:
        try:
            self.store.attempts.create(job_id, "t", "w", now_ms=next(clock))
        except IllegalTransition:
            return

    @rule(job_id=job_ids, status=st.sampled_from(ENDS))
    def end(self, job_id: str, status: JobStatus) -> None:
        try:
            attempt = self.store.jobs.get(job_id).attempt
        except NotFound:
            return
        at_ms = next(clock)
        changes = {"attempt": attempt + 1} if status is JobStatus.SUBMITTED else {"completed_at_ms": at_ms}
        self.store.attempts.end(
            job_id, attempt, status, now_ms=at_ms, exit_code=0, error=None, job_changes=changes
        )
        self.store.tasks.closed(job_id, "t")

    @rule(job_id=job_ids)
    def lose_the_task(self, job_id: str) -> None:
        self.store.tasks.forget(job_id, "t", "lost", now_ms=next(clock))

    @rule()
    def lose_all_tasks(self) -> None:
        self.store.tasks.forget_all(now_ms=next(clock))

    @rule(job_id=job_ids, pinned=st.booleans())
    def pin(self, job_id: str, pinned: bool) -> None:
        try:
            self.store.jobs.pin(job_id, pinned)
        except NotFound:
            return

    @rule(job_id=job_ids)
    def delete(self, job_id: str) -> None:
        self.store.jobs.delete(job_id, now_ms=next(clock))

    @rule(job_id=job_ids)
    def delete_if_removable(self, job_id: str) -> None:
        self.store.retention.delete(job_id, now_ms=next(clock))

    @rule(job_id=job_ids)
    def purge(self, job_id: str) -> None:
        self.store.retention.purge(job_id)

    @rule(job_id=job_ids)
    def roll_back(self, job_id: str) -> None:
        with suppress(RolledBack), self.store.transaction() as tx:
            tx.jobs.delete(job_id, now_ms=next(clock))
            raise RolledBack

    @rule(
        user_id=st.sampled_from([None, *USERS]),
        statuses=st.sets(st.sampled_from(JobStatus), max_size=3),
        queue_name=st.sampled_from([None, *QUEUES]),
        source_type=st.sampled_from([None, *SOURCES]),
        name_prefix=st.sampled_from([None, *NAMES]),
        pinned=st.sampled_from([None, True, False]),
        limit=st.integers(1, 4),
        offset=st.integers(0, 2),
    )
    def list(self, limit: int, offset: int, **conditions: Any) -> None:
        filter_ = JobFilter(**conditions)
        expected = [job for job in self.jobs() if matches(job, filter_)]
        page, total = self.store.lists.page(filter_, limit=limit, offset=offset)
        assert total == len(expected)
        assert [job.job_id for job in page] == [job.job_id for job in expected[offset : offset + limit]]
        if page:
            after = page[-1].created_at_ms, page[-1].job_id
            rest, again = self.store.lists.page(filter_, limit=limit, after=after, max_chars=10)
            assert again == total
            assert [job.job_id for job in rest] == [
                job.job_id for job in expected[offset + len(page) :][:limit]
            ]

    def jobs(self) -> Jobs:
        """Return the jobs that are not deleted, newest first, by asking for each of them."""
        with self.database.read() as db:
            job_ids = [job_id for (job_id,) in db.execute_sql("SELECT job_id FROM job")]
        jobs = [job for job in map(self.store.jobs.get, job_ids) if not job.deleted]
        return sorted(jobs, key=lambda job: (job.created_at_ms, job.job_id), reverse=True)

    @invariant()
    def the_counts_are_those_of_the_jobs(self) -> None:
        jobs = self.jobs()
        expected = Counter(
            (
                job.user_id,
                job.definition.queue_name,
                str(job.status),
                job.definition.source_type,
                int(job.pinned),
            )
            for job in jobs
        )
        names = Counter((job.definition.name, job.user_id) for job in jobs)
        with self.database.read() as db:
            counted = db.execute_sql("SELECT * FROM job_count WHERE jobs <> 0").fetchall()
            named = db.execute_sql("SELECT * FROM job_name_count WHERE jobs <> 0").fetchall()
        assert {row[:5]: row[5] for row in counted} == expected
        assert {row[:2]: row[2] for row in named} == names
        queues = Counter((job.definition.queue_name, job.status) for job in jobs)
        assert {(queue, status): jobs for queue, status, jobs in self.store.queues.counts()} == queues

    @invariant()
    def the_events_lead_to_each_status(self) -> None:
        last: dict[str, str] = {}
        with self.database.read() as db:
            events = db.execute_sql(
                "SELECT job_id, status_from, status_to FROM job_event ORDER BY id"
            ).fetchall()
            statuses = dict(db.execute_sql("SELECT job_id, status FROM job").fetchall())
        for job_id, status_from, status_to in events:
            assert last.get(job_id) == status_from
            last[job_id] = status_to
        assert last == statuses


def matches(job: Job, job_filter: JobFilter) -> bool:
    definition = job.definition
    return (
        job_filter.user_id in (None, job.user_id)
        and (not job_filter.statuses or job.status in job_filter.statuses)
        and job_filter.queue_name in (None, definition.queue_name)
        and job_filter.source_type in (None, definition.source_type)
        and definition.name.startswith(job_filter.name_prefix or "")
        and job_filter.pinned in (None, job.pinned)
    )


TestCounts = Machine.TestCase
TestCounts.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("max_sorted", [0, 5000])
def test_names_with_one_prefix_share_a_list(
    store: Store, monkeypatch: pytest.MonkeyPatch, max_sorted: int
) -> None:
    monkeypatch.setattr(lists_module, "_MAX_NAMES", 3)
    monkeypatch.setattr(lists_module, "_MAX_SORTED", max_sorted)
    jobs = [add(store, name=f"build {number}") for number in (3, 1, 2, 5, 4)]
    add(store, name="deploy")
    page, total = store.lists.page(JobFilter(name_prefix="build"), limit=3, offset=1)
    assert ([job.job_id for job in page], total) == ([job.job_id for job in jobs[3:0:-1]], 5)


@sqlite_only
@pytest.mark.parametrize(
    ("job_filter", "index"),
    [
        (JobFilter(), "jobrow_created_at_ms_job_id"),
        (JobFilter(user_id="bob"), "job_user_id"),
        (JobFilter(statuses=[JobStatus.CANCELLED]), "job_status"),
        (JobFilter(queue_name="rare"), "job_queue_name"),
        (JobFilter(source_type="git"), "job_source_type"),
        (JobFilter(name_prefix="rar"), "job_name"),
        (JobFilter(pinned=True), "job_pinned"),
        (JobFilter(user_id="ann", queue_name="rare"), "job_queue_name"),
    ],
)
def test_a_page_is_read_from_the_index_with_the_fewest_jobs_without_sorting(
    database: AnyDatabase, store: Store, job_filter: JobFilter, index: str
) -> None:
    for _ in range(5):
        add(store)
    fields: dict[str, Any] = {"source_type": "git", "queue_name": "rare", "name": "rare"}
    for user_id in ("bob", "ann"):
        job = add(store, user_id=user_id, **fields)
        move(store, job, JobStatus.CANCELLED)
        store.jobs.pin(job.job_id, True)
    statements: list[tuple[str, Any]] = []
    run = database._peewee.execute_sql

    def recorded(sql: str, values: Any = ()) -> Any:
        statements.append((sql, values))
        return run(sql, values)

    database._peewee.execute_sql = recorded
    page, total = store.lists.page(job_filter, limit=2)
    database._peewee.execute_sql = run
    assert len(page) == min(2, total)
    (read,) = [item for item in statements if "LIMIT ? OFFSET ?" in item[0]]
    steps = [row[3] for row in run(f"EXPLAIN QUERY PLAN {read[0]}", read[1])]
    assert any(f"INDEX {index}" in step for step in steps), steps
    # What the index leads to is in order already.
    assert not [step for step in steps if "RIGHT PART OF ORDER BY" in step]
    assert sum("TEMP B-TREE FOR ORDER BY" in step for step in steps) <= 1


def test_a_purged_job_leaves_no_count_of_zero(database: AnyDatabase, store: Store) -> None:
    other = add(store, queue_name="kept", name="kept")
    for number in range(3):
        job = move(store, add(store, queue_name=f"q{number}", name=f"n{number}"), JobStatus.CANCELLED)
        store.jobs.delete(job.job_id, now_ms=next(clock))
        store.retention.purge(job.job_id)
        store.retention.purge(job.job_id)
    with database.read() as db:
        counted = db.execute_sql("SELECT queue_name, status, jobs FROM job_count").fetchall()
        named = db.execute_sql("SELECT name, jobs FROM job_name_count").fetchall()
    assert counted == [("kept", "submitted", 1)]
    assert named == [("kept", 1)]
    assert store.jobs.get(other.job_id) == other


def test_job_deleted_twice_is_counted_once(store: Store) -> None:
    job = add(store)
    for _ in range(2):
        store.jobs.delete(job.job_id, now_ms=next(clock))
    assert store.lists.page(JobFilter(), limit=1) == ([], 0)
    assert store.queues.counts() == []
    assert replace(store.jobs.get(job.job_id), deleted=False, updated_at_ms=job.updated_at_ms) == job


@sqlite_only
def test_sweeps_read_from_an_index(database: AnyDatabase, store: Store) -> None:
    """With a million jobs that are over, what has to be done about a few must not read the others."""
    statements: list[tuple[str, Any]] = []
    run = database._peewee.execute_sql

    def recorded(sql: str, values: Any = ()) -> Any:
        statements.append((sql, values))
        return run(sql, values)

    database._peewee.execute_sql = recorded
    store.tasks.to_submit(now_ms=1)
    store.tasks.queued_long(before_ms=1, now_ms=1, after="", limit=1)
    store.tasks.to_close()
    store.retention.to_purge()
    store.attempts.unfinished()
    for ask in (store.queues.to_poll, store.queues.active):
        ask()
    store.queues.figures(None)
    store.queues.ahead_of(
        Job(
            job_id="j",
            user_id="u",
            definition=JobDefinition(name="n", job_command="", source_type="copy", runner_image="i"),
            status=JobStatus.QUEUED,
            created_at_ms=1,
            updated_at_ms=1,
        )
    )
    database._peewee.execute_sql = run
    assert len(statements) == 10
    for sql, values in statements:
        for step in (row[3] for row in run(f"EXPLAIN QUERY PLAN {sql}", values)):
            # The counts are as few as there are users and queues.
            assert (
                "job_count" in step
                or not step.startswith("SCAN")
                or "job_deleted" in step
                or ("attempt_open" in step)
            ), (sql, step)
