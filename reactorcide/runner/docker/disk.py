"""Disk usage of a container that the engine does not report, from the file system of this host."""

import contextlib
import logging
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

log = logging.getLogger("reactorcide.runner")

_DU_TIMEOUT_S = 60
_MAX_SEARCH_S = 10.0
"""The longest search through the open files of a container."""
_PLACES = {"HostsPath": "etc/hosts", "ResolvConfPath": "etc/resolv.conf", "HostnamePath": "etc/hostname"}
"""The engine's files that are mounted into each container, and that a job may write to."""
_BLOCK_BYTES = 512


def hidden_bytes(details: Mapping[str, Any]) -> int:
    """Return the disk usage of a running container, described by ``details``, besides its layer and volumes.

    It consists of the files that the engine mounts into it, and of deleted files that are open or mapped.
    Files on another host, or without read permission, do not count.
    """
    mounted = {_PLACES[key]: str(details[key]) for key in _PLACES if details.get(key)}
    process = Path("/proc", str(details["State"]["Pid"]))
    size_bytes = sum(allocated_bytes(path) for path in mounted.values())
    if _is_on_this_host(process, mounted):
        size_bytes += _deleted_bytes(process)
    return size_bytes


def allocated_bytes(path: str) -> int:
    """Return the disk usage of a file; 0 if it is not on this host, or not readable."""
    try:
        return os.stat(path).st_blocks * _BLOCK_BYTES
    except (OSError, ValueError):
        return 0


def tree_bytes(path: str) -> int:
    """Return the disk usage of a directory tree; 0 if it is not on this host, or not readable."""
    if not os.access(path, os.R_OK | os.X_OK):
        return 0
    # A job may create trees that are too deep for a walk in Python, and rename them during the walk.
    try:
        done = subprocess.run(  # noqa: S603  # the path is the engine's
            ["du", "-skx", path],  # noqa: S607  # not everywhere in the same place
            env={"PATH": os.defpath},
            capture_output=True,
            timeout=_DU_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        # The sizes from the engine still count.
        log.warning("a layer or volume could not be measured: %s", exc)
        return 0
    # du complains about files that vanish meanwhile, but prints the sum.
    kib = done.stdout.split(b"\t")[0]
    return int(kib) << 10 if kib.isdigit() else 0


def _is_on_this_host(process: Path, mounted: Mapping[str, str]) -> bool:
    """Return whether this host's process with that number is the container's, by a mounted file."""
    for inside, outside in mounted.items():
        with contextlib.suppress(OSError):
            return os.path.samefile(process / "root" / inside, outside)
    return False


def _deleted_bytes(process: Path) -> int:
    """Return the disk usage of deleted files that a process of the container has open or mapped."""
    in_memory = _memory_devices(process)
    deadline = monotonic() + _MAX_SEARCH_S
    sizes: dict[tuple[int, int], int] = {}
    for directory in _file_directories(process):
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    if (
                        status.st_nlink == 0
                        and stat.S_ISREG(status.st_mode)
                        and status.st_dev not in in_memory
                    ):
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK_BYTES
                if monotonic() >= deadline:
                    return sum(sizes.values())
    return sum(sizes.values())


def _memory_devices(process: Path) -> set[int]:
    """Return the devices of files in memory, which count as memory."""
    devices = set()
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("reactorcide")
        try:
            devices.add(os.fstat(descriptor).st_dev)
        finally:
            os.close(descriptor)
    for place in ("dev", "dev/shm"):
        with contextlib.suppress(OSError):
            devices.add((process / "root" / place).stat().st_dev)
    return devices


def _file_directories(process: Path) -> Iterator[Path]:
    """Yield the directories of /proc with the open and mapped files of each process of a container."""
    for other in _same_namespace(process):
        yield other / "map_files"
        with contextlib.suppress(OSError):
            # A thread may have open files of its own.
            yield from (task / "fd" for task in _numbered(other / "task"))


def _same_namespace(process: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        namespace = (process / "ns" / "pid").stat().st_ino
        for other in _numbered(Path("/proc")):
            with contextlib.suppress(OSError):
                if (other / "ns" / "pid").stat().st_ino == namespace:
                    yield other


def _numbered(directory: Path) -> Iterable[Path]:
    return [Path(entry.path) for entry in os.scandir(directory) if entry.name.isdigit()]
