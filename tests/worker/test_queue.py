"""A queue that is shared, loses tasks, refuses or is away: what the worker makes of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.task import Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.jobs import cancel, explain, requeue, tasks
from reactorcide.jobs.claims import MAX_TASKS_A_ROUND, Claims, take
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.clock import now_ms
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, open_house

DEEP = b"[" * 900
HUGE = b"[" * 3_000_000


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tasks looked for often, and of jobs that were just queued."""
    monkeypatch.setattr("reactorcide.worker.local._CHECK_TASKS_EVERY_S", 0.1)
    monkeypatch.setattr("reactorcide.jobs.upkeep._QUEUED_LONG_MS", 0)


def sql(house: House, statement: str) -> None:
    """Do something to the queue's database behind its back."""
    execute: Callable[..., Any] = house.corndogs._storage._writer.execute_sql
    execute(statement)


def stored(house: House, task: Task | str) -> Task:
    """Return the task as the queue has it now."""
    record = house.context.corndogs.get_task(task if isinstance(task, str) else task.uuid, "default")
    assert record is not None
    return record


def task_id(house: House, job: Job) -> str:
    uuid = house.job(job).corndogs_task_id
    assert uuid is not None
    return uuid


def as_it_was(task: Task) -> tuple[object, ...]:
    return (task.current_state, task.auto_target_state, task.timeout_s, task.priority, task.payload)


# --- tasks that are lost -------------------------------------------------------------------------


def complete(house: House, job: Job) -> None:
    house.context.corndogs.complete_task(task_id(house, job), "default", tasks.TASK_WAITING)


def cancel_task(house: House, job: Job) -> None:
    house.context.corndogs.cancel_task(task_id(house, job), "default", tasks.TASK_WAITING)


def remove(house: House, job: Job) -> None:
    sql(house, f"DELETE FROM task WHERE uuid = '{task_id(house, job)}'")  # noqa: S608  # an id


def move(house: House, job: Job) -> None:
    sql(house, f"UPDATE task SET queue = 'other' WHERE uuid = '{task_id(house, job)}'")  # noqa: S608  # an id


def overwrite(house: House, job: Job) -> None:
    sql(house, f"UPDATE task SET payload = x'00' WHERE uuid = '{task_id(house, job)}'")  # noqa: S608  # an id


def claim_and_die(house: House, job: Job) -> None:
    claimed = house.context.corndogs.get_next_task("default")
    assert claimed is not None
    assert claimed.uuid == task_id(house, job)


def park(house: House, job: Job) -> None:
    house.context.corndogs.update_task(
        task_id(house, job),
        "default",
        tasks.TASK_WAITING,
        new_state="x",
        auto_target_state="y",
        timeout_s=0,
        priority=0,
    )


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("lose", [complete, cancel_task, remove, move, overwrite, claim_and_die, park])
def test_a_queued_job_whose_task_is_lost_is_run_once(
    house: House, lose: Callable[[House, Job], None]
) -> None:
    house.worker(concurrency=1)
    blocking = house.submit("hang")
    house.until(blocking, lambda job: job.started_at_ms is not None, "the job to start")
    job = house.submit()
    lose(house, job)
    cancel.cancel(house.context, USER, blocking.job_id)
    ended = house.ended(job)
    assert (ended.status, ended.attempt, ended.error) == (JobStatus.COMPLETED, 1, None)
    assert [spec.job_id for spec in house.runner.created].count(job.job_id) == 1


def test_tasks_claimed_by_a_killed_service_run_at_the_next_start(
    house: House,
) -> None:
    job = house.submit()
    claim_and_die(house, job)
    wait_until(lambda: now_ms() > (job.queued_at_ms or 0), 5, "the clock to go on")
    start_s = time.monotonic()
    house.worker(concurrency=1)
    assert house.ended(job).status is JobStatus.COMPLETED
    assert time.monotonic() - start_s < 4


