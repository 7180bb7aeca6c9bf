"""The janitor beside a worker: what it removes and keeps, and that it delays no job."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from reactorcide.domain.audit import operator
from reactorcide.domain.errors import NotFound, ObjectStoreError
from reactorcide.domain.jobs import Job, JobStatus, attempt_of
from reactorcide.domain.sources import Source
from reactorcide.jobs import delete, retention
from reactorcide.jobs.pin import pin
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import first_id
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.store import Store
from reactorcide.store.vault import Vault
from reactorcide.worker.janitor import Janitor
from tests.support.store import opened_again
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House

KEEP_ONE = retention.Policy(keep_jobs=1)


@pytest.fixture
def janitor(house: House) -> Iterator[Callable[..., Janitor]]:
    """Starts janitors that end with the test."""
    janitors: list[Janitor] = []

    def start(policy: retention.Policy, **days: Any) -> Janitor:
        janitors.append(Janitor(house.context, house.runner, policy, **days))
        janitors[-1].start()
        return janitors[-1]

    yield start
    for janitor in janitors:
        janitor.stop(10)


def is_deleted(house: House, job: Job) -> bool:
    try:
        house.job(job)
    except NotFound:
        return list(house.context.objects.list(f"jobs/{job.job_id}/")) == []
    return False


def ended_jobs(house: House, count: int) -> list[Job]:
    """Run jobs to their end, one after the other, until no task of them is open."""
    jobs = [house.ended(house.submit(f"print {'x' * 100}")) for _ in range(count)]
    wait_until(
        lambda: len(house.context.store.retention.removable()) == count, 20, "their tasks to be closed"
    )
    return jobs


class Stuck(FilesystemObjectStore):
    """Deletes nothing before ``go_on`` is set."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.delete_called, self.go_on = threading.Event(), threading.Event()

    def delete(self, prefix: str) -> None:
        self.delete_called.set()
        assert self.go_on.wait(60)
        super().delete(prefix)


@pytest.mark.parametrize("deleted_by_hand", [False, True])
def test_slow_removal_does_not_delay_claims(
    house: House, janitor: Callable[..., Janitor], tmp_path: Path, deleted_by_hand: bool
) -> None:
    # Its other duties are done every half second then.
    house.worker(lease_s=1.5)
    old, _ = ended_jobs(house, 2)
    stuck = Stuck(tmp_path / "objects")
    house.context = replace(house.context, objects=stuck)
    if deleted_by_hand:
        # As a crash between the two leaves it.
        house.context.store.jobs.delete(old.job_id, now_ms=now_ms())
    janitor(KEEP_ONE)
    assert stuck.delete_called.wait(20)
    duties_done_at = monotonic() + 1.5
    while monotonic() < duties_done_at:
        assert house.ended(house.submit()).status is JobStatus.COMPLETED
    assert list(stuck.list(f"jobs/{old.job_id}/"))
    stuck.go_on.set()
    wait_until(lambda: is_deleted(house, old), 20, "one to go")


