"""What happens to a command while the engine, or the way to it, fails under its handover."""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from reactorcide import crashpoints
from reactorcide.runner import Signal
from reactorcide.runner.docker import DockerRunner
from tests.chaos.killer import CALL, calls
from tests.chaos.test_engine import own_engine, serving
from tests.conftest import NewService
from tests.support.client import FINAL, Job
from tests.support.dockerd import OwnEngine
from tests.support.engine_proxy import EngineProxy
from tests.support.image import Images
from tests.support.service import Service
from tests.support.tls_engine import Line, tls_engine
from tests.support.waiting import wait_until
from tests.worker.conftest import House, house

__all__ = ["house", "own_engine"]


def times_run(service: Service, job: Job) -> int:
    """Return how often the command has printed that it runs, in all attempts together."""
    return sum(
        len(re.findall(rb"^ran$", service.admin.log(job, attempt=number + 1), re.MULTILINE))
        for number in range(job["attempt"])
    )


def test_service_killed_while_the_engine_starts_the_container(
    new_service: NewService, engine: docker.APIClient, images: Images, tmp_path: Path
) -> None:
    killed: list[bytes] = []

    def before(data: bytes) -> None:
        # The engine gets the request all the same, from nobody, and carries it out.
        if b"/start HTTP" in data and not killed:
            killed.append(data)
            service.kill()

    proxy = EngineProxy(tmp_path / "engine", before)
    proxy.on()
    try:
        with calls() as (called, port):
            service = new_service({"DOCKER_HOST": proxy.url}, lease=3)
            job = service.admin.submit(f"{CALL}echo ran", job_env_vars={"CALLS_PORT": str(port)})
            wait_until(lambda: bool(killed), 30, "the service is killed")
            service.start()
            ended = service.admin.wait(job)
            assert (ended["status"], ended["attempt"], times_run(service, ended)) == ("completed", 2, 1)
            wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
            assert called == {job["job_id"]: 1}
        service.stop()
    finally:
        proxy.off()


POINTS = (
    "container-attached",
    "container-started",
    "handing-over-written",
    "handover-half-sent",
    "handover-sent",
    "handover-acknowledged",
)


# Each point with one kind of engine. One without live-restore ends its containers.
@pytest.mark.parametrize(("live_restore", "points"), [(True, POINTS[::2]), (False, POINTS[1::2])])
def test_engine_killed_during_the_handover(
    new_service: NewService,
    own_engine: Callable[..., OwnEngine],
    tmp_path: Path,
    live_restore: bool,
    points: Sequence[str],
) -> None:
    engine = own_engine(live_restore=live_restore)
    # What ends while this engine is away has lost its exit code, so the command lasts for longer.
    command = "echo ran; until [ -e /tmp/go ]; do sleep 0.1; done"
    for point in points:
        fifo = tmp_path / point
        os.mkfifo(fifo)
        with serving(new_service, engine, {crashpoints.VARIABLE: f"{point}={fifo}"}) as (service, client):
            job = service.admin.submit(command)
            # Opened only when the service waits at its other end.
            with fifo.open("wb"):
                engine.kill()
            engine.start()

            def let_go(service: Service = service, client: docker.APIClient = client, job: Job = job) -> bool:
                for container in service.containers(client, job):
                    with contextlib.suppress(docker.errors.APIError):
                        touch = client.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # there
                        client.exec_start(touch["Id"])
                return service.admin.job(job)["status"] in FINAL

            wait_until(let_go, 90, "the job is over")
            ended = service.admin.job(job)
            outcome = (ended["status"], times_run(service, ended))
            if live_restore or POINTS.index(point) < POINTS.index("handover-sent"):
                assert outcome == ("completed", 1), (point, ended)
            else:
                # Such an engine ends its containers when it comes back. What has run is not repeated.
                assert outcome in {("completed", 1), ("failed", 1), ("failed", 0)}, (point, ended)
                assert (ended["attempt"] == 1) is (ended["status"] == "failed")


