"""Guarded status changes, and the questions that the worker and the API ask."""

import threading
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import IllegalTransition, KeyTaken, NotFound
from reactorcide.domain.jobs import (
    ACTIVE,
    FINAL,
    WAITING,
    Job,
    JobFilter,
    JobStatus,
    RequestKey,
    allowed_from,
)
from reactorcide.lib.ids import new_id
from reactorcide.store import Store, retention
from reactorcide.store.models.jobs import JobEventRow
from tests.support.store import AnyDatabase, sqlite_only

clock = count(1_700_000_000_000)


def add(store: Store, *, user_id: str = "ann", next_submit_at_ms: int = 0, **fields: Any) -> Job:
    definition = {"name": "n", "job_command": "true", "source_type": "copy", "runner_image": "i"} | fields
    created_at_ms = next(clock)
    job = Job(
        job_id=new_id(),
        user_id=user_id,
        definition=JobDefinition(**definition),
        status=JobStatus.SUBMITTED,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )
    store.jobs.add(job, next_submit_at_ms=next_submit_at_ms)
    return job


def move(store: Store, job: Job, *path: JobStatus) -> Job:
    for status in path:
        job = store.jobs.transition(
            job.job_id, status, now_ms=next(clock), only_from=allowed_from(status), corndogs_task_id="t"
        )
    return job


def claim(store: Store, job: Job, worker: str = "w") -> Job:
    return store.attempts.create(job.job_id, "t", worker, now_ms=next(clock))


def end(store: Store, job: Job, status: JobStatus = JobStatus.COMPLETED) -> Job | None:
    return store.attempts.end(
        job.job_id, job.attempt, status, now_ms=next(clock), exit_code=0, error=None, job_changes={}
    )


PATHS = {
    JobStatus.SUBMITTED: (),
    JobStatus.QUEUED: (JobStatus.QUEUED,),
    JobStatus.SUBMIT_FAILED: (JobStatus.SUBMIT_FAILED,),
    JobStatus.RUNNING: (JobStatus.RUNNING,),
    JobStatus.COMPLETED: (JobStatus.RUNNING, JobStatus.COMPLETED),
    JobStatus.FAILED: (JobStatus.RUNNING, JobStatus.FAILED),
    JobStatus.CANCELLED: (JobStatus.CANCELLED,),
}


def test_stored_job_is_read_back(store: Store) -> None:
    job = add(store, job_env_vars={"A": "ü", "B": ""}, cpu_limit=0.5, memory_limit_bytes=1 << 30, priority=-3)
    assert store.jobs.get(job.job_id) == job
    assert store.jobs.get(job.job_id).definition.git_submodules is False
    job = add(store, source_type="git", git_url="x", git_submodules=True, git_depth=0, git_tags=True)
    definition = store.jobs.get(job.job_id).definition
    assert (definition.git_submodules, definition.git_depth, definition.git_tags) == (True, 0, True)


def test_a_missing_row_is_an_error(store: Store) -> None:
    with pytest.raises(NotFound):
        store.jobs.get(new_id())
    assert store.jobs.find(new_id()) is None


@sqlite_only
@pytest.mark.parametrize("target", JobStatus)
@pytest.mark.parametrize("current", JobStatus)
def test_only_allowed_transitions_happen(store: Store, current: JobStatus, target: JobStatus) -> None:
    job = move(store, add(store), *PATHS[current])
    if current in allowed_from(target):
        assert move(store, job, target).status is target
    else:
        with pytest.raises(IllegalTransition):
            move(store, job, target)
        assert store.jobs.get(job.job_id) == job


def test_each_transition_writes_an_event_and_a_refused_one_does_not(
    database: AnyDatabase, store: Store
) -> None:
    job = move(store, add(store), JobStatus.QUEUED)
    claim(store, job)
    end(store, job, JobStatus.FAILED)
    with pytest.raises(IllegalTransition):
        claim(store, job)
    with database.read() as db:
        events = list(JobEventRow.select(JobEventRow.status_from, JobEventRow.status_to).tuples().execute(db))
    assert events == [
        (None, "submitted"),
        ("submitted", "queued"),
        ("queued", "running"),
        ("running", "failed"),
    ]


def test_one_of_many_claimants_gets_the_job(store: Store) -> None:
    job = add(store)
    winners: list[int] = []
    start = threading.Barrier(8)

    def try_it(number: int) -> None:
        start.wait()
        try:
            claim(store, job, f"w{number}")
            winners.append(number)
        except IllegalTransition:
            return

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.jobs.get(job.job_id).worker_id == f"w{winners[0]}"


