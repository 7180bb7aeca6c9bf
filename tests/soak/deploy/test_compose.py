"""What Compose makes of the files compose.yaml and compose.scale.yaml, with the image of this checkout."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from tests.soak.deploy.conftest import ROOT, run, wait_until_it_answers
from tests.soak.deploy.test_image import assert_complete, client, counting
from tests.support.engine_proxy import ENGINE_SOCKET, TcpProxy
from tests.support.image import Images
from tests.support.ports import free_port
from tests.support.postgresql import cluster
from tests.support.s3 import S3Server

Compose = Callable[..., str]
# The network of compose.scale.yaml: this host's address on it.
GATEWAY = "172.31.202.1"


class S3OnNetwork(TcpProxy):
    """The tests' S3 server, on the network of the containers."""

    def _bound(self) -> socket.socket:
        return socket.create_server((GATEWAY, self.port))


def compose() -> list[str]:
    """Return the words of Compose: Docker's plugin, or Debian's older program."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        pytest.fail("there is no Compose: install docker-compose", pytrace=False)
    return ["docker-compose"]


@contextmanager
def project(*files: Path, image: str, directory: Path, **variables: str) -> Iterator[tuple[Compose, str]]:
    """Yield a function that runs Compose on files, and the service's URL; removes all that it has created."""
    port = free_port()
    environment = {
        **os.environ,
        "DOCKER_GID": str(os.stat(ENGINE_SOCKET).st_gid),
        "IMAGE": image,
        "PORT": str(port),
        "PUBLIC_URL": f"http://localhost:{port}",
        "COMPOSE_PROJECT_NAME": f"reactorcide-test-{os.getpid()}-{time.monotonic_ns()}",
        **variables,
    }

    def call(*words: str) -> str:
        named = [word for file in files for word in ("--file", str(file))]
        return run(*compose(), *named, *words, env=environment, cwd=directory)

    try:
        yield call, f"http://127.0.0.1:{port}"
    except AssertionError as exc:
        exc.add_note(call("logs", "--tail", "40"))
        raise
    finally:
        call("down", "--volumes")


def token_of(call: Compose, url: str) -> str:
    """Return the admin's token once the service answers."""
    wait_until_it_answers(url)
    return call("exec", "-T", "service", "cat", "/data/admin-token").strip()


def test_service_alone_keeps_its_jobs_and_data(
    service_image: str, images: Images, engine: docker.APIClient, tmp_path: Path
) -> None:
    file = ROOT / "deploy" / "compose.yaml"
    with project(file, image=service_image, directory=tmp_path) as (call, url):
        call("up", "--detach", "--no-build")
        token = token_of(call, url)
        with client(url, token) as api:
            link = call("exec", "-T", "service", "reactorcide", "open")
            assert f"{url.replace('127.0.0.1', 'localhost')}/sign-in" in link
            job = counting(api, images)
        call("down")
        call("up", "--detach", "--no-build")
        with client(url, token) as api:
            assert_complete(api, engine, job)
        call("stop")


def test_worker_queue_database_and_bucket_outside_of_the_service(
    service_image: str, images: Images, engine: docker.APIClient, tmp_path: Path, s3: S3Server
) -> None:
    # No images of PostgreSQL and of an S3 server can be had here: those of the tests take their places.
    cluster().directory.chmod(0o755)
    database = cluster().new_url().partition("@/")[2].partition("?")[0]
    relay = S3OnNetwork(int(s3.url.rpartition(":")[2]))
    override = tmp_path / "override.yaml"
    override.write_text(
        f"services:\n"
        f"  service:\n"
        f"    volumes: ['{cluster().directory}:/postgresql']\n"
        f"    environment:\n"
        f"      AWS_ENDPOINT_URL: 'http://{GATEWAY}:{relay.port}'\n"
        f"      REACTORCIDE_DATABASE: 'postgresql://reactorcide@/{database}?host=/postgresql'\n"
        f"  postgresql: &idle\n"
        f"    image: '{service_image}'\n"
        f"    entrypoint: [sleep, infinity]\n"
        f"    healthcheck: {{disable: true}}\n"
        f"  s3: *idle\n"
    )
    s3.client.create_bucket(Bucket="reactorcide")
    token_file = tmp_path / "worker-token"
    token_file.touch()
    files = (ROOT / "deploy" / "compose.scale.yaml", override)
    variables = {
        "S3_KEY": "testing",
        "PG_SECRET": "x",
        "S3_SECRET": "testing",
        "WORKER_TOKEN_FILE": str(token_file),
    }
    with project(*files, image=service_image, directory=tmp_path, **variables) as (call, url):
        call("up", "--no-start", "--no-build", "service")
        relay.on()
        try:
            call("up", "--detach", "--no-build", "corndogs", "s3", "service")
            token = token_of(call, url)
            token_file.write_text(call("exec", "-T", "service", "reactorcide", "workers", "add", "build-1"))
            os.chown(token_file, 10001, 10001)
            call("up", "--detach", "--no-build", "worker")
            with client(url, token, path="health") as api:
                job = counting(api, images)
                # Each of them is stopped and started while the job runs.
                for name in ("worker", "corndogs"):
                    call("stop", name)
                    call("start", name)
                assert_complete(api, engine, job)
            stored = cluster().execute("SELECT status FROM job", database)
            assert stored == [("completed",)]
            objects = s3.client.list_objects_v2(Bucket="reactorcide")["Contents"]
            assert any(job["job_id"] in item["Key"] for item in objects)
        finally:
            relay.off()