def test_service_killed_while_its_connection_stays_open(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    """As behind a proxy, or where a host vanishes: the container goes on waiting for its command."""
    marker, line = tmp_path / "armed", Line()
    (tmp_path / "engine").mkdir()
    with tls_engine(tmp_path / "engine", line) as variables:
        service = new_service(variables | {crashpoints.VARIABLE: f"handing-over-written={marker}"}, lease=3)
        os.mkfifo(marker)
        job = service.admin.submit("echo ran")
        with marker.open("wb"):
            line.swallows = True
        assert line.swallowed.wait(30)
        line.swallows = False
        service.kill()
        service.start()
        ended = service.admin.wait(job)
        assert (ended["status"], ended["attempt"], times_run(service, ended)) == ("completed", 2, 1)
        wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
        service.stop()


@pytest.mark.parametrize("takes_it", [False, True], ids=["not taken", "taken when it goes on"])
def test_paused_container_is_replaced_unless_it_takes_its_command(
    house: House, images: Images, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch, takes_it: bool
) -> None:
    for name in ("container._HAND_OVER_S", "container._UNSEEN_HAND_OVER_S", "report._FIRST_RETRY_DELAY_S"):
        monkeypatch.setattr(f"reactorcide.worker.attempt.{name}", 1.0)
    begin = house.context.store.attempts.begin_hand_over

    def pause_and_begin(job_id: str, attempt: int, container_id: str, **options: Any) -> None:
        if attempt == 1:
            engine.pause(container_id)
        begin(job_id, attempt, container_id, **options)

    monkeypatch.setattr(house.context.store.attempts, "begin_hand_over", pause_and_begin)
    with closing(DockerRunner({})) as runner:
        house.runner = runner  # type: ignore[assignment]  # a real engine in place of the fake one
        if takes_it:
            monkeypatch.setattr(runner, "signal", partial(go_on_and_signal, runner, engine, runner.signal))
        house.worker()
        ended = house.until(
            house.submit("echo ran; sleep 5", runner_image=images.default),
            lambda job: job.is_final,
            "the job to end",
        )
        first, *_ = house.context.store.attempts.of_job(ended.job_id)
        reason = "somebody has paused its container before it took the command"
        if ended.attempt == 1:
            # To be killed it has to go on, and what takes its command meanwhile has run.
            assert (ended.attempt, ended.error) == (1, f"killed just after its command had begun: {reason}")
        else:
            assert first.error == reason
            assert not takes_it
            assert (ended.status, ended.attempt) == ("completed", 2)
        for worker in house.workers:
            worker.stop(10)


def go_on_and_signal(
    runner: DockerRunner,
    engine: docker.APIClient,
    send: Callable[[str, Signal], None],
    container_id: str,
    signal: Signal,
) -> None:
    """Send a signal to a container that, as if the engine were slow, has gone on before."""
    with contextlib.suppress(docker.errors.APIError):
        engine.unpause(container_id)
    wait_until(lambda: runner.is_acknowledged(container_id), 20, "the command is taken")
    send(container_id, signal)


def test_peer_vanishes_during_the_handover(
    house: House, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("container._HAND_OVER_S", "container._UNSEEN_HAND_OVER_S", "report._FIRST_RETRY_DELAY_S"):
        monkeypatch.setattr(f"reactorcide.worker.attempt.{name}", 2.0)
    line = Line()
    (tmp_path / "engine").mkdir()
    begin = house.context.store.attempts.begin_hand_over

    def begin_and_cut(*arguments: object, **options: object) -> None:
        begin(*arguments, **options)  # type: ignore[arg-type]  # handed on as they are
        line.swallows = not line.swallowed.is_set()

    monkeypatch.setattr(house.context.store.attempts, "begin_hand_over", begin_and_cut)
    with tls_engine(tmp_path / "engine", line) as variables, closing(DockerRunner(variables)) as runner:
        house.runner = runner  # type: ignore[assignment]  # a real engine in place of the fake one
        house.worker()
        job = house.submit("echo ran", runner_image=images.default)
        assert line.swallowed.wait(30)
        line.swallows = False
        ended = house.until(job, lambda job: job.is_final, "the job to end")
        assert (ended.status, ended.attempt) == ("completed", 2)
        first, _ = house.context.store.attempts.of_job(job.job_id)
        assert first.error == "its container did not acknowledge the command"
        assert house.log(ended) == "ran\n"
        wait_until(lambda: runner.list("instance") == [], 30, "the containers are gone")
        for worker in house.workers:
            worker.stop(10)
