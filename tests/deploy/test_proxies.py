"""A service of the wheel behind nginx and Caddy, over TLS and below a path, by the files in deploy/."""

import hashlib
import hmac
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from tests.conftest import ended_cleanly
from tests.deploy.conftest import DEPLOY
from tests.support.certificate import Certificate, make_certificate
from tests.support.image import Images
from tests.support.ports import free_port
from tests.support.remote import RemoteWorker
from tests.support.service import Service
from tests.support.tars import member, tar_gz
from tests.support.waiting import wait_until

SITE = "ci.example.com"
PROGRAMS = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("nginx", "caddy")}


@dataclass(frozen=True)
class Installed:
    """The service, and what is in front of it."""

    service: Service
    port: int
    """The proxy's."""
    certificate: Certificate

    @property
    def url(self) -> str:
        """The service's public URL."""
        return f"https://localhost:{self.port}/ci"


@pytest.fixture(scope="module")
def installed(
    unpacked: Path, tmp_path_factory: pytest.TempPathFactory, images: Images, engine: docker.APIClient
) -> Iterator[Installed]:
    """A service of the wheel, started as systemd does."""
    directory = tmp_path_factory.mktemp("installed")
    launcher = unpacked / "launch.py"
    launcher.write_text(
        "import reactorcide\n"
        "from reactorcide.cli import main\n"
        f"assert reactorcide.__file__.startswith({str(unpacked)!r}), reactorcide.__file__\n"
        "main()\n"
    )
    port = free_port()
    service = Service(
        directory / "service",
        images.default,
        {"NOTIFY_SOCKET": str(directory / "notify")},
        concurrency=1,
        # Others are for a worker on another machine.
        queue="default",
        cancel_grace=1,
        public_url=f"https://localhost:{port}/ci",
        trusted_proxy="127.0.0.1",
    )
    service.program = (sys.executable, str(launcher))
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
        told.bind(str(directory / "notify"))
        told.settimeout(10)
        service.start()
        assert told.recv(1000) == b"READY=1"
        # Not before it listened, as gunicorn does it.
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(1000)
    for running in ended_cleanly(service, engine):
        yield Installed(running, port, make_certificate(directory))


@contextmanager
def nginx(installed: Installed, directory: Path) -> Iterator[None]:
    """Run nginx with deploy/nginx.conf: with another port and certificate, and writing nowhere else."""
    site = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{installed.port} ssl"),
        (f"/etc/ssl/{SITE}.pem", str(installed.certificate.cert)),
        (f"/etc/ssl/private/{SITE}.key", str(installed.certificate.key)),
        ("127.0.0.1:8080", f"127.0.0.1:{installed.service.port}"),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;"
        f"events {{}} http {{ access_log off; {places} {site} }}"
    )
    log = directory / "error.log"
    with running("nginx", "-p", directory, "-e", log, "-c", configuration, directory=directory):
        yield


@contextmanager
def caddy(installed: Installed, directory: Path) -> Iterator[None]:
    """Run Caddy with deploy/Caddyfile: with another port and certificate, and writing nowhere else."""
    site = (DEPLOY / "Caddyfile").read_text()
    for old, new in (
        (
            f"\n{SITE} {{\n",
            f"\nlocalhost:{installed.port} {{\n\ttls {installed.certificate.cert} "
            f"{installed.certificate.key}\n",
        ),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
    assert site.count("127.0.0.1:8080") == 2
    site = site.replace("127.0.0.1:8080", f"127.0.0.1:{installed.service.port}")
    configuration = directory / "Caddyfile"
    configuration.write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + site
    )
    arguments = ("run", "--adapter", "caddyfile", "--config", configuration)
    with running("caddy", *arguments, directory=directory):
        yield


