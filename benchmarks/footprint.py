"""The memory of an idle service, and the time of its start."""

import re
from pathlib import Path
from time import sleep

from benchmarks.figures import Figure, alone
from benchmarks.service import serving

_SETTLE_S = 3.0


def idle_memory(image: str, *, quick: bool) -> Figure:
    """Return the memory of all the service's processes, idle again after a first job.

    Shared pages count proportionally (PSS), so that the sum is the memory that would be freed.
    """
    sums = []
    for _ in range(1 if quick else 3):
        with serving() as service:
            client = service.client()
            client.wait(client.submit(image))
            client.close()
            sleep(_SETTLE_S)
            sums.append(sum(_pss_bytes(pid) for pid in _tree(service.process.pid)) / 1e6)
    return alone("idle memory", sums, unit="MB", mark=130)


def cold_start(*, quick: bool) -> Figure:
    """Return the time from starting the program, on a new data directory, to its first answer on health.

    Its files, and Python's compiled ones, are in the page cache from an earlier run.
    """
    times = []
    for _ in range(3 if quick else 8):
        with serving() as service:
            times.append(service.started_s)
    return alone("start to first answer", times[1:], unit="s", mark=1.5)


def _tree(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may contain any characters.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree = {pid}
    while children := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return tree


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    match = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    if match is None:
        raise RuntimeError("this kernel does not report the Pss of a process")
    return int(match[1]) * 1024