def test_the_end_of_a_cancelled_job_s_attempt_leaves_it_cancelled(store: Store) -> None:
    job = claim(store, add(store))
    assert not store.attempts.log_is_closed(job.job_id, 1)
    move(store, job, JobStatus.CANCELLED)
    assert not store.attempts.log_is_closed(job.job_id, 1)
    assert end(store, job) is None
    assert store.jobs.get(job.job_id).status is JobStatus.CANCELLED
    assert store.attempts.log_is_closed(job.job_id, 1)


def test_a_stale_attempt_cannot_end_the_job(store: Store) -> None:
    first = claim(store, add(store))
    store.attempts.end(
        first.job_id,
        1,
        JobStatus.SUBMITTED,
        now_ms=next(clock),
        exit_code=None,
        error="lost",
        job_changes={"attempt": 2},
    )
    second = claim(store, first)
    assert second.attempt == 2
    assert end(store, first, JobStatus.FAILED) is None
    assert store.jobs.get(first.job_id).status is JobStatus.RUNNING


def test_log_of_a_job_that_never_ran_is_closed(store: Store) -> None:
    job = add(store)
    assert not store.attempts.log_is_closed(job.job_id, 1)
    move(store, job, JobStatus.CANCELLED)
    assert store.attempts.log_is_closed(job.job_id, 1)
    assert store.attempts.log_is_closed(new_id(), 1)


def test_pages_are_newest_first_without_gaps_or_doubles(store: Store) -> None:
    jobs = [add(store) for _ in range(7)]
    newest_first = [job.job_id for job in reversed(jobs)]
    job_ids: list[str] = []
    after = None
    while True:
        page, total = store.lists.page(JobFilter(), limit=3, after=after)
        assert total == 7
        job_ids += [job.job_id for job in page]
        if len(page) < 3:
            break
        after = (page[-1].created_at_ms, page[-1].job_id)
        # Whoever comes meanwhile does not shift the pages.
        store.jobs.delete(add(store).job_id, now_ms=next(clock))
    assert job_ids == newest_first
    assert [job.job_id for job in store.lists.page(JobFilter(), limit=2, offset=3)[0]] == newest_first[3:5]


def test_filters_return_matching_jobs(store: Store) -> None:
    one = add(store, name="build 100%", queue_name="q1")
    two = move(store, add(store, name="build_x", user_id="bob"), JobStatus.CANCELLED)
    three = add(store, name="deploy", source_type="git", git_url="https://h/r")

    def matching(**conditions: Any) -> set[str]:
        page, total = store.lists.page(JobFilter(**conditions), limit=100)
        assert total == len(page)
        return {job.job_id for job in page}

    assert matching(name_prefix="build") == {one.job_id, two.job_id}
    assert matching(name_prefix="build_") == {two.job_id}
    assert matching(queue_name="q1") == {one.job_id}
    assert matching(user_id="bob") == {two.job_id}
    assert matching(source_type="git") == {three.job_id}
    assert matching(statuses=[JobStatus.CANCELLED, JobStatus.FAILED]) == {two.job_id}
    store.jobs.delete(one.job_id, now_ms=next(clock))
    assert matching() == {two.job_id, three.job_id}


def test_queues_are_ordered_by_priority_then_longest_wait(store: Store) -> None:
    add(store, queue_name="old")
    add(store, queue_name="new")
    add(store, queue_name="urgent", priority=5)
    move(store, add(store, queue_name="over", priority=9), JobStatus.CANCELLED)
    claim(store, add(store, queue_name="runs", priority=9))
    assert list(store.queues.to_poll()) == ["urgent", "old", "new"]
    # Of jobs of the same priority the oldest counts, and not what waits for longer below it.
    add(store, queue_name="late")
    add(store, queue_name="late", priority=5)
    add(store, queue_name="old", priority=5)
    assert list(store.queues.to_poll()) == ["urgent", "late", "old", "new"]
    assert set(store.queues.active()) == {"urgent", "old", "new", "runs", "late"}


def test_only_due_jobs_are_submitted(store: Store) -> None:
    due = add(store, next_submit_at_ms=5)
    add(store, next_submit_at_ms=50)
    move(store, add(store, next_submit_at_ms=5), JobStatus.QUEUED)
    assert [job.job_id for job, _ in store.tasks.to_submit(now_ms=10)] == [due.job_id]


