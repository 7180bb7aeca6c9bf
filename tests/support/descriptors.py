"""A process that is left few file descriptors."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors(pid: int) -> set[int]:
    """Return the descriptors that a process has open; of this one without the listing's own."""
    found = map(int, os.listdir(f"/proc/{pid}/fd"))
    return {number for number in found if os.path.lexists(f"/proc/{pid}/fd/{number}")}


@contextmanager
def descriptors_left(number: int, pid: int | None = None) -> Iterator[None]:
    """Leave a process, this one by default, so many further descriptors."""
    pid = os.getpid() if pid is None else pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = open_descriptors(pid)
    free = [place for place in range(len(taken) + number + 1) if place not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[number], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
