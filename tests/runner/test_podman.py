"""The runner on Podman's Docker API, where podman is installed and can run a container."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import pytest

from reactorcide.runner import ContainerRestarted, ContainerSpec, Exit, Output
from reactorcide.runner.docker import DockerRunner
from reactorcide.runner.handover import NOT_HANDED_OVER
from tests.support.image import _busybox_tar
from tests.support.runs import node, over, repository, start, statuses
from tests.support.service import Service
from tests.support.waiting import wait_until

IMAGE = "localhost/reactorcide-test:1"


@pytest.fixture(scope="module")
def podman() -> Iterator[str]:
    """The URL of a Podman of the tests' own, all of which is in a directory that goes with it."""
    if shutil.which("podman") is None or os.geteuid() != 0:
        pytest.skip("these tests take podman and root")
    # Short, for the path of a socket must be.
    directory = Path(tempfile.mkdtemp(prefix="rc-podman-"))
    # Limits that every host allows.
    (directory / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    )
    environment = os.environ | {"CONTAINERS_CONF": str(directory / "containers.conf")}
    command: list[str | Path] = [
        *(
            "podman",
            "--root",
            directory / "root",
            "--runroot",
            directory / "run",
            "--tmpdir",
            directory / "tmp",
        ),
        *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        *(["--runtime", "runc"] if shutil.which("runc") else []),
    ]
    tar = directory / "image.tar"
    tar.write_bytes(_busybox_tar())
    subprocess.run(
        [*command, "import", "-c", "ENV PATH=/bin", tar, IMAGE],
        env=environment,
        check=True,
        capture_output=True,
    )
    tried = subprocess.run(
        [*command, "run", "--rm", "--init", IMAGE, "true"], env=environment, capture_output=True, text=True
    )
    if tried.returncode:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"podman runs no container here: {tried.stderr.strip()[-300:]}")
    socket = directory / "socket"
    service = subprocess.Popen(
        [*command, "system", "service", "--time=0", f"unix://{socket}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(socket.exists, 20, "podman listens")
        yield f"unix://{socket}"
    finally:
        service.terminate()
        service.wait(20)
        subprocess.run(
            [*command, "rm", "--all", "--force", "--depend"], env=environment, check=True, capture_output=True
        )
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def runner(podman: str) -> Iterator[DockerRunner]:
    with contextlib.closing(DockerRunner({"DOCKER_HOST": podman})) as runner:
        yield runner
        for container in runner.list("podman"):
            runner.remove(container.container_id)


@pytest.fixture
def waiting(runner: DockerRunner) -> Callable[[str], tuple[str, Any, ContainerSpec, Any]]:
    """A factory of containers that wait for a command."""
    spec = ContainerSpec(
        instance_id="podman",
        job_id=str(uuid.uuid4()),
        attempt=1,
        image=IMAGE,
        command="true",
        # With the keys that end a connection of Podman's, one after the other.
        env={"TEXT": "".join(map(chr, range(1, 300)))},
        working_dir="/job/src",
        cpu_limit=None,
        memory_limit_bytes=None,
        pids_limit=64,
    )

    def make(command: str) -> tuple[str, Any, ContainerSpec, Any]:
        own = replace(spec, command=command, job_id=str(uuid.uuid4()))
        container_id = runner.create(own)
        output = runner.attach(container_id)
        return container_id, output, own, runner.start(container_id)

    return make


def read_all(output: Output) -> bytes:
    printed = b""
    while (pieces := output.read(20)) is not None:
        assert pieces or output.acknowledged
        printed += b"".join(data for _, data in pieces)
    output.close()
    return printed


def test_a_command_is_handed_over(runner: DockerRunner, waiting: Callable[..., Any]) -> None:
    container_id, output, spec, started = waiting('printf %s "$TEXT"; exit 3')
    output.hand_over(spec, started)
    while not output.acknowledged:
        assert output.read(20) is not None
    assert read_all(output) == spec.env["TEXT"].encode()
    assert runner.wait(container_id, 10, started.at) == Exit(3, oom_killed=False)
    assert runner.is_acknowledged(container_id)
    # Over already: harmless, whatever the engine calls it.
    runner.signal(container_id, "KILL")


def test_partial_handover_runs_nothing(runner: DockerRunner, waiting: Callable[..., Any]) -> None:
    container_id, output, spec, started = waiting("echo ran")
    output.hand_over(spec, started)
    whole = b"".join(map(bytes, output._unsent))
    output._unsent.clear()
    output._unsent.append(memoryview(whole[:-3]))
    assert output.read(5) == []
    output.close()
    # Its input may stay open after its sender has ended: then it waits until it is stopped.
    if runner.wait(container_id, 2, started.at) is None:
        runner.signal(container_id, "KILL")
    ended = runner.wait(container_id, 20, started.at)
    assert ended is not None
    assert ended.exit_code in (NOT_HANDED_OVER, 137)
    assert not runner.is_acknowledged(container_id)


def test_restarted_container_runs_nothing(
    podman: str, runner: DockerRunner, waiting: Callable[..., Any]
) -> None:
    container_id, output, spec, started = waiting("echo ran; exit 3")
    output.hand_over(spec, started)
    while not output.acknowledged:
        assert output.read(20) is not None
    assert read_all(output) == b"ran\n"
    with contextlib.closing(docker.APIClient(podman, version="auto")) as engine:
        engine.start(container_id)
    with pytest.raises(ContainerRestarted):
        runner.wait(container_id, 1, started.at)
    runner.signal(container_id, "KILL")


CLEANS_UP = 'sh -c "trap \\"sleep 0.5; echo cleaned; exit\\" TERM; echo ready; while :; do sleep 0.1; done"'
IGNORES = 'sh -c "trap \\"echo asked\\" TERM; echo ready; while :; do sleep 0.1; done"'


def test_term_reaches_every_process_of_a_command(runner: DockerRunner, waiting: Callable[..., Any]) -> None:
    # One is in a session of its own, as a daemon is. It ends with the container, which the other keeps.
    keeps = CLEANS_UP.replace("sleep 0.5", "while kill -0 $DAEMON 2>/dev/null; do sleep 0.1; done")
    container_id, output, spec, started = waiting(f"setsid {CLEANS_UP} & DAEMON=$!; {keeps}; echo never")
    output.hand_over(spec, started)
    printed = b""
    while printed.count(b"ready\n") < 2:
        printed += b"".join(data for _, data in output.read(20))
    runner.signal(container_id, "TERM")
    printed = read_all(output)
    assert printed.count(b"cleaned\n") == 2
    assert b"never" not in printed
    assert runner.wait(container_id, 10, started.at) == Exit(143, oom_killed=False)
    # Over already: harmless.
    runner.signal(container_id, "TERM")


def test_term_reaches_the_init_where_no_process_can_be_added(
    runner: DockerRunner, waiting: Callable[..., Any]
) -> None:
    container_id, output, spec, started = waiting("echo ready; while :; do :; done")
    output.hand_over(spec, started)
    printed = b""
    while printed != b"ready\n":
        printed += b"".join(data for _, data in output.read(20))
    with pytest.MonkeyPatch.context() as patch:
        # As in an image that has no shell there, or where its limit of processes is reached.
        patch.setattr("reactorcide.runner.docker.signals._TERMINATE_ALL", ["/bin/none"])
        runner.signal(container_id, "TERM")
    assert runner.wait(container_id, 10, started.at) == Exit(143, oom_killed=False)
    output.close()


@pytest.fixture
def service(podman: str, tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, IMAGE, {"DOCKER_HOST": podman}, cancel_grace=3).start()
    yield service
    service.stop()


def test_a_job_runs_and_has_artifacts(service: Service) -> None:
    job = service.admin.run("echo out; echo err >&2; echo x >/job/artifacts/x; exit 3")
    assert (job["status"], job["exit_code"], job["error"]) == ("failed", 3, "exit code 3")
    assert sorted(service.admin.log(job).splitlines()) == [b"[reactorcide] exit code 3", b"err", b"out"]
    assert service.admin.artifact_paths(job) == ["x"]


def test_the_children_of_a_job_that_timed_out_get_the_grace(service: Service) -> None:
    job = service.admin.run(f"{CLEANS_UP}; echo never", timeout_seconds=5)
    assert (job["status"], job["error"]) == ("failed", "timed out after 5 s")
    log = service.admin.log(job)
    assert log.count(b"cleaned\n") == 1
    assert b"never" not in log


def test_after_the_grace_the_children_of_a_job_that_timed_out_are_killed(service: Service) -> None:
    job = service.admin.run(IGNORES, timeout_seconds=5)
    assert (job["status"], job["error"]) == ("failed", "timed out after 5 s")
    assert service.admin.log(job).count(b"asked\n") == 1
    run_s = (
        datetime.fromisoformat(job["completed_at"]) - datetime.fromisoformat(job["started_at"])
    ).total_seconds()
    assert 8 <= run_s < 30


WORKFLOW = """
name: CI
on: push
jobs:
  a:
    services:
      web:
        image: IMAGE
        command: sh -c 'mkdir /www; echo served >/www/x; sleep 0.5; exec httpd -f -p 8080 -h /www'
        ready: wget -q -O /dev/null http://localhost:8080/x
    command: |
      wget -q -O /job/artifacts/x http://web:8080/x
      echo v=1 >>$REACTORCIDE_OUTPUT
  b:
    needs: [a]
    artifacts_from: [a]
    environment: {V: "${needs.a.v}"}
    command: test $V = 1 && cat /job/needs/a/x
  link: {command: ln -sf /etc/passwd $REACTORCIDE_OUTPUT}
"""


def test_jobs_of_a_workflow_have_services_and_pass_on_artifacts(podman: str, service: Service) -> None:
    files = {"workflows/ci.yaml": WORKFLOW.replace("IMAGE", IMAGE)}
    source = repository(service.source_root / "project", files)
    ended = over(service.admin, start(service.admin, source), deadline_s=120)
    assert statuses(ended) == {"a": "completed", "b": "completed", "link": "failed"}, ended
    assert service.admin.log({"job_id": node(ended, "b")["job_id"]}).endswith(b"served\n")
    link = service.admin.job({"job_id": node(ended, "link")["job_id"]})
    assert link["error"] == "/job/workflow-output is not a regular file"
    with contextlib.closing(docker.APIClient(podman, version="auto")) as engine:
        wait_until(lambda: not service.containers(engine), 60, "the containers are gone")