def test_clock_set_back_does_not_delay_submissions(store: Store) -> None:
    soon, before_the_jump = add(store, next_submit_at_ms=60_000), add(store, next_submit_at_ms=3_600_000)
    assert [job.job_id for job, _ in store.tasks.to_submit(now_ms=10)] == [before_the_jump.job_id]
    assert {job.job_id for job, _ in store.tasks.to_submit(now_ms=60_000)} == {
        soon.job_id,
        before_the_jump.job_id,
    }


def test_a_start_makes_interrupted_submissions_due_at_once(store: Store) -> None:
    interrupted = add(store, next_submit_at_ms=50)
    move(store, add(store, next_submit_at_ms=50), JobStatus.QUEUED)
    assert store.tasks.to_submit(now_ms=10) == []
    store.tasks.submit_interrupted()
    assert [job.job_id for job, _ in store.tasks.to_submit(now_ms=10)] == [interrupted.job_id]


def test_job_is_purged_only_when_nothing_is_open(store: Store) -> None:
    job = claim(store, add(store))
    store.jobs.delete(job.job_id, now_ms=next(clock))
    move(store, job, JobStatus.CANCELLED)
    assert store.retention.to_purge() == []
    end(store, job)
    assert store.retention.to_purge() == []
    assert [item.job_id for item in store.tasks.to_close()] == [job.job_id]
    store.tasks.closed(job.job_id, "t")
    assert [item.job_id for item in store.retention.to_purge()] == [job.job_id]
    store.retention.purge(job.job_id)
    with pytest.raises(NotFound):
        store.jobs.get(job.job_id)


def test_repeated_event_is_stored_once(database: AnyDatabase, store: Store) -> None:
    job = add(store)
    for reason in ("away", "away", "away", "full", "full"):
        store.jobs.transition(
            job.job_id,
            JobStatus.SUBMIT_FAILED,
            now_ms=next(clock),
            only_from={JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED},
            error=reason,
        )
    with database.read() as db:
        events = list(JobEventRow.select(JobEventRow.status_to, JobEventRow.reason).tuples().execute(db))
    assert events == [("submitted", None), ("submit_failed", "away"), ("submit_failed", "full")]


def test_only_ended_closed_unpinned_jobs_are_removable(store: Store) -> None:
    job = claim(store, add(store))
    store.attempts.end(
        job.job_id,
        job.attempt,
        JobStatus.COMPLETED,
        now_ms=5,
        exit_code=0,
        error=None,
        job_changes={"completed_at_ms": 5},
    )
    assert store.retention.removable() == []
    store.tasks.closed(job.job_id, "t")
    assert [(item.completed_at_ms, item.stored_bytes) for item in store.retention.removable()] == [(5, None)]
    assert store.retention.unmeasured(limit=9) == [job.job_id]
    store.retention.save_sizes({job.job_id: 7})
    assert [item.stored_bytes for item in store.retention.removable()] == [7]
    assert store.retention.unmeasured(limit=9) == []
    assert store.jobs.pin(job.job_id, True).pinned
    assert store.retention.removable() == []
    assert not store.retention.delete(job.job_id, now_ms=9)
    assert [item.job_id for item in store.lists.page(JobFilter(pinned=True), limit=9)[0]] == [job.job_id]
    assert store.lists.page(JobFilter(pinned=False), limit=9) == ([], 0)
    assert not store.jobs.pin(job.job_id, False).pinned
    assert store.retention.delete(job.job_id, now_ms=9)
    assert not store.retention.delete(job.job_id, now_ms=9)
    assert store.retention.removable() == []
    with pytest.raises(NotFound):
        store.jobs.pin(job.job_id, True)


@sqlite_only
def test_removable_jobs_are_read_from_a_covering_index(database: AnyDatabase) -> None:
    with database.read() as db:
        steps = [row[3] for row in db.execute_sql(f"EXPLAIN QUERY PLAN {retention._REMOVABLE_JOBS}")]
    assert steps[0].startswith("SEARCH job USING COVERING INDEX job_removable")
    assert not [step for step in steps if "TEMP B-TREE" in step]


@pytest.mark.parametrize(
    ("image", "is_used"), [("tiny", True), ("tiny:latest", True), ("tiny:1", False), ("other", False)]
)
def test_start_of_a_job_counts_as_use_of_its_image(store: Store, image: str, is_used: bool) -> None:
    store.images.add("tiny:latest", "sha256:1", now_ms=1)
    [unused] = store.images.unused(since_ms=2)
    job = claim(store, add(store, runner_image=image))
    assert store.images.unused(since_ms=2) == [unused]
    with store.transaction() as tx:
        tx.attempts.start(job.job_id, job.attempt, now_ms=5)
        tx.images.used(image, now_ms=5)
    assert (store.images.unused(since_ms=5) == []) is is_used
    store.images.remove(unused)
    assert (store.images.unused(since_ms=9) == []) is not is_used


