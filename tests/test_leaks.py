"""Whatever a service starts it stops: no thread, socket or file stays open."""

import os
import threading
from pathlib import Path

from reactorcide.app.service import Service
from reactorcide.settings import Settings
from tests.support.waiting import wait_until


def open_files() -> list[str]:
    targets = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the listing's own
            continue
    return targets


def cycle(data_dir: Path) -> None:
    application = Service(
        Settings(data_dir=data_dir, source_roots=(data_dir,), concurrency=1),
        {"DOCKER_HOST": "unix:///nonexistent.sock", "PATH": os.environ["PATH"]},
    )
    data_dir.mkdir(exist_ok=True)
    application.start()
    client = application.wsgi.test_client()
    assert client.get("/api/v1/health").status_code == 200
    assert client.get("/api/v1/ready").status_code == 503
    application.stop()
    application.stop()


def test_twenty_consecutive_services_leave_nothing_open(tmp_path: Path) -> None:
    # The first one loads what stays loaded: gRPC's own epoll descriptors and the like.
    threads = set(threading.enumerate())
    cycle(tmp_path / "data")
    wait_until(lambda: set(threading.enumerate()) <= threads, 20, "the first service's threads to end")
    before = open_files()
    for _ in range(20):
        cycle(tmp_path / "data")
    wait_until(
        lambda: set(threading.enumerate()) <= threads,
        20,
        f"every thread to end; there are {threading.enumerate()}",
    )
    wait_until(lambda: len(open_files()) <= len(before), 20, f"every file to close; open: {open_files()}")
    assert not [name for name in open_files() if str(tmp_path) in name]


def test_a_start_removes_what_a_killed_service_was_writing(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for leftover in ("objects/.tmp/half", "workspaces/job/file"):
        (data_dir / leftover).parent.mkdir(parents=True)
        (data_dir / leftover).write_bytes(b"x")
    log = data_dir / "objects/jobs/1/log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x")
    cycle(data_dir)
    assert [path for path in data_dir.rglob("*") if path.name in ("half", "file")] == []
    assert log.exists()


def test_constructor_starts_and_opens_nothing(tmp_path: Path) -> None:
    threads, files = threading.active_count(), len(open_files())
    Service(Settings(data_dir=tmp_path / "data", source_roots=(tmp_path,), concurrency=1), {})
    assert threading.active_count() == threads
    assert len(open_files()) == files
    assert not (tmp_path / "data").exists()