def test_unsealed_log_is_sealed_later(
    house: House, janitor: Callable[..., Janitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = set()

    def fail(key: str, path: Path) -> None:
        tried.add(attempt_of(key)[0])
        raise ObjectStoreError("the object store is away")

    house.worker()
    with monkeypatch.context() as patch:
        patch.setattr(house.context.objects, "put_file", fail)
        first, second = (house.ended(house.submit("print text")) for _ in range(2))
        wait_until(lambda: tried == {first.job_id, second.job_id}, 20, "both to be tried")
    running = house.submit("hang")
    house.until(running, lambda job: job.started_at_ms is not None, "the job to start")

    def unsealed() -> set[str]:
        return {attempt_of(file.key)[0] for file in house.context.logs.unsealed()}

    assert unsealed() == {first.job_id, second.job_id, running.job_id}
    janitor(retention.Policy())
    wait_until(lambda: unsealed() == {running.job_id}, 20, "the logs to be sealed")
    assert [house.log(job) for job in (first, second)] == ["text\n", "text\n"]
    delete.delete(house.context, USER, running.job_id)


def test_object_store_that_hangs_delays_no_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, put_file = threading.Event(), house.context.objects.put_file

    def hang(key: str, path: Path) -> None:
        assert go_on.wait(60)
        put_file(key, path)

    house.worker()
    with monkeypatch.context() as patch:
        patch.setattr(house.context.objects, "put_file", hang)
        kept, removed = (house.ended(house.submit("print text")) for _ in range(2))
        assert [house.log(job) for job in (kept, removed)] == ["text\n", "text\n"]
        wait_until(lambda: is_removable(house, removed), 20, "its task to be closed")
        delete.delete(house.context, USER, removed.job_id)
        go_on.set()
        wait_until(lambda: list(house.context.logs.unsealed()) == [], 20, "the logs to be sealed")
    house.context.sealing.stop(20)
    assert house.log(kept) == "text\n"
    assert is_deleted(house, removed)


def test_log_of_a_job_that_is_removed_while_it_is_sealed_is_removed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, go_on, put_file = threading.Event(), threading.Event(), house.context.objects.put_file

    def late(key: str, path: Path) -> None:
        if not path.exists():
            put_file(key, path)
        data = path.read_bytes()
        stored.set()
        assert go_on.wait(60)
        house.context.objects.put(key, iter([data]))

    house.worker()
    with monkeypatch.context() as patch:
        patch.setattr(house.context.objects, "put_file", late)
        job = house.ended(house.submit("print text"))
        assert stored.wait(60)
        wait_until(lambda: is_removable(house, job), 20, "its task to be closed")
        delete.delete(house.context, USER, job.job_id)
        # As another service does, or the janitor.
        delete.purge_ended(house.context, job.job_id)
        assert is_deleted(house, job)
        go_on.set()
        house.context.sealing.stop(20)
    assert is_deleted(house, job)


def is_removable(house: House, job: Job) -> bool:
    return job.job_id in {one.job_id for one in house.context.store.retention.removable()}


def test_open_and_pinned_jobs_are_not_removed(house: House, janitor: Callable[..., Janitor]) -> None:
    house.worker()
    pinned, old, last = ended_jobs(house, 3)
    assert pin(house.context, USER, pinned.job_id, pinned=True).pinned
    running = house.submit("hang")
    house.until(running, lambda job: job.started_at_ms is not None, "the job to start")
    janitor(KEEP_ONE)
    wait_until(lambda: is_deleted(house, old), 20, "one to go")
    assert house.job(pinned).pinned
    assert house.job(last).is_final
    assert house.job(running).status is JobStatus.RUNNING
    delete.delete(house.context, USER, pinned.job_id)
    wait_until(lambda: is_deleted(house, pinned), 20, "the deleted one to go")
    delete.delete(house.context, USER, running.job_id)


def test_cancelled_job_is_retained_while_its_container_exists(house: House) -> None:
    house.worker(cancel_grace_s=60)
    [last] = ended_jobs(house, 1)
    running = house.submit("deaf; hang")
    house.until(running, lambda job: job.started_at_ms is not None, "the job to start")
    house.context.store.jobs.transition(
        running.job_id,
        JobStatus.CANCELLED,
        now_ms=now_ms(),
        only_from={JobStatus.RUNNING},
        completed_at_ms=1,
        task_open=False,
    )
    assert house.runner.containers
    assert [job.job_id for job in house.context.store.retention.removable()] == [last.job_id]
    assert not house.context.store.retention.delete(running.job_id, now_ms=now_ms())
    for container in house.runner.containers.values():
        container.receive("KILL")
    house.ended(running)
    assert house.context.store.retention.delete(running.job_id, now_ms=now_ms())


def test_job_is_retained_while_another_needs_its_artifacts(house: House) -> None:
    house.worker()
    needed, _ = ended_jobs(house, 2)
    running = house.submit("hang", source_job_id=needed.job_id)
    assert needed.job_id not in {job.job_id for job in house.context.store.retention.removable()}
    assert not house.context.store.retention.delete(needed.job_id, now_ms=now_ms())
    delete.delete(house.context, USER, running.job_id)
    wait_until(
        lambda: house.context.store.retention.delete(needed.job_id, now_ms=now_ms()), 20, "it to be removable"
    )


def test_unused_uploaded_source_is_removed(house: House, janitor: Callable[..., Janitor]) -> None:
    context = house.context
    for source_id, age_days in (("old", 15), ("new", 13)):
        key = f"sources/{source_id}/source.tar.gz"
        context.objects.put(key, [b"x"])
        source = Source(source_id=source_id, object_key=key, size_bytes=1, files=1)
        at_ms = now_ms() - age_days * retention.DAY_MS
        context.store.sources.add(source, now_ms=at_ms)
        context.store.sources.add_owner(source_id, "u", now_ms=at_ms)
    janitor(retention.Policy(), keep_source_days=14)
    wait_until(
        lambda: context.store.sources.object_keys() == {"sources/new/source.tar.gz"}, 20, "the old one to go"
    )
    wait_until(lambda: len(list(context.objects.list("sources/"))) == 1, 20, "its file to go")


def test_pin_after_the_decision_prevents_removal(house: House) -> None:
    house.worker()
    old, _ = ended_jobs(house, 2)
    assert [item.job_id for item in retention.plan(house.context, KEEP_ONE)] == [old.job_id]
    pin(house.context, USER, old.job_id, pinned=True)
    assert not house.context.store.retention.delete(old.job_id, now_ms=now_ms())
    assert not house.job(old).deleted


def test_sizes_are_measured_once_and_a_plan_changes_nothing(house: House) -> None:
    house.worker()
    ended_jobs(house, 2)
    # The log, its index, and the directories of the job and of its attempt.
    size_bytes = 4 * 4096
    policy = retention.Policy(keep_bytes=size_bytes + 50)
    [planned] = retention.plan(house.context, policy)
    assert planned.size_bytes == size_bytes
    assert [job.stored_bytes for job in house.context.store.retention.removable()] == [None, None]
    assert retention.apply(house.context, replace(policy, keep_bytes=0), by=operator()) == []
    assert [job.stored_bytes for job in house.context.store.retention.removable()] == [size_bytes, size_bytes]
    assert retention.apply(house.context, policy, by=operator()) == [planned]
    assert len(house.context.store.retention.removable()) == 1


def test_concurrent_retention_removes_each_job_once(house: House, tmp_path: Path) -> None:
    house.worker()
    jobs = ended_jobs(house, 12)
    # With a connection and a lock of its own, as another process has.
    database = opened_again(house.database)
    other = replace(house.context, store=Store(database, Vault.beside(house.database.path)))
    removed_ids: list[str] = []
    both = threading.Barrier(2)

    def carry_out(context: object) -> None:
        both.wait()
        removed_ids.extend(item.job_id for item in retention.apply(context, KEEP_ONE, by=operator()))  # type: ignore[arg-type]  # a thread's argument

    threads = [threading.Thread(target=carry_out, args=(context,)) for context in (house.context, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    assert sorted(removed_ids) == sorted(job.job_id for job in jobs[:-1])
    assert all(is_deleted(house, job) for job in jobs[:-1])


def test_failed_removal_does_not_block_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.worker()
    jobs = ended_jobs(house, 3)
    for job in jobs:
        house.context.store.jobs.delete(job.job_id, now_ms=now_ms())
    whole = FilesystemObjectStore.delete

    def delete_unless_first(store: FilesystemObjectStore, prefix: str) -> None:
        if jobs[0].job_id in prefix:
            raise ObjectStoreError("no permission")
        whole(store, prefix)

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemObjectStore, "delete", delete_unless_first)
        with pytest.raises(ObjectStoreError, match="no permission"):
            delete.purge_ended(house.context)
    assert [is_deleted(house, job) for job in jobs] == [False, True, True]
    delete.purge_ended(house.context)
    assert is_deleted(house, jobs[0])


def test_unused_pulled_images_are_removed(house: House, janitor: Callable[..., Janitor]) -> None:
    house.worker()
    house.runner.pullable = {"used:1", "unused:1"}
    for image in ("used:1", "unused:1"):
        assert house.ended(house.submit(runner_image=image)).status is JobStatus.COMPLETED
    for unused in house.context.store.images.unused(since_ms=now_ms() + 1000):
        long_ago = now_ms() - 15 * retention.DAY_MS
        house.context.store.images.add(unused.image, unused.image_id, now_ms=long_ago)
    house.ended(house.submit(runner_image="used:1"))
    assert [item.image for item in house.context.store.images.unused(since_ms=now_ms() - 1000)] == [
        "unused:1"
    ]
    janitor(retention.Policy(), keep_image_days=14)
    wait_until(lambda: house.runner.images == {"alpine:latest", "used:1"}, 20, "the unused image to go")
    wait_until(
        lambda: len(house.context.store.images.unused(since_ms=now_ms() + 1000)) == 1,
        20,
        "it to be forgotten",
    )


def test_objects_whose_rows_are_gone_are_removed_once_none_can_be_storing_them(
    house: House, janitor: Callable[..., Janitor]
) -> None:
    objects, kinds = house.context.objects, {"sources": "source.tar.gz", "caches": "x", "deliveries": "body"}
    day_ms = 86_400_000
    old, new = (
        {
            f"{kind}/{first_id(now_ms() - age_ms)}-7000-8000-000000000000/{name}"
            for kind, name in kinds.items()
        }
        for age_ms in (2 * day_ms, day_ms // 2)
    )
    for key in old | new:
        objects.put(key, [b"x"])
    janitor(retention.Policy())
    wait_until(
        lambda: {item.key for kind in kinds for item in objects.list(f"{kind}/")} == new,
        20,
        "the old ones to go",
    )
