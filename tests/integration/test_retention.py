"""Retention as its operators and users see it: rules, pins, ``reactorcide gc`` and pulled images."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any

import docker
import pytest

from reactorcide.jobs.retention import DAY_MS
from reactorcide.lib.ids import new_id
from tests.conftest import NewService
from tests.support.client import Client, Job
from tests.support.registry import Registry
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until


def gc(service: Service, **options: object) -> Any:
    """Run ``reactorcide gc`` and return what it answers."""
    done = subprocess.run(
        [*command_line("gc", {"data_dir": service.data_dir, "json": None} | options)],
        env=clean_environment(service.data_dir),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b""), done
    return json.loads(done.stdout)


def rows(service: Service, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement on the service's database."""
    with closing(sqlite3.connect(service.data_dir / "reactorcide.db", timeout=20)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def is_deleted(service: Service, job: Job) -> bool:
    job_id = job["job_id"]
    return (
        service.admin.request("GET", f"jobs/{job_id}").status_code == 404
        and not service.object_path(f"jobs/{job_id}").exists()
        and not rows(service, "SELECT 1 FROM job WHERE job_id = ?", job_id)
        and not rows(service, "SELECT 1 FROM job_event WHERE job_id = ?", job_id)
    )


def test_old_jobs_are_removed_by_retention_and_by_gc(new_service: NewService) -> None:
    service = new_service(keep_jobs=2, log_format="json")
    api = service.admin
    pinned, old, newer, last = [api.run("echo x; echo y >/job/artifacts/z") for _ in range(4)]
    assert api.request("PUT", f"jobs/{pinned['job_id']}/pin").json()["pinned"]
    wait_until(
        lambda: rows(service, "SELECT count(*) FROM job WHERE task_open") == [(0,)],
        20,
        "all tasks are closed",
    )

    service.until_sealed()
    plan = gc(service, dry_run=None, keep_jobs=2)
    [planned] = plan["jobs"]
    assert plan["dry_run"]
    assert (planned["job_id"], planned["completed_at"]) == (old["job_id"], old["completed_at"])
    assert "last 2" in planned["reason"]
    # Each of them is small, but takes a block: directories as well.
    used_bytes = 4096 * (1 + len(list(service.object_path(f"jobs/{old['job_id']}").rglob("*"))))
    assert plan["size_bytes"] == planned["size_bytes"] == used_bytes
    assert gc(service, keep_jobs=0, keep_bytes=0)["jobs"] == []
    assert api.job(old) == old

    service.stop()
    # Whether it runs jobs or not.
    service.options["concurrency"] = 0
    service.start()
    wait_until(lambda: is_deleted(service, old), 20, "the old job goes")
    lines = [json.loads(line) for line in service.log_text().splitlines() if line.startswith("{")]
    [removed] = [line for line in lines if "removed" in line["message"]]
    assert removed["job_id"] == old["job_id"]
    assert "last 2" in removed["message"]

    # While the service runs.
    assert [item["job_id"] for item in gc(service, keep_jobs=1)["jobs"]] == [newer["job_id"]]
    assert is_deleted(service, newer)
    assert {job["job_id"] for job in api.get("jobs")["jobs"]} == {pinned["job_id"], last["job_id"]}
    assert api.log(last) == b"x\n"
    assert api.request("DELETE", f"jobs/{pinned['job_id']}").status_code == 204
    wait_until(lambda: is_deleted(service, pinned), 20, "the deleted job goes")
    deeds = service.admin.get("audit", action="job.delete")["deeds"]
    assert [(deed["subject"], deed["user_id"].partition("@")[0]) for deed in reversed(deeds[1:])] == [
        (old["job_id"], "service"),
        (newer["job_id"], "operator"),
    ]


def test_gc_prints_readable_output(new_service: NewService) -> None:
    service = new_service()
    jobs = [service.admin.run("echo x") for _ in range(2)]
    wait_until(
        lambda: rows(service, "SELECT count(*) FROM job WHERE task_open") == [(0,)],
        20,
        "all tasks are closed",
    )
    done = subprocess.run(
        command_line("gc", {"data_dir": service.data_dir, "keep_jobs": 1}),
        env=clean_environment(service.data_dir),
        capture_output=True,
        text=True,
        timeout=60,
    )
    header, row = done.stdout.splitlines()
    assert header.split() == ["ID", "FINISHED", "SIZE", "WHY"]
    # The log, its index, and the directories of the job and of its attempt.
    assert row.split(maxsplit=4) == [
        jobs[0]["job_id"],
        jobs[0]["completed_at"],
        "16",
        "KiB",
        "it is not among the last 1 to end",
    ]
    assert done.stderr == "1 jobs of 16 KiB removed\n"


@pytest.mark.parametrize("repeated", [1, 2])
def test_pin_is_added_and_removed(idle: Client, repeated: int) -> None:
    job = idle.submit()
    path = f"jobs/{job['job_id']}/pin"
    for method, pinned in (("PUT", True), ("DELETE", False)):
        for _ in range(repeated):
            response = idle.request(method, path)
            assert (response.status_code, response.json()) == (200, job | {"pinned": pinned})
        assert idle.job(job)["pinned"] is pinned
        listed = idle.get("jobs", pinned="true", limit=1000)["jobs"]
        assert (job["job_id"] in {item["job_id"] for item in listed}) is pinned


def test_only_owner_and_admin_can_pin(idle_service: Service) -> None:
    ann, bob = idle_service.add_user(f"ann-{new_id()}"), idle_service.add_user(f"bob-{new_id()}")
    job = ann.submit()
    path = f"jobs/{job['job_id']}/pin"
    for client, status in (
        (bob, 403),
        (idle_service.anonymous(), 401),
        (ann, 200),
        (idle_service.admin, 200),
    ):
        for method in ("PUT", "DELETE"):
            assert client.request(method, path).status_code == status
    assert ann.request("PUT", f"jobs/{new_id()}/pin").status_code == 404
    assert ann.request("PUT", path, params={"for": "ever"}).status_code == 400


def test_unused_pulled_image_is_removed(
    new_service: NewService, new_registry: Callable[..., Registry], engine: docker.APIClient
) -> None:
    image = new_registry().image
    service = new_service(keep_image_days=3)
    api = service.admin
    here = api.run()["runner_image"]
    assert api.run(runner_image=image)["status"] == "completed"
    assert [row[0] for row in rows(service, "SELECT image FROM pulled_image")] == [image]

    rows(service, "UPDATE pulled_image SET last_used_at_ms = 5")
    used = api.run(runner_image=image)
    assert rows(service, "SELECT last_used_at_ms > 5 FROM pulled_image") == [(1,)]
    rows(service, "UPDATE pulled_image SET last_used_at_ms = 5")
    of_service = {"image": image, "command": "sleep 600"}
    assert api.run(services={"other": of_service})["status"] == "completed"
    assert rows(service, "SELECT last_used_at_ms > 5 FROM pulled_image") == [(1,)]
    rows(service, "UPDATE pulled_image SET last_used_at_ms = last_used_at_ms - ?", 2 * DAY_MS)
    wait_until(lambda: not service.containers(engine, used), 20, "its container is gone")
    service.stop()
    service.start()
    assert api.run()["status"] == "completed"
    assert engine.images(image)

    rows(service, "UPDATE pulled_image SET last_used_at_ms = last_used_at_ms - ?", 2 * DAY_MS)
    service.stop()
    service.start()
    wait_until(lambda: not engine.images(image), 20, "the image goes")
    wait_until(lambda: rows(service, "SELECT 1 FROM pulled_image") == [], 20, "it is forgotten")
    assert engine.images(here)
    assert api.run(runner_image=image)["status"] == "completed"