def test_the_trail_of_a_job_says_that_its_task_was_lost(house: House) -> None:
    job = house.submit()
    lost_id = task_id(house, job)
    remove(house, job)
    requeue.check(house.context, house.job(job), lease_s=60)
    after = house.job(job)
    assert (after.status, after.corndogs_task_id) == (JobStatus.SUBMITTED, None)
    assert after.error == "the queue has lost its task, so it is queued again"
    [event] = [item for item in house.context.store.events.after(0, None) if item.reason]
    assert (event.status_from, event.status_to, event.reason) == (
        JobStatus.QUEUED,
        JobStatus.SUBMITTED,
        after.error,
    )
    # A worker has begun it meanwhile, or it was queued again: then nothing is done.
    house.context.store.jobs.transition(
        job.job_id,
        JobStatus.QUEUED,
        now_ms=now_ms(),
        only_from={JobStatus.SUBMITTED},
        corndogs_task_id="another",
    )
    assert house.context.store.tasks.forget(job.job_id, lost_id, "no", now_ms=now_ms()) is None
    assert house.job(job).status is JobStatus.QUEUED


def test_failed_query_of_the_queue_is_not_a_lost_task(house: House) -> None:
    job = house.submit()
    remove(house, job)
    sql(house, "ALTER TABLE archived_task RENAME TO away")
    with pytest.raises(CorndogsError) as refused:
        requeue.check(house.context, house.job(job), lease_s=60)
    assert not isinstance(refused.value, CorndogsUnavailable)
    house.corndogs.stop()
    with pytest.raises(CorndogsUnavailable):
        requeue.check(house.context, house.job(job), lease_s=60)
    assert house.job(job).status is JobStatus.QUEUED
    assert house.job(job).corndogs_task_id == job.corndogs_task_id


@pytest.mark.usefixtures("soon")
def test_failed_lookup_of_a_task_does_not_delay_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = house.submit(), house.submit()
    for job in (first, second):
        remove(house, job)
    get_task = house.context.corndogs.get_task

    def refuse_first(uuid: str, queue: str) -> Task | None:
        if uuid == first.corndogs_task_id:
            raise CorndogsError("no")
        return get_task(uuid, queue)

    monkeypatch.setattr(house.context.corndogs, "get_task", refuse_first)
    worker = house.worker(concurrency=0)
    house.until(second, lambda job: job.corndogs_task_id not in (None, second.corndogs_task_id), "a new task")
    assert house.job(first).corndogs_task_id == first.corndogs_task_id
    wait_until(lambda: worker._duties.trouble(["check tasks"]) == "no", 20, "the trouble to be told")


def test_leased_task_is_untouched_until_long_after_its_lease(house: House) -> None:
    job = house.submit()
    claimed = house.context.corndogs.get_next_task("default")
    assert claimed is not None
    tasks.lease(house.context.corndogs, claimed, 60)
    requeue.check(house.context, house.job(job), lease_s=60)
    assert stored(house, claimed).current_state == tasks.TASK_CLAIMED
    sql(house, "UPDATE task SET update_time = update_time - 179000000000")
    requeue.check(house.context, house.job(job), lease_s=60)
    assert stored(house, claimed).current_state == tasks.TASK_CLAIMED
    sql(house, "UPDATE task SET update_time = update_time - 2000000000")
    requeue.check(house.context, house.job(job), lease_s=60)
    assert stored(house, claimed).current_state == tasks.TASK_WAITING


