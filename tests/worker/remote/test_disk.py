"""Workers on other machines whose data directory is removed, or whose disk is full."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.client import Job
from tests.support.remote import RemoteWorker
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.worker.remote.conftest import NewWorker
from tests.worker.remote.test_remote import begun, release

LINES = (b"x" * 99 + b"\n") * 30_000
PRINT_LINES = "yes $(printf %099d 0 | tr 0 x) | head -n 30000"


class Disk:
    """A small file system of its own, which a file can fill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no room on it."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Make room again."""
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 600 KiB."""
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root only")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k,mode=700", "none", path], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted: {mounted.stderr.decode()}")
    yield Disk(path)
    # The worker may be ending still.
    subprocess.run(["umount", "--lazy", path], check=True)


def why(hub: Service, job: Job) -> str:
    return str(hub.admin.get(f"jobs/{job['job_id']}/why")["reason"])


def trouble(hub: Service, worker: RemoteWorker) -> str:
    workers: list[dict[str, Any]] = hub.admin.get("workers")["workers"]
    return next(item["trouble"] or "" for item in workers if item["worker_id"] == worker.worker_id)


def test_a_job_ends_as_it_should_when_the_data_directory_is_removed(
    hub: Service, new_worker: NewWorker, engine: docker.APIClient
) -> None:
    worker = new_worker(hub, "removed")
    job = begun(hub.admin, after="seq 1 1000", queue_name="removed")
    kept = worker.home / "kept"
    shutil.copytree(worker.data_dir, kept)
    shutil.rmtree(worker.data_dir)
    wait_until(lambda: "is gone" in trouble(hub, worker), 10, "the worker says so")
    release(engine, worker)
    ended = hub.admin.wait(job)
    printed = b"begun\ndone\n" + b"".join(b"%d\n" % number for number in range(1, 1001))
    assert (ended["status"], hub.admin.log(job)) == ("completed", printed)
    waits = hub.admin.submit(queue_name="removed")
    wait_until(lambda: "is gone" in why(hub, waits), 10, "the reason is named")
    # Once by the worker, and once by what would take a job, if it was asked.
    assert worker.log_text().count("is gone") <= 2
    assert not worker.data_dir.exists()
    kept.rename(worker.data_dir)
    assert hub.admin.wait(waits)["status"] == "completed"


def test_a_log_for_which_the_disk_has_no_room_arrives_whole(
    hub: Service, new_worker: NewWorker, engine: docker.APIClient, disk: Disk
) -> None:
    worker = new_worker(hub, "full", data_dir=disk.path, min_free_disk=0, lost_after=5)
    job = begun(hub.admin, after=f"{PRINT_LINES}; sleep 6; echo end", queue_name="full")
    beside = begun(hub.admin, after="sleep 6", queue_name="full")
    disk.fill()
    release(engine, worker)
    wait_until(lambda: "disk cannot be written to" in why(hub, beside), 10, "the reason is named")
    assert "disk cannot be written to" in trouble(hub, worker)
    ended = hub.admin.wait(job)
    assert (ended["status"], ended["attempt"], ended["error"]) == ("completed", 1, None)
    assert hub.admin.log(job) == b"begun\ndone\n" + LINES + b"end\n"
    ended = hub.admin.wait(beside)
    assert (ended["status"], ended["attempt"], ended["error"]) == ("completed", 1, None)
    assert worker.log_text().count("disk cannot be written to") <= 2
    disk.make_room()
    assert hub.admin.run(queue_name="full")["status"] == "completed"


def test_a_log_for_which_there_is_no_room_at_all_ends_its_job(
    hub: Service, new_worker: NewWorker, disk: Disk
) -> None:
    new_worker(hub, "tiny", data_dir=disk.path, min_free_disk=0)
    # The limit of what is kept in memory is 16 MiB.
    ended = hub.admin.run("yes $(printf %04095d 0) | head -n 6000; sleep 60", queue_name="tiny")
    assert ended["status"] == "failed"
    assert ended["error"].startswith(
        f"its log does not fit on the disk of its worker ({disk.path}/logs: No space"
    )
    assert ended["error"] in hub.admin.log(ended)[-1000:].decode()


def test_a_job_that_a_worker_with_a_full_disk_gets_is_given_back_with_the_reason(
    hub: Service, new_worker: NewWorker, disk: Disk
) -> None:
    worker = new_worker(hub, "filled", data_dir=disk.path, min_free_disk=0)
    disk.fill()
    job = hub.admin.submit(queue_name="filled")
    wait_until(lambda: "disk cannot be written to" in trouble(hub, worker), 10, "the worker says so")
    wait_until(lambda: "disk cannot be written to" in why(hub, job), 10, "the reason is named")
    disk.make_room()
    assert hub.admin.wait(job)["status"] == "completed"
    first, last = hub.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    assert "its worker could not run it: the worker's disk cannot be written to" in first["error"]
    assert last["error"] is None
