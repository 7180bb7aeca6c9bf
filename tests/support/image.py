"""The images that test jobs run in, built from the host's busybox, so that no registry is needed."""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import pytest

_PATH = "/bin"
_PASSWD = b"root:x:0:0:root:/:/bin/sh\nbuilder:x:1000:1000:builder:/:/bin/sh\n"


@dataclass(frozen=True, slots=True)
class Images:
    """Names of images that the engine has."""

    default: str
    """Has a shell and busybox's commands; its user is root."""
    user_1000: str
    """The same, but its user is 1000."""
    no_shell: str
    """Has nothing but ``/etc/passwd``."""
    filesystem: bytes
    """The default image's files, as a tar."""


def build_images(client: docker.APIClient) -> Images:
    """Return the images, making those that are missing; fails with a sentence where that can't be.

    ``REACTORCIDE_TEST_IMAGE`` names another default image, from which its variant is then made.
    """
    try:
        client.ping()
    except docker.errors.DockerException as exc:
        pytest.fail(f"these tests need a Docker Engine, and none answers: {exc}", pytrace=False)
    with _one_process():
        return _images(client)


def image_with_shell(client: docker.APIClient, shell: str, variables: dict[str, str] | None = None) -> str:
    """Return an image whose ``/bin/sh`` is ``dash`` or ``bash`` of this host, or busybox as in the others.

    Skips the test where the host has no such shell. ``variables`` are those of the image.
    """
    changes = [f"ENV PATH={_PATH}", *(f"ENV {name}={value}" for name, value in (variables or {}).items())]
    with _one_process():
        return _imported(client, f"sh-{shell}", _shell_tar(shell), changes)


def image_with_script_as_shell(client: docker.APIClient, script: str) -> str:
    """Return an image whose ``/bin/sh`` is a script of the shell ``/bin/busybox sh``."""
    tar = _busybox_tar({"bin/sh": f"#!/bin/busybox sh\n{script}\n".encode()})
    with _one_process():
        return _imported(client, "script", tar, [f"ENV PATH={_PATH}"])


def _shell_tar(shell: str) -> bytes:
    if shell == "busybox":
        return _busybox_tar()
    program = shutil.which(shell, path="/bin:/usr/bin")
    if program is None:
        pytest.skip(f"this host has no {shell}")
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    needed = [word for word in listed.split() if word.startswith("/")]
    # Without its locale a bash in UTF-8 is one in C, which is another matter.
    locale = Path("/usr/lib/locale/C.utf8")
    needed += [str(path) for path in locale.rglob("*") if path.is_file()]
    files = {path.lstrip("/"): Path(path).read_bytes() for path in needed}
    return _busybox_tar({"bin/sh": Path(program).read_bytes(), **files})


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Keep the tests' other processes waiting: an image that is imported again is missing for a moment."""
    path = Path(tempfile.gettempdir(), f"reactorcide-test-images-{os.getuid()}.lock")
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _images(client: docker.APIClient) -> Images:
    empty = _tar({"etc/passwd": _PASSWD})
    no_shell = _imported(client, "no-shell", empty, ["CMD /bin/sh"])
    default = os.environ.get("REACTORCIDE_TEST_IMAGE")
    if default is None:
        filesystem = _busybox_tar()
        default = _imported(client, "busybox", filesystem, [f"ENV PATH={_PATH}"])
    else:
        filesystem = _exported(client, default)
    user_1000 = _imported(client, "user-1000", filesystem, [f"ENV PATH={_PATH}:/usr/bin", "USER 1000"])
    return Images(default, user_1000, no_shell, filesystem)


def _busybox_tar(more: dict[str, bytes] | None = None) -> bytes:
    path = shutil.which("busybox")
    if path is None:
        pytest.fail("these tests need busybox on this host: install busybox-static", pytrace=False)
    binary = Path(path).read_bytes()
    if _needs_loader(binary):
        pytest.fail(f"{path} is not a static binary: install busybox-static", pytrace=False)
    applets = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout.split()
    files = {"bin/busybox": binary, "etc/passwd": _PASSWD, **(more or {})}
    links = {f"bin/{name}": "busybox" for name in applets if f"bin/{name}" not in files}
    return _tar(files, links)


def _needs_loader(binary: bytes) -> bool:
    """Tell whether a 64 bit ELF program has a PT_INTERP header (elf(5)): then it needs files beside it."""
    (offset,) = struct.unpack_from("<Q", binary, 32)
    size, count = struct.unpack_from("<HH", binary, 54)
    return any(struct.unpack_from("<I", binary, offset + size * i)[0] == 3 for i in range(count))


def _tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE
            member.linkname = target
            archive.addfile(member)
        # As every distribution has it: anybody may write there.
        member = tarfile.TarInfo("tmp")
        member.type, member.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(member)
    return buffer.getvalue()


def _imported(client: docker.APIClient, variant: str, tar: bytes, changes: list[str]) -> str:
    # Named by its content, so that it is built once per machine and never out of date.
    digest = hashlib.sha256(tar + repr(changes).encode()).hexdigest()[:12]
    repository, tag = "reactorcide-test", f"{variant}-{digest}"
    name = f"{repository}:{tag}"
    if not client.images(name):
        client.import_image_from_data(tar, repository=repository, tag=tag, changes=changes)
        assert client.images(name), f"the engine did not import {name}"
    return name


def _exported(client: docker.APIClient, image: str) -> bytes:
    container = client.create_container(image, command=["true"])
    try:
        return b"".join(client.export(container))
    finally:
        client.remove_container(container, v=True, force=True)