def test_queued_jobs_are_checked_a_few_at_a_time_in_turn(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [house.submit() for _ in range(120)]
    wait_until(lambda: now_ms() > (jobs[-1].queued_at_ms or 0), 5, "the clock to go on")
    upkeep = QueueUpkeep(house.context, lease_s=60)
    uuids: list[str] = []
    get_task = house.context.corndogs.get_task

    def ask(uuid: str, queue: str) -> Task | None:
        uuids.append(uuid)
        return get_task(uuid, queue)

    monkeypatch.setattr(house.context.corndogs, "get_task", ask)
    counts = []
    for _ in range(3):
        upkeep.check_tasks()
        counts.append(len(uuids))
    assert counts == [50, 100, 120]
    assert sorted(uuids) == sorted(task_id(house, job) for job in jobs)
    upkeep.check_tasks()
    assert uuids[120:] == uuids[:50]


def test_explanation_does_not_promise_an_absent_worker(house: House) -> None:
    house.worker()
    for worker in house.workers:
        worker.stop(10)
    job = house.submit()
    views = [worker.view() for worker in house.workers]
    assert explain.explain(house.context, house.job(job), views).reason == "a worker is about to take it"
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET queued_at_ms = queued_at_ms - 60000")
    reason = explain.explain(house.context, house.job(job), views).reason
    assert "has not handed the job out for 60 s" in reason


# --- tasks of others -----------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [0, 77])
@pytest.mark.parametrize("payload", [b"theirs", b"", DEEP, HUGE, b'{"instance": 1}', b"[1]"])
def test_foreign_tasks_of_higher_priority_do_not_block_and_are_put_back_unchanged(
    house: House, timeout_s: int, payload: bytes
) -> None:
    corndogs = house.context.corndogs
    count = 3 if payload is HUGE else 40
    foreign = [
        corndogs.submit_task(
            "default", payload=payload, priority=9, timeout_s=timeout_s or -1, auto_target_state="theirs"
        )
        for _ in range(count)
    ]
    jobs = [house.submit() for _ in range(3)]
    start_s = time.monotonic()
    house.worker(concurrency=1)
    for job in jobs:
        assert house.ended(job).status is JobStatus.COMPLETED
    # Not a rest of seconds for each job.
    assert time.monotonic() - start_s < 25
    for worker in house.workers:
        worker.stop(10)
    for before in foreign:
        after = stored(house, before)
        assert as_it_was(after) == as_it_was(before)
        assert after.submit_time_ns == before.submit_time_ns


@pytest.mark.parametrize("timeout_s", [0, 30])
def test_foreign_task_left_waiting_by_its_claim_starves_nobody(house: House, timeout_s: int) -> None:
    corndogs = house.context.corndogs
    foreign = corndogs.submit_task(
        "default",
        current_state="submitted",
        auto_target_state="submitted",
        timeout_s=timeout_s,
        priority=9,
        payload=b"x",
    )
    house.worker()
    assert house.ended(house.submit()).status is JobStatus.COMPLETED

    def is_as_it_was() -> bool:
        task = stored(house, foreign)
        return (task.current_state, task.auto_target_state, task.timeout_s, task.priority, task.payload) == (
            *("submitted", "submitted", timeout_s, 9),
            b"x",
        )

    wait_until(is_as_it_was, 20, "the task is put back")


def test_task_with_a_lone_surrogate_as_job_id_is_foreign(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for job_id in ("\\ud800", "x" * 40, ""):
        house.context.corndogs.submit_task(
            "default",
            payload=f'{{"instance": "instance", "job_type": "run", "job_id": "{job_id}"}}'.encode(),
            priority=9,
        )
    worker = house.worker()
    assert house.ended(house.submit()).status is JobStatus.COMPLETED
    assert worker.view().trouble is None
    # Nor does it end the round in which it is met.
    assert "unexpectedly" not in caplog.text


def test_a_forged_task_of_another_queue_does_not_run_a_job(house: House) -> None:
    job = house.submit(queue_name="slow")
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET status = 'submitted', corndogs_task_id = NULL, next_submit_at_ms = 0")
    forged = house.context.corndogs.submit_task("default", payload=tasks.payload("instance", job.job_id))
    assert take(house.context, forged, job.job_id, "w") is None
    assert house.context.store.attempts.of_job(job.job_id) == []
    assert stored(house, forged).current_state == "completed"


@pytest.fixture
def claims(house: House) -> Claims:
    return Claims(house.context, lease_s=60, is_stopping=lambda: False)


def test_a_round_claims_a_few_hundred_tasks_at_most(house: House, claims: Claims) -> None:
    foreign = [
        house.context.corndogs.submit_task("default", priority=9) for _ in range(MAX_TASKS_A_ROUND + 9)
    ]
    job = house.submit(priority=9)
    claims.begin()
    claims._ends_at += 60
    assert claims.next(["default"]) is None
    states = house.context.corndogs.task_state_counts("default")
    assert states == {tasks.TASK_WAITING: 10, tasks.TASK_CLAIMED: MAX_TASKS_A_ROUND}
    claims.end()
    assert house.context.corndogs.task_state_counts("default") == {tasks.TASK_WAITING: len(foreign) + 1}
    # Those were put back behind the others, so that the next round comes to what is ours.
    claims._rests.clear()
    claims.begin()
    claim = claims.next(["default"])
    claims.end()
    assert claim is not None
    assert claim[1] == job.job_id


def test_a_round_takes_a_few_seconds_at_most(house: House, claims: Claims) -> None:
    for _ in range(3):
        house.context.corndogs.submit_task("default", priority=9)
    house.submit()
    claims.begin()
    claims._ends_at = time.monotonic()
    assert claims.next(["default"]) is None
    claims.end()
    assert house.context.corndogs.task_state_counts("default") == {tasks.TASK_WAITING: 4}


def test_killed_worker_loses_no_foreign_task(house: House, claims: Claims) -> None:
    corndogs = house.context.corndogs
    endless = corndogs.submit_task("default", priority=9, payload=b"theirs", auto_target_state="theirs")
    timed = corndogs.submit_task("default", priority=9, timeout_s=30, auto_target_state="theirs")
    claims.begin()
    claims.next(["default"])
    # Here it dies.
    assert [stored(house, task).current_state for task in (endless, timed)] == ["theirs", "theirs"]
    corndogs.clean_up_timed_out(time.time_ns() + 61 * 10**9, "default")
    assert as_it_was(stored(house, endless)) == as_it_was(endless)
    # As after any claim of its own that timed out.
    assert stored(house, timed).current_state == "submitted"


def test_returned_task_is_not_taken_from_its_owner(house: House) -> None:
    corndogs = house.context.corndogs
    foreign = corndogs.submit_task("default", timeout_s=1)
    claims = Claims(house.context, lease_s=60, is_stopping=lambda: False)
    claims.begin()
    claims.next(["default"])
    ends_at = time.monotonic() + 1.01
    wait_until(lambda: time.monotonic() > ends_at, 5, "its timeout to be over")
    corndogs.clean_up_timed_out(time.time_ns(), "default")
    owners = corndogs.get_next_task("default")
    assert owners is not None
    claims.end()
    assert stored(house, foreign).current_state == owners.current_state


def test_failing_queue_does_not_block_others(house: House) -> None:
    worker = house.worker(concurrency=1)
    blocking = house.submit("hang")
    house.until(blocking, lambda job: job.started_at_ms is not None, "the job to start")
    sql(
        house,
        "CREATE TRIGGER refuse BEFORE UPDATE ON task WHEN OLD.queue = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'secret'); END",
    )
    bad, good = house.submit(queue_name="bad", priority=9), house.submit(queue_name="good")
    cancel.cancel(house.context, USER, blocking.job_id)
    assert house.ended(good).status is JobStatus.COMPLETED
    assert house.job(bad).status is JobStatus.QUEUED
    wait_until(lambda: worker.view().trouble is not None, 20, "the trouble to be told")
    assert "secret" not in (worker.view().trouble or "")
    sql(house, "DROP TRIGGER refuse")
    assert house.ended(bad).status is JobStatus.COMPLETED


@pytest.fixture
def two_houses(tmp_path: Path) -> Iterator[list[House]]:
    """Two installations on one queue."""
    with open_house(tmp_path / "one", "one") as first, open_house(tmp_path / "two", "two") as second:
        second.context.corndogs.close()
        second.context = replace(second.context, corndogs=GrpcCorndogs(first.corndogs.address))
        yield [first, second]


def test_two_installations_share_a_queue_without_waiting_for_each_other(two_houses: list[House]) -> None:
    jobs = [(house, house.submit()) for house in two_houses for _ in range(40)]
    start_s = time.monotonic()
    for house in two_houses:
        house.worker(concurrency=2)
    for house, job in jobs:
        assert house.ended(job).status is JobStatus.COMPLETED
    # In queues of their own it takes about two.
    assert time.monotonic() - start_s < 10
    for house in two_houses:
        created = Counter(spec.job_id for spec in house.runner.created)
        assert created == Counter(job.job_id for own, job in jobs if own is house)


# --- a queue that refuses, or is away ------------------------------------------------------------


def test_running_job_continues_during_a_long_queue_outage(house: House) -> None:
    house.worker(lease_s=0.6)
    job = house.submit("print begun; hang")
    started = house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    house.corndogs.stop()
    ends_at_ms = (started.started_at_ms or 0) + 2500
    wait_until(lambda: now_ms() > ends_at_ms, 20, "four leases to pass")
    assert house.job(job).status is JobStatus.RUNNING
    [container] = house.runner.containers.values()
    container.receive("TERM")
    ended = house.ended(job)
    assert (ended.exit_code, ended.attempt) == (143, 1)
    assert house.log(job) == "begun\n[reactorcide] exit code 143\n"


def test_restart_adopts_running_jobs_during_a_queue_outage(house: House) -> None:
    first = house.worker(lease_s=0.6)
    job = house.submit("print begun; hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    house.corndogs.stop()
    house.worker(lease_s=0.6)
    [container] = house.runner.containers.values()
    container.receive("TERM")
    ended = house.ended(job)
    assert (ended.exit_code, ended.attempt) == (143, 1)
    # Its task is closed when the queue is back.
    assert [task.job_id for task in house.context.store.tasks.to_close()] == [job.job_id]


def test_job_continues_if_others_take_its_task(house: House) -> None:
    house.worker(lease_s=1)
    job = house.submit("hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    house.context.corndogs.complete_task(task_id(house, job), "default", tasks.TASK_CLAIMED)
    ends_at_ms = now_ms() + 2500
    wait_until(lambda: now_ms() > ends_at_ms, 20, "two leases to pass")
    assert (house.job(job).status, len(house.runner.created)) == (JobStatus.RUNNING, 1)
    cancel.cancel(house.context, USER, job.job_id)
    house.ended(job)
    wait_until(lambda: house.context.store.tasks.to_close() == [], 20, "its task to be closed")


def test_failed_clean_up_of_a_queue_does_not_block_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.local._CLOSE_EVERY_S", 0.2)
    corndogs = house.context.corndogs
    for queue in ("a", "b", "c"):
        house.submit(queue_name=queue)
        claimed = corndogs.get_next_task(queue)
        assert claimed is not None
        tasks.lease(corndogs, claimed, 1)
    sql(
        house,
        "CREATE TRIGGER refuse BEFORE UPDATE ON task WHEN OLD.queue IN ('a', 'b') "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    house.worker(concurrency=0)
    wait_until(lambda: corndogs.task_state_counts("c") == {tasks.TASK_WAITING: 1}, 20, "the lease to end")
    assert corndogs.task_state_counts("a") == {tasks.TASK_CLAIMED: 1}


def test_unarchived_task_is_marked_and_closed_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(
        house,
        "CREATE TRIGGER refuse BEFORE INSERT ON archived_task WHEN NEW.queue = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    house.worker()
    jobs = [house.submit(queue_name="bad"), house.submit()]
    for job in jobs:
        house.ended(job)
    wait_until(lambda: house.context.store.tasks.to_close() == [], 20, "the tasks to be closed")
    task = house.context.corndogs.get_task(task_id(house, jobs[0]), "bad")
    assert task is not None
    assert (task.current_state, task.auto_target_state, task.timeout_s) == ("completed", "completed", 0)
    assert house.context.corndogs.get_next_task("bad") is None


def test_failed_close_of_a_task_does_not_block_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.worker.local._CLOSE_EVERY_S", 0.2)
    monkeypatch.setattr("reactorcide.jobs.upkeep._MAX_CLOSED", 2)
    bad, good = [house.submit(queue_name="bad") for _ in range(3)], house.submit()
    for event in ("DELETE", "UPDATE"):
        sql(
            house,
            f"CREATE TRIGGER refuse_{event} BEFORE {event} ON task WHEN OLD.queue = 'bad' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET status = 'completed'")
    house.worker(concurrency=0)
    wait_until(
        lambda: stored(house, task_id(house, good)).current_state == "completed", 20, "it to be closed"
    )
    # Corndogs has it a moment before the job's row.
    bad_ids = {job.job_id for job in bad}
    to_close = house.context.store.tasks.to_close
    wait_until(lambda: {job.job_id for job in to_close()} == bad_ids, 20, "it to be recorded")


def test_refused_job_does_not_block_those_behind_it(house: House) -> None:
    house.corndogs.stop()
    jobs = [house.submit(queue_name=queue) for queue in ("bad", "bad", "good")]
    house.corndogs.start()
    house.context.corndogs.close()
    house.context = replace(house.context, corndogs=GrpcCorndogs(house.corndogs.address))
    sql(
        house,
        "CREATE TRIGGER refuse BEFORE INSERT ON task WHEN NEW.queue = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET next_submit_at_ms = 0")
    QueueUpkeep(house.context, lease_s=60).submit_due()
    assert [house.job(job).status for job in jobs] == [
        JobStatus.SUBMIT_FAILED,
        JobStatus.SUBMIT_FAILED,
        JobStatus.QUEUED,
    ]
