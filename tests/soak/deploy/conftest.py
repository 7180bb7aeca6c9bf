"""A Debian for containers, made by debootstrap: no registry of images is needed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import requests

from tests.support.service import PROGRAM
from tests.support.waiting import wait_until

ROOT = PROGRAM.parent
DEBIAN = "reactorcide-test-debian:bookworm"
BASE = "reactorcide-test-debian:bookworm-python"
IMAGE = "reactorcide:test"
_MIRROR = "http://deb.debian.org/debian"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
# As an operator's own base would have it: the certificates of the network that the build goes through.
_DOCKERFILE = f"""\
FROM {DEBIAN}
COPY certificates /usr/local/share/ca-certificates/
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && update-ca-certificates && rm -rf /var/lib/apt/lists/*
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


def run(*command: object, **options: object) -> str:
    """Return the output of a program, which must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]  # any option
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return str(done.stdout)


@pytest.fixture(scope="session")
def debian(engine: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of Debian with its essential packages, without Python. It stays for the next time."""
    if not engine.images(DEBIAN):
        root = tmp_path_factory.mktemp("debian") / "root"
        run("debootstrap", "--variant=minbase", "bookworm", root, _MIRROR)
        run("sh", "-c", f"tar -C {root} -c . | docker import - {DEBIAN}")
        run("rm", "-rf", "--one-file-system", root)
    return DEBIAN


@pytest.fixture(scope="session")
def base(debian: str, engine: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of Debian that the Dockerfile can begin with. It stays for the next time."""
    if not engine.images(BASE):
        context = tmp_path_factory.mktemp("base")
        (context / "certificates").mkdir()
        for certificate in _CERTIFICATES.glob("*.crt"):
            (context / "certificates" / certificate.name).write_bytes(certificate.read_bytes())
        (context / "Dockerfile").write_text(_DOCKERFILE)
        run("docker", "build", "--network", "host", "--tag", BASE, context)
    return BASE


@pytest.fixture(scope="session")
def service_image(base: str) -> str:
    """The image that the Dockerfile makes of this checkout."""
    arguments = ("--network", "host", "--build-arg", f"BASE={base}", "--tag", IMAGE)
    run("docker", "build", *arguments, "--file", ROOT / "deploy" / "Dockerfile", ROOT)
    return IMAGE


@contextmanager
def container(*arguments: object) -> Iterator[str]:
    """Run a container with ``docker run --detach``; yield its id, and remove it with its volumes."""
    name = run("docker", "run", "--detach", *arguments).strip()
    try:
        yield name
    except Exception as exc:
        logged = subprocess.run(["docker", "logs", "--tail", "40", name], capture_output=True, check=False)
        exc.add_note((logged.stdout + logged.stderr).decode(errors="replace"))
        raise
    finally:
        run("docker", "rm", "--force", "--volumes", name)


def wait_until_it_answers(url: str, path: str = "health") -> None:
    """Return when a service answers; with ``ready`` when it can run jobs itself, too."""

    def answers() -> bool:
        try:
            return requests.get(f"{url}/api/v1/{path}", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    wait_until(answers, 60, f"{url} answers")
