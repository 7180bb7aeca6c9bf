"""What the service takes of a machine while it has nothing to do, and how soon it is there."""

import re
from pathlib import Path
from time import sleep

from benchmarks.figures import Figure, alone
from benchmarks.service import serving

_SETTLE_S = 3.0


def idle_memory(image: str, *, quick: bool) -> Figure:
    """Return the memory of all the service's processes, idle again after a first job.

    Shared pages are counted in parts (PSS), so that the sum is what the machine would get back.
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

    Its files are in the page cache from the run before; the caches of Python's compiler, too.
    """
    times = []
    for _ in range(3 if quick else 8):
        with serving() as service:
            times.append(service.started_s)
    return alone("start to first answer", times[1:], unit="s", mark=1.5)


def _tree(pid: int) -> set[int]:
    """Return a process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree = {pid}
    while found := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= found
    return tree


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    if found is None:
        raise RuntimeError("this kernel does not tell a process's share of memory")
    return int(found[1]) * 1024
