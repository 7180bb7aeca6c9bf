"""Another program stops or removes a job's container: the job's error says so."""

import contextlib
import os
import threading
from pathlib import Path

import docker
import docker.errors

from reactorcide import crashpoints
from tests.conftest import NewService
from tests.support.service import Service
from tests.support.waiting import wait_until


def held_at(new_service: NewService, tmp_path: Path, point: str) -> tuple[Service, Path]:
    """Return a service that waits at a point until somebody opens and closes the FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    return new_service({crashpoints.VARIABLE: f"{point}={fifo}"}), fifo


def remove(service: Service, engine: docker.APIClient) -> None:
    [container] = service.containers(engine)
    engine.remove_container(container["Id"], v=True, force=True)


def test_container_removed_by_others_at_its_end(new_service: NewService, engine: docker.APIClient) -> None:
    service = new_service()
    over = threading.Event()

    def remove_what_ends() -> None:
        with contextlib.closing(docker.APIClient(version="auto")) as own:
            events = own.events(decode=True, filters={"event": "die", "label": "reactorcide.job"})
            for event in events:
                if over.is_set():
                    break
                with contextlib.suppress(docker.errors.APIError):
                    if event["Actor"]["Attributes"].get("name", "").startswith(f"reactorcide-{job_ids[-1]}"):
                        own.remove_container(event["id"], v=True, force=True)
            events.close()

    job_ids = ["none"]
    thread = threading.Thread(target=remove_what_ends)
    thread.start()
    try:
        for _ in range(5):
            job = service.admin.submit("sleep 0.2; echo kept > /job/artifacts/kept")
            job_ids.append(job["job_id"])
            ended = service.admin.wait(job)
            if ended["status"] == "completed":
                assert service.admin.artifact_paths(ended) == ["kept"]
            else:
                assert "removed" in ended["error"], ended
    finally:
        over.set()
        job_ids.append("none")
        # One more end of a job, which the loop waits for.
        service.admin.run("true")
        thread.join(30)
    assert not thread.is_alive()


def test_exit_code_is_stored_although_the_container_was_removed(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, fifo = held_at(new_service, tmp_path, "command-ended")
    job = service.admin.submit("echo said; echo kept > /job/artifacts/kept; exit 3")
    with fifo.open("wb"):
        remove(service, engine)
    ended = service.admin.wait(job)
    assert (ended["status"], ended["exit_code"]) == ("failed", 3)
    problem = "its artifacts could not be stored: somebody removed its container"
    assert ended["error"] == f"exit code 3; {problem}"
    assert service.admin.log(ended) == f"said\n[reactorcide] exit code 3\n[reactorcide] {problem}\n".encode()


def test_container_removed_before_its_start_is_recreated(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, fifo = held_at(new_service, tmp_path, "source-put")
    job = service.admin.submit("echo ran")
    with fifo.open("wb"):
        remove(service, engine)
    ended = service.admin.wait(job)
    assert (ended["status"], ended["attempt"], service.admin.log(ended)) == ("completed", 2, b"ran\n")


def test_container_restarted_by_others_while_the_command_runs(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service()
    job = service.admin.submit("echo ran; sleep 60")
    wait_until(lambda: service.admin.log(job) == b"ran\n", 30, "the command runs")
    [container] = service.containers(engine)
    engine.restart(container["Id"], timeout=1)
    ended = service.admin.wait(job)
    restarted = (
        "its container was started again (docker restart, or a restart policy that somebody gave it), so "
        "how the command ended is not known"
    )
    # Before the container starts again its exit code is there for a moment.
    assert (ended["status"], ended["attempt"], ended["exit_code"], ended["error"]) in {
        ("failed", 1, None, restarted),
        ("failed", 1, 143, "exit code 143"),
    }
    assert service.admin.log(ended).count(b"ran\n") == 1


def test_container_of_others_from_a_committed_job_image_stays(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service()
    job = service.admin.submit("echo begun; sleep 60")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 30, "the command runs")
    [container] = service.containers(engine, job)
    image = engine.commit(container["Id"])["Id"]
    own = engine.create_container(image, entrypoint=["sleep"], command=["60"])["Id"]
    try:
        service.admin.cancel(job)
        service.kill()
        # At its start it removes what nobody needs.
        service.start()
        service.admin.run("true")
        wait_until(lambda: len(service.containers(engine)) == 1, 30, "the job's containers are gone")
        assert engine.inspect_container(own)["Id"] == own
    finally:
        engine.remove_container(own, v=True, force=True)
        engine.remove_image(image, force=True)


def test_unknown_user_of_an_image_fails_the_job_at_once(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service()
    base = engine.create_container(service.options["default_image"], command=["true"], user="nobody-here")[
        "Id"
    ]
    engine.commit(base, repository="reactorcide-test-user", tag="1")
    engine.remove_container(base)
    try:
        ended = service.admin.run("true", runner_image="reactorcide-test-user:1")
        assert (ended["status"], ended["attempt"]) == ("failed", 1)
        assert ended["error"] == "the image's user nobody-here is not in its /etc/passwd"
    finally:
        engine.remove_image("reactorcide-test-user:1", force=True)
