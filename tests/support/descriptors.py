"""Limit how many file descriptors a process may open."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_descriptors(pid: int) -> set[int]:
    """Return the descriptors that a process has open; of this one without the listing's own."""
    numbers = map(int, os.listdir(f"/proc/{pid}/fd"))
    return {number for number in numbers if os.path.lexists(f"/proc/{pid}/fd/{number}")}


@contextmanager
def few_descriptors(number: int, pid: int | None = None) -> Iterator[None]:
    """Let a process, this one by default, open no more than ``number`` further descriptors."""
    pid = os.getpid() if pid is None else pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    in_use = open_descriptors(pid)
    free = [place for place in range(len(in_use) + number + 1) if place not in in_use]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[number], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
