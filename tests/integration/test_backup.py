"""Backups of a service at work, and what a restored one makes of them."""

import stat
import subprocess
import tarfile
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.client import Job
from tests.support.runs import node, over, repository, start, statuses
from tests.support.service import PROGRAM, Service, clean_environment, command_line
from tests.support.waiting import wait_until


def run(command: str, file: Path, data_dir: Path, *more: str) -> str:
    """Run one of the two commands; it has to succeed."""
    done = subprocess.run(
        [*command_line(command, {"data_dir": data_dir}), file, *more],
        env=clean_environment(file.parent),
        cwd=PROGRAM.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_restored(new_service: NewService, service: Service, file: Path, *more: str) -> Service:
    """Restore a backup of a service that does not run any more, and start one on it."""
    data_dir = file.parent / "restored"
    run("restore", file, data_dir, *more)
    # The backup has not got it, and the tests' client asks for it.
    (data_dir / "admin-token").write_text(service.admin.token or "")
    return new_service(data_dir=data_dir)


def submit_long(service: Service) -> Job:
    """Submit a job and return it when it has printed its first line."""
    job = service.admin.submit("echo begun; sleep 3; echo ended; echo x > /job/artifacts/x")
    service.admin.wait(job, "running")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 10, "it prints")
    return job


def test_backup_of_a_running_service_restores_everything(new_service: NewService, tmp_path: Path) -> None:
    service, file = new_service(), tmp_path / "backup.tar.gz"
    api = service.admin
    ended = api.run("seq 100000; echo kept > /job/artifacts/kept")
    running = submit_long(service)
    waiting = api.submit("echo waited")
    output = run("backup", file, service.data_dir)
    assert str(file) in output
    too_late = api.submit()
    log = api.log(ended)
    assert (service.data_dir / "api.sock").is_socket()
    service.kill()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert {names[0], names[1], names[-1]} == {"reactorcide-backup.json", "reactorcide.db", "end"}
    assert not [name for name in names if "token" in name or ".tmp" in name or "sock" in name]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    again = start_restored(new_service, service, file).admin
    assert again.job(ended) == ended
    assert again.log(ended) == log
    assert again.request("GET", f"jobs/{ended['job_id']}/artifacts/kept").content == b"kept\n"
    # Its container went on, or has ended meanwhile.
    assert again.wait(running)["status"] == "completed"
    assert again.log(running) == b"begun\nended\n"
    assert again.artifact_paths(running) == ["x"]
    assert again.wait(waiting)["status"] == "completed"
    assert again.log(waiting) == b"waited\n"
    assert again.request("GET", f"jobs/{too_late['job_id']}").status_code == 404


def test_restored_running_job_without_its_container_is_lost(
    new_service: NewService, tmp_path: Path, engine: docker.APIClient
) -> None:
    service, file = new_service(), tmp_path / "backup.tar.gz"
    running = submit_long(service)
    run("backup", file, service.data_dir)
    service.kill()
    # As on another machine.
    for container in service.containers(engine):
        engine.remove_container(container["Id"], v=True, force=True)

    again = start_restored(new_service, service, file).admin
    lost = again.wait(running)
    assert lost["status"] == "failed"
    assert "was lost while it ran, and its container is gone" in lost["error"]
    assert again.log(running).startswith(b"begun\n")


WORKFLOW = """
name: CI
on: push
concurrency: {group: ci}
jobs:
  a: {command: "echo begun; sleep 3", checkout: false}
  b: {needs: [a], condition: always, command: "true", checkout: false}
"""


@pytest.mark.parametrize("resumes", [False, True])
def test_open_runs_are_cancelled_by_a_restore_unless_resumed(
    new_service: NewService, tmp_path: Path, resumes: bool
) -> None:
    service, file = new_service(), tmp_path / "backup.tar.gz"
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": WORKFLOW})
    running, waiting = start(service.admin, source), start(service.admin, source)
    job = {"job_id": node(running, "a")["job_id"]}
    wait_until(lambda: service.admin.log(job).endswith(b"begun\n"), 30, "the command runs")
    run("backup", file, service.data_dir)
    service.kill()

    restored_service = start_restored(new_service, service, file, *["--resume"] * resumes)
    again = restored_service.admin
    later = start(again, source.copied(restored_service.source_root / "of-run"))
    assert [item["number"] for item in (running, waiting, later)] == [1, 2, 3 if resumes else 2001]
    if resumes:
        assert [over(again, item)["status"] for item in (running, waiting)] == ["completed"] * 2
        return
    for item in (running, waiting):
        restored = again.get(f"runs/{item['run_id']}")
        assert restored["status"] == "cancelled"
        assert restored["reason"].startswith("restored from a backup of 20")
        assert set(statuses(restored).values()) == {"cancelled"}
    assert again.job(job)["error"] == restored["reason"]
    repeated = again.request("POST", f"runs/{waiting['run_id']}/rerun", json={})
    assert repeated.status_code == 200
    assert over(again, waiting)["status"] == "completed"
