"""The memory of an idle service, and the time of its start."""

import contextlib
import re
import sqlite3
from pathlib import Path
from time import sleep

import docker

from benchmarks.figures import Figure, alone
from benchmarks.service import Service, serving

_SETTLE_S = 3.0


def idle_memory(image: str, *, quick: bool) -> list[Figure]:
    """Return the memory of all the service's processes, idle again after two jobs, with two warm containers.

    And that with the processes of these containers and of their shims, which belong to the engine. Shared
    pages count proportionally (PSS), so that the sum is the memory that would be freed.
    """
    ours, with_engine = [], []
    for _ in range(1 if quick else 3):
        with serving("--warm", "2") as service:
            client = service.client()
            for _ in range(2):
                client.wait(client.submit(image))
            client.wait_until_warm(2)
            client.close()
            sleep(_SETTLE_S)
            ours.append(sum(map(_pss_bytes, _tree(service.process.pid))) / 1e6)
            with_engine.append(ours[-1] + sum(map(_pss_bytes, _of_warm_containers(service))) / 1e6)
    return [
        alone("idle memory, 2 warm containers", ours, unit="MB", mark=130),
        alone("the same with the engine's part", with_engine, unit="MB", mark=160),
    ]


def _of_warm_containers(service: Service) -> set[int]:
    """Return the processes of containers that wait for jobs, and of their shims."""
    with contextlib.closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as database:
        (instance_id,) = database.execute("SELECT instance_id FROM instance").fetchone()
    labels = ["reactorcide.warm", f"reactorcide.instance={instance_id}"]
    engine = docker.APIClient(version="auto")
    pids = set()
    try:
        for container in engine.containers(filters={"label": labels}):
            init = int(engine.inspect_container(container["Id"])["State"]["Pid"])
            pids |= _tree(_parent(init))
    finally:
        engine.close()
    return pids


def _parent(pid: int) -> int:
    # The name, in parentheses, may contain any characters.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def cold_start(*, quick: bool) -> Figure:
    """Return the time from starting the program, on a new data directory, to its first answer on health.

    Its files, and Python's compiled ones, are in the page cache from an earlier run.
    """
    times = []
    for _ in range(3 if quick else 8):
        with serving() as service:
            times.append(service.started_s)
    return alone("start to first answer", times[1:], unit="s", mark=0.6)


def _tree(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = _parent(int(stat.parent.name))
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
