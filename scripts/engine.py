"""What the scripts here ask of a Docker Engine; the ``docker`` command need not be installed.

``engine.py ping``, ``has IMAGE``, ``pull IMAGE`` or ``import-busybox IMAGE``. Exits with 0 for yes or
done and with 1 for no, then with a sentence on standard error.
"""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing

import docker
import docker.errors
import requests

_ANSWER_TIMEOUT_S = 10
_PULL_TIMEOUT_S = 20
_BUSYBOX = "/bin/busybox"


def ping(client: docker.DockerClient) -> None:
    """Return if the engine answers."""
    client.ping()


def pull(client: docker.DockerClient, image: str) -> None:
    """Pull an image, or give up after 20 s: without a registry the engine would try for minutes."""

    def give_up(*_: object) -> None:
        sys.exit(f"{image} could not be pulled within {_PULL_TIMEOUT_S} s.")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_PULL_TIMEOUT_S)
    client.images.pull(image)


def has(client: docker.DockerClient, image: str) -> None:
    """Return if the image is there."""
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        sys.exit(1)


def import_busybox(client: docker.DockerClient, image: str) -> None:
    """Make an image of the static busybox: the program, a link for each of its names, and ``/tmp``."""
    listing = subprocess.run([_BUSYBOX, "--list"], check=True, capture_output=True, text=True)  # noqa: S603  # fixed words
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            directory = tarfile.TarInfo(path)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        tar.add(_BUSYBOX, "bin/busybox")
        for name in listing.stdout.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                tar.addfile(link)
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    repository, _, tag = image.partition(":")
    client.api.import_image_from_data(
        buffer.getvalue(), repository=repository, tag=tag, changes=['CMD ["/bin/sh"]']
    )
    has(client, image)


_ACTIONS: dict[str, Callable[..., None]] = {
    "ping": ping,
    "has": has,
    "pull": pull,
    "import-busybox": import_busybox,
}


def main(action: str, *arguments: str) -> None:
    """Do one thing, and exit with 1 and a sentence if that fails."""
    try:
        with closing(docker.from_env(timeout=_ANSWER_TIMEOUT_S)) as client:
            _ACTIONS[action](client, *arguments)
    except (docker.errors.DockerException, requests.RequestException) as exc:
        where = os.environ.get("DOCKER_HOST", "this machine")
        sys.exit(f"The Docker Engine of {where} could not do '{' '.join((action, *arguments))}': {exc}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