@contextmanager
def running(name: str, *arguments: object, directory: Path) -> Iterator[None]:
    """Run a proxy until the body ends."""
    command = [str(PROGRAMS[name]), *map(str, arguments)]
    environment = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory / "data")}
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stderr=log) as proxy,
    ):
        try:
            yield
        finally:
            proxy.terminate()
            proxy.wait(20)


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def front(
    request: pytest.FixtureRequest, installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[requests.Session]:
    """A client of the service behind one of the proxies."""
    name = request.param.__name__
    if PROGRAMS[name] is None:
        pytest.skip(f"there is no {name}")
    with request.param(installed, tmp_path_factory.mktemp(name)), requests.Session() as session:
        session.trust_env = False
        session.verify = str(installed.certificate.cert)

        def passes() -> bool:
            try:
                return session.get(f"{installed.url}/api/v1/health", timeout=10).status_code == 200
            except requests.ConnectionError:
                return False

        wait_until(passes, 20, f"{name} passes requests on")
        yield session


def bearer(installed: Installed) -> dict[str, str]:
    return {"Authorization": f"Bearer {installed.service.admin.token}"}


def test_pages_and_documents_are_below_the_path(front: requests.Session, installed: Installed) -> None:
    page = front.get(installed.url, timeout=10)
    assert page.url.startswith(f"{installed.url}/")
    assert (page.status_code, "Sign in" in page.text) == (401, True)
    files = re.findall(r'(?:href|src)="(/[^"]*static/[^"]*)"', page.text)
    assert files
    for path in files:
        assert path.startswith("/ci/")
        assert front.get(installed.url.removesuffix("/ci") + path, timeout=10).status_code == 200
    assert front.get(f"{installed.url}/api/v1/openapi.json", timeout=20).status_code == 200


def test_sign_in_link_gives_a_cookie_for_tls_alone(front: requests.Session, installed: Installed) -> None:
    command = [*(installed.service.program or ()), "open"]
    environment = {
        "REACTORCIDE_DATA_DIR": str(installed.service.data_dir),
        "HOME": str(installed.service.home),
    }
    link = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    address, _, value = link.partition("?link=")
    assert address == f"{installed.url}/sign-in"
    answer = front.post(
        address,
        data={"link": value},
        headers={"Origin": installed.url.removesuffix("/ci")},
        allow_redirects=False,
        timeout=20,
    )
    assert answer.status_code == 303
    assert "Secure" in answer.headers["Set-Cookie"]


def test_log_is_followed_while_its_job_runs(front: requests.Session, installed: Installed) -> None:
    api = installed.service.admin
    job = api.submit("echo begun; while [ ! -e /tmp/never ]; do sleep 0.1; done")
    url = f"{installed.url}/api/v1/jobs/{job['job_id']}/logs?follow=true"
    try:
        with front.get(url, headers=bearer(installed), stream=True, timeout=30) as log:
            assert next(log.iter_content(1000)) == b"begun\n"
    finally:
        api.cancel(job)
        api.wait(job)


def test_events_arrive_one_by_one(front: requests.Session, installed: Installed) -> None:
    api, url = installed.service.admin, f"{installed.url}/api/v1/events"
    with front.get(url, headers=bearer(installed), stream=True, timeout=30) as events:
        assert events.status_code == 200
        lines = events.iter_lines(chunk_size=1)
        for _ in range(2):
            # The next job is not submitted before the last event of this one is there.
            job = api.submit("true")
            seen = (json.loads(line.removeprefix(b"data:")) for line in lines if line.startswith(b"data:"))
            assert next(event for event in seen if event["to"] == "completed")["job_id"] == job["job_id"]


def test_large_upload_arrives_whole(front: requests.Session, installed: Installed) -> None:
    noise = random.Random(3).randbytes(16 << 20)  # noqa: S311  # what does not compress
    data = tar_gz(member("noise", noise))
    headers = bearer(installed) | {"Content-Type": "application/gzip"}
    # With and without a length: the second in pieces, of which nobody knows beforehand how many there are.
    for body in (data, (data[at : at + 65536] for at in range(0, len(data), 65536))):
        answer = front.post(f"{installed.url}/api/v1/sources", data=body, headers=headers, timeout=60)
        assert answer.json()["source_id"] == hashlib.sha256(data).hexdigest()
    source_id = answer.json()["source_id"]
    job = installed.service.admin.run("cp noise /job/artifacts", source_id=source_id)
    url = f"{installed.url}/api/v1/jobs/{job['job_id']}/artifacts/noise"
    assert front.get(url, headers=bearer(installed), timeout=60).content == noise


def test_webhook_of_a_forge_arrives_unchanged(front: requests.Session, installed: Installed) -> None:
    body: dict[str, Any] = {"name": f"acme/{random.random()}", "git_url": "https://github.com/acme/site"}  # noqa: S311  # a name
    project = front.post(
        f"{installed.url}/api/v1/projects",
        json=body | {"forge": "github"},
        headers=bearer(installed),
        timeout=20,
    ).json()
    address, secret = project["settings"]["webhook_url"], project["webhook_secret"]
    assert address.startswith(f"{installed.url}/api/v1/hooks/")
    small, large = json.dumps({"zen": "é"}).encode(), json.dumps({"padding": "x" * (20 << 20)}).encode()
    for number, (event, payload) in enumerate((("ping", small), ("star", large))):
        signature = hmac.digest(secret.encode(), payload, "sha256").hex()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": f"{project['project_id']}-{number}",
        }
        signed = headers | {"X-Hub-Signature-256": f"sha256={signature}"}
        assert front.post(address, data=payload, headers=signed, timeout=60).status_code == 202
        signed = headers | {"X-Hub-Signature-256": f"sha256={'0' * 64}"}
        assert front.post(address, data=payload, headers=signed, timeout=60).status_code == 401


def test_worker_on_another_machine_runs_jobs_through_the_proxy(
    front: requests.Session, installed: Installed, tmp_path: Path, engine: docker.APIClient
) -> None:
    api = installed.service.admin
    name = f"far-{tmp_path.name}"[:60]
    worker = RemoteWorker(
        installed.service,
        tmp_path / "worker",
        name,
        "far",
        server=installed.url,
        ca_file=make_certificate(tmp_path).cert,
    )
    try:
        worker.launch()
        wait_until(lambda: "is not trusted" in worker.log_text(), 20, "the certificate is refused")
        assert "name the certificate of its authority with --ca-file" in worker.log_text()
        worker.stop()
        worker.options["ca_file"] = installed.certificate.cert
        worker.start()
        noise = random.Random(4).randbytes(3 << 20)  # noqa: S311  # what does not compress
        headers = {"Content-Type": "application/gzip"}
        source = api.request("POST", "sources", data=tar_gz(member("noise", noise)), headers=headers).json()
        command = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; cp noise /job/artifacts"
        job = api.submit(command, source_id=source["source_id"], queue_name="far")
        with api.follow(job) as lines:
            assert next(lines) == b"begun"
            [container] = worker.containers(engine)
            touch = engine.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # in the container
            engine.exec_start(touch["Id"])
        ended = api.wait(job)
        assert (ended["status"], ended["worker_id"]) == ("completed", worker.worker_id)
        assert api.request("GET", f"jobs/{job['job_id']}/artifacts/noise").content == noise
        job = api.submit("sleep 60", queue_name="far")
        api.wait(job, "running")
        api.cancel(job)
        wait_until(lambda: not worker.containers(engine), 20, "the container of a cancelled job is ended")
        worker.stop()
    finally:
        worker.kill()
        for container in worker.containers(engine):
            engine.remove_container(container["Id"], v=True, force=True)
