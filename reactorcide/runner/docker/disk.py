"""What a container takes of the disk that the engine does not tell: asked of the file system of this host."""

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
"""Files of the engine's that are mounted into each container, and that a job may write to."""
_BLOCK_BYTES = 512


def hidden_bytes(details: Mapping[str, Any]) -> int:
    """Return what a running container takes beside its layer and volumes, by the engine's description of it.

    That is in the files that the engine mounts into it, and in those that have no name any more but are open
    or mapped. What is not on this host, or may not be looked into, counts nothing.
    """
    mounted = {_PLACES[key]: str(details[key]) for key in _PLACES if details.get(key)}
    process = Path("/proc", str(details["State"]["Pid"]))
    found = sum(taken_bytes(path) for path in mounted.values())
    if _is_on_this_host(process, mounted):
        found += _unnamed_bytes(process)
    return found


def taken_bytes(path: str) -> int:
    """Return what a file takes; 0 where it is not on this host, or not ours to look at."""
    try:
        return os.stat(path).st_blocks * _BLOCK_BYTES
    except (OSError, ValueError):
        return 0


def tree_bytes(path: str) -> int:
    """Return what a directory and all below it take; 0 where it is not on this host, or not ours to read."""
    if not os.access(path, os.R_OK | os.X_OK):
        return 0
    # A job may build trees that are too deep for a walk of our own, and rename them while that is in them.
    try:
        done = subprocess.run(  # noqa: S603  # the path is the engine's
            ["du", "-skx", path],  # noqa: S607  # not everywhere in the same place
            env={"PATH": os.defpath},
            capture_output=True,
            timeout=_DU_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        # What the engine itself has told still counts.
        log.warning("a layer or volume could not be measured: %s", exc)
        return 0
    # What vanishes meanwhile is complained of, and the sum is told all the same.
    kib = done.stdout.split(b"\t")[0]
    return int(kib) << 10 if kib.isdigit() else 0


def _is_on_this_host(process: Path, mounted: Mapping[str, str]) -> bool:
    """Tell whether this host's process of that number is the container's, by a file that both know."""
    for inside, outside in mounted.items():
        with contextlib.suppress(OSError):
            return os.path.samefile(process / "root" / inside, outside)
    return False


def _unnamed_bytes(process: Path) -> int:
    """Return what files take that have no name any more, and that a process of the container holds."""
    in_memory = _memory_devices(process)
    deadline = monotonic() + _MAX_SEARCH_S
    sizes: dict[tuple[int, int], int] = {}
    for directory in _held(process):
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
    """Return the devices of files that are in memory, and so count as that."""
    found = set()
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("reactorcide")
        try:
            found.add(os.fstat(descriptor).st_dev)
        finally:
            os.close(descriptor)
    for place in ("dev", "dev/shm"):
        with contextlib.suppress(OSError):
            found.add((process / "root" / place).stat().st_dev)
    return found


def _held(process: Path) -> Iterator[Path]:
    """Yield the directories in which the kernel shows the files of each process of a container."""
    for other in _same_namespace(process):
        yield other / "map_files"
        with contextlib.suppress(OSError):
            # A thread may have open files of its own.
            yield from (task / "fd" for task in _numbered(other / "task"))


def _same_namespace(process: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        wanted = (process / "ns" / "pid").stat().st_ino
        for other in _numbered(Path("/proc")):
            with contextlib.suppress(OSError):
                if (other / "ns" / "pid").stat().st_ino == wanted:
                    yield other


def _numbered(directory: Path) -> Iterable[Path]:
    return [Path(entry.path) for entry in os.scandir(directory) if entry.name.isdigit()]
