"""Guarded status changes, and the questions that the worker and the API ask."""

import threading
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from reactorcide.domain.errors import IllegalTransition, KeyTaken, NotFound
from reactorcide.domain.ids import new_id
from reactorcide.domain.jobs import (
    ACTIVE,
    FINAL,
    WAITING,
    Job,
    JobDefinition,
    JobFilter,
    JobStatus,
    RequestKey,
    sources_of,
)
from reactorcide.store import jobs as jobs_module
from reactorcide.store.database import Database
from reactorcide.store.jobs import JobStore
from reactorcide.store.models import JobEventRow

clock = count(1_700_000_000_000)


def add(store: JobStore, *, user_id: str = "ann", next_submit_at_ms: int = 0, **fields: Any) -> Job:
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
    store.add(job, next_submit_at_ms=next_submit_at_ms)
    return job


def move(store: JobStore, job: Job, *path: JobStatus) -> Job:
    for status in path:
        job = store.transition(
            job.job_id, status, now_ms=next(clock), only_from=sources_of(status), corndogs_task_id="t"
        )
    return job


def claim(store: JobStore, job: Job, worker: str = "w") -> Job:
    return store.claim(job.job_id, "t", worker, now_ms=next(clock), log_key="k")


def end(store: JobStore, job: Job, status: JobStatus = JobStatus.COMPLETED) -> Job | None:
    return store.end_attempt(
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


def test_a_job_comes_back_as_it_was_put_in(store: JobStore) -> None:
    job = add(store, job_env_vars={"A": "ü", "B": ""}, cpu_limit=0.5, memory_limit_bytes=1 << 30, priority=-3)
    assert store.get(job.job_id) == job
    assert store.get(job.job_id).definition.git_submodules is False
    job = add(store, source_type="git", git_url="x", git_submodules=True, git_depth=0, git_tags=True)
    found = store.get(job.job_id).definition
    assert (found.git_submodules, found.git_depth, found.git_tags) == (True, 0, True)


def test_what_is_not_there_is_said(store: JobStore) -> None:
    with pytest.raises(NotFound):
        store.get(new_id())


@pytest.mark.parametrize("target", JobStatus)
@pytest.mark.parametrize("current", JobStatus)
def test_a_change_happens_only_where_the_rules_allow_it(
    store: JobStore, current: JobStatus, target: JobStatus
) -> None:
    job = move(store, add(store), *PATHS[current])
    if current in sources_of(target):
        assert move(store, job, target).status is target
    else:
        with pytest.raises(IllegalTransition):
            move(store, job, target)
        assert store.get(job.job_id) == job


def test_every_change_leaves_an_event_and_a_refused_one_does_not(database: Database, store: JobStore) -> None:
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


def test_of_many_claimants_one_gets_the_job(store: JobStore) -> None:
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
    assert store.get(job.job_id).worker_id == f"w{winners[0]}"


def test_the_end_of_a_cancelled_job_s_attempt_leaves_it_cancelled(store: JobStore) -> None:
    job = claim(store, add(store))
    assert not store.log_is_closed(job.job_id, 1)
    move(store, job, JobStatus.CANCELLED)
    assert not store.log_is_closed(job.job_id, 1)
    assert end(store, job) is None
    assert store.get(job.job_id).status is JobStatus.CANCELLED
    assert store.log_is_closed(job.job_id, 1)


def test_a_stale_attempt_cannot_end_the_job(store: JobStore) -> None:
    first = claim(store, add(store))
    store.end_attempt(
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
    assert store.get(first.job_id).status is JobStatus.RUNNING


def test_the_log_of_a_job_that_never_ran_is_closed_when_it_is_over(store: JobStore) -> None:
    job = add(store)
    assert not store.log_is_closed(job.job_id, 1)
    move(store, job, JobStatus.CANCELLED)
    assert store.log_is_closed(job.job_id, 1)
    assert store.log_is_closed(new_id(), 1)


def test_pages_are_newest_first_without_gaps_or_doubles(store: JobStore) -> None:
    jobs = [add(store) for _ in range(7)]
    newest_first = [job.job_id for job in reversed(jobs)]
    seen: list[str] = []
    after = None
    while True:
        page, total = store.page(JobFilter(), limit=3, after=after)
        assert total == 7
        seen += [job.job_id for job in page]
        if len(page) < 3:
            break
        after = (page[-1].created_at_ms, page[-1].job_id)
        # Whoever comes meanwhile does not shift the pages.
        store.mark_deleted(add(store).job_id, now_ms=next(clock))
    assert seen == newest_first
    assert [job.job_id for job in store.page(JobFilter(), limit=2, offset=3)[0]] == newest_first[3:5]


def test_filters(store: JobStore) -> None:
    one = add(store, name="build 100%", queue_name="q1")
    two = move(store, add(store, name="build_x", user_id="bob"), JobStatus.CANCELLED)
    three = add(store, name="deploy", source_type="git", git_url="https://h/r")

    def found(**wanted: Any) -> set[str]:
        page, total = store.page(JobFilter(**wanted), limit=100)
        assert total == len(page)
        return {job.job_id for job in page}

    assert found(name_prefix="build") == {one.job_id, two.job_id}
    assert found(name_prefix="build_") == {two.job_id}
    assert found(queue_name="q1") == {one.job_id}
    assert found(user_id="bob") == {two.job_id}
    assert found(source_type="git") == {three.job_id}
    assert found(statuses=[JobStatus.CANCELLED, JobStatus.FAILED]) == {two.job_id}
    store.mark_deleted(one.job_id, now_ms=next(clock))
    assert found() == {two.job_id, three.job_id}


def test_queues_come_by_priority_and_then_by_the_longest_wait(store: JobStore) -> None:
    add(store, queue_name="old")
    add(store, queue_name="new")
    add(store, queue_name="urgent", priority=5)
    move(store, add(store, queue_name="over", priority=9), JobStatus.CANCELLED)
    claim(store, add(store, queue_name="runs", priority=9))
    assert list(store.queues_to_poll()) == ["urgent", "old", "new"]
    # Of jobs of the same priority the oldest counts, and not what waits for longer below it.
    add(store, queue_name="late")
    add(store, queue_name="late", priority=5)
    add(store, queue_name="old", priority=5)
    assert list(store.queues_to_poll()) == ["urgent", "late", "old", "new"]
    assert set(store.active_queues()) == {"urgent", "old", "new", "runs", "late"}


def test_only_what_is_due_is_submitted(store: JobStore) -> None:
    due = add(store, next_submit_at_ms=5)
    add(store, next_submit_at_ms=50)
    move(store, add(store, next_submit_at_ms=5), JobStatus.QUEUED)
    assert [job.job_id for job, _ in store.to_submit(now_ms=10)] == [due.job_id]


def test_a_clock_that_was_put_back_holds_up_no_submission(store: JobStore) -> None:
    soon, before_the_jump = add(store, next_submit_at_ms=60_000), add(store, next_submit_at_ms=3_600_000)
    assert [job.job_id for job, _ in store.to_submit(now_ms=10)] == [before_the_jump.job_id]
    assert {job.job_id for job, _ in store.to_submit(now_ms=60_000)} == {
        soon.job_id,
        before_the_jump.job_id,
    }


def test_a_start_makes_interrupted_submissions_due_at_once(store: JobStore) -> None:
    interrupted = add(store, next_submit_at_ms=50)
    move(store, add(store, next_submit_at_ms=50), JobStatus.QUEUED)
    assert store.to_submit(now_ms=10) == []
    store.submit_interrupted()
    assert [job.job_id for job, _ in store.to_submit(now_ms=10)] == [interrupted.job_id]


def test_a_job_is_purged_only_when_nothing_of_it_is_open(store: JobStore) -> None:
    job = claim(store, add(store))
    store.mark_deleted(job.job_id, now_ms=next(clock))
    move(store, job, JobStatus.CANCELLED)
    assert store.to_purge() == []
    end(store, job)
    assert store.to_purge() == []
    assert [item.job_id for item in store.to_close()] == [job.job_id]
    store.task_closed(job.job_id, "t")
    assert [item.job_id for item in store.to_purge()] == [job.job_id]
    store.purge(job.job_id)
    with pytest.raises(NotFound):
        store.get(job.job_id)


def test_the_same_over_and_over_again_leaves_one_event(database: Database, store: JobStore) -> None:
    job = add(store)
    for reason in ("away", "away", "away", "full", "full"):
        store.transition(
            job.job_id,
            JobStatus.SUBMIT_FAILED,
            now_ms=next(clock),
            only_from={JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED},
            error=reason,
        )
    with database.read() as db:
        events = list(JobEventRow.select(JobEventRow.status_to, JobEventRow.reason).tuples().execute(db))
    assert events == [("submitted", None), ("submit_failed", "away"), ("submit_failed", "full")]


def test_only_what_is_over_and_closed_and_unpinned_may_be_removed(store: JobStore) -> None:
    job = claim(store, add(store))
    store.end_attempt(
        job.job_id,
        job.attempt,
        JobStatus.COMPLETED,
        now_ms=5,
        exit_code=0,
        error=None,
        job_changes={"completed_at_ms": 5},
    )
    assert store.removable() == []
    store.task_closed(job.job_id, "t")
    assert [(item.completed_at_ms, item.stored_bytes) for item in store.removable()] == [(5, None)]
    assert store.unmeasured(limit=9) == [job.job_id]
    store.save_stored_bytes({job.job_id: 7})
    assert [item.stored_bytes for item in store.removable()] == [7]
    assert store.unmeasured(limit=9) == []
    assert store.pin(job.job_id, True).pinned
    assert store.removable() == []
    assert not store.retire(job.job_id, now_ms=9)
    assert [item.job_id for item in store.page(JobFilter(pinned=True), limit=9)[0]] == [job.job_id]
    assert store.page(JobFilter(pinned=False), limit=9) == ([], 0)
    assert not store.pin(job.job_id, False).pinned
    assert store.retire(job.job_id, now_ms=9)
    assert not store.retire(job.job_id, now_ms=9)
    assert store.removable() == []
    with pytest.raises(NotFound):
        store.pin(job.job_id, True)


def test_what_may_be_removed_is_read_from_an_index_alone(database: Database) -> None:
    with database.read() as db:
        steps = [row[3] for row in db.execute_sql(f"EXPLAIN QUERY PLAN {jobs_module._REMOVABLE_JOBS}")]
    assert steps[0].startswith("SEARCH job USING COVERING INDEX job_removable")
    assert not [step for step in steps if "TEMP B-TREE" in step]


@pytest.mark.parametrize(
    ("image", "is_used"), [("tiny", True), ("tiny:latest", True), ("tiny:1", False), ("other", False)]
)
def test_the_start_of_a_job_is_a_use_of_its_image(store: JobStore, image: str, is_used: bool) -> None:
    store.image_pulled("tiny:latest", "sha256:1", now_ms=1)
    [found] = store.unused_images(since_ms=2)
    job = claim(store, add(store, runner_image=image))
    assert store.unused_images(since_ms=2) == [found]
    store.start_attempt(job.job_id, job.attempt, now_ms=5)
    assert (store.unused_images(since_ms=5) == []) is is_used
    store.forget_image(found)
    assert (store.unused_images(since_ms=9) == []) is not is_used


def test_what_is_swept_by_the_hundred_is_cut(store: JobStore) -> None:
    fields: dict[str, Any] = {
        "job_command": "x" * 100_000,
        "job_env_vars": {"A_TOKEN": "secret" * 1000, "B": "y" * 30_000},
        "secret_env_vars": ("A_TOKEN",),
        "git_url": "https://me:password@example.test/",
        "priority": 7,
        "queue_name": "q",
    }
    waiting = add(store, **fields)
    ((found, failures),) = store.to_submit(now_ms=10)
    assert (found.job_id, failures, found.is_cut) == (waiting.job_id, 0, True)
    assert (found.definition.queue_name, found.definition.priority) == ("q", 7)
    assert len(repr((found, found.definition.job_env_vars))) < 5_000
    assert "password" not in str(found.definition.git_url)
    store.mark_deleted(move(store, waiting, JobStatus.CANCELLED).job_id, now_ms=1)
    (found,) = store.to_purge()
    assert (found.job_id, found.is_cut) == (waiting.job_id, True)
    # The job itself is whole.
    assert store.get(waiting.job_id).definition == waiting.definition


def test_figures_are_of_so_many_queues(store: JobStore) -> None:
    for name in "cab":
        add(store, queue_name=name)
    assert [figures.name for figures in store.queue_figures(None, limit=2)] == ["a", "b"]


def test_figures_count_what_a_user_may_see(store: JobStore) -> None:
    first = add(store, queue_name="q")
    add(store, queue_name="q", user_id="bob")
    claim(store, add(store, queue_name="q"))
    everything = store.queue_figures(None)[0]
    assert (everything.name, everything.waiting, everything.running) == ("q", 2, 1)
    assert everything.oldest_waiting_ms == first.created_at_ms
    mine = store.queue_figures("bob")[0]
    assert (mine.waiting, mine.running) == (1, 0)
    assert ("q", JobStatus.RUNNING, 1) in store.counts()


def test_the_statuses_that_wait_are_the_ones_that_can_be_claimed(store: JobStore) -> None:
    for status in JobStatus:
        job = move(store, add(store), *PATHS[status])
        if status in WAITING:
            claim(store, job)
        else:
            assert status in FINAL | (ACTIVE - WAITING)
            with pytest.raises(IllegalTransition):
                claim(store, job)


def test_an_idempotency_key_is_kept_for_a_day(store: JobStore) -> None:
    first, second, third = (replace(add(store), job_id=new_id()) for _ in range(3))
    key = RequestKey("key", b"body")
    store.add(first, next_submit_at_ms=0, key=key)
    with pytest.raises(KeyTaken):
        store.add(second, next_submit_at_ms=0, key=key)
    with pytest.raises(NotFound):
        store.get(second.job_id)
    other = RequestKey("key", b"another body")
    last_ms = first.created_at_ms + 86_400_000
    assert store.of_key(first.user_id, key, now_ms=last_ms) == (first.job_id, True)
    assert store.of_key(first.user_id, other, now_ms=last_ms) == (first.job_id, False)
    assert store.of_key(first.user_id, key, now_ms=last_ms + 1) is None
    assert store.of_key("somebody else", key, now_ms=first.created_at_ms) is None
    later = replace(third, created_at_ms=last_ms + 1)
    store.add(later, next_submit_at_ms=0, key=key)
    assert store.of_key(first.user_id, key, now_ms=later.created_at_ms) == (third.job_id, True)


def test_the_command_of_an_attempt_that_has_ended_is_not_handed_over(store: JobStore) -> None:
    job = claim(store, add(store))
    store.end_attempt(
        job.job_id,
        1,
        JobStatus.SUBMITTED,
        now_ms=5,
        exit_code=None,
        error="lost",
        job_changes={"attempt": 2},
    )
    with pytest.raises(IllegalTransition, match="is not run"):
        store.begin_hand_over(job.job_id, 1, "c", container_started_at="t", now_ms=6, log_offset=0)
    [attempt] = store.attempts(job.job_id)
    assert attempt.container_id is None
