"""The worker above a fake engine: which jobs it claims, how attempts end, what it cleans up."""

import errno
import json
import os
import sqlite3
import tarfile
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from reactorcide.corndogs.task import Task
from reactorcide.domain.errors import (
    Conflict,
    CorndogsUnavailable,
    EngineUnavailable,
    NotFound,
    ObjectStoreError,
)
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.jobs import cancel, delete, explain, lifecycle, logs, read, reports, tasks
from reactorcide.jobs.logs import LogPart, LogPosition
from reactorcide.jobs.rerun import rerun
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.clock import now_ms
from reactorcide.logs.local import LocalLogFile
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.runner import ContainerSpec, Exit, Output, OutputChunk, Started
from reactorcide.runner.fake import FakeContainer, FakeRunner
from reactorcide.worker.attempt.output import Recorder
from reactorcide.worker.local import LocalPort
from tests.support.tars import member, tar
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, open_house

NOBODY = "018f0000-0000-7000-8000-000000000000"


def test_job_runs_to_completion(house: House) -> None:
    house.worker()
    job = house.ended(house.submit("print hello; exit 0"))
    assert (job.status, job.exit_code, job.error, job.attempt) == (JobStatus.COMPLETED, 0, None, 1)
    assert house.log(job) == "hello\n"
    assert job.started_at_ms is not None
    assert job.logs_object_key == f"jobs/{job.job_id}/1/log"


def test_task_is_completed_with_its_job(house: House) -> None:
    house.worker()
    job = house.ended(house.submit())
    wait_until(lambda: house.context.store.tasks.to_close() == [], 20, "the task to be closed")
    assert job.corndogs_task_id is not None
    task = house.context.corndogs.get_task(job.corndogs_task_id, "default")
    assert task is not None
    assert task.current_state == "completed"