def test_sweeps_are_limited_to_a_hundred_rows(store: Store) -> None:
    fields: dict[str, Any] = {
        "job_command": "x" * 100_000,
        "job_env_vars": {"A_TOKEN": "secret" * 1000, "B": "y" * 30_000},
        "secret_env_vars": ("A_TOKEN",),
        "git_url": "https://me:password@example.test/",
        "priority": 7,
        "queue_name": "q",
    }
    waiting = add(store, **fields)
    ((swept, failures),) = store.tasks.to_submit(now_ms=10)
    assert (swept.job_id, failures, swept.is_cut) == (waiting.job_id, 0, True)
    assert (swept.definition.queue_name, swept.definition.priority) == ("q", 7)
    assert len(repr((swept, swept.definition.job_env_vars))) < 5_000
    assert "password" not in str(swept.definition.git_url)
    store.jobs.delete(move(store, waiting, JobStatus.CANCELLED).job_id, now_ms=1)
    (swept,) = store.retention.to_purge()
    assert (swept.job_id, swept.is_cut) == (waiting.job_id, True)
    # The job itself is whole.
    assert store.jobs.get(waiting.job_id).definition == waiting.definition


def test_queue_figures_are_limited_in_number(store: Store) -> None:
    for name in "cab":
        add(store, queue_name=name)
    assert [figures.name for figures in store.queues.figures(None, limit=2)] == ["a", "b"]


def test_queue_figures_count_only_visible_jobs(store: Store) -> None:
    first = add(store, queue_name="q")
    add(store, queue_name="q", user_id="bob")
    claim(store, add(store, queue_name="q"))
    everything = store.queues.figures(None)[0]
    assert (everything.name, everything.waiting, everything.running) == ("q", 2, 1)
    assert everything.oldest_waiting_ms == first.created_at_ms
    mine = store.queues.figures("bob")[0]
    assert (mine.waiting, mine.running) == (1, 0)
    assert ("q", JobStatus.RUNNING, 1) in store.queues.counts()


def test_waiting_statuses_are_the_claimable_ones(store: Store) -> None:
    for status in JobStatus:
        job = move(store, add(store), *PATHS[status])
        if status in WAITING:
            claim(store, job)
        else:
            assert status in FINAL | (ACTIVE - WAITING)
            with pytest.raises(IllegalTransition):
                claim(store, job)


def add_with_key(store: Store, job: Job, key: RequestKey) -> None:
    with store.transaction() as tx:
        tx.jobs.add(job, next_submit_at_ms=0)
        tx.request_keys.add(key, job.user_id, job.job_id, now_ms=job.created_at_ms)


def test_idempotency_key_expires_after_a_day(store: Store) -> None:
    first, second, third = (replace(add(store), job_id=new_id()) for _ in range(3))
    key = RequestKey("key", b"body")
    add_with_key(store, first, key)
    with pytest.raises(KeyTaken):
        add_with_key(store, second, key)
    with pytest.raises(NotFound):
        store.jobs.get(second.job_id)
    other = RequestKey("key", b"another body")
    last_ms = first.created_at_ms + 86_400_000
    assert store.request_keys.find(first.user_id, key, now_ms=last_ms) == (first.job_id, True)
    assert store.request_keys.find(first.user_id, other, now_ms=last_ms) == (first.job_id, False)
    assert store.request_keys.find(first.user_id, key, now_ms=last_ms + 1) is None
    assert store.request_keys.find("somebody else", key, now_ms=first.created_at_ms) is None
    later = replace(third, created_at_ms=last_ms + 1)
    add_with_key(store, later, key)
    assert store.request_keys.find(first.user_id, key, now_ms=later.created_at_ms) == (
        third.job_id,
        True,
    )


def test_the_command_of_an_attempt_that_has_ended_is_not_handed_over(store: Store) -> None:
    job = claim(store, add(store))
    store.attempts.end(
        job.job_id,
        1,
        JobStatus.SUBMITTED,
        now_ms=5,
        exit_code=None,
        error="lost",
        job_changes={"attempt": 2},
    )
    with pytest.raises(IllegalTransition, match="is not run"):
        store.attempts.begin_hand_over(job.job_id, 1, "c", container_started_at="t", now_ms=6, log_offset=0)
    [attempt] = store.attempts.of_job(job.job_id)
    assert attempt.container_id is None
