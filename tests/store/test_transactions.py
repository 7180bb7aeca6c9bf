"""Transactions over several kinds of records: all writes, or none."""

import threading
from collections.abc import Callable

import pytest

from reactorcide.domain.audit import Action, Actor, AuditEntry, AuditFilter
from reactorcide.domain.errors import IllegalTransition, NotFound
from reactorcide.domain.jobs import JobStatus
from reactorcide.store import Records, Store
from tests.store.test_jobs import add, claim, move
from tests.support.store import AnyDatabase, database_of, sqlite_only
from tests.support.waiting import wait_until

ENTRY = AuditEntry(at_ms=1, by=Actor(user_id="ann"), action=Action.JOB_CANCEL, subject="j")


def in_transaction(store: Store, work: Callable[[Records], None]) -> None:
    with store.transaction() as tx:
        work(tx)


def written_together(store: Store, work: Callable[[Records], None]) -> None:
    store.write(work)


EITHER = pytest.mark.parametrize("run", [in_transaction, written_together])


@EITHER
def test_several_writes_are_one_transaction(store: Store, run: Callable[..., None]) -> None:
    job = add(store)

    def work(tx: Records) -> None:
        tx.jobs.transition(job.job_id, JobStatus.CANCELLED, now_ms=5, only_from={JobStatus.SUBMITTED})
        tx.images.add("tiny:latest", "sha256:1", now_ms=5)
        tx.audit.add(ENTRY)
        # What is written can be read in the same transaction.
        assert tx.jobs.get(job.job_id).status is JobStatus.CANCELLED

    run(store, work)
    assert store.jobs.get(job.job_id).status is JobStatus.CANCELLED
    assert [event.status_to for event in store.events.after(0, None)] == ["submitted", "cancelled"]
    assert [entry for _, entry in store.audit.page(AuditFilter(), limit=9)[0]] == [ENTRY]
    assert len(store.images.unused(since_ms=9)) == 1


@EITHER
@pytest.mark.parametrize("error", [NotFound("x"), KeyError("x")])
def test_one_failed_write_rolls_back_all(store: Store, run: Callable[..., None], error: Exception) -> None:
    job = add(store)
    events = store.events.last_id()

    def work(tx: Records) -> None:
        tx.jobs.transition(job.job_id, JobStatus.CANCELLED, now_ms=5, only_from={JobStatus.SUBMITTED})
        tx.audit.add(ENTRY)
        tx.images.add("tiny:latest", "sha256:1", now_ms=5)
        raise error

    with pytest.raises(type(error)):
        run(store, work)
    assert store.jobs.get(job.job_id) == job
    assert store.events.last_id() == events
    assert store.audit.page(AuditFilter(), limit=9) == ([], 0)
    assert store.images.unused(since_ms=9) == []


@EITHER
def test_a_refused_change_leaves_no_audit_entry(store: Store, run: Callable[..., None]) -> None:
    job = move(store, add(store), JobStatus.CANCELLED)

    def work(tx: Records) -> None:
        tx.audit.add(ENTRY)
        tx.jobs.transition(job.job_id, JobStatus.CANCELLED, now_ms=5, only_from={JobStatus.SUBMITTED})

    with pytest.raises(IllegalTransition, match="is cancelled and cannot become cancelled"):
        run(store, work)
    assert store.audit.page(AuditFilter(), limit=9) == ([], 0)


def test_a_write_on_the_store_within_a_transaction_is_refused(store: Store) -> None:
    job = add(store)
    with store.transaction() as tx:
        with pytest.raises(RuntimeError, match="write on its tx"):
            store.jobs.delete(job.job_id, now_ms=5)
        with pytest.raises(RuntimeError, match="write on its tx"), store.transaction():
            pass
        tx.jobs.delete(job.job_id, now_ms=5)
    assert store.jobs.get(job.job_id).deleted


def test_write_on_an_ended_transaction_is_refused(store: Store) -> None:
    job = add(store)
    with store.transaction() as tx:
        pass
    with pytest.raises(RuntimeError, match="is over"):
        tx.jobs.delete(job.job_id, now_ms=5)
    assert store.jobs.get(job.job_id) == job


def test_other_threads_write_after_a_transaction(store: Store) -> None:
    job = add(store)
    with store.transaction() as tx:
        other = threading.Thread(target=lambda: claim(store, job))
        other.start()
        wait_until(lambda: bool(database_of(store)._group._has_leader), 20, "the other one waits")
        tx.jobs.delete(job.job_id, now_ms=5)
        assert store.jobs.get(job.job_id).status is JobStatus.SUBMITTED
    other.join()
    assert store.jobs.get(job.job_id).status is JobStatus.RUNNING


@sqlite_only
def test_triggers_write_nothing(database: AnyDatabase) -> None:
    with database.read() as db:
        triggers = db.execute_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    assert {name for name, _ in triggers} == {"audit_is_not_changed", "audit_is_not_removed"}
    assert not [sql for _, sql in triggers if "INSERT" in sql]
