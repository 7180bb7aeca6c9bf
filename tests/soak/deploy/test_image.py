"""The image of deploy/Dockerfile."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker

from tests.soak.deploy.conftest import container, run, wait_until_it_answers
from tests.support.client import Client, Job
from tests.support.engine_proxy import ENGINE_SOCKET, EngineProxy
from tests.support.image import Images
from tests.support.waiting import wait_until

COUNTING = (
    "i=0; while [ ! -e /tmp/go ]; do i=$((i+1)); echo $i; sleep 0.02; done;"
    " echo x >/job/artifacts/x; echo end"
)
# As in compose.yaml.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),  # noqa: S108  # in the container
    *("--publish", "127.0.0.1::8080", "--env", "REACTORCIDE_WARM=0"),
)
BY_SOCKET = ("--volume", f"{ENGINE_SOCKET}:{ENGINE_SOCKET}", "--group-add", os.stat(ENGINE_SOCKET).st_gid)


class TcpEngine(EngineProxy):
    """The engine at a TCP port, without TLS, on the network of containers."""

    def __init__(self, host: str) -> None:
        super().__init__(Path())
        self._host = host

    @property
    def url(self) -> str:
        """What a client's ``DOCKER_HOST`` is, while it is on."""
        assert self._listener is not None
        return f"tcp://{self._host}:{self._listener.getsockname()[1]}"

    def _bound(self) -> socket.socket:
        return socket.create_server((self._host, 0))

    def _unbind(self) -> None:
        pass


@contextmanager
def client(url: str, token: str, path: str = "ready") -> Iterator[Client]:
    """Yield a client of a service that answers at ``path``."""
    wait_until_it_answers(url, path)
    with closing(Client(url, token)) as api:
        yield api


def url_of(name: str) -> str:
    return f"http://{run('docker', 'port', name, '8080/tcp').split()[0]}"


def token_of(name: str) -> str:
    def read() -> str:
        done = subprocess.run(
            ["docker", "exec", name, "cat", "/data/admin-token"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    wait_until(lambda: bool(read()), 60, "the service has written its token")
    return read()


def containers_of(engine: docker.APIClient, job: Job) -> list[str]:
    found = engine.containers(all=True, filters={"name": f"reactorcide-{job['job_id']}"})
    return [item["Id"] for item in found]


def counting(api: Client, images: Images) -> Job:
    job = api.submit(COUNTING, runner_image=images.default)
    wait_until(lambda: api.log(job).count(b"\n") > 20, 30, "it counts")
    return job


def assert_complete(api: Client, engine: docker.APIClient, job: Job) -> None:
    """Release a counting job, and check that it ends in its first attempt with each line of its log once."""
    seen = api.log(job).count(b"\n")
    wait_until(lambda: api.log(job).count(b"\n") > seen + 20, 30, "its log continues")
    (one,) = containers_of(engine, job)
    # Its command may end before that of `exec` has, and take it along.
    subprocess.run(["docker", "exec", one, "touch", "/tmp/go"], capture_output=True, check=False)  # noqa: S108  # in the container
    ended = api.wait(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    *numbers, end = api.log(job).splitlines()
    assert (numbers, end) == ([b"%d" % i for i in range(1, len(numbers) + 1)], b"end")
    assert api.artifact_paths(job) == ["x"]
    wait_until(lambda: not containers_of(engine, job), 10, "its container is gone")


def stop(name: str) -> None:
    """Stop a container as ``docker stop`` does; its service must end by itself, in time."""
    run("docker", "stop", name)
    assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"


def test_image_runs_jobs_by_the_engines_socket_and_continues_after_a_stop(
    service_image: str, images: Images, engine: docker.APIClient
) -> None:
    with container(*HARDENED, *BY_SOCKET, service_image) as name:
        token = token_of(name)
        assert run("docker", "exec", name, "id", "-u").strip() == "10001"
        with client(url_of(name), token) as api:
            # No engine at a default address; git and all else that it needs.
            run("docker", "exec", name, "reactorcide", "doctor")
            assert "signs you in" in run("docker", "exec", name, "reactorcide", "open", "--help")
            job = counting(api, images)
        stop(name)
        assert len(containers_of(engine, job)) == 1
        run("docker", "start", name)
        with client(url_of(name), token) as api:
            assert_complete(api, engine, job)
        stop(name)


def test_image_runs_jobs_on_an_engine_over_tcp(
    service_image: str, images: Images, engine: docker.APIClient
) -> None:
    # With an address of this host on it that does not depend on the engine's defaults.
    network, host = f"reactorcide-test-{os.getpid()}", "172.31.201.1"
    run("docker", "network", "create", "--subnet", "172.31.201.0/24", "--gateway", host, network)
    relay = TcpEngine(host)
    try:
        relay.on()
        options = (*HARDENED, "--network", network, "--env", f"DOCKER_HOST={relay.url}")
        with container(*options, service_image) as name:
            with client(url_of(name), token_of(name)) as api:
                assert_complete(api, engine, counting(api, images))
            stop(name)
    finally:
        relay.off()
        run("docker", "network", "rm", network)


def test_image_is_healthy_by_its_own_check(service_image: str, engine: docker.APIClient) -> None:
    with container("--health-interval", "1s", *HARDENED, *BY_SOCKET, service_image) as name:
        wait_until(
            lambda: engine.inspect_container(name)["State"]["Health"]["Status"] == "healthy",
            60,
            "it is healthy",
        )
        stop(name)