def test_committed_job_is_accepted_although_the_database_is_then_locked(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_task = house.context.corndogs.submit_task
    with house.database.read() as db:
        db.execute_sql("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:

        def submit_and_hold(*arguments: Any, **options: Any) -> Task:
            task = submit_task(*arguments, **options)
            other.execute("BEGIN IMMEDIATE")
            return task

        monkeypatch.setattr(house.context.corndogs, "submit_task", submit_and_hold)
        job = house.submit()
        assert job.status is JobStatus.SUBMITTED
        monkeypatch.undo()
    house.worker()
    assert house.ended(job).status is JobStatus.COMPLETED
    assert len(house.runner.created) == 1


def test_a_command_that_fails_fails_the_job_once(house: House) -> None:
    house.worker()
    job = house.ended(house.submit("print no; exit 3"))
    assert (job.status, job.exit_code, job.error, job.attempt) == (JobStatus.FAILED, 3, "exit code 3", 1)
    assert house.log(job) == "no\n[reactorcide] exit code 3\n"


def test_cancelled_waiting_job_never_starts(house: House) -> None:
    job = house.submit()
    assert cancel.cancel(house.context, USER, job.job_id).status is JobStatus.CANCELLED
    assert cancel.cancel(house.context, USER, job.job_id).status is JobStatus.CANCELLED
    house.worker()
    other = house.ended(house.submit())
    assert [spec.job_id for spec in house.runner.created] == [other.job_id]
    assert house.context.corndogs.task_state_counts("default") == {}


def test_a_running_job_is_cancelled_by_stopping_its_container(house: House) -> None:
    house.worker()
    job = house.submit("print begun; hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    cancel.cancel(house.context, USER, job.job_id)
    ended = house.ended(job)
    assert ended.status is JobStatus.CANCELLED
    wait_until(lambda: house.context.store.attempts.log_is_closed(job.job_id, 1), 20, "its log to close")
    assert house.log(job) == "begun\n[reactorcide] cancelled\n"


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(house: House) -> None:
    house.worker(cancel_grace_s=0.1)
    job = house.submit("deaf; hang", timeout_seconds=1)
    ended = house.ended(job)
    assert (ended.status, ended.exit_code, ended.error) == (JobStatus.FAILED, 137, "timed out after 1 s")


def test_ended_job_cannot_be_cancelled(house: House) -> None:
    house.worker()
    job = house.ended(house.submit())
    with pytest.raises(Conflict, match="already completed"):
        cancel.cancel(house.context, USER, job.job_id)


def test_missing_image_is_pulled_and_logged(house: House) -> None:
    house.runner.pullable.add("other:1")
    house.worker()
    job = house.ended(house.submit("print hi; exit 0", runner_image="other:1"))
    assert job.status is JobStatus.COMPLETED
    assert house.log(job) == "[reactorcide] pulling image other:1\nhi\n"


def test_unavailable_image_fails_the_job_and_the_next_runs(house: House) -> None:
    house.worker(concurrency=1)
    bad = house.submit(runner_image="nope:1")
    good = house.submit()
    assert house.ended(bad).error == "image not found: nope:1"
    assert "image not found: nope:1" in house.log(bad)
    assert house.ended(good).status is JobStatus.COMPLETED


def test_jobs_stay_queued_during_an_engine_outage_then_run(house: House) -> None:
    house.runner.available = False
    worker = house.worker()
    job = house.submit()
    wait_until(lambda: worker._duties.trouble(["adopt"]) is not None, 20, "the worker to notice")
    assert house.job(job).status is JobStatus.QUEUED
    house.runner.available = True
    worker.wake()
    assert house.ended(job).status is JobStatus.COMPLETED


def test_highest_priority_runs_first_across_queues(house: House) -> None:
    first = house.submit(priority=0)
    second = house.submit(priority=5, queue_name="other")
    third = house.submit(priority=9)
    house.worker(concurrency=1)
    for job in (first, second, third):
        house.ended(job)
    assert [spec.job_id for spec in house.runner.created] == [third.job_id, second.job_id, first.job_id]


def test_number_of_concurrent_jobs_is_limited(house: House) -> None:
    worker = house.worker(concurrency=2)
    jobs = [house.submit("hang") for _ in range(3)]
    wait_until(lambda: len(house.runner.containers) == 2, 20, "two containers")
    assert [house.job(job).status for job in jobs].count(JobStatus.RUNNING) == 2
    assert len(worker.view().running_job_ids) == 2
    for job in jobs:
        cancel.cancel(house.context, USER, job.job_id)
    for job in jobs:
        house.ended(job)
    assert len(house.runner.created) == 2


def test_only_configured_queues_are_polled(house: House) -> None:
    house.worker(queues=("mine",))
    theirs = house.submit(queue_name="theirs")
    mine = house.submit(queue_name="mine")
    house.ended(mine)
    assert house.job(theirs).status is JobStatus.QUEUED


def test_foreign_task_is_put_back_and_does_not_block(house: House) -> None:
    foreign = house.context.corndogs.submit_task(
        "default", payload=json.dumps({"instance": "another"}).encode(), priority=100
    )
    strange = house.context.corndogs.submit_task("default", payload=b"\xff not ours", priority=100)
    house.worker()
    assert house.ended(house.submit()).status is JobStatus.COMPLETED
    for task in (foreign, strange):
        returned = house.context.corndogs.get_task(task.uuid, "default")
        assert returned is not None
        assert (returned.current_state, returned.auto_target_state) == ("submitted", "submitted-working")
        assert (returned.priority, returned.payload) == (100, task.payload)


def test_task_of_a_deleted_job_is_completed(house: House) -> None:
    task = house.context.corndogs.submit_task(
        "default",
        payload=json.dumps({"instance": "instance", "job_type": "run", "job_id": NOBODY}).encode(),
        priority=9,
    )
    house.worker()
    house.ended(house.submit())
    stored = house.context.corndogs.get_task(task.uuid, "default")
    assert stored is not None
    assert stored.current_state == "completed"


def test_second_task_of_a_cancelled_job_is_completed(house: House) -> None:
    job = house.submit()
    twin = house.context.corndogs.submit_task(
        "default",
        payload=json.dumps({"instance": "instance", "job_type": "run", "job_id": job.job_id}).encode(),
        priority=9,
    )
    cancel.cancel(house.context, USER, job.job_id)
    house.worker()
    house.ended(house.submit())
    stored = house.context.corndogs.get_task(twin.uuid, "default")
    assert stored is not None
    assert stored.current_state == "completed"


def test_a_second_task_of_a_job_does_not_run_it_twice(house: House) -> None:
    job = house.submit()
    twin = house.context.corndogs.submit_task(
        "default",
        payload=json.dumps({"instance": "instance", "job_type": "run", "job_id": job.job_id}).encode(),
        priority=9,
    )
    house.worker()
    house.ended(job)
    assert len(house.runner.created) == 1
    stored = house.context.corndogs.get_task(twin.uuid, "default")
    assert stored is not None
    assert stored.current_state == "completed"


def test_job_is_accepted_during_a_queue_outage_and_submitted_later(house: House) -> None:
    port = house.corndogs.port
    house.corndogs.stop()
    job = house.submit()
    assert job.status is JobStatus.SUBMIT_FAILED
    assert "not queued yet" in (job.error or "")
    with pytest.raises(CorndogsUnavailable):
        house.context.corndogs.check_health()
    house.worker()
    again = type(house.corndogs)(house.context.objects._base.parent / "corndogs.db", port=port)  # type: ignore[attr-defined]
    again.start()
    try:
        ended = house.ended(job)
        assert (ended.status, ended.error) == (JobStatus.COMPLETED, None)
        for worker in house.workers:
            worker.stop(10)
    finally:
        again.stop()


def test_without_disk_space_no_job_is_claimed(house: House) -> None:
    room = [False]

    def check_disk() -> None:
        if not room[0]:
            raise ObjectStoreError("the disk is low")

    worker = house.worker(check_disk=check_disk)
    job = house.submit()
    wait_until(lambda: worker.view().trouble is not None, 20, "the worker to notice")
    assert explain.explain(house.context, house.job(job), [worker.view()]).reason == "the disk is low"
    assert house.job(job).status is JobStatus.QUEUED
    room[0] = True
    assert house.ended(job).status is JobStatus.COMPLETED


@pytest.mark.parametrize("adopted", [False, True])
def test_log_waits_for_disk_space(house: House, monkeypatch: pytest.MonkeyPatch, adopted: bool) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.output._STORE_RETRY_S", 0.05)
    write = LocalLogFile.write
    tried, full = threading.Event(), threading.Event()
    full.set()

    def write_unless_full(appender: LocalLogFile, data: bytes) -> None:
        if full.is_set() and b"said" in data:
            write(appender, data[:2])
            tried.set()
            raise ObjectStoreError("the disk is full")
        write(appender, data)

    monkeypatch.setattr(LocalLogFile, "write", write_unless_full)
    first = house.worker()
    job = house.submit("print said; exit 3")
    assert tried.wait(20)
    assert house.job(job).status is JobStatus.RUNNING
    if adopted:
        first.stop(10)
        house.worker()
    full.clear()
    ended = house.ended(job)
    assert (ended.exit_code, ended.attempt) == (3, 1)
    assert house.log(ended) == "said\n[reactorcide] exit code 3\n"


class FullStore:
    """An object store without room for one key, and a command that leaves files."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.is_full = True
        self.tried = threading.Semaphore(0)
        self.tries = 0
        put = FilesystemObjectStore.put

        def put_unless_full(store: FilesystemObjectStore, key: str, chunks: Iterable[bytes]) -> int:
            if not self.is_full or not key.endswith(name):
                return put(store, key, chunks)
            self.tries += 1
            self.tried.release()
            raise ObjectStoreError(f"no room for {name}")

        def artifacts(container_id: str) -> Generator[bytes, None, None]:
            house.runner.check()
            yield tar(
                member("artifacts", kind=tarfile.DIRTYPE),
                member("artifacts/a", b"first"),
                member("artifacts/link", kind=tarfile.SYMTYPE, target="a"),
                member("artifacts/summary.md", b"All is well."),
                member("artifacts/z", b"last"),
            )

        monkeypatch.setattr(FilesystemObjectStore, "put", put_unless_full)
        monkeypatch.setattr(house.runner, "artifacts", artifacts)


def stored_artifacts(house: House, job: Job) -> list[str]:
    return [item.key for item in house.context.objects.list(f"jobs/{job.job_id}/1/artifacts/")]


@pytest.mark.parametrize("adopted", [False, True])
@pytest.mark.parametrize("name", ["/z", "/report.json", "/artifacts.json"])
def test_artifacts_wait_for_disk_space(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, adopted: bool
) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.artifacts._STORE_RETRY_S", 0.05)
    full = FullStore(house, monkeypatch, name)
    first = house.worker()
    job = house.submit("print said; exit 0")
    for _ in range(8):
        assert full.tried.acquire(timeout=20)
    assert house.job(job).status is JobStatus.RUNNING
    assert read.artifacts(house.context, house.job(job)).artifacts == []
    if adopted:
        first.stop(10)
        # The half that could be stored takes no room meanwhile.
        assert stored_artifacts(house, job) == []
        house.worker()
    full.is_full = False
    ended = house.ended(job)
    assert (ended.status, ended.exit_code, ended.error, ended.attempt) == (JobStatus.COMPLETED, 0, None, 1)
    listing = read.artifacts(house.context, ended)
    assert ([item.path for item in listing.artifacts], listing.truncated) == (["a", "summary.md", "z"], False)
    assert reports.load(house.context, ended).summary == "All is well."
    # Once, whatever the number of tries.
    assert house.log(ended) == "said\n[reactorcide] artifact 'link' is not stored: it is not a regular file\n"


def test_artifacts_without_disk_space_for_long_fail_the_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullStore(house, monkeypatch, "/z")
    house.worker(collect_timeout_s=0.5)
    ended = house.ended(house.submit())
    assert (ended.status, ended.exit_code, ended.error) == (
        JobStatus.FAILED,
        0,
        "its artifacts could not be stored: collecting them took longer than 0.5 s (--collect-timeout); "
        "no room for /z",
    )
    assert (read.artifacts(house.context, ended).artifacts, stored_artifacts(house, ended)) == ([], [])
    assert "took longer than 0.5 s (--collect-timeout); no room for /z\n" in house.log(ended)


def test_cancel_and_stop_end_the_wait_for_disk_space(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.artifacts._STORE_RETRY_S", 250)
    full = FullStore(house, monkeypatch, "/z")
    first = house.worker()
    job = house.submit()
    assert full.tried.acquire(timeout=20)
    wait_until(lambda: stored_artifacts(house, job) == [], 20, "the half to go")
    first.stop(10)
    assert (house.job(job).status, full.tries) == (JobStatus.RUNNING, 1)
    house.worker()
    assert full.tried.acquire(timeout=20)
    cancel.cancel(house.context, USER, job.job_id)
    ended = house.ended(job)
    assert (ended.status, full.tries) == (JobStatus.CANCELLED, 2)
    wait_until(lambda: house.context.store.attempts.log_is_closed(job.job_id, 1), 20, "the attempt to end")
    assert (read.artifacts(house.context, house.job(job)).artifacts, stored_artifacts(house, job)) == ([], [])


class Flood:
    """The engine's copy of an output: more of it comes at each call, for ever."""

    acknowledged = True
    launcher_output = b""
    unacknowledged_bytes = 0

    def read(self, timeout_s: float) -> list[OutputChunk]:
        return [(1, b"y\n")]

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_endless_engine_copy_does_not_delay_the_end_of_a_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.output._SILENCE_S", 0.1)
    monkeypatch.setattr(house.runner, "reread", lambda *_, **__: Flood())
    first = house.worker()
    ends, times_out = house.submit("hang"), house.submit("hang", timeout_seconds=2)
    for job in (ends, times_out):
        house.until(job, lambda job: job.started_at_ms is not None, "it to start")
    first.stop(10)
    house.runner.containers[f"{ends.job_id}-1"].receive("KILL")
    house.worker(collect_timeout_s=0.5)
    problem = (
        "its log may lack its end: the engine did not return the output within 0.5 s (--collect-timeout)"
    )
    assert house.ended(ends).error == f"exit code 137; {problem}"
    assert house.ended(times_out).error == f"timed out after 2 s; {problem}"
    assert house.log(times_out).startswith("y\ny\n")
    assert house.log(times_out).endswith(f"y\n[reactorcide] timed out after 2 s\n[reactorcide] {problem}\n")


def test_complete_output_is_not_read_again_for_a_late_reason(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, reread = house.runner.wait, house.runner.reread
    rereads: list[str] = []

    def late_wait(container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        answered_at = monotonic()
        ended = wait(container_id, timeout_s, started_at)
        threading.Event().wait(0.2)
        return ended and replace(
            ended, answered_at=answered_at if "early" in ended_of(container_id) else monotonic()
        )

    def ended_of(container_id: str) -> str:
        return house.runner.containers[container_id].spec.command

    def counted_reread(container_id: str, *, was_handed_over: bool = True) -> Output:
        rereads.append(ended_of(container_id))
        return reread(container_id, was_handed_over=was_handed_over)

    monkeypatch.setattr("reactorcide.worker.attempt.output._EXIT_WAIT_S", 0.1)
    monkeypatch.setattr(house.runner, "wait", late_wait)
    monkeypatch.setattr(house.runner, "reread", counted_reread)
    house.worker()
    for word in ("early", "late"):
        ended = house.ended(house.submit(f"print {word}; exit 137"))
        assert (ended.error, house.log(ended).splitlines()[0]) == ("exit code 137", word)
    # The engine may have been away for that long, and with it a part of the output.
    assert rereads == ["print late; exit 137"]


def test_job_above_its_disk_limit_is_killed_without_grace(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.disk._EVERY_S", 0.05)
    house.worker(cancel_grace_s=60, max_disk_bytes=2048)
    house.ended(house.submit("fill 2048; exit 0"))
    modest, greedy = house.submit("fill 2048; hang"), house.submit("deaf; fill 2049; hang")
    ended = house.ended(greedy)
    assert ended.error == "killed: used more than 2 KiB of disk (--max-disk)"
    assert house.job(modest).status is JobStatus.RUNNING
    # A line of the engine's copy is longer than the line itself.
    chatty = house.ended(house.submit(";".join(["print ."] * 30 + ["hang"])))
    assert chatty.error == ended.error
    cancel.cancel(house.context, USER, modest.job_id)


def test_failed_disk_measurement_does_not_affect_other_jobs(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reactorcide.worker.disk._EVERY_S", 0.05)
    house.worker(max_disk_bytes=1)
    unknown = house.submit("hang")
    house.until(unknown, lambda job: job.status is JobStatus.RUNNING, "it to run")
    measure = house.runner.disk_bytes

    def disk_bytes(container_id: str) -> int | None:
        if unknown.job_id in container_id:
            raise EngineUnavailable("the disk is too slow")
        return measure(container_id)

    monkeypatch.setattr(house.runner, "disk_bytes", disk_bytes)
    assert house.ended(house.submit("fill 2; hang")).error is not None
    assert house.job(unknown).status is JobStatus.RUNNING
    assert "the disk is too slow" in caplog.text
    cancel.cancel(house.context, USER, unknown.job_id)


def test_deleted_job_leaves_nothing_behind(house: House) -> None:
    house.worker()
    ended = house.ended(house.submit("print x; exit 0"))
    running = house.submit("hang")
    house.until(running, lambda job: job.started_at_ms is not None, "the job to start")
    for job in (ended, running):
        delete.delete(house.context, USER, job.job_id)
    wait_until(lambda: house.context.store.queues.counts() == [], 20, "the rows to go")
    wait_until(lambda: list(house.context.objects.list("jobs/")) == [], 20, "the objects to go")
    wait_until(lambda: house.runner.containers == {}, 20, "the container to go")


def test_failed_removal_of_objects_does_not_block_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.worker(concurrency=1)
    job = house.submit("hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    tried = threading.Event()

    def no_delete(store: FilesystemObjectStore, prefix: str) -> None:
        tried.set()
        raise ObjectStoreError("it is read-only")

    monkeypatch.setattr(FilesystemObjectStore, "delete", no_delete)
    delete.delete(house.context, USER, job.job_id)
    assert tried.wait(20)
    assert house.ended(house.submit()).status is JobStatus.COMPLETED
    monkeypatch.undo()
    delete.purge_ended(house.context)
    with pytest.raises(NotFound):
        house.job(job)


def test_a_rerun_has_the_same_definition(house: House) -> None:
    house.worker()
    original = house.ended(house.submit("exit 4", job_env_vars={"A": "b"}))
    again = house.ended(rerun(house.context, USER, original.job_id))
    assert again.job_id != original.job_id
    assert (again.rerun_of, again.definition) == (original.job_id, original.definition)
    assert again.exit_code == 4


def test_lease_renewal_sends_the_complete_task(house: House) -> None:
    worker = house.worker()
    job = house.submit("hang", priority=7)
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    before = house.context.corndogs.get_task(house.job(job).corndogs_task_id or "", "default")
    worker._renew()
    after = house.context.corndogs.get_task(house.job(job).corndogs_task_id or "", "default")
    assert before is not None
    assert after is not None
    assert after.update_time_ns > before.update_time_ns
    assert (after.current_state, after.auto_target_state) == ("submitted-working", "submitted")
    assert (after.priority, after.timeout_s, after.payload) == (7, 60, before.payload)


def test_lease_does_not_exceed_the_end_of_the_job(house: House) -> None:
    worker = house.worker(cancel_grace_s=2)
    job = house.submit("hang", timeout_seconds=10)
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    worker._renew()
    task = house.context.corndogs.get_task(house.job(job).corndogs_task_id or "", "default")
    assert task is not None
    assert 1 <= task.timeout_s <= 12


def test_restart_adopts_running_jobs(house: House) -> None:
    first = house.worker()
    job = house.submit("print begun; hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    assert house.job(job).status is JobStatus.RUNNING
    assert len(house.runner.containers) == 1
    house.worker()
    cancel.cancel(house.context, USER, job.job_id)
    assert house.ended(job).status is JobStatus.CANCELLED
    assert len(house.runner.created) == 1
    wait_until(lambda: house.context.store.attempts.log_is_closed(job.job_id, 1), 20, "its log to close")
    assert house.log(job) == "begun\n[reactorcide] cancelled\n"


def test_job_that_ended_while_the_service_was_down_is_completed(house: House) -> None:
    first = house.worker()
    job = house.submit("print begun; hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    next(iter(house.runner.containers.values())).receive("TERM")
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.exit_code, ended.attempt) == (JobStatus.FAILED, 143, 1)
    assert house.log(job) == "begun\n[reactorcide] exit code 143\n"


def test_ended_job_adopted_late_is_not_a_timeout(house: House) -> None:
    first = house.worker()
    job = house.submit("print begun; hang", timeout_seconds=1)
    started = house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    next(iter(house.runner.containers.values())).receive("TERM")
    deadline_ms = (started.started_at_ms or 0) + 1000
    wait_until(lambda: now_ms() > deadline_ms, 20, "its time to be up")
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.exit_code, ended.error) == (JobStatus.FAILED, 143, "exit code 143")


def test_overdue_running_job_is_stopped_at_the_next_start(house: House) -> None:
    first = house.worker()
    job = house.submit("print begun; hang", timeout_seconds=2)
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    assert house.job(job).status is JobStatus.RUNNING
    house.worker()
    assert house.ended(job).error == "timed out after 2 s"


def test_a_job_whose_container_is_gone_fails_with_that_reason(house: House) -> None:
    first = house.worker()
    job = house.submit("hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    first.stop(10)
    house.runner.containers.clear()
    house.worker()
    assert house.ended(job).error == "worker w was lost while it ran, and its container is gone"


def test_a_container_that_no_job_needs_is_removed(house: House) -> None:
    first = house.worker()
    house.ended(house.submit())
    first.stop(10)
    spec = house.runner.created[0]
    house.runner.create(spec)
    house.worker()
    wait_until(lambda: house.runner.containers == {}, 20, "the orphan to go")


def test_orphaned_containers_are_removed_while_the_worker_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.loop._RECOVER_EVERY_S", 0.2)
    house.worker()
    house.ended(house.submit())
    house.runner.create(house.runner.created[0])
    wait_until(lambda: house.runner.containers == {}, 20, "the orphan to go")


def test_payload_has_the_job_id_and_no_secret(house: House) -> None:
    job = house.submit(job_env_vars={"TOKEN": "hush"})
    task = house.context.corndogs.get_next_task("default", tasks.TASK_WAITING)
    assert task is not None
    assert json.loads(task.payload) == {"job_id": job.job_id, "job_type": "run", "instance": "instance"}


def crashed_attempt(
    house: House,
    command: str,
    *,
    has_row: bool = True,
    arrived: bool = True,
    worker_id: str = "w",
    **fields: Any,
) -> tuple[Job, FakeContainer]:
    """Leave an attempt whose worker died while the command was handed over.

    ``has_row`` says whether its row was written, ``arrived`` whether the command reached the container.
    """
    job = house.submit(command, **fields)
    task = house.context.corndogs.get_next_task("default", tasks.TASK_WAITING)
    assert task is not None
    job = lifecycle.claim(house.context, job.job_id, task.uuid, worker_id)
    spec = ContainerSpec(
        instance_id="instance",
        job_id=job.job_id,
        attempt=job.attempt,
        image="alpine:latest",
        command=command,
        env={},
        working_dir="/",
        cpu_limit=None,
        memory_limit_bytes=None,
        pids_limit=10,
    )
    container_id = house.runner.create(spec)
    started = house.runner.start(container_id)
    if has_row:
        house.context.store.attempts.begin_hand_over(
            job.job_id,
            job.attempt,
            container_id,
            container_started_at=started.at,
            now_ms=now_ms(),
            log_offset=0,
        )
    container = house.runner.containers[container_id]
    if arrived:
        house.runner.run(container)
    return job, container


def test_command_handed_over_before_the_crash_is_adopted(house: House) -> None:
    job, _ = crashed_attempt(house, "print hello; exit 5")
    house.worker()
    ended = house.ended(job)
    assert (ended.attempt, ended.exit_code, len(house.runner.created)) == (1, 5, 1)
    assert house.log(job) == "hello\n[reactorcide] exit code 5\n"
    assert len(house.runner.started) == 1


@pytest.mark.parametrize("has_row", [False, True])
def test_command_not_handed_over_runs_in_another_attempt(house: House, has_row: bool) -> None:
    job, container = crashed_attempt(house, "print hello; exit 5", has_row=has_row, arrived=False)
    if has_row:
        # As a container does whose input has ended.
        container.receive("TERM")
    house.worker()
    ended = house.ended(job)
    assert (ended.attempt, ended.exit_code, len(house.runner.created)) == (2, 5, 2)
    first, _ = house.context.store.attempts.of_job(job.job_id)
    assert first.error == "the service was killed before the command had started"
    assert len(house.runner.started) == 1


def test_waiting_container_is_killed_before_another_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.container._UNSEEN_HAND_OVER_S", 0.1)
    job, container = crashed_attempt(house, "print hello; exit 0", arrived=False)
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt) == (JobStatus.COMPLETED, 2)
    assert container.ended is not None


def test_late_command_is_not_run_twice(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine still has what was sent before the service died."""
    job, container = crashed_attempt(house, "print hello; exit 0", arrived=False)
    container_ids: list[str] = []

    def is_acknowledged(container_id: str) -> bool:
        container_ids.append(container_id)
        if len(container_ids) == 3:
            house.runner.run(container)
        return container.is_handed_over

    monkeypatch.setattr(house.runner, "is_acknowledged", is_acknowledged)
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt) == (JobStatus.COMPLETED, 1)
    assert house.log(job) == "hello\n"
    assert (len(house.runner.created), len(house.runner.started)) == (1, 1)


def test_unreadable_engine_copy_counts_as_command_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job, container = crashed_attempt(house, "print hello", arrived=False)
    container.receive("KILL")

    def is_acknowledged(_: str) -> bool:
        raise EngineUnavailable("no such file")

    monkeypatch.setattr(house.runner, "is_acknowledged", is_acknowledged)
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt, ended.exit_code) == (JobStatus.FAILED, 1, 137)


def test_container_lost_during_the_handover_counts_as_command_run(house: House) -> None:
    job, container = crashed_attempt(house, "print hello", arrived=False)
    house.runner.remove(container.container_id)
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt) == (JobStatus.FAILED, 1)
    assert ended.error == (
        "somebody removed its container while the command was handed over, so whether that has run "
        "is not known"
    )


class TestAnotherWorkersAttempt:
    """An attempt that another worker has claimed: no one else takes it as long as that worker lives."""

    @staticmethod
    def running(house: House) -> Job:
        job, _ = crashed_attempt(house, "print hello; hang", worker_id="other")
        lifecycle.started(house.context, job, at_ms=now_ms())
        return job

    @staticmethod
    def stamp(house: House, heartbeat_at_ms: int) -> None:
        with house.database.transaction() as tx:
            tx.execute("UPDATE attempt SET heartbeat_at_ms = ?", (heartbeat_at_ms,))

    def test_with_a_fresh_heartbeat_is_neither_adopted_nor_is_its_container_removed(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.worker.loop._RECOVER_EVERY_S", 0.1)
        job = self.running(house)
        # Twice the lease is what a worker is waited for.
        self.stamp(house, now_ms() - 100_000)
        worker = house.worker(lease_s=60)
        mine = house.ended(house.submit())
        house.runner.create(next(spec for spec in house.runner.created if spec.job_id == mine.job_id))
        wait_until(lambda: len(house.runner.containers) == 1, 20, "the orphan to go")
        assert [one.spec.job_id for one in house.runner.containers.values()] == [job.job_id]
        assert worker.view().running_job_ids == ()
        assert (house.job(job).status, house.job(job).worker_id) == (JobStatus.RUNNING, "other")

    @pytest.mark.parametrize("age_ms", [121_000, -121_000])
    def test_with_an_old_heartbeat_is_adopted(
        self, house: House, monkeypatch: pytest.MonkeyPatch, age_ms: int
    ) -> None:
        """A negative age: the clock was put back meanwhile."""
        monkeypatch.setattr("reactorcide.worker.loop._RECOVER_EVERY_S", 0.1)
        job = self.running(house)
        house.worker(lease_s=60)
        assert house.ended(house.submit()).status is JobStatus.COMPLETED
        assert house.job(job).worker_id == "other"
        self.stamp(house, now_ms() - age_ms)
        adopted = house.until(job, lambda job: job.worker_id == "w", "the job to be adopted")
        assert (adopted.status, adopted.attempt) == (JobStatus.RUNNING, 1)
        cancel.cancel(house.context, USER, job.job_id)
        assert house.ended(job).status is JobStatus.CANCELLED
        wait_until(lambda: house.context.store.attempts.log_is_closed(job.job_id, 1), 20, "its log to close")
        assert house.log(job) == "hello\n[reactorcide] cancelled\n"
        assert [record.worker_id for record in house.context.store.attempts.of_job(job.job_id)] == ["w"]

    def test_is_adopted_by_one_worker_only(self, house: House) -> None:
        self.running(house)
        self.stamp(house, 0)
        ports = [LocalPort(house.context, lease_s=60, worker_id=name) for name in ("a", "b")]
        [attempt_a], [attempt_b] = [port.unfinished().ours for port in ports]
        assert [ports[0].adopt(attempt_a), ports[1].adopt(attempt_b)] == [True, False]
        assert ports[1].unfinished().ours == []
        assert ports[1].unfinished().of_others == {(attempt_a.job.job_id, 1)}


def test_heartbeat_reports_a_missed_cancel(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = house.worker()
    job = house.submit("print begun; hang")
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    [claimed] = house.context.store.attempts.unfinished()
    wait_until(lambda: now_ms() > claimed.heartbeat_at_ms, 5, "the clock to go on")
    worker._renew()
    [renewed] = house.context.store.attempts.unfinished()
    assert renewed.heartbeat_at_ms > claimed.heartbeat_at_ms
    monkeypatch.setattr(house.context.hints, "job_cancelled", lambda job_id: None)
    cancel.cancel(house.context, USER, job.job_id)
    assert len(worker.view().running_job_ids) == 1
    worker._renew()
    assert house.ended(job).status is JobStatus.CANCELLED


def test_task_of_a_cancelled_job_is_closed_by_its_worker(house: House) -> None:
    job, _ = crashed_attempt(house, "print hello; hang")
    lifecycle.started(house.context, job, at_ms=now_ms())
    cancel.cancel(house.context, USER, job.job_id)
    QueueUpkeep(house.context, lease_s=60).close_tasks()

    def state() -> str | None:
        task = house.context.corndogs.get_task(house.job(job).corndogs_task_id or "", "default")
        return None if task is None else task.current_state

    assert state() == tasks.TASK_CLAIMED
    house.worker()
    house.ended(job)
    assert state() == "canceled"


def test_requeued_job_has_its_new_task(house: House) -> None:
    job, _ = crashed_attempt(house, "exit 0", has_row=False, arrived=False)
    lifecycle.try_again(house.context, job, "an outage", delay_s=0)
    QueueUpkeep(house.context, lease_s=60).submit_due()
    lifecycle.attempt_ended(house.context, job)
    states = []
    for task_id in (job.corndogs_task_id, house.job(job).corndogs_task_id):
        task = house.context.corndogs.get_task(task_id or "", "default")
        assert task is not None
        states.append(task.current_state)
    assert states == ["completed", tasks.TASK_WAITING]


def test_preparation_that_kills_the_service_is_retried_a_bounded_number_of_times(house: House) -> None:
    job, _ = crashed_attempt(house, "exit 0", has_row=False, arrived=False)
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET killed_preparations = 20")
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt) == (JobStatus.FAILED, 1)
    assert ended.error == "the service was killed before the command had started"
    assert house.runner.started == []


@pytest.mark.parametrize(("times_killed", "delay_s"), [(0, 0), (2, 3), (9, 10)])
def test_killed_preparation_is_repeated_at_once_then_with_delay(
    house: House, times_killed: int, delay_s: int
) -> None:
    job, _ = crashed_attempt(house, "exit 0", has_row=False, arrived=False)
    with house.database.transaction() as tx:
        tx.execute("UPDATE job SET killed_preparations = ?", [times_killed])
    start_ms = now_ms()
    house.worker()
    if not delay_s:
        assert (house.ended(job).attempt, now_ms() - start_ms < 3000) == (2, True)
        return
    waiting = house.until(job, lambda job: job.attempt == 2, "it to wait for the next try")
    due_ms = explain.explain(house.context, waiting, []).next_try_at_ms
    assert due_ms is not None
    assert delay_s * 1000 <= due_ms - start_ms < delay_s * 1000 + 3000
    assert house.runner.started == []


def test_container_that_does_not_accept_its_command_is_replaced(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("container._HAND_OVER_S", "container._UNSEEN_HAND_OVER_S", "report._FIRST_RETRY_DELAY_S"):
        monkeypatch.setattr(f"reactorcide.worker.attempt.{name}", 0.1)
    house.runner.deaf = True
    house.worker()
    job = house.ended(house.submit("exit 0"))
    assert (job.status, job.attempt) == (JobStatus.FAILED, 3)
    assert job.error == "its container did not acknowledge the command"
    assert house.runner.started == []


def test_container_restarted_by_others_counts_as_another_one(house: House) -> None:
    job, container = crashed_attempt(house, "print hello; hang")
    lifecycle.started(house.context, job, at_ms=now_ms())
    container.receive("TERM")
    container.start()
    house.worker()
    ended = house.ended(job)
    assert (ended.status, ended.attempt, ended.exit_code) == (JobStatus.FAILED, 1, None)
    assert ended.error == (
        "its container was started again (docker restart, or a restart policy that somebody gave it), so "
        "how the command ended is not known"
    )


def test_container_removed_before_its_start_is_not_a_job_error(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.worker.attempt.report._FIRST_RETRY_DELAY_S", 0.1)
    start = house.runner.start

    def removed(container_id: str) -> Started:
        monkeypatch.setattr(house.runner, "start", start)
        house.runner.remove(container_id)
        return start(container_id)

    monkeypatch.setattr(house.runner, "start", removed)
    house.worker()
    job = house.ended(house.submit("exit 0"))
    assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
    first, _ = house.context.store.attempts.of_job(job.job_id)
    assert first.error == "somebody removed its container before its command had started"


def test_retries_of_a_command_are_limited_by_the_job(house: House) -> None:
    house.worker()
    job = house.ended(house.submit("print no; exit 3", retries=1))
    assert (job.status, job.attempt, job.error) == (JobStatus.FAILED, 2, "exit code 3")
    records = house.context.store.attempts.of_job(job.job_id)
    assert [(item.attempt, item.exit_code, item.error) for item in records] == [
        (1, 3, "exit code 3"),
        (2, 3, "exit code 3"),
    ]
    parts = [LogPart(attempt=number) for number in (1, 2)]
    outputs = [b"".join(logs.read(house.context, job, part).chunks()) for part in parts]
    assert outputs == [b"no\n[reactorcide] exit code 3\n"] * 2
    assert b"".join(logs.follow(house.context, job, parts[0], LogPosition(1, 0))) == outputs[0]


def test_failed_preparation_does_not_use_a_retry(house: House) -> None:
    house.worker()
    job = house.ended(house.submit(runner_image="nope:1", retries=5))
    assert (job.attempt, job.error) == (1, "image not found: nope:1")


def test_a_cancelled_job_is_not_run_again(house: House) -> None:
    house.worker()
    job = house.submit("hang", retries=5)
    house.until(job, lambda job: job.started_at_ms is not None, "the job to start")
    cancel.cancel(house.context, USER, job.job_id)
    assert house.ended(job).status is JobStatus.CANCELLED
    assert len(house.runner.created) == 1


class TestWhy:
    """Why a job waits."""

    @staticmethod
    def reason(house: House, job: Job) -> tuple[str, int | None]:
        explanation = explain.explain(
            house.context, house.job(job), [worker.view() for worker in house.workers]
        )
        return explanation.reason, explanation.place

    def test_explanation_has_the_place_in_the_queue(self, house: House) -> None:
        house.worker(concurrency=1)
        blocking = house.submit("hang")
        house.until(blocking, lambda job: job.started_at_ms is not None, "the job to start")
        first, urgent = house.submit(), house.submit(priority=1)
        assert self.reason(house, blocking)[0].startswith("its command runs")
        assert self.reason(house, urgent) == ("all workers are busy", 1)
        assert self.reason(house, first) == ("all workers are busy", 2)
        cancel.cancel(house.context, USER, blocking.job_id)
        assert self.reason(house, blocking) == ("it has ended: cancelled", None)

    def test_explanation_says_no_worker_serves_the_queue(self, house: House) -> None:
        house.worker(queues=("other",))
        assert self.reason(house, house.submit()) == ("no worker takes jobs from the queue default", 1)

    def test_explanation_says_the_engine_is_unreachable(self, house: House) -> None:
        house.runner.available = False
        worker = house.worker()
        job = house.submit()
        wait_until(lambda: worker.view().trouble is not None, 20, "the worker to notice")
        assert "does not answer" in self.reason(house, job)[0]

    def test_explanation_says_the_queue_is_unreachable(self, house: House) -> None:
        house.corndogs.stop()
        job = house.submit()
        assert "not queued yet" in self.reason(house, job)[0]
        explanation = explain.explain(house.context, house.job(job), [])
        assert explanation.next_try_at_ms is not None

    def test_explanation_says_the_task_is_lost(self, house: House) -> None:
        job = house.submit()
        house.context.store.tasks.forget_all(now_ms=now_ms())
        explanation = explain.explain(house.context, house.job(job), [])
        assert (explanation.reason, explanation.next_try_at_ms) == (
            "it is about to be handed to the queue",
            None,
        )


def test_secret_in_an_error_is_not_stored(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """An error of a library may quote anything: here it is the image."""
    house.worker()
    with caplog.at_level("INFO"):
        job = house.ended(
            house.submit(runner_image="s3cret", job_env_vars={"TOKEN": "s3cret"}, secret_env_vars=("TOKEN",))
        )
    assert job.error == "image not found: [REDACTED]"
    assert [item.error for item in house.context.store.attempts.of_job(job.job_id)] == [job.error]
    assert (
        house.log(job)
        == "[reactorcide] pulling image [REDACTED]\n[reactorcide] image not found: [REDACTED]\n"
    )
    with house.database.read() as db:
        reasons = db.execute_sql("SELECT reason FROM job_event WHERE reason IS NOT NULL").fetchall()
    assert reasons == [(job.error,)]
    # Logged after the row is written.
    wait_until(
        lambda: any(vars(record).get("reason") == job.error for record in list(caplog.records)),
        20,
        "the end to be logged",
    )


def test_secret_is_masked_in_a_rewritten_log(house: House) -> None:
    secret = {"job_env_vars": {"TOKEN": "s3cret"}, "secret_env_vars": ("TOKEN",)}
    first = house.worker()
    job = house.submit("print s3cret; hang", **secret)
    wait_until(lambda: house.log(job) == "[REDACTED]\n", 20, "the first line to be there")
    first.stop(10)
    house.worker()
    cancel.cancel(house.context, USER, job.job_id)
    ended = house.ended(job)
    assert house.log(ended).splitlines()[0] == "[REDACTED]"
    assert "s3cret" not in house.log(ended)


def test_partial_secret_is_not_written_when_the_service_stops(house: House) -> None:
    first = house.worker()
    secret = {"job_env_vars": {"TOKEN": "s3cret\nwith more"}, "secret_env_vars": ("TOKEN",)}
    job = house.submit("print begun; print s3cret; hang", **secret)
    wait_until(lambda: house.log(job) != "", 20, "the first line to be there")
    first.stop(10)
    assert house.log(job) == "begun\n"
    house.worker()
    cancel.cancel(house.context, USER, job.job_id)
    assert house.log(house.ended(job)).startswith("begun\ns3cret\n")


def test_rerun_has_the_secrets(house: House) -> None:
    house.worker()
    first = house.ended(house.submit(job_env_vars={"TOKEN": "s3cret"}, secret_env_vars=("TOKEN",)))
    again = house.ended(rerun(house.context, USER, first.job_id))
    assert again.definition == first.definition
    assert [spec.env["TOKEN"] for spec in house.runner.created] == ["s3cret", "s3cret"]
    assert "s3cret" not in repr(house.runner.created)


def test_artifact_listing_of_development_versions_is_read(house: House) -> None:
    house.worker()
    job = house.ended(house.submit())
    key = f"jobs/{job.job_id}/1/artifacts.json"
    house.context.objects.put(key, [b'[{"path": "a/b", "size": 1, "sha256": "ab"}]'])
    job = replace(job, artifacts_object_key="x")
    listing = read.artifacts(house.context, job)
    assert (listing.artifacts, listing.truncated) == ([read.artifact(house.context, job, "a/b")], False)
    with pytest.raises(NotFound):
        read.artifact(house.context, job, "a")


class TestAnUnexpectedError:
    """Such as one of the system, for a moment."""

    @staticmethod
    def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        """Have the next call of a method fail."""
        real, failed = getattr(owner, name), threading.Event()

        def method(*args: Any, **options: Any) -> Any:
            if not failed.is_set():
                failed.set()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*args, **options)

        monkeypatch.setattr(owner, name, method)

    @pytest.mark.parametrize(("owner", "name"), [(FakeRunner, "attach"), (LocalPort, "open_log")])
    def test_unexpected_error_before_the_command_is_retried(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
    ) -> None:
        monkeypatch.setattr("reactorcide.worker.attempt.report._FIRST_RETRY_DELAY_S", 0.05)
        self.once(monkeypatch, owner, name)
        with open_house(tmp_path, "instance") as house:
            house.worker()
            job = house.ended(house.submit("exit 0"))
        assert (job.status, job.attempt, job.preparation_failures) == (JobStatus.COMPLETED, 2, 1)

    def test_job_ends_if_its_log_cannot_be_reopened(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = house.worker()
        job = house.submit("hang")
        house.until(job, lambda job: job.started_at_ms is not None, "it to start")
        first.stop(10)

        def open_log(*_: Any, **__: Any) -> Any:
            raise ValueError("the index makes no sense")

        monkeypatch.setattr(LocalPort, "open_log", open_log)
        house.worker()
        assert house.ended(job).error == "an internal error of the service; its own log says more"

    def test_unexpected_error_during_the_command_does_not_end_it(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.worker.loop._RECOVER_EVERY_S", 0.2)
        self.once(monkeypatch, Recorder, "record")
        house.worker()
        job = house.ended(house.submit("exit 0"))
        assert (job.status, job.attempt, len(house.runner.started)) == (JobStatus.COMPLETED, 1, 1)
